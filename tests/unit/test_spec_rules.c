/* test_spec_rules.c - what a new spec must keep to, and an older one need not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include "agent/spec_rules.h"
#include "base/error.h"

static const struct {
    const char *key, *value;
    int of_vm, of_other;
} rows[] = {
    { "env", "prod", 0, 0 },
    { "a=b", "x", -EINVAL, -EINVAL },
    { "", "x", -EINVAL, -EINVAL },
    { "prometheus.io/port", "9100", 0, 0 },
    { "prometheus.io/port", "65535", 0, 0 },
    { "prometheus.io/port", "65536", -EINVAL, 0 },
    { "prometheus.io/port", "08", -EINVAL, 0 },
    { "prometheus.io/port", "", -EINVAL, 0 },
    { "prometheus.io/port", "a", -EINVAL, 0 },
    { "prometheus.io/port", "80a", -EINVAL, 0 },
    { "prometheus.io/path", "/m", 0, 0 },
    { "prometheus.io/path", "m", -EINVAL, 0 },
};

static void what_is_new_keeps_to_them(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        json_t *spec = json_pack("{s:{s:s}}", "labels", rows[i].key, rows[i].value);
        json_t *before = json_pack("{s:{s:s}}", "labels", rows[i].key, "?");
        struct error err = { 0 };

        if (spec_rules_check(RESOURCE_VM, spec, NULL, &err) != rows[i].of_vm ||
            spec_rules_check(RESOURCE_VM, spec, before, NULL) != rows[i].of_vm ||
            spec_rules_check(RESOURCE_VOLUME, spec, NULL, NULL) != rows[i].of_other)
            fail_msg("row %zu", i);
        assert_string_equal(err.field, rows[i].of_vm < 0 ? "labels" : "");
        json_decref(before);
        json_decref(spec);
    }
}

static void what_is_as_it_was_need_not(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        json_t *spec = json_pack("{s:{s:s}}", "labels", rows[i].key, rows[i].value);
        json_t *before = json_deep_copy(spec);

        assert_int_equal(spec_rules_check(RESOURCE_VM, spec, before, NULL), 0);
        json_decref(before);
        json_decref(spec);
    }
}

static void without_labels_there_is_nothing_to_keep_to(void **state)
{
    json_t *spec = json_object();

    (void)state;
    assert_int_equal(spec_rules_check(RESOURCE_VM, spec, NULL, NULL), 0);
    assert_int_equal(spec_rules_check(RESOURCE_OPERATION, spec, spec, NULL), 0);
    json_decref(spec);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_new_keeps_to_them),
        cmocka_unit_test(what_is_as_it_was_need_not),
        cmocka_unit_test(without_labels_there_is_nothing_to_keep_to),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
