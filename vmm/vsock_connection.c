/* vsock_connection.c - see vsock_connection.h. */
#include "vmm/vsock_connection.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include "base/cleanup.h"
#include "vmm/io_vector.h"
#include "vmm/stats_counter.h"
#include "vmm/stats_page.h"

#define HOST_PORT_BASE 0x40000000u /* of connections to the guest; its ids follow */

/* --- the table --- */

static struct vsock_connection *end_of(struct vsock_table *table)
{
    return table->connections + VIRTIO_VSOCK_CONNECTIONS;
}

static bool tell_agent(struct vsock_table *table, enum vmm_message_type type, uint32_t id,
                       uint32_t port, int result)
{
    const struct vmm_vsock message = {
        .header = vmm_header(type, sizeof message),
        .id = id,
        .port = port,
        .result = result,
    };

    return table->spec.tell(table->spec.control, &message);
}

static void close_socket(struct vsock_connection *connection)
{
    connection->source = loop_remove(connection->source);
    cleanup_close(&connection->fd);
    free(take_pointer(connection->kept));
    connection->kept_bytes = 0;
    connection->forwarded = connection->received;
}

static void connection_free(struct vsock_connection *connection)
{
    struct vsock_table *table = connection->table;

    close_socket(connection);
    if (connection->awaited)
        (void)tell_agent(table, VMM_MESSAGE_VSOCK_CONNECTED, connection->agent_id, 0,
                         -ECONNREFUSED);
    if (connection->opened)
        stats_add(&table->spec.stats->closed, 1);
    connection->state = VSOCK_FREE;
}

/* NULL if there are too many. */
static struct vsock_connection *connection_new(struct vsock_table *table, enum vsock_state state)
{
    struct vsock_connection *found = NULL;
    unsigned asked = 0;

    vsock_table_free_dead(table);
    for (struct vsock_connection *connection = table->connections; connection < end_of(table);
         connection++) {
        asked += connection->state == VSOCK_ASKED;
        if (connection->state == VSOCK_FREE)
            found = connection;
    }
    if (!found || (state == VSOCK_ASKED && asked >= VIRTIO_VSOCK_ASKED_MAX))
        return NULL;
    *found = (struct vsock_connection){ .table = table, .state = state, .fd = -1 };
    found->id = table->next_id++ * VIRTIO_VSOCK_CONNECTIONS;
    found->id += (uint32_t)(found - table->connections);
    return found;
}

struct vsock_connection *vsock_find(struct vsock_table *table, uint32_t guest_port,
                                    uint32_t host_port)
{
    for (struct vsock_connection *connection = table->connections; connection < end_of(table);
         connection++) {
        if (connection->state >= VSOCK_ASKED && connection->state <= VSOCK_OPEN &&
            connection->guest_port == guest_port && connection->host_port == host_port)
            return connection;
    }
    return NULL;
}

static void connection_open(struct vsock_connection *connection)
{
    connection->state = VSOCK_OPEN;
    connection->opened = connection->readable = true;
    stats_add(&connection->table->spec.stats->connections, 1);
}

/* There is room: see VSOCK_RESETS_MAX. */
static void queue_reset(struct vsock_table *table, uint64_t host_cid, uint32_t host_port,
                        uint32_t guest_port)
{
    if (table->reset_count < VSOCK_RESETS_MAX)
        table->resets[table->reset_count++] = (struct virtio_vsock_hdr){
            .src_cid = host_cid,
            .dst_cid = table->spec.cid,
            .src_port = host_port,
            .dst_port = guest_port,
            .type = VIRTIO_VSOCK_TYPE_STREAM,
            .op = VIRTIO_VSOCK_OP_RST,
        };
}

/* Frees it; the guest is told if it knows of it. */
static void connection_reset(struct vsock_connection *connection)
{
    if (!(connection->pending & VSOCK_PENDING(VIRTIO_VSOCK_OP_REQUEST)))
        queue_reset(connection->table, VSOCK_HOST_CID, connection->host_port,
                    connection->guest_port);
    connection_free(connection);
}

void vsock_refuse(struct vsock_table *table, const struct virtio_vsock_hdr *header,
                  struct vsock_connection *connection)
{
    if (connection)
        connection_free(connection);
    if (header->op != VIRTIO_VSOCK_OP_RST)
        queue_reset(table, header->dst_cid, header->dst_port, header->src_port);
}

bool vsock_table_kill(struct vsock_table *table)
{
    bool any = false;

    table->reset_count = 0;
    for (struct vsock_connection *connection = table->connections; connection < end_of(table);
         connection++) {
        if (connection->state == VSOCK_FREE || connection->state == VSOCK_DEAD)
            continue;
        connection->state = VSOCK_DEAD;
        any = true;
    }
    return any;
}

void vsock_table_free_dead(struct vsock_table *table)
{
    for (struct vsock_connection *connection = table->connections; connection < end_of(table);
         connection++) {
        if (connection->state == VSOCK_DEAD)
            connection_free(connection);
    }
}

/* --- sockets --- */

/* The host's end is closed: nothing comes from there any more, or can be sent there. */
static void host_is_gone(struct vsock_connection *connection)
{
    close_socket(connection);
    connection->host_shut = VSOCK_SHUTDOWN_BOTH;
    connection->pending |= VSOCK_PENDING(VIRTIO_VSOCK_OP_SHUTDOWN);
}

/* Bytes taken; 0 also if it is closed that way: what is on its way is thrown away then. */
static uint32_t socket_send(struct vsock_connection *connection, struct iovec *vectors,
                            unsigned count)
{
    struct msghdr message = { .msg_iov = vectors, .msg_iovlen = count };
    ssize_t sent;

    do
        sent = sendmsg(connection->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && errno != EAGAIN) {
        connection->host_shut |= VIRTIO_VSOCK_SHUTDOWN_RCV;
        connection->pending |= VSOCK_PENDING(VIRTIO_VSOCK_OP_SHUTDOWN);
        connection->kept_bytes = 0;
        connection->forwarded = connection->received;
    }
    return sent > 0 ? (uint32_t)sent : 0;
}

/* The guest learns of it with half a window of news at the latest. */
static void count_forwarded(struct vsock_connection *connection, uint32_t bytes)
{
    connection->forwarded += bytes;
    if (connection->forwarded - connection->told >= VIRTIO_VSOCK_WINDOW / 2)
        connection->pending |= VSOCK_PENDING(VIRTIO_VSOCK_OP_CREDIT_UPDATE);
}

/* Writes what is kept; then, if the guest is done, says so, or ends. */
static void flush(struct vsock_connection *connection)
{
    uint32_t sent = 1;

    while (connection->kept_bytes > 0 && sent > 0) {
        struct iovec vector = { connection->kept + connection->kept_at, connection->kept_bytes };

        sent = socket_send(connection, &vector, 1);
        if (sent > 0) {
            connection->kept_at += sent;
            connection->kept_bytes -= sent;
            count_forwarded(connection, sent);
        }
    }
    if (connection->kept_bytes > 0)
        return;
    free(take_pointer(connection->kept));
    if (connection->state == VSOCK_DRAINING)
        connection_free(connection);
    else if ((connection->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND) && connection->fd >= 0)
        (void)shutdown(connection->fd, SHUT_WR);
}

void vsock_socket_ready(struct vsock_connection *connection, uint32_t events)
{
    connection->readable |= (events & ~(uint32_t)EPOLLOUT) != 0;
    connection->hung_up |= (events & (EPOLLHUP | EPOLLERR)) != 0;
    if (connection->state == VSOCK_DEAD ||
        (connection->state == VSOCK_DRAINING && connection->hung_up))
        connection_free(connection);
    else if (connection->state == VSOCK_OFFERED && connection->hung_up)
        connection_reset(connection);
    else if (connection->hung_up && ((connection->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV) ||
                                     (connection->host_shut & VIRTIO_VSOCK_SHUTDOWN_SEND)))
        host_is_gone(connection);
    else if (connection->kept_bytes > 0)
        flush(connection);
}

uint32_t vsock_may_send(const struct vsock_connection *connection)
{
    uint32_t under_way = connection->sent - connection->guest_taken;

    if (connection->state != VSOCK_OPEN || !connection->readable || connection->fd < 0 ||
        (connection->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV) ||
        (connection->host_shut & VIRTIO_VSOCK_SHUTDOWN_SEND))
        return 0;
    return under_way < connection->guest_window ? connection->guest_window - under_way : 0;
}

uint32_t vsock_read(struct vsock_connection *connection, struct iovec *vectors, unsigned count)
{
    struct msghdr message = { .msg_iov = vectors, .msg_iovlen = count };
    ssize_t size;

    do
        size = recvmsg(connection->fd, &message, MSG_DONTWAIT);
    while (size < 0 && errno == EINTR);
    if (size > 0) {
        connection->sent += (uint32_t)size;
        stats_add(&connection->table->spec.stats->rx_bytes, (uint64_t)size);
        return (uint32_t)size;
    }
    if (size < 0 && errno == EAGAIN) {
        connection->readable = false;
    } else if (size < 0 || connection->hung_up) {
        host_is_gone(connection);
    } else {
        connection->host_shut |= VIRTIO_VSOCK_SHUTDOWN_SEND;
        connection->pending |= VSOCK_PENDING(VIRTIO_VSOCK_OP_SHUTDOWN);
    }
    return 0;
}

/* Takes the fd; false if memory is short. */
static bool watch(struct vsock_connection *connection, int fd)
{
    connection->fd = fd;
    return loop_add(connection->table->loop, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                    connection->table->on_socket, connection, &connection->source, NULL) == 0;
}

/* --- the guest's packets --- */

void vsock_request(struct vsock_table *table, const struct virtio_vsock_hdr *header)
{
    struct vsock_connection *connection = connection_new(table, VSOCK_ASKED);

    if (connection) {
        connection->guest_port = header->src_port;
        connection->host_port = header->dst_port;
        connection->guest_window = header->buf_alloc;
        connection->guest_taken = header->fwd_cnt;
    }
    if (!connection ||
        !tell_agent(table, VMM_MESSAGE_VSOCK_REQUEST, connection->id, connection->host_port, 0))
        vsock_refuse(table, header, connection);
}

void vsock_response(struct vsock_connection *connection)
{
    connection_open(connection);
    connection->awaited = false;
    if (!tell_agent(connection->table, VMM_MESSAGE_VSOCK_CONNECTED, connection->agent_id, 0, 0))
        connection_reset(connection);
}

/* A guest that has closed its socket waits for a reset, which does not wait for the host's reader
 * (5.10.6.5). */
void vsock_shutdown(struct vsock_connection *connection, uint32_t flags)
{
    connection->guest_shut |= flags & VSOCK_SHUTDOWN_BOTH;
    if (connection->guest_shut == VSOCK_SHUTDOWN_BOTH && connection->kept_bytes == 0) {
        connection_reset(connection);
    } else if (connection->guest_shut == VSOCK_SHUTDOWN_BOTH) {
        queue_reset(connection->table, VSOCK_HOST_CID, connection->host_port,
                    connection->guest_port);
        connection->state = VSOCK_DRAINING;
    } else if (connection->guest_shut == VIRTIO_VSOCK_SHUTDOWN_RCV && connection->fd >= 0) {
        (void)shutdown(connection->fd, SHUT_RD);
    } else {
        flush(connection);
    }
}

static bool keep(struct vsock_connection *connection, const struct iovec *vectors, unsigned count,
                 uint32_t offset, uint32_t length)
{
    if (!connection->kept)
        connection->kept = malloc(VIRTIO_VSOCK_WINDOW);
    if (!connection->kept)
        return false;
    memmove(connection->kept, connection->kept + connection->kept_at, connection->kept_bytes);
    connection->kept_at = 0;
    io_vector_read(vectors, count, offset, connection->kept + connection->kept_bytes, length);
    connection->kept_bytes += length;
    return true;
}

bool vsock_write(struct vsock_connection *connection, struct iovec *vectors, unsigned count,
                 uint32_t length)
{
    uint32_t sent = 0;

    if ((connection->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND) ||
        length > VIRTIO_VSOCK_WINDOW - (connection->received - connection->forwarded))
        return false;
    connection->received += length;
    stats_add(&connection->table->spec.stats->tx_bytes, length);
    if (connection->kept_bytes == 0 && !(connection->host_shut & VIRTIO_VSOCK_SHUTDOWN_RCV) &&
        length > 0)
        sent = socket_send(connection, vectors, count);
    if (connection->host_shut & VIRTIO_VSOCK_SHUTDOWN_RCV) {
        /* It was told, and may not have heard yet. */
        connection->forwarded = connection->received;
        return true;
    }
    count_forwarded(connection, sent);
    return sent == length || keep(connection, vectors, count, sent, length - sent);
}

/* --- the agent's messages --- */

void vsock_connect(struct vsock_table *table, const struct vmm_vsock *message, int fd, bool is_live)
{
    struct vsock_connection *connection = is_live ? connection_new(table, VSOCK_OFFERED) : NULL;

    if (!connection) {
        cleanup_close(&fd);
        (void)tell_agent(table, VMM_MESSAGE_VSOCK_CONNECTED, message->id, 0,
                         is_live ? -EAGAIN : -ENOTCONN);
        return;
    }
    connection->awaited = true;
    connection->agent_id = message->id;
    connection->guest_port = message->port;
    connection->host_port = HOST_PORT_BASE | (connection->id & (HOST_PORT_BASE - 1));
    connection->pending = VSOCK_PENDING(VIRTIO_VSOCK_OP_REQUEST);
    if (!watch(connection, fd))
        connection_free(connection);
}

void vsock_answer(struct vsock_table *table, const struct vmm_vsock *message, int fd)
{
    struct vsock_connection *connection =
        &table->connections[message->id % VIRTIO_VSOCK_CONNECTIONS];

    if (connection->state != VSOCK_ASKED || connection->id != message->id) {
        cleanup_close(&fd); /* the guest has given up, or was reset */
    } else if (fd < 0 || !watch(connection, fd)) {
        connection_reset(connection);
    } else {
        connection_open(connection);
        connection->pending = VSOCK_PENDING(VIRTIO_VSOCK_OP_RESPONSE);
    }
}

void vsock_forget_agent(struct vsock_table *table)
{
    for (struct vsock_connection *connection = table->connections; connection < end_of(table);
         connection++) {
        connection->awaited = false;
        if (connection->state == VSOCK_ASKED || connection->state == VSOCK_OFFERED)
            connection_reset(connection);
    }
}
