/* block_harness.h - a driver of a block device that is raw or a delta, over files in memory; for
 * tests/unit/test_virtio_block_*.c. */
#pragma once
#include "tests/unit/virtio_harness.h"
#include <sys/mman.h>
#include "base/cleanup.h"
#include "storage/delta_file.h"
#include "tests/unit/ring_harness.h"
#include "vmm/stats_page.h"
#include "vmm/virtio_block.h"

#define DISK_BYTES (1u << 20)
#define SECTORS    (DISK_BYTES / 512)
#define HEADER(n)  (DATA_BASE + (n)*0x2000ull)
#define STATUS(n)  (HEADER(n) + 0x100)
#define DATA(n)    (HEADER(n) + 0x1000)
#define DATA_BYTES 4096u
#define FEATURES   (1ull << 9 | 1ull << 13 | 1ull << 14) /* flush, discard, write zeroes */

enum { IN = 0, OUT = 1, FLUSH = 4, WRITE_ZEROES = 13 };
enum { OK, IO_ERROR, UNSUPPORTED, UNTOUCHED = 0xee };

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
    driver_start(&f->h, FEATURES | VIRTIO_FEATURE_RING_RESET, 256);
}

/* Request n, of 4 KiB or none, is in the ring; nobody is told. */
static inline void offer(struct fixture *f, unsigned n, uint32_t type, uint64_t sector)
{
    const struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header = { type, 0, sector };
    const uint8_t untouched = UNTOUCHED;
    const struct ring_buffer status = { STATUS(n), 1, RING_WRITE };
    struct ring_buffer buffers[3] = { { HEADER(n), 16, 0 },
                                      { DATA(n), DATA_BYTES, type == IN ? RING_WRITE : 0 },
                                      status };

    if (type == FLUSH)
        buffers[1] = status;
    if (type == WRITE_ZEROES)
        buffers[1].length = 16;
    guest_put(&f->h, HEADER(n), &header, sizeof(header));
    guest_put(&f->h, STATUS(n), &untouched, 1);
    ring_offer(&f->h, 0, buffers, type == FLUSH ? 2 : 3);
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
    int64_t end_ms = loop_now_ms() + 10000;
    uint32_t head, used;

    while (count > 0) {
        assert_true(loop_now_ms() < end_ms);
        if (ring_take(&f->h, 0, &head, &used))
            count--;
        else
            assert_int_equal(loop_turn(f->h.loop, 10, &f->h.err), 0);
    }
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
