/* vsock.c - see vsock.h.  Virtio 1.2, 5.10.  A few connections, each with a small buffer of what
 * came and was not sent back yet, which is also the credit it gives. */
#include "tests/guest/vsock.h"
#include <stddef.h>
#include "tests/guest/apic.h"
#include "tests/guest/console.h"
#include "tests/guest/text.h"
#include "tests/guest/virtio.h"

#define HOST_CID        2
#define TYPE_STREAM     1
#define RECEIVE_BUFFERS 16
#define PACKET_BYTES    4096
#define WINDOW          8192
#define CONNECTIONS     20
#define TIMEOUT         (5 * SECOND)
#define NO_SEND         2
#define NO_MORE         3
#define LOCAL_PORT      9000 /* of connections to the host, counting up */

enum { REQUEST = 1, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST };
enum { RECEIVE, TRANSMIT, EVENT };

struct __attribute__((packed)) header {
    uint64_t source_cid, target_cid;
    uint32_t source_port, target_port;
    uint32_t length;
    uint16_t type, operation;
    uint32_t flags, window, taken;
};

struct connection {
    enum { FREE, ASKED, OPEN } state;
    bool echoes, ending,
        closing; /* ending: the host sends no more; closing: we have said so, too */
    uint32_t local_port, host_port;
    uint32_t sent, host_window, host_taken;
    uint32_t taken; /* of what came */
    uint32_t bytes;
    uint8_t kept[WINDOW + 1]; /* a NUL may be put behind */
};

static struct virtio_device device;
static struct virtqueue receive, transmit, events;
static bool is_open;
static uint64_t cid;
static uint32_t listening; /* port; 0 = none */
static uint32_t event;
static struct connection connections[CONNECTIONS];
static uint8_t buffers[RECEIVE_BUFFERS][PACKET_BYTES];
static uint8_t packet[PACKET_BYTES];

static bool open_device(unsigned index)
{
    if (is_open)
        return true;
    if (!virtio_open(&device, "vsock", VIRTIO_VSOCK, index, 0) ||
        !virtio_add_queue(&device, &receive, RECEIVE) ||
        !virtio_add_queue(&device, &transmit, TRANSMIT) ||
        !virtio_add_queue(&device, &events, EVENT))
        return false;
    virtio_start(&device);
    cid = *(volatile uint64_t *)device.config;
    for (uint16_t i = 0; i < RECEIVE_BUFFERS; i++) {
        receive.descriptors[i] = (struct virtqueue_descriptor){ (uintptr_t)buffers[i], PACKET_BYTES,
                                                                DESCRIPTOR_WRITE, 0 };
        virtqueue_submit(&receive, i, i == RECEIVE_BUFFERS - 1);
    }
    events.descriptors[0] =
        (struct virtqueue_descriptor){ (uintptr_t)&event, sizeof(event), DESCRIPTOR_WRITE, 0 };
    virtqueue_submit(&events, 0, true);
    is_open = true;
    return true;
}

/* The payload is behind the header in `packet`. */
static void send(uint32_t local_port, uint32_t host_port, uint16_t operation, uint32_t flags,
                 uint32_t taken, uint32_t length)
{
    struct virtqueue_used_element element;

    *(struct header *)packet = (struct header){ .source_cid = cid,
                                                .target_cid = HOST_CID,
                                                .source_port = local_port,
                                                .target_port = host_port,
                                                .length = length,
                                                .type = TYPE_STREAM,
                                                .operation = operation,
                                                .flags = flags,
                                                .window = WINDOW,
                                                .taken = taken };
    transmit.descriptors[0] =
        (struct virtqueue_descriptor){ (uintptr_t)packet, (uint32_t)sizeof(struct header) + length,
                                       0, 0 };
    virtqueue_submit(&transmit, 0, true);
    if (!virtqueue_wait(&transmit, TIMEOUT, &element))
        console_print("vsock transmit timeout\n");
}

static void say(const struct connection *connection, uint16_t operation, uint32_t flags)
{
    send(connection->local_port, connection->host_port, operation, flags, connection->taken, 0);
}

static struct connection *make(uint32_t local_port, uint32_t host_port)
{
    for (unsigned i = 0; i < CONNECTIONS; i++) {
        if (connections[i].state != FREE)
            continue;
        connections[i].state = ASKED;
        connections[i].local_port = local_port;
        connections[i].host_port = host_port;
        connections[i].echoes = connections[i].ending = connections[i].closing = false;
        connections[i].sent = connections[i].taken = connections[i].bytes = 0;
        return &connections[i];
    }
    return NULL;
}

static struct connection *find(uint32_t local_port, uint32_t host_port)
{
    for (unsigned i = 0; i < CONNECTIONS; i++)
        if (connections[i].state != FREE && connections[i].local_port == local_port &&
            connections[i].host_port == host_port)
            return &connections[i];
    return NULL;
}

/* How many of so many bytes may be sent now, as the host's credit and a packet allow. */
static uint32_t may_send(const struct connection *connection, uint32_t size)
{
    uint32_t credit = connection->host_window - (connection->sent - connection->host_taken);
    uint32_t room = PACKET_BYTES - sizeof(struct header);

    size = size < credit ? size : credit;
    return size < room ? size : room;
}

static void send_data(struct connection *connection, const void *bytes, uint32_t size)
{
    memcpy(packet + sizeof(struct header), bytes, size);
    connection->sent += size;
    send(connection->local_port, connection->host_port, RW, 0, connection->taken, size);
}

/* Sends back what there is, then, if the host has ended, ends too. */
static void echo(struct connection *connection)
{
    while (connection->state == OPEN && connection->bytes > 0) {
        uint32_t size = may_send(connection, connection->bytes);

        if (size == 0)
            return;
        connection->taken += size; /* told by the same packet */
        send_data(connection, connection->kept, size);
        connection->bytes -= size;
        memcpy(connection->kept, connection->kept + size, connection->bytes);
    }
    if (connection->ending && !connection->closing) {
        connection->closing = true;
        say(connection, SHUTDOWN, NO_MORE);
    }
}

static void accept(const struct header *header)
{
    struct connection *connection = make(header->target_port, header->source_port);

    if (connection == NULL) {
        send(header->target_port, header->source_port, RST, 0, 0, 0);
        return;
    }
    connection->state = OPEN;
    connection->echoes = true;
    connection->host_window = header->window;
    connection->host_taken = header->taken;
    say(connection, RESPONSE, 0);
    console_print("vsock accepted\n");
}

static void handle_known(struct connection *connection, const struct header *header,
                         const uint8_t *bytes)
{
    connection->host_window = header->window;
    connection->host_taken = header->taken;
    switch (header->operation) {
    case RESPONSE:
        connection->state = OPEN;
        break;
    case RST:
        connection->state = FREE;
        console_print("vsock closed\n");
        return;
    case SHUTDOWN:
        connection->ending = connection->ending || (header->flags & NO_SEND) != 0;
        break;
    case RW:
        if (header->length > WINDOW - connection->bytes) {
            console_print("vsock window exceeded\n");
            break;
        }
        memcpy(connection->kept + connection->bytes, bytes, header->length);
        connection->bytes += header->length;
        break;
    case CREDIT_REQUEST:
        say(connection, CREDIT_UPDATE, 0);
        break;
    }
    if (connection->echoes)
        echo(connection);
}

static void handle(const struct header *header, const uint8_t *bytes)
{
    struct connection *connection = find(header->target_port, header->source_port);

    if (header->source_cid != HOST_CID || header->target_cid != cid ||
        header->type != TYPE_STREAM || header->length > PACKET_BYTES - sizeof(*header))
        console_print("vsock bad packet\n");
    else if (connection != NULL)
        handle_known(connection, header, bytes);
    else if (header->operation == REQUEST && listening != 0 && header->target_port == listening)
        accept(header);
    else if (header->operation != RST)
        send(header->target_port, header->source_port, RST, 0, 0, 0);
}

/* A restored guest: the connections were another's. */
static void take_event(void)
{
    struct virtqueue_used_element element;

    if (!virtqueue_take(&events, &element))
        return;
    cid = *(volatile uint64_t *)device.config;
    console_print("vsock event %u cid %u\n", (uint64_t)event, cid);
    for (unsigned i = 0; i < CONNECTIONS; i++)
        connections[i].state = FREE;
    virtqueue_submit(&events, 0, true);
}

static void take_packets(void)
{
    struct virtqueue_used_element element;

    take_event();
    while (virtqueue_take(&receive, &element)) {
        const uint8_t *bytes = buffers[element.id % RECEIVE_BUFFERS];

        handle((const struct header *)bytes, bytes + sizeof(struct header));
        virtqueue_submit(&receive, (uint16_t)element.id, true);
    }
}

static void echo_for_ever(struct guest *guest)
{
    for (;;) {
        take_packets();
        guest_wait(guest, 20 * MILLISECOND);
    }
}

/* Waits for the state, or for so many bytes, or for neither any more. */
static bool await(struct guest *guest, struct connection *connection, bool open, uint32_t bytes)
{
    uint64_t deadline = clock_ns() + TIMEOUT;

    for (;;) {
        take_packets();
        if (connection->state == (open ? OPEN : FREE) && (!open || connection->bytes >= bytes))
            return true;
        if (connection->state == FREE || clock_ns() > deadline)
            return false;
        guest_wait(guest, MILLISECOND);
    }
}

static struct connection *connect(struct guest *guest, uint32_t port)
{
    static uint32_t next = LOCAL_PORT;
    struct connection *connection = make(next++, port);

    if (connection == NULL)
        return NULL;
    say(connection, REQUEST, 0);
    if (await(guest, connection, true, 0))
        return connection;
    console_print("vsock connect %u %s\n", (uint64_t)port,
                  connection->state == FREE ? "refused" : "timeout");
    connection->state = FREE;
    return NULL;
}

static void talk(struct guest *guest, uint32_t port, const char *text)
{
    struct connection *connection = connect(guest, port);
    uint32_t size = 0;

    if (connection == NULL)
        return;
    while (text[size] != '\0')
        size++;
    send_data(connection, text, may_send(connection, size));
    if (!await(guest, connection, true, size)) {
        console_print("vsock talk %u timeout\n", (uint64_t)port);
        return;
    }
    connection->kept[connection->bytes] = '\0';
    console_print("vsock talk %u ok %s\n", (uint64_t)port, (const char *)connection->kept);
    say(connection, SHUTDOWN, NO_MORE);
    if (!await(guest, connection, false, 0))
        console_print("vsock close timeout\n");
}

void vsock_run(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    uint64_t port = 0;
    struct connection *connection;

    if (count < 2 || !text_number(arguments[1], &port)) {
        console_print("vsock usage\n");
        return;
    }
    if (!open_device(index))
        return;
    if (text_equal(arguments[0], "echo")) {
        listening = (uint32_t)port;
        console_print("vsock echo %u cid %u\n", port, cid);
        echo_for_ever(guest);
    } else if (text_equal(arguments[0], "join")) {
        connection = connect(guest, (uint32_t)port);
        if (connection == NULL)
            return;
        connection->echoes = true;
        console_print("vsock joined %u\n", port);
        echo(connection);
    } else if (text_equal(arguments[0], "talk") && count == 3) {
        talk(guest, (uint32_t)port, arguments[2]);
    } else {
        console_print("vsock usage\n");
    }
}
