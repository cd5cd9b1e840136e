/* test_error.c - error objects: what is kept, what is cut, what NULL does. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include "base/error.h"

static void set_fills_code_and_message(void **state)
{
    struct error err = { .field = "old" };

    (void)state;
    assert_int_equal(error_set(&err, ENOENT, "no %s %d", "disk", 3), -ENOENT);
    assert_int_equal(err.code, ENOENT);
    assert_string_equal(err.message, "no disk 3");
    assert_string_equal(err.field, "");
}

static void a_negative_code_is_the_same(void **state)
{
    struct error err;

    (void)state;
    assert_int_equal(error_set(&err, -EIO, "x"), -EIO);
    assert_int_equal(err.code, EIO);
}

static void field_is_named_and_cut(void **state)
{
    struct error err;
    char name[200];

    (void)state;
    assert_int_equal(error_field(&err, EINVAL, "spec.vcpus", "must be %d", 1), -EINVAL);
    assert_string_equal(err.field, "spec.vcpus");
    assert_string_equal(err.message, "must be 1");
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    error_field(&err, EINVAL, name, "%s%s", name, name);
    assert_int_equal(strlen(err.field), sizeof err.field - 1);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
}

static void wrap_puts_context_before_and_keeps_the_rest(void **state)
{
    struct error err;

    (void)state;
    error_field(&err, EBUSY, "disk", "in use");
    assert_int_equal(error_wrap(&err, "vm %s", "a"), -EBUSY);
    assert_string_equal(err.message, "vm a: in use");
    assert_string_equal(err.field, "disk");
    for (int i = 0; i < 100; i++)
        error_wrap(&err, "again and again");
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    assert_int_equal(err.code, EBUSY);
}

static void nobody_has_to_care(void **state)
{
    (void)state;
    assert_int_equal(error_set(NULL, EPERM, "x"), -EPERM);
    assert_int_equal(error_field(NULL, -EPERM, "f", "x"), -EPERM);
    assert_true(error_wrap(NULL, "x") < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(set_fills_code_and_message),
        cmocka_unit_test(a_negative_code_is_the_same),
        cmocka_unit_test(field_is_named_and_cut),
        cmocka_unit_test(wrap_puts_context_before_and_keeps_the_rest),
        cmocka_unit_test(nobody_has_to_care),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
