/* block_harness.h - a driver of a block device that is raw or a delta, over files in memory; for
 * tests/unit/test_virtio_block_*.c. */
#pragma once
#include "tests/unit/block_driver.h"
#include <sys/mman.h>
#include "base/cleanup.h"
#include "storage/delta_file.h"
#include "tests/unit/ring_harness.h"
#include "vmm/stats_page.h"
#include "vmm/virtio_block.h"

#define DISK_BYTES (1u << 20)
#define SECTORS    (DISK_BYTES / 512)
#define HEADER(n)  (DATA_BASE + (n)*0x2000ull)
#define STATUS(n)  (HEADER(n) + BLOCK_STATUS)
#define DATA(n)    (HEADER(n) + 0x1000)
#define DATA_BYTES 4096u

/* What a disk is made of, each in turn. */
static struct {
    bool by_ring; /* or by calls */
    bool is_delta;
} kind;

struct fixture {
    struct harness h;
    struct stats_disk stats;
    struct virtio_block *block;
    struct virtio_block_spec spec;
    int fd, base_fd;
};

static inline int file_new(const char *name, uint64_t size)
{
    int fd = memfd_create(name, MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    return fd;
}

static inline int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    f->base_fd = file_new("base", 4096);
    f->fd = file_new("disk", kind.is_delta ? 0 : DISK_BYTES);
    if (kind.is_delta)
        assert_int_equal(delta_file_init(f->fd, DISK_BYTES, 4096, "uid", &f->h.err), 0);
    harness_open(&f->h);
    f->spec = (struct virtio_block_spec){ .fd = f->fd,
                                          .base_fd = f->base_fd,
                                          .is_delta = kind.is_delta,
                                          .queues = 1,
                                          .size_bytes = DISK_BYTES,
                                          .stats = &f->stats,
                                          .ring = kind.by_ring ? ring_new() : NULL,
                                          .ret_block = &f->block };
    *state = f;
    return 0;
}

static inline int tear_down(void **state)
{
    struct fixture *f = *state;

    harness_close(&f->h);
    ring_free(f->spec.ring);
    close(f->fd);
    close(f->base_fd);
    free(f);
    return 0;
}

static inline void add_disk(struct fixture *f)
{
    assert_int_equal(virtio_block_add(f->h.root, &f->spec, &f->h.err), 0);
    driver_start(&f->h, BLOCK_FEATURES | VIRTIO_FEATURE_RING_RESET, 256);
}

/* Request n, of 4 KiB or none, is in the ring; nobody is told. */
static inline void offer(struct fixture *f, unsigned n, uint32_t type, uint64_t sector)
{
    uint32_t size = type == FLUSH ? 0 : type == WRITE_ZEROES ? 16 : DATA_BYTES;

    block_offer(&f->h, 0, HEADER(n), type, sector, DATA(n), size);
}

static inline void fill(struct fixture *f, unsigned n, uint8_t value)
{
    uint8_t bytes[DATA_BYTES];

    memset(bytes, value, sizeof(bytes));
    guest_put(&f->h, DATA(n), bytes, sizeof(bytes));
}

/* So many are answered. */
static inline void await(struct fixture *f, unsigned count)
{
    uint32_t head, used;

    while (count-- > 0)
        assert_true(ring_await(&f->h, 0, &head, &used));
}

static inline int request(struct fixture *f, uint32_t type, uint64_t sector)
{
    offer(f, 0, type, sector);
    ring_kick(&f->h, 0);
    await(f, 1);
    return guest_get8(&f->h, STATUS(0));
}

/* Of each kind of disk, all tests; returns how many failed. */
#define run_with_each_kind(tests)                                \
    ({                                                           \
        int failed = 0;                                          \
                                                                 \
        for (int i = 0; i < 4; i++) {                            \
            kind.by_ring = i % 2;                                \
            kind.is_delta = i / 2;                               \
            failed += cmocka_run_group_tests(tests, NULL, NULL); \
        }                                                        \
        failed;                                                  \
    })
