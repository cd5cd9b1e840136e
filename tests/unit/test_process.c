/* test_process.c - real children: what they get, how they fail, and that they are recognised. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "base/process.h"

struct child {
    pid_t pid;
    int pidfd;
    int status;
    char output[4096];
    struct error err;
};

/* /bin/sh -c script, its output into child->output; ends and is reaped. */
static int run(const struct process_spec *more, const char *script, struct child *child)
{
    const char *const argv[] = { "sh", "-c", script, NULL };
    auto_close int shell = open("/bin/sh", O_RDONLY | O_CLOEXEC);
    int pipe_fds[2];
    size_t used = 0;
    ssize_t got;
    int result;

    *child = (struct child){ .pidfd = -1 };
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    int fds[] = { -1, pipe_fds[1], 2 };
    struct process_spec spec = *more;

    spec.exec_fd = shell;
    spec.argv = argv;
    spec.cgroup_fd = -1;
    if (!spec.fds) {
        spec.fds = fds;
        spec.fd_count = 3;
    }
    result = process_spawn(&spec, &child->pid, &child->pidfd, &child->err);
    close(pipe_fds[1]);
    while (result == 0 && used < sizeof child->output - 1 &&
           (got = read(pipe_fds[0], child->output + used, sizeof child->output - 1 - used)) > 0)
        used += (size_t)got;
    close(pipe_fds[0]);
    if (result == 0) {
        assert_int_equal(process_await(child->pidfd, 10000), 0);
        assert_int_equal(process_reap(child->pidfd, &child->status), 0);
        close(child->pidfd);
    }
    return result;
}

static void a_child_has_its_fds_and_no_others(void **state)
{
    struct process_spec spec = { 0 };
    struct child child;
    int leak = open("/etc/passwd", O_RDONLY); /* not close-on-exec */

    (void)state;
    assert_true(leak >= 0);
    /* No pipe in the script, and not ls as its end: the shell itself is looked at. */
    assert_int_equal(run(&spec, "readlink /proc/$$/fd/0; ls /proc/$$/fd; true", &child), 0);
    assert_int_equal(child.status, 0);
    assert_string_equal(child.output, "/dev/null\n0\n1\n2\n");
    close(leak);
}

/* The targets overlap the sources in every order. */
static void fds_are_placed_whatever_their_numbers(void **state)
{
    const char *const argv[] = {
        "sh", "-c", "for i in 0 1 2 3 4 5; do read -r line <&$i; echo \"$i$line\" >&6; done", NULL
    };
    int shell = open("/bin/sh", O_RDONLY | O_CLOEXEC);
    int report[2], files[6], fds[7], pidfd, status;
    char text[64] = "";
    pid_t pid;

    (void)state;
    assert_int_equal(pipe2(report, O_CLOEXEC), 0);
    for (int i = 0; i < 6; i++) {
        files[i] = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        dprintf(files[i], "%c\n", 'a' + i);
        lseek(files[i], 0, SEEK_SET);
    }
    for (int i = 0; i < 6; i++)
        fds[i] = files[5 - i]; /* fd 0 gets the highest, and so on */
    fds[6] = report[1];
    struct process_spec spec = {
        .exec_fd = shell, .argv = argv, .cgroup_fd = -1, .fds = fds, .fd_count = 7
    };

    assert_int_equal(process_spawn(&spec, &pid, &pidfd, NULL), 0);
    close(report[1]);
    process_await(pidfd, 10000);
    process_reap(pidfd, &status);
    assert_true(read(report[0], text, sizeof text - 1) > 0);
    assert_string_equal(text, "0f\n1e\n2d\n3c\n4b\n5a\n");
    for (int i = 0; i < 6; i++)
        close(files[i]);
    close(report[0]);
    close(pidfd);
    close(shell);
}

static void the_environment_is_empty_unless_given(void **state)
{
    static const char *const environment[] = { "COLOUR=red", NULL };
    struct process_spec spec = { 0 };
    struct child child;

    (void)state;
    setenv("SECRET", "1", 1);
    assert_int_equal(run(&spec, "cat /proc/$$/environ | tr '\\0' ' '", &child), 0);
    assert_null(strstr(child.output, "SECRET"));
    spec.envp = environment;
    assert_int_equal(run(&spec, "echo $COLOUR", &child), 0);
    assert_string_equal(child.output, "red\n");
}

static void signals_are_reset(void **state)
{
    struct process_spec spec = { 0 };
    struct child child;
    sigset_t set, old;

    (void)state;
    signal(SIGPIPE, SIG_IGN); /* what warrend ignores */
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGHUP, SIG_IGN); /* nohup does */
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, &old);
    assert_int_equal(run(&spec, "grep -E 'Sig(Blk|Ign)' /proc/self/status", &child), 0);
    sigprocmask(SIG_SETMASK, &old, NULL);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    assert_string_equal(child.output, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

static void exit_status_and_signal_are_told_apart(void **state)
{
    struct process_spec spec = { 0 };
    struct child child;

    (void)state;
    assert_int_equal(run(&spec, "exit 7", &child), 0);
    assert_true(WIFEXITED(child.status));
    assert_int_equal(WEXITSTATUS(child.status), 7);
    assert_int_equal(run(&spec, "kill -9 $$", &child), 0);
    assert_true(WIFSIGNALED(child.status));
    assert_int_equal(WTERMSIG(child.status), SIGKILL);
}

static void what_cannot_exec_is_an_error_that_says_so(void **state)
{
    const char *const argv[] = { "x", NULL };
    const int fds[] = { -1, -1, -1 };
    auto_close int no_program = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
    struct process_spec spec = {
        .exec_fd = no_program, .argv = argv, .cgroup_fd = -1, .fds = fds, .fd_count = 3
    };
    struct error err = { 0 };
    pid_t pid = 77;
    int pidfd = -77;

    (void)state;
    assert_int_equal(process_spawn(&spec, &pid, &pidfd, &err), -EACCES);
    assert_non_null(strstr(err.message, "exec"));
    assert_int_equal(pid, 77);
    assert_int_equal(pidfd, -77);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no zombie */
    spec.fd_count = 2;
    assert_int_equal(process_spawn(&spec, &pid, &pidfd, &err), -EINVAL);
}

static void a_failing_sandbox_step_is_named(void **state)
{
    struct sandbox_spec sandbox = { .root = "/nonexistent" };
    struct process_spec spec = { .sandbox = &sandbox, .clone_flags = CLONE_NEWNS };
    struct child child;

    (void)state;
    if (geteuid() != 0)
        skip();
    assert_int_equal(run(&spec, "true", &child), -ENOENT);
    assert_non_null(strstr(child.err.message, "root"));
}

static pid_t spawn_sleeper(int *ret_pidfd)
{
    const char *const argv[] = { "sleep", "100", NULL };
    const int fds[] = { -1, -1, -1 };
    auto_close int program = open("/bin/sleep", O_RDONLY | O_CLOEXEC);
    struct process_spec spec = {
        .exec_fd = program, .argv = argv, .cgroup_fd = -1, .fds = fds, .fd_count = 3
    };
    pid_t pid;

    assert_int_equal(process_spawn(&spec, &pid, ret_pidfd, NULL), 0);
    return pid;
}

static void a_process_is_recognised_and_another_is_not(void **state)
{
    uint64_t ticks = (uint64_t)sysconf(_SC_CLK_TCK);
    struct process_identity identity, wrong;
    int pidfd, again, status;
    pid_t pid = spawn_sleeper(&pidfd);

    (void)state;
    assert_int_equal(process_identify(pid, &identity, NULL), 0);
    assert_int_equal(identity.pid, pid);
    assert_int_equal(strlen(identity.boot_id), 36);
    assert_true(process_age_ms(&identity) >= 0);
    wrong = identity;
    wrong.start_ticks = 0; /* with the host, before which nothing was started */
    assert_true(process_age_ms(&wrong) >= (int64_t)(identity.start_ticks * 1000 / ticks));
    wrong.start_ticks = identity.start_ticks + 3600 * ticks;
    assert_int_equal(process_age_ms(&wrong), 0);
    again = process_open(&identity, NULL);
    assert_true(again >= 0);
    wrong = identity;
    wrong.start_ticks++;
    assert_int_equal(process_open(&wrong, NULL), -ESRCH);
    wrong = identity;
    wrong.boot_id[0] ^= 1;
    assert_int_equal(process_open(&wrong, NULL), -ESRCH);
    wrong = identity;
    wrong.pid = 0;
    assert_int_equal(process_open(&wrong, NULL), -ESRCH);
    assert_int_equal(process_await(pidfd, 0), -ETIMEDOUT);
    assert_int_equal(process_reap(pidfd, &status), -EAGAIN);
    assert_int_equal(process_kill(again, SIGKILL), 0);
    assert_int_equal(process_await(again, 10000), 0);
    /* A zombie that nobody has reaped counts as gone. */
    assert_int_equal(process_open(&identity, NULL), -ESRCH);
    assert_int_equal(process_reap(pidfd, &status), 0);
    assert_int_equal(process_kill(pidfd, SIGKILL), 0);
    assert_int_equal(process_reap(pidfd, &status), -ECHILD);
    close(again);
    close(pidfd);
}

static void an_end_leaves_neither_process_nor_zombie(void **state)
{
    int pidfd, none = -1;
    pid_t pid = spawn_sleeper(&pidfd);

    (void)state;
    process_end(&pidfd);
    assert_int_equal(pidfd, -1);
    assert_int_equal(waitpid(pid, NULL, 0), -1);
    assert_int_equal(errno, ECHILD);
    process_end(&none);
    assert_int_equal(none, -1);
}

/* The name in /proc/PID/stat may hold anything, also what looks like fields. */
static void a_hostile_name_does_not_confuse(void **state)
{
    struct process_identity identity;
    pid_t child;
    int status;

    (void)state;
    child = fork();
    if (child == 0) {
        FILE *comm = fopen("/proc/self/comm", "w");

        if (comm && fputs(") Z 1 2 3 4", comm) >= 0 && fclose(comm) == 0)
            raise(SIGSTOP);
        _exit(0);
    }
    waitpid(child, &status, WUNTRACED);
    assert_true(WIFSTOPPED(status));
    assert_int_equal(process_identify(child, &identity, NULL), 0);
    assert_true(identity.start_ticks > 0);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_child_has_its_fds_and_no_others),
        cmocka_unit_test(fds_are_placed_whatever_their_numbers),
        cmocka_unit_test(the_environment_is_empty_unless_given),
        cmocka_unit_test(signals_are_reset),
        cmocka_unit_test(exit_status_and_signal_are_told_apart),
        cmocka_unit_test(what_cannot_exec_is_an_error_that_says_so),
        cmocka_unit_test(a_failing_sandbox_step_is_named),
        cmocka_unit_test(a_process_is_recognised_and_another_is_not),
        cmocka_unit_test(an_end_leaves_neither_process_nor_zombie),
        cmocka_unit_test(a_hostile_name_does_not_confuse),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
