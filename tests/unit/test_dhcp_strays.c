/* test_dhcp_strays.c - dnsmasqs of an earlier agent are ended, whatever they had come to.  The
 * processes are real; what they run is a shell with dnsmasq's arguments.  Needs root. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "net/dhcp.h"

#define USER 931777

struct fixture {
    char dir[64];
    char argument[128];
    struct dhcp_options options;
    struct error err;
    pid_t pid;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    *state = f;
    if (!f)
        return -1;
    strcpy(f->dir, "/tmp/warren-strays-XXXXXX");
    if (!mkdtemp(f->dir))
        return -1;
    snprintf(f->argument, sizeof f->argument, "--dhcp-leasefile=%s/1f/leases", f->dir);
    f->options = (struct dhcp_options){
        .prefix = "uds",
        .net_dir = f->dir,
        .uid = USER,
        .gid = USER,
        .net_dir_fd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC),
    };
    return f->options.net_dir_fd < 0 ? -1 : 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    if (f->pid > 0) {
        kill(f->pid, SIGKILL);
        waitpid(f->pid, NULL, 0);
    }
    close(f->options.net_dir_fd);
    rmdir(f->dir);
    free(f);
    return 0;
}

/* As net/dhcp.c starts it, but that exec comes after a while.  Returns when it has the lock. */
static void start(struct fixture *f, const char *argument, int exec_after_ms)
{
    int lock = openat(f->options.net_dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    assert_true(lock >= 0);
    assert_int_equal(flock(lock, LOCK_SH | LOCK_NB), 0);
    f->pid = fork();
    if (f->pid == 0) {
        dup2(lock, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        usleep((unsigned)exec_after_ms * 1000);
        if (setresuid(USER, USER, USER) == 0)
            execl("/bin/sh", "sh", "-c", "kill -STOP $$", "dnsmasq", argument, NULL);
        _exit(1);
    }
    close(lock);
}

static void await_exec(const struct fixture *f)
{
    int status;

    assert_int_equal(waitpid(f->pid, &status, WUNTRACED), f->pid);
    assert_true(WIFSTOPPED(status));
}

static bool has_ended(struct fixture *f)
{
    if (waitpid(f->pid, NULL, WNOHANG) == 0)
        return false;
    f->pid = 0; /* reaped, here or by who killed it */
    return true;
}

static void one_that_runs_is_ended(void **state)
{
    struct fixture *f = *state;

    if (geteuid() != 0)
        skip();
    start(f, f->argument, 0);
    await_exec(f);
    assert_int_equal(dhcp_remove_all(&f->options, &f->err), 0);
    assert_true(has_ended(f));
}

/* Its agent was killed between clone and exec: it has no name yet. */
static void one_that_is_about_to_run_is_ended(void **state)
{
    struct fixture *f = *state;

    if (geteuid() != 0)
        skip();
    start(f, f->argument, 200);
    assert_int_equal(dhcp_remove_all(&f->options, &f->err), 0);
    assert_true(has_ended(f));
}

/* Who waits for the end of a process comes by here: at the first time both are to end by
 * themselves. */
static pid_t together[2];
static bool ended_together;

static bool ends(pid_t pid)
{
    siginfo_t info = { 0 };

    for (int i = 0; i < 1000 && info.si_pid == 0; i++) {
        if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0)
            return errno == ECHILD;
        usleep(10000);
    }
    return info.si_pid == pid;
}

int __real_poll(struct pollfd *fds, nfds_t count, int timeout_ms);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout_ms);

int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
    if (together[0]) {
        ended_together = ends(together[0]) && ends(together[1]);
        together[0] = 0;
    }
    return __real_poll(fds, count, timeout_ms);
}

static void many_end_beside_each_other(void **state)
{
    struct fixture *f = *state;
    pid_t first;

    if (geteuid() != 0)
        skip();
    start(f, f->argument, 0);
    await_exec(f);
    first = f->pid;
    start(f, f->argument, 0);
    await_exec(f);
    together[0] = first;
    together[1] = f->pid;
    assert_int_equal(dhcp_remove_all(&f->options, &f->err), 0);
    assert_int_equal(together[0], 0);
    assert_true(ended_together);
    assert_true(has_ended(f));
    assert_int_equal(waitpid(first, NULL, WNOHANG), -1); /* it was reaped */
}

static void those_of_others_go_on(void **state)
{
    struct fixture *f = *state;
    char other[sizeof f->argument + 8];

    if (geteuid() != 0)
        skip();
    snprintf(other, sizeof other, "--dhcp-leasefile=%s-b/1f/leases", f->dir);
    start(f, other, 0);
    await_exec(f);
    /* It has no share of their lock, but in this test of ours: that we do not get it is told. */
    assert_int_equal(dhcp_remove_all(&f->options, &f->err), -EBUSY);
    assert_false(has_ended(f));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_that_runs_is_ended),
        TEST(one_that_is_about_to_run_is_ended),
        TEST(many_end_beside_each_other),
        TEST(those_of_others_go_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
