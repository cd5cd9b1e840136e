/* What is set of memory's balancing, by the node's spec before the command line, and what the host
 * lets be set. */
#include <errno.h>

#include "agent/jail.h"
#include "agent/node_memory.h"
#include "agent/node_memory_internal.h"
#include "base/error.h"
#include "scheduler/memory_pressure.h"

void node_memory_look_at_swap(struct node *node)
{
    const struct host_memory memory = host_memory_read("");
    struct memory_pressure pressure;

    if (memory_pressure_read(&pressure, NULL) < 0)
        return;
    node->swap_bytes = pressure.swap_mib << 20;
    node->swap_room = host_memory_swap_room(&memory, node->memory_bytes >> 20, pressure.swap_mib,
                                            jail_cgroup_keeps_zswap(jail_cgroups(node->jail)));
}

/* What the node's spec says, or else the command line. */
static int64_t setting(int64_t of_spec, int64_t of_config)
{
    return of_spec != NODE_UNSET ? of_spec : of_config;
}

static int64_t balancer_setting(const struct node *node)
{
    return setting(node->spec.memory.balancer, node->config->memory_balancer);
}

bool node_memory_is_balanced(const struct node *node)
{
    int64_t set = balancer_setting(node);

    return set == MEMORY_BALANCER_ON || set == MEMORY_BALANCER_DRY_RUN ||
           (set == MEMORY_BALANCER_AUTO && node_memory_ratio(node) > 100);
}

enum memory_mode node_memory_mode(const struct node *node)
{
    if (!node_memory_is_balanced(node))
        return MEMORY_OFF;
    return balancer_setting(node) == MEMORY_BALANCER_DRY_RUN ? MEMORY_DRY_RUN : MEMORY_ON;
}

static int64_t wanted_ratio(const struct node *node)
{
    return setting(node->spec.memory.ratio_percent, node->config->memory_ratio_percent);
}

int64_t node_memory_ratio(const struct node *node)
{
    int64_t ratio = wanted_ratio(node);

    return ratio > 100 && !jail_cgroup_has(jail_cgroups(node->jail), JAIL_CONTROLLER_MEMORY)
               ? 100
               : ratio;
}

uint64_t node_memory_reserve_mib(const struct node *node)
{
    return (uint64_t)setting(node->spec.memory.reserve_mib, node->config->memory_reserve_mib);
}

struct balancer_config node_memory_config(const struct node *node)
{
    return node_spec_balancer(&node->spec, &balancer_default);
}

/* What may be promised beyond what there is: the reason why not, or NULL. */
static const char *why_no_overcommit(const struct node *node)
{
    if (!jail_cgroup_has(jail_cgroups(node->jail), JAIL_CONTROLLER_MEMORY))
        return "cgroup v2's memory controller is not there for VMs, so none could be limited";
    if (node->swap_bytes == 0)
        return "the host has no swap, where what is promised beyond its memory has its place";
    return NULL;
}

const char *node_memory_ratio_finding(const struct node *node)
{
    return wanted_ratio(node) > 100 ? why_no_overcommit(node) : NULL;
}

int node_memory_check(struct node *node, const struct node_memory_spec *wanted, struct error *err)
{
    const struct node_memory_spec *now = &node->spec.memory;
    const char *why;

    node_memory_look_at_swap(node);
    why = why_no_overcommit(node);
    if (wanted->ratio_percent != now->ratio_percent && wanted->ratio_percent > 100 && why)
        return error_field(err, EBUSY, "memory.ratio_percent",
                           "memory.ratio_percent: more than 100 cannot be promised: %s", why);
    if (wanted->reserve_mib != now->reserve_mib &&
        wanted->reserve_mib >= (int64_t)(node->memory_bytes >> 20))
        return error_field(err, EBUSY, "memory.reserve_mib",
                           "memory.reserve_mib: the host has %llu MiB, which would leave none for "
                           "VMs",
                           (unsigned long long)(node->memory_bytes >> 20));
    return 0;
}
