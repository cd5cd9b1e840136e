/* A copy of the database as one change saw it.  By the one connection that there is, so inside the
 * transaction of a batch, where neither VACUUM INTO nor sqlite3_backup may run: they want a
 * connection without one.  sqlite3_serialize reads through it; a batch that is not committed fails
 * the copy, too. */
#include <errno.h>
#include <stdlib.h>

#include "base/error.h"
#include "storage/database.h"
#include "storage/database_internal.h"

struct backup_job {
    struct database *database;
    unsigned char *bytes; /* SQLite's */
    sqlite3_int64 size;
    database_backup_fn *done;
    void *context;
};

static int run_backup(void *argument, struct error *err)
{
    struct backup_job *job = argument;

    job->bytes = sqlite3_serialize(database_sqlite(job->database), "main", &job->size, 0);
    if (!job->bytes)
        return error_set(err, ENOMEM, "database: memory is short for a copy of it");
    return 0;
}

static void backup_done(void *argument, int result, const struct error *err)
{
    struct backup_job *job = argument;

    job->done(job->context, result < 0 ? NULL : job->bytes, result < 0 ? 0 : (size_t)job->size,
              err);
    sqlite3_free(job->bytes);
    free(job);
}

int database_backup(struct database *database, database_backup_fn *done, void *context,
                    struct error *err)
{
    struct backup_job *job = malloc(sizeof *job);
    int result;

    if (!job)
        return error_set(err, ENOMEM, "memory is short");
    *job = (struct backup_job){ .database = database, .done = done, .context = context };
    result = database_submit(database, run_backup, backup_done, job, err);
    if (result < 0)
        free(job);
    return result;
}
