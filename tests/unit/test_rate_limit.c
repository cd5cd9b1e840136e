/* test_rate_limit.c - the token buckets, on a clock of our own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include "vmm/rate_limit.h"

#define MIB (1u << 20)

/* Passes as many of `size` bytes as it may until end_ms, waiting as told; how many. */
static uint64_t pass(struct rate_limit *limit, int64_t *now_ms, int64_t end_ms, uint64_t size)
{
    uint64_t count = 0;

    while (*now_ms < end_ms) {
        int64_t wait_ms = rate_limit_wait(limit, *now_ms);

        assert_true(wait_ms >= 0);
        if (wait_ms > 0) {
            *now_ms += wait_ms;
            assert_int_equal(rate_limit_wait(limit, *now_ms), 0); /* told exactly */
        } else {
            rate_limit_spend(limit, size);
            count++;
        }
    }
    return count;
}

static void no_limit_lets_all_pass(void **state)
{
    const struct vmm_rate_limit spec = { .bytes_burst = 5, .operations_burst = 5 };
    struct rate_limit limit = { 0 };

    (void)state;
    rate_limit_set(&limit, &spec, 0);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(rate_limit_wait(&limit, 0), 0);
        rate_limit_spend(&limit, VMM_RATE_MAX);
    }
}

static void over_time_the_rate_passes(void **state)
{
    static const struct {
        uint64_t rate, size;
    } cases[] = { { 10 * MIB, 4096 }, { 10 * MIB, 512 }, { MIB, MIB },  { 1, 1 },
                  { 3, 1 },           { 7, 10 },         { 999, 1000 }, { 1000001, 4096 } };

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct vmm_rate_limit spec = { .bytes_per_second = cases[i].rate };
        struct rate_limit limit = { 0 };
        int64_t now_ms = 5000;
        uint64_t bytes;

        rate_limit_set(&limit, &spec, now_ms);
        bytes = pass(&limit, &now_ms, 5000 + 1000 * 1000, cases[i].size) * cases[i].size;
        /* 1000 s' worth, what the bucket held at first, and one that goes into debt. */
        assert_in_range(bytes, cases[i].rate * 1000 - cases[i].size,
                        cases[i].rate * 1000 + cases[i].rate / 10 + cases[i].size + 1);
    }
}

static void operations_are_limited_of_any_size(void **state)
{
    const struct vmm_rate_limit spec = { .operations_per_second = 100,
                                         .bytes_per_second = 1000 * MIB };
    struct rate_limit limit = { 0 };
    int64_t now_ms = 0;

    (void)state;
    rate_limit_set(&limit, &spec, 0);
    assert_in_range(pass(&limit, &now_ms, 60000, 0), 5999, 6011);
}

static void the_burst_passes_once(void **state)
{
    const struct vmm_rate_limit spec = { .bytes_per_second = 1000, .bytes_burst = 1000000 };
    struct rate_limit limit = { 0 };
    int64_t now_ms = 0;

    (void)state;
    rate_limit_set(&limit, &spec, 0);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(rate_limit_wait(&limit, 0), 0);
        rate_limit_spend(&limit, 1000);
    }
    assert_int_equal(limit.bytes.burst, 0);
    assert_in_range(pass(&limit, &now_ms, 10000, 1), 10000, 10101);
    rate_limit_wait(&limit,
                    1000000000); /* rest brings no burst back, a tenth of a second at most */
    now_ms = 1000000000;
    assert_in_range(pass(&limit, &now_ms, 1000000001, 1), 100, 102);
}

/* What does not come out even is carried: looking often loses nothing. */
static void fractions_are_carried(void **state)
{
    const struct vmm_rate_limit spec = { .operations_per_second = 1 };
    struct rate_limit limit = { 0 };
    unsigned passed = 0;

    (void)state;
    rate_limit_set(&limit, &spec, 0);
    for (int64_t now_ms = 0; now_ms < 100000; now_ms++) {
        if (rate_limit_wait(&limit, now_ms) == 0) {
            rate_limit_spend(&limit, 0);
            passed++;
        }
    }
    assert_in_range(passed, 100, 101);
}

static void a_debt_is_paid(void **state)
{
    const struct vmm_rate_limit spec = { .bytes_per_second = 1000 };
    struct rate_limit limit = { 0 };

    (void)state;
    rate_limit_set(&limit, &spec, 0);
    rate_limit_spend(&limit, 60100); /* 100 are there: a minute's worth of debt */
    assert_int_equal(rate_limit_wait(&limit, 0), 60001);
    assert_int_equal(rate_limit_wait(&limit, 60000), 1);
    assert_int_equal(rate_limit_wait(&limit, 60001), 0);
}

static void a_clock_that_goes_back_adds_nothing(void **state)
{
    const struct vmm_rate_limit spec = { .bytes_per_second = 1000 };
    struct rate_limit limit = { 0 };

    (void)state;
    rate_limit_set(&limit, &spec, 1000);
    rate_limit_spend(&limit, 1100);
    assert_int_equal(rate_limit_wait(&limit, 0), 1001);
    assert_int_equal(rate_limit_wait(&limit, 1000), 1001);
    assert_int_equal(rate_limit_wait(&limit, 1500), 501);
}

static void a_change_keeps_what_is_spent(void **state)
{
    struct vmm_rate_limit spec = { .bytes_per_second = 1000, .bytes_burst = 5000 };
    struct rate_limit limit = { 0 };

    (void)state;
    rate_limit_set(&limit, &spec, 0);
    rate_limit_spend(&limit, 3000);
    for (unsigned i = 0; i < 10; i++)
        rate_limit_set(&limit, &spec, 0); /* the same: nothing is given twice */
    rate_limit_spend(&limit, 2000);
    rate_limit_spend(&limit, 1100); /* a tenth of a second's was there: a debt of 1000 */
    assert_int_equal(rate_limit_wait(&limit, 0), 1001);
    spec.bytes_burst = 6000; /* 5000 of them are spent */
    rate_limit_set(&limit, &spec, 0);
    assert_int_equal(rate_limit_wait(&limit, 0), 0);
    rate_limit_spend(&limit, 1000);
    assert_int_equal(rate_limit_wait(&limit, 0), 1001);
    spec.bytes_per_second = 10000; /* the debt stays, and is paid faster */
    rate_limit_set(&limit, &spec, 0);
    assert_int_equal(rate_limit_wait(&limit, 0), 101);
    spec.bytes_per_second = 0;
    rate_limit_set(&limit, &spec, 0);
    assert_int_equal(rate_limit_wait(&limit, 0), 0);
    assert_false(rate_limit_is_set(&limit));
    rate_limit_spend(&limit, 1 << 20); /* none of it is owed later */
    spec.bytes_per_second = 1000;
    rate_limit_set(&limit, &spec, 0);
    assert_int_equal(rate_limit_wait(&limit, 0), 0);
    rate_limit_spend(&limit, 1100);
    assert_int_equal(rate_limit_wait(&limit, 0), 1001);
}

/* Even if nobody asked meanwhile. */
static void a_change_keeps_what_was_paid(void **state)
{
    const struct vmm_rate_limit spec = { .bytes_per_second = 1000 };
    struct rate_limit limit = { 0 };

    (void)state;
    rate_limit_set(&limit, &spec, 0);
    rate_limit_spend(&limit, 10100); /* 100 are there */
    rate_limit_set(&limit, &spec, 9000);
    assert_int_equal(rate_limit_wait(&limit, 9000), 1001);
}

/* The largest of everything, in the sanitizer's build. */
static void nothing_overflows(void **state)
{
    const struct vmm_rate_limit spec = { VMM_RATE_MAX, VMM_RATE_MAX, VMM_RATE_MAX, VMM_RATE_MAX };
    const struct vmm_rate_limit slow = { .bytes_per_second = 1, .operations_per_second = 1 };
    struct rate_limit limit = { 0 };

    (void)state;
    rate_limit_set(&limit, &spec, 0);
    rate_limit_spend(&limit, VMM_RATE_MAX);
    assert_int_equal(rate_limit_wait(&limit, INT64_MAX), 0);
    rate_limit_spend(&limit, VMM_RATE_MAX);
    assert_in_range(rate_limit_wait(&limit, INT64_MAX), 0, 1001);

    limit = (struct rate_limit){ 0 };
    rate_limit_set(&limit, &slow, 0);
    rate_limit_spend(&limit, VMM_RATE_MAX);
    assert_int_equal(rate_limit_wait(&limit, 0), (VMM_RATE_MAX * 1000 - 100) + 1);
    assert_int_equal(rate_limit_wait(&limit, INT64_MAX), 0);
    rate_limit_set(&limit, &spec, INT64_MAX);
    rate_limit_spend(&limit, VMM_RATE_MAX);
    rate_limit_set(&limit, &slow, INT64_MAX);
    assert_true(rate_limit_wait(&limit, INT64_MAX) >= 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_limit_lets_all_pass),
        cmocka_unit_test(over_time_the_rate_passes),
        cmocka_unit_test(operations_are_limited_of_any_size),
        cmocka_unit_test(the_burst_passes_once),
        cmocka_unit_test(fractions_are_carried),
        cmocka_unit_test(a_debt_is_paid),
        cmocka_unit_test(a_clock_that_goes_back_adds_nothing),
        cmocka_unit_test(a_change_keeps_what_is_spent),
        cmocka_unit_test(a_change_keeps_what_was_paid),
        cmocka_unit_test(nothing_overflows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
