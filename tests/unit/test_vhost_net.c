/* test_vhost_net.c - a nic that the host's kernel serves, by the real /dev/vhost-net and a real
 * tap; skipped where either is missing.  What serves where it is missing is tested everywhere. */
#define HARNESS_HOTPLUG (4ull << 20)
#include "tests/unit/virtio_harness.h"
#include <sys/mman.h>
#include <time.h>
#include "tests/unit/tap_harness.h"
#include "vmm/stats_page.h"
#include "vmm/transfer.h"
#include "vmm/virtio_net.h"
#include "vmm/virtio_net_header.h"

#define RX(pair)    (2 * (pair))
#define TX(pair)    (2 * (pair) + 1)
#define RING        64
#define PAIRS_MAX   2
#define CONTROL     (2 * PAIRS_MAX)
#define COMMAND     DATA_BASE
#define ANSWER      (DATA_BASE + 0x100)
#define FRAME       (DATA_BASE + 0x1000)
#define SPACE(pair) (DATA_BASE + 0x10000 + (pair)*RING * 2048ull)
#define SIZE        60
#define HEADER      VIRTIO_NET_HEADER_BYTES
#define ALL                                                                             \
    (VIRTIO_FEATURE_INDIRECT | VIRTIO_FEATURE_EVENT_INDEX | VIRTIO_FEATURE_RING_RESET | \
     NET_FEATURE_MERGE)
#define PATIENCE_MS 20000
#define CALM_MS     50

struct fixture {
    struct harness h;
    struct tap_harness tap;
    struct stats_nic stats;
    struct virtio_net *net; /* borrowed */
    unsigned pairs;
    int fds[2 * PAIRS_MAX];
};

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ 0, ms * 1000000 }, NULL);
}

static void net_add(struct fixture *f)
{
    struct virtio_net_spec spec = { .queues = f->pairs,
                                    .tap_fds = f->fds,
                                    .vhost = true,
                                    .ret_net = &f->net,
                                    .stats = &f->stats,
                                    .mac = { 2, 0, 0, 0, 0, 1 } };

    harness_open(&f->h);
    assert_int_equal(virtio_net_add(f->h.root, &spec, &f->h.err), 0);
}

static struct fixture *fixture_new(unsigned pairs, const char *path)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    f->pairs = pairs;
    assert_true(tap_harness_open_queues(&f->tap, pairs));
    for (unsigned i = 0; i < pairs; i++) {
        f->fds[i] = f->tap.fds[i];
        f->fds[pairs + i] = open(path, O_RDWR | O_CLOEXEC);
        assert_true(f->fds[pairs + i] >= 0);
    }
    net_add(f);
    return f;
}

static int set_up(void **state)
{
    *state = fixture_new(1, "/dev/vhost-net");
    assert_int_equal(((struct fixture *)*state)->stats.vhost, 1);
    return 0;
}

static int set_up_pairs(void **state)
{
    *state = fixture_new(PAIRS_MAX, "/dev/vhost-net");
    return 0;
}

static int set_up_without(void **state)
{
    *state = fixture_new(1, "/dev/null");
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    harness_close(&f->h);
    for (unsigned i = 0; i < f->pairs; i++)
        close(f->fds[f->pairs + i]);
    tap_harness_close(&f->tap);
    free(f);
    return 0;
}

/* --- frames --- */

/* Whether the used index of a queue came to be what the driver has not seen yet. */
static bool has_used(struct fixture *f, unsigned queue, long patience_ms)
{
    for (long ms = 0; ms < patience_ms; ms++) {
        harness_run(&f->h);
        if (guest_get16(&f->h, ring_used(queue) + 2) != f->h.rings[queue].used)
            return true;
        sleep_ms(1);
    }
    return false;
}

static bool interrupt_comes(struct fixture *f, unsigned vector)
{
    for (long ms = 0; ms < PATIENCE_MS; ms++) {
        harness_run(&f->h);
        if (interrupts_take(&f->h) >> vector & 1)
            return true;
        sleep_ms(1);
    }
    return false;
}

/* One frame to the guest, which comes on one of `pairs`. */
static void assert_receives_on(struct fixture *f, unsigned pairs)
{
    uint32_t head, used;
    struct ring_descriptor descriptor;
    uint8_t bytes[HEADER + SIZE];

    assert_true(tap_host_send(&f->tap, SIZE));
    for (long ms = 0; ms < PATIENCE_MS; ms++) {
        for (unsigned pair = 0; pair < pairs; pair++) {
            if (!has_used(f, RX(pair), 1))
                continue;
            assert_true(ring_take(&f->h, RX(pair), &head, &used));
            assert_int_equal(used, sizeof(bytes));
            guest_get(&f->h, RING_BASE(RX(pair)) + head * sizeof(descriptor), &descriptor,
                      sizeof(descriptor));
            guest_get(&f->h, descriptor.address, bytes, sizeof(bytes));
            assert_int_equal(bytes[HEADER], 255);
            assert_int_equal(bytes[HEADER + 13], TAP_TYPE & 0xff);
            return;
        }
    }
    fail_msg("no frame came");
}

static void assert_receives(struct fixture *f)
{
    assert_receives_on(f, 1);
}

static void assert_sends_from(struct fixture *f, unsigned pair, uint64_t address)
{
    static const uint8_t frame[HEADER + SIZE] = {
        [HEADER] = 255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, TAP_TYPE >> 8, TAP_TYPE & 0xff
    };
    const struct ring_buffer buffer = { address, sizeof(frame), 0 };
    uint32_t head, used;

    guest_put(&f->h, address, frame, sizeof(frame));
    ring_offer(&f->h, TX(pair), &buffer, 1);
    ring_kick(&f->h, TX(pair));
    assert_true(has_used(f, TX(pair), PATIENCE_MS));
    assert_true(ring_take(&f->h, TX(pair), &head, &used));
    assert_int_equal(tap_host_receive(&f->tap), SIZE);
}

static void assert_sends(struct fixture *f, unsigned pair)
{
    assert_sends_from(f, pair, FRAME);
}

static void assert_serves(struct fixture *f)
{
    assert_receives(f);
    assert_sends(f, 0);
}

static void start(struct fixture *f, uint64_t features)
{
    tap_drain(&f->tap);
    driver_start(&f->h, features, RING);
    ring_offer_space(&f->h, RX(0), SPACE(0), RING / 2);
}

/* --- tests --- */

static void frames_pass_and_interrupt(void **state)
{
    static const uint64_t features[] = { ALL, 0, VIRTIO_FEATURE_EVENT_INDEX, NET_FEATURE_MERGE };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
        start(f, features[i]);
        (void)interrupts_take(&f->h);
        assert_receives(f);
        assert_true(interrupt_comes(f, 1 + RX(0)));
        assert_sends(f, 0);
        if (!(features[i] & VIRTIO_FEATURE_EVENT_INDEX))
            assert_true(interrupt_comes(f, 1 + TX(0)));
        for (unsigned k = 0; k < 3 * RING; k++) {
            ring_offer_space(&f->h, RX(0), SPACE(0), 1);
            assert_serves(f);
        }
        assert_int_equal(status_get(&f->h), 15);
        assert_int_equal(f->stats.vhost, 1);
        assert_int_equal(f->stats.rx_frames + f->stats.tx_frames, 0); /* not by us */
    }
}

/* The kernel asks the driver for what was negotiated: used_event, and buffers together. */
static void events_and_merging_are_negotiated(void **state)
{
    struct fixture *f = *state;
    uint64_t used_event = ring_avail(RX(0)) + 4 + 2 * RING;
    uint32_t head, used;

    start(f, ALL);
    assert_receives(f);
    assert_true(interrupt_comes(f, 1 + RX(0)));
    guest_put16(&f->h, used_event, (uint16_t)(f->h.rings[RX(0)].used + 2));
    for (unsigned i = 0; i < 2; i++)
        assert_receives(f);
    sleep_ms(CALM_MS);
    harness_run(&f->h);
    assert_int_equal(interrupts_take(&f->h) >> (1 + RX(0)) & 1, 0);
    assert_receives(f);
    assert_true(interrupt_comes(f, 1 + RX(0)));
    assert_true(tap_host_send(&f->tap, 5000));
    for (unsigned i = 0; i < 3; i++) {
        assert_true(has_used(f, RX(0), PATIENCE_MS));
        assert_true(ring_take(&f->h, RX(0), &head, &used));
        assert_int_equal(used, i < 2 ? 2048 : HEADER + 5000 - 2 * 2048);
    }
}

static void a_reset_device_is_left_alone(void **state)
{
    struct fixture *f = *state;

    start(f, ALL);
    assert_serves(f);
    status_put(&f->h, 0);
    assert_true(tap_host_send(&f->tap, SIZE));
    assert_false(has_used(f, RX(0), CALM_MS));
    start(f, ALL);
    assert_serves(f);
}

static void one_queue_is_reset(void **state)
{
    struct fixture *f = *state;

    start(f, ALL);
    assert_serves(f);
    reg_put(&f->h, REG_QUEUE_SELECT, 2, RX(0));
    reg_put(&f->h, REG_QUEUE_RESET, 2, 1);
    assert_true(tap_host_send(&f->tap, SIZE));
    assert_false(has_used(f, RX(0), CALM_MS));
    assert_sends(f, 0); /* the other one goes on, where it was */
    tap_drain(&f->tap);
    driver_set_ring(&f->h, RX(0), RING);
    ring_offer_space(&f->h, RX(0), SPACE(0), RING / 2);
    assert_serves(f);
}

/* While it is stopped nothing comes; the loop, when it runs again, lends it again. */
static void a_stop_lasts_until_the_loop_runs(void **state)
{
    struct fixture *f = *state;
    uint16_t used;

    start(f, ALL);
    assert_serves(f);
    virtio_net_finish(f->net);
    used = guest_get16(&f->h, ring_used(RX(0)) + 2);
    assert_true(tap_host_send(&f->tap, SIZE));
    sleep_ms(CALM_MS);
    assert_int_equal(guest_get16(&f->h, ring_used(RX(0)) + 2), used);
    assert_true(has_used(f, RX(0), PATIENCE_MS));
    f->h.rings[RX(0)].used++;
    assert_serves(f);
    assert_int_equal(f->stats.rx_frames, 0);
}

/* What is saved after the stop must have it pending. */
static void a_stop_loses_no_interrupt(void **state)
{
    struct fixture *f = *state;

    start(f, 0);
    assert_serves(f);
    assert_true(interrupt_comes(f, 1 + RX(0)));
    for (unsigned i = 0; i < 20; i++) {
        uint16_t used = guest_get16(&f->h, ring_used(RX(0)) + 2);
        long ms = 0;

        assert_true(tap_host_send(&f->tap, SIZE));
        while (guest_get16(&f->h, ring_used(RX(0)) + 2) == used && ms++ < PATIENCE_MS)
            sleep_ms(1);
        virtio_net_finish(f->net);
        assert_int_equal(interrupts_take(&f->h) >> (1 + RX(0)) & 1, 1);
        f->h.rings[RX(0)].used++;
        harness_run(&f->h);
        (void)interrupts_take(&f->h);
    }
}

static bool is_pending(struct fixture *f, unsigned vector)
{
    return mmio_get(&f->h, bar_address(&f->h, 1) + PCI_MSIX_PENDING_OFFSET, 8) >> vector & 1;
}

static void mask(struct fixture *f, unsigned vector, bool masked)
{
    uint64_t entry = bar_address(&f->h, 1) + 16 * vector;

    mmio_put(&f->h, entry, 8, 0xfee00000);
    mmio_put(&f->h, entry + 8, 8, 0x41 | (uint64_t)masked << 32);
}

/* It comes after the used index. */
static bool becomes_pending(struct fixture *f, unsigned vector)
{
    for (long ms = 0; ms < PATIENCE_MS; ms++) {
        if (is_pending(f, vector))
            return true;
        sleep_ms(1);
    }
    return false;
}

/* KVM gets what the kernel sends only while the vector is open. */
static void a_masked_vector_holds_interrupts(void **state)
{
    struct fixture *f = *state;
    unsigned vector = 1 + RX(0);

    if (f->h.vm_fd < 0)
        skip(); /* no /dev/kvm */
    start(f, 0);
    assert_receives(f);
    assert_true(becomes_pending(f, vector));
    for (unsigned i = 0; i < 5; i++) {
        mask(f, vector, false);
        assert_false(is_pending(f, vector));
        assert_receives(f);
        sleep_ms(CALM_MS);
        assert_false(is_pending(f, vector));
        mask(f, vector, true);
        assert_false(is_pending(f, vector));
        assert_receives(f);
        assert_true(becomes_pending(f, vector));
    }
    assert_sends(f, 0);
}

/* Into a machine without it, and back into one with it. */
static void a_snapshot_goes_on_elsewhere(void **state)
{
    struct fixture *from = *state;
    uint8_t *ram = malloc(HARNESS_MEMORY);

    assert_non_null(ram);
    start(from, ALL);
    for (unsigned i = 0; i < 5; i++)
        assert_serves(from);
    for (unsigned turn = 0; turn < 2; turn++) {
        struct transfer out = { .err = NULL }, in;
        struct harness_ring rings[VIRTIO_DEVICE_QUEUES_MAX];
        struct fixture *to;

        virtio_net_finish(from->net);
        pci_root_transfer(from->h.root, &out);
        assert_true(transfer_is_good(&out));
        guest_get(&from->h, 0, ram, HARNESS_MEMORY);
        memcpy(rings, from->h.rings, sizeof(rings));
        tear_down((void **)&from);

        to = fixture_new(1, turn == 0 ? "/dev/null" : "/dev/vhost-net");
        guest_put(&to->h, 0, ram, HARNESS_MEMORY);
        memcpy(to->h.rings, rings, sizeof(rings));
        in = (struct transfer){
            .loading = true, .bytes = out.bytes, .size = out.size, .err = &to->h.err
        };
        pci_root_transfer(to->h.root, &in);
        assert_true(transfer_is_good(&in));
        harness_run(&to->h);
        for (unsigned i = 0; i < 5; i++)
            assert_serves(to);
        assert_int_equal(to->stats.vhost, turn);
        free(out.bytes);
        from = to;
    }
    *state = from;
    free(ram);
}

/* What can be plugged is the guest's whether it has plugged it or not (virtio_mem.h). */
static void memory_that_can_be_plugged_is_the_guests(void **state)
{
    struct fixture *f = *state;

    start(f, ALL);
    assert_sends_from(f, 0, GUEST_HOLE_END);
    assert_sends_from(f, 0, GUEST_HOLE_END + HARNESS_HOTPLUG - HEADER - SIZE);
    assert_sends_from(f, 0, HARNESS_MEMORY - HEADER - SIZE);
}

static void broken_rings_need_reset(void **state)
{
    static const struct ring_buffer cases[] = {
        { HARNESS_MEMORY - 2, 4096, 0 }, /* past RAM */
        { HARNESS_MEMORY, 64, 0 },
        { GUEST_HOLE_END - 64, 128, 0 }, /* before what can be plugged, and behind it */
        { GUEST_HOLE_END + HARNESS_HOTPLUG - 64, 128, 0 },
        { PLATFORM_PCI32_START, 64, 0 }, /* our own registers */
        { UINT64_MAX - 8, 64, 0 },       /* wraps */
        { FRAME, 64, RING_WRITE },       /* of the other direction */
    };
    struct fixture *f = *state;

    for (size_t i = 0; i <= sizeof(cases) / sizeof(cases[0]); i++) {
        start(f, ALL);
        assert_serves(f);
        (void)interrupts_take(&f->h);
        if (i == 0) /* more than the ring has */
            guest_put16(&f->h, ring_avail(TX(0)) + 2, (uint16_t)(f->h.rings[TX(0)].avail + 999));
        else
            ring_offer(&f->h, TX(0), &cases[i - 1], 1);
        ring_kick(&f->h, TX(0));
        assert_true(interrupt_comes(f, 0));
        assert_needs_reset(&f->h);
        assert_true(tap_host_send(&f->tap, SIZE));
        assert_false(has_used(f, RX(0), CALM_MS));
    }
    start(f, ALL);
    assert_serves(f);
}

/* As a balloon does it: other pages at the same addresses. */
static void discarded_memory_stays_good(void **state)
{
    struct fixture *f = *state;

    start(f, ALL);
    for (unsigned i = 0; i < 5; i++) {
        guest_memory_discard(f->h.memory, SPACE(0), RING * 2048);
        assert_serves(f);
    }
}

static int set_pairs(struct fixture *f, uint8_t pairs)
{
    const uint8_t command[4] = { 4, 0, pairs, 0 };
    const struct ring_buffer buffers[] = { { COMMAND, 4, 0 }, { ANSWER, 1, RING_WRITE } };
    uint8_t answer = 0xee;
    uint32_t head, used;

    guest_put(&f->h, COMMAND, command, sizeof(command));
    ring_offer(&f->h, CONTROL, buffers, 2);
    ring_kick(&f->h, CONTROL);
    assert_true(ring_take(&f->h, CONTROL, &head, &used));
    guest_get(&f->h, ANSWER, &answer, 1);
    return answer;
}

/* The host spreads frames over all queues of a tap, so it is all pairs or none. */
static void serves_while_all_pairs_are_used(void **state)
{
    struct fixture *f = *state;
    uint64_t counted;

    start(f, ALL | NET_FEATURE_MULTI_QUEUE | NET_FEATURE_CONTROL);
    ring_offer_space(&f->h, RX(1), SPACE(1), RING / 2);
    for (unsigned turn = 0; turn < 3; turn++) {
        assert_receives_on(f, 1);
        assert_sends(f, 0);
        assert_int_equal(f->stats.vhost, 0);
        assert_int_equal(set_pairs(f, PAIRS_MAX), 0);
        harness_run(&f->h);
        counted = f->stats.rx_frames + f->stats.tx_frames;
        for (unsigned i = 0; i < 4; i++) {
            assert_receives_on(f, PAIRS_MAX);
            assert_sends(f, i % PAIRS_MAX);
        }
        assert_int_equal(f->stats.rx_frames + f->stats.tx_frames, counted);
        assert_int_equal(f->stats.vhost, 1);
        assert_int_equal(set_pairs(f, 1), 0);
        harness_run(&f->h);
    }
    assert_int_equal(status_get(&f->h), 15);
}

static void where_it_is_missing_we_serve(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(f->stats.vhost, 0);
    start(f, ALL);
    assert_serves(f);
    assert_int_equal(f->stats.vhost, 0);
    assert_int_equal(f->stats.rx_frames, 1);
    assert_int_equal(f->stats.tx_frames, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name, begin) cmocka_unit_test_setup_teardown(name, begin, tear_down)
        TEST(frames_pass_and_interrupt, set_up),
        TEST(events_and_merging_are_negotiated, set_up),
        TEST(a_reset_device_is_left_alone, set_up),
        TEST(one_queue_is_reset, set_up),
        TEST(a_stop_lasts_until_the_loop_runs, set_up),
        TEST(a_stop_loses_no_interrupt, set_up),
        TEST(a_masked_vector_holds_interrupts, set_up),
        TEST(a_snapshot_goes_on_elsewhere, set_up),
        TEST(memory_that_can_be_plugged_is_the_guests, set_up),
        TEST(broken_rings_need_reset, set_up),
        TEST(discarded_memory_stays_good, set_up),
        TEST(serves_while_all_pairs_are_used, set_up_pairs),
        TEST(where_it_is_missing_we_serve, set_up_without),
    };
    const struct CMUnitTest here[] = {
        cmocka_unit_test(not_here),
        TEST(where_it_is_missing_we_serve, set_up_without),
    };

    if (!tap_harness_enter())
        return skip_all();
    if (access("/dev/vhost-net", R_OK | W_OK) < 0)
        return cmocka_run_group_tests_name("vhost_net", here, NULL, NULL);
    return cmocka_run_group_tests_name("vhost_net", tests, NULL, NULL);
}
