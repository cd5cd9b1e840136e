/* test_database_backup.c - a copy made while changes go on is a database of its own, of one moment.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/loop.h"
#include "storage/database.h"
#include "tests/unit/scratch.h"

#define BEFORE 300u /* more than one batch */
#define AFTER  300u

struct fixture {
    char dir[SCRATCH_PATH], copy[SCRATCH_PATH];
    struct loop *loop;
    struct database *database;
    struct database_counters counters;
    unsigned answers, rows, backups;
    int code; /* of a backup that failed */
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    *state = f;
    if (!f)
        return -1;
    return scratch_make(f->dir, "backup") && scratch_make(f->copy, "restore")
               ? loop_new(&f->loop, NULL)
               : -1;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    database_free(f->database);
    loop_free(f->loop);
    scratch_remove(f->dir);
    scratch_remove(f->copy);
    free(f);
    return 0;
}

static int load_row(void *context, const struct record *record, struct error *err)
{
    struct fixture *f = context;

    (void)record;
    (void)err;
    f->rows++;
    return 0;
}

static void open_in(struct fixture *f, const char *dir)
{
    struct error err = { 0 };

    f->database = database_free(f->database);
    f->rows = 0;
    assert_int_equal(database_open(dir, f->loop, load_row, f, &f->counters, &f->database, &err), 0);
}

static void answered(void *context, int result, const struct error *err)
{
    struct fixture *f = context;

    (void)err;
    assert_int_equal(result, 0);
    f->answers++;
}

static void put(struct fixture *f, unsigned first, unsigned count)
{
    for (unsigned i = first; i < first + count; i++) {
        char id[16], uid[16];
        struct record record = {
            .kind = "vm", .id = id, .uid = uid, .instance = i, .generation = 1, .revision = i
        };

        snprintf(id, sizeof id, "vm-%u", i);
        snprintf(uid, sizeof uid, "uid-%u", i);
        assert_int_equal(database_put(f->database, &record, answered, f, NULL), 0);
    }
}

/* As a restore does. */
static void keep(void *context, const void *bytes, size_t size, const struct error *err)
{
    struct fixture *f = context;
    char path[SCRATCH_PATH + 32];
    FILE *file;

    f->backups++;
    f->code = bytes ? 0 : err->code;
    if (!bytes)
        return;
    snprintf(path, sizeof path, "%s/warren.db", f->copy);
    file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static void has_what_came_before_it(void **state)
{
    struct fixture *f = *state;

    open_in(f, f->dir);
    put(f, 1, BEFORE);
    assert_int_equal(database_backup(f->database, keep, f, NULL), 0);
    put(f, BEFORE + 1, AFTER);
    while (f->answers < BEFORE + AFTER || !f->backups)
        assert_int_equal(loop_turn(f->loop, 1000, NULL), 0);
    assert_int_equal(f->code, 0);
    open_in(f, f->copy); /* checks its integrity, too */
    assert_int_equal(f->rows, BEFORE);
    assert_int_equal(f->counters.instance, BEFORE);
    put(f, BEFORE + 1, 1);
    open_in(f, f->dir);
    assert_int_equal(f->rows, BEFORE + AFTER);
}

/* What the batch did was not committed: nobody may keep a copy of it. */
static void fails_with_its_batch(void **state)
{
    struct fixture *f = *state;

    open_in(f, f->dir);
    put(f, 1, 1);
    while (f->answers < 1)
        assert_int_equal(loop_turn(f->loop, 1000, NULL), 0);
    sqlite3_hard_heap_limit64(1); /* the transaction cannot even begin, or the copy not be made */
    assert_int_equal(database_backup(f->database, keep, f, NULL), 0);
    while (!f->backups)
        assert_int_equal(loop_turn(f->loop, 1000, NULL), 0);
    sqlite3_hard_heap_limit64(0);
    assert_int_not_equal(f->code, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(has_what_came_before_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(fails_with_its_batch, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
