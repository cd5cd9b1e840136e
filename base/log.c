#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

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
    if (write(log->fd, line, used) < 0) {
        /* nowhere to report it */
    }
    errno = saved;
}
