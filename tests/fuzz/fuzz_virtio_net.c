/* fuzz_virtio_net.c - the network device under a hostile driver (fuzz_machine.h), over a real tap
 * in a network namespace of the process's own; a packet socket on it is the host's end. */
#include "tests/fuzz/fuzz_machine.h"
#include "tests/unit/tap_harness.h"
#include "vmm/stats_page.h"
#include "vmm/virtio_net.h"
#include "vmm/virtio_net_header.h"

#define RX      0
#define TX      1
#define PAIRS   2
#define CONTROL (2 * PAIRS)

/* One tap for all inputs: closing one takes the kernel 20 ms. */
static const struct tap_harness *host_get(void)
{
    static struct tap_harness host;
    static bool tried, good;

    if (!tried)
        good = tap_harness_enter() && tap_harness_open_queues(&host, PAIRS);
    tried = true;
    return good ? &host : NULL;
}

static void net_step_receive(struct fuzz_machine *m)
{
    uint8_t how = (uint8_t)fuzz_take(&m->input, 1);
    struct ring_buffer buffer = { .flags = RING_WRITE };

    if (how & 1) {
        (void)tap_host_send(m->device, fuzz_take(&m->input, 2));
    } else {
        buffer.address = fuzz_address(m);
        buffer.length = fuzz_length(m);
        ring_offer(&m->h, RX, &buffer, 1);
    }
    if (how & 2)
        mmio_put(&m->h, bar_address(&m->h, 0) + VIRTIO_PCI_NOTIFY_OFFSET, 2, 0);
    fuzz_turns(m);
}

static void net_step_transmit(struct fuzz_machine *m)
{
    static const uint8_t broadcast[14] = {
        255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, TAP_TYPE >> 8, TAP_TYPE & 0xff
    };
    const struct net_header header = {
        .flags = (uint8_t)fuzz_take(&m->input, 1),
        .gso_type = (uint8_t)fuzz_take(&m->input, 1),
        .header_length = (uint16_t)fuzz_take(&m->input, 2),
        .gso_size = (uint16_t)fuzz_take(&m->input, 2),
        .csum_start = (uint16_t)fuzz_take(&m->input, 2),
        .csum_offset = (uint16_t)fuzz_take(&m->input, 2),
    };
    const struct ring_buffer buffers[] = {
        { DATA_BASE, sizeof(header), 0 },
        { DATA_BASE + 0x1000, fuzz_length(m), 0 },
    };

    guest_put(&m->h, DATA_BASE, &header, sizeof(header));
    guest_put(&m->h, DATA_BASE + 0x1000, broadcast, sizeof(broadcast));
    ring_offer(&m->h, TX, buffers, 2);
    mmio_put(&m->h,
             bar_address(&m->h, 0) + VIRTIO_PCI_NOTIFY_OFFSET + TX * VIRTIO_PCI_NOTIFY_STRIDE, 2,
             TX);
    fuzz_turns(m);
}

/* A command of any size, mostly for the pairs, to where control is with them or without. */
static void net_step_control(struct fuzz_machine *m)
{
    uint8_t how = (uint8_t)fuzz_take(&m->input, 1);
    unsigned queue = how & 1 ? 2 : CONTROL;
    const uint8_t command[4] = { how & 2 ? (uint8_t)fuzz_take(&m->input, 1) : 4,
                                 how & 4 ? (uint8_t)fuzz_take(&m->input, 1) : 0,
                                 (uint8_t)fuzz_take(&m->input, 1), how >> 7 };
    const struct ring_buffer buffers[] = {
        { DATA_BASE, how & 8 ? fuzz_length(m) : 4, how & 16 ? RING_WRITE : 0 },
        { DATA_BASE + 0x1000, how & 32 ? fuzz_length(m) : 1, how & 64 ? 0 : RING_WRITE },
    };

    guest_put(&m->h, DATA_BASE, command, sizeof(command));
    ring_offer(&m->h, queue, buffers, 2);
    mmio_put(&m->h,
             bar_address(&m->h, 0) + VIRTIO_PCI_NOTIFY_OFFSET + queue * VIRTIO_PCI_NOTIFY_STRIDE, 2,
             queue);
    fuzz_turns(m);
}

static void net_step(struct fuzz_machine *m)
{
    uint8_t how = (uint8_t)fuzz_take(&m->input, 1);

    if (how >= 0xe0)
        net_step_control(m);
    else if (how & 1)
        net_step_receive(m);
    else
        net_step_transmit(m);
}

/* A frame each way. */
static void net_probe(struct fuzz_machine *m)
{
    const struct tap_harness *host = m->device;
    const struct ring_buffer buffer = { DATA_BASE + 0x10000, 2048, RING_WRITE };
    uint32_t head, used;

    tap_drain(host);
    ring_offer(&m->h, RX, &buffer, 1);
    ring_kick(&m->h, RX);
    if (ring_take(&m->h, RX, &head, &used)) { /* it held one of before */
        ring_offer(&m->h, RX, &buffer, 1);
        ring_kick(&m->h, RX);
    }
    (void)tap_host_send(host, 60);
    harness_run(&m->h);
    FUZZ_REQUIRE(ring_take(&m->h, RX, &head, &used) && used == VIRTIO_NET_HEADER_BYTES + 60);

    m->input = (struct fuzz_input){ (const uint8_t[10]){ 0 }, 10 };
    guest_put16(&m->h, ring_avail(TX) + 2, m->h.rings[TX].avail);
    net_step_transmit(m); /* of length 0: bad */
    FUZZ_REQUIRE(status_get(&m->h) & VIRTIO_STATUS_NEEDS_RESET);
    FUZZ_REQUIRE(fuzz_start(m, 0));
    m->input = (struct fuzz_input){ (const uint8_t[15]){ [10] = 0xf0, [11] = 60 }, 15 };
    net_step_transmit(m);
    FUZZ_REQUIRE(ring_take(&m->h, TX, &head, &used));
    FUZZ_REQUIRE(tap_host_receive(host) == 60);
}

FUZZ_TARGET(virtio_net)
{
    const struct tap_harness *host = host_get();
    struct stats_nic stats = { 0 };
    struct virtio_net_spec spec = { .mtu = 1500, .mac = { 2, 0, 0, 0, 0, 1 }, .stats = &stats };
    struct fuzz_machine m = { .step = net_step, .probe = net_probe };

    if (!host)
        return FUZZ_ABSENT;
    spec.queues = host->queues;
    spec.tap_fds = host->fds;
    m.device = (void *)(uintptr_t)host; /* only read */
    harness_open_on(&m.h, -1, -1);
    FUZZ_REQUIRE(virtio_net_add(m.h.root, &spec, &m.h.err) == 0);
    fuzz_run(&m, bytes, size);
    harness_close(&m.h);
    tap_drain(host);
    return 0;
}
