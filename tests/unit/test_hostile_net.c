/* test_hostile_net.c - hostile guests, cases 3 to 6, 10, 11, 16, 18 and 25 of tests/HOSTILE.md
 * against the network device, over a real tap in a network namespace of its own. */
#include "tests/unit/virtio_harness.h"
#include <malloc.h>
#include "base/cleanup.h"
#include "tests/unit/tap_harness.h"
#include "vmm/stats_page.h"
#include "vmm/virtio_net.h"
#include "vmm/virtio_net_header.h"

#define RX           0
#define TX           1
#define HEADER       DATA_BASE
#define FRAME        (DATA_BASE + 0x1000)
#define BUFFER       (DATA_BASE + 0x20000)
#define HEADER_BYTES VIRTIO_NET_HEADER_BYTES
#define FLOOD_FRAMES 20000

struct fixture {
    struct harness h;
    struct tap_harness tap;
    struct stats_nic stats;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct virtio_net_spec spec = { .mtu = 9000, .mac = { 2, 0, 0, 0, 0, 1 } };

    assert_non_null(f);
    harness_open(&f->h);
    assert_true(tap_harness_open(&f->tap));
    spec.queues = 1;
    spec.tap_fds = f->tap.fds;
    spec.stats = &f->stats;
    assert_int_equal(virtio_net_add(f->h.root, &spec, &f->h.err), 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    harness_close(&f->h);
    tap_harness_close(&f->tap);
    free(f);
    return 0;
}

/* Offers header and a frame of `size` bytes; whether they were taken. */
static bool guest_send(struct fixture *f, const struct net_header *header, uint32_t size)
{
    static const uint8_t addresses[14] = {
        255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, TAP_TYPE >> 8, TAP_TYPE & 0xff
    };
    const struct ring_buffer buffers[] = { { HEADER, HEADER_BYTES, 0 }, { FRAME, size, 0 } };
    uint32_t head, used;

    guest_put(&f->h, HEADER, header, HEADER_BYTES);
    guest_put(&f->h, FRAME, addresses, sizeof(addresses));
    ring_offer(&f->h, TX, buffers, 2);
    ring_kick(&f->h, TX);
    return ring_take(&f->h, TX, &head, &used);
}

/* A frame each way, and nothing of the header gets lost or added. */
static void assert_serves(struct fixture *f)
{
    const struct net_header header = { 0 };
    uint32_t head, used;

    tap_drain(&f->tap);
    assert_true(guest_send(f, &header, 60));
    assert_int_equal(tap_host_receive(&f->tap), 60);
    ring_offer_space(&f->h, RX, BUFFER, 1);
    if (ring_take(&f->h, RX, &head, &used)) /* a frame of before that it held */
        ring_offer_space(&f->h, RX, BUFFER, 1);
    assert_true(tap_host_send(&f->tap, 60));
    harness_run(&f->h);
    assert_true(ring_take(&f->h, RX, &head, &used));
    assert_int_equal(used, HEADER_BYTES + 60);
}

static void assert_breaks_and_recovers(struct fixture *f)
{
    assert_needs_reset(&f->h);
    driver_start(&f->h, 0, 16);
    assert_serves(f);
}

static void case_03_to_06_bad_chains_both_ways(void **state)
{
    static const struct {
        struct ring_descriptor first, second;
    } chains[] = {
        { { HARNESS_MEMORY - 8, 16, 0, 0 }, { 0 } },
        { { UINT64_MAX - 7, 16, 0, 0 }, { 0 } },
        { { GUEST_HOLE_START, 2048, 0, 0 }, { 0 } },
        { { PLATFORM_PCI32_START, 2048, 0, 0 }, { 0 } },
        { { BUFFER, 0, 0, 0 }, { 0 } },
        { { BUFFER, 16, RING_NEXT, 0 }, { 0 } },
        { { BUFFER, 16, RING_NEXT, 1 }, { BUFFER, 16, RING_NEXT, 0 } },
        { { BUFFER, 16, RING_NEXT, 65535 }, { 0 } },
        { { BUFFER, 16, RING_NEXT, 1 }, { HARNESS_MEMORY - 8, 16, 0, 0 } },
        { { BUFFER, 16, RING_INDIRECT, 0 }, { 0 } },
    };
    struct fixture *f = *state;

    for (unsigned queue = RX; queue <= TX; queue++) {
        uint16_t way = queue == RX ? RING_WRITE : 0;

        for (size_t i = 0; i < 2 * ARRAY_LENGTH(chains); i++) {
            const struct ring_descriptor *a = &chains[i / 2].first, *b = &chains[i / 2].second;

            driver_start(&f->h, i % 2 ? NET_FEATURE_MERGE : 0, 16);
            ring_put_descriptor(&f->h, queue, 0, a->address, a->length, a->flags | way, a->next);
            ring_put_descriptor(&f->h, queue, 1, b->address, b->length, b->flags | way, b->next);
            ring_offer_head(&f->h, queue, 0);
            assert_true(tap_host_send(&f->tap, 60)); /* only a frame makes it look */
            ring_kick(&f->h, queue);
            assert_breaks_and_recovers(f);
        }
        driver_start(&f->h, 0, 16); /* wrong way */
        ring_put_descriptor(&f->h, queue, 0, BUFFER, 2048, queue == RX ? 0 : RING_WRITE, 0);
        ring_offer_head(&f->h, queue, 0);
        assert_true(tap_host_send(&f->tap, 60));
        ring_kick(&f->h, queue);
        assert_breaks_and_recovers(f);
        driver_start(&f->h, 0, 16);
        guest_put16(&f->h, ring_avail(queue) + 2, 17);
        assert_true(tap_host_send(&f->tap, 60));
        ring_kick(&f->h, queue);
        assert_breaks_and_recovers(f);
    }
}

/* They share their descriptors, so that all together are longer than the ring. */
static void case_04_chains_that_share_their_buffers(void **state)
{
    static const uint16_t heads[] = { 0, 2, 3 };
    struct fixture *f = *state;

    driver_start(&f->h, 0, 256);
    for (uint16_t i = 0; i < 256; i++)
        ring_put_descriptor(&f->h, TX, i, BUFFER + 10u * i, 10, i < 255 ? RING_NEXT : 0, i + 1);
    for (size_t i = 0; i < ARRAY_LENGTH(heads); i++)
        ring_offer_head(&f->h, TX, heads[i]);
    ring_kick(&f->h, TX);
    for (size_t i = 0; i < ARRAY_LENGTH(heads); i++) {
        uint32_t head, used;

        assert_true(ring_take(&f->h, TX, &head, &used));
        assert_int_equal(head, heads[i]);
    }
    assert_int_equal(f->stats.tx_frames, ARRAY_LENGTH(heads));
    f->h.rings[TX].next_descriptor = 0;
    assert_serves(f);
}

/* Its buffers are another kernel's memory by now (kexec), and nobody has reset it. */
static void case_16_frames_for_who_may_not_be_master(void **state)
{
    uint8_t before[2048], after[sizeof(before)];
    struct fixture *f = *state;

    driver_start(&f->h, 0, 16);
    memset(before, 0xcc, sizeof(before));
    guest_put(&f->h, BUFFER, before, sizeof(before));
    ring_offer_space(&f->h, RX, BUFFER, 1);
    config_put(&f->h, 0x04, 2, 0x402);
    assert_true(tap_host_send(&f->tap, 60));
    harness_run(&f->h);
    guest_get(&f->h, BUFFER, after, sizeof(after));
    assert_memory_equal(after, before, sizeof(after));
    driver_start(&f->h, 0, 16);
    assert_serves(f);
}

static void case_11_frames_shorter_than_their_header(void **state)
{
    struct fixture *f = *state;
    const struct net_header header = { 0 };
    uint32_t head, used;

    for (uint32_t size = 1; size < HEADER_BYTES; size++) {
        driver_start(&f->h, 0, 16);
        ring_put_descriptor(&f->h, TX, 0, HEADER, size, 0, 0);
        ring_offer_head(&f->h, TX, 0);
        ring_kick(&f->h, TX);
        assert_breaks_and_recovers(f);
    }
    driver_start(&f->h, 0, 16);
    for (uint32_t size = 1; size < HEADER_BYTES + 60; size++) { /* buffers too short for a frame */
        ring_put_descriptor(&f->h, RX, 0, BUFFER, size, RING_WRITE, 0);
        ring_offer_head(&f->h, RX, 0);
        assert_true(tap_host_send(&f->tap, 60));
        ring_kick(&f->h, RX);
        assert_false(ring_take(&f->h, RX, &head, &used));
        guest_put16(&f->h, ring_avail(RX) + 2, --f->h.rings[RX].avail);
        driver_start(&f->h, 0, 16);
    }
    for (uint32_t size = 1; size < 14; size++) { /* less than an Ethernet header */
        assert_true(guest_send(f, &header, size));
        assert_int_equal(tap_host_receive(&f->tap), -1);
    }
    assert_serves(f);
}

static const uint64_t features[] = {
    NET_FEATURE_CSUM,       NET_FEATURE_GUEST_CSUM, NET_FEATURE_GUEST_TSO4,
    NET_FEATURE_GUEST_TSO6, NET_FEATURE_HOST_TSO4,  NET_FEATURE_HOST_TSO6,
    NET_FEATURE_MERGE,      NET_FEATURE_HOST_ECN,   NET_FEATURE_GUEST_ECN,
};

static uint64_t feature_set(unsigned bits)
{
    uint64_t set = 0;

    for (size_t i = 0; i < ARRAY_LENGTH(features); i++)
        set |= bits & 1u << i ? features[i] : 0;
    return set;
}

/* 12 bytes whatever was agreed; what depends on another feature is refused without it. */
static void case_18_header_size_under_all_features(void **state)
{
    struct fixture *f = *state;

    driver_attach(&f->h);
    for (unsigned bits = 0; bits < 1u << ARRAY_LENGTH(features); bits++) {
        uint64_t set = feature_set(bits);

        if (!net_features_are_consistent(set)) {
            assert_false(driver_negotiate(&f->h, set | VIRTIO_FEATURE_VERSION_1));
            continue;
        }
        driver_start(&f->h, set, 16);
        assert_serves(f);
        assert_int_equal(status_get(&f->h), 15);
    }
}

static const struct net_header headers[] = {
    { .flags = NET_HEADER_NEEDS_CSUM, .csum_start = 0xffff, .csum_offset = 0xffff },
    { .flags = NET_HEADER_NEEDS_CSUM, .csum_start = 59, .csum_offset = 0 },
    { .flags = NET_HEADER_NEEDS_CSUM, .csum_start = 0, .csum_offset = 59 },
    { .flags = NET_HEADER_NEEDS_CSUM, .csum_start = 60, .csum_offset = 65534 },
    { .gso_type = NET_GSO_TCP4, .gso_size = 10, .header_length = 54 },
    { .gso_type = NET_GSO_TCP6, .gso_size = 10, .header_length = 54 },
    { .flags = NET_HEADER_NEEDS_CSUM,
      .gso_type = NET_GSO_TCP4,
      .csum_start = 34,
      .csum_offset = 16,
      .header_length = 54 }, /* segments of 0 bytes */
    { .flags = NET_HEADER_NEEDS_CSUM,
      .gso_type = NET_GSO_TCP4,
      .csum_start = 34,
      .csum_offset = 16,
      .gso_size = 10,
      .header_length = 61 },
    { .gso_type = 3, .gso_size = 10 },                   /* UDP fragments */
    { .gso_type = 5, .gso_size = 10 },                   /* UDP segments */
    { .gso_type = 0x80 | NET_GSO_TCP4, .gso_size = 10 }, /* with ECN, but no checksum */
    { .flags = NET_HEADER_NEEDS_CSUM,
      .gso_type = 0x80,
      .csum_start = 34,
      .csum_offset = 16,
      .gso_size = 10,
      .header_length = 54 }, /* ECN of nothing */
    { .gso_type = 0xff, .gso_size = 0xffff },
};
static const struct net_header not_agreed[] = {
    { .flags = NET_HEADER_NEEDS_CSUM, .csum_start = 34, .csum_offset = 16 },
    { .flags = NET_HEADER_NEEDS_CSUM,
      .gso_type = NET_GSO_TCP4,
      .csum_start = 34,
      .csum_offset = 16,
      .gso_size = 10,
      .header_length = 54 },
};

/* Each is dropped if it was not agreed to, or points behind the frame; the device lives on. */
static void case_18_headers_that_lie(void **state)
{
    struct fixture *f = *state;

    driver_attach(&f->h);
    for (unsigned bits = 0; bits < 1u << ARRAY_LENGTH(features); bits += 3) {
        uint64_t set = feature_set(bits);

        if (!net_features_are_consistent(set))
            continue;
        driver_start(&f->h, set, 16);
        for (size_t i = 0; i < ARRAY_LENGTH(headers); i++) {
            assert_true(guest_send(f, &headers[i], 60));
            if (tap_host_receive(&f->tap) >= 0)
                fail_msg("header %zu was believed, features %#llx", i, (unsigned long long)set);
        }
        for (size_t i = 0; i < ARRAY_LENGTH(not_agreed) && !(set & NET_FEATURE_CSUM); i++) {
            assert_true(guest_send(f, &not_agreed[i], 60));
            assert_int_equal(tap_host_receive(&f->tap), -1);
        }
        assert_int_equal(status_get(&f->h), 15);
        assert_serves(f);
    }
}

/* Tables as long as the queue, of single bytes: a frame would go into more pieces than there may be
 * of one, and is dropped. */
static void case_05_more_pieces_than_a_frame_may_have(void **state)
{
    struct fixture *f = *state;
    static struct ring_descriptor table[256];
    const struct ring_buffer buffer = { FRAME, sizeof(table), RING_INDIRECT };
    uint32_t head, used;

    for (unsigned i = 0; i < 256; i++)
        table[i] = (struct ring_descriptor){ BUFFER + i, 1, RING_WRITE | (i < 255 ? RING_NEXT : 0),
                                             (uint16_t)(i + 1) };
    guest_put(&f->h, FRAME, table, sizeof(table));
    driver_start(&f->h, NET_FEATURE_MERGE | VIRTIO_FEATURE_INDIRECT, 256);
    for (unsigned i = 0; i < 8; i++)
        ring_offer(&f->h, RX, &buffer, 1);
    ring_kick(&f->h, RX);
    assert_true(tap_host_send(&f->tap, 512 - HEADER_BYTES)); /* goes into two */
    assert_true(tap_host_send(&f->tap, 513 - HEADER_BYTES));
    assert_true(tap_host_send(&f->tap, 60));
    harness_run(&f->h);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(ring_take(&f->h, RX, &head, &used));
        assert_int_equal(used, i < 2 ? 256 : HEADER_BYTES + 60);
    }
    assert_false(ring_take(&f->h, RX, &head, &used));
    assert_int_equal(f->stats.rx_frames, 2);
    assert_int_equal(f->stats.rx_dropped, 1);
    assert_int_equal(status_get(&f->h), 15);
}

/* The guest has no buffers, then too few, and the host sends and sends: nothing grows, nothing
 * spins, and a guest that comes to itself is served. */
static void case_25_receive_flood(void **state)
{
    struct fixture *f = *state;
    size_t before;
    unsigned taken = 0;
    uint32_t head, used;

    driver_start(&f->h, VIRTIO_FEATURE_EVENT_INDEX, 16);
    harness_run(&f->h);
    before = mallinfo2().uordblks;
    for (unsigned i = 0; i < FLOOD_FRAMES; i++) {
        (void)tap_host_send(&f->tap, 1500);
        if (i == FLOOD_FRAMES / 2)
            ring_offer_space(&f->h, RX, BUFFER, 16);
        if (i % 16 == 0)
            assert_int_equal(loop_turn(f->h.loop, 0, &f->h.err), 0);
    }
    harness_run(&f->h);
    assert_int_equal(mallinfo2().uordblks, before);
    while (ring_take(&f->h, RX, &head, &used))
        taken++;
    assert_int_equal(taken, 16);
    assert_int_equal(f->stats.rx_frames, 16);
    assert_int_equal(status_get(&f->h), 15);
    driver_start(&f->h, 0, 16);
    assert_serves(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(case_03_to_06_bad_chains_both_ways),
        TEST(case_04_chains_that_share_their_buffers),
        TEST(case_16_frames_for_who_may_not_be_master),
        TEST(case_11_frames_shorter_than_their_header),
        TEST(case_18_header_size_under_all_features),
        TEST(case_18_headers_that_lie),
        TEST(case_05_more_pieces_than_a_frame_may_have),
        TEST(case_25_receive_flood),
    };

    return tap_harness_enter() ? cmocka_run_group_tests(tests, NULL, NULL) : skip_all();
}
