/* test_event_filter.c - which events pass, and which a listener who is limited to labels hears of.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include "agent/event_filter.h"
#include "base/error.h"
#include "storage/database.h"

/* selector: limits of who asks, else what is asked for. */
static bool passes_by(const char *selector, bool is_limit, const char *kind, const char *document)
{
    struct event event = {
        .id = 1, .kind = kind, .resource = "a", .type = "changed", .document = document
    };
    struct event_filter filter;

    assert_int_equal(event_filter_make(NULL, NULL, NULL, &filter, NULL), 0);
    assert_int_equal(
        label_selector_parse(selector, is_limit ? &filter.limits : &filter.labels, NULL), 0);
    return event_filter_passes(&filter, &event);
}

static bool passes(const char *limits, const char *kind, const char *document)
{
    return passes_by(limits, /* is_limit= */ true, kind, document);
}

static void limits_go_by_the_labels_in_the_event(void **state)
{
    (void)state;
    assert_true(passes("env=test", "vm", "{\"labels\":{\"env\":\"test\",\"a\":\"b\"}}"));
    assert_false(passes("env=test", "vm", "{\"labels\":{\"env\":\"prod\"}}"));
    assert_false(passes("env=test", "vm", "{\"labels\":{}}"));
    assert_true(passes("!secret", "vm", "{\"labels\":{}}"));
    assert_true(passes("env=test", "image", "{\"labels\":{\"env\":\"prod\"}}"));
}

static void what_does_not_say_its_labels_is_not_told(void **state)
{
    static const char *const documents[] = { "{}", "{\"labels\":null}", "{\"labels\":[]}",
                                             "{\"labels\":\"\"}" };

    (void)state;
    for (size_t i = 0; i < sizeof documents / sizeof documents[0]; i++) {
        assert_false(passes("!secret", "vm", documents[i]));
        assert_false(passes("env!=test", "vm", documents[i]));
        assert_true(passes("!secret", "operation", documents[i]));
    }
    assert_false(passes("!secret", "vm", "{\"labels\":"));
}

static void labels_that_are_asked_for_are_of_any_kind(void **state)
{
    (void)state;
    assert_true(passes_by("a", false, "vm", "{\"labels\":{\"a\":\"\"}}"));
    assert_false(passes_by("a", false, "vm", "{\"labels\":{\"b\":\"\"}}"));
    assert_false(passes_by("a", false, "image", "{\"labels\":{\"b\":\"\"}}"));
    assert_false(passes_by("a", false, "operation", "{\"labels\":null}"));
    assert_true(passes_by("!a", false, "operation", "{\"labels\":null}"));
}

static void kind_id_and_type_must_be_as_asked(void **state)
{
    struct event event = {
        .kind = "vm", .resource = "a", .type = "deleted", .document = "not looked at"
    };
    struct event_filter filter;
    struct error err;

    (void)state;
    assert_int_equal(event_filter_make("vm", "a", "deleted", &filter, &err), 0);
    assert_true(event_filter_passes(&filter, &event));
    event.kind = "volume";
    assert_false(event_filter_passes(&filter, &event));
    event.kind = "vm";
    event.resource = "aa";
    assert_false(event_filter_passes(&filter, &event));
    event.resource = "a";
    event.type = "created";
    assert_false(event_filter_passes(&filter, &event));
    assert_int_equal(event_filter_make("pod", NULL, NULL, &filter, &err), -EINVAL);
    assert_string_equal(err.field, "kind");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limits_go_by_the_labels_in_the_event),
        cmocka_unit_test(what_does_not_say_its_labels_is_not_told),
        cmocka_unit_test(labels_that_are_asked_for_are_of_any_kind),
        cmocka_unit_test(kind_id_and_type_must_be_as_asked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
