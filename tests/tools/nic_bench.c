/* nic_bench.c - frames through the network device against the bare tap: a program that reads and
 * writes the same frames with nothing in between.  A line of `name frames_per_second ratio
 * ratio_alone`, medians of ROUNDS, in each of which the two take turns.
 *
 * The device's own code in-process, its rings filled as a Linux guest's are.  At the host's end a
 * socket sends or takes each frame; ratio_alone leaves that end's time out: what a frame costs the
 * device beside one system call.  Neither side ever waits, so it is the thread's time that counts,
 * and what else the machine does is not in it. */
#include "tests/unit/virtio_harness.h"
#include <stdio.h>
#include <time.h>
#include "tests/unit/tap_harness.h"
#include "vmm/stats_page.h"
#include "vmm/virtio_net.h"
#include "vmm/virtio_net_header.h"

#define RX         0
#define TX         1
#define RING       256
#define BUFFER(n)  (DATA_BASE + (n)*0x2000ull)
#define HEADER     VIRTIO_NET_HEADER_BYTES
#define ROUNDS     9
#define BATCHES    60 /* of each side, in a round */
#define LARGE_ROOM 0x10000u
#define FEATURES                                                                                  \
    (NET_FEATURE_CSUM | NET_FEATURE_GUEST_CSUM | NET_FEATURE_HOST_TSO4 | NET_FEATURE_GUEST_TSO4 | \
     NET_FEATURE_MERGE | VIRTIO_FEATURE_EVENT_INDEX | VIRTIO_FEATURE_INDIRECT)

struct bench {
    struct harness h;
    struct tap_harness tap;
    struct stats_nic stats;
    uint32_t size;  /* of a frame */
    double alone;   /* seconds of what was done last, without the host's end */
    unsigned count; /* of a batch's frames */
};

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Where a batch's frame is: large ones have less room, so share it. */
static uint64_t frame_address(const struct bench *bench, unsigned i)
{
    return bench->size > 0x1000 ? DATA_BASE + i % 16 * (uint64_t)(LARGE_ROOM + 0x1000) : BUFFER(i);
}

static uint8_t *guest_at(const struct bench *bench, uint64_t address, uint64_t size)
{
    return guest_memory_map(bench->h.memory, address, size);
}

/* Header and frame; one that is larger than the tap's MTU is TCP to be segmented. */
static void put_frame(const struct bench *bench, uint8_t *to)
{
    struct net_header header = { 0 };
    uint8_t frame[54] = { 255, 255, 255, 255, 255, 255,           2,
                          0,   0,   0,   0,   1,   TAP_TYPE >> 8, TAP_TYPE & 0xff };

    if (bench->size > TAP_FRAME_MAX)
        header = (struct net_header){ .flags = NET_HEADER_NEEDS_CSUM,
                                      .gso_type = NET_GSO_TCP4,
                                      .header_length = 54,
                                      .gso_size = 1448,
                                      .csum_start = 34,
                                      .csum_offset = 16 };
    memcpy(to, &header, sizeof(header));
    memcpy(to + HEADER, frame, sizeof(frame));
}

static void kick(struct bench *bench, unsigned queue)
{
    mmio_put(&bench->h,
             bar_address(&bench->h, 0) + VIRTIO_PCI_NOTIFY_OFFSET +
                 queue * VIRTIO_PCI_NOTIFY_STRIDE,
             2, queue);
}

/* The next `count` of the ring's chains, which do not change. */
static void offer(struct bench *bench, unsigned queue)
{
    struct harness_ring *ring = &bench->h.rings[queue];

    ring->avail = (uint16_t)(ring->avail + bench->count);
    guest_put16(&bench->h, ring_avail(queue) + 2, ring->avail);
}

static void serve(struct bench *bench, unsigned queue)
{
    while (guest_get16(&bench->h, ring_used(queue) + 2) != bench->h.rings[queue].avail)
        if (loop_turn(bench->h.loop, 0, &bench->h.err) < 0)
            exit(1);
}

static void prepare(struct bench *bench, unsigned queue)
{
    driver_start(&bench->h, FEATURES, RING);
    for (unsigned i = 0; i < RING; i++) {
        uint64_t address = frame_address(bench, i);

        put_frame(bench, guest_at(bench, address, HEADER + bench->size));
        ring_put_descriptor(&bench->h, queue, i, address,
                            queue == TX ? HEADER + bench->size : 0x1000,
                            queue == TX ? 0 : RING_WRITE, 0);
        guest_put16(&bench->h, ring_avail(queue) + 4 + 2 * i, (uint16_t)i);
    }
}

static void host_takes(const struct bench *bench)
{
    static uint8_t frame[0x20000];

    for (unsigned i = 0; i < bench->count; i++)
        if (recv(bench->tap.host_fd, frame, sizeof(frame), 0) != (ssize_t)bench->size)
            exit(1);
}

static void host_sends(const struct bench *bench)
{
    static uint8_t frame[TAP_FRAME_MAX] = {
        255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 9, TAP_TYPE >> 8, TAP_TYPE & 0xff
    };

    for (unsigned i = 0; i < bench->count; i++)
        if (send(bench->tap.host_fd, frame, bench->size, 0) != (ssize_t)bench->size)
            exit(1);
}

/* Each returns the seconds of a batch. */
static double send_ours(struct bench *bench)
{
    double begin = now();

    offer(bench, TX);
    kick(bench, TX);
    serve(bench, TX);
    bench->alone = now() - begin;
    host_takes(bench);
    return now() - begin;
}

static double send_bare(struct bench *bench)
{
    double begin = now();

    for (unsigned i = 0; i < bench->count; i++)
        if (write(bench->tap.tap_fd, guest_at(bench, frame_address(bench, i), HEADER + bench->size),
                  HEADER + bench->size) < 0)
            exit(1);
    bench->alone = now() - begin;
    host_takes(bench);
    return now() - begin;
}

static double receive_ours(struct bench *bench)
{
    double begin, sent;

    offer(bench, RX);
    begin = now();
    host_sends(bench);
    sent = now();
    kick(bench, RX);
    serve(bench, RX);
    bench->alone = now() - sent;
    return now() - begin;
}

static double receive_bare(struct bench *bench)
{
    double begin = now(), sent;

    host_sends(bench);
    sent = now();
    for (unsigned i = 0; i < bench->count; i++)
        if (read(bench->tap.tap_fd, guest_at(bench, frame_address(bench, i), 0x1000), 0x1000) < 0)
            exit(1);
    bench->alone = now() - sent;
    return now() - begin;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void run(struct bench *bench, const char *name, unsigned queue, uint32_t size,
                double (*ours)(struct bench *), double (*bare)(struct bench *))
{
    double rates[ROUNDS], ratios[ROUNDS], alone[ROUNDS];

    bench->size = size;
    bench->count = size > TAP_FRAME_MAX ? 64 : RING;
    prepare(bench, queue);
    for (unsigned round = 0; round < ROUNDS; round++) {
        double time_ours = 0, time_bare = 0, alone_ours = 0, alone_bare = 0;

        for (unsigned i = 0; i < BATCHES; i++) {
            time_ours += ours(bench);
            alone_ours += bench->alone;
            time_bare += bare(bench);
            alone_bare += bench->alone;
        }
        rates[round] = BATCHES * bench->count / time_ours;
        ratios[round] = time_bare / time_ours;
        alone[round] = alone_bare / alone_ours;
    }
    qsort(rates, ROUNDS, sizeof(rates[0]), compare);
    qsort(alone, ROUNDS, sizeof(alone[0]), compare);
    qsort(ratios, ROUNDS, sizeof(ratios[0]), compare);
    printf("%s %.0f %.3f %.3f\n", name, rates[ROUNDS / 2], ratios[ROUNDS / 2], alone[ROUNDS / 2]);
}

int main(void)
{
    static struct bench bench;
    struct virtio_net_spec spec = {
        .queues = 1, .mtu = 1500, .mac = { 2, 0, 0, 0, 0, 1 }, .stats = &bench.stats
    };
    int room = 32 << 20;

    if (!tap_harness_enter() || !tap_harness_open(&bench.tap)) {
        fprintf(stderr, "nic_bench: no tap in a network namespace of its own\n");
        return 1;
    }
    if (setsockopt(bench.tap.host_fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) < 0 ||
        setsockopt(bench.tap.host_fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &(int){ 1 },
                   sizeof(int)) < 0)
        return 1;
    harness_open(&bench.h);
    spec.tap_fds = bench.tap.fds;
    if (virtio_net_add(bench.h.root, &spec, &bench.h.err) < 0) {
        fprintf(stderr, "nic_bench: %s\n", bench.h.err.message);
        return 1;
    }
    run(&bench, "send_64", TX, 64, send_ours, send_bare);
    run(&bench, "send_1514", TX, 1514, send_ours, send_bare);
    run(&bench, "send_65000_segmented", TX, 65000, send_ours, send_bare);
    run(&bench, "receive_64", RX, 64, receive_ours, receive_bare);
    run(&bench, "receive_1514", RX, 1514, receive_ours, receive_bare);
    if (bench.stats.tx_dropped + bench.stats.rx_dropped > 0) {
        fprintf(stderr, "nic_bench: frames were dropped\n");
        return 1;
    }
    harness_close(&bench.h);
    tap_harness_close(&bench.tap);
    return 0;
}
