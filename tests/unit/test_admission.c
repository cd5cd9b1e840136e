/* test_admission.c - memory that may be promised: the exact edges, and numbers that would wrap. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include "agent/node_change.h"
#include "base/error.h"
#include "scheduler/admission.h"

static const struct memory_capacity host = { .host_mib = 1024,
                                             .reserve_mib = 512,
                                             .ratio_percent = 100 };

/* All of it guaranteed. */
static int check(const struct memory_capacity *capacity, uint64_t promised, uint64_t wanted,
                 struct error *err)
{
    const struct memory_promise all = { promised, promised }, one = { wanted, wanted };

    return admission_check(capacity, &all, &one, err);
}

static uint64_t fits(const struct memory_capacity *capacity, uint64_t promised, uint64_t max,
                     uint64_t min)
{
    const struct memory_promise all = { promised, promised }, each = { max, min };

    return admission_fits(capacity, &all, &each);
}

static void the_last_mebibyte_fits_and_one_more_does_not(void **state)
{
    struct error err = { 0 };

    (void)state;
    assert_int_equal(admission_allocatable_mib(&host), 512);
    assert_int_equal(fits(&host, 0, 60, 60), 8);
    assert_int_equal(fits(&host, 1, 60, 60), 7);
    assert_int_equal(fits(&host, 513, 60, 60), 0);
    assert_int_equal(fits(&host, 0, 509, 1), 0);
    assert_int_equal(check(&host, 0, 512 - VM_OVERHEAD_MIB, &err), 0);
    assert_int_equal(check(&host, 0, 512 - VM_OVERHEAD_MIB + 1, &err), -ENOMEM);
    assert_string_equal(err.field, "memory_mib");
    assert_non_null(strstr(err.message, "512"));
    assert_int_equal(check(&host, 256, 256 - VM_OVERHEAD_MIB, &err), 0);
    assert_int_equal(check(&host, 257, 256 - VM_OVERHEAD_MIB, &err), -ENOMEM);
}

static void more_promised_than_there_is_refuses_and_does_not_wrap(void **state)
{
    (void)state;
    assert_int_equal(check(&host, 513, 0, NULL), -ENOMEM);
    assert_int_equal(check(&host, UINT64_MAX, 1, NULL), -ENOMEM);
    assert_int_equal(check(&host, 0, UINT64_C(512) << 20, NULL), -ENOMEM);
}

static void the_reserve_may_be_all(void **state)
{
    struct memory_capacity small = { .host_mib = 256, .reserve_mib = 512, .ratio_percent = 1000 };

    (void)state;
    assert_int_equal(admission_allocatable_mib(&small), 0);
    assert_int_equal(check(&small, 0, 0, NULL), -ENOMEM);
}

static void the_ratio_overcommits_what_is_not_guaranteed(void **state)
{
    struct memory_capacity twice = host;
    const struct memory_promise promised = { 512, 128 }, next = { 512 - VM_OVERHEAD_MIB, 128 };
    const struct memory_promise more = { 513 - VM_OVERHEAD_MIB, 128 };
    struct error err = { 0 };

    (void)state;
    twice.ratio_percent = 200;
    twice.swap_mib = 1024;
    assert_int_equal(admission_check(&twice, &promised, &next, NULL), 0);
    assert_int_equal(admission_check(&twice, &promised, &more, &err), -ENOMEM);
    assert_string_equal(err.field, "memory_mib");
    assert_int_equal(check(&twice, 512, 512 - VM_OVERHEAD_MIB, &err), -ENOMEM);
    assert_string_equal(err.field, "memory_min_mib");
    assert_int_equal(fits(&twice, 0, 60, 60), 8);
    assert_int_equal(fits(&twice, 0, 60, 28), 16);
    twice.ratio_percent = 50;
    assert_int_equal(admission_allocatable_mib(&twice), 256);
}

static void what_is_overcommitted_has_its_place_in_swap(void **state)
{
    struct memory_capacity twice = host;

    (void)state;
    twice.ratio_percent = 200;
    assert_int_equal(admission_allocatable_mib(&twice), 512);
    twice.swap_mib = 100;
    assert_int_equal(admission_allocatable_mib(&twice), 612);
    twice.swap_mib = 10000;
    assert_int_equal(admission_allocatable_mib(&twice), 1024);
}

static void a_host_that_is_short_starts_nothing(void **state)
{
    struct memory_capacity now = host;
    struct error err = { 0 };

    (void)state;
    assert_int_equal(check(&now, 0, 16, &err), 0);
    assert_int_equal(fits(&now, 0, 60, 60), 8);
    now.is_short = true;
    assert_int_equal(fits(&now, 0, 60, 60), 0);
    assert_int_equal(check(&now, 0, 16, &err), -ENOMEM);
    assert_non_null(strstr(err.message, "try again"));
}

/* Its deletion is committed, and its process killed: that may take a while to give it all back. */
static void memory_is_promised_until_the_process_has_ended(void **state)
{
    struct vm vm = { .head.deleting = true, .state = VM_DELETING, .pidfd = 9 };
    struct resource *items[] = { &vm.head };
    struct node node = { .tables[RESOURCE_VM] = { .items = items, .count = 1 } };

    (void)state;
    vm.spec.memory_max_mib = vm.spec.memory_min_mib = 100;
    assert_int_equal(node_promised(&node, NULL).max_mib, 100 + VM_OVERHEAD_MIB);
    vm.pidfd = -1;
    assert_int_equal(node_promised(&node, NULL).max_mib, 0);
}

/* Between its admission and its commit nobody else gets what it is promised; stopped, it has
 * nothing. */
static void a_change_that_is_being_committed_counts(void **state)
{
    struct vm_spec next = { .memory_max_mib = 90, .memory_min_mib = 80 };
    struct vm vm = { .pidfd = 9, .next = &next };
    struct resource *items[] = { &vm.head };
    struct node node = { .tables[RESOURCE_VM] = { .items = items, .count = 1 } };

    (void)state;
    vm.spec.memory_max_mib = 100;
    vm.spec.memory_min_mib = 50;
    assert_int_equal(node_promised(&node, NULL).min_mib, 80 + VM_OVERHEAD_MIB);
    assert_int_equal(node_promised(&node, NULL).max_mib, 100 + VM_OVERHEAD_MIB);
    change_settle_vm(&vm);
    assert_int_equal(node_promised(&node, NULL).min_mib, 50 + VM_OVERHEAD_MIB);
    vm.next = &next;
    vm.pidfd = -1;
    assert_int_equal(node_promised(&node, NULL).min_mib, 0);
    vm.start_committing = true; /* with more memory than it had when it was stopped */
    next.memory_max_mib = 200;
    assert_int_equal(node_promised(&node, NULL).max_mib, 200 + VM_OVERHEAD_MIB);
}

static void a_guarantee_may_grow_where_the_ratio_is_used_up(void **state)
{
    const struct memory_promise promised = { 1024, 256 }, next = { 1024, 256 - VM_OVERHEAD_MIB };
    const struct memory_promise more = { 1024, 257 - VM_OVERHEAD_MIB };
    struct memory_capacity now = host;
    struct error err = { 0 };

    (void)state;
    now.is_short = true;
    assert_int_equal(admission_check_guarantee(&now, &promised, &next, &err), 0);
    assert_int_equal(admission_check_guarantee(&now, &promised, &more, &err), -ENOMEM);
    assert_string_equal(err.field, "memory_min_mib");
    assert_non_null(strstr(err.message, "257 MiB are needed with overhead, 256 of 512 MiB"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_mebibyte_fits_and_one_more_does_not),
        cmocka_unit_test(more_promised_than_there_is_refuses_and_does_not_wrap),
        cmocka_unit_test(the_reserve_may_be_all),
        cmocka_unit_test(the_ratio_overcommits_what_is_not_guaranteed),
        cmocka_unit_test(what_is_overcommitted_has_its_place_in_swap),
        cmocka_unit_test(a_host_that_is_short_starts_nothing),
        cmocka_unit_test(memory_is_promised_until_the_process_has_ended),
        cmocka_unit_test(a_change_that_is_being_committed_counts),
        cmocka_unit_test(a_guarantee_may_grow_where_the_ratio_is_used_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
