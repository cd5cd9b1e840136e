/* test_worker.c - jobs on a thread of their own: order, batches, failures of a batch, the end. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/loop.h"
#include "base/worker.h"

struct batches {
    _Atomic bool open; /* the gate that the first job waits at */
    unsigned begun, ended, runs_in_batch, largest;
    int begin_fails, end_fails;
};

struct job {
    struct batches *batches;
    unsigned number;
    int wanted;
    bool wait;
    int result;
    char message[64];
    bool run, done;
    pthread_t ran_on;
};

struct order {
    unsigned next;
    pthread_t loop_thread;
};

static struct order order;

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);

static _Atomic unsigned failing; /* allocations of another thread than the loop's */

void *__wrap_malloc(size_t size)
{
    if (failing == 0 || pthread_equal(pthread_self(), order.loop_thread))
        return __real_malloc(size);
    failing--;
    return NULL;
}

static int begin(void *context, struct error *err)
{
    struct batches *batches = context;

    batches->begun++;
    batches->runs_in_batch = 0;
    return batches->begin_fails ? error_set(err, batches->begin_fails, "begin fails") : 0;
}

static int end(void *context, struct error *err)
{
    struct batches *batches = context;

    batches->ended++;
    if (batches->runs_in_batch > batches->largest)
        batches->largest = batches->runs_in_batch;
    return batches->end_fails ? error_set(err, batches->end_fails, "end fails") : 0;
}

static int run(void *argument, struct error *err)
{
    struct job *job = argument;

    while (job->wait && !atomic_load(&job->batches->open))
        sched_yield();
    job->run = true;
    job->ran_on = pthread_self();
    job->batches->runs_in_batch++;
    return job->wanted < 0 ? error_set(err, job->wanted, "job %u fails", job->number) : job->wanted;
}

static void done(void *argument, int result, const struct error *err)
{
    struct job *job = argument;

    assert_false(job->done);
    assert_int_equal(job->number, order.next);
    assert_true(pthread_equal(pthread_self(), order.loop_thread));
    order.next++;
    job->done = true;
    job->result = result;
    if (result < 0)
        snprintf(job->message, sizeof job->message, "%.60s", err->message);
}

/* Submits so many jobs, the first of which waits until all are queued; runs the loop till all are
 * back. */
static void run_jobs(struct job *jobs, unsigned count, struct batches *batches, size_t batch_max)
{
    struct worker_ops ops = {
        .begin = begin, .end = end, .context = batches, .batch_max = batch_max
    };
    struct loop *loop = NULL;
    struct worker *worker = NULL;

    order = (struct order){ .loop_thread = pthread_self() };
    assert_int_equal(loop_new(&loop, NULL), 0);
    assert_int_equal(worker_new(loop, "test", &ops, &worker, NULL), 0);
    for (unsigned i = 0; i < count; i++) {
        jobs[i].batches = batches;
        jobs[i].number = i;
        jobs[i].wait = i == 0;
        assert_int_equal(worker_submit(worker, run, done, &jobs[i], NULL), 0);
    }
    atomic_store(&batches->open, true);
    while (order.next < count)
        loop_turn(loop, 1000, NULL);
    worker_free(worker);
    loop_free(loop);
}

static void jobs_run_in_order_on_another_thread(void **state)
{
    struct job jobs[1000] = { 0 };
    struct batches batches = { 0 };

    (void)state;
    jobs[7].wanted = -EPERM;
    jobs[8].wanted = 3;
    run_jobs(jobs, 1000, &batches, 0);
    assert_false(pthread_equal(jobs[5].ran_on, pthread_self()));
    assert_int_equal(jobs[6].result, 0);
    assert_int_equal(jobs[7].result, -EPERM);
    assert_string_equal(jobs[7].message, "job 7 fails");
    assert_int_equal(jobs[8].result, 3);
    assert_int_equal(batches.begun, batches.ended);
}

static void waiting_jobs_share_a_batch(void **state)
{
    struct job jobs[100] = { 0 };
    struct batches batches = { 0 };

    (void)state;
    run_jobs(jobs, 100, &batches, 0);
    assert_in_range(batches.begun, 1, 3);
}

static void a_batch_has_its_limit(void **state)
{
    struct job jobs[100] = { 0 };
    struct batches batches = { 0 };

    (void)state;
    run_jobs(jobs, 100, &batches, 10);
    assert_in_range(batches.largest, 2, 10);
    assert_in_range(batches.begun, 10, 12);
}

static void a_batch_that_cannot_begin_runs_nothing(void **state)
{
    struct job jobs[20] = { 0 };
    struct batches batches = { .begin_fails = EBUSY };

    (void)state;
    atomic_store(&batches.open, true);
    run_jobs(jobs, 20, &batches, 0);
    for (int i = 0; i < 20; i++) {
        assert_false(jobs[i].run);
        assert_int_equal(jobs[i].result, -EBUSY);
        assert_string_equal(jobs[i].message, "begin fails");
    }
    assert_int_equal(batches.ended, 0);
}

static void a_batch_that_cannot_end_fails_all_of_it(void **state)
{
    struct job jobs[20] = { 0 };
    struct batches batches = { .end_fails = ENOSPC };

    (void)state;
    jobs[4].wanted = -EINVAL;
    run_jobs(jobs, 20, &batches, 0);
    for (int i = 0; i < 20; i++) {
        assert_true(jobs[i].run);
        assert_int_equal(jobs[i].result, i == 4 ? -EINVAL : -ENOSPC);
        assert_string_equal(jobs[i].message, i == 4 ? "job 4 fails" : "end fails");
    }
}

static void the_end_runs_what_is_queued(void **state)
{
    struct job jobs[50] = { 0 };
    struct batches batches = { 0 };
    struct loop *loop = NULL;
    struct worker *worker = NULL;

    (void)state;
    order = (struct order){ .loop_thread = pthread_self() };
    loop_new(&loop, NULL);
    worker_new(loop, "test", NULL, &worker, NULL);
    for (unsigned i = 0; i < 50; i++) {
        jobs[i].batches = &batches;
        jobs[i].number = i;
        worker_submit(worker, run, done, &jobs[i], NULL);
    }
    assert_null(worker_free(worker));
    assert_int_equal(order.next, 50);
    assert_null(worker_free(NULL));
    loop_free(loop);
}

/* Though nothing comes behind it. */
static void a_report_for_which_memory_was_short_comes_later(void **state)
{
    struct job job = { 0 };
    struct batches batches = { 0 };

    (void)state;
    order.loop_thread = pthread_self();
    failing = 3;
    run_jobs(&job, 1, &batches, 0);
    assert_int_equal(failing, 0);
    assert_true(job.done);
}

static void free_own_worker(void *argument, int result, const struct error *err)
{
    struct worker **worker = argument;

    *worker = worker_free(*worker);
    assert_int_equal(result, -EPERM);
    assert_string_equal(err->message, "refused"); /* still there */
}

static int refuse(void *argument, struct error *err)
{
    (void)argument;
    return error_set(err, EPERM, "refused");
}

static void the_last_done_may_free_the_worker(void **state)
{
    struct loop *loop = NULL;
    struct worker *worker = NULL;

    (void)state;
    assert_int_equal(loop_new(&loop, NULL), 0);
    assert_int_equal(worker_new(loop, "test", NULL, &worker, NULL), 0);
    assert_int_equal(worker_submit(worker, refuse, free_own_worker, &worker, NULL), 0);
    while (worker)
        loop_turn(loop, 1000, NULL);
    loop_turn(loop, 0, NULL); /* no report of it is left */
    loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_run_in_order_on_another_thread),
        cmocka_unit_test(waiting_jobs_share_a_batch),
        cmocka_unit_test(a_batch_has_its_limit),
        cmocka_unit_test(a_batch_that_cannot_begin_runs_nothing),
        cmocka_unit_test(a_batch_that_cannot_end_fails_all_of_it),
        cmocka_unit_test(the_end_runs_what_is_queued),
        cmocka_unit_test(a_report_for_which_memory_was_short_comes_later),
        cmocka_unit_test(the_last_done_may_free_the_worker),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
