/* test_disk_delta.c - disks over a base: what is read and written, in which order; hostile files.
 */
#include "tests/unit/delta_harness.h"

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    f->base_fd = new_base();
    f->delta_fd = new_delta();
    fixture_open(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    fixture_close(f);
    close(f->base_fd);
    free(f);
    return 0;
}

/* --- single requests --- */

static unsigned bits_on_disk(const struct fixture *f)
{
    uint8_t bits[BITMAP_USED];
    unsigned count = 0;

    assert_int_equal(pread(f->delta_fd, bits, sizeof bits, BLOCK), sizeof bits);
    for (unsigned i = 0; i < sizeof bits; i++)
        count += (unsigned)__builtin_popcount(bits[i]);
    return count;
}

static void a_new_delta_reads_as_its_base(void **state)
{
    struct fixture *f = *state;
    uint8_t bytes[WINDOW_BYTES], want[WINDOW_BYTES];
    struct stat status;

    base_fill(want, WINDOW_START, WINDOW_BYTES);
    read_window(f->disk, bytes);
    assert_memory_equal(bytes, want, WINDOW_BYTES);
    /* One request per source, in one block, and behind the base's end. */
    assert_int_equal(submit(f->disk, DISK_READ, WINDOW_START + SECTOR, bytes, SECTOR, false), 0);
    assert_memory_equal(bytes, want + SECTOR, SECTOR);
    assert_int_equal(submit(f->disk, DISK_READ, DISK_BYTES - SECTOR, bytes, SECTOR, false), 0);
    assert_true(all_zero(bytes, SECTOR));
    assert_int_equal(fstat(f->delta_fd, &status), 0);
    assert_true(status.st_blocks * 512 <= 2 * (int)BLOCK);
    assert_int_equal(recorder.count, 0);
}

static void a_part_of_a_block_brings_the_rest_from_the_base(void **state)
{
    struct fixture *f = *state;
    uint8_t want[WINDOW_BYTES], bytes[WINDOW_BYTES], base[BLOCK];

    base_fill(want, WINDOW_START, WINDOW_BYTES);
    memset(bytes, 0x11, SECTOR);
    memset(want + 3 * BLOCK + SECTOR, 0x11, SECTOR);
    assert_int_equal(
        submit(f->disk, DISK_WRITE, WINDOW_START + 3 * BLOCK + SECTOR, bytes, SECTOR, false), 0);
    assert_int_equal(recorder.count, 1); /* one block, whole */
    assert_int_equal(recorder.operations[0].size, BLOCK);
    assert_int_equal(
        submit(f->disk, DISK_WRITE, WINDOW_START + 3 * BLOCK + 7 * SECTOR, bytes, SECTOR, false),
        0);
    memset(want + 3 * BLOCK + 7 * SECTOR, 0x11, SECTOR);
    assert_int_equal(recorder.operations[1].size, SECTOR); /* now it is here */
    /* Over the base's end. */
    memset(bytes, 0x22, 2 * SECTOR);
    memset(want + 15 * BLOCK + SECTOR, 0x22, 2 * SECTOR);
    assert_int_equal(
        submit(f->disk, DISK_WRITE, WINDOW_START + 15 * BLOCK + SECTOR, bytes, 2 * SECTOR, false),
        0);
    read_window(f->disk, bytes);
    assert_memory_equal(bytes, want, WINDOW_BYTES);
    assert_int_equal(pread(f->base_fd, base, BLOCK, (off_t)(WINDOW_START + 3 * BLOCK)), BLOCK);
    base_fill(bytes, WINDOW_START + 3 * BLOCK, BLOCK);
    assert_memory_equal(base, bytes, BLOCK);
}

static void a_flush_orders_data_and_bits(void **state)
{
    struct fixture *f = *state;
    uint8_t bytes[4 * BLOCK];
    uint64_t border = WINDOW_START + (WINDOW_BLOCKS / 2 - 2) * BLOCK; /* both pages of the bitmap */

    memset(bytes, 0x33, sizeof bytes);
    assert_int_equal(submit(f->disk, DISK_WRITE, border, bytes, sizeof bytes, false), 0);
    assert_int_equal(bits_on_disk(f), 0);
    assert_int_equal(submit(f->disk, DISK_FLUSH, 0, NULL, 0, false), 0);
    assert_int_equal(bits_on_disk(f), 4);
    assert_int_equal(recorder.count, 5);
    assert_int_equal(recorder.operations[0].what, WROTE);
    assert_int_equal(recorder.operations[1].what, SYNCED);
    assert_int_equal(recorder.operations[2].offset, BLOCK);
    assert_int_equal(recorder.operations[3].offset, 2 * BLOCK);
    assert_int_equal(recorder.operations[4].what, SYNCED);
    /* With no new bit one sync is enough. */
    assert_int_equal(submit(f->disk, DISK_WRITE, border, bytes, sizeof bytes, false), 0);
    assert_int_equal(submit(f->disk, DISK_FLUSH, 0, NULL, 0, false), 0);
    assert_int_equal(recorder.count, 7);
    /* Nor is a page written again of which nothing is new. */
    assert_int_equal(submit(f->disk, DISK_WRITE, WINDOW_START, bytes, BLOCK, false), 0);
    assert_int_equal(submit(f->disk, DISK_FLUSH, 0, NULL, 0, false), 0);
    assert_int_equal(recorder.count, 11);
    assert_int_equal(recorder.operations[9].offset, BLOCK);
    assert_int_equal(bits_on_disk(f), 5);
}

static void a_failed_sync_is_never_good_again(void **state)
{
    struct fixture *f = *state;
    uint8_t bytes[BLOCK] = { 1 };

    assert_int_equal(submit(f->disk, DISK_WRITE, WINDOW_START, bytes, BLOCK, false), 0);
    recorder.fail_sync = EIO;
    assert_int_equal(submit(f->disk, DISK_FLUSH, 0, NULL, 0, false), -EIO);
    assert_int_equal(submit(f->disk, DISK_FLUSH, 0, NULL, 0, false), -EIO);
    assert_int_equal(bits_on_disk(f), 0);
}

static void a_full_file_system_is_an_error_of_the_request(void **state)
{
    struct fixture *f = *state;
    uint8_t bytes[BLOCK] = { 1 }, want[WINDOW_BYTES], got[WINDOW_BYTES];

    recorder.fail_write = ENOSPC;
    assert_int_equal(submit(f->disk, DISK_WRITE, WINDOW_START, bytes, BLOCK, false), -ENOSPC);
    assert_int_equal(submit(f->disk, DISK_WRITE, WINDOW_START, bytes, SECTOR, false), -ENOSPC);
    base_fill(want, WINDOW_START, WINDOW_BYTES);
    read_window(f->disk, got);
    assert_memory_equal(got, want, WINDOW_BYTES);
    recorder.fail_write = 0;
    assert_int_equal(submit(f->disk, DISK_WRITE, WINDOW_START, bytes, BLOCK, false), 0);
    recorder.fail_write = ENOSPC; /* of the bitmap's page: told, and tried again */
    assert_int_equal(submit(f->disk, DISK_FLUSH, 0, NULL, 0, false), -ENOSPC);
    recorder.fail_write = 0;
    assert_int_equal(submit(f->disk, DISK_FLUSH, 0, NULL, 0, false), 0);
    assert_int_equal(bits_on_disk(f), 1);
}

static void what_is_discarded_reads_as_zeroes_and_takes_no_space(void **state)
{
    struct fixture *f = *state;
    uint8_t bytes[WINDOW_BYTES];
    struct stat before, after;

    memset(bytes, 0x44, sizeof bytes);
    assert_int_equal(submit(f->disk, DISK_WRITE, WINDOW_START, bytes, 8 * BLOCK, false), 0);
    assert_int_equal(fstat(f->delta_fd, &before), 0);
    assert_int_equal(submit(f->disk, DISK_DISCARD, WINDOW_START, NULL, 8 * BLOCK, false), 0);
    assert_int_equal(
        submit(f->disk, DISK_WRITE_ZEROES, WINDOW_START + 8 * BLOCK, NULL, 8 * BLOCK, true), 0);
    assert_int_equal(fstat(f->delta_fd, &after), 0);
    assert_true(after.st_blocks < before.st_blocks);
    read_window(f->disk, bytes);
    assert_true(all_zero(bytes, WINDOW_BYTES));
}

/* --- hostile files --- */

static void put_header(struct fixture *f, const struct delta_header *header)
{
    recorder.fd = -1;
    assert_int_equal(pwrite(f->delta_fd, header, sizeof *header, 0), sizeof *header);
}

static struct delta_header get_header(const struct fixture *f)
{
    struct delta_header header;

    assert_int_equal(pread(f->delta_fd, &header, sizeof header, 0), sizeof header);
    return header;
}

/* By both: the agent and the VMM. */
static void assert_refused(struct fixture *f, const char *reason)
{
    struct disk *disk = NULL;

    assert_int_equal(delta_file_check(f->delta_fd, f->base_fd, BASE_UID, &f->err), -EINVAL);
    assert_non_null(strstr(f->err.message, reason));
    assert_int_equal(disk_delta_new(f->base_fd, f->delta_fd, ring, DISK_BYTES, &disk, &f->err),
                     -EINVAL);
    assert_non_null(strstr(f->err.message, reason));
    assert_null(disk);
}

static void each_flipped_bit_of_the_header_is_seen(void **state)
{
    struct fixture *f = *state;
    const struct delta_header good = get_header(f);

    assert_int_equal(delta_file_check(f->delta_fd, f->base_fd, BASE_UID, &f->err), 0);
    for (unsigned bit = 0; bit < sizeof good * 8; bit++) {
        struct delta_header header = good;

        ((uint8_t *)&header)[bit / 8] ^= (uint8_t)(1u << bit % 8);
        put_header(f, &header);
        assert_refused(f, "the delta file: it");
    }
}

#define FAULT(function, statement)               \
    static void function(struct delta_header *h) \
    {                                            \
        statement;                               \
    }
FAULT(other_version, h->version++)
FAULT(other_blocks, h->block_bytes = 512)
FAULT(empty, h->virtual_bytes = 0)
FAULT(odd, h->virtual_bytes -= 512)
FAULT(huge, h->virtual_bytes = UINT64_MAX - 4095)
FAULT(above_limit, h->virtual_bytes = DELTA_VIRTUAL_MAX + BLOCK)
FAULT(longer, h->virtual_bytes += BLOCK)
FAULT(base_behind_end, h->base_bytes = h->virtual_bytes + 1)
FAULT(wrapping_base, h->base_bytes = UINT64_MAX)
FAULT(other_base, h->base_bytes--)
FAULT(no_bitmap, h->bitmap_bytes = 0)
FAULT(short_bitmap, h->bitmap_bytes = BLOCK)
FAULT(odd_bitmap, h->bitmap_bytes -= 1)
FAULT(wrapping_bitmap, h->bitmap_bytes = 0 - (uint64_t)BLOCK)
FAULT(long_bitmap, h->bitmap_bytes = DELTA_BITMAP_MAX)
FAULT(endless_uid, memset(h->base_uid, 'a', sizeof h->base_uid))

static void sizes_that_cannot_be_are_refused(void **state)
{
    static const struct {
        void (*damage)(struct delta_header *header);
        const char *reason;
    } faults[] = {
        { other_version, "version" },
        { other_blocks, "another size" },
        { empty, "disk's size" },
        { odd, "disk's size" },
        { huge, "disk's size" },
        { above_limit, "disk's size" },
        { longer, "truncated" },
        { base_behind_end, "larger than its disk" },
        { wrapping_base, "larger than its disk" },
        { other_base, "its base has" },
        { no_bitmap, "bitmap's size" },
        { short_bitmap, "bitmap's size" },
        { odd_bitmap, "bitmap's size" },
        { wrapping_bitmap, "bitmap's size" },
        { long_bitmap, "truncated" },
        { endless_uid, "no end" },
    };
    struct fixture *f = *state;
    const struct delta_header good = get_header(f);

    for (size_t i = 0; i < ARRAY_LENGTH(faults); i++) {
        struct delta_header header = good;

        faults[i].damage(&header);
        header.checksum = delta_checksum(&header);
        put_header(f, &header);
        assert_refused(f, faults[i].reason);
    }
}

static void short_files_and_other_bases_are_refused(void **state)
{
    struct fixture *f = *state;
    struct disk *disk = NULL;
    struct stat status;

    assert_int_equal(delta_file_check(f->delta_fd, f->base_fd, "another", &f->err), -EINVAL);
    assert_int_equal(
        disk_delta_new(f->base_fd, f->delta_fd, ring, DISK_BYTES + BLOCK, &disk, &f->err), -EINVAL);
    assert_int_equal(ftruncate(f->base_fd, BASE_BYTES - 1), 0);
    assert_refused(f, "its base has");
    assert_int_equal(ftruncate(f->base_fd, BASE_BYTES), 0);
    assert_int_equal(fstat(f->delta_fd, &status), 0);
    assert_int_equal(ftruncate(f->delta_fd, status.st_size - 1), 0);
    assert_refused(f, "truncated");
    assert_int_equal(ftruncate(f->delta_fd, sizeof(struct delta_header) - 1), 0);
    assert_refused(f, "truncated");
    assert_int_equal(ftruncate(f->delta_fd, 0), 0);
    assert_refused(f, "truncated");
}

static void a_bitmap_that_knows_too_much_is_refused(void **state)
{
    struct fixture *f = *state;
    struct disk *disk = NULL;
    uint8_t bits = 0x80;

    assert_int_equal(pwrite(f->delta_fd, &bits, 1, BLOCK + BITMAP_USED - 1), 1);
    assert_int_equal(disk_delta_new(f->base_fd, f->delta_fd, ring, DISK_BYTES, &disk, &f->err),
                     -EINVAL);
    assert_non_null(strstr(f->err.message, "behind the disk's end"));
    bits = 0;
    assert_int_equal(pwrite(f->delta_fd, &bits, 1, BLOCK + BITMAP_USED - 1), 1);
    bits = 0xff; /* the first eight blocks of the disk: holes */
    assert_int_equal(pwrite(f->delta_fd, &bits, 1, BLOCK), 1);
    assert_int_equal(disk_delta_new(f->base_fd, f->delta_fd, ring, DISK_BYTES, &disk, &f->err), 0);
    disk_free(disk);
}

static void a_delta_grows_within_its_bitmap(void **state)
{
    struct fixture *f = *state;
    uint8_t bytes[WINDOW_BYTES], want[WINDOW_BYTES];

    assert_int_equal(delta_file_grow(f->delta_fd, DISK_BYTES - BLOCK, &f->err), -EINVAL);
    assert_int_equal(delta_file_grow(f->delta_fd, DISK_BYTES + 1, &f->err), -EINVAL);
    assert_int_equal(delta_file_grow(f->delta_fd, DISK_BYTES_MAX + BLOCK, &f->err), -EFBIG);
    assert_int_equal(delta_file_grow(f->delta_fd, 1ull << 39, &f->err), 0);
    disk_free(f->disk);
    assert_int_equal(disk_delta_new(f->base_fd, f->delta_fd, ring, 1ull << 39, &f->disk, &f->err),
                     0);
    read_window(f->disk, bytes);
    base_fill(want, WINDOW_START, WINDOW_BYTES);
    assert_memory_equal(bytes, want, WINDOW_BYTES);
    assert_int_equal(submit(f->disk, DISK_READ, (1ull << 39) - SECTOR, bytes, SECTOR, false), 0);
    assert_true(all_zero(bytes, SECTOR));
}

/* Through the ring that a VM has: what goes by it, for either file, and what is done at once, is
 * one disk. */
static void by_a_ring_it_is_the_same_disk(void **state)
{
    struct fixture *f = *state;
    uint8_t want[WINDOW_BYTES], bytes[WINDOW_BYTES], part[WINDOW_BYTES];

    base_fill(want, WINDOW_START, WINDOW_BYTES);
    for (unsigned i = 0; i < 400; i++) {
        uint64_t at = (uint64_t)rand() % (WINDOW_BYTES / SECTOR) * SECTOR;
        uint64_t size = (1 + (uint64_t)rand() % 40) * SECTOR;
        static const enum disk_operation operations[] = { DISK_WRITE, DISK_WRITE, DISK_WRITE_ZEROES,
                                                          DISK_FLUSH };
        enum disk_operation operation = operations[rand() % 4];

        size = size < WINDOW_BYTES - at ? size : WINDOW_BYTES - at;
        memset(part, operation == DISK_WRITE ? (int)(1 + i % 250) : 0, size);
        if (operation == DISK_FLUSH)
            assert_int_equal(submit(f->disk, DISK_FLUSH, 0, NULL, 0, false), 0);
        else
            memcpy(want + at, part, size);
        if (operation == DISK_WRITE)
            assert_int_equal(submit(f->disk, operation, WINDOW_START + at, part, size, false), 0);
        if (operation == DISK_WRITE_ZEROES)
            assert_int_equal(submit(f->disk, operation, WINDOW_START + at, NULL, size, true), 0);
        if (i % 20 == 0) {
            read_window(f->disk, bytes);
            assert_memory_equal(bytes, want, WINDOW_BYTES);
        }
        recorder_clear(f->delta_fd);
    }
    read_window(f->disk, bytes);
    assert_memory_equal(bytes, want, WINDOW_BYTES);
}

static int set_up_ring(void **state)
{
    ring = ring_new();
    return set_up(state);
}

static int tear_down_ring(void **state)
{
    int result = tear_down(state);

    ring = ring_free(ring);
    return result;
}

#define ON_A_DISK(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_A_DISK(a_new_delta_reads_as_its_base),
        ON_A_DISK(a_part_of_a_block_brings_the_rest_from_the_base),
        ON_A_DISK(a_flush_orders_data_and_bits),
        ON_A_DISK(a_failed_sync_is_never_good_again),
        ON_A_DISK(a_full_file_system_is_an_error_of_the_request),
        ON_A_DISK(what_is_discarded_reads_as_zeroes_and_takes_no_space),
        ON_A_DISK(each_flipped_bit_of_the_header_is_seen),
        ON_A_DISK(sizes_that_cannot_be_are_refused),
        ON_A_DISK(short_files_and_other_bases_are_refused),
        ON_A_DISK(a_bitmap_that_knows_too_much_is_refused),
        ON_A_DISK(a_delta_grows_within_its_bitmap),
        cmocka_unit_test_setup_teardown(by_a_ring_it_is_the_same_disk, set_up_ring, tear_down_ring),
    };

    return cmocka_run_group_tests_name("disk_delta", tests, NULL, NULL);
}
