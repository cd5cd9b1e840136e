#include "base/worker.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/loop.h"

#define REPORT_AGAIN_NS 10000000

struct task {
    worker_run_fn *run;
    worker_done_fn *done;
    void *job;
    int result;
    struct error err;
    struct task *next;
};

struct task_queue {
    struct task *first;
    struct task *last;
};

struct worker {
    struct loop *loop;
    struct worker_ops ops;
    pthread_t thread;

    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t wake;
    struct task_queue waiting;
    struct task_queue finished;
    bool report_posted; /* a report is on its way to the loop */
    bool ending;
};

static void queue_put(struct task_queue *queue, struct task *task)
{
    task->next = NULL;
    if (queue->last)
        queue->last->next = task;
    else
        queue->first = task;
    queue->last = task;
}

static void report_finished(void *context)
{
    struct worker *worker = context;
    struct task *next;

    pthread_mutex_lock(&worker->lock);
    next = take_pointer(worker->finished.first);
    worker->finished.last = NULL;
    worker->report_posted = false;
    pthread_mutex_unlock(&worker->lock);
    while (next) {
        struct task *task = next;

        next = task->next;
        task->done(task->job, task->result, &task->err);
        free(task);
    }
}

/* Takes up to batch_max tasks off the queue; called with the lock held. */
static struct task *take_batch(struct worker *worker)
{
    struct task *first = worker->waiting.first;
    struct task *last = first;
    size_t count = 1;

    if (worker->ops.batch_max == 0) {
        worker->waiting = (struct task_queue){ 0 };
        return first;
    }
    while (last->next && count++ < worker->ops.batch_max)
        last = last->next;
    worker->waiting.first = last->next;
    if (!last->next)
        worker->waiting.last = NULL;
    last->next = NULL;
    return first;
}

static void run_batch(struct worker *worker, struct task *first)
{
    const struct worker_ops *ops = &worker->ops;
    struct error err = { 0 };
    int framed = ops->begin ? ops->begin(ops->context, &err) : 0;

    for (struct task *task = first; task && framed >= 0; task = task->next)
        task->result = task->run(task->job, &task->err);
    if (framed >= 0 && ops->end)
        framed = ops->end(ops->context, &err);
    if (framed >= 0)
        return;
    for (struct task *task = first; task; task = task->next)
        if (task->result >= 0) {
            task->result = framed;
            task->err = err;
        }
}

/* With the lock, which others have meanwhile; its end is not slept over. */
static void wait_a_little(struct worker *worker)
{
    int64_t end_ns = loop_now_ns() + REPORT_AGAIN_NS;
    struct timespec end = { end_ns / 1000000000, end_ns % 1000000000 };

    (void)pthread_cond_clockwait(&worker->wake, &worker->lock, CLOCK_MONOTONIC, &end);
}

static void *work(void *context)
{
    struct worker *worker = context;

    pthread_mutex_lock(&worker->lock);
    for (;;) {
        struct task *batch;
        bool post;

        while (!worker->waiting.first && !worker->ending)
            pthread_cond_wait(&worker->wake, &worker->lock);
        if (!worker->waiting.first)
            break;
        batch = take_batch(worker);
        pthread_mutex_unlock(&worker->lock);
        run_batch(worker, batch);
        pthread_mutex_lock(&worker->lock);
        while (batch) {
            struct task *task = batch;

            batch = task->next;
            queue_put(&worker->finished, task);
        }
        post = !worker->report_posted;
        worker->report_posted = true;
        /* Short of memory: again, for no other batch may come.  worker_free reports these, too. */
        while (post && loop_post(worker->loop, report_finished, worker) < 0 && !worker->ending)
            wait_a_little(worker);
    }
    pthread_mutex_unlock(&worker->lock);
    return NULL;
}

int worker_new(struct loop *loop, const char *name, const struct worker_ops *ops,
               struct worker **ret_worker, struct error *err)
{
    struct worker *worker = calloc(1, sizeof *worker);
    int code;

    if (!worker)
        return error_set(err, ENOMEM, "create worker %s", name);
    worker->loop = loop;
    if (ops)
        worker->ops = *ops;
    pthread_mutex_init(&worker->lock, NULL);
    pthread_cond_init(&worker->wake, NULL);
    code = pthread_create(&worker->thread, NULL, work, worker);
    if (code != 0) {
        free(worker);
        return error_set(err, code, "start worker %s", name);
    }
    pthread_setname_np(worker->thread, name);
    *ret_worker = worker;
    return 0;
}

struct worker *worker_free(struct worker *worker)
{
    if (!worker)
        return NULL;
    pthread_mutex_lock(&worker->lock);
    worker->ending = true;
    pthread_cond_signal(&worker->wake);
    pthread_mutex_unlock(&worker->lock);
    pthread_join(worker->thread, NULL);
    report_finished(worker);
    pthread_mutex_destroy(&worker->lock);
    pthread_cond_destroy(&worker->wake);
    free(worker);
    return NULL;
}

int worker_submit(struct worker *worker, worker_run_fn *run, worker_done_fn *done, void *job,
                  struct error *err)
{
    struct task *task;

    if (!worker || worker->ending) /* only the loop's thread, ours, sets it */
        return error_set(err, ESHUTDOWN, "this is being shut down");
    task = calloc(1, sizeof *task);
    if (!task)
        return error_set(err, ENOMEM, "queue a job");
    *task = (struct task){ .run = run, .done = done, .job = job };
    pthread_mutex_lock(&worker->lock);
    queue_put(&worker->waiting, task);
    pthread_cond_signal(&worker->wake);
    pthread_mutex_unlock(&worker->lock);
    return 0;
}

struct closing {
    int fd;
};

static int run_close(void *job, struct error *err)
{
    struct closing *closing = job;

    (void)err;
    cleanup_close(&closing->fd);
    return 0;
}

static void is_closed(void *job, int result, const struct error *err)
{
    (void)result;
    (void)err;
    free(job);
}

void worker_close(struct worker *worker, int fd)
{
    struct closing *closing = malloc(sizeof *closing);

    if (closing)
        closing->fd = fd;
    if (!closing || worker_submit(worker, run_close, is_closed, closing, NULL) < 0) {
        cleanup_close(&fd);
        free(closing);
    }
}
