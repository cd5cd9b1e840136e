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
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include "vmm/uring.h"

struct fixture {
    struct uring ring;
    int fd;
};

static int set_up(void **state)
{
    char name[] = "/tmp/test_uring.XXXXXX";
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    f->fd = mkstemp(name);
    assert_true(f->fd >= 0);
    unlink(name);
    f->ring.fd = -1;
    (void)uring_open(&f->ring, &f->fd, 1, 8);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    if (f->ring.fd >= 0)
        uring_close(&f->ring);
    close(f->fd);
    free(f);
    return 0;
}

static void need_ring(const struct fixture *f)
{
    if (f->ring.fd < 0)
        skip(); /* this host has no io_uring for us */
}

static struct io_uring_sqe *queue(struct fixture *f, unsigned opcode, uint64_t tag)
{
    struct io_uring_sqe *entry = uring_queue(&f->ring);

    entry->opcode = (uint8_t)opcode;
    entry->user_data = tag;
    return entry;
}

static int result_of(struct fixture *f, uint64_t tag)
{
    uint64_t count;
    int result = 0;
    void *taken;

    uring_submit(&f->ring);
    while (!(taken = uring_take(&f->ring, &result)))
        assert_int_equal(read(f->ring.event_fd, &count, sizeof(count)), sizeof(count));
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
    for (unsigned i = 0; i < 20; i++) { /* more than entries: both queues wrap */
        entry = queue(f, IORING_OP_WRITEV, 100 + i);
        entry->addr = (uintptr_t)&vector;
        entry->len = 1;
        entry->off = i * sizeof(bytes);
        assert_int_equal(result_of(f, 100 + i), sizeof(bytes));
        assert_int_equal(pread(f->fd, back, sizeof(back), (off_t)(i * sizeof(bytes))),
                         sizeof(back));
        assert_memory_equal(back, bytes, sizeof(bytes));
    }
    (void)queue(f, IORING_OP_FSYNC, 7);
    assert_int_equal(result_of(f, 7), 0);
    assert_int_equal(f->ring.in_flight + f->ring.queued, 0);
}

static void it_does_nothing_else(void **state)
{
    static const unsigned operations[] = {
        IORING_OP_NOP,     IORING_OP_OPENAT, IORING_OP_READ_FIXED, IORING_OP_POLL_ADD,
        IORING_OP_OPENAT2, IORING_OP_SOCKET, IORING_OP_CONNECT,    IORING_OP_SENDMSG,
        IORING_OP_ACCEPT,  IORING_OP_CLOSE,  IORING_OP_SPLICE,     IORING_OP_MADVISE,
        IORING_OP_UNLINKAT
    };
    struct fixture *f = *state;
    struct io_uring_sqe *entry;

    need_ring(f);
    for (unsigned i = 0; i < sizeof(operations) / sizeof(operations[0]); i++) {
        (void)queue(f, operations[i], 1);
        assert_int_equal(result_of(f, 1), -EACCES);
    }
    entry = queue(f, IORING_OP_FSYNC, 2); /* an fd that was not registered */
    entry->flags = 0;
    entry->fd = f->fd;
    assert_int_equal(result_of(f, 2), -EACCES);
    entry = queue(f, IORING_OP_FSYNC, 3);
    entry->flags |= IOSQE_IO_DRAIN;
    assert_int_equal(result_of(f, 3), -EACCES);
    entry = queue(f, IORING_OP_FSYNC, 4);
    entry->fd = 1; /* no such registered file */
    assert_int_equal(result_of(f, 4), -EBADF);
}

static void it_cannot_be_changed(void **state)
{
    struct fixture *f = *state;
    int fds[1] = { STDIN_FILENO };
    struct io_uring_files_update update = { .fds = (uintptr_t)fds };

    need_ring(f);
    assert_int_equal(
        syscall(SYS_io_uring_register, f->ring.fd, IORING_REGISTER_FILES_UPDATE, &update, 1), -1);
    assert_int_equal(errno, EACCES);
    assert_int_equal(syscall(SYS_io_uring_register, f->ring.fd, IORING_UNREGISTER_FILES, NULL, 0),
                     -1);
    assert_int_equal(errno, EACCES);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(it_transfers_and_syncs),
        TEST(it_does_nothing_else),
        TEST(it_cannot_be_changed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
