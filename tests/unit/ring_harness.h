/* ring_harness.h - rings for tests of disks, made as the agent makes them. */
#pragma once
#include <stdlib.h>
#include <sys/mman.h>
#include "base/disk_ring.h"
#include "vmm/uring.h"

/* NULL where this host has no io_uring for us: a disk takes that, too. */
static inline struct uring *ring_new(void)
{
    struct uring *ring = malloc(sizeof(*ring));
    struct disk_ring made;

    if (ring && disk_ring_make(&made) == 0) {
        if (uring_map(ring, made.fd, made.event_fd, &made.layout))
            return ring;
        disk_ring_close(&made);
    }
    free(ring);
    return NULL;
}

/* But for the struct itself. */
static inline void ring_release(struct uring *ring)
{
    struct disk_ring made = { ring->fd, ring->event_fd, ring->layout };

    munmap(ring->rings, disk_ring_bytes(&ring->layout));
    munmap(ring->entries, URING_ENTRIES_BYTES);
    disk_ring_close(&made);
}

static inline struct uring *ring_free(struct uring *ring) /* accepts NULL */
{
    if (ring)
        ring_release(ring);
    free(ring);
    return NULL;
}
