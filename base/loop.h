/* loop.h - one thread's epoll loop: fds, timers and work handed over from other threads.
 *
 * All functions belong to the loop's own thread, but loop_post and the clock, which are any's.
 * Callbacks run one at a time and must not block. */
#pragma once
#include <stdint.h>

struct error;
struct loop;
struct loop_source; /* one watched fd */
struct loop_timer;

/* events: EPOLLIN | EPOLLOUT | EPOLLHUP ... that happened. */
typedef void loop_fd_fn(void *context, uint32_t events);
typedef void loop_fn(void *context);

int loop_new(struct loop **ret_loop, struct error *err);
struct loop *loop_free(struct loop *loop); /* accepts NULL; sources and timers left are freed */

/* Runs until loop_stop.  0, or -errno if epoll itself fails. */
int loop_run(struct loop *loop, struct error *err);
/* One turn: waits at most timeout_ms (-1 = for ever) for the first event. */
int loop_turn(struct loop *loop, int timeout_ms, struct error *err);
void loop_stop(struct loop *loop);
/* Readable when a turn would not wait, for another loop to watch; borrowed.  Timers do not count.
 */
int loop_fd(const struct loop *loop);

/* Watches a borrowed fd.  Remove the source before closing the fd; removing inside any callback is
 * safe (the memory lives until the turn ends). */
int loop_add(struct loop *loop, int fd, uint32_t events, loop_fd_fn *callback, void *context,
             struct loop_source **ret_source, struct error *err);
int loop_change(struct loop_source *source, uint32_t events, struct error *err);
struct loop_source *loop_remove(struct loop_source *source); /* accepts NULL, returns NULL */

/* CLOCK_MONOTONIC. */
int64_t loop_now_ns(void);
int64_t loop_now_ms(void);
/* Fires once, `ms` from now; then it is gone.  Cancel only one that has not fired: set your pointer
 * to NULL in the callback.  NULL is returned only when memory is short. */
struct loop_timer *loop_after(struct loop *loop, int64_t ms, loop_fn *callback, void *context);
/* Fires again and again until it is cancelled, also from its own callback; once it is there it
 * needs no more memory. */
struct loop_timer *loop_every(struct loop *loop, int64_t ms, loop_fn *callback, void *context);
struct loop_timer *loop_cancel(struct loop_timer *timer); /* accepts NULL, returns NULL */

/* Runs callback(context) on the loop's thread in a later turn; any thread; -ENOMEM else 0. */
int loop_post(struct loop *loop, loop_fn *callback, void *context);
