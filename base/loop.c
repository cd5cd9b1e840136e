#include "base/loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"

#define EVENTS_PER_TURN 64

struct loop_source {
    struct loop *loop;
    loop_fd_fn *callback;
    void *context;
    int fd;
    bool removed;
    struct loop_source *next; /* in loop->sources or, once removed, in loop->graveyard */
    struct loop_source *previous;
};

struct loop_timer {
    struct loop *loop;
    int64_t due_ms;
    int64_t every_ms; /* 0 = fires once */
    loop_fn *callback;
    void *context;
    size_t slot; /* in loop->heap */
};

struct posted {
    loop_fn *callback;
    void *context;
    struct posted *next;
};

struct loop {
    int epoll_fd;
    int wake_fd;
    bool stopped;
    struct loop_source *sources;
    struct loop_source *graveyard; /* freed when the turn ends: events may still name them */
    struct loop_timer **heap;      /* binary heap, earliest first */
    size_t heap_count;
    size_t heap_room;

    pthread_mutex_t lock; /* guards the two below, the only things other threads touch */
    struct posted *first_posted;
    struct posted *last_posted;
};

int64_t loop_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t loop_now_ms(void)
{
    return loop_now_ns() / 1000000;
}

/* --- posted work --- */

static void run_posted(void *context, uint32_t events)
{
    struct loop *loop = context;
    struct posted *next;
    uint64_t count;

    (void)events;
    if (read(loop->wake_fd, &count, sizeof count) < 0) {
        /* nothing to clear */
    }
    pthread_mutex_lock(&loop->lock);
    next = take_pointer(loop->first_posted);
    loop->last_posted = NULL;
    pthread_mutex_unlock(&loop->lock);
    while (next) {
        struct posted *posted = next;

        next = posted->next;
        posted->callback(posted->context);
        free(posted);
    }
}

int loop_post(struct loop *loop, loop_fn *callback, void *context)
{
    struct posted *posted = malloc(sizeof *posted);
    uint64_t one = 1;

    if (!posted)
        return -ENOMEM;
    *posted = (struct posted){ .callback = callback, .context = context };
    pthread_mutex_lock(&loop->lock);
    if (loop->last_posted)
        loop->last_posted->next = posted;
    else
        loop->first_posted = posted;
    loop->last_posted = posted;
    pthread_mutex_unlock(&loop->lock);
    if (write(loop->wake_fd, &one, sizeof one) < 0) {
        /* the counter is full, so the loop is awake anyway */
    }
    return 0;
}

/* --- timers --- */

static void heap_put(struct loop *loop, size_t slot, struct loop_timer *timer)
{
    loop->heap[slot] = timer;
    timer->slot = slot;
}

static void heap_up(struct loop *loop, size_t slot)
{
    struct loop_timer *timer = loop->heap[slot];

    while (slot > 0 && loop->heap[(slot - 1) / 2]->due_ms > timer->due_ms) {
        heap_put(loop, slot, loop->heap[(slot - 1) / 2]);
        slot = (slot - 1) / 2;
    }
    heap_put(loop, slot, timer);
}

static void heap_down(struct loop *loop, size_t slot)
{
    struct loop_timer *timer = loop->heap[slot];

    for (;;) {
        size_t child = 2 * slot + 1;

        if (child >= loop->heap_count)
            break;
        if (child + 1 < loop->heap_count &&
            loop->heap[child + 1]->due_ms < loop->heap[child]->due_ms)
            child++;
        if (loop->heap[child]->due_ms >= timer->due_ms)
            break;
        heap_put(loop, slot, loop->heap[child]);
        slot = child;
    }
    heap_put(loop, slot, timer);
}

static void heap_remove(struct loop *loop, struct loop_timer *timer)
{
    size_t slot = timer->slot;
    struct loop_timer *last = loop->heap[--loop->heap_count];

    if (last == timer)
        return;
    heap_put(loop, slot, last);
    heap_up(loop, slot);
    heap_down(loop, last->slot);
}

struct loop_timer *loop_after(struct loop *loop, int64_t ms, loop_fn *callback, void *context)
{
    struct loop_timer *timer = malloc(sizeof *timer);

    if (!timer)
        return NULL;
    if (loop->heap_count == loop->heap_room) {
        size_t room = loop->heap_room ? 2 * loop->heap_room : 16;
        struct loop_timer **heap = realloc(loop->heap, room * sizeof *heap);

        if (!heap) {
            free(timer);
            return NULL;
        }
        loop->heap = heap;
        loop->heap_room = room;
    }
    *timer = (struct loop_timer){ .loop = loop,
                                  .due_ms = loop_now_ms() + (ms > 0 ? ms : 0),
                                  .callback = callback,
                                  .context = context };
    heap_put(loop, loop->heap_count++, timer);
    heap_up(loop, timer->slot);
    return timer;
}

struct loop_timer *loop_every(struct loop *loop, int64_t ms, loop_fn *callback, void *context)
{
    struct loop_timer *timer = loop_after(loop, ms, callback, context);

    if (timer)
        timer->every_ms = ms;
    return timer;
}

struct loop_timer *loop_cancel(struct loop_timer *timer)
{
    if (timer) {
        heap_remove(timer->loop, timer);
        free(timer);
    }
    return NULL;
}

static void run_timers(struct loop *loop)
{
    int64_t now = loop_now_ms();

    /* Timers set by these callbacks for "now" wait for the next turn only if they are later. */
    for (size_t left = loop->heap_count; left > 0 && loop->heap_count > 0; left--) {
        struct loop_timer *timer = loop->heap[0];

        if (timer->due_ms > now)
            break;
        heap_remove(loop, timer);
        if (timer->every_ms > 0) { /* its place is still there; the callback may cancel it */
            timer->due_ms = now + timer->every_ms;
            heap_put(loop, loop->heap_count++, timer);
            heap_up(loop, timer->slot);
            timer->callback(timer->context);
            continue;
        }
        timer->callback(timer->context);
        free(timer);
    }
}

/* --- fds --- */

int loop_add(struct loop *loop, int fd, uint32_t events, loop_fd_fn *callback, void *context,
             struct loop_source **ret_source, struct error *err)
{
    struct loop_source *source = malloc(sizeof *source);
    struct epoll_event event = { .events = events, .data.ptr = source };

    if (!source)
        return error_set(err, ENOMEM, "watch an fd");
    *source = (struct loop_source){
        .loop = loop, .callback = callback, .context = context, .fd = fd, .next = loop->sources
    };
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        int code = errno;

        free(source);
        return error_set(err, code, "watch fd %d", fd);
    }
    if (loop->sources)
        loop->sources->previous = source;
    loop->sources = source;
    *ret_source = source;
    return 0;
}

int loop_change(struct loop_source *source, uint32_t events, struct error *err)
{
    struct epoll_event event = { .events = events, .data.ptr = source };

    if (epoll_ctl(source->loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event) < 0)
        return error_set(err, errno, "change what is watched of fd %d", source->fd);
    return 0;
}

struct loop_source *loop_remove(struct loop_source *source)
{
    struct loop *loop;

    if (!source)
        return NULL;
    loop = source->loop;
    epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
    if (source->previous)
        source->previous->next = source->next;
    else
        loop->sources = source->next;
    if (source->next)
        source->next->previous = source->previous;
    source->removed = true;
    source->next = loop->graveyard;
    loop->graveyard = source;
    return NULL;
}

static void bury(struct loop *loop)
{
    while (loop->graveyard) {
        struct loop_source *dead = loop->graveyard;

        loop->graveyard = dead->next;
        free(dead);
    }
}

/* --- the loop --- */

int loop_new(struct loop **ret_loop, struct error *err)
{
    struct loop *loop = calloc(1, sizeof *loop);
    struct loop_source *wake;
    int result;

    if (!loop)
        return error_set(err, ENOMEM, "create a loop");
    pthread_mutex_init(&loop->lock, NULL);
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->epoll_fd < 0 || loop->wake_fd < 0)
        result = error_set(err, errno, "create a loop's fds");
    else
        result = loop_add(loop, loop->wake_fd, EPOLLIN, run_posted, loop, &wake, err);
    if (result < 0) {
        loop_free(loop);
        return result;
    }
    *ret_loop = loop;
    return 0;
}

int loop_fd(const struct loop *loop)
{
    return loop->epoll_fd;
}

struct loop *loop_free(struct loop *loop)
{
    if (!loop)
        return NULL;
    while (loop->sources)
        loop_remove(loop->sources);
    bury(loop);
    while (loop->heap_count > 0)
        loop_cancel(loop->heap[0]);
    free(loop->heap);
    while (loop->first_posted) {
        struct posted *posted = loop->first_posted;

        loop->first_posted = posted->next;
        free(posted);
    }
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
    if (loop->wake_fd >= 0)
        close(loop->wake_fd);
    pthread_mutex_destroy(&loop->lock);
    free(loop);
    return NULL;
}

static int wait_limit(const struct loop *loop, int timeout_ms)
{
    int64_t until;

    if (loop->heap_count == 0)
        return timeout_ms;
    until = loop->heap[0]->due_ms - loop_now_ms();
    if (until < 0)
        until = 0;
    if (timeout_ms >= 0 && timeout_ms < until)
        return timeout_ms;
    return until > 3600 * 1000 ? 3600 * 1000 : (int)until;
}

int loop_turn(struct loop *loop, int timeout_ms, struct error *err)
{
    struct epoll_event events[EVENTS_PER_TURN];
    int count;

    count = epoll_wait(loop->epoll_fd, events, EVENTS_PER_TURN, wait_limit(loop, timeout_ms));
    if (count < 0 && errno != EINTR)
        return error_set(err, errno, "wait for events");
    for (int i = 0; i < count; i++) {
        struct loop_source *source = events[i].data.ptr;

        if (!source->removed)
            source->callback(source->context, events[i].events);
    }
    run_timers(loop);
    bury(loop);
    return 0;
}

int loop_run(struct loop *loop, struct error *err)
{
    while (!loop->stopped) {
        int result = loop_turn(loop, -1, err);

        if (result < 0)
            return result;
    }
    return 0;
}

void loop_stop(struct loop *loop)
{
    loop->stopped = true;
}
