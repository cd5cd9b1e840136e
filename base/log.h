/* log.h - one line per event to one fd, with a level and whose it is.  Any thread: a line is one
 * write(2).  Never blocks on a non-blocking fd: what does not fit is dropped.
 *
 *   struct log log = { .fd = 2, .level = LOG_LEVEL_INFO, .name = "warrend" };
 *   log_info(&log, "network %s up", id);      ->  "<6>warrend: network default up\n"
 *
 * The <N> prefix is the one systemd's journal and the kernel's ring understand. */
#pragma once
#include <stdatomic.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Lines for which there was no room. */
struct log_losses {
    atomic_ulong total;
    atomic_ulong untold; /* of them; the next line that there is room for says so first */
};

struct log {
    int fd;                    /* borrowed */
    enum log_level level;      /* lines above it are dropped */
    const char *name;          /* borrowed; process, or "vmm ID" */
    struct log_losses *losses; /* borrowed; NULL = they are not counted */
};

/* Makes `fd` non-blocking if somebody else decides when it is read.  A pipe or terminal, which
 * other processes may write to and want to wait for, is opened anew by that number; a socket is
 * one's own, as systemd makes it; a file never waits.  What cannot be is as it was. */
void log_unblock(int fd);

void log_write(const struct log *log, enum log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define log_error(log, ...)   log_write(log, LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(log, ...) log_write(log, LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(log, ...)    log_write(log, LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(log, ...)   log_write(log, LOG_LEVEL_DEBUG, __VA_ARGS__)
