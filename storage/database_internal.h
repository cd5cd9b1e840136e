/* database_internal.h - what the parts of the database share.  See database.h. */
#pragma once
#include <sqlite3.h>
#include "base/worker.h"

struct database;

/* The worker's: for use in a job of it. */
sqlite3 *database_sqlite(struct database *database);
/* The connection's last error, by errno; -EUCLEAN = the file is damaged. */
int database_fail(sqlite3 *sqlite, const char *what, struct error *err);
/* Runs in order with the changes, inside the transaction of its batch: if that fails, so does this.
 */
int database_submit(struct database *database, worker_run_fn *run, worker_done_fn *done, void *job,
                    struct error *err);
