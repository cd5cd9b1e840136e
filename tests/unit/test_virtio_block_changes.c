/* test_virtio_block_changes.c - a disk that grows, and whose rate limit changes, while it is used.
 */
#include "tests/unit/block_harness.h"

/* --- size --- */

static const struct vmm_rate_limit none;

static void grow(struct fixture *f, uint64_t size_bytes)
{
    if (kind.is_delta)
        assert_int_equal(delta_file_grow(f->fd, size_bytes, &f->h.err), 0);
    else
        assert_int_equal(ftruncate(f->fd, (off_t)size_bytes), 0);
    virtio_block_change(f->block, size_bytes, &none);
}

static void a_disk_grows_while_it_is_used(void **state)
{
    struct fixture *f = *state;
    uint64_t generation;
    uint8_t back[DATA_BYTES];

    add_disk(f);
    generation = reg_get(&f->h, REG_GENERATION, 1);
    (void)interrupts_take(&f->h);
    fill(f, 0, 0x77);
    assert_int_equal(request(f, OUT, SECTORS), IO_ERROR);
    (void)interrupts_take(&f->h);
    grow(f, 8 * DISK_BYTES);
    assert_int_equal(interrupts_take(&f->h), 1);
    assert_int_equal(reg_get(&f->h, REG_GENERATION, 1), generation + 1);
    assert_int_equal(device_config_get(&f->h, 0, 8), 8 * SECTORS);
    assert_int_equal(request(f, OUT, SECTORS), OK);
    assert_int_equal(request(f, OUT, 8 * SECTORS - 8), OK);
    assert_int_equal(request(f, OUT, 8 * SECTORS - 7), IO_ERROR);
    assert_int_equal(request(f, FLUSH, 0), OK);
    fill(f, 0, 0);
    assert_int_equal(request(f, IN, SECTORS), OK);
    guest_get(&f->h, DATA(0), back, sizeof(back));
    assert_int_equal(back[0], 0x77);
    assert_int_equal(back[DATA_BYTES - 1], 0x77);
    assert_int_equal(request(f, IN, 4 * SECTORS), OK);
    guest_get(&f->h, DATA(0), back, sizeof(back));
    assert_int_equal(back[0], 0);
}

static void it_never_shrinks_and_is_told_once(void **state)
{
    static const uint64_t sizes[] = { 0, 512, DISK_BYTES - 512, DISK_BYTES, UINT64_MAX };
    struct fixture *f = *state;

    add_disk(f);
    (void)interrupts_take(&f->h);
    for (unsigned i = 0; i < ARRAY_LENGTH(sizes); i++) {
        virtio_block_change(f->block, sizes[i], &none);
        assert_int_equal(device_config_get(&f->h, 0, 8), SECTORS);
        assert_int_equal(interrupts_take(&f->h), 0);
    }
    /* Nor does a delta become larger than its bitmap knows. */
    virtio_block_change(f->block, 2ull << 40, &none);
    assert_int_equal(device_config_get(&f->h, 0, 8) > SECTORS, !kind.is_delta);
}

/* What the file has by now counts at the next start only if it was told. */
static void a_delta_may_have_grown_before_it_is_told(void **state)
{
    struct fixture *f = *state;

    if (kind.is_delta)
        assert_int_equal(delta_file_grow(f->fd, 2 * DISK_BYTES, &f->h.err), 0);
    add_disk(f);
    assert_int_equal(device_config_get(&f->h, 0, 8), SECTORS);
    assert_int_equal(request(f, OUT, SECTORS), IO_ERROR);
}

/* --- rate limits --- */

static void a_rate_limit_is_lifted_and_set(void **state)
{
    const struct vmm_rate_limit slow = { .bytes_per_second =
                                             1 }; /* one, and then for minutes none */
    struct fixture *f = *state;

    f->spec.rate_limit = slow;
    add_disk(f);
    for (unsigned i = 0; i < 8; i++)
        offer(f, i, IN, 0);
    ring_kick(&f->h, 0);
    virtio_block_change(f->block, DISK_BYTES, &slow); /* told again: it waits as before */
    await(f, 1);
    harness_run(&f->h);
    assert_int_equal(guest_get16(&f->h, ring_used(0) + 2), 1);
    virtio_block_change(f->block, DISK_BYTES, &none);
    await(f, 7);
    virtio_block_change(f->block, DISK_BYTES, &slow);
    for (unsigned i = 0; i < 3; i++)
        offer(f, i, IN, 0);
    ring_kick(&f->h, 0);
    await(f, 1);
    harness_run(&f->h);
    assert_int_equal(guest_get16(&f->h, ring_used(0) + 2), 9);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_disk_grows_while_it_is_used),
        TEST(it_never_shrinks_and_is_told_once),
        TEST(a_delta_may_have_grown_before_it_is_told),
        TEST(a_rate_limit_is_lifted_and_set),
    };

    return run_with_each_kind(tests);
}
