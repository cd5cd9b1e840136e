/* uring.c - see uring.h. */
#include "vmm/uring.h"
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/cleanup.h"

static const struct io_uring_restriction restrictions[] = {
    { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READV },
    { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITEV },
    { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FSYNC },
    { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FALLOCATE },
    { .opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED, .sqe_flags = IOSQE_FIXED_FILE },
};

static size_t rings_bytes(const struct uring *ring) /* the array is the last in them */
{
    return ring->layout.sq_off.array + ring->layout.sq_entries * sizeof(uint32_t);
}

static uint32_t *rings_field(const struct uring *ring, uint32_t offset)
{
    return (uint32_t *)(void *)(ring->rings + offset);
}

static bool uring_register(const struct uring *ring, int what, const void *argument, unsigned count)
{
    return syscall(SYS_io_uring_register, ring->fd, what, argument, count) >= 0;
}

static bool uring_prepare(struct uring *ring, const int *fds, unsigned fd_count)
{
    static const uint32_t workers[2] = { 4, 4 }; /* at most: they are pids of the VM's cgroup */

    ring->event_fd = eventfd(0, EFD_CLOEXEC); /* blocking: see raw_drain */
    ring->rings = mmap(NULL, rings_bytes(ring), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                       ring->fd, IORING_OFF_SQ_RING);
    ring->entries =
        mmap(NULL, ring->layout.sq_entries * sizeof(*ring->entries), PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_SQES);
    if (ring->event_fd < 0 || ring->rings == MAP_FAILED || ring->entries == MAP_FAILED)
        return false;
    for (uint32_t i = 0; i < ring->layout.sq_entries; i++)
        rings_field(ring, ring->layout.sq_off.array)[i] = i;
    (void)uring_register(ring, IORING_REGISTER_IOWQ_MAX_WORKERS, workers, 2); /* Linux 5.15 */
    return uring_register(ring, IORING_REGISTER_FILES, fds, fd_count) &&
           uring_register(ring, IORING_REGISTER_EVENTFD, &ring->event_fd, 1) &&
           uring_register(ring, IORING_REGISTER_RESTRICTIONS, restrictions,
                          ARRAY_LENGTH(restrictions)) &&
           uring_register(ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}

int uring_open(struct uring *ring, const int *fds, unsigned fd_count, unsigned entries)
{
    int code;

    *ring = (struct uring){ .layout.flags = IORING_SETUP_R_DISABLED, .event_fd = -1 };
    ring->fd = (int)syscall(SYS_io_uring_setup, entries, &ring->layout);
    if (ring->fd >= 0 && uring_prepare(ring, fds, fd_count))
        return 0;
    code = errno;
    uring_close(ring);
    return -code;
}

void uring_close(struct uring *ring)
{
    if (ring->fd < 0)
        return;
    munmap(ring->rings, rings_bytes(ring)); /* of MAP_FAILED: nothing happens */
    munmap(ring->entries, ring->layout.sq_entries * sizeof(*ring->entries));
    cleanup_close(&ring->event_fd);
    cleanup_close(&ring->fd);
}

static struct io_uring_sqe *uring_entry(struct uring *ring, unsigned index)
{
    return &ring->entries[index & (ring->layout.sq_entries - 1)];
}

struct io_uring_sqe *uring_queue(struct uring *ring)
{
    struct io_uring_sqe *entry = uring_entry(ring, ring->tail++);

    ring->queued++;
    *entry = (struct io_uring_sqe){ .flags = IOSQE_FIXED_FILE };
    return entry;
}

void uring_submit(struct uring *ring)
{
    long taken = 1;

    __atomic_store_n(rings_field(ring, ring->layout.sq_off.tail), ring->tail, __ATOMIC_RELEASE);
    while (ring->queued > 0 && (taken > 0 || (taken < 0 && errno == EINTR))) {
        taken = syscall(SYS_io_uring_enter, ring->fd, ring->queued, 0, 0, NULL, 0);
        ring->queued -= taken > 0 ? (unsigned)taken : 0;
        ring->in_flight += taken > 0 ? (unsigned)taken : 0;
    }
    ring->refused = ring->queued;
}

void *uring_take(struct uring *ring, int *ret_result)
{
    uint32_t *head = rings_field(ring, ring->layout.cq_off.head);
    const struct io_uring_cqe *ended = (const void *)rings_field(ring, ring->layout.cq_off.cqes);
    void *tag;

    if (ring->refused > 0) { /* newest first: the tail is read by io_uring_enter only */
        ring->refused--;
        ring->queued--;
        *ret_result = -EAGAIN;
        return (void *)(uintptr_t)uring_entry(ring, --ring->tail)->user_data;
    }
    if (*head == __atomic_load_n(rings_field(ring, ring->layout.cq_off.tail), __ATOMIC_ACQUIRE))
        return NULL;
    ended += *head & (ring->layout.cq_entries - 1);
    *ret_result = ended->res;
    tag = (void *)(uintptr_t)ended->user_data;
    ring->in_flight--;
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
    return tag;
}
