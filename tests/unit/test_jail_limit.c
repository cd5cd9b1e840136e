/* test_jail_limit.c - how large a process's files may become, as far as we may say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "agent/jail_limit.h"
#include "agent/vm_devices.h"
#include "base/error.h"

#define LIMIT (1u << 20)

static pid_t child_with(uint64_t bytes)
{
    const struct rlimit limit = { bytes, bytes };
    pid_t pid = fork();

    if (pid == 0) {
        while (pause() < 0)
            ;
        _exit(0);
    }
    assert_true(pid > 0);
    assert_int_equal(prlimit(pid, RLIMIT_FSIZE, &limit, NULL), 0);
    return pid;
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void what_is_large_enough_stays(void **state)
{
    struct error err = { 0 };
    struct rlimit limit;
    pid_t pid = child_with(LIMIT);

    (void)state;
    assert_int_equal(jail_limit_raise(pid, 1, &err), 0);
    assert_int_equal(jail_limit_raise(pid, LIMIT, &err), 0);
    assert_int_equal(prlimit(pid, RLIMIT_FSIZE, NULL, &limit), 0);
    assert_int_equal(limit.rlim_max, LIMIT);
    end(pid);
    pid = child_with(RLIM_INFINITY);
    assert_int_equal(jail_limit_raise(pid, 1ull << 46, &err), 0);
    end(pid);
}

static void it_is_raised_by_who_may(void **state)
{
    struct error err = { 0 };
    struct rlimit limit;
    pid_t pid = child_with(LIMIT);
    int result = jail_limit_raise(pid, 4 * LIMIT, &err);

    (void)state;
    assert_int_equal(prlimit(pid, RLIMIT_FSIZE, NULL, &limit), 0);
    end(pid);
    assert_int_equal(result, jail_limit_can_raise() ? 0 : -EPERM);
    assert_int_equal(limit.rlim_max, jail_limit_can_raise() ? 4 * LIMIT : LIMIT);
    assert_int_equal(limit.rlim_cur, limit.rlim_max);
    if (result < 0)
        assert_non_null(strstr(err.message, "may have 1 MiB, not 4"));
}

/* A volume has at most 64 TiB. */
static void why_not_fits_into_a_reason(void **state)
{
    struct error err = { 0 };
    pid_t pid = child_with(1ull << 45);
    int result = jail_limit_raise(pid, 1ull << 46, &err);

    (void)state;
    end(pid);
    if (result < 0)
        assert_true(strlen(err.message) < sizeof((struct vm_device *)NULL)->reason);
}

static void asking_changes_nothing(void **state)
{
    struct rlimit before, after;

    (void)state;
    getrlimit(RLIMIT_MSGQUEUE, &before);
    (void)jail_limit_can_raise();
    getrlimit(RLIMIT_MSGQUEUE, &after);
    assert_memory_equal(&before, &after, sizeof before);
}

static void a_process_that_is_gone_is_an_error(void **state)
{
    struct error err = { 0 };
    pid_t pid = child_with(LIMIT);

    (void)state;
    end(pid);
    assert_true(jail_limit_raise(pid, 1, &err) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_large_enough_stays),
        cmocka_unit_test(it_is_raised_by_who_may),
        cmocka_unit_test(why_not_fits_into_a_reason),
        cmocka_unit_test(asking_changes_nothing),
        cmocka_unit_test(a_process_that_is_gone_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
