/* test_loop.c - real fds, timers and threads on one loop. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "base/loop.h"

struct fixture {
    struct loop *loop;
    int pair[2];
    int other[2];
    struct loop_source *source, *other_source;
    struct loop_timer *timer;
    unsigned calls;
    uint32_t events;
    unsigned order[64];
    unsigned order_count;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    *state = f;
    if (!f || loop_new(&f->loop, NULL) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, f->pair) < 0)
        return -1;
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, f->other);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    loop_free(f->loop);
    for (int i = 0; i < 2; i++) {
        cleanup_close(&f->pair[i]);
        cleanup_close(&f->other[i]);
    }
    free(f);
    return 0;
}

static void count_event(void *context, uint32_t events)
{
    struct fixture *f = context;
    char byte;

    f->calls++;
    f->events = events;
    if (read(f->pair[0], &byte, 1) < 0)
        f->events |= EPOLLERR;
}

static void an_fd_is_watched_until_it_is_removed(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(loop_add(f->loop, f->pair[0], EPOLLIN, count_event, f, &f->source, NULL), 0);
    assert_int_equal(loop_turn(f->loop, 0, NULL), 0);
    assert_int_equal(f->calls, 0);
    assert_int_equal(write(f->pair[1], "x", 1), 1);
    loop_turn(f->loop, 100, NULL);
    assert_int_equal(f->calls, 1);
    assert_int_equal(f->events, EPOLLIN);
    f->source = loop_remove(f->source);
    assert_null(f->source);
    assert_int_equal(write(f->pair[1], "x", 1), 1);
    loop_turn(f->loop, 10, NULL);
    assert_int_equal(f->calls, 1);
    assert_null(loop_remove(NULL));
}

static void what_is_watched_can_change(void **state)
{
    struct fixture *f = *state;

    loop_add(f->loop, f->pair[0], EPOLLIN, count_event, f, &f->source, NULL);
    assert_int_equal(loop_change(f->source, EPOLLIN | EPOLLOUT, NULL), 0);
    loop_turn(f->loop, 100, NULL);
    assert_true(f->events & EPOLLOUT);
}

static void a_closed_fd_is_refused(void **state)
{
    struct fixture *f = *state;
    struct error err = { 0 };

    assert_int_equal(loop_add(f->loop, -1, EPOLLIN, count_event, f, &f->source, &err), -EBADF);
    assert_null(f->source);
    assert_true(err.message[0] != '\0');
}

/* Whichever of two ready ones is called first removes the other, which must not be called. */
static void remove_other(void *context, uint32_t events)
{
    struct fixture *f = context;

    (void)events;
    f->calls++;
    f->source = loop_remove(f->source);
    f->other_source = loop_remove(f->other_source);
}

static void a_source_removed_by_another_callback_is_not_called(void **state)
{
    struct fixture *f = *state;

    loop_add(f->loop, f->pair[0], EPOLLIN, remove_other, f, &f->source, NULL);
    loop_add(f->loop, f->other[0], EPOLLIN, remove_other, f, &f->other_source, NULL);
    assert_int_equal(write(f->pair[1], "x", 1), 1);
    assert_int_equal(write(f->other[1], "x", 1), 1);
    loop_turn(f->loop, 100, NULL);
    loop_turn(f->loop, 10, NULL);
    assert_int_equal(f->calls, 1);
}

/* --- timers --- */

struct tick {
    struct fixture *f;
    unsigned number;
};

static void note(void *context)
{
    struct tick *tick = context;

    tick->f->order[tick->f->order_count++] = tick->number;
}

/* Until so many have fired, and a while longer. */
static void turn_until(struct fixture *f, unsigned fired)
{
    int64_t end = loop_now_ms() + 60;

    while (f->order_count < fired || loop_now_ms() < end)
        loop_turn(f->loop, 5, NULL);
}

static void timers_fire_in_their_order_and_once(void **state)
{
    static const unsigned delays[] = { 30, 5, 20, 10, 15, 25, 0, 12 };
    struct fixture *f = *state;
    struct tick ticks[ARRAY_LENGTH(delays)];

    for (size_t i = 0; i < ARRAY_LENGTH(delays); i++) {
        ticks[i] = (struct tick){ f, delays[i] };
        assert_non_null(loop_after(f->loop, delays[i], note, &ticks[i]));
    }
    turn_until(f, ARRAY_LENGTH(delays));
    assert_int_equal(f->order_count, ARRAY_LENGTH(delays));
    for (unsigned i = 1; i < f->order_count; i++)
        assert_true(f->order[i - 1] <= f->order[i]);
}

static void a_timer_does_not_fire_early(void **state)
{
    struct fixture *f = *state;
    struct tick tick = { f, 1 };
    int64_t begin = loop_now_ms();

    loop_after(f->loop, 40, note, &tick);
    while (f->order_count == 0)
        loop_turn(f->loop, -1, NULL);
    assert_true(loop_now_ms() - begin >= 40);
}

static void cancelled_timers_leave_the_others(void **state)
{
    struct fixture *f = *state;
    struct tick ticks[40];
    struct loop_timer *timers[40];

    for (unsigned i = 0; i < 40; i++) {
        ticks[i] = (struct tick){ f, i };
        timers[i] = loop_after(f->loop, i * 7 % 40, note, &ticks[i]);
    }
    for (unsigned i = 0; i < 40; i += 2)
        assert_null(loop_cancel(timers[i]));
    turn_until(f, 20);
    assert_int_equal(f->order_count, 20);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(f->order[i] % 2, 1);
    assert_null(loop_cancel(NULL));
}

/* Its number is when it is due: set again if the clock ticked meanwhile. */
static struct loop_timer *set_due(struct fixture *f, struct tick *tick, int64_t start)
{
    int ms = rand() % 12;

    for (;;) {
        int64_t now = loop_now_ms();
        struct loop_timer *timer = loop_after(f->loop, ms, note, tick);

        *tick = (struct tick){ f, (unsigned)(now - start + ms) };
        if (loop_now_ms() == now)
            return timer;
        loop_cancel(timer);
    }
}

/* Many, cancelled in any order: what is left fires in order of its time. */
static void a_heap_of_timers_stays_in_order(void **state)
{
    enum { COUNT = 60, ROUNDS = 40 };
    struct fixture *f = *state;
    struct tick ticks[COUNT];
    struct loop_timer *timers[COUNT];

    srand(7);
    for (int round = 0; round < ROUNDS; round++) {
        int64_t start = loop_now_ms();

        for (unsigned i = 0; i < COUNT; i++)
            timers[i] = set_due(f, &ticks[i], start);
        for (unsigned i = 0; i < COUNT; i++)
            if (rand() % 2)
                timers[i] = loop_cancel(timers[i]);
        f->order_count = 0;
        usleep(14000); /* then all are due, and one turn runs them by order */
        loop_turn(f->loop, 0, NULL);
        for (unsigned i = 1; i < f->order_count; i++)
            assert_true(f->order[i - 1] <= f->order[i]);
        for (unsigned i = 0; i < COUNT; i++)
            f->order_count -= timers[i] != NULL;
        assert_int_equal(f->order_count, 0);
    }
}

static void again_at_once(void *context)
{
    struct fixture *f = context;

    f->calls++;
    loop_after(f->loop, 0, again_at_once, f);
}

/* Others get their turn: a timer that sets itself for now does not hold the loop. */
static void a_timer_for_now_does_not_starve_the_loop(void **state)
{
    struct fixture *f = *state;

    loop_after(f->loop, 0, again_at_once, f);
    for (int i = 0; i < 10; i++)
        loop_turn(f->loop, 0, NULL);
    assert_in_range(f->calls, 1, 20);
}

/* --- posted work, from another thread --- */

#define POSTS 20000

static void count_post(void *context)
{
    struct fixture *f = context;

    if (++f->calls == POSTS)
        loop_stop(f->loop);
}

static void *post_many(void *context)
{
    struct fixture *f = context;

    for (int i = 0; i < POSTS; i++)
        if (loop_post(f->loop, count_post, f) < 0)
            return f;
    return NULL;
}

static void posts_of_another_thread_all_arrive(void **state)
{
    struct fixture *f = *state;
    pthread_t thread;
    void *failed;

    assert_int_equal(pthread_create(&thread, NULL, post_many, f), 0);
    assert_int_equal(loop_run(f->loop, NULL), 0);
    pthread_join(thread, &failed);
    assert_null(failed);
    assert_int_equal(f->calls, POSTS);
}

static void post_again(void *context)
{
    struct fixture *f = context;

    if (f->calls++ == 0)
        loop_post(f->loop, post_again, f);
}

static void a_post_of_a_post_comes_in_a_later_turn(void **state)
{
    struct fixture *f = *state;

    loop_post(f->loop, post_again, f);
    loop_turn(f->loop, 100, NULL);
    assert_int_equal(f->calls, 1);
    loop_turn(f->loop, 100, NULL);
    assert_int_equal(f->calls, 2);
}

static void cancel_at_three(void *context)
{
    struct fixture *f = context;

    if (++f->calls == 3)
        f->timer = loop_cancel(f->timer);
}

static void a_timer_of_every_fires_until_it_is_cancelled(void **state)
{
    struct fixture *f = *state;
    struct tick after = { f, 1 };

    f->timer = loop_every(f->loop, 1, cancel_at_three, f);
    assert_non_null(f->timer);
    for (int i = 0; i < 100 && f->calls < 3; i++)
        loop_turn(f->loop, 10, NULL);
    assert_int_equal(f->calls, 3);
    loop_after(f->loop, 5, note, &after);
    while (f->order_count == 0)
        loop_turn(f->loop, 10, NULL);
    assert_int_equal(f->calls, 3);
}

static void what_is_left_is_freed(void **state)
{
    struct fixture *f = *state;
    struct tick tick = { f, 1 };

    loop_after(f->loop, 100000, note, &tick);
    loop_post(f->loop, count_post, f);
    loop_add(f->loop, f->pair[0], EPOLLIN, count_event, f, &f->source, NULL);
    f->loop = loop_free(f->loop);
    assert_null(f->loop);
    assert_int_equal(f->calls, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_fd_is_watched_until_it_is_removed),
        TEST(what_is_watched_can_change),
        TEST(a_closed_fd_is_refused),
        TEST(a_source_removed_by_another_callback_is_not_called),
        TEST(timers_fire_in_their_order_and_once),
        TEST(a_timer_does_not_fire_early),
        TEST(cancelled_timers_leave_the_others),
        TEST(a_heap_of_timers_stays_in_order),
        TEST(a_timer_of_every_fires_until_it_is_cancelled),
        TEST(a_timer_for_now_does_not_starve_the_loop),
        TEST(posts_of_another_thread_all_arrive),
        TEST(a_post_of_a_post_comes_in_a_later_turn),
        TEST(what_is_left_is_freed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
