/* stats_counter.h - a counter of the statistics page (stats_page.h): one writing thread, readers in
 * another process. */
#pragma once
#include <stdint.h>

static inline void stats_set(uint64_t *counter, uint64_t value)
{
    __atomic_store_n(counter, value, __ATOMIC_RELAXED);
}

static inline void stats_add(uint64_t *counter, uint64_t amount)
{
    /* One writer: the load needs no lock. */
    uint64_t value = __atomic_load_n(counter, __ATOMIC_RELAXED);

    stats_set(counter, value + amount);
}
