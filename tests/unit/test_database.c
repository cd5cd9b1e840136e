/* test_database.c - the real SQLite file: what is acknowledged is there after a reopen, what fails
 * leaves nothing, and what is not ours, or not whole, is refused. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/error.h"
#include "base/histogram.h"
#include "base/loop.h"
#include "storage/database.h"
#include "storage/database_internal.h"
#include "tests/unit/scratch.h"

struct fixture {
    char dir[SCRATCH_PATH];
    struct loop *loop;
    struct database *database;
    struct database_counters counters;
    struct error err;
    unsigned rows;
    char seen[4096]; /* "kind/id=spec;" of the rows loaded */
    unsigned answers, failures;
    int last_result, last_failure;
    char last_message[256];
    bool has_begun, has_more;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    *state = f;
    if (!f)
        return -1;
    return scratch_make(f->dir, "database") ? loop_new(&f->loop, NULL) : -1;
}

static void file_path(const struct fixture *f, const char *name, char *ret_path, size_t size)
{
    snprintf(ret_path, size, "%s/%s", f->dir, name);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    f->database = database_free(f->database);
    loop_free(f->loop);
    umount2(f->dir, MNT_DETACH);
    scratch_remove(f->dir);
    free(f);
    return 0;
}

static int load_row(void *context, const struct record *record, struct error *err)
{
    struct fixture *f = context;
    size_t used = strlen(f->seen);

    if (strcmp(record->spec, "\"refuse\"") == 0)
        return error_set(err, EPROTO, "refused row");
    f->rows++;
    if (used < sizeof f->seen - 300)
        snprintf(f->seen + used, sizeof f->seen - used, "%s/%s=%s,%s,%u,%lld,%lld;", record->kind,
                 record->id, record->spec, record->status, record->instance,
                 (long long)record->generation, (long long)record->revision);
    return 0;
}

static int reopen(struct fixture *f)
{
    f->database = database_free(f->database);
    f->rows = 0;
    f->seen[0] = '\0';
    return database_open(f->dir, f->loop, load_row, f, &f->counters, &f->database, &f->err);
}

static void answered(void *context, int result, const struct error *err)
{
    struct fixture *f = context;

    f->answers++;
    f->last_result = result;
    if (result < 0)
        f->last_failure = result;
    if (result < 0) {
        f->failures++;
        snprintf(f->last_message, sizeof f->last_message, "%s", err->message);
    }
}

static struct record make_record(const char *id, unsigned instance, const char *spec, char uid[40])
{
    snprintf(uid, 40, "uid-%s-%u", id, instance);
    return (struct record){ .kind = "vm",
                            .id = id,
                            .uid = uid,
                            .instance = instance,
                            .generation = 1,
                            .revision = instance + 100,
                            .spec = spec,
                            .status = "{}" };
}

static void put(struct fixture *f, const char *id, unsigned instance, const char *spec)
{
    char uid[40];
    struct record record = make_record(id, instance, spec, uid);

    assert_int_equal(database_put(f->database, &record, answered, f, &f->err), 0);
}

static void await_answers(struct fixture *f, unsigned count)
{
    int64_t end = loop_now_ms() + 10000;

    while (f->answers < count && loop_now_ms() < end)
        loop_turn(f->loop, 100, NULL);
    assert_int_equal(f->answers, count);
}

static void rows_are_there_after_a_reopen(void **state)
{
    struct fixture *f = *state;
    struct record gone = { .kind = "vm", .id = "b", .revision = 200 };
    char uid[40];
    struct record changed = make_record("a", 1, "{\"x\":\"new\"}", uid);

    changed.revision = 150;
    assert_int_equal(reopen(f), 0);
    assert_int_equal(f->counters.instance, 0);
    put(f, "c", 3, "{\"x\":3}");
    put(f, "a", 1, "{\"x\":1}");
    put(f, "b", 2, "{}");
    assert_int_equal(database_put(f->database, &changed, answered, f, NULL), 0);
    assert_int_equal(database_delete(f->database, &gone, answered, f, NULL), 0);
    await_answers(f, 5);
    assert_int_equal(f->failures, 0);
    assert_int_equal(reopen(f), 0);
    assert_string_equal(f->seen, "vm/a={\"x\":\"new\"},{},1,1,150;vm/c={\"x\":3},{},3,1,103;");
    /* High-water marks stay, though the rows that had them are gone. */
    assert_int_equal(f->counters.instance, 3);
    assert_int_equal(f->counters.revision, 200);
}

static void instances_of_deleted_rows_are_never_given_again(void **state)
{
    struct fixture *f = *state;
    struct record gone = { .kind = "vm", .id = "a", .revision = 300 };

    reopen(f);
    put(f, "a", 77, "{}");
    database_delete(f->database, &gone, NULL, NULL, NULL);
    assert_int_equal(reopen(f), 0);
    assert_int_equal(f->rows, 0);
    assert_int_equal(f->counters.instance, 77);
    assert_int_equal(f->counters.revision, 300);
}

static void a_bad_change_fails_alone(void **state)
{
    struct fixture *f = *state;
    char uid[40];
    struct record twin = make_record("twin", 1, "{}", uid); /* the instance of "a" */

    reopen(f);
    put(f, "a", 1, "{}");
    assert_int_equal(database_put(f->database, &twin, answered, f, NULL), 0);
    put(f, "b", 2, "{}");
    await_answers(f, 3);
    assert_int_equal(f->failures, 1);
    reopen(f);
    assert_string_equal(f->seen, "vm/a={},{},1,1,101;vm/b={},{},2,1,102;");
}

static void changes_that_wait_share_a_commit(void **state)
{
    struct fixture *f = *state;
    char id[16];

    reopen(f);
    for (unsigned i = 1; i <= 500; i++) {
        snprintf(id, sizeof id, "v%u", i);
        put(f, id, i, "{}");
    }
    await_answers(f, 500);
    assert_int_equal(f->failures, 0);
    assert_in_range(histogram_count(database_commits(f->database)), 2, 250);
    reopen(f);
    assert_int_equal(f->rows, 500);
}

static void the_end_commits_what_is_queued(void **state)
{
    struct fixture *f = *state;

    reopen(f);
    for (unsigned i = 1; i <= 20; i++) {
        char id[16];

        snprintf(id, sizeof id, "v%u", i);
        put(f, id, i, "{}");
    }
    f->database = database_free(f->database);
    assert_int_equal(f->answers, 20);
    assert_int_equal(reopen(f), 0);
    assert_int_equal(f->rows, 20);
}

/* --- a full disk --- */

static void put_large(struct fixture *f, unsigned from, unsigned count)
{
    static char spec[20001];
    char id[16];

    memset(spec, 'x', sizeof spec - 1);
    spec[0] = spec[sizeof spec - 2] = '"'; /* JSON, as every spec is */
    for (unsigned i = from; i < from + count; i++) {
        snprintf(id, sizeof id, "v%u", i);
        put(f, id, i, spec);
    }
}

/* There is room again: all that were refused are absent, all that were not are there, and changes
 * are taken. */
static void assert_well_again(struct fixture *f, unsigned kept)
{
    f->answers = 0;
    put(f, "small", 9000, "{}");
    await_answers(f, 1);
    assert_int_equal(f->last_result, 0);
    assert_int_equal(reopen(f), 0);
    assert_int_equal(f->rows, kept + 1);
}

static void a_full_disk_fails_all_waiters_and_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    char path[SCRATCH_PATH + 32];
    static char zeros[65536];
    int filler;

    if (mount("warren-test", f->dir, "tmpfs", 0, "size=1m,mode=700") < 0)
        skip();
    assert_int_equal(reopen(f), 0);
    put(f, "first", 1, "{}");
    await_answers(f, 1);
    file_path(f, "filler", path, sizeof path);
    filler = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    for (int i = 0; i < 11; i++)
        if (write(filler, zeros, sizeof zeros) < 0)
            break;
    close(filler);
    f->answers = 0;
    put_large(f, 2, 200);
    await_answers(f, 200);
    assert_true(f->failures > 0);
    assert_int_equal(f->last_failure, -ENOSPC);
    unlink(path);
    assert_well_again(f, 1 + 200 - f->failures);
    assert_non_null(strstr(f->seen, "vm/first={}"));
}

/* Has a batch of its own, behind which others wait. */
static int begin_and_wait(void *argument, struct error *err)
{
    struct fixture *f = argument;

    (void)err;
    __atomic_store_n(&f->has_begun, true, __ATOMIC_SEQ_CST);
    while (!__atomic_load_n(&f->has_more, __ATOMIC_SEQ_CST))
        usleep(1000);
    return 0;
}

/* As SQLite does by itself where a read finds no memory. */
static int roll_back(void *argument, struct error *err)
{
    struct fixture *f = argument;

    (void)err;
    return sqlite3_exec(database_sqlite(f->database), "ROLLBACK", NULL, NULL, NULL);
}

static void a_batch_that_was_rolled_back_leaves_nothing(void **state)
{
    struct fixture *f = *state;

    reopen(f);
    assert_int_equal(database_submit(f->database, begin_and_wait, answered, f, NULL), 0);
    while (!__atomic_load_n(&f->has_begun, __ATOMIC_SEQ_CST))
        usleep(1000);
    put(f, "before", 1, "{}");
    assert_int_equal(database_submit(f->database, roll_back, answered, f, NULL), 0);
    put(f, "behind", 2, "{}");
    __atomic_store_n(&f->has_more, true, __ATOMIC_SEQ_CST);
    await_answers(f, 4);
    assert_int_equal(f->failures, 3);
    assert_well_again(f, 0);
}

static void a_file_size_limit_is_an_error_not_a_signal(void **state)
{
    struct fixture *f = *state;
    struct rlimit old, limit;

    signal(SIGXFSZ, SIG_IGN); /* as agent/main.c does */
    assert_int_equal(reopen(f), 0);
    getrlimit(RLIMIT_FSIZE, &old);
    limit = old;
    limit.rlim_cur = 400000;
    setrlimit(RLIMIT_FSIZE, &limit);
    put_large(f, 1, 100);
    await_answers(f, 100);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_true(f->failures > 0);
    assert_true(f->last_failure == -ENOSPC || f->last_failure == -EIO);
    assert_well_again(f, 100 - f->failures);
}

/* --- what is refused --- */

static void a_second_opener_is_refused(void **state)
{
    struct fixture *f = *state;
    struct database *second = NULL;
    struct database_counters counters;
    struct error err = { 0 };

    reopen(f);
    assert_int_equal(database_open(f->dir, f->loop, load_row, f, &counters, &second, &err), -EBUSY);
    assert_null(second);
    assert_non_null(strstr(err.message, "another warrend"));
    put(f, "a", 1, "{}");
    await_answers(f, 1);
    assert_int_equal(f->failures, 0);
}

static void run_sql(const struct fixture *f, const char *sql)
{
    char path[SCRATCH_PATH + 32];
    sqlite3 *sqlite;

    file_path(f, "warren.db", path, sizeof path);
    assert_int_equal(sqlite3_open(path, &sqlite), SQLITE_OK);
    assert_int_equal(sqlite3_exec(sqlite, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(sqlite);
}

static void a_newer_schema_is_refused_and_untouched(void **state)
{
    struct fixture *f = *state;

    reopen(f);
    put(f, "a", 1, "{}");
    f->database = database_free(f->database);
    run_sql(f, "PRAGMA user_version = 1000");
    assert_int_equal(reopen(f), -EPROTO);
    assert_null(f->database);
    assert_non_null(strstr(f->err.message, "newer"));
    run_sql(f, "PRAGMA user_version = 3");
    assert_int_equal(reopen(f), 0);
    assert_int_equal(f->rows, 1);
}

/* --- Idempotency-Keys --- */

static int load_key(void *context, const struct key_record *key, struct error *err)
{
    struct fixture *f = context;
    size_t used = strlen(f->seen);

    (void)err;
    snprintf(f->seen + used, sizeof f->seen - used, "%lld %lld %s %s %s %d %s %s;",
             (long long)key->sequence, (long long)key->created_ms, key->scope, key->key,
             key->digest, key->status, key->etag ? key->etag : "-", key->body ? key->body : "-");
    return 0;
}

static void assert_keys(struct fixture *f, const char *expected)
{
    assert_int_equal(reopen(f), 0);
    f->seen[0] = '\0';
    assert_int_equal(database_load_keys(f->database, load_key, f, &f->err), 0);
    assert_string_equal(f->seen, expected);
}

static void an_older_schema_is_brought_up(void **state)
{
    struct fixture *f = *state;

    reopen(f);
    put(f, "a", 1, "{}");
    f->database = database_free(f->database);
    run_sql(f, "DROP TABLE event; DELETE FROM counter WHERE name = 'events_trimmed'; "
               "DROP TABLE idempotency; PRAGMA user_version = 1");
    assert_keys(f, "");
    assert_int_equal(f->rows, 1);
}

static void a_key_comes_and_fails_with_its_change(void **state)
{
    struct fixture *f = *state;
    struct key_record key = {
        .sequence = 5, .created_ms = 77, .scope = "s", .key = "k", .digest = "d"
    };
    char uid[40];
    struct record change = make_record("a", 1, "{}", uid), twin;

    reopen(f);
    change.idempotency = &key;
    assert_int_equal(database_put(f->database, &change, answered, f, NULL), 0);
    twin = make_record("twin", 1, "{}", uid); /* the instance of "a" */
    key.sequence = 6;
    twin.idempotency = &key;
    assert_int_equal(database_put(f->database, &twin, answered, f, NULL), 0);
    await_answers(f, 2);
    assert_int_equal(f->failures, 1);
    assert_keys(f, "5 77 s k d 0 - -;");
    key.sequence = 5;
    key.status = 202;
    key.etag = "\"1\"";
    key.body = "{}";
    assert_int_equal(database_put_key(f->database, &key, answered, f, NULL), 0);
    key.sequence = 7;
    assert_int_equal(database_put_key(f->database, &key, answered, f, NULL), 0);
    await_answers(f, 4);
    assert_keys(f, "5 77 s k d 202 \"1\" {};7 77 s k d 202 \"1\" {};");
    key.sequence = key.keep_from = 8;
    assert_int_equal(database_put_key(f->database, &key, answered, f, NULL), 0);
    await_answers(f, 5);
    assert_keys(f, "8 77 s k d 202 \"1\" {};");
}

static void a_row_that_is_refused_ends_the_open(void **state)
{
    struct fixture *f = *state;

    reopen(f);
    put(f, "a", 1, "\"refuse\"");
    assert_int_equal(reopen(f), -EPROTO);
    assert_string_equal(f->err.message, "refused row");
}

static void a_symlink_is_refused(void **state)
{
    struct fixture *f = *state;
    char path[SCRATCH_PATH + 32], other[SCRATCH_PATH + 32];

    file_path(f, "warren.db", path, sizeof path);
    file_path(f, "somewhere-else.db", other, sizeof other);
    assert_int_equal(symlink(other, path), 0);
    assert_true(reopen(f) < 0);
    assert_int_equal(access(other, F_OK), -1);
}

static void a_directory_that_is_not_there_is_an_error(void **state)
{
    struct fixture *f = *state;
    struct database *database = NULL;

    assert_true(database_open("/nonexistent/warren", f->loop, load_row, f, &f->counters, &database,
                              &f->err) < 0);
    assert_null(database);
    assert_null(database_free(NULL));
}

/* In place of the C library's, for SQLite, too: how often the disk was waited for. */
static unsigned syncs;

/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name): theirs is reserved */
int fdatasync(int fd)
{
    __atomic_add_fetch(&syncs, 1, __ATOMIC_SEQ_CST);
    return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    __atomic_add_fetch(&syncs, 1, __ATOMIC_SEQ_CST);
    return (int)syscall(SYS_fsync, fd);
}

/* WAL with synchronous=FULL: a commit's answer comes after its sync, and later commits, which only
 * append to the log, sync as well. */
static void every_commit_is_on_the_disk_when_it_is_answered(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(reopen(f), 0);
    for (unsigned i = 1; i <= 3; i++) {
        unsigned before = __atomic_load_n(&syncs, __ATOMIC_SEQ_CST);
        char uid[40];
        struct record record = make_record("a", i, "{}", uid);

        assert_int_equal(database_put(f->database, &record, answered, f, &f->err), 0);
        while (f->answers < i)
            loop_turn(f->loop, 1000, NULL);
        assert_int_equal(f->last_result, 0);
        assert_true(__atomic_load_n(&syncs, __ATOMIC_SEQ_CST) > before);
    }
}

static unsigned mode_of(const struct fixture *f, const char *name)
{
    struct stat status;
    char path[SCRATCH_PATH + 32];

    file_path(f, name, path, sizeof path);
    return stat(path, &status) == 0 ? status.st_mode & 07777 : 0;
}

static void nobody_else_can_read_the_files(void **state)
{
    struct fixture *f = *state;
    mode_t before = umask(0);
    char path[SCRATCH_PATH + 32];
    char uid[40];
    struct record record = make_record("a", 1, "{}", uid);

    assert_int_equal(chmod(f->dir, 0755), 0);
    assert_int_equal(reopen(f), 0);
    assert_int_equal(database_put(f->database, &record, answered, f, &f->err), 0);
    while (f->answers < 1)
        loop_turn(f->loop, 1000, NULL);
    assert_int_equal(mode_of(f, "warren.db"), 0600);
    assert_int_equal(mode_of(f, "warren.db-wal"), 0600);
    assert_true((mode_of(f, "warren.db-shm") & 077) ==
                0); /* with the exclusive lock there is none */
    f->database = database_free(f->database);
    /* Of an agent that did not see to it. */
    file_path(f, "warren.db", path, sizeof path);
    assert_int_equal(chmod(path, 0644), 0);
    file_path(f, "warren.db-wal", path, sizeof path);
    close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    assert_int_equal(reopen(f), 0);
    assert_int_equal(mode_of(f, "warren.db"), 0600);
    assert_true((mode_of(f, "warren.db-wal") & 077) == 0);
    umask(before);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(rows_are_there_after_a_reopen),
        TEST(instances_of_deleted_rows_are_never_given_again),
        TEST(a_bad_change_fails_alone),
        TEST(changes_that_wait_share_a_commit),
        TEST(the_end_commits_what_is_queued),
        TEST(a_full_disk_fails_all_waiters_and_leaves_nothing),
        TEST(a_batch_that_was_rolled_back_leaves_nothing),
        TEST(a_file_size_limit_is_an_error_not_a_signal),
        TEST(a_second_opener_is_refused),
        TEST(a_newer_schema_is_refused_and_untouched),
        TEST(an_older_schema_is_brought_up),
        TEST(a_key_comes_and_fails_with_its_change),
        TEST(a_row_that_is_refused_ends_the_open),
        TEST(a_symlink_is_refused),
        TEST(every_commit_is_on_the_disk_when_it_is_answered),
        TEST(nobody_else_can_read_the_files),
        TEST(a_directory_that_is_not_there_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
