/* test_virtio_block_changes.c - a disk that grows, whose rate limit changes, and of which is marked
 * what is written, while it is used; and what is left of it. */
#include "tests/unit/block_harness.h"
#include "base/write_marks.h"

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

/* --- marks of what is written --- */

static uint8_t marks[WRITE_MARKS_OF_DISK];

/* Those that were set since the last time, as bits. */
static unsigned marked(void)
{
    unsigned bits = 0;

    for (size_t mark = 0; mark < sizeof(marks); mark++)
        if (write_mark_take(marks, mark))
            bits |= 1u << (mark < 31 ? mark : 31);
    return bits;
}

static int zero(struct fixture *f, uint64_t sector, uint32_t sectors)
{
    const struct {
        uint64_t sector;
        uint32_t sectors, flags;
    } range = { sector, sectors, 1 }; /* may be unmapped */

    guest_put(&f->h, DATA(0), &range, sizeof(range));
    return request(f, WRITE_ZEROES, 0);
}

static void what_is_written_is_marked(void **state)
{
    struct fixture *f = *state;

    add_disk(f);
    grow(f, 8 * DISK_BYTES);
    virtio_block_mark_writes(f->block, marks, WRITE_MARK_SHIFT_MIN);
    assert_int_equal(request(f, IN, 0), OK);
    assert_int_equal(request(f, FLUSH, 0), OK);
    assert_int_equal(request(f, OUT, 8 * SECTORS), IO_ERROR);
    assert_int_equal(marked(), 0);
    assert_int_equal(request(f, OUT, 2 * SECTORS), OK);
    assert_int_equal(marked(), 1u << 2);
    assert_int_equal(request(f, OUT, 2 * SECTORS + 1), OK); /* here by now, if it is a delta's */
    assert_int_equal(marked(), 1u << 2);
    assert_int_equal(request(f, OUT, 4 * SECTORS - 4), OK);
    assert_int_equal(marked(), 1u << 3 | 1u << 4);
    assert_int_equal(zero(f, SECTORS - 1, 5 * SECTORS), OK);
    assert_int_equal(marked(), 0x3f);
    virtio_block_mark_writes(f->block, marks, WRITE_MARK_SHIFT_MIN + 1);
    assert_int_equal(request(f, OUT, 7 * SECTORS), OK);
    assert_int_equal(marked(), 1u << 3);
    virtio_block_mark_writes(f->block, NULL, 0);
    assert_int_equal(request(f, OUT, 0), OK);
    assert_int_equal(marked(), 0);
}

/* Who takes a mark away before the write is there would miss it. */
static void not_before_it_is_there(void **state)
{
    const struct vmm_rate_limit slow = { .bytes_per_second = 1 };
    struct fixture *f = *state;

    f->spec.rate_limit = slow;
    add_disk(f);
    virtio_block_mark_writes(f->block, marks, WRITE_MARK_SHIFT_MIN);
    for (unsigned i = 0; i < 2; i++)
        offer(f, i, OUT, 0);
    ring_kick(&f->h, 0);
    await(f, 1);
    assert_int_equal(marked(), 1);
    harness_run(&f->h); /* the second waits */
    assert_int_equal(marked(), 0);
    virtio_block_change(f->block, DISK_BYTES, &none);
    await(f, 1);
    assert_int_equal(marked(), 1);
}

static void behind_the_last_mark_all_is_its(void **state)
{
    (void)state;
    assert_int_equal(write_mark_shift(0), WRITE_MARK_SHIFT_MIN);
    assert_int_equal(write_mark_shift(64ull << 30), WRITE_MARK_SHIFT_MIN);
    assert_int_equal(write_mark_shift((64ull << 30) + (1 << 20)), WRITE_MARK_SHIFT_MIN + 1);
    assert_int_equal(write_mark_shift(64ull << 40), 30);
    assert_int_equal(write_mark_at((64ull << 30) - 1, 20), WRITE_MARKS_OF_DISK - 1);
    write_marks_set(marks, 20, 1ull << 50, 1ull << 40);
    assert_int_equal(marked(), 1u << 31);
}

/* --- the end --- */

/* As another machine finds the disk: what this one says of its own is in its memory. */
static void what_was_done_is_in_the_files_at_the_end(void **state)
{
    struct fixture *f = *state;
    struct uring *ring = f->spec.ring;
    uint8_t back[DATA_BYTES];

    add_disk(f);
    fill(f, 0, 0x5a);
    assert_int_equal(request(f, OUT, 8), OK);
    virtio_block_finish(f->block, DISK_CANCEL);
    f->spec.ring = NULL; /* the first one has it */
    f->spec.ret_block = NULL;
    f->h.slot = 2;
    add_disk(f);
    f->spec.ring = ring; /* for tear_down */
    fill(f, 0, 0);
    assert_int_equal(request(f, IN, 8), OK);
    guest_get(&f->h, DATA(0), back, sizeof(back));
    assert_int_equal(back[0], 0x5a);
    assert_int_equal(back[DATA_BYTES - 1], 0x5a);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_disk_grows_while_it_is_used),
        TEST(it_never_shrinks_and_is_told_once),
        TEST(a_delta_may_have_grown_before_it_is_told),
        TEST(a_rate_limit_is_lifted_and_set),
        TEST(what_is_written_is_marked),
        TEST(not_before_it_is_there),
        TEST(behind_the_last_mark_all_is_its),
        TEST(what_was_done_is_in_the_files_at_the_end),
    };

    return run_with_each_kind(tests);
}
