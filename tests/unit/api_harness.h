/* api_harness.h - the real warren-api process with a node in memory behind it, and a client. */
#pragma once
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
#include <unistd.h>
#include "api/api_metrics.h"
#include "api/api_service.h"
#include "base/cleanup.h"
#include "base/log.h"

#define ANSWER_MAX (3 << 20)
#define TURNS      20000 /* of a ms, or less: for what a busy machine does late */

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

/* So many changes and waits are under way in the node; who asked looks whether they are. */
static inline void await_outstanding(struct fixture *f, int count)
{
    for (int turns = 0; f->node->outstanding != count && turns < TURNS; turns++)
        assert_int_equal(loop_turn(f->loop, 1, NULL), 0);
}

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
    for (int turns = 0; size > 0 && turns < TURNS; turns++) {
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
    for (int turns = 0; turns < TURNS; turns++) {
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

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
