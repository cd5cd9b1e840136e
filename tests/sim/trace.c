#include <math.h>
#include <stdlib.h>

#include "tests/sim/sim.h"

const char *const trace_names[TRACE_KIND_COUNT] = {
    [TRACE_IDLE] = "idle",   [TRACE_RAMP] = "ramp",       [TRACE_SPIKE] = "spike",
    [TRACE_LEAK] = "leak",   [TRACE_DIURNAL] = "diurnal", [TRACE_ANTI_PHASE] = "anti-phase",
    [TRACE_PEAKS] = "peaks", [TRACE_BUILD] = "build",     [TRACE_MIXED] = "mixed",
};

double sim_random(struct sim_random *random)
{
    uint64_t z = random->state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (double)((z ^ z >> 31) >> 11) / 9007199254740992.0;
}

void trace_add(struct trace *trace, uint32_t ms, double anon, double hot, double stream)
{
    if (trace->count == trace->size) {
        trace->size = trace->size == 0 ? 16 : trace->size * 2;
        trace->points = realloc(trace->points, trace->size * sizeof *trace->points);
        if (!trace->points)
            abort();
    }
    trace->points[trace->count++] = (struct trace_point){ ms, anon, hot, stream };
}

void trace_free(struct trace *trace)
{
    free(trace->points);
    *trace = (struct trace){ 0 };
}

struct trace_point trace_at(const struct trace *trace, uint32_t ms, unsigned *cursor)
{
    const struct trace_point *a, *b;
    double part;

    while (*cursor + 1 < trace->count && trace->points[*cursor + 1].ms <= ms)
        (*cursor)++;
    a = &trace->points[*cursor];
    if (*cursor + 1 == trace->count || ms <= a->ms)
        return *a;
    b = a + 1;
    part = (double)(ms - a->ms) / (double)(b->ms - a->ms);
    return (struct trace_point){ ms, a->anon + (b->anon - a->anon) * part,
                                 a->hot + (b->hot - a->hot) * part,
                                 a->stream + (b->stream - a->stream) * part };
}

uint32_t trace_next(const struct trace *trace, uint32_t ms, unsigned cursor)
{
    for (unsigned i = cursor; i < trace->count; i++)
        if (trace->points[i].ms > ms)
            return trace->points[i].ms;
    return UINT32_MAX;
}

/* What one kind of guest is like: shares of its size, and times in ms. */
struct maker {
    struct trace *trace;
    double max;
    uint32_t length;
    struct sim_random *random;
    double index; /* 0 to 1, among its like */
};

static double between(struct maker *maker, double low, double high)
{
    return low + (high - low) * sim_random(maker->random);
}

static void add(struct maker *maker, double ms, double anon, double hot, double stream)
{
    trace_add(maker->trace, (uint32_t)ms, GUEST_KERNEL + anon * maker->max, hot * maker->max,
              stream);
}

static void make_idle(struct maker *maker)
{
    double anon = between(maker, 0.05, 0.15), hot = between(maker, 0.02, 0.08);

    add(maker, 0, anon, hot, 1);
    for (double ms = between(maker, 1e4, 6e4); ms < maker->length;
         ms += between(maker, 6e4, 24e4)) {
        add(maker, ms, anon, hot, 1); /* a job of cron's */
        add(maker, ms + 500, anon + 0.05, hot + 0.05, 20);
        add(maker, ms + 5000, anon + 0.05, hot + 0.05, 20);
        add(maker, ms + 5500, anon, hot, 1);
    }
}

static void make_ramp(struct maker *maker)
{
    double period = between(maker, 3e5, 6e5), top = between(maker, 0.5, 0.75);

    for (double ms = -period * between(maker, 0, 1); ms < maker->length; ms += period) {
        if (ms > 0)
            add(maker, ms, 0.1, 0.05, 2);
        else if (maker->trace->count == 0)
            add(maker, 0, 0.1, 0.05, 2);
        if (ms + period * 0.7 > 0)
            add(maker, ms + period * 0.7, top, 0.15, 10);
        if (ms + period * 0.8 > 0)
            add(maker, ms + period * 0.8, top, 0.15, 10);
        if (ms + period * 0.82 > 0)
            add(maker, ms + period * 0.82, 0.1, 0.05, 2);
    }
}

static void make_spike(struct maker *maker)
{
    double anon = between(maker, 0.1, 0.2);

    add(maker, 0, anon, 0.08, 2);
    for (double ms = between(maker, 1e4, 2e5); ms < maker->length; ms += between(maker, 1e5, 3e5)) {
        double top = between(maker, 0.5, 0.8), hold = between(maker, 5e3, 2e4);

        add(maker, ms, anon, 0.08, 2);
        add(maker, ms + 300, top, 0.1, 30); /* as fast as it can touch it */
        add(maker, ms + hold, top, 0.1, 30);
        add(maker, ms + hold + 300, anon, 0.08, 2);
        ms += hold;
    }
}

static void make_leak(struct maker *maker)
{
    double period = between(maker, 6e5, 9e5);

    for (double ms = -period * between(maker, 0, 1); ms < maker->length; ms += period) {
        double start = ms < 0 ? 0 : ms, part = (start - ms) / period;

        add(maker, start, 0.1 + 0.7 * part, 0.08, 3);
        add(maker, ms + period - 1000, 0.8, 0.08, 3); /* and is restarted */
    }
}

static void make_wave(struct maker *maker, double period, double phase)
{
    for (double ms = 0; ms < maker->length; ms += period / 24) {
        double wave = 0.5 + 0.5 * sin(2 * M_PI * (ms / period + phase));

        add(maker, ms, 0.1 + 0.5 * wave, 0.05 + 0.15 * wave, 2 + 20 * wave);
    }
}

static void make_diurnal(struct maker *maker)
{
    make_wave(maker, 9e5, 0.15 * sim_random(maker->random));
}

static void make_anti_phase(struct maker *maker)
{
    make_wave(maker, 4.5e5, maker->index < 0.5 ? 0 : 0.5);
}

static void make_peaks(struct maker *maker)
{
    double anon = between(maker, 0.1, 0.2);

    add(maker, 0, anon, 0.05, 2);
    for (double ms = 12e4; ms + 7e4 < maker->length; ms += 3e5) {
        double start = ms + between(maker, 0, 3000);

        add(maker, start, anon, 0.05, 2);
        add(maker, start + 8000, 0.6, 0.15, 20);
        add(maker, start + 6e4, 0.6, 0.15, 20);
        add(maker, start + 61e3, anon, 0.05, 2);
    }
}

/* Many short processes, each some hundred MiB for seconds, and all the sources read. */
static void make_build(struct maker *maker)
{
    double ms = between(maker, 0, 2e5);

    add(maker, 0, 0.08, 0.05, 1);
    while (ms < maker->length) {
        double end = ms + between(maker, 12e4, 24e4);

        add(maker, ms, 0.08, 0.05, 1);
        for (ms += 500; ms < end; ms += between(maker, 1000, 4000))
            add(maker, ms, between(maker, 0.2, 0.55), 0.25, 60);
        add(maker, ms, 0.08, 0.05, 1);
        ms += between(maker, 12e4, 36e4);
    }
}

static void (*const makers[TRACE_KIND_COUNT])(struct maker *) = {
    [TRACE_IDLE] = make_idle,       [TRACE_RAMP] = make_ramp,
    [TRACE_SPIKE] = make_spike,     [TRACE_LEAK] = make_leak,
    [TRACE_DIURNAL] = make_diurnal, [TRACE_ANTI_PHASE] = make_anti_phase,
    [TRACE_PEAKS] = make_peaks,     [TRACE_BUILD] = make_build,
};

void trace_make(enum trace_kind kind, unsigned index, unsigned count, double max_mib,
                uint32_t length_ms, struct sim_random *random, struct trace *ret_trace)
{
    /* Half of a cloud idles. */
    static const enum trace_kind mix[] = {
        TRACE_IDLE, TRACE_DIURNAL, TRACE_IDLE, TRACE_BUILD, TRACE_IDLE,  TRACE_SPIKE,
        TRACE_IDLE, TRACE_RAMP,    TRACE_IDLE, TRACE_LEAK,  TRACE_PEAKS, TRACE_ANTI_PHASE
    };
    struct maker maker = { .trace = ret_trace,
                           .max = max_mib - GUEST_KERNEL,
                           .length = length_ms,
                           .random = random,
                           .index = (double)index / count };

    *ret_trace = (struct trace){ 0 };
    if (kind == TRACE_MIXED)
        kind = mix[index % (sizeof mix / sizeof *mix)];
    makers[kind](&maker);
}

/* --- recorded hosts --- */

#define MIB_MAX     8388607.0                  /* the balancer's */
#define LENGTH_MAX  (7u * 24 * 60 * 60 * 1000) /* ms */
#define SAMPLES_MAX (7u * 24 * 60 * 60)        /* of a guest */

static bool is_mib(double value)
{
    return value >= 0 && value <= MIB_MAX; /* not NaN */
}

static bool read_line(const char *line, struct trace *traces, uint32_t *length_ms)
{
    double anon, hot, stream, max = 0;
    unsigned ms, guest;
    struct trace *trace;
    int end = 0, fields = sscanf(line, "%u,%u,%lf,%lf,%lf%n,%lf%n", &ms, &guest, &anon, &hot,
                                 &stream, &end, &max, &end);

    if (fields < 5 || (line[end] != '\n' && line[end] != '\0') || ms > LENGTH_MAX ||
        guest >= SIM_GUESTS_MAX || !is_mib(anon) || !is_mib(hot) || !is_mib(stream))
        return false;
    trace = &traces[guest];
    if (fields == 6 && !(is_mib(max) && max >= 1))
        return false;
    if (trace->count == SAMPLES_MAX ||
        (trace->count > 0 && trace->points[trace->count - 1].ms >= ms))
        return false;
    if (max > trace->max)
        trace->max = max;
    trace_add(trace, ms, anon, hot, stream);
    *length_ms = ms > *length_ms ? ms : *length_ms;
    return true;
}

int trace_read(FILE *file, const char *name, struct trace *traces, uint32_t *ret_length_ms)
{
    char line[256];
    unsigned number = 0, count = 0;
    uint32_t length_ms = 0;

    while (fgets(line, sizeof line, file)) {
        number++;
        if (!read_line(line, traces, &length_ms)) {
            fprintf(stderr,
                    "%s:%u: not `ms,guest,anon_mib,hot_mib,stream[,max_mib]`, or out of order\n",
                    name, number);
            return -1;
        }
    }
    for (unsigned i = 0; i < SIM_GUESTS_MAX; i++)
        count = traces[i].count > 0 ? i + 1 : count;
    for (unsigned i = 0; i < count; i++)
        if (traces[i].count == 0) {
            fprintf(stderr, "%s: guest %u has no line\n", name, i);
            return -1;
        }
    if (length_ms == 0) {
        fprintf(stderr, "%s: nothing is recorded in it, or no time passes\n", name);
        return -1;
    }
    *ret_length_ms = length_ms;
    return (int)count;
}
