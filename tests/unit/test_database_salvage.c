/* test_database_salvage.c - a database that is damaged is left as it is, its WAL, too, and what can
 * be read of it is. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "base/loop.h"
#include "storage/database.h"
#include "tests/unit/scratch.h"

#define ROWS 30u
#define PAGE 4096

struct fixture {
    char dir[SCRATCH_PATH];
    unsigned count, wrong; /* of the rows that were read */
    bool seen[ROWS + 2];
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    *state = f;
    if (!f)
        return -1;
    return scratch_make(f->dir, "salvage") ? 0 : -1;
}

static const char *path_of(const struct fixture *f, const char *name)
{
    static char path[SCRATCH_PATH + 32];

    snprintf(path, sizeof path, "%s/%s", f->dir, name);
    return path;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    scratch_remove(f->dir);
    free(f);
    return 0;
}

static int note(void *context, const struct record *record, struct error *err)
{
    struct fixture *f = context;

    (void)err;
    if (record->instance > ROWS + 1 || strcmp(record->kind, "vm") != 0 ||
        strlen(record->spec) != 20000)
        f->wrong++;
    else if (!f->seen[record->instance]) {
        f->seen[record->instance] = true;
        f->count++;
    }
    return -EIO; /* nobody looks at it */
}

static int take(void *context, const struct record *record, struct error *err)
{
    (void)context;
    (void)record;
    (void)err;
    return 0;
}

static void written(void *context, int result, const struct error *err)
{
    (void)err;
    if (result < 0)
        _exit(3);
    if (context)
        loop_stop(context);
}

/* A process of its own: it closes the database, or is gone as if it had been killed. */
static void write_rows(struct fixture *f, unsigned from, unsigned to, bool close_it)
{
    static char spec[20001];
    int status;
    pid_t child = fork();

    if (child == 0) {
        struct loop *loop = NULL;
        struct database *database = NULL;
        struct database_counters counters;

        memset(spec, 'x', sizeof spec - 1);
        spec[0] = spec[sizeof spec - 2] = '"'; /* JSON, as every spec is */
        if (loop_new(&loop, NULL) < 0 ||
            database_open(f->dir, loop, take, NULL, &counters, &database, NULL) < 0)
            _exit(1);
        for (unsigned i = from; i <= to; i++) {
            char name[16];
            struct record record = { "vm", name, name, i, 1, i, spec, "{}", NULL };

            snprintf(name, sizeof name, "v%02u", i);
            if (database_put(database, &record, written, i == to ? loop : NULL, NULL) < 0)
                _exit(2);
        }
        loop_run(loop, NULL);
        if (close_it)
            database_free(database);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static off_t size_of(const struct fixture *f, const char *name)
{
    struct stat status;

    return stat(path_of(f, name), &status) < 0 ? -1 : status.st_size;
}

static int open_with(struct fixture *f, database_row_fn *row)
{
    struct loop *loop = NULL;
    struct database *database = NULL;
    struct database_counters counters;
    int result;

    assert_int_equal(loop_new(&loop, NULL), 0);
    result = database_open(f->dir, loop, row, f, &counters, &database, NULL);
    database_free(database);
    loop_free(loop);
    return result;
}

static int open_again(struct fixture *f)
{
    return open_with(f, take);
}

static void salvage(struct fixture *f)
{
    f->count = f->wrong = 0;
    memset(f->seen, 0, sizeof f->seen);
    (void)database_salvage(f->dir, note, f, NULL);
    assert_int_equal(f->wrong, 0);
}

/* One page in the middle. */
static void damage(struct fixture *f)
{
    auto_close int fd = open(path_of(f, "warren.db"), O_WRONLY | O_CLOEXEC);
    char garbage[PAGE];

    memset(garbage, 0xa5, sizeof garbage);
    assert_int_equal(pwrite(fd, garbage, sizeof garbage, size_of(f, "warren.db") / 2 / PAGE * PAGE),
                     PAGE);
}

static void a_damaged_file_is_refused_and_kept(void **state)
{
    struct fixture *f = *state;
    static char garbage[3000];
    off_t before;
    int fd;

    write_rows(f, 1, ROWS, /* close_it= */ true);
    before = size_of(f, "warren.db");
    memset(garbage, 0xa5, sizeof garbage);
    fd = open(path_of(f, "warren.db"), O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, garbage, sizeof garbage, PAGE + 512), sizeof garbage);
    assert_int_equal(pwrite(fd, garbage, sizeof garbage, 2 * PAGE + 16), sizeof garbage);
    close(fd);
    assert_int_equal(open_again(f), -EUCLEAN);
    assert_int_equal(size_of(f, "warren.db"), before);
    /* Not a database at all. */
    fd = open(path_of(f, "warren.db"), O_WRONLY | O_TRUNC | O_CLOEXEC);
    assert_int_equal(write(fd, garbage, sizeof garbage), sizeof garbage);
    close(fd);
    assert_int_equal(open_again(f), -EUCLEAN);
    assert_int_equal(size_of(f, "warren.db"), sizeof garbage);
}

static void a_page_hides_little(void **state)
{
    struct fixture *f = *state;

    write_rows(f, 1, ROWS, /* close_it= */ true);
    salvage(f);
    assert_int_equal(f->count, ROWS);
    damage(f);
    assert_int_equal(open_again(f), -EUCLEAN);
    salvage(f);
    assert_true(f->count > ROWS / 3 && f->count < ROWS);
    assert_true(f->seen[1] && f->seen[ROWS]); /* from both ends */
}

static void what_was_not_checkpointed_is_kept_and_read(void **state)
{
    struct fixture *f = *state;
    off_t database, wal;

    write_rows(f, 1, ROWS, /* close_it= */ true);
    write_rows(f, ROWS + 1, ROWS + 1, /* close_it= */ false);
    damage(f);
    database = size_of(f, "warren.db");
    wal = size_of(f, "warren.db-wal");
    assert_true(wal > 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(open_again(f), -EUCLEAN);
        salvage(f);
        assert_true(f->seen[ROWS + 1]);
        assert_int_equal(size_of(f, "warren.db"), database);
        assert_int_equal(size_of(f, "warren.db-wal"), wal);
    }
}

/* No row of a resource is in it: nobody would have met it before it is written to. */
static void a_page_that_no_row_is_in_counts_too(void **state)
{
    struct fixture *f = *state;
    char garbage[PAGE / 2];
    sqlite3_stmt *statement = NULL;
    sqlite3 *sqlite = NULL;
    off_t page;
    int fd;

    write_rows(f, 1, 2, /* close_it= */ true);
    assert_int_equal(sqlite3_open(path_of(f, "warren.db"), &sqlite), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(sqlite,
                                        "SELECT rootpage FROM sqlite_schema WHERE name = 'event'",
                                        -1, &statement, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    page = sqlite3_column_int64(statement, 0) - 1;
    sqlite3_finalize(statement);
    assert_int_equal(sqlite3_close(sqlite), SQLITE_OK);
    assert_int_equal(open_again(f), 0);
    memset(garbage, 0xa5, sizeof garbage);
    fd = open(path_of(f, "warren.db"), O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, garbage, sizeof garbage, page * PAGE), sizeof garbage);
    close(fd);
    assert_int_equal(open_again(f), -EUCLEAN);
}

/* What comes with the first row: the rest of the file cannot be read any more. */
static int cut(void *context, const struct record *record, struct error *err)
{
    (void)record;
    (void)err;
    return truncate(path_of(context, "warren.db"), PAGE);
}

/* Else the VMs of the others would be taken for nobody's. */
static void rows_that_cannot_be_read_are_not_thought_to_be_none(void **state)
{
    struct fixture *f = *state;

    write_rows(f, 1, 300, /* close_it= */ true); /* three times of what SQLite keeps in memory */
    assert_true(open_with(f, cut) < 0);
}

static void run_sql(const struct fixture *f, const char *sql)
{
    sqlite3 *sqlite = NULL;

    assert_int_equal(sqlite3_open(path_of(f, "warren.db"), &sqlite), SQLITE_OK);
    assert_int_equal(sqlite3_exec(sqlite, sql, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(sqlite), SQLITE_OK);
}

/* As a page says that was written wrongly, whatever the schema says. */
static void a_row_that_lacks_a_part_is_passed_over(void **state)
{
    struct fixture *f = *state;

    write_rows(f, 1, ROWS, /* close_it= */ true);
    run_sql(f, "PRAGMA writable_schema = ON;"
               "UPDATE sqlite_schema SET sql = replace(sql, 'NOT NULL', '')");
    run_sql(f, "UPDATE resource SET spec = NULL WHERE id = 'v02';"
               "UPDATE resource SET uid = NULL WHERE id = 'v03';"
               "UPDATE resource SET status = NULL WHERE id = 'v04'");
    salvage(f);
    assert_int_equal(f->count, ROWS - 3);
}

static void of_nonsense_nothing_is_read(void **state)
{
    struct fixture *f = *state;
    int fd = open(path_of(f, "warren.db"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    salvage(f);
    assert_int_equal(f->count, 0);
    assert_int_equal(pwrite(fd, f, sizeof *f, 0), sizeof *f);
    close(fd);
    salvage(f);
    assert_int_equal(f->count, 0);
    unlink(path_of(f, "warren.db"));
    salvage(f);
    assert_int_equal(f->count, 0);
    assert_int_equal(size_of(f, "warren.db"), -1); /* and none is made */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_damaged_file_is_refused_and_kept),
        TEST(a_page_hides_little),
        TEST(what_was_not_checkpointed_is_kept_and_read),
        TEST(a_page_that_no_row_is_in_counts_too),
        TEST(rows_that_cannot_be_read_are_not_thought_to_be_none),
        TEST(a_row_that_lacks_a_part_is_passed_over),
        TEST(of_nonsense_nothing_is_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
