#include "scheduler/admission.h"

#include <errno.h>

#include "base/error.h"

static uint64_t beyond_reserve(const struct memory_capacity *capacity)
{
    return capacity->host_mib <= capacity->reserve_mib ? 0
                                                       : capacity->host_mib - capacity->reserve_mib;
}

uint64_t admission_allocatable_mib(const struct memory_capacity *capacity)
{
    uint64_t memory = beyond_reserve(capacity);
    uint64_t by_ratio = memory * capacity->ratio_percent / 100;
    uint64_t by_swap = memory + capacity->swap_mib;

    return by_ratio < by_swap ? by_ratio : by_swap;
}

static uint64_t fits(uint64_t promised, uint64_t each, uint64_t allocatable)
{
    return promised >= allocatable ? 0 : (allocatable - promised) / (each + VM_OVERHEAD_MIB);
}

uint64_t admission_fits(const struct memory_capacity *capacity,
                        const struct memory_promise *promised, const struct memory_promise *each)
{
    uint64_t by_max = fits(promised->max_mib, each->max_mib, admission_allocatable_mib(capacity));
    uint64_t by_min = fits(promised->min_mib, each->min_mib, beyond_reserve(capacity));

    if (capacity->is_short)
        return 0;
    return by_max < by_min ? by_max : by_min;
}

/* field, what: of what it is too much. */
static int check(uint64_t promised, uint64_t wanted, uint64_t allocatable, const char *field,
                 const char *what, struct error *err)
{
    uint64_t needed = wanted + VM_OVERHEAD_MIB;

    if (promised <= allocatable && needed <= allocatable - promised)
        return 0;
    return error_field(err, ENOMEM, field,
                       "%llu MiB are needed with overhead, %llu of %llu MiB are %s already; "
                       "stop VMs or ask another node",
                       (unsigned long long)needed, (unsigned long long)promised,
                       (unsigned long long)allocatable, what);
}

int admission_check_guarantee(const struct memory_capacity *capacity,
                              const struct memory_promise *promised,
                              const struct memory_promise *wanted, struct error *err)
{
    return check(promised->min_mib, wanted->min_mib, beyond_reserve(capacity), "memory_min_mib",
                 "guaranteed", err);
}

int admission_check(const struct memory_capacity *capacity, const struct memory_promise *promised,
                    const struct memory_promise *wanted, struct error *err)
{
    int result = check(promised->max_mib, wanted->max_mib, admission_allocatable_mib(capacity),
                       "memory_mib", "promised", err);

    if (result == 0)
        result = admission_check_guarantee(capacity, promised, wanted, err);
    if (result == 0 && capacity->is_short)
        result = error_field(err, ENOMEM, "memory_mib",
                             "the host is short of memory now, though it is promised to nobody "
                             "else; try again, or ask another node");
    return result;
}
