/* test_server_filter.c - what a warren-api that was taken over could do to the others, which have
 * its user and are in the host's pid namespace with it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "api/server_filter.h"
#include "base/cleanup.h"
#include "base/sanitized.h"

static const struct {
    const char *name;
    long call;
    long arguments[3]; /* OTHER: a process that is not ours */
    int ends_by;       /* signal, or 0 */
} cases[] = {
#define OTHER (-1)
#define OWN   (-2)
    { "ends another", SYS_tgkill, { OTHER, OTHER, 0 }, SIGSYS },
    { "has it signalled", SYS_fcntl, { 0, F_SETOWN, OTHER }, SIGSYS },
    { "by a signal of its choice", SYS_fcntl, { 0, F_SETSIG, SIGKILL }, SIGSYS },
    { "ends another in short", SYS_kill, { OTHER, 0, 0 }, SIGSYS },
    { "ends itself", SYS_tgkill, { OWN, OWN, SIGABRT }, SIGABRT },
    { "copies a file", SYS_fcntl, { 0, F_DUPFD_CLOEXEC, 0 }, 0 },
    { "asks how a file is", SYS_fcntl, { 0, F_GETFL, 0 }, 0 },
};

static long argument_of(size_t which, size_t i, pid_t other)
{
    long value = cases[which].arguments[i];

    return value == OTHER ? other : value == OWN ? getpid() : value;
}

static void it_reaches_no_other_process(void **state)
{
    const pid_t other = getpid();
    int status;

    (void)state;
    if (SANITIZED)
        skip();
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        pid_t child = fork();

        if (child == 0) {
            signal(SIGABRT, SIG_DFL);
            if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || server_filter_load(NULL) < 0)
                _exit(1);
            _exit(syscall(cases[i].call, argument_of(i, 0, other), argument_of(i, 1, other),
                          argument_of(i, 2, other)) < 0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        if ((WIFSIGNALED(status) ? WTERMSIG(status) : 0) != cases[i].ends_by ||
            (cases[i].ends_by == 0 && status != 0))
            fail_msg("%s: %x", cases[i].name, (unsigned)status);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_reaches_no_other_process),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
