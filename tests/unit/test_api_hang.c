/* test_api_hang.c - a warren-api that hangs is told from one that is slow, and from a slow machine.
 */
#include "tests/unit/api_harness.h"
#include "tests/unit/passing_time.h"

/* So many times so many seconds go by, and what is due is done, for at least 10 ms. */
static void let_pass(struct fixture *f, int times, int seconds)
{
    for (int i = 0; i < times; i++) {
        passed_s += seconds;
        for (int turns = 0; turns < 10; turns++) {
            assert_int_equal(loop_turn(f->loop, 1, NULL), 0);
            usleep(1000);
        }
    }
}

/* It is stopped: nothing of it runs, and its sockets stay.  Who waits in the backlog is not lost.
 */
static void a_hung_process_is_replaced(void **state)
{
    static const char wait[] = REQUEST("GET /v1/vms/a/wait?for=deleted&timeout=600", "");
    static const char get[] = REQUEST("GET /v1/vms/a", "");
    struct fixture *f = *state;
    auto_close int waiting = -1, queued = -1;
    pid_t old = api_pid();
    char byte;

    assert_int_equal(ask(f, REQUEST("PUT /v1/vms/a", JSON "Content-Length: 2\r\n") "{}"), 201);
    waiting = client_connect(f);
    client_send(f, waiting, wait, strlen(wait));
    await_outstanding(f, 1);
    assert_int_equal(kill(old, SIGSTOP), 0);
    queued = client_connect(f);
    client_send(f, queued, get, strlen(get));
    /* A busy machine starts the next one slowly: it is not to be taken for a hung one, too. */
    for (int i = 0; i < 1000 && recv(queued, &byte, 1, MSG_PEEK | MSG_DONTWAIT) != 1; i++)
        let_pass(f, 1, kill(old, 0) == 0 ? 5 : 0);
    client_receive(f, queued, false);
    assert_int_equal(answer_status(f), 200);
    assert_int_not_equal(api_pid(), old);
    assert_true(client_receive(f, waiting, true));
    assert_int_equal(f->answer_size, 0);
    assert_int_equal(ask(f, REQUEST("GET /metrics", "")), 200);
    assert_non_null(strstr(f->answer, "\nwarren_api_restarts_total 1\n"));
}

static void a_slow_process_is_left_alone(void **state)
{
    struct fixture *f = *state;
    pid_t old = api_pid();

    for (int i = 0; i < 7 * 20; i++) /* first, while it has nothing to do */
        let_pass(f, 1, i % 20 == 0 ? 5 : 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(kill(old, SIGSTOP), 0);
        let_pass(f, 4, 5);
        assert_int_equal(kill(old, SIGCONT), 0);
        assert_int_equal(ask(f, REQUEST("GET /healthz", "")), 200);
    }
    assert_int_equal(api_pid(), old);
}

/* As where the machine was suspended, or has no time for anybody. */
static void a_late_loop_ends_nobody(void **state)
{
    struct fixture *f = *state;
    pid_t old = api_pid();

    assert_int_equal(kill(old, SIGSTOP), 0);
    let_pass(f, 20, 60);
    assert_int_equal(kill(old, SIGCONT), 0);
    assert_int_equal(ask(f, REQUEST("GET /healthz", "")), 200);
    assert_int_equal(api_pid(), old);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_hung_process_is_replaced),
        CASE(a_slow_process_is_left_alone),
        CASE(a_late_loop_ends_nobody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
