/* fuzz_virtio_vsock.c - the vsock device under a hostile driver (fuzz_machine.h), with an agent
 * that accepts, refuses and asks, and hosts that write, read and leave. */
#include "tests/fuzz/fuzz_machine.h"
#include "base/cleanup.h"
#include "tests/unit/vsock_harness.h"

#define HOSTS 8

struct vsock_fuzz {
    struct vsock_fixture f;
    int hosts[HOSTS]; /* our ends */
    unsigned next;
};

static void take_host(struct vsock_fuzz *v, int fd)
{
    int *place = &v->hosts[v->next++ % HOSTS];

    if (*place >= 0)
        close(*place);
    *place = fd;
}

static void agent_says(struct fuzz_machine *m, enum vmm_message_type type, uint32_t id)
{
    struct vsock_fuzz *v = m->device;
    struct vmm_vsock message = { .header = { type, 1, sizeof(message), 0 }, .id = id };
    int pair[2] = { -1, -1 }, little = 1;

    if (fuzz_take(&m->input, 1) & 3) {
        FUZZ_REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
        (void)setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &little, sizeof(little)); /* soon full */
        take_host(v, pair[0]);
    }
    message.port = (uint32_t)fuzz_take(&m->input, 1) & 3;
    virtio_vsock_message(v->f.vsock, &message, pair[1]);
}

static void host_does(struct fuzz_machine *m)
{
    static const uint8_t zeroes[4096];
    struct vsock_fuzz *v = m->device;
    int *fd = &v->hosts[fuzz_take(&m->input, 1) % HOSTS];
    uint8_t bytes[4096];

    switch (fuzz_take(&m->input, 1) % 6) {
    case 0:
        (void)send(*fd, zeroes, fuzz_take(&m->input, 2) % sizeof(zeroes) + 1, MSG_NOSIGNAL);
        break;
    case 1:
        while (recv(*fd, bytes, sizeof(bytes), 0) > 0)
            continue;
        break;
    case 2:
        (void)shutdown(*fd, SHUT_WR);
        break;
    case 3:
        cleanup_close(fd);
        break;
    case 4:
        virtio_vsock_forget(v->f.vsock);
        break;
    default:
        v->f.control.deaf = !v->f.control.deaf;
        break;
    }
}

/* Few ports, so that they meet: the first of the host's own among them. */
static void guest_sends(struct fuzz_machine *m)
{
    uint8_t how = (uint8_t)fuzz_take(&m->input, 1), port = (uint8_t)fuzz_take(&m->input, 1);
    struct virtio_vsock_hdr header = {
        .src_cid = how & 0x80 ? fuzz_take(&m->input, 8) : CID,
        .dst_cid = VSOCK_HOST_CID,
        .src_port = port & 3,
        .dst_port = port & 4 ? 0x40000000u + (port >> 5) * 64 + 63 - (port >> 3 & 3) : port >> 6,
        .type = how & 0x40 ? (uint16_t)fuzz_take(&m->input, 2) : VIRTIO_VSOCK_TYPE_STREAM,
        .op = how & 15,
        .flags = how >> 4 & 3,
        .buf_alloc = fuzz_length(m),
        .fwd_cnt = (uint32_t)fuzz_take(&m->input, 2),
    };
    const struct ring_buffer buffers[] = { { PACKET, sizeof(header), 0 },
                                           { PACKET + 0x1000, fuzz_length(m), 0 } };

    header.len = header.op == VIRTIO_VSOCK_OP_RW ? buffers[1].length : 0;
    guest_put(&m->h, PACKET, &header, sizeof(header));
    ring_offer(&m->h, TX, buffers, header.len > 0 ? 2 : 1);
    mmio_put(&m->h,
             bar_address(&m->h, 0) + VIRTIO_PCI_NOTIFY_OFFSET + TX * VIRTIO_PCI_NOTIFY_STRIDE, 2,
             TX);
}

static void guest_offers(struct fuzz_machine *m)
{
    uint8_t how = (uint8_t)fuzz_take(&m->input, 1);
    const struct ring_buffer buffer = { BUFFER(how % FUZZ_RING_SIZE),
                                        how & 0x80 ? fuzz_length(m) : BUFFER_BYTES, RING_WRITE };

    ring_offer(&m->h, how & 0x40 ? EVENT : RX, &buffer, 1);
    ring_notify(&m->h, 0);
}

static void vsock_step(struct fuzz_machine *m)
{
    struct vsock_fuzz *v = m->device;

    switch (fuzz_take(&m->input, 1) % 8) {
    case 0:
        agent_says(m, VMM_MESSAGE_VSOCK_CONNECT, (uint32_t)fuzz_take(&m->input, 1));
        break;
    case 1:
        if (v->f.control.told_count > 0)
            agent_says(m, VMM_MESSAGE_VSOCK_ANSWER,
                       v->f.control.told[(v->f.control.told_count - 1) % TOLD_MAX].id +
                           (uint32_t)(fuzz_take(&m->input, 1) & 1));
        break;
    case 2:
    case 3:
        host_does(m);
        break;
    case 4:
        guest_offers(m);
        break;
    default:
        guest_sends(m);
        break;
    }
    fuzz_turns(m);
}

/* A connection is made, carries bytes both ways and ends. */
static void vsock_probe(struct fuzz_machine *m)
{
    struct vsock_fuzz *v = m->device;
    struct vsock_fixture *f = &v->f;
    int fd;

    f->h = m->h;
    f->control.deaf = false;
    f->told_seen = f->control.told_count;
    vsock_offer(f, 4, BUFFER_BYTES);
    fd = vsock_connect_host(f, GUEST_PORT, HOST_PORT);
    FUZZ_REQUIRE(vsock_send_data(f, GUEST_PORT, HOST_PORT, "probe", 5));
    assert_reads(fd, "probe");
    FUZZ_REQUIRE(write(fd, "probe", 5) == 5);
    assert_packet(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_RW, 0);
    close(fd);
    assert_packet(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_BOTH);
    vsock_send_operation(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_BOTH);
    assert_packet(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_RST, 0);
    FUZZ_REQUIRE(f->stats.connections == f->stats.closed);
    m->h = f->h;
}

FUZZ_TARGET(virtio_vsock)
{
    struct vsock_fuzz v = { .hosts = { -1, -1, -1, -1, -1, -1, -1, -1 } };
    struct fuzz_machine m = { .step = vsock_step, .probe = vsock_probe, .device = &v };

    harness_open_on(&m.h, -1, -1);
    v.f.h = m.h;
    vsock_open(&v.f);
    FUZZ_REQUIRE(fuzz_start(&m, 0));
    for (unsigned i = 0; i < FUZZ_RING_SIZE; i++)
        ring_offer(&m.h, RX, &(struct ring_buffer){ BUFFER(i), BUFFER_BYTES, RING_WRITE }, 1);
    ring_kick(&m.h, RX);
    fuzz_run(&m, bytes, size);
    harness_close(&m.h);
    for (unsigned i = 0; i < HOSTS; i++)
        cleanup_close(&v.hosts[i]);
    return 0;
}
