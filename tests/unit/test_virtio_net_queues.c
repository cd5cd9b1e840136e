/* test_virtio_net_queues.c - the network device with several queue pairs: which are used, where
 * frames go, its control queue, and a snapshot of it.  A tap of four queues in a network namespace
 * of the test's own. */
#include "tests/unit/virtio_harness.h"
#include "base/cleanup.h"
#include "tests/unit/tap_harness.h"
#include "vmm/stats_page.h"
#include "vmm/transfer.h"
#include "vmm/virtio_net.h"
#include "vmm/virtio_net_header.h"

#define PAIRS       4
#define CONTROL     (2 * PAIRS)
#define RX(pair)    (2 * (pair))
#define TX(pair)    (2 * (pair) + 1)
#define RING        64
#define FLOWS       48
#define COMMAND     DATA_BASE
#define ANSWER      (DATA_BASE + 0x100)
#define FRAME       (DATA_BASE + 0x1000)
#define SPACE(pair) (DATA_BASE + 0x10000 + (pair)*RING * 2048ull)
#define FEATURES    (NET_FEATURE_MULTI_QUEUE | NET_FEATURE_CONTROL)

struct fixture {
    struct harness h;
    struct tap_harness tap;
    struct stats_nic stats;
};

static void net_add(struct fixture *f)
{
    struct virtio_net_spec spec = {
        .queues = PAIRS, .tap_fds = f->tap.fds, .stats = &f->stats, .mac = { 2, 0, 0, 0, 0, 1 }
    };

    harness_open(&f->h);
    assert_int_equal(virtio_net_add(f->h.root, &spec, &f->h.err), 0);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    assert_true(tap_harness_open_queues(&f->tap, PAIRS));
    net_add(f);
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

static void put_command(struct fixture *f, uint8_t class, uint8_t command, uint16_t pairs)
{
    const uint8_t bytes[4] = { class, command, (uint8_t)pairs, (uint8_t)(pairs >> 8) };

    guest_put(&f->h, COMMAND, bytes, sizeof(bytes));
}

/* The answer to `size` bytes of what was put. */
static int command_in(struct fixture *f, unsigned queue, uint32_t size)
{
    const struct ring_buffer buffers[] = { { COMMAND, size, 0 }, { ANSWER, 1, RING_WRITE } };
    uint8_t answer = 0xee;
    uint32_t head, used;

    guest_put(&f->h, ANSWER, &answer, 1);
    ring_offer(&f->h, queue, buffers, 2);
    ring_kick(&f->h, queue);
    assert_true(ring_take(&f->h, queue, &head, &used));
    assert_int_equal(used, 1);
    guest_get(&f->h, ANSWER, &answer, 1);
    return answer;
}

static int set_pairs(struct fixture *f, uint16_t pairs)
{
    put_command(f, 4, 0, pairs);
    return command_in(f, CONTROL, 4);
}

/* UDP, so that the host's steering tells flows apart by their ports. */
static void host_send_flow(const struct fixture *f, uint8_t flow, uint8_t number)
{
    const struct sockaddr_ll to = { .sll_family = AF_PACKET,
                                    .sll_protocol = htons(ETH_P_IP),
                                    .sll_ifindex = (int)if_nametoindex(TAP_NAME) };
    uint8_t frame[14 + 28] = { 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 0 };
    uint8_t ip[28] = { 0x45, 0, 0,  28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0,
                       0,    1, 10, 0,  0, 2, 1, 0, 2,  0,  0, 8, 0,  0 };

    ip[21] = flow;
    ip[23] = flow;
    memcpy(frame + 14, ip, sizeof(ip));
    frame[5] = number; /* of the flow's frames */
    assert_int_equal(
        sendto(f->tap.host_fd, frame, sizeof(frame), 0, (const struct sockaddr *)&to, sizeof(to)),
        sizeof(frame));
}

/* The flow of the next frame that came on a pair, -1 if there is none; bytes: it, with header. */
static int take_frame(struct fixture *f, unsigned pair, uint8_t bytes[12 + 42])
{
    struct ring_descriptor descriptor;
    uint32_t head, used;

    if (!ring_take(&f->h, RX(pair), &head, &used))
        return -1;
    guest_get(&f->h, RING_BASE(RX(pair)) + head * sizeof(descriptor), &descriptor,
              sizeof(descriptor));
    assert_int_equal(used, 12 + 42);
    guest_get(&f->h, descriptor.address, bytes, 12 + 42);
    return bytes[12 + 35];
}

/* Frames that came on a pair, by flow; those of each flow must come in their order. */
static unsigned take_frames(struct fixture *f, unsigned pair, int *next_of_flow)
{
    uint8_t bytes[12 + 42];
    unsigned count = 0;
    int flow;

    while ((flow = take_frame(f, pair, bytes)) >= 0) {
        assert_int_equal(bytes[12 + 5], next_of_flow[flow]);
        next_of_flow[flow]++;
        count++;
    }
    return count;
}

static void offered_only_where_there_are_several(void **state)
{
    struct fixture *f = *state;
    uint64_t features;

    driver_attach(&f->h);
    features = features_offered(&f->h);
    assert_int_equal(features & FEATURES, FEATURES);
    assert_int_equal(reg_get(&f->h, REG_QUEUE_COUNT, 2), CONTROL + 1);
    assert_int_equal(device_config_get(&f->h, 8, 2), PAIRS);
    assert_false(driver_negotiate(&f->h, VIRTIO_FEATURE_VERSION_1 | NET_FEATURE_MULTI_QUEUE));
    assert_true(driver_negotiate(&f->h, features));
}

static void one_pair_until_the_driver_asks_for_more(void **state)
{
    struct fixture *f = *state;
    int next[256] = { 0 };

    driver_start(&f->h, FEATURES, RING);
    for (unsigned pair = 0; pair < PAIRS; pair++)
        ring_offer_space(&f->h, RX(pair), SPACE(pair), RING - 1);
    for (unsigned i = 0; i < FLOWS; i++)
        host_send_flow(f, (uint8_t)i, 0);
    harness_run(&f->h);
    assert_int_equal(take_frames(f, 0, next), FLOWS);
    for (unsigned pair = 1; pair < PAIRS; pair++)
        assert_int_equal(take_frames(f, pair, next), 0);
}

static void flows_spread_over_the_pairs(void **state)
{
    struct fixture *f = *state;

    for (uint16_t pairs = 2; pairs <= PAIRS; pairs++) {
        unsigned sum = 0, used = 0;
        int next[256] = { 0 };

        driver_start(&f->h, FEATURES, RING);
        assert_int_equal(set_pairs(f, pairs), 0);
        for (unsigned pair = 0; pair < PAIRS; pair++)
            ring_offer_space(&f->h, RX(pair), SPACE(pair), RING - 1);
        for (uint8_t round = 0; round < 2; round++) {
            for (unsigned i = 0; i < FLOWS / 2; i++)
                host_send_flow(f, (uint8_t)i, round);
            harness_run(&f->h);
        }
        for (unsigned pair = 0; pair < PAIRS; pair++) {
            unsigned count = take_frames(f, pair, next);

            assert_true(pair < pairs || count == 0);
            used += count > 0;
            sum += count;
        }
        assert_int_equal(sum, FLOWS);
        assert_true(used > 1);
        assert_int_equal(status_get(&f->h), 15);
    }
}

/* Frames wait for a pair without buffers; fewer pairs bring them to one that has some. */
static void what_waits_for_a_pair_goes_to_another_when_it_is_gone(void **state)
{
    struct fixture *f = *state;
    int next[256] = { 0 };
    unsigned before;

    driver_start(&f->h, FEATURES, RING);
    assert_int_equal(set_pairs(f, PAIRS), 0);
    ring_offer_space(&f->h, RX(0), SPACE(0), RING - 1);
    for (unsigned i = 0; i < FLOWS; i++)
        host_send_flow(f, (uint8_t)i, 0);
    harness_run(&f->h);
    before = take_frames(f, 0, next);
    assert_in_range(before, 0, FLOWS - 1);
    assert_int_equal(set_pairs(f, 1), 0);
    harness_run(&f->h);
    assert_int_equal(before + take_frames(f, 0, next), FLOWS);
    assert_int_equal(f->stats.rx_dropped, 0);
}

/* Without event indices a flag says whether kicks are wanted: yes as long as a frame of one of the
 * tap's queues waits for buffers, whatever the others have. */
static void kicks_are_wanted_while_a_frame_waits(void **state)
{
    struct fixture *f = *state;
    int next[256] = { 0 };

    driver_start(&f->h, FEATURES, RING);
    for (unsigned i = 0; i < 16; i++) {
        host_send_flow(f, (uint8_t)i, 0);
        ring_kick(&f->h, RX(0)); /* all queues of the tap are looked at */
        assert_int_equal(guest_get16(&f->h, ring_used(RX(0))), 0);
        ring_offer_space(&f->h, RX(0), SPACE(0), 1);
        assert_int_equal(take_frames(f, 0, next), 1);
    }
}

/* With one buffer at a time: a tap with much in it does not have it always. */
static void taps_of_a_pair_take_turns(void **state)
{
    struct fixture *f = *state;
    unsigned tap_of[FLOWS] = { 0 }, left[PAIRS] = { 0 };
    uint8_t bytes[12 + 42];
    int flow;

    driver_start(&f->h, FEATURES, RING);
    assert_int_equal(set_pairs(f, PAIRS), 0);
    for (unsigned pair = 0; pair < PAIRS; pair++)
        ring_offer_space(&f->h, RX(pair), SPACE(pair), RING - 1);
    for (unsigned i = 0; i < FLOWS; i++)
        host_send_flow(f, (uint8_t)i, 0);
    harness_run(&f->h);
    for (unsigned pair = 0; pair < PAIRS; pair++) /* who has which flows */
        while ((flow = take_frame(f, pair, bytes)) >= 0) {
            tap_of[flow] = pair;
            left[pair]++;
        }
    driver_start(&f->h, FEATURES, RING); /* one pair, without buffers */
    for (unsigned i = 0; i < FLOWS; i++)
        host_send_flow(f, (uint8_t)i, 1);
    harness_run(&f->h);
    for (unsigned last = PAIRS, i = 0; i < FLOWS; i++) {
        bool others = false;

        ring_offer_space(&f->h, RX(0), SPACE(0), 1);
        ring_kick(&f->h, RX(0));
        flow = take_frame(f, 0, bytes);
        assert_true(flow >= 0);
        for (unsigned tap = 0; tap < PAIRS; tap++)
            others |= tap != last && left[tap] > 0;
        assert_true(tap_of[flow] != last || !others);
        last = tap_of[flow];
        left[last]--;
    }
}

static bool guest_send_bytes(struct fixture *f, unsigned pair, uint32_t size)
{
    static const uint8_t frame[12 + 60] = {
        [12] = 255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, TAP_TYPE >> 8, TAP_TYPE & 0xff
    };
    const struct ring_buffer buffer = { FRAME, 12 + size, 0 };
    uint32_t head, used;

    guest_put(&f->h, FRAME, frame, sizeof(frame));
    ring_offer(&f->h, TX(pair), &buffer, 1);
    ring_kick(&f->h, TX(pair));
    return ring_take(&f->h, TX(pair), &head, &used);
}

static bool guest_send(struct fixture *f, unsigned pair)
{
    return guest_send_bytes(f, pair, 60);
}

static void each_pair_in_use_sends(void **state)
{
    struct fixture *f = *state;
    uint32_t head, used;

    driver_start(&f->h, FEATURES, RING);
    assert_true(guest_send(f, 0));
    assert_true(guest_send_bytes(f, 0, 5000)); /* as it lies, behind a header of ours */
    assert_false(guest_send(f, 3));            /* not in use */
    assert_int_equal(f->stats.tx_frames, 2);
    assert_int_equal(set_pairs(f, PAIRS), 0);
    harness_run(&f->h);
    assert_true(ring_take(&f->h, TX(3), &head, &used)); /* what it offered before */
    for (unsigned pair = 0; pair < PAIRS; pair++) {
        tap_drain(&f->tap);
        assert_true(guest_send(f, pair));
        assert_int_equal(tap_host_receive(&f->tap), 60);
    }
    driver_start(&f->h, FEATURES, RING); /* a reset driver has one again */
    assert_false(guest_send(f, 1));
}

static void commands_are_judged(void **state)
{
    static const struct {
        uint8_t class, command;
        uint16_t pairs;
        uint32_t size;
    } bad[] = {
        { 4, 0, 0, 4 },      { 4, 0, PAIRS + 1, 4 }, { 4, 0, 0x8000, 4 }, { 4, 0, UINT16_MAX, 4 },
        { 4, 0, 0x0100, 4 }, { 4, 1, 2, 4 },         { 4, 255, 2, 4 },    { 3, 0, 2, 4 },
        { 0, 0, 1, 4 },      { 255, 255, 1, 4 },     { 4, 0, 2, 3 },      { 4, 0, 2, 2 },
        { 4, 0, 2, 1 },      { 4, 0, 2, 5 },         { 4, 0, 2, 4096 },
    };
    struct fixture *f = *state;

    driver_start(&f->h, FEATURES, RING);
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        put_command(f, bad[i].class, bad[i].command, bad[i].pairs);
        if (command_in(f, CONTROL, bad[i].size) != 1)
            fail_msg("command %zu was done", i);
    }
    assert_false(guest_send(f, 1));
    assert_int_equal(status_get(&f->h), 15);
    for (uint16_t pairs = 1; pairs <= PAIRS; pairs++)
        assert_int_equal(set_pairs(f, pairs), 0);

    /* 5.1.2: without the pairs, control is the third queue, and knows nothing. */
    driver_start(&f->h, NET_FEATURE_CONTROL, RING);
    put_command(f, 4, 0, 2);
    assert_int_equal(command_in(f, 2, 4), 1);
    ring_kick(&f->h, CONTROL);
    driver_start(&f->h, 0, RING);
    for (unsigned queue = 0; queue <= CONTROL; queue++)
        ring_kick(&f->h, queue);
    assert_int_equal(status_get(&f->h), 15);
}

static void commands_that_cannot_be_answered_need_reset(void **state)
{
    static const struct ring_buffer cases[] = {
        { COMMAND, 4, 0 },              /* no room for an answer */
        { ANSWER, 1, RING_WRITE },      /* no command */
        { HARNESS_MEMORY - 2, 4, 0 },   /* past RAM */
        { PLATFORM_PCI32_START, 4, 0 }, /* our own registers */
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        driver_start(&f->h, FEATURES, RING);
        ring_offer(&f->h, CONTROL, &cases[i], 1);
        ring_kick(&f->h, CONTROL);
        assert_needs_reset(&f->h);
    }
    driver_start(&f->h, FEATURES, RING);
    assert_int_equal(set_pairs(f, 2), 0);
}

static void a_flood_of_commands_leaves_others_their_turn(void **state)
{
    const struct ring_buffer buffers[] = { { COMMAND, 4, 0 }, { ANSWER, 1, RING_WRITE } };
    struct fixture *f = *state;
    uint32_t head, used;
    unsigned done = 0;

    driver_start(&f->h, FEATURES, RING);
    put_command(f, 4, 0, 2);
    for (unsigned i = 0; i < RING / 2; i++)
        ring_offer(&f->h, CONTROL, buffers, 2);
    mmio_put(&f->h,
             bar_address(&f->h, 0) + VIRTIO_PCI_NOTIFY_OFFSET + CONTROL * VIRTIO_PCI_NOTIFY_STRIDE,
             2, CONTROL);
    assert_int_equal(loop_turn(f->h.loop, 0, &f->h.err), 0);
    while (ring_take(&f->h, CONTROL, &head, &used))
        done++;
    assert_in_range(done, 1, 8);
    harness_run(&f->h);
    while (ring_take(&f->h, CONTROL, &head, &used))
        done++;
    assert_int_equal(done, RING / 2);
}

static void a_snapshot_keeps_the_pairs(void **state)
{
    struct fixture *from = *state, to = { 0 };
    struct transfer out = { .err = &from->h.err }, in;
    uint8_t *ram = malloc(HARNESS_MEMORY);

    assert_non_null(ram);
    driver_start(&from->h, FEATURES, RING);
    assert_int_equal(set_pairs(from, 3), 0);
    pci_root_transfer(from->h.root, &out);
    assert_true(transfer_is_good(&out));
    guest_get(&from->h, 0, ram, HARNESS_MEMORY);

    to.tap = from->tap;
    net_add(&to);
    guest_put(&to.h, 0, ram, HARNESS_MEMORY);
    memcpy(to.h.rings, from->h.rings, sizeof(to.h.rings));
    in = (struct transfer){
        .loading = true, .bytes = out.bytes, .size = out.size, .err = &to.h.err
    };
    pci_root_transfer(to.h.root, &in);
    assert_true(transfer_is_good(&in));
    harness_run(&to.h);
    assert_true(guest_send(&to, 2));
    assert_false(guest_send(&to, 3));
    assert_int_equal(set_pairs(&to, PAIRS), 0);
    harness_close(&to.h);
    free(ram);
    free(out.bytes);
}

/* Of transfer.c: the hash of its name, its size, itself. */
static void replace_item(struct transfer *out, const char *name, const void *value, uint32_t size)
{
    uint32_t header[2] = { 2166136261u, size };

    for (; *name; name++)
        header[0] = (header[0] ^ (uint8_t)*name) * 16777619u;
    for (size_t i = 0; i + sizeof(header) + size <= out->size; i++) {
        if (memcmp(out->bytes + i, header, sizeof(header)) == 0) {
            memcpy(out->bytes + i + sizeof(header), value, size);
            return;
        }
    }
    fail();
}

/* Pairs that are not there, and pairs that were never negotiated. */
static void a_snapshot_with_other_pairs_is_refused(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 2 * (PAIRS + 2); i++) {
        bool multi = i % 2 == 1;
        uint16_t pairs = (uint16_t)(i / 2);
        struct transfer out = { .err = &f->h.err }, in;

        driver_start(&f->h, multi ? FEATURES : 0, RING);
        pci_root_transfer(f->h.root, &out);
        replace_item(&out, "net pairs", &pairs, sizeof(pairs));
        in = (struct transfer){
            .loading = true, .bytes = out.bytes, .size = out.size, .err = &f->h.err
        };
        status_put(&f->h, 0);
        pci_root_transfer(f->h.root, &in);
        assert_int_equal(transfer_is_good(&in), pairs == 1 || (multi && pairs <= PAIRS && pairs));
        free(out.bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(offered_only_where_there_are_several),
        TEST(one_pair_until_the_driver_asks_for_more),
        TEST(flows_spread_over_the_pairs),
        TEST(what_waits_for_a_pair_goes_to_another_when_it_is_gone),
        TEST(kicks_are_wanted_while_a_frame_waits),
        TEST(taps_of_a_pair_take_turns),
        TEST(each_pair_in_use_sends),
        TEST(commands_are_judged),
        TEST(commands_that_cannot_be_answered_need_reset),
        TEST(a_flood_of_commands_leaves_others_their_turn),
        TEST(a_snapshot_keeps_the_pairs),
        TEST(a_snapshot_with_other_pairs_is_refused),
    };

    return tap_harness_enter() ? cmocka_run_group_tests(tests, NULL, NULL) : skip_all();
}
