/* uring.h - a ring that the agent made (base/disk_ring.h) and we inherited.
 *
 * Who has a ring serializes its calls.  Only uring_submit makes a system call. */
#pragma once
#include <linux/io_uring.h>
#include <stdbool.h>
#include "base/disk_ring.h"

#define URING_ENTRIES_BYTES (DISK_RING_ENTRIES * sizeof(struct io_uring_sqe))

struct uring {
    int fd, event_fd; /* borrowed; the eventfd blocks, so the loop never reads it (EPOLLET) */
    unsigned queued, refused, in_flight; /* operations; those refused are queued, too */
    unsigned tail; /* of what is queued; the kernel knows all but the last `queued` */
    struct disk_ring_layout layout;
    unsigned char *rings;         /* indices and completions */
    struct io_uring_sqe *entries; /* NULL = not mapped: the rest is meaningless */
};

/* A new one, of a valid layout; false = it cannot be used.  It stays mapped as long as the process
 * lives: another disk may come that uses it. */
bool uring_map(struct uring *ring, int fd, int event_fd, const struct disk_ring_layout *layout);
/* The next free entry, zeroed, to be filled before the next call. */
struct io_uring_sqe *uring_queue(struct uring *ring);
/* All that was queued is in flight, or has ended by -EAGAIN. */
void uring_submit(struct uring *ring);
/* user_data and result of what has ended, one after the other; NULL = none left. */
void *uring_take(struct uring *ring, int *ret_result);
