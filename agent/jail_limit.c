#include "agent/jail_limit.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/error.h"
#include "base/path.h"

#define LINE "Max file size"

/* By a limit that nothing here uses, up and down again. */
bool jail_limit_can_raise(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_MSGQUEUE, &limit) < 0 || limit.rlim_max == RLIM_INFINITY)
        return false;
    limit.rlim_max++;
    if (setrlimit(RLIMIT_MSGQUEUE, &limit) < 0)
        return false;
    limit.rlim_max--;
    (void)setrlimit(RLIMIT_MSGQUEUE, &limit);
    return true;
}

/* The hard one; 0 if it cannot be found.  prlimit would need the capability for a look, too. */
static uint64_t current_limit(pid_t pid)
{
    char path[40], text[2048];
    const char *line;
    uint64_t soft, hard;

    snprintf(path, sizeof path, "/proc/%d/limits", (int)pid);
    if (path_read_text(AT_FDCWD, path, text, sizeof text) < 0)
        return 0;
    line = strstr(text, LINE);
    if (line && sscanf(line + strlen(LINE), "%" SCNu64 " %" SCNu64, &soft, &hard) == 2)
        return hard < soft ? hard : soft;
    return line && strstr(line, "unlimited") ? UINT64_MAX : 0;
}

int jail_limit_raise(pid_t pid, uint64_t bytes, struct error *err)
{
    const struct rlimit limit = { .rlim_cur = bytes, .rlim_max = bytes };
    uint64_t current = current_limit(pid);

    if (current >= bytes || prlimit(pid, RLIMIT_FSIZE, &limit, NULL) == 0)
        return 0;
    return error_set(err, errno,
                     "its files may have %" PRIu64 " MiB, not %" PRIu64
                     " while it runs, for this agent lacks CAP_SYS_RESOURCE: stop and start the "
                     "VM: %s",
                     current >> 20, bytes >> 20, strerror(errno));
}
