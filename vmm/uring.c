/* uring.c - see uring.h. */
#include "vmm/uring.h"
#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static uint32_t *rings_field(const struct uring *ring, uint32_t offset)
{
    return (uint32_t *)(void *)(ring->rings + offset);
}

bool uring_map(struct uring *ring, int fd, int event_fd, const struct disk_ring_layout *layout)
{
    const int access = PROT_READ | PROT_WRITE, how = MAP_SHARED | MAP_POPULATE;

    *ring = (struct uring){ .fd = fd, .event_fd = event_fd, .layout = *layout };
    ring->rings = mmap(NULL, disk_ring_bytes(layout), access, how, fd, IORING_OFF_SQ_RING);
    ring->entries = mmap(NULL, URING_ENTRIES_BYTES, access, how, fd, IORING_OFF_SQES);
    if (ring->rings == MAP_FAILED || ring->entries == MAP_FAILED) {
        ring->entries = NULL;
        return false;
    }
    for (uint32_t i = 0; i < DISK_RING_ENTRIES; i++)
        rings_field(ring, layout->array)[i] = i;
    return true;
}

struct io_uring_sqe *uring_queue(struct uring *ring)
{
    struct io_uring_sqe *entry = &ring->entries[ring->tail++ % DISK_RING_ENTRIES];

    ring->queued++;
    *entry = (struct io_uring_sqe){ 0 };
    return entry;
}

void uring_submit(struct uring *ring)
{
    long taken = 1;

    __atomic_store_n(rings_field(ring, ring->layout.tail), ring->tail, __ATOMIC_RELEASE);
    while (ring->queued > 0 && (taken > 0 || (taken < 0 && errno == EINTR))) {
        taken = syscall(SYS_io_uring_enter, ring->fd, ring->queued, 0, 0, NULL, 0);
        ring->queued -= taken > 0 ? (unsigned)taken : 0;
        ring->in_flight += taken > 0 ? (unsigned)taken : 0;
    }
    ring->refused = ring->queued;
}

void *uring_take(struct uring *ring, int *ret_result)
{
    uint32_t *head = rings_field(ring, ring->layout.completion_head);
    const struct io_uring_cqe *ended =
        (const void *)rings_field(ring, ring->layout.completion_entries);
    void *tag;

    if (ring->refused > 0) { /* newest first: the tail is read by io_uring_enter only */
        ring->refused--;
        ring->queued--;
        *ret_result = -EAGAIN;
        return (void *)(uintptr_t)ring->entries[--ring->tail % DISK_RING_ENTRIES].user_data;
    }
    if (*head == __atomic_load_n(rings_field(ring, ring->layout.completion_tail), __ATOMIC_ACQUIRE))
        return NULL;
    ended += *head & (ring->layout.completions - 1);
    *ret_result = ended->res;
    tag = (void *)(uintptr_t)ended->user_data;
    ring->in_flight--;
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
    return tag;
}
