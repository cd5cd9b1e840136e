/* test_virtio_block_full.c - a host without space: requests wait until there is some, or fail.
 *
 * The linker puts __wrap_X in the place of what takes space (Makefile). */
#include "tests/unit/block_harness.h"
#include <sys/uio.h>
#include "vmm/disk.h"
#include "vmm/transfer.h"
#include "vmm/uring.h"

static struct {
    int code;      /* errno of what would take space; 0 = there is some */
    int sync_code; /* of syncs */
    bool partly;   /* the first sector is written before that */
    bool met;      /* it was, once */
    int fd;        /* of the disk */
} host;

#define REAL(type, name, ...)        \
    type __real_##name(__VA_ARGS__); \
    type __wrap_##name(__VA_ARGS__); \
    type __wrap_##name(__VA_ARGS__)

static bool is_full(int code)
{
    errno = code;
    return code != 0;
}

REAL(ssize_t, pwritev, int fd, const struct iovec *vectors, int count, off_t offset)
{
    struct iovec sector = { vectors->iov_base, 512 };

    if (fd != host.fd || !is_full(host.code))
        return __real_pwritev(fd, vectors, count, offset);
    if (!host.partly || host.met)
        return -1;
    host.met = true;
    return __real_pwritev(fd, &sector, 1, offset);
}

REAL(int, fallocate, int fd, int mode, off_t offset, off_t size)
{
    if (fd == host.fd && is_full(host.code))
        return -1;
    return __real_fallocate(fd, mode, offset, size);
}

REAL(int, fdatasync, int fd)
{
    return fd == host.fd && is_full(host.sync_code) ? -1 : __real_fdatasync(fd);
}

/* What the ring has done all the same is undone. */
REAL(void *, uring_take, struct uring *ring, int *ret_result)
{
    static const uint8_t zeroes[DATA_BYTES];
    struct disk_request *request = __real_uring_take(ring, ret_result);
    int code;

    if (!request || request->operation == DISK_READ)
        return request;
    if (request->operation == DISK_FLUSH) /* else the ring syncs that part only */
        assert_int_equal(request->offset | request->size, 0);
    code = request->operation == DISK_FLUSH ? host.sync_code : host.code;
    if (code == 0)
        return request;
    if (request->operation == DISK_WRITE)
        assert_int_equal(pwrite(host.fd, zeroes, request->size, (off_t)request->offset),
                         request->size);
    *ret_result = host.partly && request->operation == DISK_WRITE ? 512 : -code;
    return request;
}

static struct {
    unsigned times; /* told that it is full */
    bool full;
} told;

static void on_full(void *context, unsigned place, bool full)
{
    struct fixture *f = context;

    assert_int_equal(place, 5);
    assert_ptr_equal(f->spec.context, f);
    assert_int_not_equal(told.full, full); /* each only once */
    told.full = full;
    told.times += full;
}

/* Writes of before that went to the delta are not new any more: they go to the engine. */
static void add_full_disk(struct fixture *f, bool pauses)
{
    memset(&told, 0, sizeof(told));
    memset(&host, 0, sizeof(host));
    f->spec.tell_full = pauses ? on_full : NULL;
    f->spec.context = f;
    f->spec.place = 5;
    add_disk(f);
    host.fd = f->fd;
}

/* So many are answered in all, and it was told so often that it is full; and no more than that. */
static void settle(struct fixture *f, unsigned count, unsigned times)
{
    int64_t end_ms = loop_now_ms() + 10000;

    while ((guest_get16(&f->h, ring_used(0) + 2) != count || told.times != times) &&
           loop_now_ms() < end_ms)
        assert_int_equal(loop_turn(f->h.loop, 10, &f->h.err), 0);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(loop_turn(f->h.loop, 1, &f->h.err), 0);
    assert_int_equal(guest_get16(&f->h, ring_used(0) + 2), count);
    assert_int_equal(told.times, times);
}

static void assert_holds(struct fixture *f, uint64_t sector, uint8_t value)
{
    uint8_t bytes[DATA_BYTES], want[DATA_BYTES];

    memset(want, value, sizeof(want));
    fill(f, 0, (uint8_t)~value);
    assert_int_equal(request(f, IN, sector), OK);
    guest_get(&f->h, DATA(0), bytes, sizeof(bytes));
    assert_memory_equal(bytes, want, sizeof(bytes));
}

static void wait_and_go_on(struct fixture *f, int code, bool partly)
{
    unsigned before = guest_get16(&f->h, ring_used(0) + 2), times = told.times;

    host.code = code;
    host.partly = partly;
    host.met = false;
    for (unsigned n = 1; n <= 3; n++) {
        fill(f, n, (uint8_t)(0x10 * n + (unsigned)code));
        offer(f, n, OUT, 16 * n + 1); /* across a block's border */
    }
    offer(f, 4, IN, 0); /* is not held up */
    ring_kick(&f->h, 0);
    settle(f, before + 1, times + 1);
    assert_int_equal(guest_get8(&f->h, STATUS(4)), OK);
    assert_int_equal(guest_get8(&f->h, STATUS(1)), UNTOUCHED);
    virtio_block_retry(f->block); /* there is still none */
    settle(f, before + 1, times + 2);
    virtio_block_finish(f->block, DISK_FINISH);
    host.code = 0;
    settle(f, before + 1, times + 2); /* nobody said so */
    virtio_block_retry(f->block);
    settle(f, before + 4, times + 2);
    await(f, 4);
    assert_false(told.full);
    for (unsigned n = 1; n <= 3; n++) {
        assert_int_equal(guest_get8(&f->h, STATUS(n)), OK);
        assert_holds(f, 16 * n + 1, (uint8_t)(0x10 * n + (unsigned)code));
    }
    virtio_block_retry(f->block); /* nothing waits */
    assert_int_equal(f->stats.errors, 0);
}

static void requests_wait_for_space(void **state)
{
    struct fixture *f = *state;

    add_full_disk(f, true);
    wait_and_go_on(f, ENOSPC, false);
    wait_and_go_on(f, EDQUOT, false);
    wait_and_go_on(f, ENOSPC, true); /* into what a delta has by now */
}

static void a_part_that_was_written_is_written_again(void **state)
{
    struct fixture *f = *state;

    add_full_disk(f, true);
    wait_and_go_on(f, ENOSPC, true);
}

static void without_that_choice_they_fail(void **state)
{
    struct fixture *f = *state;

    add_full_disk(f, false);
    host.code = ENOSPC;
    assert_int_equal(request(f, OUT, 1), IO_ERROR);
    host.code = EDQUOT;
    assert_int_equal(request(f, OUT, 1), IO_ERROR);
    host.code = 0;
    assert_int_equal(request(f, OUT, 1), OK);
    virtio_block_retry(f->block);
    assert_int_equal(f->stats.errors, 2);
}

/* More than there are places for: the rest waits in the ring. */
static void a_queue_full_of_them_goes_on(void **state)
{
    struct fixture *f = *state;

    add_full_disk(f, true);
    host.code = ENOSPC;
    for (unsigned n = 0; n < 80; n++) {
        fill(f, n, (uint8_t)(n + 1));
        offer(f, n, OUT, 8 * n);
    }
    ring_kick(&f->h, 0);
    settle(f, 0, 1);
    virtio_block_finish(f->block, DISK_FINISH);
    host.code = 0;
    virtio_block_retry(f->block);
    await(f, 80);
    for (unsigned n = 0; n < 80; n++)
        assert_int_equal(guest_get8(&f->h, STATUS(n)), OK);
    for (unsigned n = 0; n < 80; n++)
        assert_holds(f, 8 * n, (uint8_t)(n + 1));
}

/* The burst, which is all that there is for days, is just enough for each of them once. */
static void limits_count_each_once(void **state)
{
    struct fixture *f = *state;

    f->spec.rate_limit =
        (struct vmm_rate_limit){ .bytes_per_second = 1, .bytes_burst = 10ull * DATA_BYTES };
    add_full_disk(f, true);
    host.code = ENOSPC;
    for (unsigned n = 0; n < 10; n++) {
        offer(f, n, OUT, 8 * n);
        if (n == 2) {
            ring_kick(&f->h, 0);
            settle(f, 0, 1);
            virtio_block_retry(f->block); /* there is still none */
            settle(f, 0, 2);
            host.code = 0;
            virtio_block_retry(f->block);
        }
    }
    ring_kick(&f->h, 0);
    await(f, 10);
}

static void keep_some(struct fixture *f)
{
    host.code = ENOSPC;
    for (unsigned n = 0; n < 20; n++)
        offer(f, n, OUT, 8 * n);
    ring_kick(&f->h, 0);
    settle(f, 0, told.times + !told.full);
    virtio_block_finish(f->block, DISK_FINISH);
    assert_true(told.full);
}

/* Again and again: no place is lost, and nothing of before is answered. */
static void a_reset_forgets_them(void **state)
{
    struct fixture *f = *state;

    add_full_disk(f, true);
    for (unsigned round = 0; round < 8; round++) {
        keep_some(f);
        status_put(&f->h, 0);
        assert_false(told.full);
        host.code = 0;
        driver_start(&f->h, BLOCK_FEATURES | VIRTIO_FEATURE_RING_RESET, 256);
        virtio_block_retry(f->block);
        settle(f, 0, round + 1);
        assert_int_equal(guest_get8(&f->h, STATUS(0)), UNTOUCHED);
    }
    for (unsigned n = 0; n < 80; n++)
        offer(f, n, OUT, 8 * n);
    ring_kick(&f->h, 0);
    await(f, 80);
}

static void a_reset_of_the_queue_forgets_them(void **state)
{
    struct fixture *f = *state;

    add_full_disk(f, true);
    keep_some(f);
    reg_put(&f->h, REG_QUEUE_SELECT, 2, 0);
    reg_put(&f->h, REG_QUEUE_RESET, 2, 1);
    assert_false(told.full);
    driver_set_ring(&f->h, 0, 256);
    host.code = 0;
    virtio_block_retry(f->block);
    settle(f, 0, 1);
    assert_int_equal(request(f, OUT, 8), OK);
}

static void an_end_with_them_leaks_nothing(void **state)
{
    struct fixture *f = *state;

    add_full_disk(f, true);
    keep_some(f); /* and then the device is freed, which says so */
}

/* A guest that changes a chain while it waits has it checked as if it came. */
static void a_spoilt_chain_needs_reset(void **state)
{
    struct fixture *f = *state;

    for (unsigned how = 0; how < 2; how++) {
        if (how == 0)
            add_full_disk(f, true);
        keep_some(f);
        if (how == 0)
            ring_put_descriptor(&f->h, 0, 0, HEADER(0), 16, RING_NEXT, 0); /* a loop */
        else
            ring_put_descriptor(&f->h, 0, 0, HEADER(0), 16, 0, 0); /* no room for a status */
        host.code = 0;
        virtio_block_retry(f->block);
        assert_needs_reset(&f->h);
        assert_false(told.full);
        driver_start(&f->h, BLOCK_FEATURES | VIRTIO_FEATURE_RING_RESET, 256);
        for (unsigned n = 0; n < 80; n++)
            offer(f, n, OUT, 8 * n);
        ring_kick(&f->h, 0);
        await(f, 80);
        driver_start(&f->h, BLOCK_FEATURES | VIRTIO_FEATURE_RING_RESET, 256);
    }
}

static void a_snapshot_with_them_is_refused(void **state)
{
    struct fixture *f = *state;
    struct error err = { 0 };
    struct transfer bad = { .err = &err }, good = { .err = &err };

    add_full_disk(f, true);
    keep_some(f);
    pci_root_transfer(f->h.root, &bad);
    assert_int_equal(bad.result, -EBUSY);
    assert_non_null(strstr(err.message, "wait for space"));
    host.code = 0;
    virtio_block_retry(f->block);
    await(f, 20);
    pci_root_transfer(f->h.root, &good);
    assert_int_equal(good.result, 0);
    free(bad.bytes);
    free(good.bytes);
}

/* The pages that a delta's bits go to may be the last straw. */
static void a_flush_of_bits_waits(void **state)
{
    struct fixture *f = *state;
    uint8_t bit = 0;

    add_full_disk(f, true);
    assert_int_equal(request(f, OUT, 0), OK);
    host.code = ENOSPC;
    offer(f, 0, FLUSH, 0);
    ring_kick(&f->h, 0);
    settle(f, kind.is_delta ? 1 : 2, kind.is_delta);
    host.code = 0;
    virtio_block_retry(f->block);
    await(f, 1);
    assert_int_equal(guest_get8(&f->h, STATUS(0)), OK);
    if (kind.is_delta) {
        assert_int_equal(pread(f->fd, &bit, 1, 4096), 1);
        assert_int_equal(bit, 1);
    }
}

static void a_sync_that_failed_is_not_tried_again(void **state)
{
    struct fixture *f = *state;

    add_full_disk(f, true);
    assert_int_equal(request(f, OUT, 0), OK);
    host.sync_code = ENOSPC;
    assert_int_equal(request(f, FLUSH, 0), IO_ERROR);
    assert_int_equal(told.times, 0);
}

/* 5.2.6.2: without FLUSH what is answered is stable; so what cannot be made so is an error. */
static void without_flush_a_change_ends_with_its_sync(void **state)
{
    struct fixture *f = *state;
    uint8_t bit = 0;

    add_full_disk(f, true);
    driver_start(&f->h, BLOCK_FEATURES & ~BLOCK_FLUSH, 256);
    assert_int_equal(request(f, OUT, 0), OK);
    if (kind.is_delta) {
        assert_int_equal(pread(f->fd, &bit, 1, 4096), 1);
        assert_int_equal(bit, 1);
    }
    host.sync_code = EIO;
    assert_int_equal(request(f, OUT, 0), IO_ERROR);
    block_put_range(&f->h, DATA(0), 8, 8, 1);
    assert_int_equal(request(f, WRITE_ZEROES, 0), IO_ERROR);
    assert_int_equal(request(f, IN, 0), OK);
}

/* The host of the test before may have been full. */
static int set_up_with_space(void **state)
{
    host.code = host.sync_code = 0;
    return set_up(state);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up_with_space, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(requests_wait_for_space),
        TEST(a_part_that_was_written_is_written_again),
        TEST(without_that_choice_they_fail),
        TEST(a_queue_full_of_them_goes_on),
        TEST(limits_count_each_once),
        TEST(a_reset_forgets_them),
        TEST(a_reset_of_the_queue_forgets_them),
        TEST(an_end_with_them_leaks_nothing),
        TEST(a_spoilt_chain_needs_reset),
        TEST(a_snapshot_with_them_is_refused),
        TEST(a_flush_of_bits_waits),
        TEST(a_sync_that_failed_is_not_tried_again),
        TEST(without_flush_a_change_ends_with_its_sync),
    };

    return run_with_each_kind(tests);
}
