/* test_virtio_net.c - the network device over a real tap in a network namespace of the test's own;
 * a packet socket on the tap is the host's end.  Skipped where neither root nor user namespaces
 * allow that. */
#include "tests/unit/virtio_harness.h"
#include "tests/unit/tap_harness.h"
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include "vmm/stats_page.h"
#include "vmm/virtio_net.h"
#include "vmm/virtio_net_header.h"

#define RX        0
#define TX        1
#define BUFFER(n) (DATA_BASE + (n)*0x10000ull)
#define ALL       (NET_FEATURE_CSUM | NET_FEATURE_GUEST_CSUM | NET_FEATURE_HOST_TSO4)

struct fixture {
    struct harness h;
    struct tap_harness tap;
    struct stats_nic stats;
};

static const uint8_t guest_mac[6] = { 2, 0, 0, 0, 0, 1 };

static int set_up_spec(void **state, struct virtio_net_spec spec)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    spec.mtu = 9000;
    harness_open(&f->h);
    assert_true(tap_harness_open(&f->tap));
    memcpy(spec.mac, guest_mac, 6);
    spec.queues = 1;
    spec.tap_fds = f->tap.fds;
    spec.stats = &f->stats;
    assert_int_equal(virtio_net_add(f->h.root, &spec, &f->h.err), 0);
    *state = f;
    return 0;
}

static int set_up(void **state)
{
    return set_up_spec(state, (struct virtio_net_spec){ 0 });
}

/* Ten frames in a second each way. */
static int set_up_limited(void **state)
{
    return set_up_spec(
        state, (struct virtio_net_spec){ .rx_rate_limit = { .operations_per_second = 10 },
                                         .tx_rate_limit = { .operations_per_second = 10 } });
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    harness_close(&f->h);
    tap_harness_close(&f->tap);
    free(f);
    return 0;
}

/* --- frames --- */

static size_t make_frame(uint8_t *frame, size_t payload, unsigned seed)
{
    memset(frame, 0xff, 6);
    memcpy(frame + 6, guest_mac, 6);
    frame[12] = TAP_TYPE >> 8;
    frame[13] = TAP_TYPE & 0xff;
    for (size_t i = 0; i < payload; i++)
        frame[14 + i] = (uint8_t)(i * 3 + seed);
    return 14 + payload;
}

static void host_send(struct fixture *f, size_t payload, unsigned seed)
{
    uint8_t frame[TAP_FRAME_MAX];
    size_t size = make_frame(frame, payload, seed);

    assert_int_equal(send(f->tap.host_fd, frame, size, 0), size);
}

static void offer_receive(struct fixture *f, unsigned buffer, uint32_t size)
{
    const struct ring_buffer buffers = { BUFFER(buffer), size, RING_WRITE };

    ring_offer(&f->h, RX, &buffers, 1);
}

/* Offers header and frame as two descriptors, kicks, takes the used entry. */
static void guest_send(struct fixture *f, const struct net_header *header, const uint8_t *frame,
                       size_t size)
{
    const struct ring_buffer buffers[2] = { { BUFFER(8), sizeof(*header), 0 },
                                            { BUFFER(9), (uint32_t)size, 0 } };
    uint32_t head, used;

    guest_put(&f->h, BUFFER(8), header, sizeof(*header));
    if (size > 0)
        guest_put(&f->h, BUFFER(9), frame, size);
    ring_offer(&f->h, TX, buffers, size > 0 ? 2 : 1);
    ring_kick(&f->h, TX);
    assert_true(ring_take(&f->h, TX, &head, &used));
    assert_int_equal(used, 0);
}

static void assert_frame(struct fixture *f, uint64_t address, size_t payload, unsigned seed)
{
    uint8_t want[TAP_FRAME_MAX], got[TAP_FRAME_MAX];
    size_t size = make_frame(want, payload, seed);

    guest_get(&f->h, address, got, size);
    assert_memory_equal(got, want, size);
}

/* --- tests --- */

static void the_configuration_describes_the_nic(void **state)
{
    struct harness *h = &((struct fixture *)*state)->h;
    uint64_t features;

    driver_attach(h);
    features = features_offered(h);
    assert_int_equal(config_get(h, 0, 4), 0x10411af4);
    assert_int_equal(config_get(h, 8, 4), 0x02000001);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(device_config_get(h, i, 1), guest_mac[i]);
    assert_int_equal(device_config_get(h, 6, 2), 1);
    assert_int_equal(device_config_get(h, 10, 2), 9000);
    assert_true(features & NET_FEATURE_MTU);
    assert_true(features & NET_FEATURE_MERGE);
    assert_int_equal(features & (NET_FEATURE_MULTI_QUEUE | NET_FEATURE_CONTROL), 0);
    assert_int_equal(reg_get(h, REG_QUEUE_COUNT, 2), 2);
    /* Offloads stand on checksums. */
    assert_false(driver_negotiate(h, VIRTIO_FEATURE_VERSION_1 | NET_FEATURE_HOST_TSO4));
    assert_false(driver_negotiate(h, VIRTIO_FEATURE_VERSION_1 | NET_FEATURE_GUEST_TSO6));
    assert_false(
        driver_negotiate(h, VIRTIO_FEATURE_VERSION_1 | NET_FEATURE_CSUM | NET_FEATURE_HOST_ECN));
    assert_false(driver_negotiate(h, VIRTIO_FEATURE_VERSION_1 | NET_FEATURE_GUEST_CSUM |
                                         NET_FEATURE_GUEST_ECN));
    assert_true(driver_negotiate(h, features));
}

static void a_frame_reaches_the_host(void **state)
{
    struct fixture *f = *state;
    uint8_t frame[TAP_FRAME_MAX], got[9100];
    size_t size = make_frame(frame, 1000, 1);

    driver_start(&f->h, 0, 16);
    guest_send(f, &(struct net_header){ 0 }, frame, size);
    assert_int_equal(recv(f->tap.host_fd, got, sizeof(got), 0), size);
    assert_memory_equal(got, frame, size);
    assert_int_equal(f->stats.tx_frames, 1);
    assert_int_equal(f->stats.tx_bytes, size);
    assert_int_equal(interrupts_take(&f->h), 1 << (1 + TX));
}

static void a_frame_reaches_the_guest(void **state)
{
    struct fixture *f = *state;
    uint32_t head, used;

    driver_start(&f->h, 0, 16);
    offer_receive(f, 0, 9100);
    ring_kick(&f->h, RX);
    host_send(f, 1500, 2);
    harness_run(&f->h);
    assert_true(ring_take(&f->h, RX, &head, &used));
    assert_int_equal(used, 12 + 14 + 1500);
    assert_int_equal(guest_get16(&f->h, BUFFER(0) + 10), 1); /* num_buffers */
    assert_frame(f, BUFFER(0) + 12, 1500, 2);
    assert_int_equal(f->stats.rx_frames, 1);
    assert_int_equal(f->stats.rx_bytes, 1514);
    assert_int_equal(interrupts_take(&f->h), 1 << (1 + RX));
}

static void frames_wait_for_buffers(void **state)
{
    struct fixture *f = *state;
    uint32_t head, used;

    driver_start(&f->h, VIRTIO_FEATURE_EVENT_INDEX, 16);
    for (unsigned i = 0; i < 3; i++)
        host_send(f, 100 + i, i);
    harness_run(&f->h);
    assert_int_equal(f->stats.rx_frames, 0);
    /* Nothing to do: the loop sleeps, although the tap is readable. */
    int64_t before = loop_now_ms();
    assert_int_equal(loop_turn(f->h.loop, 60, &f->h.err), 0);
    assert_true(loop_now_ms() - before >= 50);

    for (unsigned i = 0; i < 3; i++)
        offer_receive(f, i, 2048);
    ring_kick(&f->h, RX);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(ring_take(&f->h, RX, &head, &used));
        assert_int_equal(used, 12 + 14 + 100 + i);
        assert_frame(f, BUFFER(i) + 12, 100 + i, i);
    }
    host_send(f, 10, 9); /* and again without a buffer */
    harness_run(&f->h);
    offer_receive(f, 3, 2048);
    ring_kick(&f->h, RX);
    assert_true(ring_take(&f->h, RX, &head, &used));
}

static void a_frame_is_spread_over_small_buffers(void **state)
{
    struct fixture *f = *state;
    uint32_t head, used;
    uint8_t want[TAP_FRAME_MAX], got[TAP_FRAME_MAX];
    size_t size = make_frame(want, 2500, 4), at = 0;

    driver_start(&f->h, NET_FEATURE_MERGE | VIRTIO_FEATURE_EVENT_INDEX, 16);
    host_send(f, 2500, 4);
    offer_receive(f, 0, 1000);
    ring_kick(&f->h, RX);
    offer_receive(f, 1, 1000);
    ring_kick(&f->h, RX);
    assert_false(ring_take(&f->h, RX, &head, &used)); /* two are too few */
    int64_t before = loop_now_ms();
    assert_int_equal(loop_turn(f->h.loop, 60, &f->h.err), 0);
    assert_true(loop_now_ms() - before >= 50);
    assert_int_equal(guest_get16(&f->h, ring_used(RX) + 4 + 8 * 16), 2); /* kick me at the third */

    offer_receive(f, 2, 1000);
    offer_receive(f, 3, 1000);
    ring_kick(&f->h, RX);
    for (unsigned i = 0; i < 3; i++) {
        unsigned skip_bytes = i == 0 ? 12 : 0;

        assert_true(ring_take(&f->h, RX, &head, &used));
        assert_int_equal(used, i < 2 ? 1000 : 12 + size - 2000);
        guest_get(&f->h, BUFFER(i) + skip_bytes, got + at, used - skip_bytes);
        at += used - skip_bytes;
    }
    assert_false(ring_take(&f->h, RX, &head, &used)); /* the fourth stays */
    assert_int_equal(guest_get16(&f->h, BUFFER(0) + 10), 3);
    assert_int_equal(at, size);
    assert_memory_equal(got, want, size);
}

static void what_fits_nowhere_is_dropped(void **state)
{
    struct fixture *f = *state;
    uint32_t head, used;

    driver_start(&f->h, 0, 16);
    offer_receive(f, 0, 500);
    host_send(f, 1000, 5);
    ring_kick(&f->h, RX);
    assert_int_equal(f->stats.rx_dropped, 1);
    host_send(f, 100, 6); /* the buffer is still there */
    harness_run(&f->h);
    assert_true(ring_take(&f->h, RX, &head, &used));
    assert_frame(f, BUFFER(0) + 12, 100, 6);

    driver_start(&f->h, NET_FEATURE_MERGE, 4); /* the whole queue is too small */
    for (unsigned i = 0; i < 4; i++)
        offer_receive(f, i, 100);
    ring_kick(&f->h, RX);
    host_send(f, 1000, 7);
    harness_run(&f->h);
    assert_int_equal(f->stats.rx_dropped, 2);
    assert_int_equal(status_get(&f->h), 15);
}

static void tcp4_headers(uint8_t *frame, uint16_t total)
{
    static const uint8_t ip[20] = {
        0x45, 0, 0, 0, 0, 1, 0, 0, 64, 6, 0, 0, 10, 1, 1, 1, 10, 1, 1, 2
    };

    make_frame(frame, total, 0);
    frame[12] = 0x08;
    frame[13] = 0x00;
    memcpy(frame + 14, ip, sizeof(ip));
    frame[16] = (uint8_t)(total >> 8);
    frame[17] = (uint8_t)total;
    memset(frame + 34, 0, 20);
    frame[46] = 5 << 4; /* TCP header of 20 bytes */
}

static void segmentation_is_done_if_it_was_agreed(void **state)
{
    struct fixture *f = *state;
    struct net_header header = { .flags = NET_HEADER_NEEDS_CSUM,
                                 .gso_type = NET_GSO_TCP4,
                                 .header_length = 54,
                                 .gso_size = 1000,
                                 .csum_start = 34,
                                 .csum_offset = 16 };
    uint8_t frame[TAP_FRAME_MAX];

    tcp4_headers(frame, 5000);
    driver_start(&f->h, ALL, 16);
    guest_send(f, &header, frame, 5014);
    assert_int_equal(f->stats.tx_frames, 1);
    driver_start(&f->h, NET_FEATURE_CSUM, 16); /* CVE-2023-6693's neighbours */
    guest_send(f, &header, frame, 5014);
    assert_int_equal(f->stats.tx_frames, 1);
    assert_int_equal(f->stats.tx_dropped, 1);
}

static bool tap_offloads(struct fixture *f, uint32_t command)
{
    struct ethtool_value value = { .cmd = command };
    struct ifreq request = { .ifr_name = TAP_NAME, .ifr_data = (void *)&value };

    assert_int_equal(ioctl(f->tap.host_fd, SIOCETHTOOL, &request), 0);
    return value.data;
}

/* Else the host's stack would leave work to a guest that has not said it can do it. */
static void the_tap_offloads_what_was_agreed(void **state)
{
    static const struct {
        uint64_t features;
        bool checksums, segments;
    } cases[] = {
        { NET_FEATURE_GUEST_CSUM | NET_FEATURE_GUEST_TSO4, true, true },
        { NET_FEATURE_CSUM | NET_FEATURE_HOST_TSO4, false, false },
        { NET_FEATURE_GUEST_CSUM | NET_FEATURE_GUEST_TSO6, true, true },
        { NET_FEATURE_GUEST_CSUM, true, false },
        { 0, false, false },
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        driver_start(&f->h, cases[i].features, 16);
        ring_kick(&f->h, RX);
        assert_int_equal(tap_offloads(f, ETHTOOL_GTXCSUM), cases[i].checksums);
        assert_int_equal(tap_offloads(f, ETHTOOL_GTSO), cases[i].segments);
    }
}

/* Header and frame in one buffer; the kick comes later. */
static void guest_offer(struct fixture *f, unsigned n, size_t size, uint16_t flags, unsigned seed)
{
    const struct ring_buffer buffer = { BUFFER(n), (uint32_t)(VIRTIO_NET_HEADER_BYTES + size),
                                        flags };
    uint8_t frame[TAP_FRAME_MAX];

    make_frame(frame, sizeof(frame) - 14, seed);
    guest_put(&f->h, BUFFER(n) + VIRTIO_NET_HEADER_BYTES, frame, size);
    ring_offer(&f->h, TX, &buffer, 1);
}

static void assert_host_gets(struct fixture *f, size_t size, unsigned seed)
{
    uint8_t want[TAP_FRAME_MAX], got[9100];

    make_frame(want, sizeof(want) - 14, seed);
    assert_int_equal(recv(f->tap.host_fd, got, sizeof(got), MSG_DONTWAIT), size);
    assert_memory_equal(got, want, size);
}

static void what_waits_is_sent_in_order_but_for_what_is_bad(void **state)
{
    struct fixture *f = *state;
    uint32_t head, used;

    driver_start(&f->h, 0, 16);
    guest_offer(f, 0, 300, 0, 1);
    guest_offer(f, 1, 5, 0, 2);
    guest_offer(f, 2, 5000, 0, 3);
    guest_offer(f, 3, 400, 0, 4);
    ring_kick(&f->h, TX);
    assert_host_gets(f, 300, 1);
    assert_host_gets(f, 5000, 3);
    assert_host_gets(f, 400, 4);
    for (unsigned i = 0; i < 4; i++) {
        assert_true(ring_take(&f->h, TX, &head, &used));
        assert_int_equal(head, i);
        assert_int_equal(used, 0);
    }
    assert_int_equal(f->stats.tx_frames, 3);
    assert_int_equal(f->stats.tx_bytes, 300 + 5000 + 400);
    assert_int_equal(f->stats.tx_dropped, 1);
}

static void what_stands_before_a_bad_chain_is_sent(void **state)
{
    struct fixture *f = *state;

    driver_start(&f->h, 0, 16);
    guest_offer(f, 0, 300, 0, 1);
    guest_offer(f, 1, 300, RING_WRITE, 2);
    guest_offer(f, 2, 300, 0, 3);
    ring_kick(&f->h, TX);
    assert_needs_reset(&f->h);
    assert_host_gets(f, 300, 1);
    assert_int_equal(f->stats.tx_frames, 1);
}

static void bad_transmit_chains_need_reset(void **state)
{
    static const struct ring_buffer cases[] = {
        { BUFFER(8), 11, 0 },            /* shorter than the header */
        { BUFFER(8), 64, RING_WRITE },   /* for the device to write */
        { HARNESS_MEMORY - 1, 64, 0 },   /* past RAM */
        { PLATFORM_PCI32_START, 64, 0 }, /* our own registers */
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        driver_start(&f->h, 0, 16);
        ring_offer(&f->h, TX, &cases[i], 1);
        ring_kick(&f->h, TX);
        assert_needs_reset(&f->h);
        assert_int_equal(interrupts_take(&f->h) & 1, 1);
    }
    assert_int_equal(f->stats.tx_frames, 0);
}

static void bad_receive_buffers_need_reset(void **state)
{
    const struct ring_buffer readable = { BUFFER(0), 2048, 0 };
    struct fixture *f = *state;

    driver_start(&f->h, 0, 16);
    ring_offer(&f->h, RX, &readable, 1);
    ring_kick(&f->h, RX);
    host_send(f, 10, 0);
    harness_run(&f->h);
    assert_needs_reset(&f->h);
    driver_start(&f->h, NET_FEATURE_MERGE, 16);
    host_send(f, 10, 0);
    ring_offer_head(&f->h, RX, 77);
    ring_kick(&f->h, RX);
    assert_needs_reset(&f->h);
}

static void short_and_empty_frames_are_dropped(void **state)
{
    struct fixture *f = *state;
    uint8_t frame[14] = { 0 };

    driver_start(&f->h, 0, 16);
    guest_send(f, &(struct net_header){ 0 }, frame, 0);
    guest_send(f, &(struct net_header){ 0 }, frame, 13);
    assert_int_equal(f->stats.tx_dropped, 2);
    assert_int_equal(status_get(&f->h), 15);
}

static void a_burst_each_way_takes_several_turns(void **state)
{
    const struct net_header header = { 0 };
    const struct ring_buffer buffer = { BUFFER(8), 12 + 64, 0 };
    struct fixture *f = *state;
    uint8_t frame[64];

    driver_start(&f->h, 0, 256);
    make_frame(frame, 50, 1);
    guest_put(&f->h, BUFFER(8), &header, sizeof(header));
    guest_put(&f->h, BUFFER(8) + 12, frame, sizeof(frame));
    for (unsigned i = 0; i < 200; i++) {
        ring_offer(&f->h, TX, &buffer, 1);
        offer_receive(f, 0, 2048);
        host_send(f, 50, i);
    }
    mmio_put(&f->h, bar_address(&f->h, 0) + VIRTIO_PCI_NOTIFY_OFFSET + 4 * TX, 2, TX);
    assert_int_equal(loop_turn(f->h.loop, 0, &f->h.err), 0);
    assert_in_range(f->stats.tx_frames, 1, 128);
    ring_kick(&f->h, RX);
    harness_run(&f->h);
    assert_int_equal(f->stats.tx_frames, 200);
    assert_int_equal(f->stats.rx_frames, 200);
    assert_int_equal(f->stats.rx_dropped + f->stats.tx_dropped, 0);
}

static void a_reset_forgets_what_was_held(void **state)
{
    struct fixture *f = *state;
    uint32_t head, used;

    driver_start(&f->h, 0, 16);
    host_send(f, 10, 1);
    harness_run(&f->h); /* held */
    status_put(&f->h, 0);
    host_send(f, 20, 2); /* while nobody is there */
    harness_run(&f->h);
    int64_t before = loop_now_ms();
    assert_int_equal(loop_turn(f->h.loop, 60, &f->h.err), 0);
    assert_true(loop_now_ms() - before >= 50); /* no spinning */
    driver_start(&f->h, 0, 16);
    offer_receive(f, 0, 2048);
    ring_kick(&f->h, RX);
    assert_true(ring_take(&f->h, RX, &head, &used));
    assert_frame(f, BUFFER(0) + 12, 20, 2);
}

/* All of them pass, none before its time, and a device that waits does not spin. */
static void a_rate_limit_holds_frames_each_way(void **state)
{
    const struct net_header header = { 0 };
    const struct ring_buffer buffer = { BUFFER(8), 12 + 64, 0 };
    struct fixture *f = *state;
    int64_t begin_ms = loop_now_ms();
    unsigned turns = 0;
    uint8_t frame[64];

    driver_start(&f->h, 0, 16);
    make_frame(frame, 50, 1);
    guest_put(&f->h, BUFFER(8), &header, sizeof(header));
    guest_put(&f->h, BUFFER(8) + 12, frame, sizeof(frame));
    for (unsigned i = 0; i < 4; i++) {
        ring_offer(&f->h, TX, &buffer, 1);
        offer_receive(f, i, 2048);
        host_send(f, 50, i);
    }
    ring_kick(&f->h, TX);
    ring_kick(&f->h, RX);
    while (f->stats.tx_frames < 4 || f->stats.rx_frames < 4) {
        assert_int_equal(loop_turn(f->h.loop, 10000, &f->h.err), 0);
        turns++;
    }
    assert_true(loop_now_ms() - begin_ms >= 199); /* one was there, one goes into debt */
    assert_in_range(turns, 0, 100);
    for (unsigned i = 0; i < 4; i++)
        assert_frame(f, BUFFER(i) + 12, 50, i);
    assert_int_equal(f->stats.rx_dropped + f->stats.tx_dropped, 0);
    ring_offer(&f->h, TX, &buffer, 1); /* waits, and is forgotten */
    ring_kick(&f->h, TX);
    driver_start(&f->h, 0, 16);
    assert_int_equal(f->stats.tx_frames, 4);
}

static void only_a_tap_with_our_header_is_taken(void **state)
{
    struct fixture *f = *state;
    struct virtio_net_spec spec = { .queues = 1, .tap_fds = &f->tap.host_fd, .stats = &f->stats };
    int ten = 10;

    assert_true(virtio_net_add(f->h.root, &spec, &f->h.err) < 0);
    assert_int_equal(ioctl(f->tap.tap_fd, TUNSETVNETHDRSZ, &ten), 0);
    spec.tap_fds = f->tap.fds;
    assert_int_equal(virtio_net_add(f->h.root, &spec, &f->h.err), -EINVAL);
}

/* The agent (or an operator) deletes the interface while the VM runs. */
static void a_deleted_tap_does_not_spin(void **state)
{
    struct fixture *f = *state;
    uint8_t frame[64];

    driver_start(&f->h, 0, 16);
    offer_receive(f, 0, 2048);
    ring_kick(&f->h, RX);
    assert_int_equal(system("ip link delete " TAP_NAME), 0);
    harness_run(&f->h);
    int64_t before = loop_now_ms();
    assert_int_equal(loop_turn(f->h.loop, 60, &f->h.err), 0);
    assert_true(loop_now_ms() - before >= 50);
    make_frame(frame, 50, 0);
    guest_send(f, &(struct net_header){ 0 }, frame, 64);
    assert_int_equal(f->stats.tx_dropped, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(the_configuration_describes_the_nic),
        TEST(a_frame_reaches_the_host),
        TEST(a_frame_reaches_the_guest),
        TEST(frames_wait_for_buffers),
        TEST(a_frame_is_spread_over_small_buffers),
        TEST(what_fits_nowhere_is_dropped),
        TEST(segmentation_is_done_if_it_was_agreed),
        TEST(the_tap_offloads_what_was_agreed),
        TEST(what_waits_is_sent_in_order_but_for_what_is_bad),
        TEST(what_stands_before_a_bad_chain_is_sent),
        TEST(bad_transmit_chains_need_reset),
        TEST(bad_receive_buffers_need_reset),
        TEST(short_and_empty_frames_are_dropped),
        TEST(a_burst_each_way_takes_several_turns),
        TEST(a_reset_forgets_what_was_held),
        cmocka_unit_test_setup_teardown(a_rate_limit_holds_frames_each_way, set_up_limited,
                                        tear_down),
        TEST(only_a_tap_with_our_header_is_taken),
        TEST(a_deleted_tap_does_not_spin),
    };

    return tap_harness_enter() ? cmocka_run_group_tests(tests, NULL, NULL) : skip_all();
}
