/* vsock_harness.h - the vsock device over virtio_harness.h with a driver that speaks packets, and
 * this test in the agent's place: what the VMM would tell it is kept in `told`. */
#pragma once
#include "tests/unit/virtio_harness.h"
#include <fcntl.h>
#include <sys/socket.h>
#include "vmm/stats_page.h"
#include "vmm/virtio_vsock.h"
#include "vmm/vsock_connection.h"

#define CID          42u
#define GUEST_PORT   1000
#define HOST_PORT    5000
#define RX           0
#define TX           1
#define EVENT        2
#define VSOCK_RING   64
#define BUFFER(n)    (DATA_BASE + (n)*0x2000ull)
#define BUFFER_BYTES 0x1000u
#define PACKET       (DATA_BASE + 0x100000ull)
#define TOLD_MAX     128

struct control {
    bool deaf; /* the agent is told nothing */
    struct vmm_vsock told[TOLD_MAX];
    unsigned told_count;
};

struct vsock_fixture {
    struct harness h;
    struct stats_vsock stats;
    struct virtio_vsock *vsock;
    struct control control;
    unsigned told_seen;
    int send_bytes; /* what a host's socket takes before it is read; 0 = as the kernel has it */
};

static inline bool vsock_tell(struct control *control, const struct vmm_vsock *message)
{
    if (control->deaf)
        return false;
    control->told[control->told_count++ % TOLD_MAX] = *message;
    return true;
}

static inline void vsock_open(struct vsock_fixture *f)
{
    const struct virtio_vsock_spec spec = { CID, &f->stats, vsock_tell, &f->control };

    assert_int_equal(virtio_vsock_add(f->h.root, &spec, &f->vsock, &f->h.err), 0);
}

static inline int vsock_set_up(void **state)
{
    struct vsock_fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    harness_open(&f->h);
    vsock_open(f);
    *state = f;
    return 0;
}

/* What is kept does not fit into the socket at once. */
static inline int vsock_set_up_by_and_by(void **state)
{
    int result = vsock_set_up(state);

    ((struct vsock_fixture *)*state)->send_bytes = 8192;
    return result;
}

static inline int vsock_tear_down(void **state)
{
    struct vsock_fixture *f = *state;

    harness_close(&f->h);
    free(f);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, vsock_set_up, vsock_tear_down)
#define BY_AND_BY(name) \
    cmocka_unit_test_setup_teardown(name, vsock_set_up_by_and_by, vsock_tear_down)

static inline bool is_closed(int fd)
{
    char byte;

    return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

static inline void vsock_offer(struct vsock_fixture *f, unsigned count, uint32_t size)
{
    for (unsigned i = 0; i < count; i++) {
        const struct ring_buffer buffer = { BUFFER(f->h.rings[RX].next_descriptor), size,
                                            RING_WRITE };

        ring_offer(&f->h, RX, &buffer, 1);
    }
    ring_kick(&f->h, RX);
}

/* A driver that has offered all its buffers. */
static inline void vsock_start(struct vsock_fixture *f)
{
    driver_start(&f->h, 0, VSOCK_RING);
    vsock_offer(f, VSOCK_RING, BUFFER_BYTES);
}

static inline struct virtio_vsock_hdr vsock_packet(uint32_t guest_port, uint32_t host_port,
                                                   uint16_t operation)
{
    return (struct virtio_vsock_hdr){ .src_cid = CID,
                                      .dst_cid = VSOCK_HOST_CID,
                                      .src_port = guest_port,
                                      .dst_port = host_port,
                                      .type = VIRTIO_VSOCK_TYPE_STREAM,
                                      .op = operation,
                                      .buf_alloc = 0x20000 };
}

/* Header and payload as two descriptors; the chain comes back unless the device stopped. */
static inline bool vsock_send(struct vsock_fixture *f, const struct virtio_vsock_hdr *header,
                              const void *bytes, uint32_t size)
{
    const struct ring_buffer buffers[] = { { PACKET, sizeof(*header), 0 },
                                           { PACKET + 0x1000, size, 0 } };
    uint32_t head, used;

    guest_put(&f->h, PACKET, header, sizeof(*header));
    if (size > 0)
        guest_put(&f->h, PACKET + 0x1000, bytes, size);
    ring_offer(&f->h, TX, buffers, size > 0 ? 2 : 1);
    ring_kick(&f->h, TX);
    return ring_take(&f->h, TX, &head, &used);
}

static inline void vsock_send_operation(struct vsock_fixture *f, uint32_t guest_port,
                                        uint32_t host_port, uint16_t operation, uint32_t flags)
{
    struct virtio_vsock_hdr header = vsock_packet(guest_port, host_port, operation);

    header.flags = flags;
    assert_true(vsock_send(f, &header, NULL, 0));
}

static inline bool vsock_send_data(struct vsock_fixture *f, uint32_t guest_port, uint32_t host_port,
                                   const void *bytes, uint32_t size)
{
    struct virtio_vsock_hdr header = vsock_packet(guest_port, host_port, VIRTIO_VSOCK_OP_RW);

    header.len = size;
    return vsock_send(f, &header, bytes, size);
}

/* The next packet for the guest; its buffer is offered again.  False if there is none. */
static inline bool vsock_take(struct vsock_fixture *f, struct virtio_vsock_hdr *ret_header,
                              void *ret_bytes)
{
    uint32_t head, used;

    *ret_header = (struct virtio_vsock_hdr){ 0 };
    harness_run(&f->h);
    if (!ring_take(&f->h, RX, &head, &used))
        return false;
    guest_get(&f->h, BUFFER(head), ret_header, sizeof(*ret_header));
    assert_int_equal(used, sizeof(*ret_header) + ret_header->len);
    assert_int_equal(ret_header->dst_cid, CID);
    if (ret_bytes && ret_header->len > 0)
        guest_get(&f->h, BUFFER(head) + sizeof(*ret_header), ret_bytes, ret_header->len);
    return true;
}

static inline void assert_packet(struct vsock_fixture *f, uint32_t guest_port, uint32_t host_port,
                                 uint16_t operation, uint32_t flags)
{
    struct virtio_vsock_hdr header = { 0 };

    assert_true(vsock_take(f, &header, NULL));
    assert_int_equal(header.src_port, host_port);
    assert_int_equal(header.dst_port, guest_port);
    assert_int_equal(header.op, operation);
    assert_int_equal(header.flags, flags);
    vsock_offer(f, 1, BUFFER_BYTES);
}

static inline void assert_no_packet(struct vsock_fixture *f)
{
    struct virtio_vsock_hdr header;

    assert_false(vsock_take(f, &header, NULL));
}

/* What the agent is told next. */
static inline struct vmm_vsock assert_told(struct vsock_fixture *f, enum vmm_message_type type,
                                           int result)
{
    struct vmm_vsock message;

    assert_true(f->told_seen < f->control.told_count);
    message = f->control.told[f->told_seen++ % TOLD_MAX];
    assert_int_equal(message.header.type, type);
    assert_int_equal(message.header.size, sizeof(message));
    assert_int_equal(message.result, result);
    return message;
}

/* fd is taken; -1 = none. */
static inline void vsock_say(struct vsock_fixture *f, enum vmm_message_type type, uint32_t id,
                             uint32_t port, int fd)
{
    const struct vmm_vsock message = { .header = { type, VMM_PROTOCOL_VERSION, sizeof(message), 0 },
                                       .id = id,
                                       .port = port };

    virtio_vsock_message(f->vsock, &message, fd);
    harness_run(&f->h);
}

/* The device's is the second: whose it was may have left it a blocking one. */
static inline void vsock_pair(int ret_fds[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret_fds),
                     0);
    assert_int_equal(fcntl(ret_fds[1], F_SETFL, 0), 0);
}

/* The guest connects; the host's end. */
static inline int vsock_connect_host(struct vsock_fixture *f, uint32_t guest_port,
                                     uint32_t host_port)
{
    int pair[2];
    struct vmm_vsock request;

    vsock_pair(pair);
    if (f->send_bytes)
        assert_int_equal(
            setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &f->send_bytes, sizeof(f->send_bytes)), 0);
    vsock_send_operation(f, guest_port, host_port, VIRTIO_VSOCK_OP_REQUEST, 0);
    request = assert_told(f, VMM_MESSAGE_VSOCK_REQUEST, 0);
    assert_int_equal(request.port, host_port);
    vsock_say(f, VMM_MESSAGE_VSOCK_ANSWER, request.id, 0, pair[1]);
    assert_packet(f, guest_port, host_port, VIRTIO_VSOCK_OP_RESPONSE, 0);
    return pair[0];
}

static inline void assert_reads(int fd, const char *text)
{
    char bytes[256];
    ssize_t size = read(fd, bytes, sizeof(bytes));

    assert_int_equal(size, strlen(text));
    assert_memory_equal(bytes, text, strlen(text));
}

static inline void vsock_fill(uint8_t *bytes, size_t size, size_t from)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)((from + i) * 7 + (from + i) / 251);
}

/* Sends until the window is full; how many bytes. */
static inline uint32_t send_window(struct vsock_fixture *f, uint32_t from, uint32_t window)
{
    uint8_t bytes[8192];
    uint32_t sent = 0;

    while (sent < window) {
        uint32_t part = window - sent < sizeof(bytes) ? window - sent : sizeof(bytes);

        vsock_fill(bytes, part, from + sent);
        assert_true(vsock_send_data(f, GUEST_PORT, HOST_PORT, bytes, part));
        sent += part;
    }
    return sent;
}

/* The newest `taken` that the guest was told. */
static inline uint32_t taken_told(struct vsock_fixture *f, uint32_t before)
{
    struct virtio_vsock_hdr header;

    while (vsock_take(f, &header, NULL)) {
        assert_int_equal(header.op, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
        before = header.fwd_cnt;
        vsock_offer(f, 1, BUFFER_BYTES);
    }
    return before;
}
