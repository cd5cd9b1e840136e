/* admission.h - may this host promise a VM its memory?  Pure integers, in MiB.
 *
 * Every running VM counts with all of its memory and VM_OVERHEAD_MIB for its process and the
 * kernel's part; what is promised in all is at most ratio_percent of the host's memory beyond the
 * reserve. */
#pragma once
#include <stdint.h>

struct error;

#define VM_OVERHEAD_MIB 4

struct memory_capacity {
    uint64_t host_mib;
    uint64_t reserve_mib;   /* never promised */
    uint64_t ratio_percent; /* 100 = no overcommit */
};

/* What can be promised in all. */
uint64_t admission_allocatable_mib(const struct memory_capacity *capacity);
/* promised_mib: of those running, overhead included.  0, or -ENOMEM with the numbers. */
int admission_check(const struct memory_capacity *capacity, uint64_t promised_mib,
                    uint64_t wanted_mib, struct error *err);
