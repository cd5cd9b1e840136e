/* database.h - the one SQLite file in which everything acknowledged is kept.
 *
 * One connection, owned by one worker thread once database_open has returned.  WAL and
 * synchronous=FULL: a change is on the disk when its `done` is called.  All changes that wait at
 * one moment share a commit, each in a savepoint; if the commit fails, all of them fail.
 *
 * Its files have mode 0600, those found with another get it.
 *
 * A newer schema than ours, a damaged file (-EUCLEAN), or one that another agent has open is
 * refused with what to do about it; nothing is ever created in place of a damaged one. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct database;
struct error;
struct histogram;
struct log;
struct loop;

/* One row of table idempotency (schema.sql).  All strings borrowed; NULL = none. */
struct key_record {
    int64_t sequence;
    int64_t keep_from; /* rows before this one go */
    int64_t created_ms;
    int status;
    const char *scope, *key, *digest;
    const char *etag, *location, *body;
};

/* One row of table resource (schema.sql).  All strings borrowed. */
struct record {
    const char *kind;
    const char *id;
    const char *uid;
    uint32_t instance;
    int64_t generation;
    int64_t revision;
    const char *spec;                     /* JSON text */
    const char *status;                   /* JSON text */
    const struct key_record *idempotency; /* to be written with it, or NULL */
};

struct database_counters {
    uint32_t instance; /* highest ever given */
    int64_t revision;
};

/* Called for each row, at open, on the caller's thread; < 0 ends the load with that error. */
typedef int database_row_fn(void *context, const struct record *record, struct error *err);
/* Loop thread.  result 0, or -ENOSPC, -EIO ... with nothing changed. */
typedef void database_done_fn(void *context, int result, const struct error *err);

/* dir_path: the state directory; the file is warren.db in it. */
int database_open(const char *dir_path, struct loop *loop, database_row_fn *row, void *context,
                  struct database_counters *ret_counters, struct database **ret_database,
                  struct error *err);
/* Finishes what is queued (their done is called).  Accepts NULL. */
struct database *database_free(struct database *database);

/* What can still be read of a damaged one, each row perhaps twice; row's result is not looked at.
 * Nothing is written.  No other connection may be open. */
int database_salvage(const char *dir_path, database_row_fn *row, void *context, struct error *err);

/* Inserts or replaces the row (record is copied), or removes it (only kind, id and revision are
 * looked at).  Order of calls = order in the database.  done may be NULL. */
int database_put(struct database *database, const struct record *record, database_done_fn *done,
                 void *context, struct error *err);
int database_delete(struct database *database, const struct record *record, database_done_fn *done,
                    void *context, struct error *err);

int database_put_key(struct database *database, const struct key_record *key,
                     database_done_fn *done, void *context, struct error *err);

typedef int database_key_fn(void *context, const struct key_record *record, struct error *err);
/* All of them, ascending, on the caller's thread; before anything is put only. */
int database_load_keys(struct database *database, database_key_fn *row, void *context,
                       struct error *err);

/* bytes: a whole database file, as all changes up to here left it, borrowed until this returns;
 * NULL: *err says why.  Loop thread. */
typedef void database_backup_fn(void *context, const void *bytes, size_t size,
                                const struct error *err);
/* Online: other changes go on.  In memory: size of the database. */
int database_backup(struct database *database, database_backup_fn *done, void *context,
                    struct error *err);

/* --- events (schema_events.sql): one for each change of a row --- */

#define EVENTS_KEPT 10000 /* by default */

/* Newest revision of a change whose `done` was called and had succeeded.  Changes are put in the
 * order of their revisions, so all older ones that will ever be are there, too. */
int64_t database_revision(const struct database *database);
/* Called (loop thread) whenever that has grown. */
typedef void database_watch_fn(void *context);
void database_watch(struct database *database, database_watch_fn *watch, void *context);
/* Those of the newest `count` revisions; before anything is put only. */
void database_keep_events(struct database *database, int64_t count);

/* Strings borrowed. */
struct event {
    int64_t id;
    const char *kind, *resource, *type;
    const char *document; /* JSON text in one line */
};

struct event_page {
    int64_t trimmed;  /* newest revision of which events may be gone */
    int64_t revision; /* newest that there was when it was read */
    size_t count;
    struct event *events; /* ascending by id */
};

/* page: borrowed until this returns, as of a moment when all in it was on the disk; NULL: *err says
 * why.  Loop thread. */
typedef void database_events_fn(void *context, const struct event_page *page,
                                const struct error *err);
/* The first `limit` events with greater ids than `after`.  In order with the changes. */
int database_read_events(struct database *database, int64_t after, size_t limit,
                         database_events_fn *done, void *context, struct error *err);

/* How long the commits took, failed ones too; any thread.  Borrowed. */
const struct histogram *database_commits(const struct database *database);
