#include "net/sysctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"

#define FORWARD_SYSCTL "net/ipv4/ip_forward"
#define FORWARD_FILE   "ip_forward"

static int open_sysctl(const char *path, int flags)
{
    char full[192];

    snprintf(full, sizeof full, "/proc/sys/%s", path);
    return open(full, flags | O_CLOEXEC);
}

static int read_number(int fd, int *ret_value)
{
    char text[32];
    ssize_t got = read(fd, text, sizeof text - 1);

    if (got <= 0)
        return got < 0 ? -errno : -EIO;
    text[got] = '\0';
    *ret_value = (int)strtol(text, NULL, 10);
    return 0;
}

int sysctl_read(const char *path, int *ret_value, struct error *err)
{
    auto_close int fd = open_sysctl(path, O_RDONLY);
    int result = fd < 0 ? -errno : read_number(fd, ret_value);

    if (result < 0)
        return error_set(err, result, "read sysctl %s: %s", path, strerror(-result));
    return 0;
}

int sysctl_write(const char *path, int value, struct error *err)
{
    auto_close int fd = open_sysctl(path, O_WRONLY);

    if (fd < 0 || dprintf(fd, "%d\n", value) < 0)
        return error_set(err, errno, "set sysctl %s to %d: %s", path, value, strerror(errno));
    return 0;
}

static int remember(int dir_fd, int value, struct error *err)
{
    auto_close int fd =
        openat(dir_fd, FORWARD_FILE, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0 && errno == EEXIST)
        return 0; /* the first memory counts */
    if (fd < 0 || dprintf(fd, "%d\n", value) < 0)
        return error_set(err, errno, "remember ip_forward: %s", strerror(errno));
    return 0;
}

int forwarding_acquire(int dir_fd, struct error *err)
{
    int value = 0;
    int result = sysctl_read(FORWARD_SYSCTL, &value, err);

    if (result < 0 || value != 0)
        return result;
    result = remember(dir_fd, value, err);
    return result < 0 ? result : sysctl_write(FORWARD_SYSCTL, 1, err);
}

int forwarding_release(int dir_fd, struct error *err)
{
    auto_close int fd = openat(dir_fd, FORWARD_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    int before = 1;
    int result;

    if (fd < 0)
        return errno == ENOENT ? 0 : error_set(err, errno, "read what ip_forward was");
    if (read_number(fd, &before) == 0 && before == 0) {
        result = sysctl_write(FORWARD_SYSCTL, 0, err);
        if (result < 0)
            return result;
    }
    if (unlinkat(dir_fd, FORWARD_FILE, 0) < 0)
        return error_set(err, errno, "forget what ip_forward was");
    return 0;
}
