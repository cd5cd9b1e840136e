/* test_uring.c - what a ring does, and that it does nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "storage/delta_file.h"
#include "tests/unit/ring_harness.h"
#include "vmm/disk.h"
#include "vmm/disk_delta.h"
#include "vmm/disk_raw.h"
#include "vmm/filter.h"

struct fixture {
    struct uring *ring;
    int fd;
};

static int set_up(void **state)
{
    char name[] = "test_uring.XXXXXX"; /* here: a tmpfs has no O_DIRECT */
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    f->fd = mkstemp(name);
    assert_true(f->fd >= 0);
    unlink(name);
    f->ring = ring_new();
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    ring_free(f->ring);
    close(f->fd);
    free(f);
    return 0;
}

static void need_ring(const struct fixture *f)
{
    if (!f->ring)
        skip(); /* this host has no io_uring for us */
}

static struct io_uring_sqe *queue(struct fixture *f, unsigned opcode, uint64_t tag)
{
    struct io_uring_sqe *entry = uring_queue(f->ring);

    entry->opcode = (uint8_t)opcode;
    entry->user_data = tag;
    entry->fd = f->fd;
    return entry;
}

static int result_of(struct fixture *f, uint64_t tag)
{
    uint64_t count;
    int result = 0;
    void *taken;

    uring_submit(f->ring);
    while (!(taken = uring_take(f->ring, &result)))
        assert_int_equal(read(f->ring->event_fd, &count, sizeof(count)), sizeof(count));
    assert_int_equal((uintptr_t)taken, tag);
    return result;
}

static void it_transfers_and_syncs(void **state)
{
    struct fixture *f = *state;
    char bytes[16] = "written by ring", back[16] = "";
    struct iovec vector = { bytes, sizeof(bytes) };
    struct io_uring_sqe *entry;

    need_ring(f);
    for (unsigned i = 0; i < 300; i++) { /* more than entries: both queues wrap */
        entry = queue(f, IORING_OP_WRITEV, 100 + i);
        entry->addr = (uintptr_t)&vector;
        entry->len = 1;
        entry->off = i * sizeof(bytes);
        assert_int_equal(result_of(f, 100 + i), sizeof(bytes));
        assert_int_equal(pread(f->fd, back, sizeof(back), (off_t)(i * sizeof(bytes))),
                         sizeof(back));
        assert_memory_equal(back, bytes, sizeof(bytes));
    }
    entry = queue(f, IORING_OP_WRITE, 5);
    entry->addr = (uintptr_t)back;
    entry->len = sizeof(back);
    assert_int_equal(result_of(f, 5), sizeof(back));
    entry = queue(f, IORING_OP_READ, 6);
    entry->addr = (uintptr_t)back;
    entry->len = sizeof(back);
    assert_int_equal(result_of(f, 6), sizeof(back));
    (void)queue(f, IORING_OP_FSYNC, 7);
    assert_int_equal(result_of(f, 7), 0);
    assert_int_equal(f->ring->in_flight + f->ring->queued, 0);
}

static void it_does_nothing_else(void **state)
{
    static const unsigned operations[] = {
        IORING_OP_NOP,      IORING_OP_OPENAT,    IORING_OP_READ_FIXED,
        IORING_OP_POLL_ADD, IORING_OP_OPENAT2,   IORING_OP_SOCKET,
        IORING_OP_CONNECT,  IORING_OP_SENDMSG,   IORING_OP_ACCEPT,
        IORING_OP_CLOSE,    IORING_OP_SPLICE,    IORING_OP_MADVISE,
        IORING_OP_UNLINKAT, IORING_OP_URING_CMD, IORING_OP_RECVMSG,
        IORING_OP_SEND,     IORING_OP_RECV,      IORING_OP_FILES_UPDATE,
        IORING_OP_STATX,    IORING_OP_EPOLL_CTL, IORING_OP_PROVIDE_BUFFERS,
        IORING_OP_MSG_RING
    };
    struct fixture *f = *state;
    struct io_uring_sqe *entry;

    need_ring(f);
    for (unsigned i = 0; i < sizeof(operations) / sizeof(operations[0]); i++) {
        (void)queue(f, operations[i], 1);
        assert_int_equal(result_of(f, 1), -EACCES);
    }
    for (unsigned flag = 0; flag < 8; flag++) { /* those that there are, and one that is not */
        entry = queue(f, IORING_OP_FSYNC, 2);
        entry->flags = (uint8_t)(1u << flag);
        assert_true(result_of(f, 2) < 0);
    }
    entry = queue(f, IORING_OP_FSYNC, 3);
    entry->fd = 1000; /* no such file */
    assert_int_equal(result_of(f, 3), -EBADF);
}

static void it_cannot_be_changed(void **state)
{
    static const unsigned operations[] = {
        IORING_REGISTER_BUFFERS,      IORING_REGISTER_FILES,     IORING_REGISTER_FILES2,
        IORING_REGISTER_FILES_UPDATE, IORING_REGISTER_EVENTFD,   IORING_UNREGISTER_EVENTFD,
        IORING_REGISTER_PERSONALITY,  IORING_REGISTER_PROBE,     IORING_REGISTER_RESTRICTIONS,
        IORING_REGISTER_ENABLE_RINGS, IORING_REGISTER_PBUF_RING, IORING_REGISTER_RING_FDS
    };
    struct fixture *f = *state;
    int fds[1] = { STDIN_FILENO };

    need_ring(f);
    for (size_t i = 0; i < ARRAY_LENGTH(operations); i++) {
        assert_int_equal(syscall(SYS_io_uring_register, f->ring->fd, operations[i], fds, 1), -1);
        assert_true(errno == EACCES || errno == EBADFD || errno == EINVAL);
        if (operations[i] != IORING_REGISTER_ENABLE_RINGS &&
            operations[i] != IORING_REGISTER_RESTRICTIONS)
            assert_int_equal(errno, EACCES);
    }
}

/* Nothing that it names is outside the mapping. */
static void a_layout_is_checked(void **state)
{
    static const size_t fields[] = { offsetof(struct disk_ring_layout, completions),
                                     offsetof(struct disk_ring_layout, tail),
                                     offsetof(struct disk_ring_layout, array),
                                     offsetof(struct disk_ring_layout, completion_head),
                                     offsetof(struct disk_ring_layout, completion_tail),
                                     offsetof(struct disk_ring_layout, completion_entries) };
    static const uint32_t wrong[] = { 3, 1u << 16, 1u << 30, UINT32_MAX - 3 };
    struct fixture *f = *state;

    need_ring(f);
    assert_true(disk_ring_layout_is_valid(&f->ring->layout));
    for (size_t i = 0; i < ARRAY_LENGTH(fields); i++)
        for (size_t k = 0; k < ARRAY_LENGTH(wrong); k++) {
            struct disk_ring_layout layout = f->ring->layout;

            memcpy((char *)&layout + fields[i], &wrong[k], sizeof(wrong[k]));
            assert_false(disk_ring_layout_is_valid(&layout));
        }
}

/* --- used by another process than its maker --- */

#define PART     4096
#define REQUESTS 32

struct done {
    struct disk_request request; /* first */
    struct iovec vector;
    int result;
};

static void on_done(struct disk_request *request, int result)
{
    ((struct done *)request)->result = result;
}

/* All at once, and none so small that it is done by a call.  Returns how many were well done. */
static int use_disk(struct disk *disk, uint8_t *bytes)
{
    static struct done done[REQUESTS];
    static const enum disk_operation operations[] = { DISK_WRITE, DISK_READ, DISK_FLUSH };
    int good = 0;

    for (unsigned i = 0; i < REQUESTS; i++) {
        enum disk_operation operation = operations[i % 3];
        uint64_t size = operation == DISK_FLUSH ? 0 : 20ull * PART;

        done[i] = (struct done){ { .operation = operation,
                                   .offset = size * i,
                                   .size = size,
                                   .vectors = &done[i].vector,
                                   .vector_count = size > 0,
                                   .done = on_done },
                                 { bytes + size * i, size },
                                 1 };
        disk_submit(disk, &done[i].request);
    }
    disk_drain(disk, DISK_FINISH);
    for (unsigned i = 0; i < REQUESTS; i++)
        good += done[i].result == 0;
    return good;
}

#define DISK_BYTES (20ull * PART * REQUESTS)

struct told {
    int good, completed;
};

/* As a VMM does: its maker is gone, another user, with the device thread's filter. */
static struct told be_a_vmm(const struct disk_ring *made, int base_fd, int fd)
{
    struct told told = { -1, -1 };
    struct uring ring = { 0 };
    struct disk *disk;
    void *bytes;

    if (posix_memalign(&bytes, PART, DISK_BYTES) != 0 || setgid(65534) < 0 || setuid(65534) < 0 ||
        (base_fd < 0 ? disk_raw_new(fd, &ring, &disk, NULL)
                     : disk_delta_new(base_fd, fd, &ring, DISK_BYTES, &disk, NULL)) < 0 ||
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || filter_load(FILTER_DEVICES, NULL) < 0 ||
        !uring_map(&ring, made->fd, made->event_fd, &made->layout)) /* as when one is attached */
        return told;
    memset(bytes, 0x5a, DISK_BYTES);
    told.good = use_disk(disk, bytes) + use_disk(disk, bytes); /* of a delta, into its base first */
    told.completed = *(const int *)(const void *)(ring.rings + ring.layout.completion_tail);
    return told;
}

static struct told use_elsewhere(int base_fd, int fd)
{
    struct told told = { -2, -2 };
    int report[2], alive[2];
    pid_t maker;

    assert_int_equal(pipe2(report, O_CLOEXEC), 0);
    assert_int_equal(pipe2(alive, O_CLOEXEC), 0);
    maker = fork();
    if (maker == 0) {
        struct disk_ring made;

        if (disk_ring_make(&made) < 0 || fork() != 0)
            _exit(0);
        close(alive[1]);
        if (read(alive[0], &told, 1) == 0)
            told = be_a_vmm(&made, base_fd, fd);
        _exit(write(report[1], &told, sizeof(told)) < 0);
    }
    close(alive[1]);
    close(report[1]);
    assert_int_equal(waitpid(maker, NULL, 0), maker);
    assert_int_equal(read(report[0], &told, sizeof(told)), sizeof(told));
    close(alive[0]);
    close(report[0]);
    return told;
}

static void its_maker_need_not_be_its_user(void **state)
{
    struct fixture *f = *state;
    struct told told;

    need_ring(f);
    if (geteuid() != 0)
        skip(); /* it becomes another user */
    assert_int_equal(ftruncate(f->fd, DISK_BYTES), 0);
    for (int direct = 0; direct < 2; direct++) {
        assert_int_equal(fcntl(f->fd, F_SETFL, direct ? O_DIRECT : 0), 0);
        told = use_elsewhere(-1, f->fd);
        assert_int_equal(told.good, 2 * REQUESTS);
        assert_int_equal(told.completed, 2 * REQUESTS);
    }
}

/* Both files go by the one ring: the base's reads, then the delta's writes, reads and flushes.  A
 * delta is never past the page cache (volume_open); what it stands on may be. */
static void one_ring_is_for_a_delta_and_its_base(void **state)
{
    struct fixture *f = *state, *delta;

    need_ring(f);
    if (geteuid() != 0)
        skip();
    assert_int_equal(ftruncate(f->fd, DISK_BYTES), 0);
    for (int direct = 0; direct < 2; direct++) {
        struct told told;

        (void)set_up((void **)&delta);
        assert_int_equal(delta_file_init(delta->fd, DISK_BYTES, DISK_BYTES, "base", NULL), 0);
        assert_int_equal(fcntl(f->fd, F_SETFL, direct ? O_DIRECT : 0), 0);
        told = use_elsewhere(f->fd, delta->fd);
        assert_int_equal(told.good, 2 * REQUESTS);
        assert_true(told.completed > REQUESTS && told.completed < 2 * REQUESTS);
        (void)tear_down((void **)&delta);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(it_transfers_and_syncs),         TEST(it_does_nothing_else),
        TEST(it_cannot_be_changed),           TEST(a_layout_is_checked),
        TEST(its_maker_need_not_be_its_user), TEST(one_ring_is_for_a_delta_and_its_base),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
