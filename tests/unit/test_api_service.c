/* test_api_service.c - HTTP through the real warren-api process, with a node in memory behind it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "tests/unit/fake_node.h"
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "api/api_metrics.h"
#include "api/api_service.h"
#include "base/cleanup.h"
#include "base/log.h"

#define ANSWER_MAX (3 << 20)

struct fixture {
    struct loop *loop;
    struct node *node;
    struct log log;
    char dir[64], root[80];
    int dir_fd, exec_fd;
    struct api_metrics *metrics;
    struct api_service *service;
    char *answer; /* of the last exchange; a NUL behind */
    size_t answer_size;
};

/* warren-api lies beside the tests' folder. */
static int open_program(void)
{
    char self[PATH_MAX + 32] = "";

    assert_true(readlink("/proc/self/exe", self, PATH_MAX) > 0);
    strcat(dirname(self), "/../warren-api");
    return open(self, O_PATH | O_CLOEXEC);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err;
    struct api_service_options options;

    f->log = (struct log){ .fd = open("/dev/null", O_WRONLY | O_CLOEXEC), .name = "test" };
    snprintf(f->dir, sizeof(f->dir), "/tmp/warren-test-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->root, sizeof(f->root), "%s/empty", f->dir);
    assert_int_equal(mkdir(f->root, 0755), 0);
    f->dir_fd = open(f->dir, O_DIRECTORY | O_CLOEXEC);
    f->exec_fd = open_program();
    assert_true(f->exec_fd >= 0);
    assert_int_equal(loop_new(&f->loop, NULL), 0);
    f->node = fake_node_new(f->loop);
    f->answer = malloc(ANSWER_MAX + 1);
    f->metrics = api_metrics_new();
    options = (struct api_service_options){ .loop = f->loop,
                                            .node = f->node,
                                            .log = &f->log,
                                            .metrics = f->metrics,
                                            .changes_max = 3,
                                            .run_dir_fd = f->dir_fd,
                                            .api_exec_fd = f->exec_fd };
    if (geteuid() == 0) {
        options.uid = options.gid = 54321;
        options.empty_root = f->root;
    }
    if (api_service_new(&options, &f->service, &err) < 0)
        fail_msg("%s", err.message);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    api_service_free(f->service);
    while (f->node->outstanding > 0)
        assert_int_equal(loop_turn(f->loop, 100, NULL), 0);
    fake_node_free(f->node);
    api_metrics_free(f->metrics);
    loop_free(f->loop);
    assert_int_equal(unlinkat(f->dir_fd, API_SOCKET_NAME, 0), -1); /* removed already */
    close(f->dir_fd);
    close(f->exec_fd);
    close(f->log.fd);
    assert_int_equal(rmdir(f->root), 0);
    assert_int_equal(rmdir(f->dir), 0);
    free(f->answer);
    free(f);
    return 0;
}

/* --- a client in the same thread --- */

static int client_connect(struct fixture *f)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", f->dir, API_SOCKET_NAME);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

/* As much as the other side takes; it may close before it has read all. */
static void client_send(struct fixture *f, int fd, const char *bytes, size_t size)
{
    for (int turns = 0; size > 0 && turns < 5000; turns++) {
        ssize_t n = send(fd, bytes, size, MSG_NOSIGNAL);

        if (n < 0 && errno != EAGAIN)
            return;
        if (n > 0) {
            bytes += n;
            size -= (size_t)n;
        }
        assert_int_equal(loop_turn(f->loop, n > 0 ? 0 : 1, NULL), 0);
    }
}

static bool answer_is_whole(const struct fixture *f)
{
    const char *end = strstr(f->answer, "\r\n\r\n");
    const char *length = strstr(f->answer, "Content-Length: ");

    return end && length &&
           f->answer_size >= (size_t)(end + 4 - f->answer) + strtoul(length + 16, NULL, 10);
}

/* Until a whole answer is there or the connection has ended; true if it has ended. */
static bool client_receive(struct fixture *f, int fd, bool until_end)
{
    f->answer_size = 0;
    f->answer[0] = '\0';
    for (int turns = 0; turns < 5000; turns++) {
        ssize_t n = recv(fd, f->answer + f->answer_size, ANSWER_MAX - f->answer_size, 0);

        if (n == 0 || (n < 0 && errno != EAGAIN))
            return true;
        if (n > 0) {
            f->answer_size += (size_t)n;
            f->answer[f->answer_size] = '\0';
            continue;
        }
        if (!until_end && answer_is_whole(f))
            return false;
        assert_int_equal(loop_turn(f->loop, 1, NULL), 0);
    }
    fail_msg("no answer: %.200s", f->answer);
    return false;
}

static int answer_status(const struct fixture *f)
{
    return f->answer_size > 12 && strncmp(f->answer, "HTTP/1.1 ", 9) == 0 ? atoi(f->answer + 9) : 0;
}

/* One request on a connection of its own; its status, or 0 if there was no answer. */
static int ask(struct fixture *f, const char *bytes)
{
    auto_close int fd = client_connect(f);

    client_send(f, fd, bytes, strlen(bytes));
    client_receive(f, fd, false);
    return answer_status(f);
}

#define REQUEST(line, headers) line " HTTP/1.1\r\nHost: w\r\n" headers "\r\n"
#define JSON                   "Content-Type: application/json\r\n"

/* --- tests --- */

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

    for (int turns = 0; turns < 5000; turns++) {
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
        for (int turns = 0; f->node->outstanding <= i && turns < 2000; turns++)
            assert_int_equal(loop_turn(f->loop, 1, NULL), 0);
    }
    assert_int_equal(ask(f, REQUEST("POST /v1/vms/a/kill", "")), 429);
    assert_non_null(strstr(f->answer, "\r\nRetry-After: 1\r\n"));
    assert_int_equal(ask(f, REQUEST("GET /v1/vms/a", "")), 200);
    close(waiting[0]);
    for (int turns = 0; f->node->outstanding == 3 && turns < 2000; turns++)
        assert_int_equal(loop_turn(f->loop, 1, NULL), 0);
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
    for (int turns = 0; f->node->outstanding == 0 && turns < 2000; turns++)
        assert_int_equal(loop_turn(f->loop, 1, NULL), 0);
    assert_int_equal(f->node->outstanding, 1);
    close(fd);
    for (int turns = 0; f->node->outstanding > 0 && turns < 2000; turns++)
        assert_int_equal(loop_turn(f->loop, 1, NULL), 0);
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

/* The one child of this process. */
static pid_t api_pid(void)
{
    char path[64];
    FILE *file;
    int pid = 0;

    snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
    file = fopen(path, "re");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%d", &pid), 1);
    fclose(file);
    return pid;
}

static void a_killed_process_is_replaced(void **state)
{
    static const char bytes[] = REQUEST("GET /v1/vms/a/wait?for=deleted&timeout=600", "");
    struct fixture *f = *state;

    assert_int_equal(ask(f, REQUEST("PUT /v1/vms/a", JSON "Content-Length: 2\r\n") "{}"), 201);
    for (int i = 0; i < 3; i++) {
        auto_close int waiting = client_connect(f);

        client_send(f, waiting, bytes, strlen(bytes));
        for (int turns = 0; f->node->outstanding == 0 && turns < 2000; turns++)
            assert_int_equal(loop_turn(f->loop, 1, NULL), 0);
        assert_int_equal(kill(api_pid(), SIGKILL), 0);
        assert_true(client_receive(f, waiting, true));
        assert_int_equal(f->answer_size, 0);
        assert_int_equal(ask(f, REQUEST("GET /healthz", "")), 200);
        assert_int_equal(f->node->outstanding, 0);
    }
    assert_int_equal(ask(f, REQUEST("GET /metrics", "")), 200);
    assert_non_null(strstr(f->answer, "\nwarren_api_restarts_total 3\n"));
}

static time_t passed_s; /* on this process's clock, and on no other's */

/* In place of the C library's. */
/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name): theirs are reserved */
int clock_gettime(clockid_t clock, struct timespec *now)
{
    long result = syscall(SYS_clock_gettime, clock, now);

    if (result == 0 && clock == CLOCK_MONOTONIC)
        now->tv_sec += passed_s;
    return (int)result;
}

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
    for (int turns = 0; f->node->outstanding == 0 && turns < 2000; turns++)
        assert_int_equal(loop_turn(f->loop, 1, NULL), 0);
    assert_int_equal(kill(old, SIGSTOP), 0);
    queued = client_connect(f);
    client_send(f, queued, get, strlen(get));
    for (int i = 0; i < 50 && recv(queued, &byte, 1, MSG_PEEK) != 1; i++)
        let_pass(f, 1, 5);
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
    for (int turns = 0; f->node->outstanding == 0 && turns < 2000; turns++)
        assert_int_equal(loop_turn(f->loop, 1, NULL), 0);
    api_service_drain(f->service, note_drained, &drained);
    assert_int_equal(faccessat(f->dir_fd, API_SOCKET_NAME, F_OK, 0), -1);
    client_send(f, begun, bytes + 10, strlen(bytes) - 10);
    assert_true(client_receive(f, begun, true));
    assert_true(client_receive(f, waiting, true));
    assert_int_equal(answer_status(f), 200);
    assert_non_null(strstr(f->answer, "Connection: close\r\n"));
    assert_true(client_receive(f, idle, true));
    assert_int_equal(f->answer_size, 0);
    for (int turns = 0; !drained && turns < 5000; turns++)
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
#ifndef __SANITIZE_ADDRESS__
    assert_non_null(strstr(text, "\nSeccomp:\t2\n"));
#endif
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(requests_reach_the_node),
        CASE(head_has_no_body),
        CASE(a_connection_serves_many_requests),
        CASE(doubtful_framing_is_refused_and_closed),
        CASE(odd_paths_are_not_decoded),
        CASE(headers_have_a_limit),
        CASE(a_whole_mebibyte_is_taken),
        CASE(a_large_answer_comes_whole),
        CASE(a_console_is_followed),
        CASE(changes_under_way_have_a_limit),
        CASE(a_client_that_leaves_is_noticed),
        CASE(a_half_closed_client_gets_its_answer),
        CASE(a_killed_process_is_replaced),
        CASE(a_hung_process_is_replaced),
        CASE(a_slow_process_is_left_alone),
        CASE(a_late_loop_ends_nobody),
        CASE(draining_answers_what_is_under_way),
        CASE(it_gives_up_every_privilege),
        CASE(a_child_that_cannot_be_watched_is_reaped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
