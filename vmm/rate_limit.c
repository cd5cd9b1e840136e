/* rate_limit.c - see rate_limit.h. */
#include "vmm/rate_limit.h"

#define HOLD_MS 100

static int64_t bucket_wait(struct rate_bucket *bucket, int64_t now_ms)
{
    int64_t rate = bucket->per_second, full = rate * HOLD_MS;
    int64_t elapsed = now_ms - bucket->filled_ms;

    if (rate == 0)
        return 0;
    if (elapsed > 0) {
        bucket->filled_ms = now_ms;
        bucket->level =
            elapsed >= (full - bucket->level) / rate ? full : bucket->level + elapsed * rate;
    }
    return bucket->burst > 0 || bucket->level > 0 ? 0 : -bucket->level / rate + 1;
}

static void bucket_set(struct rate_bucket *bucket, uint64_t per_second, uint64_t burst,
                       int64_t now_ms)
{
    struct rate_bucket fresh = { (int64_t)per_second, (int64_t)burst * 1000,
                                 (int64_t)per_second * HOLD_MS, bucket->burst_spent, now_ms };

    (void)bucket_wait(bucket, now_ms); /* up to now it fills at the old rate */
    if (bucket->per_second > 0 && bucket->level < fresh.level)
        fresh.level = bucket->level;
    fresh.burst -= fresh.burst < fresh.burst_spent ? fresh.burst : fresh.burst_spent;
    *bucket = fresh;
}

void rate_limit_set(struct rate_limit *limit, const struct vmm_rate_limit *spec, int64_t now_ms)
{
    bucket_set(&limit->bytes, spec->bytes_per_second, spec->bytes_burst, now_ms);
    bucket_set(&limit->operations, spec->operations_per_second, spec->operations_burst, now_ms);
}

int64_t rate_limit_wait(struct rate_limit *limit, int64_t now_ms)
{
    int64_t bytes = bucket_wait(&limit->bytes, now_ms);
    int64_t operations = bucket_wait(&limit->operations, now_ms);

    return bytes > operations ? bytes : operations;
}

static void bucket_spend(struct rate_bucket *bucket, uint64_t amount)
{
    int64_t left = (int64_t)amount * 1000;
    int64_t of_burst = left < bucket->burst ? left : bucket->burst;

    bucket->burst -= of_burst;
    bucket->burst_spent += of_burst;
    if (bucket->per_second > 0)
        bucket->level -= left - of_burst;
}

void rate_limit_spend(struct rate_limit *limit, uint64_t bytes)
{
    if (!rate_limit_is_set(limit))
        return;
    bucket_spend(&limit->bytes, bytes);
    bucket_spend(&limit->operations, 1);
}
