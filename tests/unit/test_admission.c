/* test_admission.c - memory that may be promised: the exact edges, and numbers that would wrap. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include "base/error.h"
#include "scheduler/admission.h"

static const struct memory_capacity host = { .host_mib = 1024,
                                             .reserve_mib = 512,
                                             .ratio_percent = 100 };

static void the_last_mebibyte_fits_and_one_more_does_not(void **state)
{
    struct error err = { 0 };

    (void)state;
    assert_int_equal(admission_allocatable_mib(&host), 512);
    assert_int_equal(admission_check(&host, 0, 512 - VM_OVERHEAD_MIB, &err), 0);
    assert_int_equal(admission_check(&host, 0, 512 - VM_OVERHEAD_MIB + 1, &err), -ENOMEM);
    assert_string_equal(err.field, "memory_mib");
    assert_non_null(strstr(err.message, "512"));
    assert_int_equal(admission_check(&host, 256, 256 - VM_OVERHEAD_MIB, &err), 0);
    assert_int_equal(admission_check(&host, 257, 256 - VM_OVERHEAD_MIB, &err), -ENOMEM);
}

static void more_promised_than_there_is_refuses_and_does_not_wrap(void **state)
{
    (void)state;
    assert_int_equal(admission_check(&host, 513, 0, NULL), -ENOMEM);
    assert_int_equal(admission_check(&host, UINT64_MAX, 1, NULL), -ENOMEM);
    assert_int_equal(admission_check(&host, 0, UINT64_C(512) << 20, NULL), -ENOMEM);
}

static void the_reserve_may_be_all(void **state)
{
    struct memory_capacity small = { .host_mib = 256, .reserve_mib = 512, .ratio_percent = 1000 };

    (void)state;
    assert_int_equal(admission_allocatable_mib(&small), 0);
    assert_int_equal(admission_check(&small, 0, 0, NULL), -ENOMEM);
}

static void the_ratio_overcommits(void **state)
{
    struct memory_capacity twice = host;

    (void)state;
    twice.ratio_percent = 200;
    assert_int_equal(admission_check(&twice, 512, 512 - VM_OVERHEAD_MIB, NULL), 0);
    assert_int_equal(admission_check(&twice, 513, 512 - VM_OVERHEAD_MIB, NULL), -ENOMEM);
    twice.ratio_percent = 50;
    assert_int_equal(admission_allocatable_mib(&twice), 256);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_mebibyte_fits_and_one_more_does_not),
        cmocka_unit_test(more_promised_than_there_is_refuses_and_does_not_wrap),
        cmocka_unit_test(the_reserve_may_be_all),
        cmocka_unit_test(the_ratio_overcommits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
