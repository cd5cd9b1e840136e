/* test_query.c - request targets taken apart, strictly. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "api/query.h"
#include "base/cleanup.h"
#include "base/error.h"

static char buffer[256];

static int parse(const char *target, struct query *ret_query, struct error *err)
{
    snprintf(buffer, sizeof(buffer), "%s", target);
    return query_parse(buffer, ret_query, err);
}

static void path_and_parameters_are_split(void **state)
{
    struct query query;

    (void)state;
    assert_int_equal(parse("/v1/vms?limit=5&cursor=web%2D1&empty=&bare", &query, NULL), 0);
    assert_string_equal(buffer, "/v1/vms");
    assert_int_equal(query.count, 4);
    assert_string_equal(query_get(&query, "limit"), "5");
    assert_string_equal(query_get(&query, "cursor"), "web-1");
    assert_string_equal(query_get(&query, "empty"), "");
    assert_string_equal(query_get(&query, "bare"), "");
    assert_null(query_get(&query, "other"));
}

static void malformed_targets_are_refused(void **state)
{
    static const char *const targets[] = {
        "v1/vms",      "*",       "http://h/v1", "/v1/%2e%2e/x", "/v1/a%00b",
        "/v1/vms%2fa", "/a?x=%0", "/a?x=%zz",    "/a?x=%00",     "/a?x=%0a",
        "/a?x=1&x=2",  "/a?=1",   "/a?x=%ff",    "/a?&x=1",      "/a?a&b&c&d&e&f&g&h&i",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(targets); i++) {
        struct error err = { 0 };
        struct query query;

        if (parse(targets[i], &query, &err) != -EINVAL)
            fail_msg("accepted: %s", targets[i]);
        assert_true(err.field[0] != '\0');
    }
}

static void numbers_are_read_strictly(void **state)
{
    static const char *const bad[] = {
        "/a?n=",    "/a?n=-1",  "/a?n=+1", "/a?n=%201", "/a?n=1x",
        "/a?n=0x1", "/a?n=1.0", "/a?n=11", "/a?n=0",    "/a?n=99999999999999999999999999"
    };
    struct query query;
    struct error err;
    int64_t value = 0;

    (void)state;
    assert_int_equal(parse("/a?n=10", &query, NULL), 0);
    assert_int_equal(query_integer(&query, "n", 1, 10, 5, &value, NULL), 0);
    assert_int_equal(value, 10);
    assert_int_equal(query_integer(&query, "m", 1, 10, 5, &value, NULL), 0);
    assert_int_equal(value, 5);
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        assert_int_equal(parse(bad[i], &query, NULL), 0);
        if (query_integer(&query, "n", 1, 10, 5, &value, &err) != -EINVAL)
            fail_msg("accepted: %s", bad[i]);
        assert_string_equal(err.field, "n");
        assert_int_equal(value, 5); /* untouched */
    }
}

static void unknown_names_are_named(void **state)
{
    static const char *const allowed[] = { "limit", "cursor", NULL };
    struct query query;
    struct error err;

    (void)state;
    assert_int_equal(parse("/a?limit=1&Limit=1", &query, NULL), 0);
    assert_int_equal(query_check_names(&query, allowed, &err), -EINVAL);
    assert_string_equal(err.field, "Limit");
    assert_int_equal(query_check_names(&query, NULL, &err), -EINVAL);
    assert_string_equal(err.field, "limit");
    assert_int_equal(parse("/a?", &query, NULL), 0);
    assert_int_equal(query_check_names(&query, NULL, &err), 0);
}

static void booleans_are_two_words(void **state)
{
    struct query query;
    bool value = true;

    (void)state;
    assert_int_equal(parse("/a?yes=true&no=false&odd=1", &query, NULL), 0);
    assert_int_equal(query_bool(&query, "absent", &value, NULL), 0);
    assert_false(value);
    assert_int_equal(query_bool(&query, "yes", &value, NULL), 0);
    assert_true(value);
    assert_int_equal(query_bool(&query, "no", &value, NULL), 0);
    assert_false(value);
    assert_int_equal(query_bool(&query, "odd", &value, NULL), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(path_and_parameters_are_split),
        cmocka_unit_test(malformed_targets_are_refused),
        cmocka_unit_test(numbers_are_read_strictly),
        cmocka_unit_test(unknown_names_are_named),
        cmocka_unit_test(booleans_are_two_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
