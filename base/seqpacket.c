#include "base/seqpacket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"

/* /proc/self/fd/N/name keeps any directory within sun_path's 107 characters. */
static int new_socket(int dir_fd, const char *name, struct sockaddr_un *ret_address,
                      struct error *err)
{
    int length, fd;

    *ret_address = (struct sockaddr_un){ .sun_family = AF_UNIX };
    length = snprintf(ret_address->sun_path, sizeof ret_address->sun_path, "/proc/self/fd/%d/%s",
                      dir_fd, name);
    if (length < 0 || (size_t)length >= sizeof ret_address->sun_path)
        return error_set(err, ENAMETOOLONG, "socket name %s", name);
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd < 0 ? error_set(err, errno, "create socket %s", name) : fd;
}

int seqpacket_listen(int dir_fd, const char *name, struct error *err)
{
    struct sockaddr_un address;
    auto_close int fd = new_socket(dir_fd, name, &address, err);

    if (fd < 0)
        return fd;
    unlinkat(dir_fd, name, 0);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return error_set(err, errno, "bind socket %s: %s", name, strerror(errno));
    if (listen(fd, 16) < 0)
        return error_set(err, errno, "listen on socket %s: %s", name, strerror(errno));
    return take_fd(&fd);
}

int seqpacket_connect(int dir_fd, const char *name, struct error *err)
{
    struct sockaddr_un address;
    auto_close int fd = new_socket(dir_fd, name, &address, err);

    if (fd < 0)
        return fd;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return error_set(err, errno, "connect to socket %s: %s", name, strerror(errno));
    return take_fd(&fd);
}

int seqpacket_pair(int ret_fds[2], struct error *err)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret_fds) < 0)
        return error_set(err, errno, "create a socket pair");
    return 0;
}

int seqpacket_send(int fd, const void *message, size_t size, const int *fds, size_t fd_count,
                   struct error *err)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(SEQPACKET_FDS_MAX * sizeof(int))];
    } control = { 0 };
    struct iovec part = { .iov_base = (void *)message, .iov_len = size };
    struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1 };
    ssize_t sent;

    if (fd_count > SEQPACKET_FDS_MAX)
        return error_set(err, EMSGSIZE, "send %zu fds", fd_count);
    if (fd_count > 0) {
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        control.align.cmsg_level = SOL_SOCKET;
        control.align.cmsg_type = SCM_RIGHTS;
        control.align.cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(&control.align), fds, fd_count * sizeof(int));
    }
    do
        sent = sendmsg(fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    if (sent < 0)
        return error_set(err, errno, "send a message: %s", strerror(errno));
    return 0;
}

/* Moves the fds of a received message into ret_fds; false if there are more than fit. */
static bool collect_fds(struct msghdr *header, int *ret_fds, size_t room, size_t *ret_count)
{
    bool fits = !(header->msg_flags & MSG_CTRUNC);
    size_t count = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
        size_t number;

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        number = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < number; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
            if (count < room) {
                ret_fds[count++] = fd;
            } else {
                close(fd);
                fits = false;
            }
        }
    }
    *ret_count = count;
    return fits;
}

ssize_t seqpacket_receive(int fd, void *message, size_t size, int *ret_fds, size_t *fd_count,
                          struct error *err)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(SEQPACKET_FDS_MAX * sizeof(int))];
    } control;
    struct iovec part = { .iov_base = message, .iov_len = size };
    struct msghdr header = { .msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes };
    size_t room = ret_fds ? *fd_count : 0;
    size_t count = 0;
    ssize_t got;
    bool fits;

    do
        got = recvmsg(fd, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return error_set(err, errno, "receive a message");
    fits = collect_fds(&header, ret_fds, room, &count);
    if ((header.msg_flags & MSG_TRUNC) || (!fits && ret_fds)) {
        while (ret_fds && count > 0)
            close(ret_fds[--count]);
        if (!(header.msg_flags & MSG_TRUNC) && (header.msg_flags & MSG_CTRUNC))
            return error_set(err, EMFILE, "no room for the fds of a message");
        return error_set(err, EMSGSIZE, "a message is longer, or has more fds, than agreed");
    }
    if (fd_count)
        *fd_count = count;
    return got;
}

int sealed_memfd(const void *bytes, size_t size, struct error *err)
{
    auto_close int fd = memfd_create("body", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0)
        return error_set(err, errno, "create a memfd");
    for (size_t done = 0; done < size;) {
        ssize_t n = pwrite(fd, (const char *)bytes + done, size - done, (off_t)done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_set(err, n < 0 ? errno : EIO, "fill a memfd");
        done += (size_t)n;
    }
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
        return error_set(err, errno, "seal a memfd");
    return take_fd(&fd);
}

int sealed_memfd_read(int fd, size_t max, char **ret_bytes, size_t *ret_size, struct error *err)
{
    auto_free char *bytes = NULL;
    int seals = fcntl(fd, F_GET_SEALS);
    struct stat stat;

    if (seals < 0 || (seals & (F_SEAL_SHRINK | F_SEAL_WRITE)) != (F_SEAL_SHRINK | F_SEAL_WRITE))
        return error_set(err, EPERM, "a body's memfd is not sealed");
    if (fstat(fd, &stat) < 0)
        return error_set(err, errno, "size of a memfd");
    if (stat.st_size < 0 || (uint64_t)stat.st_size > max)
        return error_set(err, EMSGSIZE, "a body of %lld bytes is more than %zu",
                         (long long)stat.st_size, max);
    bytes = malloc((size_t)stat.st_size + 1);
    if (!bytes)
        return error_set(err, ENOMEM, "read a body");
    for (off_t done = 0; done < stat.st_size;) {
        ssize_t n = pread(fd, bytes + done, (size_t)(stat.st_size - done), done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_set(err, n < 0 ? errno : EIO, "read a body");
        done += n;
    }
    bytes[stat.st_size] = '\0';
    *ret_size = (size_t)stat.st_size;
    *ret_bytes = take_pointer(bytes);
    return 0;
}
