/* rate_limit.h - a token bucket each for bytes and operations.  Pure: the caller gives the clock.
 *
 * A bucket fills at its rate and holds a tenth of a second's worth.  While both hold anything, what
 * comes passes whole, into debt if need be; over time exactly the rate does.  The burst is spent
 * first, and once.  Counted in thousandths, what 1/s gives in a ms: nothing is lost to rounding. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "vmm/control_protocol.h"

struct rate_bucket {
    int64_t per_second;   /* 0 = no limit */
    int64_t burst, level; /* thousandths; a negative level is a debt */
    int64_t burst_spent;  /* thousandths */
    int64_t filled_ms;
};

/* One that is all zero limits nothing. */
struct rate_limit {
    struct rate_bucket bytes, operations;
};

/* The limits from now on: what is in debt stays so, and what is spent of the burst stays spent. The
 * same limits change nothing.  No field of `spec` is above VMM_RATE_MAX.  While the clock goes
 * back, nothing is added. */
void rate_limit_set(struct rate_limit *limit, const struct vmm_rate_limit *spec, int64_t now_ms);
/* False: nothing ever has to wait. */
static inline bool rate_limit_is_set(const struct rate_limit *limit)
{
    return limit->bytes.per_second > 0 || limit->operations.per_second > 0;
}
/* Milliseconds until something may pass; 0 = now. */
int64_t rate_limit_wait(struct rate_limit *limit, int64_t now_ms);
/* One operation of so many bytes, at most VMM_RATE_MAX, has passed: rate_limit_wait said 0. */
void rate_limit_spend(struct rate_limit *limit, uint64_t bytes);
