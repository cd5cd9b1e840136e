/* test_notify.c - what systemd, here a socket, is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "agent/notify.h"
#include "base/loop.h"

struct fixture {
    struct loop *loop;
    int systemd;
};

/* In the abstract namespace: nothing to remove. */
static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int length;
    char name[64];

    *state = f;
    if (!f || loop_new(&f->loop, NULL) < 0)
        return -1;
    length = snprintf(name, sizeof name, "@warren-notify-%d", (int)getpid());
    memcpy(address.sun_path + 1, name + 1, (size_t)length - 1);
    f->systemd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    setenv("NOTIFY_SOCKET", name, 1);
    return bind(f->systemd, (struct sockaddr *)&address,
                (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)length));
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
    loop_free(f->loop);
    close(f->systemd);
    free(f);
    return 0;
}

static void hears(const struct fixture *f, const char *what)
{
    char text[64];
    ssize_t got = recv(f->systemd, text, sizeof text - 1, 0);

    if (!what) {
        assert_true(got < 0 && errno == EAGAIN);
        return;
    }
    assert_true(got > 0);
    text[got] = '\0';
    assert_string_equal(text, what);
}

static void set_watchdog(const char *usec, int pid)
{
    char text[16];

    snprintf(text, sizeof text, "%d", pid);
    setenv("WATCHDOG_USEC", usec, 1);
    setenv("WATCHDOG_PID", text, 1);
}

static void the_start_and_the_end_are_told(void **state)
{
    struct fixture *f = *state;

    notify_ready(f->loop);
    hears(f, "READY=1");
    notify_stopping();
    hears(f, "STOPPING=1");
    assert_int_equal(loop_turn(f->loop, 20, NULL), 0);
    hears(f, NULL);
}

static void signs_of_life_are_given_while_the_loop_turns(void **state)
{
    struct fixture *f = *state;

    set_watchdog("4000", getpid());
    notify_ready(f->loop);
    hears(f, "READY=1");
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(loop_turn(f->loop, -1, NULL), 0);
        hears(f, "WATCHDOG=1");
    }
}

static void the_watchdog_of_another_is_none(void **state)
{
    struct fixture *f = *state;

    set_watchdog("4000", getpid() + 1);
    notify_ready(f->loop);
    hears(f, "READY=1");
    assert_int_equal(loop_turn(f->loop, 20, NULL), 0);
    hears(f, NULL);
}

static void nonsense_is_ignored(void **state)
{
    static const char *const sockets[] = { "", "@", "relative", "/nowhere/there" };
    struct fixture *f = *state;
    char longest[200];

    for (size_t i = 0; i < sizeof sockets / sizeof sockets[0]; i++) {
        setenv("NOTIFY_SOCKET", sockets[i], 1);
        notify_stopping();
    }
    memset(longest, '@', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    setenv("NOTIFY_SOCKET", longest, 1);
    set_watchdog("-5 minutes", getpid());
    notify_ready(f->loop);
    unsetenv("NOTIFY_SOCKET");
    notify_ready(f->loop);
    assert_int_equal(loop_turn(f->loop, 20, NULL), 0);
    hears(f, NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_start_and_the_end_are_told),
        TEST(signs_of_life_are_given_while_the_loop_turns),
        TEST(the_watchdog_of_another_is_none),
        TEST(nonsense_is_ignored),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
