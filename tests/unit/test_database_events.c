/* test_database_events.c - each committed change of a row is told of once, by its revision; what
 * was not committed is not; the oldest go, and it is known which. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/error.h"
#include "base/loop.h"
#include "storage/database.h"
#include "tests/unit/scratch.h"

struct fixture {
    char dir[SCRATCH_PATH];
    struct loop *loop;
    struct database *database;
    struct database_counters counters;
    struct error err;
    int64_t revision; /* given last */
    unsigned answers, failures, watched;
    int64_t watched_revision;
    char seen[4096]; /* "revision type kind/id old>new reason exit;" */
    int64_t trimmed, read_revision;
};

static int load_row(void *context, const struct record *record, struct error *err)
{
    (void)context;
    (void)record;
    (void)err;
    return 0;
}

static int reopen(struct fixture *f)
{
    f->database = database_free(f->database);
    return database_open(f->dir, f->loop, load_row, f, &f->counters, &f->database, &f->err);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    *state = f;
    if (!f)
        return -1;
    f->revision = 10;
    return scratch_make(f->dir, "events") && loop_new(&f->loop, NULL) == 0 ? reopen(f) : -1;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    f->database = database_free(f->database);
    loop_free(f->loop);
    scratch_remove(f->dir);
    free(f);
    return 0;
}

static void answered(void *context, int result, const struct error *err)
{
    struct fixture *f = context;

    (void)err;
    f->answers++;
    f->failures += result < 0;
}

static void await_answers(struct fixture *f, unsigned count)
{
    int64_t end = loop_now_ms() + 10000;

    while (f->answers < count && loop_now_ms() < end)
        loop_turn(f->loop, 100, NULL);
    assert_int_equal(f->answers, count);
}

static void put_of(struct fixture *f, const char *id, unsigned instance, const char *spec,
                   const char *status)
{
    char uid[40];
    struct record record = { .kind = "vm",
                             .id = id,
                             .uid = uid,
                             .instance = instance,
                             .generation = 1,
                             .revision = ++f->revision,
                             .spec = spec,
                             .status = status };

    snprintf(uid, sizeof uid, "uid-%s-%u", id, instance);
    assert_int_equal(database_put(f->database, &record, answered, f, &f->err), 0);
}

static void put(struct fixture *f, const char *id, const char *status)
{
    put_of(f, id, (unsigned)id[0], "{}", status);
}

static void delete (struct fixture *f, const char *id)
{
    struct record gone = { .kind = "vm", .id = id, .revision = ++f->revision };

    assert_int_equal(database_delete(f->database, &gone, answered, f, &f->err), 0);
}

static void note_events(void *context, const struct event_page *page, const struct error *err)
{
    struct fixture *f = context;

    assert_non_null(page);
    (void)err;
    f->answers++;
    f->trimmed = page->trimmed;
    f->read_revision = page->revision;
    for (size_t i = 0; i < page->count; i++) {
        size_t used = strlen(f->seen);

        snprintf(f->seen + used, sizeof f->seen - used, "%lld %s %s/%s;",
                 (long long)page->events[i].id, page->events[i].type, page->events[i].kind,
                 page->events[i].resource);
        /* one line, as a stream needs it */
        assert_null(strpbrk(page->events[i].document, "\r\n"));
    }
}

static void read_events(struct fixture *f, int64_t after, size_t limit)
{
    unsigned before = f->answers;

    f->seen[0] = '\0';
    assert_int_equal(database_read_events(f->database, after, limit, note_events, f, &f->err), 0);
    await_answers(f, before + 1);
}

static void each_change_is_told_of_once(void **state)
{
    struct fixture *f = *state;

    put(f, "a", "{\"state\":\"creating\"}");
    put(f, "a", "{\"state\":\"running\"}");
    put(f, "b", "{}");
    put(f, "a", "{\"state\":\"running\"}"); /* tried again */
    delete (f, "a");
    delete (f, "never-was");
    await_answers(f, 6);
    assert_int_equal(f->failures, 0);
    read_events(f, 0, 100);
    assert_string_equal(f->seen,
                        "11 created vm/a;12 changed vm/a;13 created vm/b;15 deleted vm/a;");
    assert_int_equal(f->trimmed, 0);
    assert_int_equal(f->read_revision, 16);
    read_events(f, 11, 2);
    assert_string_equal(f->seen, "12 changed vm/a;13 created vm/b;");
    read_events(f, 15, 100);
    assert_string_equal(f->seen, "");
    /* And still after a new start. */
    assert_int_equal(reopen(f), 0);
    assert_int_equal(database_revision(f->database), 16);
    read_events(f, 12, 100);
    assert_string_equal(f->seen, "13 created vm/b;15 deleted vm/a;");
}

static void what_fails_is_not_told_of(void **state)
{
    struct fixture *f = *state;

    put_of(f, "a", 1, "{}", "{}");
    put_of(f, "twin", 1, "{}", "{}"); /* the instance of "a" */
    put_of(f, "b", 2, "{}", "{}");
    await_answers(f, 3);
    assert_int_equal(f->failures, 1);
    read_events(f, 0, 100);
    assert_string_equal(f->seen, "11 created vm/a;13 created vm/b;");
}

/* Checks the document of the last event that matters here: the page holds one. */
static void check_document(void *context, const struct event_page *page, const struct error *err)
{
    struct fixture *f = context;

    (void)err;
    f->answers++;
    assert_non_null(page);
    assert_int_equal(page->count, 1);
    snprintf(f->seen, sizeof f->seen, "%s", page->events[0].document);
}

static void document_of(struct fixture *f, int64_t id)
{
    unsigned before = f->answers;

    assert_int_equal(database_read_events(f->database, id - 1, 1, check_document, f, &f->err), 0);
    await_answers(f, before + 1);
}

static void states_reasons_exits_and_labels_are_told(void **state)
{
    struct fixture *f = *state;

    put(f, "a", "{\"state\":\"running\",\"exit\":null}");
    put(f, "a", "{\"state\":\"failed\",\"reason\":\"x\",\"exit\":{\"reason\":\"oom\"}}");
    put_of(f, "a", 'a', "{\"labels\":{\"env\":\"a\\nb\"},\"n\":1}",
           "{\"state\":\"failed\",\"reason\":\"x\",\"exit\":{\"reason\":\"oom\"}}");
    delete (f, "a");
    await_answers(f, 4);
    document_of(f, 12);
    assert_non_null(
        strstr(f->seen, "\"labels\":null,\"old_state\":\"running\",\"state\":\"failed\""));
    assert_non_null(strstr(f->seen, "\"reason\":\"x\",\"exit\":{\"reason\":\"oom\"}"));
    assert_non_null(strstr(f->seen, "{\"revision\":12,\"time\":\"20"));
    assert_non_null(strstr(f->seen, "\"id\":\"a\",\"uid\":\"uid-a-97\",\"generation\":1"));
    document_of(f, 13);
    assert_non_null(strstr(f->seen, "\"exit\":null"));
    assert_non_null(strstr(f->seen, "\"labels\":{\"env\":\"a\\nb\"}"));
    document_of(f, 14);
    assert_non_null(strstr(f->seen, "\"type\":\"deleted\""));
    assert_non_null(strstr(f->seen, "\"labels\":{\"env\":\"a\\nb\"}"));
}

static void labels_too_large_to_be_kept_with_each_event_are_not_told(void **state)
{
    struct fixture *f = *state;
    char spec[4096];

    for (int more = 0; more < 2; more++) { /* {"k":"xxx..."} of 2048 bytes, and of one more */
        snprintf(spec, sizeof spec, "{\"labels\":{\"k\":\"%0*d\"}}", 2048 - 8 + more, 0);
        put_of(f, "a", 'a', spec, "{}");
    }
    await_answers(f, 2);
    document_of(f, 11);
    assert_non_null(strstr(f->seen, "\"labels\":{\"k\":\"000"));
    document_of(f, 12);
    assert_non_null(strstr(f->seen, "\"labels\":null"));
}

static void the_oldest_go_and_it_is_known_which(void **state)
{
    struct fixture *f = *state;
    char status[32];

    database_keep_events(f->database, 5);
    for (int i = 0; i < 20; i++) {
        snprintf(status, sizeof status, "{\"n\":%d}", i);
        put(f, "a", status);
    }
    await_answers(f, 20);
    read_events(f, 0, 100);
    assert_string_equal(f->seen, "26 changed vm/a;27 changed vm/a;28 changed vm/a;"
                                 "29 changed vm/a;30 changed vm/a;");
    assert_int_equal(f->trimmed, 25);
    assert_int_equal(reopen(f), 0);
    read_events(f, 29, 100);
    assert_int_equal(f->trimmed, 25); /* though it may keep more now */
}

static void watch(void *context)
{
    struct fixture *f = context;

    f->watched++;
    f->watched_revision = database_revision(f->database);
}

static void who_watches_is_told_after_the_commit(void **state)
{
    struct fixture *f = *state;

    database_watch(f->database, watch, f);
    put(f, "a", "{}");
    assert_int_equal(database_revision(f->database), 0);
    assert_int_equal(f->watched, 0);
    await_answers(f, 1);
    assert_int_equal(f->watched, 1);
    assert_int_equal(f->watched_revision, 11);
    put_of(f, "twin", 'a', "{}", "{}");
    await_answers(f, 2);
    assert_int_equal(f->failures, 1);
    assert_int_equal(f->watched, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(each_change_is_told_of_once),
        TEST(what_fails_is_not_told_of),
        TEST(states_reasons_exits_and_labels_are_told),
        TEST(labels_too_large_to_be_kept_with_each_event_are_not_told),
        TEST(the_oldest_go_and_it_is_known_which),
        TEST(who_watches_is_told_after_the_commit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
