/* test_api_service.c - HTTP through the real warren-api process, with a node in memory behind it.
 */
#include "api/server_linger.h"
#include "base/sanitized.h"
#include "tests/unit/api_harness.h"

static void requests_reach_the_node(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(ask(f, REQUEST("GET /healthz", "")), 200);
    assert_non_null(strstr(f->answer, "\r\n\r\nok\n"));
    assert_int_equal(ask(f, REQUEST("PUT /v1/vms/a", JSON "Content-Length: 2\r\n") "{}"), 201);
    assert_non_null(strstr(f->answer, "\r\nETag: \"1.00000000\"\r\n"));
    assert_non_null(strstr(f->answer, "\r\nLocation: /v1/vms/a\r\n"));
    assert_non_null(strstr(f->answer, "\r\nContent-Type: application/json\r\n"));
    assert_int_equal(ask(f, REQUEST("POST /v1/vms", "")), 405);
    assert_non_null(strstr(f->answer, "\r\nAllow: GET, HEAD\r\n"));
    assert_non_null(strstr(f->answer, "\r\nContent-Type: application/problem+json\r\n"));
    assert_int_equal(ask(f, "GET /healthz HTTP/1.0\r\n\r\n"), 200);
}

static void head_has_no_body(void **state)
{
    struct fixture *f = *state;
    auto_close int fd = client_connect(f);
    static const char bytes[] = REQUEST("HEAD /healthz", "Connection: close\r\n");

    client_send(f, fd, bytes, strlen(bytes));
    assert_true(client_receive(f, fd, true));
    assert_int_equal(answer_status(f), 200);
    assert_non_null(strstr(f->answer, "Content-Length: 3\r\n"));
    assert_string_equal(strstr(f->answer, "\r\n\r\n"), "\r\n\r\n");
}

static void a_connection_serves_many_requests(void **state)
{
    struct fixture *f = *state;
    auto_close int fd = client_connect(f);
    static const char bytes[] = REQUEST("PUT /v1/vms/a", JSON "Content-Length: 2\r\n") "{}";

    for (int i = 0; i < 20; i++) {
        client_send(f, fd, bytes, strlen(bytes));
        assert_false(client_receive(f, fd, false));
        assert_int_equal(answer_status(f), i == 0 ? 201 : 200);
    }
}

/* Each must be refused and the connection ended: nobody may disagree where the next one begins. */
static void doubtful_framing_is_refused_and_closed(void **state)
{
    static const struct {
        int status;
        const char *bytes;
    } cases[] = {
        { 411,
          REQUEST("PUT /v1/vms/a", JSON "Transfer-Encoding: chunked\r\n") "2\r\n{}\r\n0\r\n\r\n" },
        { 411, REQUEST("PUT /v1/vms/a",
                       JSON "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n") "{}" },
        { 400, REQUEST("PUT /v1/vms/a", JSON "Content-Length: 2\r\nContent-Length: 3\r\n") "{} " },
        { 400, REQUEST("PUT /v1/vms/a", JSON "Content-Length: 2\r\nContent-Length: 2\r\n") "{}" },
        { 400, REQUEST("PUT /v1/vms/a", JSON "Content-Length: +2\r\n") "{}" },
        { 400, REQUEST("PUT /v1/vms/a", JSON "Content-Length: -2\r\n") "{}" },
        { 400, REQUEST("PUT /v1/vms/a", JSON "Content-Length : 2\r\n") "{}" },
        { 400, REQUEST("GET /healthz", "Host: other\r\n") },
        { 400, "GET /healthz HTTP/1.1\r\n\r\n" },
        { 400, REQUEST("GET http://w/healthz", "") },
        { 413, REQUEST("PUT /v1/vms/a", JSON "Content-Length: 1048577\r\n") },
        { 413, REQUEST("PUT /v1/vms/a", JSON "Content-Length: 999999999999999\r\n") },
        { 415, REQUEST("PUT /v1/vms/a", JSON "Content-Encoding: gzip\r\nContent-Length: 2\r\n") },
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        auto_close int fd = client_connect(f);

        client_send(f, fd, cases[i].bytes, strlen(cases[i].bytes));
        assert_true(client_receive(f, fd, true));
        if (answer_status(f) != cases[i].status)
            fail_msg("case %zu: %d: %.100s", i, answer_status(f), f->answer);
        assert_int_equal(f->node->revision, 0);
    }
}

/* One that goes on sending behind its 413: is all of it taken? */
static bool all_is_taken(struct fixture *f, int fd)
{
    static const char head[] = REQUEST("PUT /v1/vms/a", JSON "Content-Length: 2097152\r\n");
    static const char part[65536];
    int left = 32, turns = 0;

    client_send(f, fd, head, strlen(head));
    assert_true(client_receive(f, fd, true));
    assert_int_equal(answer_status(f), 413);
    while (left > 0 && turns++ < TURNS) {
        ssize_t n = send(fd, part, sizeof(part), MSG_NOSIGNAL);

        if (n < 0 && errno != EAGAIN)
            return false;
        left -= n > 0;
        assert_int_equal(loop_turn(f->loop, n > 0 ? 0 : 1, NULL), 0);
    }
    return left == 0;
}

static void a_body_that_is_refused_is_taken_all_the_same(void **state)
{
    struct fixture *f = *state;
    int fds[SERVER_LINGER_MAX];
    int others = 0;
    bool again = false;

    for (size_t i = 0; i < ARRAY_LENGTH(fds); i++) {
        fds[i] = client_connect(f);
        assert_true(all_is_taken(f, fds[i]));
    }
    for (int i = 0; i < 3; i++) { /* as many as there may be; they end only after a while */
        auto_close int fd = client_connect(f);

        others += all_is_taken(f, fd);
    }
    for (size_t i = 0; i < ARRAY_LENGTH(fds); i++)
        close(fds[i]);
    for (int i = 0; !again && i < 100; i++) {
        auto_close int fd = client_connect(f);

        again = all_is_taken(f, fd);
    }
    assert_int_equal(others, 0);
    assert_true(again);
}

static void odd_paths_are_not_decoded(void **state)
{
    static const char *const targets[] = { "/v1/vms/a%00b", "/v1%2fvms", "/%68ealthz",
                                           "/v1/vms/%2e%2e/vms" };
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_LENGTH(targets); i++) {
        char bytes[128];

        snprintf(bytes, sizeof(bytes), "GET %s HTTP/1.1\r\nHost: w\r\n\r\n", targets[i]);
        assert_int_equal(ask(f, bytes), 400);
        assert_non_null(strstr(f->answer, "\"field\":\"path\""));
    }
    assert_int_equal(ask(f, REQUEST("GET /v1/vms/../vms", "")), 404);
    assert_int_equal(ask(f, REQUEST("GET //healthz", "")), 404);
}

static void headers_have_a_limit(void **state)
{
    struct fixture *f = *state;
    auto_free char *bytes = malloc(200000);
    size_t used = (size_t)sprintf(bytes, "GET /healthz HTTP/1.1\r\nHost: w\r\n");
    char *start = bytes + used;

    sprintf(start, "X: %0*d\r\n\r\n", 16000, 0);
    assert_int_equal(ask(f, bytes), 200);
    sprintf(start, "X: %0*d\r\n\r\n", 20000, 0);
    assert_int_equal(ask(f, bytes), 431);
    assert_non_null(strstr(f->answer, "problem+json"));
    sprintf(start, "X: %0*d\r\n\r\n", 150000, 0);
    assert_int_equal(ask(f, bytes), 431);
    sprintf(bytes, "GET /%0*d HTTP/1.1\r\nHost: w\r\n\r\n", 5000, 0);
    assert_int_equal(ask(f, bytes), 414);
    assert_non_null(strstr(f->answer, "problem+json"));
    assert_int_equal(ask(f, REQUEST("GET /healthz", "")), 200);
}

static void a_whole_mebibyte_is_taken(void **state)
{
    struct fixture *f = *state;
    size_t size = 1 << 20;
    auto_free char *bytes = malloc(size + 200);
    size_t used =
        (size_t)sprintf(bytes, REQUEST("PUT /v1/vms/a", JSON "Content-Length: 1048576\r\n"));
    auto_close int fd = client_connect(f);

    memset(bytes + used, ' ', size);
    memcpy(bytes + used, "{\"big\":1}", 9);
    client_send(f, fd, bytes, used + size);
    client_receive(f, fd, false);
    assert_int_equal(answer_status(f), 201);
}

static void a_large_answer_comes_whole(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(ask(f, REQUEST("PUT /v1/vms/a", JSON "Content-Length: 2\r\n") "{}"), 201);
    assert_int_equal(ask(f, REQUEST("GET /v1/vms/a/console?tail=1048576", "")), 200);
    assert_non_null(strstr(f->answer, "Content-Length: 1048576\r\n"));
    assert_int_equal(strlen(strstr(f->answer, "\r\n\r\n") + 4), 1048576);
}

/* Until the answer ends in `end`; NULL: until the node's end of the stream is closed. */
static void follow_until(struct fixture *f, int fd, const char *end)
{
    size_t used = 0;
    char byte;

    for (int turns = 0; turns < TURNS; turns++) {
        ssize_t n = recv(fd, f->answer + used, ANSWER_MAX - used, 0);

        used += n > 0 ? (size_t)n : 0;
        f->answer[used] = '\0';
        if (end && used >= strlen(end) && strcmp(f->answer + used - strlen(end), end) == 0)
            return;
        if (!end && f->node->followed > 0 && recv(f->node->followed, &byte, 1, 0) == 0)
            return;
        assert_int_equal(loop_turn(f->loop, 1, NULL), 0);
    }
    fail_msg("only this came: %.200s", f->answer);
}

static void a_console_is_followed(void **state)
{
    static const char bytes[] = REQUEST("GET /v1/vms/a/console?follow=1", "");
    struct fixture *f = *state;
    int fd;

    assert_int_equal(ask(f, REQUEST("PUT /v1/vms/a", JSON "Content-Length: 2\r\n") "{}"), 201);
    fd = client_connect(f);
    client_send(f, fd, bytes, strlen(bytes));
    follow_until(f, fd, "\r\n\r\n");
    assert_non_null(strstr(f->answer, "Transfer-Encoding: chunked\r\n"));
    assert_non_null(strstr(f->answer, "Content-Type: text/plain; charset=utf-8\r\n"));
    assert_int_equal(write(f->node->followed, "login: ", 7), 7);
    follow_until(f, fd, "7\r\nlogin: \r\n");
    assert_int_equal(ask(f, REQUEST("GET /healthz", "")), 200); /* beside it */
    shutdown(fd, SHUT_RDWR);
    follow_until(f, fd, NULL);
    close(fd);
}

/* Those that only wait are none. */
static void changes_under_way_have_a_limit(void **state)
{
    static const char stop[] = REQUEST("POST /v1/vms/a/stop?wait=600", "");
    struct fixture *f = *state;
    int waiting[3];

    assert_int_equal(ask(f, REQUEST("PUT /v1/vms/a", JSON "Content-Length: 2\r\n") "{}"), 201);
    for (int i = 0; i < 3; i++) {
        waiting[i] = client_connect(f);
        client_send(f, waiting[i], stop, strlen(stop));
        await_outstanding(f, i + 1);
    }
    assert_int_equal(ask(f, REQUEST("POST /v1/vms/a/kill", "")), 429);
    assert_non_null(strstr(f->answer, "\r\nRetry-After: 1\r\n"));
    assert_int_equal(ask(f, REQUEST("GET /v1/vms/a", "")), 200);
    close(waiting[0]);
    await_outstanding(f, 2);
    assert_int_equal(ask(f, REQUEST("POST /v1/vms/a/kill", "")), 202);
    close(waiting[1]);
    close(waiting[2]);
}

static void a_client_that_leaves_is_noticed(void **state)
{
    static const char bytes[] = REQUEST("GET /v1/vms/a/wait?for=deleted&timeout=600", "");
    struct fixture *f = *state;
    int fd;

    assert_int_equal(ask(f, REQUEST("PUT /v1/vms/a", JSON "Content-Length: 2\r\n") "{}"), 201);
    fd = client_connect(f);
    client_send(f, fd, bytes, strlen(bytes));
    await_outstanding(f, 1);
    assert_int_equal(f->node->outstanding, 1);
    close(fd);
    await_outstanding(f, 0);
    assert_int_equal(f->node->outstanding, 0);
    assert_int_equal(ask(f, REQUEST("GET /healthz", "")), 200);
}

/* Half-closing is not leaving: a client may say early that it has no further request. */
static void a_half_closed_client_gets_its_answer(void **state)
{
    static const char bytes[] = REQUEST("PUT /v1/vms/a", JSON "Content-Length: 2\r\n") "{}";
    struct fixture *f = *state;
    auto_close int fd = client_connect(f);

    client_send(f, fd, bytes, strlen(bytes));
    shutdown(fd, SHUT_WR);
    client_receive(f, fd, true);
    assert_int_equal(answer_status(f), 201);
}

static void a_killed_process_is_replaced(void **state)
{
    static const char bytes[] = REQUEST("GET /v1/vms/a/wait?for=deleted&timeout=600", "");
    struct fixture *f = *state;

    assert_int_equal(ask(f, REQUEST("PUT /v1/vms/a", JSON "Content-Length: 2\r\n") "{}"), 201);
    for (int i = 0; i < 3; i++) {
        auto_close int waiting = client_connect(f);

        client_send(f, waiting, bytes, strlen(bytes));
        await_outstanding(f, 1);
        assert_int_equal(kill(api_pid(), SIGKILL), 0);
        assert_true(client_receive(f, waiting, true));
        assert_int_equal(f->answer_size, 0);
        assert_int_equal(ask(f, REQUEST("GET /healthz", "")), 200);
        assert_int_equal(f->node->outstanding, 0);
    }
    assert_int_equal(ask(f, REQUEST("GET /metrics", "")), 200);
    assert_non_null(strstr(f->answer, "\nwarren_api_restarts_total 3\n"));
}

/* The linker puts it in the place of loop_after (Makefile). */
static bool no_timers;
struct loop_timer *__real_loop_after(struct loop *loop, int64_t ms, loop_fn *callback,
                                     void *context);
struct loop_timer *__wrap_loop_after(struct loop *loop, int64_t ms, loop_fn *callback,
                                     void *context);
struct loop_timer *__wrap_loop_after(struct loop *loop, int64_t ms, loop_fn *callback,
                                     void *context)
{
    return no_timers ? NULL : __real_loop_after(loop, ms, callback, context);
}

static void it_is_replaced_when_memory_is_short_too(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(ask(f, REQUEST("GET /healthz", "")), 200);
    no_timers = true;
    assert_int_equal(kill(api_pid(), SIGKILL), 0);
    assert_int_equal(ask(f, REQUEST("GET /healthz", "")), 200);
    no_timers = false;
}

static int fail_add_in; /* > 0: so many more additions until one fails */

/* In place of the C library's. */
/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name): theirs are reserved */
int epoll_ctl(int epoll_fd, int operation, int fd, struct epoll_event *event)
{
    if (operation == EPOLL_CTL_ADD && fail_add_in > 0 && --fail_add_in == 0) {
        errno = ENOSPC;
        return -1;
    }
    return (int)syscall(SYS_epoll_ctl, epoll_fd, operation, fd, event);
}

static void a_child_that_cannot_be_watched_is_reaped(void **state)
{
    struct fixture *f = *state;
    struct api_service_options options = { .loop = f->loop,
                                           .node = f->node,
                                           .log = &f->log,
                                           .metrics = f->metrics,
                                           .api_exec_fd = f->exec_fd };
    struct api_service *service = NULL;
    struct error err;

    f->service = api_service_free(f->service);
    options.run_dir_fd = f->dir_fd;
    fail_add_in = 2; /* the link's, then the process's */
    assert_int_equal(api_service_new(&options, &service, &err), -ENOSPC);
    assert_int_equal(fail_add_in, 0);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

static void note_drained(void *context)
{
    ++*(int *)context;
}

static void draining_answers_what_is_under_way(void **state)
{
    static const char bytes[] = REQUEST("GET /v1/vms/a/wait?for=deleted&timeout=1", "");
    struct fixture *f = *state;
    auto_close int waiting = client_connect(f);
    auto_close int begun = client_connect(f);
    auto_close int idle = client_connect(f);
    int drained = 0;

    assert_int_equal(ask(f, REQUEST("PUT /v1/vms/a", JSON "Content-Length: 2\r\n") "{}"), 201);
    client_send(f, waiting, bytes, strlen(bytes));
    client_send(f, begun, bytes, 10);
    await_outstanding(f, 1);
    api_service_drain(f->service, note_drained, &drained);
    assert_int_equal(faccessat(f->dir_fd, API_SOCKET_NAME, F_OK, 0), -1);
    client_send(f, begun, bytes + 10, strlen(bytes) - 10);
    assert_true(client_receive(f, begun, true));
    assert_true(client_receive(f, waiting, true));
    assert_int_equal(answer_status(f), 200);
    assert_non_null(strstr(f->answer, "Connection: close\r\n"));
    assert_true(client_receive(f, idle, true));
    assert_int_equal(f->answer_size, 0);
    for (int turns = 0; !drained && turns < TURNS; turns++)
        assert_int_equal(loop_turn(f->loop, 1, NULL), 0);
    assert_int_equal(drained, 1);
}

static void it_gives_up_every_privilege(void **state)
{
    struct fixture *f = *state;
    auto_free char *text = calloc(1, 8192);
    char path[64];
    FILE *file;

    if (geteuid() != 0)
        skip();
    assert_int_equal(ask(f, REQUEST("GET /healthz", "")), 200);
    snprintf(path, sizeof(path), "/proc/%d/status", (int)api_pid());
    file = fopen(path, "re");
    assert_true(fread(text, 1, 8191, file) > 0);
    fclose(file);
    assert_non_null(strstr(text, "\nUid:\t54321\t54321\t54321\t54321\n"));
    assert_non_null(strstr(text, "\nCapEff:\t0000000000000000\n"));
    assert_non_null(strstr(text, "\nCapBnd:\t0000000000000000\n"));
    assert_non_null(strstr(text, "\nNoNewPrivs:\t1\n"));
    if (!SANITIZED)
        assert_non_null(strstr(text, "\nSeccomp:\t2\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(requests_reach_the_node),
        CASE(head_has_no_body),
        CASE(a_connection_serves_many_requests),
        CASE(doubtful_framing_is_refused_and_closed),
        CASE(a_body_that_is_refused_is_taken_all_the_same),
        CASE(odd_paths_are_not_decoded),
        CASE(headers_have_a_limit),
        CASE(a_whole_mebibyte_is_taken),
        CASE(a_large_answer_comes_whole),
        CASE(a_console_is_followed),
        CASE(changes_under_way_have_a_limit),
        CASE(a_client_that_leaves_is_noticed),
        CASE(a_half_closed_client_gets_its_answer),
        CASE(a_killed_process_is_replaced),
        CASE(it_is_replaced_when_memory_is_short_too),
        CASE(draining_answers_what_is_under_way),
        CASE(it_gives_up_every_privilege),
        CASE(a_child_that_cannot_be_watched_is_reaped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
