/* test_server_stream.c - streams through the real server of warren-api; the test is warrend and the
 * client.  What no route of the product offers yet, an upgrade, is answered here by hand. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "api/server.h"
#include "api/server_filter.h"
#include "api/wire_link.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/loop.h"
#include "base/seqpacket.h"

#define ECHO_BYTES  (3 << 20)
#define EARLY_BYTES 100000
#define TURNS       20000

struct fixture {
    char path[64];
    pid_t server;
    struct loop *loop;
    struct wire_link *link;
    int status; /* to answer with */
    int stream; /* our end of the last stream; -1 */
    int requests;
    uint64_t id, abandoned; /* of the last request; of the last of which an end was told */
    bool extra_asked;       /* the last request asked for an upgrade */
    char text[4096];        /* what a client received */
};

/* Every request is answered with a stream. */
static void on_message(void *context, struct wire_message *message)
{
    struct fixture *f = context;
    struct wire_message reply = {
        .kind = WIRE_REPLY, .id = message->id, .status = (uint16_t)f->status, .has_stream = true
    };
    int pair[2];

    if (message->kind != WIRE_REQUEST) {
        f->abandoned = message->id;
        return;
    }
    f->requests++;
    f->id = message->id;
    f->extra_asked = message->strings[WIRE_UPGRADE] != NULL;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    reply.stream_fd = pair[1];
    if (f->status == 101)
        reply.strings[WIRE_UPGRADE] = "warren-stream";
    else
        reply.strings[WIRE_CONTENT_TYPE] = "text/plain";
    assert_int_equal(wire_link_send(f->link, &reply, NULL), 0);
    close(pair[1]);
    cleanup_close(&f->stream);
    f->stream = pair[0];
}

static void on_end(void *context, const struct error *err)
{
    (void)context;
    fail_msg("the server went away: %s", err->message);
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 64), 0);
    return fd;
}

static void run_server(int link, int listener)
{
    struct server *server;
    int r;

    tzset(); /* as warren-api does: later it could read no file */
    r = server_new(link, listener, &(struct server_options){ .connection_limit = 128 }, &server,
                   NULL);

    if (r >= 0)
        r = server_filter_load(NULL);
    if (r >= 0)
        r = server_run(server, NULL);
    server_free(server);
    exit(r < 0); /* not _exit: for leak checks */
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct wire_link_options options = { .kinds = 1u << WIRE_REQUEST | 1u << WIRE_ABANDON,
                                         .on_message = on_message,
                                         .on_end = on_end,
                                         .context = f };
    int pair[2], listener;

    f->stream = -1;
    snprintf(f->path, sizeof(f->path), "/tmp/warren-stream-%d", (int)getpid());
    (void)unlink(f->path);
    listener = listen_at(f->path);
    assert_int_equal(seqpacket_pair(pair, NULL), 0);
    f->server = fork();
    if (f->server == 0) {
        close(pair[0]);
        free(f);
        run_server(pair[1], listener);
    }
    close(pair[1]);
    close(listener);
    assert_int_equal(loop_new(&f->loop, NULL), 0);
    options.loop = f->loop;
    assert_int_equal(wire_link_new(&options, pair[0], &f->link, NULL), 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    int status = 0;

    wire_link_free(f->link); /* the server ends, whatever it has open */
    assert_int_equal(waitpid(f->server, &status, 0), f->server);
    assert_int_equal(status, 0);
    cleanup_close(&f->stream);
    loop_free(f->loop);
    unlink(f->path);
    free(f);
    return 0;
}

static void turn(struct fixture *f)
{
    assert_int_equal(loop_turn(f->loop, 1, NULL), 0);
}

/* Connects and asks; waits until our end of the stream is there. */
static int ask(struct fixture *f, int status, const char *request)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int before = f->requests;

    f->status = status;
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", f->path);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(write(fd, request, strlen(request)), strlen(request));
    for (int i = 0; f->requests == before && i < TURNS; i++)
        turn(f);
    assert_int_equal(f->requests, before + 1);
    return fd;
}

/* Until f->text ends in `end`; NULL: until the connection ends. */
static void read_until(struct fixture *f, int fd, const char *end)
{
    size_t used = 0;

    for (int i = 0; i < TURNS; i++) {
        ssize_t n = recv(fd, f->text + used, sizeof(f->text) - 1 - used, 0);

        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            if (end)
                fail_msg("the connection ended after: %s", f->text);
            return;
        }
        used += n > 0 ? (size_t)n : 0;
        f->text[used] = '\0';
        if (end && used >= strlen(end) && strcmp(f->text + used - strlen(end), end) == 0)
            return;
        turn(f);
    }
    fail_msg("only this came: %s", f->text);
}

/* Whether the other end of our stream is closed, soon. */
static bool stream_ends(struct fixture *f)
{
    char byte;

    for (int i = 0; i < TURNS; i++) {
        ssize_t n = recv(f->stream, &byte, 1, 0);

        if (n == 0 || (n < 0 && errno != EAGAIN))
            return true;
        turn(f);
    }
    return false;
}

#define GET     "GET /x HTTP/1.1\r\nHost: w\r\n\r\n"
#define GET_1_0 "GET /x HTTP/1.0\r\n\r\n"
#define UPGRADE                                                                  \
    "GET /x HTTP/1.1\r\nHost: w\r\nConnection: keep-alive, Upgrade\r\nUpgrade: " \
    "warren-stream\r\n\r\n"

/* --- 200 --- */

static void what_comes_is_sent_until_the_end(void **state)
{
    struct fixture *f = *state;
    auto_close int fd = ask(f, 200, GET);

    read_until(f, fd, "\r\n\r\n"); /* the headers go out before there is anything to send */
    assert_non_null(strstr(f->text, "Transfer-Encoding: chunked\r\n"));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(write(f->stream, "hello", 5), 5);
        read_until(f, fd, "5\r\nhello\r\n");
    }
    cleanup_close(&f->stream);
    read_until(f, fd, "0\r\n\r\n");
    /* and the connection is good for another one */
    f->status = 200;
    assert_int_equal(write(fd, GET, strlen(GET)), strlen(GET));
    for (int i = 0; f->stream < 0 && i < TURNS; i++)
        turn(f);
    read_until(f, fd, "\r\n\r\n");
    cleanup_close(&f->stream);
    read_until(f, fd, "0\r\n\r\n");
}

static void an_old_client_reads_until_the_connection_ends(void **state)
{
    struct fixture *f = *state;
    auto_close int fd = ask(f, 200, GET_1_0);

    assert_int_equal(write(f->stream, "hello", 5), 5);
    cleanup_close(&f->stream);
    read_until(f, fd, NULL);
    assert_string_equal(strstr(f->text, "\r\n\r\n"), "\r\n\r\nhello");
}

static void a_client_that_leaves_closes_the_stream(void **state)
{
    static const char *const requests[] = { GET, UPGRADE };
    struct fixture *f = *state;

    for (int i = 0; i < 2; i++) {
        int fd = ask(f, i == 0 ? 200 : 101, requests[i]);

        read_until(f, fd, "\r\n\r\n");
        close(fd);
        assert_true(stream_ends(f));
        for (int j = 0; f->abandoned != f->id && j < TURNS; j++)
            turn(f);
        assert_int_equal(f->abandoned, f->id);
    }
}

/* However far it is: its reply may still be on the way, or its client not read. */
static void what_warrend_gives_up_ends(void **state)
{
    static const char *const requests[] = { GET, UPGRADE };
    struct fixture *f = *state;

    for (int i = 0; i < 4; i++) {
        auto_close int fd = ask(f, i % 2 ? 101 : 200, requests[i % 2]);
        struct wire_message message = { .kind = WIRE_ABANDON, .id = f->id };

        if (i / 2)
            read_until(f, fd, "\r\n\r\n");
        assert_int_equal(wire_link_send(f->link, &message, NULL), 0);
        assert_int_equal(wire_link_send(f->link, &message, NULL), 0); /* as if it crossed its end */
        read_until(f, fd, NULL);
        assert_true(stream_ends(f));
    }
    assert_int_equal(f->abandoned, 0);
}

static void head_closes_the_stream(void **state)
{
    struct fixture *f = *state;
    auto_close int fd = ask(f, 200, "HEAD /x HTTP/1.1\r\nHost: w\r\n\r\n");

    read_until(f, fd, "\r\n\r\n");
    assert_true(stream_ends(f));
}

/* Nothing piles up in the server: what the client does not read stays where it comes from. */
static void a_client_that_does_not_read_is_not_buffered(void **state)
{
    static char block[65536];
    struct fixture *f = *state;
    auto_close int fd = ask(f, 200, GET);
    size_t taken = 0;
    int idle = 0;

    assert_true(fd >= 0);
    while (idle < 200) {
        ssize_t n = send(f->stream, block, sizeof(block), MSG_NOSIGNAL);

        idle = n > 0 ? 0 : idle + 1;
        taken += n > 0 ? (size_t)n : 0;
        turn(f);
    }
    assert_true(taken < (2 << 20)); /* three socket buffers and a block */
}

/* --- 101 --- */

static void pump(struct fixture *f, int client, size_t bytes, int turns)
{
    char *out = malloc(bytes), *in = malloc(bytes), echo[30000];
    size_t sent = 0, got = 0, held = 0;

    for (size_t i = 0; i < bytes; i++)
        out[i] = (char)(i * 7 + i / 251);
    for (int i = 0; got < bytes && i < turns; i++) {
        ssize_t n = send(client, out + sent, bytes - sent, MSG_NOSIGNAL);

        sent += n > 0 ? (size_t)n : 0;
        if (held == 0) {
            n = recv(f->stream, echo, sizeof(echo), 0);
            held = n > 0 ? (size_t)n : 0;
        }
        n = held > 0 ? send(f->stream, echo, held, MSG_NOSIGNAL) : 0;
        if (n > 0) {
            held -= (size_t)n;
            memmove(echo, echo + n, held);
        }
        n = recv(client, in + got, bytes - got, 0);
        got += n > 0 ? (size_t)n : 0;
        if (n <= 0)
            turn(f);
    }
    assert_int_equal(got, bytes);
    assert_memory_equal(in, out, bytes);
    free(out);
    free(in);
}

static void an_upgrade_copies_both_ways(void **state)
{
    struct fixture *f = *state;
    auto_close int fd = ask(f, 101, UPGRADE);

    assert_true(f->extra_asked);
    read_until(f, fd, "\r\n\r\n");
    assert_memory_equal(f->text, "HTTP/1.1 101 ", 13);
    assert_non_null(strstr(f->text, "\r\nUpgrade: warren-stream\r\n"));
    pump(f, fd, ECHO_BYTES, 10 * TURNS);
    cleanup_close(&f->stream);
    read_until(f, fd, NULL);
}

static void each_way_ends_by_itself(void **state)
{
    struct fixture *f = *state;
    auto_close int fd = ask(f, 101, UPGRADE);

    read_until(f, fd, "\r\n\r\n");
    assert_int_equal(write(fd, "last", 4), 4);
    shutdown(fd, SHUT_WR);
    read_until(f, f->stream, NULL);
    assert_string_equal(f->text, "last");
    assert_int_equal(write(f->stream, "answer", 6), 6);
    cleanup_close(&f->stream);
    memset(f->text, 0, sizeof(f->text));
    read_until(f, fd, NULL);
    assert_string_equal(f->text, "answer");
}

/* Sent before the 101 was there, with the request. */
static void what_comes_early_is_not_lost(void **state)
{
    struct fixture *f = *state;
    auto_close int fd = ask(f, 101, UPGRADE "early");

    read_until(f, f->stream, "early");
    read_until(f, fd, "\r\n\r\n");
}

/* More than a block of it. */
static void much_that_comes_early_is_not_lost(void **state)
{
    static char request[sizeof(UPGRADE) + EARLY_BYTES];
    struct fixture *f = *state;
    auto_close int fd = -1;
    size_t got = 0;

    memset(request, 'e', sizeof(request) - 1);
    memcpy(request, UPGRADE, strlen(UPGRADE));
    fd = ask(f, 101, request);
    for (int i = 0; got < EARLY_BYTES && i < TURNS; i++) {
        ssize_t n = recv(f->stream, f->text, sizeof(f->text), 0);

        assert_true(n > 0 || (n < 0 && errno == EAGAIN));
        got += n > 0 ? (size_t)n : 0;
        turn(f);
    }
    assert_int_equal(got, EARLY_BYTES);
}

/* A client gone with all it had to say leaves it to be read. */
static void a_slow_stream_gets_all_of_a_client_that_left(void **state)
{
    static char block[100000];
    struct fixture *f = *state;
    int fd = ask(f, 101, UPGRADE);
    size_t sent = 0, got = 0;

    read_until(f, fd, "\r\n\r\n");
    for (int i = 0; sent < sizeof(block) && i < TURNS; i++) {
        ssize_t n = send(fd, block + sent, sizeof(block) - sent, MSG_NOSIGNAL);

        sent += n > 0 ? (size_t)n : 0;
        turn(f);
    }
    close(fd);
    for (int i = 0; i < 20; i++)
        turn(f);
    for (int i = 0; got < sent && i < TURNS; i++) {
        ssize_t n = recv(f->stream, block, sizeof(block), 0);

        got += n > 0 ? (size_t)n : 0;
        turn(f);
    }
    assert_int_equal(sent, sizeof(block));
    assert_int_equal(got, sent);
    assert_true(stream_ends(f));
}

/* The end of the server, in tear_down, with streams of both kinds open. */
static void the_server_ends_with_streams_open(void **state)
{
    struct fixture *f = *state;
    int clients[4];

    for (int i = 0; i < 4; i++) {
        clients[i] = ask(f, i % 2 ? 101 : 200, i % 2 ? UPGRADE : GET);
        read_until(f, clients[i], "\r\n\r\n");
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(what_comes_is_sent_until_the_end),
        TEST(an_old_client_reads_until_the_connection_ends),
        TEST(a_client_that_leaves_closes_the_stream),
        TEST(what_warrend_gives_up_ends),
        TEST(head_closes_the_stream),
        TEST(a_client_that_does_not_read_is_not_buffered),
        TEST(an_upgrade_copies_both_ways),
        TEST(each_way_ends_by_itself),
        TEST(what_comes_early_is_not_lost),
        TEST(much_that_comes_early_is_not_lost),
        TEST(a_slow_stream_gets_all_of_a_client_that_left),
        TEST(the_server_ends_with_streams_open),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
