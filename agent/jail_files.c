#include "agent/jail_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/directory.h"
#include "base/error.h"
#include "base/path.h"
#include "storage/instance_name.h"
#include "vmm/stats_page.h"

#define LOCK_TRIES 200 /* of 10 ms */

int jail_make_dir(int dir_fd, const char *name, mode_t mode, int *ret_fd, struct error *err)
{
    int fd;

    if (mkdirat(dir_fd, name, mode) < 0 && errno != EEXIST)
        return error_set(err, errno, "create directory %s: %s", name, strerror(errno));
    fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return error_set(err, errno, "open directory %s: %s", name, strerror(errno));
    *ret_fd = fd;
    return 0;
}

/* A child of a killed agent may hold the lock until its exec. */
int jail_lock_dir(int fd, const char *setting, const char *value, struct error *err)
{
    for (int tries = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; tries++) {
        if (errno != EWOULDBLOCK || tries == LOCK_TRIES)
            return error_field(err, errno, setting,
                               "%s %s is used by another warrend: stop that one, or give another",
                               setting, value);
        usleep(10000);
    }
    return 0;
}

int jail_open_file(int dir_fd, const char *name)
{
    return path_open_regular(dir_fd, name, O_RDONLY, name, NULL);
}

int jail_create_file(int dir_fd, const char *name, int flags)
{
    int fd;

    if (unlinkat(dir_fd, name, 0) < 0 && errno != ENOENT)
        return -errno;
    fd = openat(dir_fd, name, flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    return fd < 0 ? -errno : fd;
}

int jail_write_text(int dir_fd, const char *name, const char *text)
{
    auto_close int fd = openat(dir_fd, name, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

int jail_read_open_page(int fd, struct stats_page *ret_page)
{
    struct stats_page page;
    bool read = pread(fd, &page, sizeof page, 0) == sizeof page;

    *ret_page = (struct stats_page){ 0 };
    if (!read || ((page.magic ^ STATS_PAGE_MAGIC) & 0xffffff) != 0) /* but for the digit */
        return -EINVAL;
    memcpy(ret_page, &page, page.magic == STATS_PAGE_MAGIC ? sizeof page : STATS_HEAD_BYTES);
    ret_page->exit_text[sizeof ret_page->exit_text - 1] = '\0';
    return page.magic != STATS_PAGE_MAGIC;
}

struct numbers {
    uint32_t **items;
    size_t *count;
};

static int add_number(void *context, int dir_fd, const char *name)
{
    struct numbers *numbers = context;
    uint32_t *grown, number;

    (void)dir_fd;
    if (instance_name_parse(name, "", &number) < 0 || number == 0)
        return 0;
    for (size_t i = 0; i < *numbers->count; i++)
        if ((*numbers->items)[i] == number)
            return 0;
    grown = realloc(*numbers->items, (*numbers->count + 1) * sizeof *grown);
    if (!grown)
        return -ENOMEM;
    grown[(*numbers->count)++] = number;
    *numbers->items = grown;
    return 0;
}

int jail_list_numbers(int dir_fd, uint32_t **instances, size_t *count, struct error *err)
{
    struct numbers numbers = { instances, count };
    int result = directory_each(dir_fd, ".", add_number, &numbers);

    return result < 0 ? error_set(err, result, "list a directory: %s", strerror(-result)) : 0;
}
