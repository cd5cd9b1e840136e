/* test_virtio_block_queues.c - the block device with several queues: each is answered where it
 * asked, and they share what the device has. */
#include "tests/unit/block_driver.h"
#include "base/cleanup.h"
#include "tests/unit/ring_harness.h"
#include "vmm/stats_page.h"
#include "vmm/virtio_block.h"

#define QUEUES              4
#define DISK_BYTES          (4u << 20)
#define FEATURE_MULTI_QUEUE (1ull << 12)
#define HEADER(n)           (DATA_BASE + (n)*0x1000ull)
#define STATUS(n)           (HEADER(n) + BLOCK_STATUS)
#define DATA(n)             (HEADER(n) + 0x200)

struct fixture {
    struct harness h;
    struct stats_disk stats;
    struct uring *ring;
    int fd;
};

static int set_up_limit(void **state, uint64_t operations_per_second)
{
    char name[] = "test_virtio_block_queues.XXXXXX";
    struct fixture *f = calloc(1, sizeof(*f));
    struct virtio_block_spec spec = { .queues = QUEUES, .size_bytes = DISK_BYTES };

    assert_non_null(f);
    harness_open(&f->h);
    f->fd = mkostemp(name, 0);
    assert_true(f->fd >= 0);
    unlink(name);
    assert_int_equal(ftruncate(f->fd, DISK_BYTES), 0);
    spec.fd = f->fd;
    spec.ring = f->ring = ring_new();
    spec.stats = &f->stats;
    spec.rate_limit.operations_per_second = operations_per_second;
    assert_int_equal(virtio_block_add(f->h.root, &spec, &f->h.err), 0);
    *state = f;
    return 0;
}

static int set_up(void **state)
{
    return set_up_limit(state, 0);
}

static int set_up_limited(void **state)
{
    return set_up_limit(state, 20);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    harness_close(&f->h);
    ring_free(f->ring);
    close(f->fd);
    free(f);
    return 0;
}

/* One sector, by its place in memory `n`. */
static void offer(struct fixture *f, unsigned queue, unsigned n, uint32_t type, uint64_t sector)
{
    block_offer(&f->h, queue, HEADER(n), type, sector, DATA(n), 512);
}

/* So many are answered there, and no more. */
static void await(struct fixture *f, unsigned queue, unsigned count)
{
    uint32_t head, used;

    while (count-- > 0)
        assert_true(ring_await(&f->h, queue, &head, &used));
    assert_false(ring_take(&f->h, queue, &head, &used));
}

static void offered_only_where_there_are_several(void **state)
{
    struct fixture *f = *state;
    uint64_t features;

    driver_attach(&f->h);
    features = features_offered(&f->h);
    assert_true(features & FEATURE_MULTI_QUEUE);
    assert_false(features & VIRTIO_FEATURE_RING_RESET); /* it would cancel the others' requests */
    assert_int_equal(device_config_get(&f->h, 34, 2), QUEUES);
    assert_int_equal(reg_get(&f->h, REG_QUEUE_COUNT, 2), QUEUES);
}

static void each_queue_is_answered_where_it_asked(void **state)
{
    struct fixture *f = *state;
    uint8_t bytes[512];

    driver_start(&f->h, FEATURE_MULTI_QUEUE, 16);
    (void)interrupts_take(&f->h);
    for (unsigned queue = 0; queue < QUEUES; queue++) {
        memset(bytes, (int)(0x10 + queue), sizeof(bytes));
        guest_put(&f->h, DATA(queue), bytes, sizeof(bytes));
        offer(f, queue, queue, OUT, queue);
        ring_notify(&f->h, queue);
        await(f, queue, 1);
        assert_int_equal(guest_get8(&f->h, STATUS(queue)), 0);
        assert_int_equal(interrupts_take(&f->h), 1 << (1 + queue));
    }
    for (unsigned queue = 0; queue < QUEUES; queue++) { /* another one reads it */
        offer(f, queue, QUEUES, IN, (queue + 1) % QUEUES);
        ring_notify(&f->h, queue);
        await(f, queue, 1);
        assert_int_equal(guest_get8(&f->h, DATA(QUEUES)), 0x10 + (queue + 1) % QUEUES);
    }
}

/* Far more than may be in flight, all at once. */
static void queues_share_what_may_be_in_flight(void **state)
{
    const unsigned each = 80;
    struct fixture *f = *state;

    driver_start(&f->h, FEATURE_MULTI_QUEUE, 256);
    for (unsigned i = 0; i < each; i++)
        for (unsigned queue = 0; queue < QUEUES; queue++)
            offer(f, queue, i, IN, i);
    for (unsigned queue = 0; queue < QUEUES; queue++)
        ring_notify(&f->h, queue);
    for (unsigned queue = 0; queue < QUEUES; queue++)
        await(f, queue, each);
    assert_int_equal(f->stats.read_ops, each * QUEUES);
    assert_int_equal(f->stats.errors, 0);
}

static void a_rate_limit_holds_all_queues_and_lets_all_go_on(void **state)
{
    struct fixture *f = *state;
    int64_t begin_ms = loop_now_ms();

    driver_start(&f->h, FEATURE_MULTI_QUEUE, 16);
    for (unsigned queue = 0; queue < QUEUES; queue++) {
        offer(f, queue, queue, IN, queue);
        offer(f, queue, queue + QUEUES, IN, queue);
        ring_notify(&f->h, queue);
    }
    for (unsigned queue = 0; queue < QUEUES; queue++)
        await(f, queue, 2);
    assert_true(loop_now_ms() - begin_ms >= 249); /* 8 at 20/s: 2 were there, one is a debt */
}

static void a_driver_may_use_some_of_them(void **state)
{
    struct fixture *f = *state;

    driver_attach(&f->h);
    assert_true(driver_negotiate(&f->h, VIRTIO_FEATURE_VERSION_1)); /* nor told of it */
    driver_set_ring(&f->h, 2, 16);
    status_put(&f->h, 15);
    for (unsigned queue = 0; queue < QUEUES; queue++)
        ring_notify(&f->h, queue);
    offer(f, 2, 0, IN, 0);
    ring_notify(&f->h, 2);
    await(f, 2, 1);
    assert_int_equal(status_get(&f->h), 15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(offered_only_where_there_are_several),
        TEST(each_queue_is_answered_where_it_asked),
        TEST(queues_share_what_may_be_in_flight),
        cmocka_unit_test_setup_teardown(a_rate_limit_holds_all_queues_and_lets_all_go_on,
                                        set_up_limited, tear_down),
        TEST(a_driver_may_use_some_of_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
