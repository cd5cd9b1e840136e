/* fault_harness.h - system calls, and malloc, that fail: the linker puts __wrap_X in the place of
 * every X of the program (Makefile), this test's own included.
 *
 * What is asked for by fault_set happens in the next calls that fit; fault_end says how often it
 * did. */
#pragma once
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

enum fault_call {
    NO_CALL,
    READ,
    WRITE,
    WRITEV,
    IOCTL,
    GETRANDOM,
    MADVISE,
    MMAP,
    FALLOCATE,
    EPOLL_CTL,
    RECVMSG,
    SENDMSG,
    ACCEPT4,
    GETSOCKOPT,
    SHUTDOWN,
    EVENTFD,
    FCNTL,
    LSEEK,
    PREADV,
    PWRITEV,
    FDATASYNC,
    MREMAP,
    MUNMAP,
    ALLOCATE,
    ENTER, /* io_uring_enter, and a ring's result: only where a test has them */
    TAKE,
    FAULT_CALLS
};

#define FAULT_SHORT 0 /* instead of an errno: less than was asked for */
#ifndef FAULT_BYTES
#define FAULT_BYTES 5 /* so much then */
#endif
#define FAULT_ANY ULONG_MAX

static struct fault {
    enum fault_call call;
    int code;
    unsigned long what; /* an ioctl's request, epoll_ctl's operation, mmap's flags, any other's fd;
                           or FAULT_ANY */
    unsigned skip, times;
    unsigned seen, met; /* calls that fitted; those that failed */
} fault;

static unsigned fault_made[FAULT_CALLS]; /* calls, failed or not */
static unsigned fault_pretended; /* ioctls of this type do well without being made; 0 = none */

/* Before each call, as another vCPU may be; NULL = nothing. */
static void (*fault_before)(enum fault_call call, unsigned long what);
static const void *fault_argument; /* of an ioctl then */

static inline void fault_set(enum fault_call call, int code, unsigned long what, unsigned skip,
                             unsigned times)
{
    fault = (struct fault){ call, code, what, skip, times, 0, 0 };
}

static inline unsigned fault_end(void)
{
    fault.call = NO_CALL;
    return fault.met;
}

static inline bool fault_hits(enum fault_call call, unsigned long what)
{
    if (fault_before)
        fault_before(call, what);
    fault_made[call]++;
    if (fault.call != call || (fault.what != FAULT_ANY && fault.what != what))
        return false;
    if (fault.seen++ < fault.skip || fault.met >= fault.times)
        return false;
    fault.met++;
    errno = fault.code;
    return true;
}

static inline size_t fault_less(size_t size)
{
    return size < FAULT_BYTES ? size : FAULT_BYTES;
}

#define FAULT_REAL(type, name, ...)  \
    type __real_##name(__VA_ARGS__); \
    type __wrap_##name(__VA_ARGS__); \
    type __wrap_##name(__VA_ARGS__)

/* What was read beyond is lost, as a packet's rest. */
FAULT_REAL(ssize_t, read, int fd, void *bytes, size_t size)
{
    ssize_t got;

    if (!fault_hits(READ, (unsigned long)fd))
        return __real_read(fd, bytes, size);
    if (fault.code != FAULT_SHORT)
        return -1;
    got = __real_read(fd, bytes, size);
    return got > 0 ? (ssize_t)fault_less((size_t)got) : got;
}

FAULT_REAL(ssize_t, write, int fd, const void *bytes, size_t size)
{
    if (!fault_hits(WRITE, (unsigned long)fd))
        return __real_write(fd, bytes, size);
    return fault.code == FAULT_SHORT ? (ssize_t)fault_less(size) : -1;
}

FAULT_REAL(int, eventfd_read, int fd, eventfd_t *value)
{
    return fault_hits(READ, (unsigned long)fd) ? -1 : __real_eventfd_read(fd, value);
}

FAULT_REAL(int, eventfd_write, int fd, eventfd_t value)
{
    return fault_hits(WRITE, (unsigned long)fd) ? -1 : __real_eventfd_write(fd, value);
}

FAULT_REAL(ssize_t, writev, int fd, const struct iovec *vectors, int count)
{
    if (!fault_hits(WRITEV, (unsigned long)fd))
        return __real_writev(fd, vectors, count);
    return fault.code == FAULT_SHORT ? FAULT_BYTES : -1;
}

FAULT_REAL(int, ioctl, int fd, unsigned long request, ...)
{
    va_list list;
    void *argument;

    va_start(list, request);
    argument = va_arg(list, void *);
    va_end(list);
    fault_argument = argument;
    if (fault_hits(IOCTL, request))
        return -1;
    return fault_pretended && _IOC_TYPE(request) == fault_pretended
               ? 0
               : __real_ioctl(fd, request, argument);
}

FAULT_REAL(ssize_t, getrandom, void *bytes, size_t size, unsigned flags)
{
    if (!fault_hits(GETRANDOM, 0))
        return __real_getrandom(bytes, size, flags);
    return fault.code == FAULT_SHORT ? __real_getrandom(bytes, fault_less(size), flags) : -1;
}

FAULT_REAL(int, madvise, void *start, size_t size, int advice)
{
    return fault_hits(MADVISE, (unsigned long)advice) ? -1 : __real_madvise(start, size, advice);
}

FAULT_REAL(void *, mmap, void *start, size_t size, int access, int flags, int fd, off_t offset)
{
    return fault_hits(MMAP, (unsigned long)flags)
               ? (void *)-1
               : __real_mmap(start, size, access, flags, fd, offset);
}

FAULT_REAL(int, fallocate, int fd, int mode, off_t offset, off_t size)
{
    return fault_hits(FALLOCATE, (unsigned long)fd) ? -1 : __real_fallocate(fd, mode, offset, size);
}

FAULT_REAL(int, epoll_ctl, int epoll_fd, int operation, int fd, struct epoll_event *event)
{
    return fault_hits(EPOLL_CTL, (unsigned long)operation)
               ? -1
               : __real_epoll_ctl(epoll_fd, operation, fd, event);
}

FAULT_REAL(ssize_t, recvmsg, int fd, struct msghdr *message, int flags)
{
    if (!fault_hits(RECVMSG, (unsigned long)fd))
        return __real_recvmsg(fd, message, flags);
    if (fault.code != FAULT_SHORT)
        return -1;
    message->msg_iovlen = 1;
    message->msg_iov[0].iov_len = fault_less(message->msg_iov[0].iov_len);
    return __real_recvmsg(fd, message, flags);
}

FAULT_REAL(ssize_t, sendmsg, int fd, const struct msghdr *message, int flags)
{
    struct iovec less;
    struct msghdr shorter = *message;

    if (!fault_hits(SENDMSG, (unsigned long)fd))
        return __real_sendmsg(fd, message, flags);
    if (fault.code != FAULT_SHORT)
        return -1;
    less = (struct iovec){ message->msg_iov[0].iov_base, fault_less(message->msg_iov[0].iov_len) };
    shorter.msg_iov = &less;
    shorter.msg_iovlen = 1;
    return __real_sendmsg(fd, &shorter, flags);
}

FAULT_REAL(int, accept4, int fd, struct sockaddr *address, socklen_t *size, int flags)
{
    return fault_hits(ACCEPT4, (unsigned long)fd) ? -1 : __real_accept4(fd, address, size, flags);
}

FAULT_REAL(int, getsockopt, int fd, int level, int option, void *value, socklen_t *size)
{
    return fault_hits(GETSOCKOPT, (unsigned long)option)
               ? -1
               : __real_getsockopt(fd, level, option, value, size);
}

FAULT_REAL(int, shutdown, int fd, int how)
{
    return fault_hits(SHUTDOWN, (unsigned long)how) ? -1 : __real_shutdown(fd, how);
}

FAULT_REAL(int, eventfd, unsigned value, int flags)
{
    return fault_hits(EVENTFD, 0) ? -1 : __real_eventfd(value, flags);
}

FAULT_REAL(int, fcntl, int fd, int what, ...)
{
    va_list list;
    long argument;

    va_start(list, what);
    argument = va_arg(list, long);
    va_end(list);
    return fault_hits(FCNTL, (unsigned long)what) ? -1 : __real_fcntl(fd, what, argument);
}

FAULT_REAL(off_t, lseek, int fd, off_t offset, int from)
{
    return fault_hits(LSEEK, (unsigned long)fd) ? -1 : __real_lseek(fd, offset, from);
}

FAULT_REAL(ssize_t, preadv, int fd, const struct iovec *vectors, int count, off_t offset)
{
    struct iovec less = { vectors->iov_base, fault_less(vectors->iov_len) };

    if (!fault_hits(PREADV, (unsigned long)fd))
        return __real_preadv(fd, vectors, count, offset);
    return fault.code == FAULT_SHORT ? __real_preadv(fd, &less, 1, offset) : -1;
}

FAULT_REAL(ssize_t, pwritev, int fd, const struct iovec *vectors, int count, off_t offset)
{
    struct iovec less = { vectors->iov_base, fault_less(vectors->iov_len) };

    if (!fault_hits(PWRITEV, (unsigned long)fd))
        return __real_pwritev(fd, vectors, count, offset);
    return fault.code == FAULT_SHORT ? __real_pwritev(fd, &less, 1, offset) : -1;
}

FAULT_REAL(int, fdatasync, int fd)
{
    return fault_hits(FDATASYNC, (unsigned long)fd) ? -1 : __real_fdatasync(fd);
}

FAULT_REAL(void *, mremap, void *start, size_t size, size_t new_size, int flags, void *to)
{
    return fault_hits(MREMAP, (unsigned long)flags)
               ? MAP_FAILED
               : __real_mremap(start, size, new_size, flags, to);
}

FAULT_REAL(int, munmap, void *start, size_t size)
{
    return fault_hits(MUNMAP, 0) ? -1 : __real_munmap(start, size);
}

FAULT_REAL(void *, malloc, size_t size)
{
    return fault_hits(ALLOCATE, 0) ? NULL : __real_malloc(size);
}

FAULT_REAL(void *, calloc, size_t count, size_t size)
{
    return fault_hits(ALLOCATE, 0) ? NULL : __real_calloc(count, size);
}

FAULT_REAL(void *, realloc, void *old, size_t size)
{
    return fault_hits(ALLOCATE, 0) ? NULL : __real_realloc(old, size);
}
