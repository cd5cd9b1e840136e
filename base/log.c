#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void log_unblock(int fd)
{
    struct stat status;
    char path[32];
    int flags, own;

    if (fstat(fd, &status) < 0)
        return;
    if (S_ISSOCK(status.st_mode)) {
        flags = fcntl(fd, F_GETFL);
        (void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    } else if (S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode)) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        own = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (own >= 0) {
            (void)dup2(own, fd);
            close(own);
        }
    }
}

/* False if there was no room for all of it, as a terminal may have for a part; else there is
 * nowhere to report it. */
static bool put(const struct log *log, const char *line, size_t size)
{
    ssize_t written = write(log->fd, line, size);

    return written < 0 ? errno != EAGAIN : (size_t)written == size;
}

static void tell_losses(const struct log *log)
{
    unsigned long count = atomic_exchange(&log->losses->untold, 0);
    char line[128];
    int size;

    if (count == 0)
        return;
    size =
        snprintf(line, sizeof line, "<4>%s: lines lost before this, as nobody read the log: %lu\n",
                 log->name, count);
    if (!put(log, line, (size_t)size))
        atomic_fetch_add(&log->losses->untold, count);
}

void log_write(const struct log *log, enum log_level level, const char *format, ...)
{
    static const char priority[] = { [LOG_LEVEL_ERROR] = '3',
                                     [LOG_LEVEL_WARNING] = '4',
                                     [LOG_LEVEL_INFO] = '6',
                                     [LOG_LEVEL_DEBUG] = '7' };
    char line[1024];
    va_list args;
    int saved = errno;
    size_t used;

    if (!log || level > log->level)
        return;
    snprintf(line, sizeof line, "<%c>%s: ", priority[level], log->name);
    used = strlen(line);
    va_start(args, format);
    vsnprintf(line + used, sizeof line - used - 1, format, args);
    va_end(args);
    /* A guest's or client's text must not forge a second line. */
    for (char *c = line + used; *c; c++)
        if ((unsigned char)*c < ' ')
            *c = ' ';
    used = strlen(line);
    line[used++] = '\n';
    if (log->losses)
        tell_losses(log);
    if (!put(log, line, used) && log->losses) {
        atomic_fetch_add(&log->losses->total, 1);
        atomic_fetch_add(&log->losses->untold, 1);
    }
    errno = saved;
}
