/* uring.h - an io_uring that can only transfer, sync and allocate in the files it was made with.
 * io_uring passes by the system call filters, so a ring is made before they are loaded: disabled,
 * restricted to a few operations on registered files, then enabled.  Nothing lifts a restriction.
 *
 * Who has a ring serializes its calls.  Only uring_submit makes a system call. */
#pragma once
#include <linux/io_uring.h>

struct uring {
    int fd;       /* owned; -1 = none: the rest is meaningless */
    int event_fd; /* owned, blocking: something ended; the loop never reads it (EPOLLET) */
    unsigned queued, refused, in_flight; /* operations; those refused are queued, too */
    unsigned tail; /* of what is queued; the kernel knows all but the last `queued` */
    struct io_uring_params layout;
    unsigned char *rings; /* indices and completions */
    struct io_uring_sqe *entries;
};

/* `fds` are named by their index from then on; `entries` is a power of two, and the most that may
 * be queued and in flight together.  0, or -errno: -ENOSYS or -EPERM where io_uring is not for us.
 */
int uring_open(struct uring *ring, const int *fds, unsigned fd_count, unsigned entries);
void uring_close(struct uring *ring); /* nothing is in flight */
/* The next free entry, zeroed but for its flags, to be filled before the next call. */
struct io_uring_sqe *uring_queue(struct uring *ring);
/* All that was queued is in flight, or has ended by -EAGAIN. */
void uring_submit(struct uring *ring);
/* user_data and result of what has ended, one after the other; NULL = none left. */
void *uring_take(struct uring *ring, int *ret_result);
