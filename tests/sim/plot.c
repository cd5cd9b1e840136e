#include "tests/sim/plot.h"

#include <math.h>
#include <stdio.h>

#define WIDTH  900.0
#define HEIGHT 420.0
#define LEFT   70.0
#define BELOW  50.0
#define KEY    150.0

static const char *const colours[PLOT_LINES_MAX] = { "#c0392b", "#7f8c8d", "#2980b9", "#8e44ad",
                                                     "#d35400", "#16a085", "#f39c12", "#2c3e50",
                                                     "#27ae60", "#e84393" };

void plot_point(struct plot_line *line, double x, double y)
{
    if (line->count == PLOT_POINTS_MAX)
        return;
    line->x[line->count] = x;
    line->y[line->count++] = y;
}

struct range {
    double x_low, x_high, y_low, y_high;
};

static struct range range_of(const struct plot *plot)
{
    struct range range = { INFINITY, -INFINITY, 0, -INFINITY };

    for (unsigned i = 0; i < plot->count; i++)
        for (unsigned p = 0; p < plot->lines[i].count; p++) {
            range.x_low = fmin(range.x_low, plot->lines[i].x[p]);
            range.x_high = fmax(range.x_high, plot->lines[i].x[p]);
            range.y_high = fmax(range.y_high, plot->lines[i].y[p]);
        }
    if (plot->y_max > 0) {
        range.y_high = plot->y_max;
        range.y_low = plot->y_max > 1 && plot->y_max < 3 ? 1 : 0;
    }
    return range;
}

static double x_at(const struct range *range, double x)
{
    return LEFT + (x - range->x_low) / (range->x_high - range->x_low) * (WIDTH - LEFT - KEY);
}

static double y_at(const struct range *range, double y)
{
    double part = (fmin(y, range->y_high) - range->y_low) / (range->y_high - range->y_low);

    return HEIGHT - BELOW - part * (HEIGHT - BELOW - 40);
}

static void write_axes(FILE *file, const struct plot *plot, const struct range *range)
{
    for (int i = 0; i <= 5; i++) {
        double x = range->x_low + (range->x_high - range->x_low) * i / 5;
        double y = range->y_low + (range->y_high - range->y_low) * i / 5;

        fprintf(file, "<text x='%.1f' y='%.1f' text-anchor='middle'>%.4g</text>\n", x_at(range, x),
                HEIGHT - BELOW + 18, x);
        fprintf(file, "<text x='%.1f' y='%.1f' text-anchor='end'>%.4g</text>\n", LEFT - 6,
                y_at(range, y) + 4, y);
        fprintf(file, "<line x1='%.1f' y1='%.1f' x2='%.1f' y2='%.1f' stroke='#ddd'/>\n", LEFT,
                y_at(range, y), WIDTH - KEY, y_at(range, y));
    }
    fprintf(file, "<text x='%.1f' y='22' font-size='15'>%s</text>\n", LEFT, plot->title);
    fprintf(file, "<text x='%.1f' y='%.1f' text-anchor='middle'>%s</text>\n",
            (LEFT + WIDTH - KEY) / 2, HEIGHT - 10, plot->x_name);
    fprintf(file, "<text x='14' y='%.1f' transform='rotate(-90 14 %.1f)'>%s</text>\n", HEIGHT / 2,
            HEIGHT / 2, plot->y_name);
}

int plot_write(const struct plot *plot, const char *path)
{
    struct range range = range_of(plot);
    FILE *file = fopen(path, "we");

    if (!file)
        return -1;
    fprintf(file,
            "<svg xmlns='http://www.w3.org/2000/svg' width='%.0f' height='%.0f' "
            "font-family='sans-serif' font-size='12'>\n<rect width='100%%' height='100%%' "
            "fill='white'/>\n",
            WIDTH, HEIGHT);
    write_axes(file, plot, &range);
    for (unsigned i = 0; i < plot->count; i++) {
        const struct plot_line *line = &plot->lines[i];

        fprintf(file, "<polyline fill='none' stroke='%s' stroke-width='1.5' points='", colours[i]);
        for (unsigned p = 0; p < line->count; p++)
            fprintf(file, "%.1f,%.1f ", x_at(&range, line->x[p]), y_at(&range, line->y[p]));
        fprintf(file, "'/>\n<text x='%.1f' y='%.1f' fill='%s'>%s</text>\n", WIDTH - KEY + 10,
                60.0 + 18 * i, colours[i], line->name);
    }
    fprintf(file, "</svg>\n");
    return fclose(file) == 0 ? 0 : -1;
}
