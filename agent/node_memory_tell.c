/* What the balancer decides, as others see it: GET /v1/node/memory has all of it as of now; events,
 * which are changes of rows, have what matters to who runs the node or owns a VM: how short the
 * host is, and what its upper rungs do, each with why.  What balloons and reclaim do every second
 * is no event: there would be hundreds a second, and nobody would read them. */
#include <stdio.h>
#include <string.h>

#include "agent/jail.h"
#include "agent/node_memory_internal.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "base/log.h"
#include "base/loop.h"

/* An improvement is told after so long, so that a host at a threshold is no flood: at most two
 * events (or three, by steps) in that time. */
#define BETTER_MS 10000
/* The same, of what dry-run would do again and again. */
#define WOULD_MS 60000
/* Of a VM that is held to its share, and let go, again and again. */
#define HELD_MS     30000
#define HELD_REASON "memory-high: "

/* --- events --- */

void node_memory_why(const struct node_memory *memory, char ret_text[MEMORY_WHY])
{
    snprintf(ret_text, MEMORY_WHY, "%u of %u MiB are free", memory->host.free_mib,
             memory->host.capacity_mib);
}

void node_memory_tell_vm(struct node_memory *memory, struct vm *vm,
                         const struct balancer_plan *plan)
{
    bool told = strncmp(vm->reason, HELD_REASON, strlen(HELD_REASON)) == 0;
    bool held = plan->high_mib > 0;
    char reason[160], why[MEMORY_WHY];

    if (held == told || vm->state != VM_RUNNING)
        return;
    if (!held) {
        vm_set_state(memory->node, vm, vm->state, "");
        return;
    }
    if (vm->reason[0] ||
        !jail_cgroup_has(jail_cgroups(memory->node->jail), JAIL_CONTROLLER_MEMORY) ||
        (vm->held_told_ms && loop_now_ms() - vm->held_told_ms < HELD_MS))
        return;
    node_memory_why(memory, why);
    snprintf(reason, sizeof reason, HELD_REASON "it is held to %u of its %u MiB: of the host's %s",
             plan->high_mib, vm->spec.memory_max_mib, why);
    vm->held_told_ms = loop_now_ms();
    vm_set_state(memory->node, vm, vm->state, reason);
}

/* The level first, then the rung, of those that are told of. */
static unsigned severity(enum balancer_level level, enum balancer_rung rung)
{
    return level * BALANCER_RUNG_COUNT + (rung >= BALANCER_THROTTLE ? rung : 0u);
}

void node_memory_tell(struct node_memory *memory)
{
    const struct balancer_state *state = &memory->state;
    const struct node_status *told = &memory->node->status;
    unsigned now = severity(state->level, state->rung);
    unsigned before = severity(told->level, told->rung);
    int64_t age_ms = loop_now_ms() - memory->told_ms;
    bool would = memory->would_is_new && (memory->told_ms == 0 || age_ms >= WOULD_MS);
    struct node_status status = { .level = state->level, .rung = state->rung };
    char why[MEMORY_WHY];

    if (now == before && !would)
        return;
    if (now < before && memory->told_ms != 0 && age_ms < BETTER_MS)
        return;
    node_memory_why(memory, why);
    if (memory->mode == MEMORY_OFF)
        snprintf(status.reason, sizeof status.reason, "memory is not balanced");
    else
        snprintf(status.reason, sizeof status.reason,
                 "%s, and tasks waited for memory %u.%u %% of the time%s%s", why,
                 memory->host.psi_permille / 10, memory->host.psi_permille % 10,
                 memory->mode == MEMORY_DRY_RUN ? "; dry-run: " : "",
                 memory->mode != MEMORY_DRY_RUN ? ""
                 : memory->would[0]             ? memory->would
                                                : "nothing is done");
    memory->told_ms = loop_now_ms();
    memory->would_is_new = false;
    node_spec_note(memory->node, &status);
}

/* --- GET /v1/node/memory --- */

struct node_memory_figures node_memory_figures(const struct node *node)
{
    return node->memory->figures;
}

static json_t *vm_json(const struct balancer_vm *vm, const char *id)
{
    const struct balancer_plan *plan = &vm->plan;

    return json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:b, s:b}", "id", id, "max_mib",
        (json_int_t)vm->max_mib, "min_mib", (json_int_t)vm->min_mib, "resident_mib",
        (json_int_t)vm->resident_mib, "balloon_mib", (json_int_t)vm->balloon_mib, "used_mib",
        vm->stats_age_ms == UINT32_MAX ? json_null() : json_integer((json_int_t)vm->used_mib),
        "demand_mib", (json_int_t)plan->demand_mib, "entitled_mib", (json_int_t)plan->entitled_mib,
        "balloon_target_mib", (json_int_t)plan->balloon_mib, "low_mib", (json_int_t)plan->low_mib,
        "high_mib", (json_int_t)plan->high_mib, "paused", plan->pause, "left_alone",
        vm->memory.frozen_ms > 0);
}

/* In the order of the table; whoever has come since is not in it. */
static json_t *vms_json(const struct node *node)
{
    const struct vm *vm;
    const struct node_memory *memory = node->memory;
    json_t *vms = json_array();
    int result = 0;

    for (size_t i = 0; (vm = node_vm_at(node, i)); i++) {
        if (vm->balance_place < memory->count &&
            memory->vms[vm->balance_place].serial == vm->head.instance)
            result |=
                json_array_append_new(vms, vm_json(&memory->vms[vm->balance_place], vm->head.id));
    }
    return json_whole(vms, result);
}

static json_t *actions_json(const struct node_memory *memory)
{
    json_t *actions = json_object();
    int result = 0;

    for (int rung = BALANCER_BALLOON; rung < BALANCER_RUNG_COUNT; rung++)
        result |= json_object_set_new(actions, balancer_rung_names[rung],
                                      json_integer((json_int_t)memory->figures.actions[rung]));
    return json_whole(actions, result);
}

static json_t *thresholds_json(const struct node *node)
{
    const struct balancer_config config = node_memory_config(node);
    json_t *thresholds = json_object();
    int result = 0;

    for (int level = BALANCER_HIGH + 1; level < BALANCER_LEVEL_COUNT; level++)
        result |= json_object_set_new(
            thresholds, balancer_level_names[level],
            json_pack("{s:i, s:i}", "enter_permille", (int)config.levels[level].enter_permille,
                      "leave_permille", (int)config.levels[level].leave_permille));
    return json_whole(thresholds, result);
}

json_t *node_memory_json(const struct node *node)
{
    static const char *const modes[] = {
        [MEMORY_OFF] = "off", [MEMORY_DRY_RUN] = "dry-run", [MEMORY_ON] = "on"
    };
    const struct node_memory *memory = node->memory;
    const struct memory_capacity capacity = node_memory_capacity(node);
    const struct memory_promise promised = node_promised(node, NULL);

    return json_pack(
        "{s:s, s:s, s:s, s:I, s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o}",
        "balancer", modes[node_memory_mode(node)], "level",
        balancer_level_names[memory->state.level], "rung", balancer_rung_names[memory->state.rung],
        "ratio_percent", (json_int_t)capacity.ratio_percent, "reserve_mib",
        (json_int_t)capacity.reserve_mib, "thresholds", thresholds_json(node), "allocatable_mib",
        (json_int_t)admission_allocatable_mib(&capacity), "promised_mib",
        (json_int_t)promised.max_mib, "guaranteed_mib", (json_int_t)promised.min_mib,
        "capacity_mib", (json_int_t)memory->figures.capacity_mib, "free_mib",
        (json_int_t)memory->figures.free_mib, "starting_mib", (json_int_t)memory->host.starting_mib,
        "swapped_mib", (json_int_t)memory->figures.swapped_mib, "price",
        (json_int_t)memory->state.price, "actions", actions_json(memory), "vms", vms_json(node));
}
