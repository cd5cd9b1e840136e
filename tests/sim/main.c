/* main.c - what each policy makes of each trace, beside the goals. */
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/sim/plot.h"
#include "tests/sim/sim.h"

#define GUESTS    48
#define LENGTH_MS 1800000

struct options {
    uint64_t seed;
    const char *directory, *replay;
    double density;
};

static void usage(FILE *out)
{
    fputs("usage: sim [--seed N] [--out DIR] [--replay FILE] [--density X]\n\n"
          "Half an hour of 48 guests on a host, for each policy and each kind of demand: how much "
          "can be\n"
          "promised with at most 5 % slowdown and nobody killed; then one line a goal, as\n"
          "`name value unit goal ok|short` (- where there is no goal), and plots in DIR "
          "(build/sim).\n"
          "With --replay, demand comes from FILE, lines of "
          "`ms,guest,anon_mib,hot_mib,stream_mib_per_s[,max_mib]` (times of a guest\n"
          "ascending, guests from 0; tests/sim/record makes them of a node), and the policies are\n"
          "compared at that density (2).\n",
          out);
}

static bool goal(const char *name, double value, const char *unit, double goal, bool at_least)
{
    bool ok = at_least ? value >= goal : value <= goal;

    printf("%-34s %10.3f %-8s %8.3f %s\n", name, value, unit, goal, ok ? "ok" : "short");
    return ok;
}

static void figure(const char *name, double value, const char *unit)
{
    printf("%-34s %10.3f %-8s %8s -\n", name, value, unit, "-");
}

static struct sim_setup setup_of(const struct options *options, enum trace_kind trace)
{
    return (struct sim_setup){
        .trace = trace, .count = GUESTS, .length_ms = LENGTH_MS, .seed = options->seed, .density = 2
    };
}

/* --- densities --- */

static void print_densities(const struct options *options,
                            double ret_table[TRACE_KIND_COUNT][POLICY_COUNT])
{
    printf("%-12s", "density");
    for (unsigned p = 0; p < POLICY_COUNT; p++)
        printf("%10s", policies[p]->name);
    putchar('\n');
    for (int trace = 0; trace < TRACE_KIND_COUNT; trace++) {
        printf("%-12s", trace_names[trace]);
        for (unsigned p = 0; p < POLICY_COUNT; p++) {
            struct sim_setup setup = setup_of(options, (enum trace_kind)trace);

            ret_table[trace][p] = sim_density(setup, policies[p]);
            printf("%10.2f", ret_table[trace][p]);
            fflush(stdout);
        }
        putchar('\n');
    }
    putchar('\n');
}

static void judge_densities(double table[TRACE_KIND_COUNT][POLICY_COUNT])
{
    char name[64];

    goal("density_mixed", table[TRACE_MIXED][0], "x", 2, true);
    for (int trace = 0; trace < TRACE_KIND_COUNT; trace++) {
        double best = 0;

        for (unsigned p = 1; p < POLICY_COUNT - 1; p++)
            best = fmax(best, table[trace][p]);
        snprintf(name, sizeof name, "density_%s_to_best", trace_names[trace]);
        goal(name, table[trace][0] / best, "ratio", 0.98, true);
        snprintf(name, sizeof name, "density_%s_to_oracle", trace_names[trace]);
        goal(name, table[trace][0] / table[trace][POLICY_COUNT - 1], "ratio", 0.9, true);
    }
}

/* --- the mixed traces at twice the memory --- */

static void judge_twice(const struct options *options)
{
    struct sim_setup setup = setup_of(options, TRACE_MIXED);
    struct sim_result result;

    sim_run(&setup, &policy_warren, &result);
    goal("slowdown_mixed_at_2", result.slowdown, "x", 1.05, false);
    goal("kills_mixed_at_2", result.ooms, "guests", 0, false);
    figure("slowdown_mixed_at_2_worst", result.worst, "x");
    figure("relief_mixed_at_2", result.relief_s, "s");
    figure("flips_mixed_at_2", result.flips_per_hour, "/h");
    figure("fairness_mixed_at_2", result.jain, "jain");
    figure("saved_mixed_at_2", result.saved_gib_min, "GiB*min");
    figure("controller_per_vm", result.decide_ns, "ns");
}

/* A quarter of the guests does not behave: what the others feel. */
static void judge_modes(const struct options *options)
{
    char name[64];

    for (int mode = GUEST_STALLS; mode < GUEST_MODE_COUNT; mode++) {
        struct sim_setup setup = setup_of(options, TRACE_MIXED);
        struct sim_result result;

        setup.mode = (enum guest_mode)mode;
        setup.density = 1.5;
        sim_run(&setup, &policy_warren, &result);
        snprintf(name, sizeof name, "slowdown_at_1.5_others_%s", guest_mode_names[mode]);
        goal(name, result.slowdown_others, "x", 1.05, false);
        snprintf(name, sizeof name, "kills_at_1.5_%s", guest_mode_names[mode]);
        goal(name, result.ooms, "guests", 0, false);
    }
}

/* --- plots --- */

static void plot_slowdowns(const struct options *options, const char *path)
{
    struct plot *plot = calloc(1, sizeof *plot);

    if (!plot)
        abort();
    plot->title = "Slowdown by density, mixed demand";
    plot->x_name = "promised memory / host memory";
    plot->y_name = "slowdown";
    plot->y_max = 1.5;
    for (unsigned p = 0; p < POLICY_COUNT; p++) {
        struct plot_line *line = &plot->lines[plot->count++];

        line->name = policies[p]->name;
        for (double density = 1; density < 3.6; density += 0.25) {
            struct sim_setup setup = setup_of(options, TRACE_MIXED);
            struct sim_result result;

            setup.density = density;
            sim_run(&setup, policies[p], &result);
            plot_point(line, density, result.slowdown);
        }
    }
    if (plot_write(plot, path) < 0)
        perror(path);
    free(plot);
}

static void plot_timeline(const struct options *options, enum trace_kind trace, const char *path)
{
    static const char *const names[] = { "resident", "granted", "swapped" };
    struct sim_setup setup = setup_of(options, trace);
    struct plot *plot = calloc(1, sizeof *plot);
    struct sim_result result;
    double values[4], slowdown;
    char line[256], title[100];

    setup.timeline = tmpfile();
    if (!plot || !setup.timeline)
        abort();
    sim_run(&setup, &policy_warren, &result);
    snprintf(title, sizeof title, "%s: %.3g times the host's memory promised", trace_names[trace],
             setup.density);
    plot->title = title;
    plot->x_name = "seconds";
    plot->y_name = "GiB";
    plot->count = 3;
    for (unsigned i = 0; i < 3; i++)
        plot->lines[i].name = names[i];
    rewind(setup.timeline);
    while (fgets(line, sizeof line, setup.timeline))
        if (sscanf(line, "%lf,%lf,%lf,%lf,%lf", &values[0], &values[1], &values[2], &values[3],
                   &slowdown) == 5)
            for (unsigned i = 0; i < 3; i++)
                plot_point(&plot->lines[i], values[0] / 1000, values[i + 1] / 1024);
    fclose(setup.timeline);
    if (plot_write(plot, path) < 0)
        perror(path);
    free(plot);
}

/* --- recorded hosts --- */

static int replay(const struct options *options)
{
    struct trace traces[SIM_GUESTS_MAX] = { 0 };
    struct sim_setup setup = setup_of(options, TRACE_MIXED);
    FILE *file = fopen(options->replay, "re");
    int count = -1;

    if (file) {
        count = trace_read(file, options->replay, traces, &setup.length_ms);
        fclose(file);
    } else {
        perror(options->replay);
    }
    setup.count = count > 0 ? (unsigned)count : 0;
    setup.replay = traces;
    setup.density = options->density;
    for (unsigned p = 0; count > 0 && p < POLICY_COUNT; p++) {
        struct sim_result result;

        sim_run(&setup, policies[p], &result);
        printf("%-10s slowdown %.3f, of the worst %.3f; %u killed\n", policies[p]->name,
               result.slowdown, result.worst, result.ooms);
    }
    for (unsigned i = 0; i < SIM_GUESTS_MAX; i++)
        trace_free(&traces[i]);
    return count > 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    static const struct option known[] = {
        { "seed", required_argument, NULL, 's' },   { "out", required_argument, NULL, 'o' },
        { "replay", required_argument, NULL, 'r' }, { "density", required_argument, NULL, 'd' },
        { "help", no_argument, NULL, 'h' },         { 0 }
    };
    struct options options = { .seed = 1, .directory = "build/sim", .density = 2 };
    double table[TRACE_KIND_COUNT][POLICY_COUNT];
    char path[512];
    int option;

    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (option == 's')
            options.seed = strtoull(optarg, NULL, 0);
        else if (option == 'o')
            options.directory = optarg;
        else if (option == 'r')
            options.replay = optarg;
        else if (option == 'd')
            options.density = strtod(optarg, NULL);
        else {
            usage(option == 'h' ? stdout : stderr);
            return option == 'h' ? 0 : 2;
        }
    }
    if (!(options.density >= 0.1 && options.density <= 100)) {
        fprintf(stderr, "sim: --density is 0.1 to 100\n");
        return 2;
    }
    if (options.replay)
        return replay(&options);
    mkdir(options.directory, 0777);
    print_densities(&options, table);
    judge_densities(table);
    judge_twice(&options);
    judge_modes(&options);
    snprintf(path, sizeof path, "%s/slowdown.svg", options.directory);
    plot_slowdowns(&options, path);
    for (int trace = 0; trace < TRACE_KIND_COUNT; trace++) {
        snprintf(path, sizeof path, "%s/timeline-%s.svg", options.directory, trace_names[trace]);
        plot_timeline(&options, (enum trace_kind)trace, path);
    }
    return 0;
}
