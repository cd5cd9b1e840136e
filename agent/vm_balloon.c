#include "agent/vm_balloon.h"

#include "agent/jail.h"
#include "agent/node_internal.h"
#include "agent/vmm_client.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/loop.h"

struct vmm_balloon vm_balloon_config(const struct vm_spec *spec, uint32_t balanced_mib)
{
    uint32_t most = spec->memory_mib - 1;
    uint32_t target =
        spec->balloon.amount_mib > balanced_mib ? spec->balloon.amount_mib : balanced_mib;

    return (struct vmm_balloon){
        .target_mib = target < most ? target : most,
        .stats_interval_s = (uint16_t)spec->balloon.stats_interval_s,
        .deflate_on_oom = spec->balloon.deflate_on_oom,
    };
}

void vm_balloon_tell(const struct node *node, struct vm *vm)
{
    struct vmm_balloon balloon = vm_balloon_config(&vm->spec, node_memory_balloon_mib(node, vm));
    struct error err = { 0 };

    /* Who is to be judged by what it says must say it often. */
    if (balloon.stats_interval_s > 1 && node_memory_is_balanced(node))
        balloon.stats_interval_s = 1;
    if (vm->client && vmm_client_balloon(vm->client, &balloon, &err) < 0)
        log_warning(node->log, "vm %s: its balloon cannot be changed: %s", vm->head.id,
                    err.message);
}

/* What a guest says may be anything. */
static json_int_t bounded(uint64_t value)
{
    return value < INT64_MAX ? (json_int_t)value : INT64_MAX;
}

/* NULL if the guest never said anything. */
static json_t *memory_json(const struct stats_balloon *stats)
{
    static const char *const names[STATS_GUEST_MAX] = {
        "swap_in_bytes",      "swap_out_bytes", "major_faults",
        "minor_faults",       "free_bytes",     "total_bytes",
        "available_bytes",    "cached_bytes",   "huge_page_allocations",
        "huge_page_failures",
    };
    json_t *memory;
    int result;

    if (stats->guest_ms == 0)
        return json_null();
    memory = json_object();
    result = json_object_set_new(
        memory, "age_seconds",
        json_integer(bounded(((uint64_t)loop_now_ms() - stats->guest_ms) / 1000)));
    for (unsigned i = 0; i < STATS_GUEST_MAX; i++)
        if (stats->guest_known >> i & 1)
            result |= json_object_set_new(memory, names[i], json_integer(bounded(stats->guest[i])));
    return json_whole(memory, result);
}

int vm_balloon_status(const struct vm *vm, const struct stats_page *page, json_t *status)
{
    uint64_t actual_mib;

    if (!page)
        return json_object_set_new(status, "balloon", json_null()) |
               json_object_set_new(status, "memory", json_null());
    actual_mib = page->balloon.actual_bytes >> 20;
    if (actual_mib > vm->spec.memory_mib)
        actual_mib = vm->spec.memory_mib;
    return json_object_set_new(status, "balloon",
                               json_pack("{s:I, s:I}", "amount_mib",
                                         bounded(page->balloon.target_bytes >> 20), "actual_mib",
                                         (json_int_t)actual_mib)) |
           json_object_set_new(status, "memory", memory_json(&page->balloon));
}
