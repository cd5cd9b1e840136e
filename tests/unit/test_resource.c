/* test_resource.c - tables of resources by id, and times as text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "agent/resource.h"
#include "base/cleanup.h"

static void a_table_is_sorted_whatever_the_order(void **state)
{
    struct resource_table table = { 0 };
    struct resource *all = calloc(300, sizeof *all);

    (void)state;
    for (unsigned i = 0; i < 300; i++) {
        snprintf(all[i].id, sizeof all[i].id, "r%03u", i * 7 % 300);
        assert_int_equal(resource_insert(&table, &all[i]), 0);
    }
    assert_int_equal(table.count, 300);
    for (size_t i = 1; i < table.count; i++)
        assert_true(strcmp(table.items[i - 1]->id, table.items[i]->id) < 0);
    for (unsigned i = 0; i < 300; i++)
        assert_ptr_equal(resource_find(&table, all[i].id), &all[i]);
    for (unsigned i = 0; i < 300; i += 2)
        resource_remove(&table, &all[i]);
    assert_int_equal(table.count, 150);
    for (unsigned i = 0; i < 300; i++)
        assert_ptr_equal(resource_find(&table, all[i].id), i % 2 ? &all[i] : NULL);
    free(table.items);
    free(all);
}

static void after_is_the_next_greater(void **state)
{
    struct resource a = { .id = "a" };
    struct resource c = { .id = "c" };
    struct resource_table table = { 0 };

    (void)state;
    assert_int_equal(resource_after(&table, ""), 0);
    assert_null(resource_find(&table, "a"));
    resource_insert(&table, &c);
    resource_insert(&table, &a);
    assert_int_equal(resource_after(&table, ""), 0);
    assert_int_equal(resource_after(&table, "a"), 1);
    assert_int_equal(resource_after(&table, "b"), 1); /* deleted meanwhile */
    assert_int_equal(resource_after(&table, "c"), 2);
    free(table.items);
}

static void another_of_the_same_id_is_not_removed(void **state)
{
    struct resource a = { .id = "a" };
    struct resource twin = { .id = "a" };
    struct resource_table table = { 0 };

    (void)state;
    resource_insert(&table, &a);
    resource_remove(&table, &twin);
    assert_int_equal(table.count, 1);
    free(table.items);
}

static void times_are_utc_with_milliseconds(void **state)
{
    char text[TIMESTAMP_TEXT];

    (void)state;
    timestamp_format(0, text);
    assert_string_equal(text, "1970-01-01T00:00:00.000Z");
    timestamp_format(INT64_C(1793714639007), text);
    assert_string_equal(text, "2026-11-03T14:03:59.007Z");
    timestamp_format(INT64_C(951782400999), text);
    assert_string_equal(text, "2000-02-29T00:00:00.999Z");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_table_is_sorted_whatever_the_order),
        cmocka_unit_test(after_is_the_next_greater),
        cmocka_unit_test(another_of_the_same_id_is_not_removed),
        cmocka_unit_test(times_are_utc_with_milliseconds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
