#include "base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/path.h"

#define END_MS 2000 /* from SIGKILL on: longer only where the kernel is stuck */

/* What a child that could not exec says before it ends. */
struct spawn_failure {
    int code;
    char step[60];
};

static void fail(int report_fd, int code, const char *step)
{
    struct spawn_failure failure = { .code = code };

    strncpy(failure.step, step, sizeof failure.step - 1);
    if (write(report_fd, &failure, sizeof failure) < 0) {
        /* the parent sees the exit status */
    }
    _exit(127);
}

/* fds[i] -> i.  First all out of the way, above the targets, then down; those that are ours until
 * exec keep close-on-exec.  Nothing else is left open: fds >= count get close-on-exec. */
static void place_fds(const struct process_spec *spec, int *exec_fd, int *root_fd, int *report_fd)
{
    int moved[PROCESS_FDS_MAX];
    int floor = (int)spec->fd_count;
    int raised = fcntl(*report_fd, F_DUPFD_CLOEXEC, floor);

    if (raised < 0)
        fail(*report_fd, errno, "place fds");
    *report_fd = raised;
    *exec_fd = fcntl(*exec_fd, F_DUPFD_CLOEXEC, floor);
    if (*root_fd > 0)
        *root_fd = fcntl(*root_fd, F_DUPFD_CLOEXEC, floor);
    if (*exec_fd < 0 || *root_fd < 0)
        fail(*report_fd, errno, "place the fds of program and root");
    for (size_t i = 0; i < spec->fd_count; i++) {
        if (spec->fds[i] < 0)
            moved[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
        else
            moved[i] = spec->fds[i];
        if (moved[i] >= 0)
            moved[i] = fcntl(moved[i], F_DUPFD_CLOEXEC, floor);
        if (moved[i] < 0)
            fail(*report_fd, errno, "place fds");
    }
    for (size_t i = 0; i < spec->fd_count; i++)
        if (dup2(moved[i], (int)i) < 0)
            fail(*report_fd, errno, "place fds");
    if (syscall(SYS_close_range, floor, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
        fail(*report_fd, errno, "close_range");
}

/* CLONE_CLEAR_SIGHAND resets handlers; what we ignore, or whoever started us did, stays ignored but
 * for this.  By the kernel's call, because the C library keeps two signals to itself, and ignores
 * them in what its own posix_spawn starts. */
static void reset_signals(void)
{
    const uint64_t by_default[4] = { 0 }; /* its struct sigaction: SIG_DFL, no flags, no mask */
    sigset_t none;

    for (int number = 1; number < _NSIG; number++)
        (void)syscall(SYS_rt_sigaction, number, by_default, NULL, sizeof(uint64_t));
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Nobody reads the report any more: whoever started us was killed, and knows nothing of us. */
static bool parent_is_gone(int report_fd)
{
    struct pollfd report = { .fd = report_fd };

    return poll(&report, 1, 0) > 0 && (report.revents & POLLERR);
}

/* Between clone3 and exec: system calls only, other threads' locks may be held. */
static void run_child(const struct process_spec *spec, int report_read, int report_fd)
{
    static const char *const no_environment[] = { NULL };
    const char *const *envp = spec->envp ? spec->envp : no_environment;
    struct sandbox_spec sandbox = spec->sandbox ? *spec->sandbox : (struct sandbox_spec){ 0 };
    int exec_fd = spec->exec_fd;
    const char *step = "";
    int result;

    close(report_read);
    reset_signals();
    if (spec->new_session)
        setsid();
    place_fds(spec, &exec_fd, &sandbox.root_namespace, &report_fd);
    if (spec->sandbox) {
        result = sandbox_enter(&sandbox, &step);
        if (result < 0)
            fail(report_fd, -result, step);
    }
    /* A successor of the agent recognises its processes by what they exec'ed. */
    if (parent_is_gone(report_fd))
        _exit(127);
    syscall(SYS_execveat, exec_fd, "", spec->argv, envp, AT_EMPTY_PATH);
    fail(report_fd, errno, "exec");
}

/* End of file means that exec closed the report fd. */
static int await_exec(const struct process_spec *spec, int report_fd, pid_t pid, struct error *err)
{
    struct spawn_failure failure;
    ssize_t got;
    int result = spec->meanwhile ? spec->meanwhile(spec->context, pid, err) : 0;

    if (result < 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        return result;
    }
    do
        got = read(report_fd, &failure, sizeof failure);
    while (got < 0 && errno == EINTR);
    if (got == 0)
        return 0;
    waitpid(pid, NULL, 0);
    if (got != sizeof failure)
        return error_set(err, EIO, "a new process ended before exec");
    failure.step[sizeof failure.step - 1] = '\0';
    return error_set(err, failure.code, "new process: %s: %s", failure.step,
                     strerror(failure.code));
}

int process_spawn(const struct process_spec *spec, pid_t *ret_pid, int *ret_pidfd,
                  struct error *err)
{
    auto_close int report_read = -1;
    auto_close int report_write = -1;
    auto_close int pidfd = -1;
    int report[2];
    struct clone_args args = {
        .flags = spec->clone_flags | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
        .pidfd = (uint64_t)(uintptr_t)&pidfd,
        .exit_signal = SIGCHLD,
    };
    long pid;
    int result;

    if (spec->fd_count < 3 || spec->fd_count > PROCESS_FDS_MAX)
        return error_set(err, EINVAL, "a process gets 3 to %d fds", PROCESS_FDS_MAX);
    if (pipe2(report, O_CLOEXEC) < 0)
        return error_set(err, errno, "create a pipe");
    report_read = report[0];
    report_write = report[1];
    if (spec->cgroup_fd >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)spec->cgroup_fd;
    }
    pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0)
        return error_set(err, errno, "clone3: %s", strerror(errno));
    if (pid == 0)
        run_child(spec, report_read, report_write);
    close(take_fd(&report_write));
    result = await_exec(spec, report_read, (pid_t)pid, err);
    if (result < 0)
        return result;
    *ret_pid = (pid_t)pid;
    *ret_pidfd = take_fd(&pidfd);
    return 0;
}

/* Field 22, counted behind the last ')': the name in field 2 may hold anything. */
static int read_start_ticks(pid_t pid, uint64_t *ret_ticks)
{
    char path[64];
    char text[1024];
    char *field;
    int result;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    result = path_read_text(AT_FDCWD, path, text, sizeof text);
    if (result < 0)
        return result;
    field = strrchr(text, ')');
    if (!field || field[1] != ' ')
        return -EIO;
    if (field[2] == 'Z' || field[2] == 'X')
        return -ESRCH; /* a zombie whose parent has not reaped it counts as gone */
    for (int number = 2; number < 22; number++) {
        field = strchr(field + 1, ' ');
        if (!field)
            return -EIO;
    }
    *ret_ticks = strtoull(field + 1, NULL, 10);
    return 0;
}

int process_identify(pid_t pid, struct process_identity *ret_identity, struct error *err)
{
    struct process_identity identity = { .pid = pid };
    char boot_id[64];
    int result = read_start_ticks(pid, &identity.start_ticks);

    if (result == -ENOENT)
        result = -ESRCH;
    if (result < 0)
        return error_set(err, result, "identify process %d", (int)pid);
    result = path_read_text(AT_FDCWD, "/proc/sys/kernel/random/boot_id", boot_id, sizeof boot_id);
    if (result < 0)
        return error_set(err, result, "read the boot id");
    memcpy(identity.boot_id, boot_id, sizeof identity.boot_id - 1);
    *ret_identity = identity;
    return 0;
}

int64_t process_age_ms(const struct process_identity *identity)
{
    struct timespec now;
    int64_t started_ms =
        (int64_t)(identity->start_ticks * 1000 / (uint64_t)sysconf(_SC_CLK_TCK)); /* proc(5) */
    int64_t age_ms;

    if (clock_gettime(CLOCK_BOOTTIME, &now) < 0)
        return 0;
    age_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000 - started_ms;
    return age_ms > 0 ? age_ms : 0;
}

int process_open(const struct process_identity *identity, struct error *err)
{
    struct process_identity now;
    auto_close int pidfd = -1;
    int result;

    if (identity->pid <= 0)
        return error_set(err, ESRCH, "no process");
    pidfd = (int)syscall(SYS_pidfd_open, identity->pid, 0);
    if (pidfd < 0)
        return error_set(err, errno, "open process %d", (int)identity->pid);
    /* Looked at after the pidfd was opened: what it names cannot change any more. */
    result = process_identify(identity->pid, &now, err);
    if (result < 0)
        return result;
    if (now.start_ticks != identity->start_ticks || strcmp(now.boot_id, identity->boot_id) != 0)
        return error_set(err, ESRCH, "process %d is another one now", (int)identity->pid);
    return take_fd(&pidfd);
}

int process_kill(int pidfd, int signal_number)
{
    if (syscall(SYS_pidfd_send_signal, pidfd, signal_number, NULL, 0) < 0 && errno != ESRCH)
        return -errno;
    return 0;
}

int process_reap(int pidfd, int *ret_status)
{
    siginfo_t info = { 0 };

    if (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG) < 0)
        return -errno;
    if (info.si_pid == 0)
        return -EAGAIN;
    *ret_status = info.si_code == CLD_EXITED ? info.si_status << 8 : info.si_status;
    return 0;
}

int process_await(int pidfd, int timeout_ms)
{
    struct pollfd ended = { .fd = pidfd, .events = POLLIN };
    int count;

    do
        count = poll(&ended, 1, timeout_ms);
    while (count < 0 && errno == EINTR);
    if (count < 0)
        return -errno;
    return count > 0 ? 0 : -ETIMEDOUT;
}

void process_end(int *pidfd)
{
    int status;

    if (*pidfd < 0)
        return;
    (void)process_kill(*pidfd, SIGKILL);
    (void)process_await(*pidfd, END_MS);
    (void)process_reap(*pidfd, &status);
    cleanup_close(pidfd);
}
