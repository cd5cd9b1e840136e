#include "vmm/filter.h"

#include <linux/filter.h>
#include <stddef.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "base/sandbox.h"
#include "vmm/filters.inc" /* generated: filter_devices, filter_vcpu */

static const struct {
    const char *name;
    const struct sock_filter *program;
    size_t instructions;
} filters[FILTER_COUNT] = {
    [FILTER_DEVICES] = { "device", filter_devices, ARRAY_LENGTH(filter_devices) },
    [FILTER_VCPU] = { "vCPU", filter_vcpu, ARRAY_LENGTH(filter_vcpu) },
};

int filter_load(enum filter_kind kind, struct error *err)
{
    int result;

    if (!FILTERS_ARE_BUILT)
        return 0;
    result = sandbox_filter(filters[kind].program, filters[kind].instructions);
    if (result < 0)
        return error_set(err, result, "load the %s threads' system call filter",
                         filters[kind].name);
    return 0;
}
