/* test_plot.c - what the simulator draws is a picture of the points it was given. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/sim/plot.h"

static unsigned count_of(const char *text, const char *what)
{
    unsigned count = 0;

    for (const char *at = text; (at = strstr(at, what)); at += strlen(what))
        count++;
    return count;
}

static void lines_are_drawn_from_left_to_right(void **state)
{
    struct plot *plot = calloc(1, sizeof *plot);
    char path[] = "/tmp/warren-plot-XXXXXX", text[8192] = "";
    int fd = mkstemp(path);
    double x[3], y[3];

    (void)state;
    assert_non_null(plot);
    assert_true(fd >= 0);
    *plot = (struct plot){ .title = "title", .x_name = "across", .y_name = "up", .count = 2 };
    plot->lines[0].name = "one";
    plot->lines[1].name = "other";
    for (unsigned i = 0; i < 3; i++)
        plot_point(&plot->lines[0], i, i * 10.0);
    plot_point(&plot->lines[1], 1, 5);
    assert_int_equal(plot_write(plot, path), 0);
    assert_true(read(fd, text, sizeof text - 1) > 0);
    assert_int_equal(strncmp(text, "<svg ", 5), 0);
    assert_string_equal(text + strlen(text) - 7, "</svg>\n");
    assert_int_equal(count_of(text, "<polyline "), 2);
    assert_int_equal(count_of(text, ">one<") + count_of(text, ">other<"), 2);
    assert_int_equal(count_of(text, "title") + count_of(text, "across"), 2);
    assert_int_equal(sscanf(strstr(text, "points='"), "points='%lf,%lf %lf,%lf %lf,%lf '", &x[0],
                            &y[0], &x[1], &y[1], &x[2], &y[2]),
                     6);
    for (unsigned i = 1; i < 3; i++)
        assert_true(x[i] > x[i - 1] && y[i] < y[i - 1] && y[i] > 0); /* down is up */
    close(fd);
    unlink(path);
    free(plot);
}

static void what_is_too_much_is_left_out(void **state)
{
    struct plot *plot = calloc(1, sizeof *plot);

    (void)state;
    assert_non_null(plot);
    for (unsigned i = 0; i < PLOT_POINTS_MAX + 10; i++)
        plot_point(&plot->lines[0], i, i);
    assert_int_equal(plot->lines[0].count, PLOT_POINTS_MAX);
    assert_int_equal(plot_write(plot, "/nowhere/plot.svg"), -1);
    free(plot);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_drawn_from_left_to_right),
        cmocka_unit_test(what_is_too_much_is_left_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
