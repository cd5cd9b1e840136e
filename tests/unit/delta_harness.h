/* delta_harness.h - a delta disk over a base, for tests: small files in memory, of which only a
 * window is touched, around the border of two pages of the bitmap.
 *
 * Every write, punch and sync that the disk does to its delta file goes through the functions below
 * that stand before the C library's, and is recorded.  Included by one file of a program. */
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "base/delta_format.h"
#include "base/error.h"
#include "storage/delta_file.h"
#include "tests/unit/ring_harness.h"
#include "vmm/disk.h"
#include "vmm/disk_delta.h"

#define BLOCK          4096u
#define SECTOR         512u
#define WINDOW_BLOCKS  24u /* what the tests touch: around the border of two pages of the bitmap */
#define WINDOW_BYTES   ((size_t)WINDOW_BLOCKS * BLOCK)
#define WINDOW_START   ((uint64_t)(32768 - WINDOW_BLOCKS / 2) * BLOCK)
#define DISK_BYTES     (WINDOW_START + WINDOW_BYTES)
#define BASE_BYTES     (WINDOW_START + 15 * (uint64_t)BLOCK + 1000) /* ends inside a block */
#define DISK_BYTES_MAX ((data_offset() - BLOCK) * 8 * BLOCK) /* as far as its bitmap has room */
#define BITMAP_USED    (2 * BLOCK)
#define BASE_UID       "01234567-89ab-4cde-8f01-23456789abcd"
#define REQUEST_BLOCKS 6u
#define OPERATIONS_MAX 512u

/* --- the file underneath --- */

struct operation {
    enum { WROTE, PUNCHED, SYNCED } what;
    uint64_t offset, size;
    uint8_t *bytes; /* owned */
};

struct recorder {
    int fd; /* the delta file's */
    unsigned count;
    int fail_sync; /* errno of the next one; 0 = none */
    int fail_write;
    struct operation operations[OPERATIONS_MAX];
};

static struct recorder recorder = { .fd = -1 };

static struct operation *record(int what, uint64_t offset, uint64_t size)
{
    struct operation *operation = &recorder.operations[recorder.count++];

    assert_true(recorder.count <= OPERATIONS_MAX);
    *operation = (struct operation){ .offset = offset, .size = size };
    operation->what = what;
    return operation;
}

static void recorder_clear(int fd)
{
    for (unsigned i = 0; i < recorder.count; i++)
        free(recorder.operations[i].bytes);
    memset(&recorder, 0, sizeof recorder);
    recorder.fd = fd;
}

ssize_t pwritev(int fd, const struct iovec *vectors, int count, off_t offset)
{
    size_t size = 0;

    if (fd == recorder.fd && recorder.fail_write) {
        errno = recorder.fail_write;
        return -1;
    }
    for (int i = 0; i < count; i++)
        size += vectors[i].iov_len;
    if (fd == recorder.fd) {
        uint8_t *to = malloc(size);

        record(WROTE, (uint64_t)offset, size)->bytes = to;
        for (int i = 0; i < count; to += vectors[i++].iov_len)
            memcpy(to, vectors[i].iov_base, vectors[i].iov_len);
    }
    return syscall(SYS_pwritev, fd, vectors, count, offset, 0);
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
    struct iovec vector = { (void *)(uintptr_t)bytes, size };

    return pwritev(fd, &vector, 1, offset);
}

int fallocate(int fd, int mode, off_t offset, off_t size)
{
    /* Files in memory cannot do the second, which leaves the same bytes. */
    int punch = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE;
    int result = (int)syscall(SYS_fallocate, fd, punch, offset, size);

    if (fd == recorder.fd && result == 0) {
        assert_true(mode == punch || mode == (FALLOC_FL_KEEP_SIZE | FALLOC_FL_ZERO_RANGE));
        record(PUNCHED, (uint64_t)offset, (uint64_t)size);
    }
    return result;
}

int fdatasync(int fd)
{
    if (fd == recorder.fd && recorder.fail_sync) {
        errno = recorder.fail_sync;
        recorder.fail_sync = 0;
        return -1;
    }
    if (fd == recorder.fd)
        record(SYNCED, 0, 0);
    return 0;
}

/* --- the two files --- */

static inline uint64_t data_offset(void)
{
    return 34ull << 20; /* delta_file.c: room for 1 TiB, up to a multiple of 2 MiB */
}

static int new_file(const char *name, uint64_t size)
{
    int fd = memfd_create(name, MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    return fd;
}

static int new_delta(void)
{
    int fd = new_file("delta", 0);

    assert_int_equal(delta_file_init(fd, DISK_BYTES, BASE_BYTES, BASE_UID, NULL), 0);
    return fd;
}

static bool all_zero(const uint8_t *bytes, size_t size)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0;
}

/* --- a disk --- */

struct fixture {
    int base_fd, delta_fd;
    struct disk *disk;
    struct error err;
};

struct done {
    struct disk_request request; /* first */
    bool called;
    int result;
};

static void on_done(struct disk_request *request, int result)
{
    struct done *done = (struct done *)request;

    assert_false(done->called);
    done->called = true;
    done->result = result;
}

/* Cut into vectors at random, as a guest's are. */
static int submit(struct disk *disk, enum disk_operation operation, uint64_t offset, uint8_t *bytes,
                  uint64_t size, bool may_unmap)
{
    struct iovec vectors[64];
    struct done done = { .request = { .operation = operation,
                                      .may_unmap = may_unmap,
                                      .offset = offset,
                                      .size = size,
                                      .vectors = vectors,
                                      .done = on_done } };

    for (uint64_t at = 0; bytes && at < size;) {
        uint64_t part = 1 + (uint64_t)rand() % (2 * BLOCK);

        if (part > size - at || done.request.vector_count == ARRAY_LENGTH(vectors) - 1)
            part = size - at;
        vectors[done.request.vector_count++] = (struct iovec){ bytes + at, part };
        at += part;
    }
    disk_submit(disk, &done.request);
    disk_drain(disk, DISK_FINISH);
    assert_true(done.called);
    return done.result;
}

static void base_fill(uint8_t *bytes, uint64_t offset, uint64_t size)
{
    for (uint64_t i = 0; i < size; i++)
        bytes[i] = offset + i < BASE_BYTES ? (uint8_t)(0x80 | ((offset + i) / 97)) : 0;
}

static int new_base(void)
{
    int fd = new_file("base", BASE_BYTES);
    uint8_t bytes[WINDOW_BYTES];

    base_fill(bytes, WINDOW_START, WINDOW_BYTES);
    assert_int_equal(pwrite(fd, bytes, BASE_BYTES - WINDOW_START, (off_t)WINDOW_START),
                     BASE_BYTES - WINDOW_START);
    return fd;
}

static void read_window(struct disk *disk, uint8_t ret_bytes[WINDOW_BYTES])
{
    memset(ret_bytes, 0xee, WINDOW_BYTES);
    assert_int_equal(submit(disk, DISK_READ, WINDOW_START, ret_bytes, WINDOW_BYTES, false), 0);
}

static struct uring *ring; /* only calls are recorded: NULL but for one test */

static void fixture_open(struct fixture *f)
{
    recorder_clear(f->delta_fd);
    assert_int_equal(disk_delta_new(f->base_fd, f->delta_fd, ring, DISK_BYTES, &f->disk, &f->err),
                     0);
}

static void fixture_close(struct fixture *f)
{
    disk_free(f->disk);
    f->disk = NULL;
    close(f->delta_fd);
    recorder_clear(-1);
}
