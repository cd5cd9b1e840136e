/* admission.h - may this host promise a VM its memory?  Pure integers, in MiB.
 *
 * Every running VM counts with all of its memory and VM_OVERHEAD_MIB for its process and the
 * kernel's part; what is promised in all is at most ratio_percent of the host's memory beyond the
 * reserve.  What is guaranteed must be there in any case, and what is promised beyond the host's
 * memory must have its place in swap: then no guest, whatever it does, can ruin the others. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct error;

#define VM_OVERHEAD_MIB 4

struct memory_capacity {
    uint64_t host_mib;
    uint64_t reserve_mib;   /* never promised */
    uint64_t ratio_percent; /* 100 = no overcommit */
    uint64_t swap_mib;
    bool is_short; /* right now: nothing more is started */
};

/* Of one VM without its overhead, or of all that run with theirs. */
struct memory_promise {
    uint64_t max_mib;
    uint64_t min_mib; /* guaranteed */
};

/* What can be promised in all. */
uint64_t admission_allocatable_mib(const struct memory_capacity *capacity);
/* How many more such VMs admission_check would let through. */
uint64_t admission_fits(const struct memory_capacity *capacity,
                        const struct memory_promise *promised, const struct memory_promise *each);
/* 0, or -ENOMEM with the numbers.  The second: of what is guaranteed only, to a VM that has its
 * place already. */
int admission_check(const struct memory_capacity *capacity, const struct memory_promise *promised,
                    const struct memory_promise *wanted, struct error *err);
int admission_check_guarantee(const struct memory_capacity *capacity,
                              const struct memory_promise *promised,
                              const struct memory_promise *wanted, struct error *err);
