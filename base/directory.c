/* directory.c - see directory.h. */
#include "base/directory.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "base/cleanup.h"

int directory_each(int at_fd, const char *name,
                   int (*each)(void *context, int dir_fd, const char *name), void *context)
{
    auto_close int fd = openat(at_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;
    int result = 0;

    if (!dir)
        return -errno;
    (void)take_fd(&fd); /* the DIR's now */
    while (result == 0) {
        errno = 0;
        entry = readdir(dir);
        if (!entry) {
            result = -errno; /* 0 = that was all */
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            result = each(context, dirfd(dir), entry->d_name);
    }
    closedir(dir);
    return result;
}

static int unlink_entry(void *context, int dir_fd, const char *name)
{
    (void)context;
    return unlinkat(dir_fd, name, 0) < 0 ? -errno : 0;
}

int directory_remove(int at_fd, const char *name)
{
    int result = directory_each(at_fd, name, unlink_entry, NULL);

    if (result == 0 && unlinkat(at_fd, name, AT_REMOVEDIR) < 0)
        result = -errno;
    return result == -ENOENT ? 0 : result;
}

int directory_unlink(int dir_fd, const char *name)
{
    return unlinkat(dir_fd, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}
