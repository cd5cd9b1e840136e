/* test_watchdog.c - when a process has hung, and when it is slow, or all of the machine is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/watchdog.h"

#define START_MS 1000

/* So many questions on time, none answered; the time of the last. */
static int64_t ask(struct watchdog *watchdog, int64_t now_ms, unsigned count)
{
    for (unsigned i = 0; i < count; i++, now_ms += WATCHDOG_MS)
        assert_int_equal(watchdog_turn(watchdog, now_ms), WATCHDOG_ASK);
    return now_ms - WATCHDOG_MS;
}

static void one_that_never_answers_has_hung(void **state)
{
    struct watchdog watchdog = { 0 };
    int64_t last = ask(&watchdog, START_MS, WATCHDOG_SILENT);

    (void)state;
    assert_int_equal(watchdog_turn(&watchdog, last + WATCHDOG_MS - 1), WATCHDOG_WAIT);
    assert_int_equal(watchdog_turn(&watchdog, last + WATCHDOG_MS), WATCHDOG_HUNG);
    assert_int_equal(last + WATCHDOG_MS - START_MS, 25000); /* as WATCHDOG_HUNG_TEXT says */
}

static void one_that_answers_has_not(void **state)
{
    struct watchdog watchdog = { 0 };

    (void)state;
    for (int64_t now = START_MS; now < 1000 * WATCHDOG_MS; now += WATCHDOG_MS) {
        assert_int_equal(watchdog_turn(&watchdog, now), WATCHDOG_ASK);
        watchdog_answered(&watchdog);
    }
}

static void one_late_answer_is_enough(void **state)
{
    struct watchdog watchdog = { 0 };
    int64_t now = START_MS;

    (void)state;
    for (int i = 0; i < 10; i++) {
        now = ask(&watchdog, now, WATCHDOG_SILENT) + WATCHDOG_MS;
        watchdog_answered(&watchdog);
    }
    now = ask(&watchdog, now, WATCHDOG_SILENT) + WATCHDOG_MS;
    assert_int_equal(watchdog_turn(&watchdog, now), WATCHDOG_HUNG);
}

static void a_late_turn_begins_anew(void **state)
{
    struct watchdog watchdog = { 0 };
    int64_t last = ask(&watchdog, START_MS, WATCHDOG_SILENT);

    (void)state;
    last = ask(&watchdog, last + WATCHDOG_LATE_MS + 1, WATCHDOG_SILENT);
    assert_int_equal(watchdog_turn(&watchdog, last + WATCHDOG_LATE_MS), WATCHDOG_HUNG);
    /* an hour within the count, as of a host that was suspended */
    watchdog = (struct watchdog){ 0 };
    last = ask(&watchdog, START_MS, WATCHDOG_SILENT - 1);
    last = ask(&watchdog, last + 3600 * 1000, WATCHDOG_SILENT);
    assert_int_equal(watchdog_turn(&watchdog, last + WATCHDOG_MS), WATCHDOG_HUNG);
}

static void nobody_is_asked_too_often(void **state)
{
    struct watchdog watchdog = { 0 };
    int asked = 0;

    (void)state;
    for (int64_t now = START_MS; now < START_MS + 4 * WATCHDOG_MS; now += 100)
        asked += watchdog_turn(&watchdog, now) == WATCHDOG_ASK;
    assert_int_equal(asked, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_that_never_answers_has_hung),
        cmocka_unit_test(one_that_answers_has_not),
        cmocka_unit_test(one_late_answer_is_enough),
        cmocka_unit_test(a_late_turn_begins_anew),
        cmocka_unit_test(nobody_is_asked_too_often),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
