/* The keys of requests (Idempotency-Key) as they are read back.  See database.h. */
#include "base/error.h"
#include "storage/database.h"
#include "storage/database_internal.h"

int database_load_keys(struct database *database, database_key_fn *row, void *context,
                       struct error *err)
{
    sqlite3 *sqlite = database_sqlite(database);
    sqlite3_stmt *statement = NULL;
    int result = 0;
    int code;

    if (sqlite3_prepare_v2(sqlite,
                           "SELECT sequence, created_ms, status, scope, key, digest, etag, "
                           "location, body FROM idempotency ORDER BY sequence",
                           -1, &statement, NULL) != SQLITE_OK)
        return database_fail(sqlite, "read its keys", err);
    while ((code = sqlite3_step(statement)) == SQLITE_ROW && result >= 0) {
        struct key_record record = {
            .sequence = sqlite3_column_int64(statement, 0),
            .created_ms = sqlite3_column_int64(statement, 1),
            .status = sqlite3_column_int(statement, 2),
            .scope = (const char *)sqlite3_column_text(statement, 3),
            .key = (const char *)sqlite3_column_text(statement, 4),
            .digest = (const char *)sqlite3_column_text(statement, 5),
            .etag = (const char *)sqlite3_column_text(statement, 6),
            .location = (const char *)sqlite3_column_text(statement, 7),
            .body = (const char *)sqlite3_column_text(statement, 8),
        };

        result = row(context, &record, err);
    }
    if (result >= 0 && code != SQLITE_DONE)
        result = database_fail(sqlite, "read its keys", err);
    sqlite3_finalize(statement);
    return result;
}
