#include "scheduler/admission.h"

#include <errno.h>

#include "base/error.h"

uint64_t admission_allocatable_mib(const struct memory_capacity *capacity)
{
    if (capacity->host_mib <= capacity->reserve_mib)
        return 0;
    return (capacity->host_mib - capacity->reserve_mib) * capacity->ratio_percent / 100;
}

int admission_check(const struct memory_capacity *capacity, uint64_t promised_mib,
                    uint64_t wanted_mib, struct error *err)
{
    uint64_t allocatable = admission_allocatable_mib(capacity);
    uint64_t needed = wanted_mib + VM_OVERHEAD_MIB;

    if (promised_mib <= allocatable && needed <= allocatable - promised_mib)
        return 0;
    return error_field(err, ENOMEM, "memory_mib",
                       "%llu MiB are needed with overhead, %llu of %llu MiB are promised already; "
                       "stop VMs or ask another node",
                       (unsigned long long)needed, (unsigned long long)promised_mib,
                       (unsigned long long)allocatable);
}
