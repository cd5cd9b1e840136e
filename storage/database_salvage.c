/* What can still be read of a database that is damaged.  Nothing is written: the connection is for
 * reading only, and such a one never moves what is in the WAL. */
#include <errno.h>
#include <stdio.h>

#include "base/error.h"
#include "storage/database.h"
#include "storage/database_internal.h"

/* Up to the first page that cannot be read. */
static void read_rows(sqlite3 *sqlite, const char *sql, database_row_fn *row, void *context)
{
    sqlite3_stmt *statement = NULL;
    struct record record;

    if (sqlite3_prepare_v2(sqlite, sql, -1, &statement, NULL) != SQLITE_OK)
        return;
    while (sqlite3_step(statement) == SQLITE_ROW) {
        record = database_row(statement);
        if (record.kind && record.id && record.uid && record.spec && record.status)
            (void)row(context, &record, NULL);
    }
    sqlite3_finalize(statement);
}

int database_salvage(const char *dir_path, database_row_fn *row, void *context, struct error *err)
{
    char path[4096];
    sqlite3 *sqlite = NULL;
    int result = 0;

    if ((size_t)snprintf(path, sizeof path, "%s/warren.db", dir_path) >= sizeof path)
        return error_set(err, ENAMETOOLONG, "the state directory's path is too long");
    if (sqlite3_open_v2(path, &sqlite,
                        SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW,
                        NULL) != SQLITE_OK)
        result = database_fail(sqlite, "open", err);
    if (result == 0) { /* from both ends, so that one bad page hides as little as it can */
        read_rows(sqlite, DATABASE_ROWS " ORDER BY kind, id", row, context);
        read_rows(sqlite, DATABASE_ROWS " ORDER BY kind DESC, id DESC", row, context);
    }
    sqlite3_close(sqlite);
    return result;
}
