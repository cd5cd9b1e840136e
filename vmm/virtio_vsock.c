/* virtio_vsock.c - see virtio_vsock.h.  The rings and packets; vsock_connection.c has the rest.
 *
 * What is to be said to the guest waits as bits of its connection, and resets of what has none in a
 * short list; when that is full, the transmit queue waits (5.10.6.1: bounded resources).  A reset
 * of the device, on a vCPU's thread, which may not touch sockets, only marks connections as dead.
 */
#include "vmm/virtio_vsock.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/loop.h"
#include "vmm/io_vector.h"
#include "vmm/transfer.h"
#include "vmm/virtio_device.h"
#include "vmm/virtio_pci.h"
#include "vmm/vsock_connection.h"

#define VSOCK_PCI_CLASS      0x078000
#define VSOCK_QUEUE_SIZE     128
#define VSOCK_FEATURE_STREAM (1ull << 0)
#define TURN_PACKETS         64 /* one way, then the other devices' turn */

enum { QUEUE_RECEIVE, QUEUE_TRANSMIT, QUEUE_EVENT, QUEUE_COUNT };

struct virtio_vsock {
    struct virtio_device *device; /* borrowed */
    unsigned turn;                /* which connection is served first */
    bool event_due;               /* the guest is to be told that connections are gone */
    bool transmit_waits;          /* for room among the resets */
    struct iovec vectors[VIRTQUEUE_SIZE_MAX], payload[VIRTQUEUE_SIZE_MAX];
    struct vsock_table table;
};

/* --- towards the guest --- */

/* Each call here that may put a packet answers as virtio_device_serve wants it: 1 if it did, 0 if
 * the guest has no buffer, -EAGAIN if there is nothing to say, -EPROTO. */
static int pop_buffer(struct virtio_vsock *vsock, struct virtqueue_chain *ret_chain)
{
    struct virtqueue *queue = virtio_device_queue(vsock->device, QUEUE_RECEIVE);
    int result = virtqueue_pop(queue, vsock->vectors, VIRTQUEUE_SIZE_MAX, ret_chain);

    if (result > 0 && (ret_chain->readable_count > 0 ||
                       io_vector_bytes(vsock->vectors, ret_chain->writable_count) <=
                           sizeof(struct virtio_vsock_hdr)))
        return -EPROTO;
    return result;
}

static void put_packet(struct virtio_vsock *vsock, const struct virtqueue_chain *chain,
                       const struct virtio_vsock_hdr *header)
{
    io_vector_write(vsock->vectors, chain->writable_count, 0, header, sizeof(*header));
    virtqueue_put(virtio_device_queue(vsock->device, QUEUE_RECEIVE), chain->head,
                  (uint32_t)sizeof(*header) + header->len);
}

static void put_operation(struct virtio_vsock *vsock, const struct virtqueue_chain *chain,
                          struct vsock_connection *connection, enum virtio_vsock_op operation,
                          uint32_t length)
{
    const struct virtio_vsock_hdr header = {
        .src_cid = VSOCK_HOST_CID,
        .dst_cid = vsock->table.spec.cid,
        .src_port = connection->host_port,
        .dst_port = connection->guest_port,
        .len = length,
        .type = VIRTIO_VSOCK_TYPE_STREAM,
        .op = operation,
        .flags = operation == VIRTIO_VSOCK_OP_SHUTDOWN ? connection->host_shut : 0,
        .buf_alloc = VIRTIO_VSOCK_WINDOW,
        .fwd_cnt = connection->forwarded,
    };

    connection->told = connection->forwarded;
    connection->pending &= (uint8_t)~VSOCK_PENDING(operation);
    connection->pending &= (uint8_t)~VSOCK_PENDING(VIRTIO_VSOCK_OP_CREDIT_UPDATE); /* told, too */
    put_packet(vsock, chain, &header);
}

static int deliver_reset(struct virtio_vsock *vsock)
{
    struct vsock_table *table = &vsock->table;
    struct virtqueue_chain chain;
    int result = pop_buffer(vsock, &chain);

    if (result <= 0)
        return result;
    put_packet(vsock, &chain, &table->resets[0]);
    memmove(table->resets, table->resets + 1, --table->reset_count * sizeof(table->resets[0]));
    return 1;
}

/* What it has to say, or else its data, read straight into the guest's buffer. */
static int deliver(struct virtio_vsock *vsock, struct vsock_connection *connection)
{
    uint32_t credit = vsock_may_send(connection), length = 0;
    struct virtqueue_chain chain;
    int result;

    if (!connection->pending && credit == 0)
        return -EAGAIN;
    result = pop_buffer(vsock, &chain);
    if (result <= 0)
        return result;
    if (!connection->pending) {
        memcpy(vsock->payload, vsock->vectors, chain.writable_count * sizeof(vsock->payload[0]));
        length = vsock_read(connection, vsock->payload,
                            io_vector_slice(vsock->payload, chain.writable_count,
                                            sizeof(struct virtio_vsock_hdr), credit));
    }
    if (length > 0) {
        put_operation(vsock, &chain, connection, VIRTIO_VSOCK_OP_RW, length);
    } else if (connection->pending) {
        put_operation(vsock, &chain, connection,
                      (enum virtio_vsock_op)__builtin_ctz(connection->pending), 0);
    } else {
        virtqueue_rewind(virtio_device_queue(vsock->device, QUEUE_RECEIVE), 1);
        return -EAGAIN;
    }
    return 1;
}

static int deliver_next(void *owner, unsigned queue)
{
    struct virtio_vsock *vsock = owner;

    (void)queue;
    if (vsock->table.reset_count > 0)
        return deliver_reset(vsock);
    for (unsigned i = 0; i < VIRTIO_VSOCK_CONNECTIONS; i++) {
        unsigned index = (vsock->turn + i) % VIRTIO_VSOCK_CONNECTIONS;
        struct vsock_connection *connection = &vsock->table.connections[index];
        int result = -EAGAIN;

        if (connection->state == VSOCK_OFFERED || connection->state == VSOCK_OPEN)
            result = deliver(vsock, connection);
        if (result != -EAGAIN) {
            vsock->turn = index + (result > 0); /* without a buffer it is still its turn */
            return result;
        }
    }
    return -EAGAIN;
}

static void receive(struct virtio_vsock *vsock)
{
    if (!virtio_device_is_live(vsock->device) ||
        !virtio_device_queue(vsock->device, QUEUE_RECEIVE)->enabled)
        return;
    virtio_device_serve(vsock->device, QUEUE_RECEIVE, deliver_next, TURN_PACKETS);
    if (vsock->transmit_waits && vsock->table.reset_count < VSOCK_RESETS_HOLD) {
        vsock->transmit_waits = false;
        virtio_device_kick(vsock->device, QUEUE_TRANSMIT);
    }
}

static void on_socket(void *context, uint32_t events)
{
    struct vsock_connection *connection = context;
    struct virtio_vsock *vsock = connection->table->owner;

    virtio_device_lock(vsock->device);
    vsock_socket_ready(connection, events);
    receive(vsock);
    virtio_device_unlock(vsock->device);
}

/* --- from the guest --- */

/* Of an open connection; false if it may not be. */
static bool on_open(struct vsock_connection *connection, const struct virtio_vsock_hdr *header,
                    struct iovec *vectors, unsigned count)
{
    switch (header->op) {
    case VIRTIO_VSOCK_OP_RW:
        return vsock_write(connection, vectors, count, header->len);
    case VIRTIO_VSOCK_OP_SHUTDOWN:
        vsock_shutdown(connection, header->flags);
        return true;
    case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
        connection->pending |= VSOCK_PENDING(VIRTIO_VSOCK_OP_CREDIT_UPDATE);
        return true;
    default:
        return header->op == VIRTIO_VSOCK_OP_CREDIT_UPDATE;
    }
}

/* The header is a copy; the vectors are its payload, of which there are `bytes`. */
static void on_packet(struct virtio_vsock *vsock, const struct virtio_vsock_hdr *header,
                      struct iovec *vectors, unsigned count, uint64_t bytes)
{
    struct vsock_table *table = &vsock->table;
    bool known = header->src_cid == table->spec.cid && header->dst_cid == VSOCK_HOST_CID;
    struct vsock_connection *connection =
        known ? vsock_find(table, header->src_port, header->dst_port) : NULL;
    bool good = known && header->type == VIRTIO_VSOCK_TYPE_STREAM && header->len <= bytes &&
                (header->len == 0 || header->op == VIRTIO_VSOCK_OP_RW);

    if (good && connection) {
        connection->guest_window = header->buf_alloc;
        connection->guest_taken = header->fwd_cnt;
    }
    if (good && !connection && header->op == VIRTIO_VSOCK_OP_REQUEST)
        vsock_request(table, header);
    else if (good && connection && connection->state == VSOCK_OFFERED &&
             header->op == VIRTIO_VSOCK_OP_RESPONSE &&
             !(connection->pending & VSOCK_PENDING(VIRTIO_VSOCK_OP_REQUEST)))
        vsock_response(connection);
    else if (!good || !connection || connection->state != VSOCK_OPEN ||
             !on_open(connection, header, vectors, count))
        vsock_refuse(table, header, connection);
}

/* virtio_device_serve */
static int transmit_one(void *owner, unsigned index)
{
    struct virtio_vsock *vsock = owner;
    struct virtqueue *queue = virtio_device_queue(vsock->device, index);
    struct virtqueue_chain chain;
    struct virtio_vsock_hdr header;
    uint64_t bytes;
    unsigned count;
    int result;

    vsock->transmit_waits = vsock->table.reset_count >= VSOCK_RESETS_HOLD;
    if (vsock->transmit_waits)
        return -EAGAIN;
    result = virtqueue_pop(queue, vsock->vectors, VIRTQUEUE_SIZE_MAX, &chain);
    if (result <= 0)
        return result;
    if (chain.writable_count > 0 ||
        !io_vector_read(vsock->vectors, chain.readable_count, 0, &header, sizeof(header)))
        return -EPROTO;
    bytes = io_vector_bytes(vsock->vectors, chain.readable_count) - sizeof(header);
    count = io_vector_slice(vsock->vectors, chain.readable_count, sizeof(header), header.len);
    on_packet(vsock, &header, vsock->vectors, count, bytes);
    virtqueue_put(queue, chain.head, 0);
    return 1;
}

static void transmit(struct virtio_vsock *vsock)
{
    virtio_device_serve(vsock->device, QUEUE_TRANSMIT, transmit_one, TURN_PACKETS);
    receive(vsock); /* the answers */
}

/* --- the device --- */

/* virtio_device_serve */
static int tell_event(void *owner, unsigned index)
{
    const struct virtio_vsock_event event = { VIRTIO_VSOCK_EVENT_TRANSPORT_RESET }; /* 5.10.6.7 */
    struct virtio_vsock *vsock = owner;
    struct virtqueue *queue = virtio_device_queue(vsock->device, index);
    struct virtqueue_chain chain;
    int result = -EAGAIN;

    if (vsock->event_due)
        result = virtqueue_pop(queue, vsock->vectors, VIRTQUEUE_SIZE_MAX, &chain);
    if (result <= 0)
        return result;
    if (chain.readable_count > 0 ||
        !io_vector_write(vsock->vectors, chain.writable_count, 0, &event, sizeof(event)))
        return -EPROTO;
    vsock->event_due = false;
    virtqueue_put(queue, chain.head, sizeof(event));
    return 1;
}

static void vsock_process_queue(void *owner, unsigned queue)
{
    struct virtio_vsock *vsock = owner;

    if (queue == QUEUE_RECEIVE)
        receive(vsock);
    else if (queue == QUEUE_TRANSMIT)
        transmit(vsock);
    else
        virtio_device_serve(vsock->device, queue, tell_event, 1);
}

static void vsock_read_config(void *owner, void *config)
{
    const struct virtio_vsock *vsock = owner;

    memcpy(config, &vsock->table.spec.cid, sizeof(vsock->table.spec.cid));
}

static void bury(void *context)
{
    struct virtio_vsock *vsock = context;

    virtio_device_lock(vsock->device);
    vsock_table_free_dead(&vsock->table);
    virtio_device_unlock(vsock->device);
}

/* Should memory for the post be short, the dead go when their sockets move, or the next connection
 * is made. */
static void vsock_reset_device(void *owner)
{
    struct virtio_vsock *vsock = owner;

    vsock->event_due = vsock->transmit_waits = false;
    if (vsock_table_kill(&vsock->table))
        (void)loop_post(vsock->table.loop, bury, vsock);
}

/* A snapshot has no connections; the guest it becomes is told so. */
static void vsock_transfer(void *owner, struct transfer *transfer)
{
    struct virtio_vsock *vsock = owner;

    vsock->event_due |= transfer->loading;
}

static void vsock_free(void *owner)
{
    struct virtio_vsock *vsock = owner;

    (void)vsock_table_kill(&vsock->table);
    vsock_table_free_dead(&vsock->table);
    free(vsock);
}

static const struct virtio_device_ops vsock_ops = {
    .name = "vsock",
    .device_id = VIRTIO_ID_VSOCK,
    .pci_class = VSOCK_PCI_CLASS,
    .queue_count = QUEUE_COUNT,
    .queue_size = VSOCK_QUEUE_SIZE,
    .config_bytes = sizeof(uint64_t),
    .features = VSOCK_FEATURE_STREAM,
    .read_config = vsock_read_config,
    .process_queue = vsock_process_queue,
    .transfer = vsock_transfer,
    .reset = vsock_reset_device,
    .free = vsock_free,
};

int virtio_vsock_add(struct pci_root *root, const struct virtio_vsock_spec *spec,
                     struct virtio_vsock **ret_vsock, struct error *err)
{
    struct virtio_vsock *vsock = calloc(1, sizeof(*vsock));
    int result;

    if (!vsock)
        return error_set(err, ENOMEM, "virtio vsock");
    vsock->table.spec = *spec;
    vsock->table.loop = pci_root_host(root)->loop;
    vsock->table.on_socket = on_socket;
    vsock->table.owner = vsock;
    result = virtio_pci_add(root, PCI_SLOT_ANY, &vsock_ops, vsock, &vsock->device, err);
    if (result == 0)
        *ret_vsock = vsock;
    return result;
}

void virtio_vsock_message(struct virtio_vsock *vsock, const struct vmm_vsock *message, int fd)
{
    virtio_device_lock(vsock->device);
    if (message->header.type == VMM_MESSAGE_VSOCK_ANSWER)
        vsock_answer(&vsock->table, message, fd);
    else if (fd >= 0)
        vsock_connect(&vsock->table, message, fd, virtio_device_is_live(vsock->device));
    virtio_device_kick(vsock->device, QUEUE_RECEIVE); /* later, if the guest is paused */
    virtio_device_unlock(vsock->device);
}

void virtio_vsock_forget(struct virtio_vsock *vsock)
{
    virtio_device_lock(vsock->device);
    vsock_forget_agent(&vsock->table);
    virtio_device_kick(vsock->device, QUEUE_RECEIVE);
    virtio_device_unlock(vsock->device);
}
