/* worker.h - one thread that runs jobs in order, and tells the loop when each is done.
 *
 * Effects that may wait (network, database, copies) run here so that the loop never waits.  Jobs
 * waiting at one moment form a batch; `begin` and `end` frame it (one database transaction per
 * batch), either may be NULL.  When `end` fails, every job of the batch that had succeeded is
 * reported with that failure instead. */
#pragma once
#include <stddef.h>
#include "base/error.h"

struct loop;
struct worker;

struct worker_ops {
    int (*begin)(void *context, struct error *err); /* fails: no job of the batch is run */
    int (*end)(void *context, struct error *err);
    void *context;    /* borrowed by begin, end */
    size_t batch_max; /* 0 = no limit */
};

/* On the worker's thread. */
typedef int worker_run_fn(void *job, struct error *err);
/* On the loop's thread, once per job, in order of submission.  result: run's, or the batch's
 * failure.  err is valid if result < 0. */
typedef void worker_done_fn(void *job, int result, const struct error *err);

/* name: at most 15 characters, the thread's. */
int worker_new(struct loop *loop, const char *name, const struct worker_ops *ops,
               struct worker **ret_worker, struct error *err);
/* Runs what is queued, calls every outstanding done, joins the thread.  Accepts NULL.  Unless the
 * done of its last job calls it, the loop may not turn any more: a report may be on its way there.
 */
struct worker *worker_free(struct worker *worker);

/* Loop thread.  `job` stays owned by the caller until done (which usually frees it).  -ESHUTDOWN
 * for NULL, or from within worker_free. */
int worker_submit(struct worker *worker, worker_run_fn *run, worker_done_fn *done, void *job,
                  struct error *err);

/* Loop thread.  Closes the fd on the worker's: to be the last to close one may take long, of a
 * guest's memory 200 ms a GiB.  Here, if there is no worker, or no memory. */
void worker_close(struct worker *worker, int fd);
