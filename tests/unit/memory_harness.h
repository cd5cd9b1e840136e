/* memory_harness.h - guest memory as tests want it: anonymous, and read by copies. */
#pragma once
#include <string.h>
#include "vmm/guest_memory.h"

static inline int guest_memory_new(uint64_t bytes, struct guest_memory **ret_memory,
                                   struct error *err)
{
    const struct guest_memory_spec spec = { .bytes = bytes, .backing = VMM_MEMORY_ANONYMOUS };

    return guest_memory_make(&spec, ret_memory, err);
}

/* False, and zeroes, unless the whole range is RAM. */
static inline bool guest_memory_read(const struct guest_memory *memory, uint64_t guest, void *to,
                                     uint64_t size)
{
    const void *from = guest_memory_map(memory, guest, size);

    if (from)
        memcpy(to, from, size);
    else
        memset(to, 0, size);
    return from != NULL;
}
