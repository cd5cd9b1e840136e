#include "storage/trash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/directory.h"
#include "base/error.h"

#define TRASH "trash" /* no number, so no sweep takes it for what it looks for */

static int remove_entry(void *context, int dir_fd, const char *name)
{
    int result = directory_unlink(dir_fd, name);

    (void)context;
    return result == -EISDIR ? directory_remove(dir_fd, name) : result;
}

int trash_move(int dir_fd, const char *name)
{
    auto_close int trash_fd = -1;

    if (mkdirat(dir_fd, TRASH, 0700) == 0 || errno == EEXIST)
        trash_fd = openat(dir_fd, TRASH, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    /* Something of that name may be in it still. */
    if (trash_fd >= 0 && renameat(dir_fd, name, trash_fd, name) == 0)
        return 0;
    return remove_entry(NULL, dir_fd, name);
}

int trash_empty(int dir_fd, struct error *err)
{
    int result = directory_each(dir_fd, TRASH, remove_entry, NULL);

    if (result == 0 && unlinkat(dir_fd, TRASH, AT_REMOVEDIR) < 0)
        result = -errno;
    return result < 0 && result != -ENOENT
               ? error_set(err, result, "empty the trash: %s", strerror(-result))
               : 0;
}
