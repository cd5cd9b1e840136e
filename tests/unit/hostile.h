/* hostile.h - two devices and a driver that means ill, for tests/unit/test_hostile_*.c: a disk of 1
 * MiB in slot 1, the entropy source in slot 2, both over virtio_harness.h.
 *
 * A case passes if the device says NEEDS_RESET or gives an answer, and a new driver can use it
 * afterwards; tests/HOSTILE.md lists the cases. */
#pragma once
#include "tests/unit/block_driver.h"
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "vmm/stats_page.h"
#include "vmm/virtio_block.h"
#include "vmm/virtio_rng.h"

#define DISK_BYTES   (1u << 20)
#define DISK_SECTORS (DISK_BYTES / 512)
#define DISK_SLOT    1
#define RNG_SLOT     2
#define RING_SIZE    16

#define HEADER DATA_BASE
#define STATUS (DATA_BASE + BLOCK_STATUS)
#define DATA   (DATA_BASE + 0x1000)
#define TABLE  (DATA_BASE + 0x40000) /* indirect descriptors */
#define CANARY (DATA_BASE + 0x80000) /* where nobody may write */

#define ALL_FEATURES \
    (VIRTIO_FEATURE_INDIRECT | VIRTIO_FEATURE_EVENT_INDEX | VIRTIO_FEATURE_RING_RESET)

struct hostile {
    struct harness h;
    struct stats_disk stats;
    uint64_t rng_bytes;
    int fd;
};

static inline void hostile_add_of(struct hostile *f, uint64_t size_bytes, bool read_only)
{
    struct virtio_block_spec spec = { .queues = 1,
                                      .fd = f->fd,
                                      .read_only = read_only,
                                      .size_bytes = size_bytes,
                                      .serial = "hostile",
                                      .ring = NULL, /* done when kicked */
                                      .stats = &f->stats };

    assert_int_equal(virtio_block_add(f->h.root, &spec, &f->h.err), 0);
    assert_int_equal(virtio_rng_add(f->h.root, &f->rng_bytes, &f->h.err), 0);
}

static inline void hostile_add(struct hostile *f, bool read_only)
{
    hostile_add_of(f, DISK_BYTES, read_only);
}

static inline struct hostile *hostile_new(bool read_only)
{
    struct hostile *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    harness_open(&f->h);
    f->fd = memfd_create("disk", MFD_CLOEXEC); /* thousands of flushes are no test of the disk */
    assert_true(f->fd >= 0);
    assert_int_equal(ftruncate(f->fd, DISK_BYTES), 0);
    hostile_add(f, read_only);
    return f;
}

static inline int hostile_set_up(void **state)
{
    *state = hostile_new(false);
    return 0;
}

static inline int hostile_tear_down(void **state)
{
    struct hostile *f = *state;

    harness_close(&f->h);
    close(f->fd);
    free(f);
    return 0;
}

/* A driver of the device in `slot`, from reset to DRIVER_OK. */
static inline void hostile_start(struct hostile *f, unsigned slot, uint64_t features)
{
    f->h.slot = slot;
    driver_start(&f->h, features | (slot == DISK_SLOT ? BLOCK_FEATURES : 0), RING_SIZE);
}

static inline void put_header(struct hostile *f, uint32_t type, uint64_t sector)
{
    block_put_header(&f->h, HEADER, type, sector);
}

/* The status of a request with `size` bytes at `data` (0 = none), UNTOUCHED if there was none. */
static inline int disk_request(struct hostile *f, uint32_t type, uint64_t sector, uint64_t data,
                               uint32_t size)
{
    uint32_t head, used;

    block_offer(&f->h, 0, HEADER, type, sector, data, size);
    ring_kick(&f->h, 0);
    (void)ring_take(&f->h, 0, &head, &used);
    return guest_get8(&f->h, STATUS);
}

static inline int disk_range(struct hostile *f, uint32_t type, uint64_t sector, uint32_t sectors,
                             uint32_t flags)
{
    block_put_range(&f->h, DATA, sector, sectors, flags);
    return disk_request(f, type, 0, DATA, 16);
}

/* The device in the harness's slot serves an orderly driver. */
static inline void assert_serves(struct hostile *f)
{
    const struct ring_buffer buffer = { DATA, 16, RING_WRITE };
    uint32_t head, used;

    if (f->h.slot == DISK_SLOT) {
        assert_int_equal(disk_request(f, IN, DISK_SECTORS - 1, DATA, 512), OK);
        return;
    }
    ring_offer(&f->h, 0, &buffer, 1);
    ring_kick(&f->h, 0);
    assert_true(ring_take(&f->h, 0, &head, &used));
    assert_int_equal(used, 16);
}

/* Broken now, whole after a reset. */
static inline void assert_breaks_and_recovers(struct hostile *f)
{
    uint32_t head, used;

    assert_needs_reset(&f->h);
    ring_kick(&f->h, 0); /* no answer to anything before it */
    assert_false(ring_take(&f->h, 0, &head, &used));
    hostile_start(f, f->h.slot, ALL_FEATURES);
    assert_serves(f);
}

/* Offers one descriptor as it stands, kicks. */
static inline void offer_descriptor(struct hostile *f, uint64_t address, uint32_t length,
                                    uint16_t flags, uint16_t next)
{
    ring_put_descriptor(&f->h, 0, 0, address, length, flags, next);
    ring_offer_head(&f->h, 0, 0);
    ring_kick(&f->h, 0);
}

#define HOSTILE_TEST(name)  cmocka_unit_test_setup_teardown(name, hostile_set_up, hostile_tear_down)
#define FOR_EACH_SLOT(slot) for (unsigned slot = DISK_SLOT; slot <= RNG_SLOT; slot++)
