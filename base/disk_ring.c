/* disk_ring.c - see disk_ring.h. */
#include "base/disk_ring.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"

/* Nothing that the device thread's filter does not let it do by system calls. */
static const struct io_uring_restriction restrictions[] = {
    { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READ },
    { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITE },
    { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READV },
    { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITEV },
    { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FSYNC },
    { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FALLOCATE },
};

static bool ring_register(int fd, unsigned what, const void *argument, unsigned count)
{
    return syscall(SYS_io_uring_register, fd, what, argument, count) >= 0;
}

static int ring_setup(uint32_t flags, struct io_uring_params *ret_made)
{
    *ret_made = (struct io_uring_params){ .flags = IORING_SETUP_R_DISABLED | flags };
    return (int)syscall(SYS_io_uring_setup, DISK_RING_ENTRIES, ret_made);
}

int disk_ring_make(struct disk_ring *ret_ring)
{
    static const uint32_t workers[2] = { 4, 4 }; /* at most: they are pids of the VM's cgroup */
    struct io_uring_params made;
    /* What ends waits for the submitter's next system call, or wakes it, but never interrupts it:
     * a tenth more requests a second where the disk's interrupt comes to another processor. */
    auto_close int fd = ring_setup(IORING_SETUP_COOP_TASKRUN, &made);
    auto_close int event_fd = -1;

    if (fd < 0 && errno == EINVAL)
        fd = ring_setup(0, &made); /* before Linux 5.19 */
    if (fd >= 0)
        event_fd = eventfd(0, EFD_CLOEXEC);
    if (event_fd < 0)
        return -errno;
    (void)ring_register(fd, IORING_REGISTER_IOWQ_MAX_WORKERS, workers, 2); /* Linux 5.15 */
    if (!ring_register(fd, IORING_REGISTER_EVENTFD, &event_fd, 1) ||
        !ring_register(fd, IORING_REGISTER_RESTRICTIONS, restrictions,
                       ARRAY_LENGTH(restrictions)) ||
        !ring_register(fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0))
        return -errno;
    *ret_ring = (struct disk_ring){
        .fd = take_fd(&fd),
        .event_fd = take_fd(&event_fd),
        .layout = { .completions = made.cq_entries,
                    .tail = made.sq_off.tail,
                    .array = made.sq_off.array,
                    .completion_head = made.cq_off.head,
                    .completion_tail = made.cq_off.tail,
                    .completion_entries = made.cq_off.cqes },
    };
    return 0;
}

void disk_ring_close(struct disk_ring *ring)
{
    cleanup_close(&ring->fd);
    cleanup_close(&ring->event_fd);
}
