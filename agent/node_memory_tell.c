/* What the balancer decides, as GET /v1/node/memory shows it. */
#include "agent/node_memory_internal.h"

struct node_memory_figures node_memory_figures(const struct node *node)
{
    return node->memory->figures;
}

static json_t *vm_json(const struct balancer_vm *vm, const char *id)
{
    const struct balancer_plan *plan = &vm->plan;

    return json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:o, s:I, s:I, s:I, s:I, s:b, s:b}", "id", id, "max_mib",
        (json_int_t)vm->max_mib, "min_mib", (json_int_t)vm->min_mib, "resident_mib",
        (json_int_t)vm->resident_mib, "balloon_mib", (json_int_t)vm->balloon_mib, "used_mib",
        vm->stats_age_ms == UINT32_MAX ? json_null() : json_integer((json_int_t)vm->used_mib),
        "demand_mib", (json_int_t)plan->demand_mib, "entitled_mib", (json_int_t)plan->entitled_mib,
        "balloon_target_mib", (json_int_t)plan->balloon_mib, "high_mib", (json_int_t)plan->high_mib,
        "paused", plan->pause, "left_alone", vm->memory.frozen_ms > 0);
}

/* In the order of the table; whoever has come since is not in it. */
static json_t *vms_json(const struct node *node)
{
    const struct resource_table *table = &node->tables[RESOURCE_VM];
    const struct node_memory *memory = node->memory;
    json_t *vms = json_array();

    for (size_t i = 0; i < table->count; i++) {
        const struct vm *vm = (const struct vm *)table->items[i];

        if (vm->balance_place < memory->count &&
            memory->vms[vm->balance_place].serial == vm->head.instance)
            json_array_append_new(vms, vm_json(&memory->vms[vm->balance_place], vm->head.id));
    }
    return vms;
}

static json_t *actions_json(const struct node_memory *memory)
{
    json_t *actions = json_object();

    for (int rung = BALANCER_BALLOON; rung < BALANCER_RUNG_COUNT; rung++)
        json_object_set_new(actions, balancer_rung_names[rung],
                            json_integer((json_int_t)memory->figures.actions[rung]));
    return actions;
}

json_t *node_memory_json(const struct node *node)
{
    static const char *const modes[] = { [MEMORY_BALANCER_AUTO] = "off",
                                         [MEMORY_BALANCER_OFF] = "off",
                                         [MEMORY_BALANCER_ON] = "on",
                                         [MEMORY_BALANCER_DRY_RUN] = "dry-run" };
    const struct node_memory *memory = node->memory;
    const struct memory_capacity capacity = node_memory_capacity(node);
    const struct memory_promise promised = node_promised(node, NULL);

    return json_pack(
        "{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o}", "balancer",
        node_memory_is_balanced(node) && !node_memory_is_dry(node)
            ? "on"
            : modes[node->config->memory_balancer],
        "level", balancer_level_names[memory->state.level], "rung",
        balancer_rung_names[memory->state.rung], "ratio_percent",
        (json_int_t)capacity.ratio_percent, "allocatable_mib",
        (json_int_t)admission_allocatable_mib(&capacity), "promised_mib",
        (json_int_t)promised.max_mib, "guaranteed_mib", (json_int_t)promised.min_mib,
        "capacity_mib", (json_int_t)memory->figures.capacity_mib, "free_mib",
        (json_int_t)memory->figures.free_mib, "swapped_mib",
        (json_int_t)memory->figures.swapped_mib, "price", (json_int_t)memory->state.price,
        "actions", actions_json(memory), "vms", vms_json(node));
}
