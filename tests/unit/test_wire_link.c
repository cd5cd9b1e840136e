/* test_wire_link.c - messages through a real socket pair: queues, order, hostile and absent peers.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include "api/wire_link.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/loop.h"
#include "base/seqpacket.h"

struct fixture {
    struct loop *loop;
    struct wire_link *link; /* accepts requests */
    int peer;               /* the other end, by hand */
    uint64_t last_id;
    size_t received, body_size;
    int ended; /* error's code */
    bool free_in_callback;
};

static void on_message(void *context, struct wire_message *message)
{
    struct fixture *f = context;

    assert_int_equal(message->id, f->last_id + 1); /* in order, none lost */
    f->last_id = message->id;
    f->received++;
    f->body_size += message->body_size;
    if (f->free_in_callback)
        f->link = wire_link_free(f->link);
}

static void on_end(void *context, const struct error *err)
{
    struct fixture *f = context;

    assert_int_equal(f->ended, 0);
    f->ended = err->code;
    f->link = wire_link_free(f->link);
}

static struct wire_link *link_new(struct fixture *f, int fd, size_t pause_at)
{
    struct wire_link_options options = {
        .loop = f->loop,
        .kinds = 1u << WIRE_REQUEST | 1u << WIRE_ABANDON,
        .pause_at = pause_at,
        .on_message = on_message,
        .on_end = on_end,
        .context = f,
    };
    struct wire_link *link;

    assert_int_equal(wire_link_new(&options, fd, &link, NULL), 0);
    return link;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    int pair[2];

    assert_int_equal(loop_new(&f->loop, NULL), 0);
    assert_int_equal(seqpacket_pair(pair, NULL), 0);
    f->peer = pair[1];
    f->link = link_new(f, pair[0], 4);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    wire_link_free(f->link);
    if (f->peer >= 0)
        close(f->peer);
    loop_free(f->loop);
    free(f);
    return 0;
}

static void turn(struct fixture *f, int turns)
{
    while (turns-- > 0)
        assert_int_equal(loop_turn(f->loop, 1, NULL), 0);
}

static void a_slow_peer_gets_everything_in_order(void **state)
{
    struct fixture *f = *state;
    struct wire_message reply = { .kind = WIRE_REPLY, .status = 200 };
    char *body = malloc(100000), bytes[SEQPACKET_MESSAGE_MAX];

    memset(body, 'r', 100000);
    reply.body = body;
    for (reply.id = 1; reply.id <= 40; reply.id++) {
        reply.body_size = reply.id % 4 == 0 ? 100000 : 30000; /* some travel in memfds */
        assert_int_equal(wire_link_send(f->link, &reply, NULL), 0);
    }
    for (uint64_t id = 1; id <= 40;) {
        struct wire_message message;
        auto_close int fd = -1;
        size_t fds = 1;
        ssize_t size = seqpacket_receive(f->peer, bytes, sizeof(bytes), &fd, &fds, NULL);

        if (size == -EAGAIN) {
            turn(f, 1);
            continue;
        }
        assert_true(size > 0);
        assert_int_equal(wire_unpack(bytes, (size_t)size, fds ? fd : -1, &message, NULL), 0);
        assert_int_equal(message.id, id);
        assert_int_equal(message.body_size, id % 4 == 0 ? 100000 : 30000);
        wire_message_clear(&message);
        id++;
    }
    assert_int_equal(f->ended, 0);
    free(body);
}

static void send_abandon(struct fixture *f, uint64_t id)
{
    struct wire_message message = { .kind = WIRE_ABANDON, .id = id };
    char bytes[256];
    size_t size;
    int fd;

    assert_int_equal(wire_pack(&message, bytes, sizeof(bytes), &size, &fd, NULL), 0);
    assert_int_equal(seqpacket_send(f->peer, bytes, size, NULL, 0, NULL), 0);
}

/* A peer that asks and never reads the answers is not read from any more. */
static void a_peer_that_does_not_read_is_not_read(void **state)
{
    struct fixture *f = *state;
    struct wire_message reply = { .kind = WIRE_REPLY, .status = 200 };
    char *body = malloc(60000), bytes[SEQPACKET_MESSAGE_MAX];

    memset(body, 'r', 60000);
    reply.body = body;
    reply.body_size = 60000;
    for (reply.id = 1; reply.id <= 20; reply.id++)
        assert_int_equal(wire_link_send(f->link, &reply, NULL), 0);
    for (uint64_t id = 1; id <= 10; id++)
        send_abandon(f, id);
    turn(f, 5);
    assert_int_equal(f->received, 0);
    for (int i = 0; i < 20;) {
        ssize_t size = seqpacket_receive(f->peer, bytes, sizeof(bytes), NULL, NULL, NULL);

        if (size > 0)
            i++;
        else
            turn(f, 1);
    }
    turn(f, 5);
    assert_int_equal(f->received, 10);
    free(body);
}

static void garbage_ends_the_link(void **state)
{
    struct fixture *f = *state;

    send_abandon(f, 1);
    assert_int_equal(send(f->peer, "garbage", 7, 0), 7);
    send_abandon(f, 2);
    turn(f, 3);
    assert_int_equal(f->received, 1);
    assert_int_equal(f->ended, EINVAL);
}

static void a_message_of_the_wrong_direction_ends_the_link(void **state)
{
    struct fixture *f = *state;
    struct wire_message message = { .kind = WIRE_REPLY, .id = 1, .status = 200 };
    char bytes[256];
    size_t size;
    int fd;

    assert_int_equal(wire_pack(&message, bytes, sizeof(bytes), &size, &fd, NULL), 0);
    assert_int_equal(seqpacket_send(f->peer, bytes, size, NULL, 0, NULL), 0);
    turn(f, 3);
    assert_int_equal(f->ended, EINVAL);
}

static void too_many_fds_end_the_link(void **state)
{
    struct fixture *f = *state;
    int fds[3] = { 0, 0, 0 };

    assert_int_equal(seqpacket_send(f->peer, "x", 1, fds, 3, NULL), 0);
    turn(f, 3);
    assert_true(f->ended != 0);
}

static void the_peers_end_is_told_once(void **state)
{
    struct fixture *f = *state;

    send_abandon(f, 1);
    close(f->peer);
    f->peer = -1;
    turn(f, 5);
    assert_int_equal(f->received, 1);
    assert_true(f->ended != 0);
}

static void sending_to_a_peer_that_left_is_no_crash(void **state)
{
    struct fixture *f = *state;
    struct wire_message reply = { .kind = WIRE_REPLY, .id = 1, .status = 200 };

    close(f->peer);
    f->peer = -1;
    assert_int_equal(wire_link_send(f->link, &reply, NULL), 0);
    assert_int_equal(f->ended, 0); /* never from within send */
    turn(f, 3);
    assert_true(f->ended != 0);
}

static void a_link_may_be_freed_by_its_callback(void **state)
{
    struct fixture *f = *state;

    f->free_in_callback = true;
    send_abandon(f, 1);
    send_abandon(f, 2);
    turn(f, 3);
    assert_int_equal(f->received, 1);
    assert_int_equal(f->ended, 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_slow_peer_gets_everything_in_order),
        CASE(a_peer_that_does_not_read_is_not_read),
        CASE(garbage_ends_the_link),
        CASE(a_message_of_the_wrong_direction_ends_the_link),
        CASE(too_many_fds_end_the_link),
        CASE(the_peers_end_is_told_once),
        CASE(sending_to_a_peer_that_left_is_no_crash),
        CASE(a_link_may_be_freed_by_its_callback),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
