/* histogram.h - how long something took, as Prometheus counts it: few fixed buckets from 0.1 ms to
 * a minute, so that any number of observations costs the same.  One thread observes, any may print;
 * {0} is an empty one. */
#pragma once
#include <stdint.h>
#include <stdio.h>

#define HISTOGRAM_BUCKETS 15 /* the last: all that took longer */

struct histogram {
    _Atomic uint64_t buckets[HISTOGRAM_BUCKETS]; /* not cumulative */
    _Atomic uint64_t microseconds;               /* of all together */
};

/* A negative time counts as none. */
void histogram_observe(struct histogram *histogram, int64_t microseconds);
uint64_t histogram_count(const struct histogram *histogram);
/* NAME_bucket, NAME_sum and NAME_count; labels: "" or `name="value"` of each line. */
void histogram_print(const struct histogram *histogram, FILE *out, const char *name,
                     const char *labels);
