/* block_driver.h - what a driver of a block device puts into its rings (VIRTIO 1.3, 5.2.6). */
#pragma once
#include "tests/unit/virtio_harness.h"

enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13 };
enum { OK, IO_ERROR, UNSUPPORTED, UNTOUCHED = 0xee }; /* the last: no answer yet */

#define BLOCK_FLUSH    (1ull << 9)
#define BLOCK_FEATURES (BLOCK_FLUSH | 1ull << 13 | 1ull << 14) /* discard, write zeroes, too */
#define BLOCK_STATUS   0x100                                   /* bytes behind the header */

/* A request's header, and its status, which nobody has touched. */
static inline void block_put_header(struct harness *h, uint64_t at, uint32_t type, uint64_t sector)
{
    const struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header = { type, 0, sector };
    const uint8_t untouched = UNTOUCHED;

    guest_put(h, at, &header, sizeof(header));
    guest_put(h, at + BLOCK_STATUS, &untouched, 1);
}

static inline void block_put_range(struct harness *h, uint64_t at, uint64_t sector,
                                   uint32_t sectors, uint32_t flags)
{
    const struct {
        uint64_t sector;
        uint32_t sectors, flags;
    } range = { sector, sectors, flags };

    guest_put(h, at, &range, sizeof(range));
}

/* Header, `size` bytes at `data` (no buffer for none), status; nobody is told. */
static inline void block_offer(struct harness *h, unsigned queue, uint64_t at, uint32_t type,
                               uint64_t sector, uint64_t data, uint32_t size)
{
    const bool to_guest = type == IN || type == GET_ID;
    struct ring_buffer buffers[3] = { { at, 16, 0 },
                                      { data, size, to_guest ? RING_WRITE : 0 },
                                      { at + BLOCK_STATUS, 1, RING_WRITE } };

    block_put_header(h, at, type, sector);
    if (size == 0)
        buffers[1] = buffers[2];
    ring_offer(h, queue, buffers, size == 0 ? 2 : 3);
}
