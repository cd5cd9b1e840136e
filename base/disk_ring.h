/* disk_ring.h - an io_uring for one disk, made by one process for another that inherits it.
 *
 * io_uring passes by the system call filters, so who makes it restricts it: it can only transfer,
 * sync and allocate, in files that who uses it has open.  Nothing lifts that.  It is inherited
 * because Linux refuses to pass one by a socket (SCM_RIGHTS: -EINVAL; 6.7, and late 6.1).
 *
 * It is nobody's: without IORING_SETUP_SINGLE_ISSUER any process may submit; its requests run with
 * the submitter's credentials and memory, their workers are its threads, and the limit on these is
 * applied to it when it first submits.  Only the ring itself, 18 KiB of kernel memory, is charged
 * to its maker's cgroup. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#define DISK_RING_ENTRIES 64 /* the most that may be queued and in flight together */

/* What struct io_uring_params says, of rings of DISK_RING_ENTRIES: a host's are all alike. */
struct disk_ring_layout {
    uint32_t completions;                      /* a power of two */
    uint32_t tail, array;                      /* of what is queued: bytes into the mapping */
    uint32_t completion_head, completion_tail; /* the same */
    uint32_t completion_entries;               /* the same; 16 bytes each */
};

struct disk_ring {
    int fd, event_fd; /* owned; the eventfd blocks, and is raised when something has ended */
    struct disk_ring_layout layout;
};

/* 0, or -errno: -ENOSYS or -EPERM where io_uring is not for us. */
int disk_ring_make(struct disk_ring *ret_ring);
void disk_ring_close(struct disk_ring *ring);

/* Both queues are in one mapping, of which the array is the last. */
static inline uint32_t disk_ring_bytes(const struct disk_ring_layout *layout)
{
    return layout->array + DISK_RING_ENTRIES * (uint32_t)sizeof(uint32_t);
}

/* All is inside the mapping, which is not large. */
static inline bool disk_ring_layout_is_valid(const struct disk_ring_layout *layout)
{
    return layout->array < 1u << 16 && layout->completions > 0 &&
           (layout->completions & (layout->completions - 1)) == 0 &&
           layout->completions <= 1u << 12 && layout->completion_entries < 1u << 16 &&
           layout->completion_entries + layout->completions * 16 <= disk_ring_bytes(layout) &&
           layout->tail < layout->array && layout->completion_head < layout->array &&
           layout->completion_tail < layout->array &&
           ((layout->tail | layout->array | layout->completion_head | layout->completion_tail |
             layout->completion_entries) &
            3) == 0;
}
