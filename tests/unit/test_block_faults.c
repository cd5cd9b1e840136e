/* test_block_faults.c - what a guest sees of a host that fails, and a driver that resets the device
 * while its requests are in flight.
 *
 * The linker puts __wrap_X in the place of its calls (Makefile) and of the ring's results. */
#define FAULT_BYTES 512 /* of a disk */
#include "tests/unit/fault_harness.h"
#include "tests/unit/block_driver.h"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include "tests/unit/ring_harness.h"
#include "base/cleanup.h"
#include "storage/delta_file.h"
#include "vmm/transfer.h"
#include "vmm/disk.h"
#include "vmm/stats_page.h"
#include "vmm/virtio_block.h"

#define DISK_BYTES (4u << 20)
#define DATA_BYTES 4096u
#define HEADER     DATA_BASE
#define STATUS     (DATA_BASE + BLOCK_STATUS)
#define DATA       (DATA_BASE + 0x1000)
#define BASE_UID   "01234567-89ab-4cde-8f01-23456789abcd"

/* --- faults of a ring --- */

static int disk_fd;

FAULT_REAL(long, syscall, long number, long a, long b, long c, long d, long e, long f)
{
    if (number == SYS_io_uring_enter && fault_hits(ENTER, 0))
        return fault.code == FAULT_SHORT ? 0 : -1;
    return __real_syscall(number, a, b, c, d, e, f);
}

/* All was transferred, but an eighth of it is told: the rest is spoilt. */
static void cut_short(struct disk_request *request)
{
    static const uint8_t wrong[512] __attribute__((aligned(4096))) = { 0xbd };
    uint64_t end = request->offset + request->size;

    if (request->operation == DISK_READ && request->vector_count > 0)
        memset((uint8_t *)request->vectors->iov_base + request->size / 8, 0xbd,
               request->vectors->iov_len - request->size / 8);
    if (request->operation == DISK_WRITE)
        for (uint64_t at = request->offset + request->size / 8; at < end; at += sizeof(wrong))
            assert_int_equal(pwrite(disk_fd, wrong, sizeof(wrong), (off_t)at), sizeof(wrong));
}

FAULT_REAL(void *, uring_take, struct uring *ring, int *ret_result)
{
    void *tag = __real_uring_take(ring, ret_result);

    if (tag && *ret_result >= 0 && fault_hits(TAKE, 0)) {
        if (fault.code == FAULT_SHORT && *ret_result > 0)
            cut_short(tag);
        *ret_result = fault.code == FAULT_SHORT ? *ret_result / 8 : -fault.code;
    }
    return tag;
}

/* --- a guest --- */

struct fixture {
    struct harness h;
    struct stats_disk stats;
    struct uring *ring;
    int fd, feeder; /* feeder: the other end, if the disk is a pipe */
    int base_fd;    /* of a delta; 0 = it is none */
};

static void open_disk(struct fixture *f)
{
    const struct virtio_block_spec spec = { .queues = 1,
                                            .fd = f->fd,
                                            .base_fd = f->base_fd,
                                            .is_delta = f->base_fd > 0,
                                            .size_bytes = DISK_BYTES,
                                            .stats = &f->stats,
                                            .ring = f->ring };

    (void)fault_end();
    disk_fd = f->fd;
    harness_open(&f->h);
    assert_int_equal(virtio_block_add(f->h.root, &spec, &f->h.err), 0);
    driver_start(&f->h, BLOCK_FEATURES | VIRTIO_FEATURE_RING_RESET, 64);
}

/* On a disk only what has to be: hundreds of syncs are no test of it, and a tmpfs has no O_DIRECT.
 */
static int file_open(int flags)
{
    char name[] = "test_block_faults.XXXXXX";
    int fd = flags ? mkostemp(name, flags) : memfd_create("disk", MFD_CLOEXEC);

    assert_true(fd >= 0);
    if (flags)
        unlink(name);
    assert_int_equal(ftruncate(fd, DISK_BYTES), 0);
    return fd;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    (void)fault_end();
    harness_close(&f->h);
    ring_free(f->ring);
    close(f->fd);
    if (f->feeder > 0)
        close(f->feeder);
    if (f->base_fd > 0)
        close(f->base_fd);
    free(f);
    return 0;
}

#define BASE_BYTE 0x77

static void make_delta(struct fixture *f)
{
    uint8_t bytes[DATA_BYTES];

    memset(bytes, BASE_BYTE, sizeof(bytes));
    f->base_fd = file_open(0);
    for (off_t at = 0; at < DISK_BYTES; at += DATA_BYTES)
        assert_int_equal(pwrite(f->base_fd, bytes, sizeof(bytes), at), sizeof(bytes));
    assert_int_equal(ftruncate(f->fd, 0), 0);
    assert_int_equal(delta_file_init(f->fd, DISK_BYTES, DISK_BYTES, BASE_UID, NULL), 0);
}

static int set_up(void **state, int flags, bool by_ring, bool is_delta)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    f->fd = file_open(flags);
    f->ring = by_ring ? ring_new() : NULL;
    if (is_delta)
        make_delta(f);
    open_disk(f);
    *state = f;
    return 0;
}

#define SET_UP(name, ...)                  \
    static int name(void **state)          \
    {                                      \
        return set_up(state, __VA_ARGS__); \
    }
SET_UP(set_up_ring, 0, true, false)
SET_UP(set_up_calls, 0, false, false)
SET_UP(set_up_direct_ring, O_DIRECT, true, false)
SET_UP(set_up_direct_calls, O_DIRECT, false, false)
SET_UP(set_up_delta_ring, 0, true, true)
SET_UP(set_up_delta_calls, 0, false, true)

static void offer(struct fixture *f, uint32_t type, uint64_t sector, uint64_t data, uint32_t size)
{
    block_offer(&f->h, 0, HEADER, type, sector, data, size);
}

static int answer(struct fixture *f)
{
    uint32_t head, used;

    return ring_await(&f->h, 0, &head, &used) ? guest_get8(&f->h, STATUS) : -1;
}

/* Not ring_kick, which waits for what is in flight. */
static void kick_only(struct fixture *f)
{
    ring_notify(&f->h, 0);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(loop_turn(f->h.loop, 0, &f->h.err), 0);
}

static int request(struct fixture *f, uint32_t type, uint64_t sector, uint64_t data, uint32_t size)
{
    offer(f, type, sector, data, size);
    kick_only(f);
    return answer(f);
}

static void fill(uint8_t *bytes, unsigned seed)
{
    for (unsigned i = 0; i < DATA_BYTES; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 256 + seed);
}

/* What is in the file now, past whatever cache. */
static void assert_stored(struct fixture *f, uint64_t sector, const uint8_t *bytes)
{
    static uint8_t stored[DATA_BYTES] __attribute__((aligned(4096)));

    (void)fault_end();
    assert_int_equal(pread(f->fd, stored, sizeof(stored), (off_t)(sector * 512)), sizeof(stored));
    assert_memory_equal(stored, bytes, sizeof(stored));
}

/* Writes, reads, and does all else once, under one fault: each ends well or as an I/O error, and
 * what ended well is true. */
static void do_all(struct fixture *f, uint64_t data, unsigned seed)
{
    /* Blocks that are not yet a delta's own; every other time parts of two. */
    const uint64_t sector = 16 * seed % (DISK_BYTES / 512 - 16) + seed % 2;
    const struct {
        uint64_t sector;
        uint32_t sectors, flags;
    } range = { sector, 8, seed & 1 };
    uint8_t bytes[DATA_BYTES], back[DATA_BYTES];
    int status[6];
    unsigned met = fault.met, times = fault.times;

    fill(bytes, seed);
    guest_put(&f->h, data, bytes, sizeof(bytes));
    status[0] = request(f, OUT, sector, data, DATA_BYTES);
    if (status[0] == OK) {
        fault.times = 0;
        memset(back, 0, sizeof(back));
        guest_put(&f->h, data, back, sizeof(back));
        assert_int_equal(request(f, IN, sector, data, DATA_BYTES), OK);
        guest_get(&f->h, data, back, sizeof(back));
        assert_memory_equal(back, bytes, sizeof(back));
        fault.times = times;
    }
    fault.met = met;
    status[1] = request(f, IN, sector, data, DATA_BYTES);
    guest_get(&f->h, data, back, sizeof(back));
    if (status[0] == OK && status[1] == OK)
        assert_memory_equal(back, bytes, sizeof(back));
    fault.met = met;
    status[2] = request(f, FLUSH, 0, 0, 0);
    guest_put(&f->h, data, &range, sizeof(range));
    fault.met = met;
    status[3] = request(f, DISCARD, 0, data, sizeof(range));
    fault.met = met;
    status[4] = request(f, WRITE_ZEROES, 0, data, sizeof(range));
    for (unsigned i = 0; i < 5; i++)
        if (status[i] != OK && status[i] != IO_ERROR && !(i >= 3 && status[i] == UNSUPPORTED))
            fail_msg("call %d, error %d, %u times: request %u answered %d", (int)fault.call,
                     fault.code, fault.times, i, status[i]);
}

static void each_fault_is_an_answer(void **state)
{
    static const enum fault_call calls[] = { READ, PREADV,    PWRITEV,   ENTER,
                                             TAKE, FDATASYNC, FALLOCATE, FCNTL };
    const unsigned transfers = 5; /* those of them that can be short */
    static const int codes[] = { FAULT_SHORT, EAGAIN, EINTR, ENOSPC, EIO, ENOMEM, EBUSY, EINVAL };
    struct fixture *f = *state;
    unsigned seed = 0;

    for (unsigned call = 0; call < ARRAY_LENGTH(calls); call++) {
        for (unsigned i = call >= transfers; i < ARRAY_LENGTH(codes); i++) {
            for (unsigned times = 1; times <= 3; times++) {
                fault_set(calls[call], codes[i], FAULT_ANY, 0, times);
                do_all(f, DATA + 512 * (seed % 2), seed); /* every other one is not aligned */
                fault.times = 0;
                do_all(f, DATA, ++seed);
                assert_int_equal(status_get(&f->h), 15);
            }
        }
    }
}

/* What a request changes a part of: the rest stays the base's, whether it ends well or not. */
static void the_rest_of_a_block_stays(void **state)
{
    static const enum fault_call calls[] = { PREADV, PWRITEV }; /* of the base; into the delta */
    struct fixture *f = *state;
    uint8_t part[512], want[DATA_BYTES], back[DATA_BYTES];

    for (unsigned i = 0; i < 2; i++) {
        uint64_t block = 64 + i * 8;

        memset(part, 0x11, sizeof(part));
        memset(want, BASE_BYTE, sizeof(want));
        for (unsigned good = 0; good < 2; good++) {
            guest_put(&f->h, DATA, part, sizeof(part));
            fault_set(calls[i], EIO, FAULT_ANY, 0, !good);
            assert_int_equal(request(f, OUT, block + 3, DATA, sizeof(part)), good ? OK : IO_ERROR);
            assert_int_equal(fault_end(), !good);
            assert_int_equal(request(f, IN, block, DATA, sizeof(back)), OK);
            guest_get(&f->h, DATA, back, sizeof(back));
            if (good)
                memcpy(want + 3 * sizeof(part), part, sizeof(part));
            assert_memory_equal(back, want, sizeof(back));
        }
    }
}

/* A snapshot relies on the disk's files as they are then. */
static void a_snapshot_flushes_or_is_none(void **state)
{
    struct fixture *f = *state;
    struct error err = { 0 };
    unsigned before = fault_made[FDATASYNC];
    struct transfer good = { .err = &err }, bad = { .err = &err };

    pci_root_transfer(f->h.root, &good);
    assert_int_equal(good.result, 0);
    assert_int_equal(fault_made[FDATASYNC], before + 1);
    fault_set(FDATASYNC, EIO, FAULT_ANY, 0, 1);
    pci_root_transfer(f->h.root, &bad);
    assert_int_equal(bad.result, -EIO);
    free(good.bytes);
    free(bad.bytes);
}

/* What it lost nobody knows: the next one would be good, and hide it. */
static void a_failed_flush_is_never_good_again(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(request(f, FLUSH, 0, 0, 0), OK);
    fault_set(f->ring ? TAKE : FDATASYNC, EIO, FAULT_ANY, 0, 1);
    assert_int_equal(request(f, FLUSH, 0, 0, 0), IO_ERROR);
    assert_int_equal(fault.met, 1);
    assert_int_equal(request(f, FLUSH, 0, 0, 0), IO_ERROR);
    assert_int_equal(request(f, OUT, 0, DATA, DATA_BYTES), OK);
    assert_int_equal(request(f, FLUSH, 0, 0, 0), IO_ERROR);
    assert_int_equal(request(f, IN, 0, DATA, DATA_BYTES), OK);
}

/* The host is full: an error of the guest's, and no more than that. */
static void a_full_host_is_an_io_error(void **state)
{
    static const int codes[] = { ENOSPC, EIO };
    struct fixture *f = *state;

    for (unsigned i = 0; i < 2; i++) {
        fault_set(TAKE, codes[i], FAULT_ANY, 0, 1);
        assert_int_equal(request(f, OUT, 1, DATA, DATA_BYTES), IO_ERROR);
        assert_int_equal(fault.met, 1);
        assert_int_equal(request(f, OUT, 1, DATA, DATA_BYTES), OK);
    }
    assert_int_equal(f->stats.errors, 2);
}

/* The rest of a short transfer, and what the kernel could not take, is done by system calls. */
static void what_the_ring_leaves_is_done_all_the_same(void **state)
{
    static const int codes[] = { FAULT_SHORT, EAGAIN, EINTR, ECANCELED };
    struct fixture *f = *state;
    uint8_t bytes[DATA_BYTES];

    for (enum fault_call call = ENTER; call <= TAKE; call++) {
        for (unsigned i = 0; i < 4; i++) {
            fill(bytes, i + call);
            guest_put(&f->h, DATA, bytes, sizeof(bytes));
            fault_set(call, codes[i], FAULT_ANY, 0, 1);
            assert_int_equal(request(f, OUT, 17, DATA, DATA_BYTES), OK);
            assert_int_equal(fault.met, 1);
            assert_stored(f, 17, bytes);
        }
    }
    fault_set(ENTER, EAGAIN, FAULT_ANY, 0, UINT32_MAX); /* the kernel never takes anything more */
    assert_int_equal(request(f, OUT, 17, DATA, DATA_BYTES), OK);
    assert_int_equal(request(f, IN, 17, DATA, DATA_BYTES), OK);
}

/* O_DIRECT, and buffers, sizes and places that it does not take. */
static void a_direct_disk_takes_any_request(void **state)
{
    static const struct {
        uint32_t address, size;
        uint64_t sector;
    } cases[] = { { 0, 4096, 0 }, { 512, 4096, 8 }, { 1, 4096, 16 }, { 0, 512, 24 },
                  { 3, 512, 33 }, { 0, 1536, 41 },  { 0, 4096, 49 } };
    struct fixture *f = *state;
    uint8_t bytes[DATA_BYTES], back[DATA_BYTES];

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t data = DATA + cases[i].address;

        fill(bytes, i);
        guest_put(&f->h, data, bytes, cases[i].size);
        assert_int_equal(request(f, OUT, cases[i].sector, data, cases[i].size), OK);
        memset(back, 0, sizeof(back));
        guest_put(&f->h, data, back, cases[i].size);
        assert_int_equal(request(f, IN, cases[i].sector, data, cases[i].size), OK);
        guest_get(&f->h, data, back, cases[i].size);
        assert_memory_equal(back, bytes, cases[i].size);
        assert_true(fcntl(f->fd, F_GETFL, 0) & O_DIRECT);
    }
    assert_int_equal(f->stats.errors, 0);
}

/* --- reset with requests in flight --- */

/* A pipe for a disk: reads stay in flight until it is fed. */
static int set_up_pipe(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    int ends[2];

    assert_non_null(f);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    f->fd = ends[0];
    f->feeder = ends[1];
    f->ring = ring_new();
    open_disk(f);
    *state = f;
    return 0;
}

#define IN_FLIGHT 8

/* Also by a second thread, which has no part in the faults. */
static void feed(struct fixture *f, unsigned requests)
{
    static const uint8_t bytes[IN_FLIGHT * 512] = { [0 ... IN_FLIGHT * 512 - 1] = 0x5a };

    assert_int_equal(__real_write(f->feeder, bytes, requests * 512), requests * 512);
}

static void *feed_later(void *argument)
{
    usleep(50000);
    feed(argument, IN_FLIGHT);
    return NULL;
}

static void *reset_device(void *argument)
{
    status_put(&((struct fixture *)argument)->h, 0);
    return NULL;
}

static void put_in_flight(struct fixture *f)
{
    uint32_t head, used;

    for (unsigned i = 0; i < IN_FLIGHT; i++)
        offer(f, IN, i, DATA + i * 512, 512);
    kick_only(f);
    assert_false(ring_take(&f->h, 0, &head, &used));
}

/* Nothing of before the reset touches memory any more, and the device works. */
static void assert_forgotten(struct fixture *f)
{
    uint8_t bytes[IN_FLIGHT * 512] = { 0 }, back[sizeof(bytes)];

    guest_put(&f->h, DATA, bytes, sizeof(bytes));
    feed(f, 1);
    harness_run(&f->h);
    guest_get(&f->h, DATA, back, sizeof(back));
    assert_memory_equal(back, bytes, sizeof(back));
    driver_start(&f->h, BLOCK_FEATURES | VIRTIO_FEATURE_RING_RESET, 64);
    assert_int_equal(request(f, IN, 0, DATA, 512), OK);
}

static void a_reset_waits_for_what_is_in_flight(void **state)
{
    struct fixture *f = *state;
    pthread_t feeder;

    put_in_flight(f);
    assert_int_equal(pthread_create(&feeder, NULL, feed_later, f), 0);
    status_put(&f->h, 0);
    assert_int_equal(status_get(&f->h), 0);
    assert_int_equal(pthread_join(feeder, NULL), 0);
    assert_forgotten(f);
}

/* As a vCPU does it: another thread than that which submitted. */
static void a_reset_by_another_thread_waits_too(void **state)
{
    struct fixture *f = *state;
    pthread_t feeder, vcpu;

    put_in_flight(f);
    assert_int_equal(pthread_create(&feeder, NULL, feed_later, f), 0);
    assert_int_equal(pthread_create(&vcpu, NULL, reset_device, f), 0);
    assert_int_equal(pthread_join(vcpu, NULL), 0);
    assert_int_equal(pthread_join(feeder, NULL), 0);
    assert_int_equal(status_get(&f->h), 0);
    assert_forgotten(f);
}

static void a_queue_reset_waits_too(void **state)
{
    struct fixture *f = *state;
    pthread_t feeder;

    put_in_flight(f);
    assert_int_equal(pthread_create(&feeder, NULL, feed_later, f), 0);
    reg_put(&f->h, REG_QUEUE_SELECT, 2, 0);
    reg_put(&f->h, REG_QUEUE_RESET, 2, 1);
    assert_int_equal(reg_get(&f->h, REG_QUEUE_RESET, 2), 0);
    assert_int_equal(reg_get(&f->h, REG_QUEUE_ENABLE, 2), 0);
    assert_int_equal(pthread_join(feeder, NULL), 0);
    assert_forgotten(f);
}

/* A cancelled request begins nothing: no call that a vCPU's filter forbids. */
static void a_reset_begins_nothing(void **state)
{
    static const enum fault_call forbidden[] = {
        PREADV, PWRITEV, FDATASYNC, FALLOCATE, FCNTL, ENTER
    };
    struct fixture *f = *state;
    pthread_t feeder;

    put_in_flight(f);
    assert_int_equal(pthread_create(&feeder, NULL, feed_later, f), 0);
    fault_set(TAKE, EAGAIN, FAULT_ANY, 0, 1); /* which is done by preadv otherwise */
    memset(fault_made, 0, sizeof(fault_made));
    status_put(&f->h, 0);
    assert_int_equal(fault.met, 1);
    assert_int_equal(f->stats.errors, 1);
    for (unsigned i = 0; i < ARRAY_LENGTH(forbidden); i++)
        assert_int_equal(fault_made[forbidden[i]], 0);
    assert_int_equal(pthread_join(feeder, NULL), 0);
    assert_forgotten(f);
}

/* More than the disk takes at once: the others wait in the queue, and come when there is room. */
static void a_flood_is_bounded_and_done(void **state)
{
    const struct ring_buffer buffers[3] = { { HEADER, 16, 0 },
                                            { DATA, 512, RING_WRITE },
                                            { STATUS, 1, RING_WRITE } };
    const uint8_t header[16] = { IN };
    struct fixture *f = *state;
    unsigned answered = 0;

    driver_start(&f->h, BLOCK_FEATURES, 256);
    guest_put(&f->h, HEADER, header, sizeof(header));
    for (unsigned i = 0; i < 85; i++)
        ring_offer(&f->h, 0, buffers, 3);
    kick_only(f);
    for (unsigned i = 0; i < 11; i++)
        feed(f, IN_FLIGHT);
    while (answered < 85 && answer(f) == OK)
        answered++;
    assert_int_equal(answered, 85);
}

int main(void)
{
#define TEST(name, how) cmocka_unit_test_setup_teardown(name, how, tear_down)
    const struct CMUnitTest any[] = {
        TEST(each_fault_is_an_answer, set_up_calls),
        TEST(a_snapshot_flushes_or_is_none, set_up_calls),
        TEST(a_failed_flush_is_never_good_again, set_up_calls),
        TEST(a_failed_flush_is_never_good_again, set_up_delta_calls),
        TEST(a_direct_disk_takes_any_request, set_up_direct_calls),
        TEST(each_fault_is_an_answer, set_up_direct_calls),
        TEST(each_fault_is_an_answer, set_up_delta_calls),
        TEST(the_rest_of_a_block_stays, set_up_delta_calls),
    };
    const struct CMUnitTest ring[] = {
        TEST(each_fault_is_an_answer, set_up_ring),
        TEST(each_fault_is_an_answer, set_up_direct_ring),
        TEST(each_fault_is_an_answer, set_up_delta_ring),
        TEST(a_failed_flush_is_never_good_again, set_up_ring),
        TEST(a_failed_flush_is_never_good_again, set_up_delta_ring),
        TEST(a_full_host_is_an_io_error, set_up_ring),
        TEST(what_the_ring_leaves_is_done_all_the_same, set_up_ring),
        TEST(a_direct_disk_takes_any_request, set_up_direct_ring),
        TEST(a_reset_waits_for_what_is_in_flight, set_up_pipe),
        TEST(a_reset_by_another_thread_waits_too, set_up_pipe),
        TEST(a_queue_reset_waits_too, set_up_pipe),
        TEST(a_reset_begins_nothing, set_up_pipe),
        TEST(a_flood_is_bounded_and_done, set_up_pipe),
    };
    int failed = cmocka_run_group_tests(any, NULL, NULL);
    struct uring *probe = ring_new(); /* NULL: this host has no io_uring for us */

    ring_free(probe);
    return failed + (probe ? cmocka_run_group_tests(ring, NULL, NULL) : 0);
}
