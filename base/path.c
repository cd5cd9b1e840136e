#include "base/path.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"

#define TRIES 1000

const char *path_below(const char *path, const char *dir)
{
    size_t length = strlen(dir);

    while (length > 0 && dir[length - 1] == '/')
        length--;
    if (strncmp(path, dir, length) != 0 || path[length] != '/')
        return NULL;
    path += length;
    while (*path == '/')
        path++;
    return *path ? path : NULL;
}

int path_open_regular(int dir_fd, const char *name, int flags, const char *what, struct error *err)
{
    auto_close int fd = openat(dir_fd, name, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat status;

    if (fd < 0 || fstat(fd, &status) < 0)
        return error_set(err, errno, "open %s: %s", what, strerror(errno));
    if (!S_ISREG(status.st_mode))
        return error_set(err, EINVAL, "open %s: it is not a regular file", what);
    /* It was there for FIFOs; io_uring would take it as "fail rather than wait for the disk". */
    if (fcntl(fd, F_SETFL, flags) < 0)
        return error_set(err, errno, "open %s: %s", what, strerror(errno));
    return take_fd(&fd);
}

int path_read_text(int dir_fd, const char *name, char *ret_text, size_t size)
{
    auto_close int fd = path_open_regular(dir_fd, name, O_RDONLY, name, NULL);
    ssize_t got;

    if (fd < 0)
        return fd;
    got = read(fd, ret_text, size - 1);
    if (got < 0)
        return -errno;
    ret_text[got] = '\0';
    return 0;
}

int path_open_below(const char *dir, const char *path, int flags)
{
    struct open_how how = {
        .flags = (unsigned)flags,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    auto_close int dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    long fd = -1;

    if (dir_fd < 0)
        return -errno;
    /* While anything on this host is renamed or mounted, ".." may be -EAGAIN: openat2(2). */
    for (unsigned tries = 0; tries < TRIES && fd < 0 && (tries == 0 || errno == EAGAIN); tries++)
        fd = syscall(SYS_openat2, dir_fd, path, &how, sizeof how);
    return fd < 0 ? -errno : (int)fd;
}
