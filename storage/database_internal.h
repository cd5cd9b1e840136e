/* database_internal.h - what the parts of the database share.  See database.h. */
#pragma once
#include <sqlite3.h>
#include "base/worker.h"
#include "storage/database.h"

struct database;
struct error;

/* The connection's last error while it did `what`, by errno; -EUCLEAN = the file is damaged. */
int database_fail(sqlite3 *sqlite, const char *what, struct error *err);
/* -EUCLEAN, with what to do. */
int database_damaged(const char *how, struct error *err);
/* One row of DATABASE_ROWS, where the statement is; borrowed from it.  Of a damaged file strings
 * may be NULL. */
#define DATABASE_ROWS \
    "SELECT kind, id, uid, instance, generation, revision, spec, status FROM resource"
struct record database_row(sqlite3_stmt *statement);
/* The worker's: for use in a job of it. */
sqlite3 *database_sqlite(struct database *database);
/* Runs in order with the changes, inside the transaction of its batch: if that fails, so does this.
 */
int database_submit(struct database *database, worker_run_fn *run, worker_done_fn *done, void *job,
                    struct error *err);

/* What makes each version of the schema of the one before. */
#define DATABASE_SCHEMA_VERSION 3
extern const char *const database_schema_steps[DATABASE_SCHEMA_VERSION];

/* Statements that tell of a change that is about to be made: of what is bound for that; a
 * deletion's revision is ?6, too. */
extern const char database_event_of_put[], database_event_of_delete[];
