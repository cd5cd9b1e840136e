/* histogram.c - see histogram.h. */
#include "base/histogram.h"
#include <inttypes.h>
#include <stdatomic.h>

/* Upper bounds. */
static const struct {
    int64_t microseconds;
    const char *seconds;
} bounds[HISTOGRAM_BUCKETS - 1] = {
    { 100, "0.0001" },  { 250, "0.00025" }, { 500, "0.0005" },  { 1000, "0.001" },
    { 2500, "0.0025" }, { 5000, "0.005" },  { 10000, "0.01" },  { 25000, "0.025" },
    { 50000, "0.05" },  { 100000, "0.1" },  { 250000, "0.25" }, { 1000000, "1" },
    { 10000000, "10" }, { 60000000, "60" },
};

static void add(_Atomic uint64_t *to, uint64_t what)
{
    atomic_fetch_add_explicit(to, what, memory_order_relaxed);
}

static uint64_t get(const _Atomic uint64_t *from)
{
    return atomic_load_explicit(from, memory_order_relaxed);
}

void histogram_observe(struct histogram *histogram, int64_t microseconds)
{
    unsigned bucket = 0;

    while (bucket < HISTOGRAM_BUCKETS - 1 && bounds[bucket].microseconds < microseconds)
        bucket++;
    add(&histogram->microseconds, microseconds > 0 ? (uint64_t)microseconds : 0);
    add(&histogram->buckets[bucket], 1);
}

uint64_t histogram_count(const struct histogram *histogram)
{
    uint64_t count = 0;

    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        count += get(&histogram->buckets[i]);
    return count;
}

void histogram_print(const struct histogram *histogram, FILE *out, const char *name,
                     const char *labels)
{
    const char *comma = labels[0] ? "," : "";
    const char *open = labels[0] ? "{" : "";
    const char *close = labels[0] ? "}" : "";
    uint64_t microseconds = get(&histogram->microseconds);
    uint64_t count = 0;

    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        count += get(&histogram->buckets[i]);
        fprintf(out, "%s_bucket{%s%sle=\"%s\"} %" PRIu64 "\n", name, labels, comma,
                i < HISTOGRAM_BUCKETS - 1 ? bounds[i].seconds : "+Inf", count);
    }
    fprintf(out, "%s_sum%s%s%s %" PRIu64 ".%06" PRIu64 "\n", name, open, labels, close,
            microseconds / 1000000, microseconds % 1000000);
    fprintf(out, "%s_count%s%s%s %" PRIu64 "\n", name, open, labels, close, count);
}
