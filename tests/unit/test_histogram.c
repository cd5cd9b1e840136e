/* test_histogram.c - base/histogram.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/histogram.h"

static char *printed(const struct histogram *histogram, const char *labels)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    assert_non_null(out);
    histogram_print(histogram, out, "t", labels);
    fclose(out);
    return text;
}

static void buckets_are_cumulative(void **state)
{
    struct histogram histogram = { 0 };
    auto_free char *text = NULL;

    (void)state;
    histogram_observe(&histogram, 100);        /* a bound belongs to its bucket */
    histogram_observe(&histogram, 101);        /* to the next */
    histogram_observe(&histogram, 3600000000); /* to none but +Inf */
    assert_int_equal(histogram_count(&histogram), 3);
    text = printed(&histogram, "");
    assert_non_null(strstr(text, "t_bucket{le=\"0.0001\"} 1\n"));
    assert_non_null(strstr(text, "t_bucket{le=\"0.00025\"} 2\n"));
    assert_non_null(strstr(text, "t_bucket{le=\"60\"} 2\n"));
    assert_non_null(strstr(text, "t_bucket{le=\"+Inf\"} 3\n"));
    assert_non_null(strstr(text, "t_sum 3600.000201\n"));
    assert_non_null(strstr(text, "t_count 3\n"));
}

static void a_clock_that_goes_back_counts_as_no_time(void **state)
{
    struct histogram histogram = { 0 };
    auto_free char *text = NULL;

    (void)state;
    histogram_observe(&histogram, -5);
    text = printed(&histogram, "operation=\"getVm\"");
    assert_non_null(strstr(text, "t_bucket{operation=\"getVm\",le=\"0.0001\"} 1\n"));
    assert_non_null(strstr(text, "t_sum{operation=\"getVm\"} 0.000000\n"));
    assert_non_null(strstr(text, "t_count{operation=\"getVm\"} 1\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets_are_cumulative),
        cmocka_unit_test(a_clock_that_goes_back_counts_as_no_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
