/* dhcp_strays.c - dhcp_remove_all: what an agent before us left running.
 *
 * A dnsmasq is recognised by its own command line, which names its lease file, and by its user:
 * that holds even if the agent died between starting it and writing anything down.  Its pidfd is
 * opened before the command line is read, so what is killed is what was looked at.
 *
 * Between clone and exec, and for a moment within exec, it can be recognised by neither.  But from
 * its beginning it shares the net directory's lock: while somebody has that, we look again. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/directory.h"
#include "base/error.h"
#include "base/process.h"
#include "net/dhcp.h"
#include "net/dhcp_directory.h"

#define KILL_MS    2000
#define PAUSE_MS   5
#define STRAYS_MAX NETWORK_LIMIT /* more are waited for one after the other */

/* "--dhcp-leasefile=<net dir>/<hex>/leases" among the NUL-separated arguments. */
static bool names_our_lease_file(const char *arguments, size_t size, const char *net_dir)
{
    char wanted[300];
    size_t length = (size_t)snprintf(wanted, sizeof wanted, "--dhcp-leasefile=%s/", net_dir);

    for (const char *at = arguments; at < arguments + size; at += strlen(at) + 1) {
        const char *rest = at + length;

        if (length >= sizeof wanted || strncmp(at, wanted, length) != 0)
            continue;
        rest += strspn(rest, "0123456789abcdef");
        if (strcmp(rest, "/leases") == 0)
            return true;
    }
    return false;
}

static bool is_ours(const char *pid, const struct dhcp_options *options)
{
    auto_close int fd = -1;
    char path[64];
    char arguments[8192];
    struct stat status;
    ssize_t got;

    snprintf(path, sizeof path, "/proc/%.20s/cmdline", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0 || status.st_uid != options->uid)
        return false;
    got = read(fd, arguments, sizeof arguments - 1);
    if (got <= 0)
        return false;
    arguments[got] = '\0';
    return names_our_lease_file(arguments, (size_t)got, options->net_dir);
}

struct strays {
    const struct dhcp_options *options;
    int pidfds[STRAYS_MAX]; /* owned */
    size_t count;
};

/* They end beside each other. */
static int kill_stray(void *context, int dir_fd, const char *pid)
{
    struct strays *strays = context;
    auto_close int pidfd = -1;

    (void)dir_fd;
    if (!isdigit((unsigned char)pid[0]) || !is_ours(pid, strays->options))
        return 0; /* nearly all of them: without a pidfd */
    pidfd = (int)syscall(SYS_pidfd_open, (pid_t)strtol(pid, NULL, 10), 0);
    if (pidfd < 0 || !is_ours(pid, strays->options))
        return 0;
    (void)process_kill(pidfd, SIGKILL);
    if (strays->count < STRAYS_MAX)
        strays->pidfds[strays->count++] = take_fd(&pidfd);
    else
        process_end(&pidfd);
    return 0;
}

static int kill_strays(const struct dhcp_options *options, struct error *err)
{
    struct strays strays = { .options = options };
    int result = directory_each(AT_FDCWD, "/proc", kill_stray, &strays);

    for (size_t i = 0; i < strays.count; i++)
        process_end(&strays.pidfds[i]);
    return result < 0 ? error_set(err, result, "look for dnsmasq processes: %s", strerror(-result))
                      : 0;
}

/* Has nobody a share of the lock? */
static bool is_alone(const struct dhcp_options *options)
{
    auto_close int fd = openat(options->net_dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
}

static int kill_all_strays(const struct dhcp_options *options, struct error *err)
{
    const struct timespec pause = { .tv_nsec = PAUSE_MS * 1000000 };
    int result = kill_strays(options, err);

    for (int waited = 0; result == 0 && !is_alone(options); waited += PAUSE_MS) {
        if (waited >= KILL_MS)
            return error_set(err, EBUSY,
                             "a process of an earlier agent that was to become "
                             "dnsmasq is still there");
        nanosleep(&pause, NULL);
        result = kill_strays(options, err);
    }
    return result;
}

static int remove_directory(void *context, int dir_fd, const char *name)
{
    char *end;
    unsigned long instance = strtoul(name, &end, 16);

    (void)context;
    if (*end == '\0' && end != name && instance <= UINT32_MAX)
        dhcp_directory_remove(dir_fd, (uint32_t)instance);
    return 0;
}

int dhcp_remove_all(const struct dhcp_options *options, struct error *err)
{
    int result = kill_all_strays(options, err);

    if (result < 0)
        return result;
    result = directory_each(options->net_dir_fd, ".", remove_directory, NULL);
    return result < 0 ? error_set(err, result, "read the run directory: %s", strerror(-result)) : 0;
}
