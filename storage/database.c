#include "storage/database.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/histogram.h"
#include "base/loop.h"
#include "base/worker.h"
#include "storage/database_internal.h"

#define WAL_ROOM_BYTES (4 << 20) /* what SQLite writes before it begins at its start again */

enum statement {
    STATEMENT_PUT,
    STATEMENT_DELETE,
    STATEMENT_COUNT_INSTANCE,
    STATEMENT_COUNT_REVISION,
    STATEMENT_PUT_KEY,
    STATEMENT_DROP_KEYS,
    STATEMENT_TELL_PUT,
    STATEMENT_TELL_DELETE,
    STATEMENT_TRIM_EVENTS,
    STATEMENT_COUNT_TRIMMED,
    STATEMENT_COUNT
};

static const char *const statement_text[STATEMENT_COUNT] = {
    /* NOLINTNEXTLINE(bugprone-suspicious-missing-comma): it is one statement */
    [STATEMENT_PUT] = "INSERT INTO resource VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) "
                      "ON CONFLICT (kind, id) DO UPDATE SET uid = ?3, instance = ?4, "
                      "generation = ?5, revision = ?6, spec = ?7, status = ?8",
    [STATEMENT_DELETE] = "DELETE FROM resource WHERE kind = ?1 AND id = ?2",
    [STATEMENT_COUNT_INSTANCE] =
        "UPDATE counter SET value = max(value, ?1) WHERE name = 'instance'",
    [STATEMENT_COUNT_REVISION] =
        "UPDATE counter SET value = max(value, ?1) WHERE name = 'revision'",
    [STATEMENT_PUT_KEY] =
        "INSERT OR REPLACE INTO idempotency VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    [STATEMENT_DROP_KEYS] = "DELETE FROM idempotency WHERE sequence < ?1",
    [STATEMENT_TELL_PUT] = database_event_of_put,
    [STATEMENT_TELL_DELETE] = database_event_of_delete,
    [STATEMENT_TRIM_EVENTS] = "DELETE FROM event WHERE id <= ?1",
    [STATEMENT_COUNT_TRIMMED] =
        "UPDATE counter SET value = max(value, ?1) WHERE name = 'events_trimmed'",
};

struct database {
    sqlite3 *sqlite; /* the worker's, once it runs */
    sqlite3_stmt *statements[STATEMENT_COUNT];
    struct worker *worker;
    int64_t began_ns;  /* the batch, on loop_now_ns's clock */
    struct error lost; /* why SQLite rolled this batch's transaction back; code 0 = it did not */
    struct histogram commits;
    int64_t events_kept; /* set before the worker has its first job */
    int64_t revision;    /* the loop's: newest that is known to be on the disk */
    database_watch_fn *watch;
    void *watch_context;
};

struct write_job {
    struct database *database;
    bool remove;
    struct record record; /* its strings, and the key's, are in text[]; kind NULL = none */
    struct key_record key;
    bool has_key;
    database_done_fn *done;
    void *context;
    char text[];
};

/* --- the worker's side --- */

static int execute(struct database *database, const char *sql, struct error *err)
{
    if (sqlite3_exec(database->sqlite, sql, NULL, NULL, NULL) != SQLITE_OK)
        return database_fail(database->sqlite, strlen(sql) > 64 ? "schema" : sql, err);
    return 0;
}

static int begin_batch(void *context, struct error *err)
{
    struct database *database = context;

    database->began_ns = loop_now_ns();
    database->lost = (struct error){ 0 };
    return execute(database, "BEGIN IMMEDIATE", err);
}

/* After FULL, IOERR or NOMEM SQLite may have rolled back everything, of a read, too.  Then nothing
 * more of the batch may run: outside of a transaction, a savepoint's release would commit. */
static int is_lost(const struct database *database, struct error *err)
{
    if (database->lost.code != 0)
        return error_set(err, database->lost.code, "%s", database->lost.message);
    if (sqlite3_get_autocommit(database->sqlite))
        return error_set(err, EIO, "database: the transaction was rolled back");
    return 0;
}

static int end_batch(void *context, struct error *err)
{
    struct database *database = context;
    int result = is_lost(database, err);

    if (result == 0)
        result = execute(database, "COMMIT", err);
    if (result < 0 && !sqlite3_get_autocommit(database->sqlite))
        execute(database, "ROLLBACK", NULL);
    histogram_observe(&database->commits, (loop_now_ns() - database->began_ns) / 1000);
    return result;
}

static int run_statement(struct database *database, sqlite3_stmt *statement, struct error *err)
{
    int code = sqlite3_step(statement);
    int result = code == SQLITE_DONE ? 0 : database_fail(database->sqlite, "write", err);

    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    return result;
}

static int count(struct database *database, enum statement which, int64_t value, struct error *err)
{
    sqlite3_stmt *statement = database->statements[which];

    sqlite3_bind_int64(statement, 1, value);
    return run_statement(database, statement, err);
}

/* Ids are revisions, so those of the newest `events_kept` revisions are at most as many. */
static int trim_events(struct database *database, int64_t revision, struct error *err)
{
    int64_t last = revision - database->events_kept;
    int result = last > 0 ? count(database, STATEMENT_TRIM_EVENTS, last, err) : 0;

    if (result < 0 || last <= 0 || sqlite3_changes(database->sqlite) == 0)
        return result;
    return count(database, STATEMENT_COUNT_TRIMMED, last, err);
}

static int run_bound(struct database *database, enum statement which, const struct record *record,
                     struct error *err)
{
    sqlite3_stmt *statement = database->statements[which];

    sqlite3_bind_text(statement, 1, record->kind, -1, SQLITE_STATIC);
    sqlite3_bind_text(statement, 2, record->id, -1, SQLITE_STATIC);
    sqlite3_bind_text(statement, 3, record->uid, -1, SQLITE_STATIC);
    sqlite3_bind_int64(statement, 4, record->instance);
    sqlite3_bind_int64(statement, 5, record->generation);
    sqlite3_bind_int64(statement, 6, record->revision);
    sqlite3_bind_text(statement, 7, record->spec, -1, SQLITE_STATIC);
    sqlite3_bind_text(statement, 8, record->status, -1, SQLITE_STATIC);
    return run_statement(database, statement, err);
}

static int write_record(struct database *database, const struct write_job *job, struct error *err)
{
    const struct record *record = &job->record;
    int result =
        run_bound(database, job->remove ? STATEMENT_TELL_DELETE : STATEMENT_TELL_PUT, record, err);

    if (result == 0)
        result = run_bound(database, job->remove ? STATEMENT_DELETE : STATEMENT_PUT, record, err);
    if (result == 0 && !job->remove)
        result = count(database, STATEMENT_COUNT_INSTANCE, record->instance, err);
    if (result == 0)
        result = count(database, STATEMENT_COUNT_REVISION, record->revision, err);
    return result < 0 ? result : trim_events(database, record->revision, err);
}

static int write_key(struct database *database, const struct key_record *key, struct error *err)
{
    sqlite3_stmt *statement = database->statements[STATEMENT_PUT_KEY];
    const char *const texts[] = { key->etag, key->location, key->body };
    int result;

    sqlite3_bind_int64(statement, 1, key->sequence);
    sqlite3_bind_text(statement, 2, key->scope, -1, SQLITE_STATIC);
    sqlite3_bind_text(statement, 3, key->key, -1, SQLITE_STATIC);
    sqlite3_bind_text(statement, 4, key->digest, -1, SQLITE_STATIC);
    sqlite3_bind_int64(statement, 5, key->created_ms);
    sqlite3_bind_int64(statement, 6, key->status);
    for (int i = 0; i < 3; i++) /* NULL stays so */
        sqlite3_bind_text(statement, 7 + i, texts[i], -1, SQLITE_STATIC);
    result = run_statement(database, statement, err);
    return result < 0 ? result : count(database, STATEMENT_DROP_KEYS, key->keep_from, err);
}

static int run_write(void *argument, struct error *err)
{
    struct write_job *job = argument;
    struct database *database = job->database;
    int result = is_lost(database, err);

    if (result == 0)
        result = execute(database, "SAVEPOINT one", err);
    if (result < 0)
        return result;
    if (job->record.kind)
        result = write_record(database, job, err);
    if (result == 0 && job->has_key)
        result = write_key(database, &job->key, err);
    if (result < 0 && !sqlite3_get_autocommit(database->sqlite))
        execute(database, "ROLLBACK TO one", NULL);
    if (!sqlite3_get_autocommit(database->sqlite))
        execute(database, "RELEASE one", NULL);
    else
        error_set(&database->lost, result < 0 ? result : -EIO, "%s",
                  result < 0 && err ? err->message : "the transaction was rolled back");
    return result < 0 ? result : is_lost(database, err);
}

static void write_done(void *argument, int result, const struct error *err)
{
    struct write_job *job = argument;
    struct database *database = job->database;

    if (job->done)
        job->done(job->context, result, err);
    /* Then: what is said to be there can be seen by now. */
    if (result >= 0 && job->record.kind && job->record.revision > database->revision) {
        database->revision = job->record.revision;
        if (database->watch)
            database->watch(database->watch_context);
    }
    free(job);
}

/* --- the loop's side --- */

static size_t size_of(const char *text)
{
    return text ? strlen(text) + 1 : 0;
}

static const char *keep(char **to, const char *text)
{
    char *kept = *to;
    size_t size = size_of(text);

    if (!text)
        return NULL;

    memcpy(kept, text, size);
    *to += size;
    return kept;
}

static size_t text_size(const struct record *record, const struct key_record *key)
{
    return size_of(record->kind) + size_of(record->id) + size_of(record->uid) +
           size_of(record->spec) + size_of(record->status) + size_of(key->scope) +
           size_of(key->key) + size_of(key->digest) + size_of(key->etag) + size_of(key->location) +
           size_of(key->body);
}

static void keep_texts(struct write_job *job)
{
    struct record *record = &job->record;
    struct key_record *key = &job->key;
    const char **const texts[] = { &record->kind,   &record->id,    &record->uid, &record->spec,
                                   &record->status, &key->scope,    &key->key,    &key->digest,
                                   &key->etag,      &key->location, &key->body };
    char *text = job->text;

    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++)
        *texts[i] = keep(&text, *texts[i]);
}

static int submit(struct database *database, const struct record *record,
                  const struct key_record *key, bool remove, database_done_fn *done, void *context,
                  struct error *err)
{
    static const struct key_record no_key = { 0 };
    struct record whole = *record;
    struct write_job *job;
    int result;

    if (whole.kind) {
        whole.uid = whole.uid ? whole.uid : "";
        whole.spec = whole.spec ? whole.spec : "{}";
        whole.status = whole.status ? whole.status : "{}";
    }
    job = calloc(1, sizeof *job + text_size(&whole, key ? key : &no_key));
    if (!job)
        return error_set(err, ENOMEM, "queue a change");
    *job = (struct write_job){ .database = database,
                               .remove = remove,
                               .record = whole,
                               .key = key ? *key : no_key,
                               .has_key = key != NULL,
                               .done = done,
                               .context = context };
    keep_texts(job);
    result = worker_submit(database->worker, run_write, write_done, job, err);
    if (result < 0)
        free(job);
    return result;
}

int database_put(struct database *database, const struct record *record, database_done_fn *done,
                 void *context, struct error *err)
{
    return submit(database, record, record->idempotency, /* remove= */ false, done, context, err);
}

int database_delete(struct database *database, const struct record *record, database_done_fn *done,
                    void *context, struct error *err)
{
    return submit(database, record, NULL, /* remove= */ true, done, context, err);
}

sqlite3 *database_sqlite(struct database *database)
{
    return database->sqlite;
}

int database_submit(struct database *database, worker_run_fn *run, worker_done_fn *done, void *job,
                    struct error *err)
{
    return worker_submit(database->worker, run, done, job, err);
}

int database_put_key(struct database *database, const struct key_record *key,
                     database_done_fn *done, void *context, struct error *err)
{
    const struct record none = { 0 };

    return submit(database, &none, key, /* remove= */ false, done, context, err);
}

int64_t database_revision(const struct database *database)
{
    return database->revision;
}

void database_watch(struct database *database, database_watch_fn *watch, void *context)
{
    database->watch = watch;
    database->watch_context = context;
}

void database_keep_events(struct database *database, int64_t count)
{
    database->events_kept = count;
}

const struct histogram *database_commits(const struct database *database)
{
    return &database->commits;
}

/* --- opening --- */

static int read_number(struct database *database, const char *sql, int64_t *ret_value,
                       struct error *err)
{
    sqlite3_stmt *statement = NULL;
    int result = 0;

    if (sqlite3_prepare_v2(database->sqlite, sql, -1, &statement, NULL) != SQLITE_OK)
        return database_fail(database->sqlite, sql, err);
    if (sqlite3_step(statement) == SQLITE_ROW)
        *ret_value = sqlite3_column_int64(statement, 0);
    else
        result = database_fail(database->sqlite, sql, err);
    sqlite3_finalize(statement);
    return result;
}

static int check_integrity(struct database *database, struct error *err)
{
    sqlite3_stmt *statement = NULL;
    int result = 0;

    if (sqlite3_prepare_v2(database->sqlite, "PRAGMA quick_check(1)", -1, &statement, NULL) !=
        SQLITE_OK)
        return database_fail(database->sqlite, "check", err);
    if (sqlite3_step(statement) != SQLITE_ROW)
        result = database_fail(database->sqlite, "check", err);
    else if (strcmp((const char *)sqlite3_column_text(statement, 0), "ok") != 0)
        result = database_damaged((const char *)sqlite3_column_text(statement, 0), err);
    sqlite3_finalize(statement);
    return result;
}

static int migrate(struct database *database, struct error *err)
{
    int64_t version = 0;
    int result = read_number(database, "PRAGMA user_version", &version, err);
    char pragma[64];

    if (result < 0)
        return result;
    if (version > DATABASE_SCHEMA_VERSION)
        return error_set(err, EPROTO,
                         "warren.db has schema version %lld, this program knows %d: "
                         "run the newer warrend, or restore a backup of this one's",
                         (long long)version, DATABASE_SCHEMA_VERSION);
    if (version == DATABASE_SCHEMA_VERSION)
        return 0;
    snprintf(pragma, sizeof pragma, "PRAGMA user_version = %d", DATABASE_SCHEMA_VERSION);
    result = execute(database, "BEGIN IMMEDIATE", err);
    for (int64_t step = version; result == 0 && step < DATABASE_SCHEMA_VERSION; step++)
        result = execute(database, database_schema_steps[step], err);
    if (result == 0)
        result = execute(database, pragma, err);
    if (result == 0)
        result = execute(database, "COMMIT", err);
    return result;
}

struct record database_row(sqlite3_stmt *statement)
{
    return (struct record){
        .kind = (const char *)sqlite3_column_text(statement, 0),
        .id = (const char *)sqlite3_column_text(statement, 1),
        .uid = (const char *)sqlite3_column_text(statement, 2),
        .instance = (uint32_t)sqlite3_column_int64(statement, 3),
        .generation = sqlite3_column_int64(statement, 4),
        .revision = sqlite3_column_int64(statement, 5),
        .spec = (const char *)sqlite3_column_text(statement, 6),
        .status = (const char *)sqlite3_column_text(statement, 7),
    };
}

static int load(struct database *database, database_row_fn *row, void *context, struct error *err)
{
    sqlite3_stmt *statement = NULL;
    int result = 0;
    int code;

    if (sqlite3_prepare_v2(database->sqlite, DATABASE_ROWS " ORDER BY instance", -1, &statement,
                           NULL) != SQLITE_OK)
        return database_fail(database->sqlite, "load", err);
    while ((code = sqlite3_step(statement)) == SQLITE_ROW && result >= 0) {
        struct record record = database_row(statement);

        result = row(context, &record, err);
    }
    if (result >= 0 && code != SQLITE_DONE)
        result = database_fail(database->sqlite, "load", err);
    sqlite3_finalize(statement);
    return result < 0 ? result : 0;
}

/* Whatever the directory and the umask allow, the files are ours alone.  SQLite gives those beside
 * the database the mode of the database.  What cannot be done here SQLite will meet, and say. */
static void keep_private(const char *path)
{
    static const char *const suffixes[] = { "", "-wal", "-shm" };

    for (size_t i = 0; i < ARRAY_LENGTH(suffixes); i++) {
        auto_close int fd = -1;
        char name[4104];

        snprintf(name, sizeof name, "%s%s", path, suffixes[i]);
        fd = open(name, O_RDWR | O_NOFOLLOW | O_CLOEXEC | (i == 0 ? O_CREAT : 0), 0600);
        if (fd >= 0)
            (void)fchmod(fd, 0600);
    }
}

static int open_file(struct database *database, const char *dir_path, struct error *err)
{
    static const char *const pragmas[] = {
        "PRAGMA locking_mode = EXCLUSIVE", "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",       "PRAGMA foreign_keys = ON",
        "PRAGMA trusted_schema = OFF",     "PRAGMA cell_size_check = ON",
        "PRAGMA temp_store = MEMORY",      "PRAGMA cache_size = -2048",
    };
    char path[4096];
    int result;

    if ((size_t)snprintf(path, sizeof path, "%s/warren.db", dir_path) >= sizeof path)
        return error_set(err, ENAMETOOLONG, "the state directory's path is too long");
    keep_private(path);
    if (sqlite3_open_v2(path, &database->sqlite,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX |
                            SQLITE_OPEN_NOFOLLOW,
                        NULL) != SQLITE_OK)
        return database_fail(database->sqlite, "open", err);
    for (size_t i = 0; i < ARRAY_LENGTH(pragmas); i++) {
        result = execute(database, pragmas[i], err);
        if (result == -EBUSY)
            return error_set(err, EBUSY, "warren.db is open in another warrend: stop that one");
        if (result < 0)
            return result;
    }
    return 0;
}

/* What makes room on a full disk is a commit first: it has its own already.  Not of the database
 * itself: closing it would drop SQLite's lock. */
static void keep_room(const char *dir_path)
{
    auto_close int fd = -1;
    char name[4104];

    snprintf(name, sizeof name, "%s/warren.db-wal", dir_path);
    fd = open(name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0)
        (void)fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, WAL_ROOM_BYTES);
}

static int prepare(struct database *database, struct error *err)
{
    for (int i = 0; i < STATEMENT_COUNT; i++)
        if (sqlite3_prepare_v3(database->sqlite, statement_text[i], -1, SQLITE_PREPARE_PERSISTENT,
                               &database->statements[i], NULL) != SQLITE_OK)
            return database_fail(database->sqlite, "prepare", err);
    return 0;
}

static int set_up(struct database *database, const char *dir_path, struct error *err)
{
    int result = open_file(database, dir_path, err);

    if (result == 0)
        result = check_integrity(database, err);
    if (result == 0)
        result = migrate(database, err);
    if (result == 0)
        result = prepare(database, err);
    if (result == 0)
        keep_room(dir_path);
    return result;
}

static int load_all(struct database *database, database_row_fn *row, void *context,
                    struct database_counters *ret_counters, struct error *err)
{
    int64_t instance = 0;
    int64_t revision = 0;
    int result =
        read_number(database, "SELECT value FROM counter WHERE name = 'instance'", &instance, err);

    if (result == 0)
        result = read_number(database, "SELECT value FROM counter WHERE name = 'revision'",
                             &revision, err);
    if (result == 0)
        result = load(database, row, context, err);
    if (result < 0)
        return result;
    *ret_counters =
        (struct database_counters){ .instance = (uint32_t)instance, .revision = revision };
    database->revision = revision;
    return 0;
}

int database_open(const char *dir_path, struct loop *loop, database_row_fn *row, void *context,
                  struct database_counters *ret_counters, struct database **ret_database,
                  struct error *err)
{
    struct database *database = calloc(1, sizeof *database);
    struct worker_ops ops = {
        .begin = begin_batch, .end = end_batch, .context = database, .batch_max = 256
    };
    int result;

    if (!database)
        return error_set(err, ENOMEM, "open the database");
    database->events_kept = EVENTS_KEPT;
    result = set_up(database, dir_path, err);
    if (result == 0)
        result = load_all(database, row, context, ret_counters, err);
    if (result == 0)
        result = worker_new(loop, "database", &ops, &database->worker, err);
    if (result < 0) {
        /* A damaged file stays as it is: what is in the WAL is not moved into it. */
        if (database->sqlite)
            (void)sqlite3_db_config(database->sqlite, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
        database_free(database);
        return result;
    }
    *ret_database = database;
    return 0;
}

struct database *database_free(struct database *database)
{
    if (!database)
        return NULL;
    worker_free(database->worker);
    for (int i = 0; i < STATEMENT_COUNT; i++)
        sqlite3_finalize(database->statements[i]);
    sqlite3_close(database->sqlite);
    free(database);
    return NULL;
}
