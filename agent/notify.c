#include "agent/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/loop.h"

/* Whoever listens may be gone or slow: what cannot be told is not told. */
static void tell(const char *what)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    size_t length = path ? strlen(path) : 0;
    auto_close int fd = -1;

    if (length < 2 || length >= sizeof address.sun_path || (path[0] != '/' && path[0] != '@'))
        return;
    memcpy(address.sun_path, path, length);
    if (path[0] == '@') /* the abstract namespace */
        address.sun_path[0] = '\0';
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0)
        (void)sendto(fd, what, strlen(what), MSG_NOSIGNAL, (struct sockaddr *)&address,
                     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length));
}

static void still_here(void *context)
{
    (void)context;
    tell("WATCHDOG=1");
}

/* Milliseconds between two signs of life: half of what systemd waits; 0 = it wants none of us. */
static int64_t watchdog_ms(void)
{
    const char *interval = getenv("WATCHDOG_USEC");
    const char *pid = getenv("WATCHDOG_PID");

    if (!interval || (pid && strtoll(pid, NULL, 10) != getpid()))
        return 0;
    return strtoll(interval, NULL, 10) / 2000;
}

void notify_ready(struct loop *loop)
{
    int64_t every = watchdog_ms();

    tell("READY=1");
    if (every > 0 && !loop_every(loop, every, still_here, NULL))
        still_here(NULL); /* memory is short: systemd starts us anew when the time is over */
}

void notify_stopping(void)
{
    tell("STOPPING=1");
}
