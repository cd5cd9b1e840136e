/* Events: how they are made of changes, and read back.  See database.h, schema_events.sql.
 *
 * They are made by statements that run with those of the change, and not by triggers: a schema that
 * is not trusted (database.c's pragma) may not use JSON functions. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "storage/database.h"
#include "storage/database_internal.h"

#define NOW "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"
/* Larger ones (2 KiB) are not told: all events have to fit into a backup. */
#define LABELS(spec)                                                              \
    "json(iif(length(CAST(json_extract(" spec ", '$.labels') AS BLOB)) <= 2048, " \
    "json_extract(" spec ", '$.labels'), NULL))"
#define NEW_LABELS LABELS("?7")
#define OLD_LABELS LABELS("spec")

/* Before the row is written.  A write that changes nothing (it is tried again) is no event.  exit:
 * only with the change that it came with. */
const char database_event_of_put[] =
    "INSERT INTO event SELECT ?6, ?1, ?2, type, json_object('revision', ?6, 'time', " NOW ", "
    "'type', type, 'kind', ?1, 'id', ?2, 'uid', ?3, 'generation', ?5, 'labels', " NEW_LABELS ", "
    "'old_state', json_extract(old, '$.state'), 'state', json_extract(?8, '$.state'), "
    "'reason', json_extract(?8, '$.reason'), "
    "'exit', json(CASE WHEN json_extract(?8, '$.exit') IS NOT json_extract(old, '$.exit') "
    "THEN json_extract(?8, '$.exit') END)) "
    "FROM (SELECT iif(resource.id IS NULL, 'created', 'changed') AS type, status AS old "
    "FROM (SELECT 1) LEFT JOIN resource ON kind = ?1 AND id = ?2 "
    "WHERE resource.id IS NULL OR spec <> ?7 OR status <> ?8)";

/* Before the row goes. */
const char database_event_of_delete[] =
    "INSERT INTO event SELECT ?6, kind, id, 'deleted', json_object('revision', ?6, 'time', " NOW
    ", "
    "'type', 'deleted', 'kind', kind, 'id', id, 'uid', uid, 'generation', generation, "
    "'labels', " OLD_LABELS ", 'old_state', json_extract(status, '$.state'), 'state', NULL, "
    "'reason', NULL, 'exit', NULL) "
    "FROM resource WHERE kind = ?1 AND id = ?2";

enum column { COLUMN_KIND, COLUMN_RESOURCE, COLUMN_TYPE, COLUMN_DOCUMENT, COLUMN_COUNT };

struct events_job {
    struct database *database;
    int64_t after;
    size_t limit;
    struct event_page page;
    database_events_fn *done;
    void *context;
};

static int no_memory(struct error *err)
{
    return error_no_memory(err);
}

/* The strings in one piece, which event.kind begins. */
static int take_row(sqlite3_stmt *row, struct event *ret_event, struct error *err)
{
    const char *texts[COLUMN_COUNT];
    size_t sizes[COLUMN_COUNT], size = 0;
    char *to;

    for (int i = 0; i < COLUMN_COUNT; i++) {
        texts[i] = (const char *)sqlite3_column_text(row, i);
        sizes[i] = texts[i] ? (size_t)sqlite3_column_bytes(row, i) + 1 : 0;
        size += sizes[i];
        if (!texts[i])
            return no_memory(err);
    }
    to = malloc(size);
    if (!to)
        return no_memory(err);
    for (int i = 0; i < COLUMN_COUNT; i++) {
        memcpy(to, texts[i], sizes[i]);
        texts[i] = to;
        to += sizes[i];
    }
    *ret_event = (struct event){ .id = sqlite3_column_int64(row, COLUMN_COUNT),
                                 .kind = texts[COLUMN_KIND],
                                 .resource = texts[COLUMN_RESOURCE],
                                 .type = texts[COLUMN_TYPE],
                                 .document = texts[COLUMN_DOCUMENT] };
    return 0;
}

static int read_rows(struct events_job *job, sqlite3_stmt *rows, struct error *err)
{
    int result = 0;
    int code;

    sqlite3_bind_int64(rows, 1, job->after);
    sqlite3_bind_int64(rows, 2, (sqlite3_int64)job->limit);
    while (result == 0 && (code = sqlite3_step(rows)) != SQLITE_DONE) {
        if (code != SQLITE_ROW)
            return database_fail(sqlite3_db_handle(rows), "read its events", err);
        result = take_row(rows, &job->page.events[job->page.count], err);
        job->page.count += result == 0;
    }
    return result;
}

static int read_counters(sqlite3_stmt *counters, struct event_page *page, struct error *err)
{
    if (sqlite3_step(counters) != SQLITE_ROW)
        return database_fail(sqlite3_db_handle(counters), "read its events", err);
    page->trimmed = sqlite3_column_int64(counters, 0);
    page->revision = sqlite3_column_int64(counters, 1);
    return 0;
}

static int run_read(void *argument, struct error *err)
{
    struct events_job *job = argument;
    sqlite3 *sqlite = database_sqlite(job->database);
    sqlite3_stmt *counters = NULL, *rows = NULL;
    int result = 0;

    job->page.events = calloc(job->limit + 1, sizeof *job->page.events); /* never of no bytes */
    if (!job->page.events)
        return no_memory(err);
    if (sqlite3_prepare_v2(sqlite,
                           "SELECT (SELECT value FROM counter WHERE name = 'events_trimmed'), "
                           "(SELECT value FROM counter WHERE name = 'revision')",
                           -1, &counters, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(sqlite,
                           "SELECT kind, resource, type, document, id FROM event WHERE id > ?1 "
                           "ORDER BY id LIMIT ?2",
                           -1, &rows, NULL) != SQLITE_OK)
        result = database_fail(sqlite, "read its events", err);
    if (result == 0)
        result = read_counters(counters, &job->page, err);
    if (result == 0)
        result = read_rows(job, rows, err);
    sqlite3_finalize(counters);
    sqlite3_finalize(rows);
    return result;
}

static void read_done(void *argument, int result, const struct error *err)
{
    struct events_job *job = argument;

    job->done(job->context, result < 0 ? NULL : &job->page, err);
    for (size_t i = 0; i < job->page.count; i++)
        free((char *)job->page.events[i].kind);
    free(job->page.events);
    free(job);
}

int database_read_events(struct database *database, int64_t after, size_t limit,
                         database_events_fn *done, void *context, struct error *err)
{
    struct events_job *job = malloc(sizeof *job);
    int result;

    if (!job)
        return no_memory(err);
    *job = (struct events_job){
        .database = database, .after = after, .limit = limit, .done = done, .context = context
    };
    result = database_submit(database, run_read, read_done, job, err);
    if (result < 0)
        free(job);
    return result;
}
