/* plot.h - lines in an SVG file. */
#pragma once

#define PLOT_LINES_MAX  10
#define PLOT_POINTS_MAX 4096

struct plot_line {
    const char *name; /* borrowed */
    double x[PLOT_POINTS_MAX], y[PLOT_POINTS_MAX];
    unsigned count;
};

struct plot {
    const char *title, *x_name, *y_name; /* borrowed */
    double y_max;                        /* what is above is cut; 0 = as it comes */
    struct plot_line lines[PLOT_LINES_MAX];
    unsigned count;
};

void plot_point(struct plot_line *line, double x, double y);
/* 0, or -1 with errno. */
int plot_write(const struct plot *plot, const char *path);
