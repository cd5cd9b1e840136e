#include "agent/node_schedule.h"

#include <errno.h>
#include <string.h>

#include "agent/node_change.h"
#include "base/error.h"

#define DRAIN_AT_ONCE 8

int node_check_schedulable(const struct node *node, struct error *err)
{
    if (!node->spec.cordoned)
        return 0;
    return error_set(err, EHOSTDOWN,
                     "the node is %s: it starts no VMs and takes no new ones; PATCH /v1/node "
                     "{\"schedulable\":true} ends that",
                     node->spec.draining ? "draining" : "cordoned");
}

/* --- draining --- */

bool vm_starts_before(const struct vm *a, const struct vm *b)
{
    if (a->spec.autostart_order != b->spec.autostart_order)
        return a->spec.autostart_order < b->spec.autostart_order;
    return strcmp(a->head.id, b->head.id) < 0;
}

static bool is_left(const struct vm *vm)
{
    return !vm->head.hidden && (vm->pidfd >= 0 || vm->placed || vm->start_committing ||
                                (vm->spec.desired_running && (vm->start_due || vm->timer)));
}

static int count_left(const struct node *node)
{
    const struct vm *vm;
    int left = 0;

    for (size_t i = 0; (vm = node_vm_at(node, i)); i++)
        left += is_left(vm);
    return left;
}

bool node_is_drained(const struct node *node)
{
    return count_left(node) == 0;
}

static bool is_changing(const struct node *node, const struct vm *vm)
{
    for (const struct change *change = node->changes; change; change = change->next)
        if (change->kind == RESOURCE_VM && strcmp(change->id, vm->head.id) == 0)
            return true;
    return false;
}

/* A refusal is no matter: it is tried again within a second. */
static void asked(void *context, int result, const struct error *err)
{
    (void)context;
    (void)result;
    (void)err;
}

static void ask_to_stop(struct node *node, struct vm *vm)
{
    /* Who is paused on purpose cannot be stopped: its guest has to answer. */
    bool paused = vm->intent == VM_INTENT_PAUSE && !vm->full[0];

    node_submit(node, &(struct node_change){ .verb = CHANGE_ACTION,
                                             .kind = RESOURCE_VM,
                                             .id = vm->head.id,
                                             .action = paused ? VM_ACTION_RESUME : VM_ACTION_STOP,
                                             .done = asked });
}

void node_drain_go_on(struct node *node)
{
    struct vm *vm;
    int busy = 0;

    while (node->spec.draining && !node->ending) {
        struct vm *last = NULL;

        busy = 0;
        for (size_t i = 0; (vm = node_vm_at(node, i)); i++) {
            if (!is_left(vm))
                continue;
            if (vm->head.deleting || !vm->spec.desired_running || is_changing(node, vm))
                busy++;
            else if (!last || vm_starts_before(last, vm))
                last = vm;
        }
        if (!last || busy >= DRAIN_AT_ONCE)
            return;
        ask_to_stop(node, last);
        if (!is_changing(node, last))
            return; /* memory is short */
    }
}

/* --- what was asked for --- */

void node_set_schedulable(struct node *node, struct node_condition condition, node_done_fn *done,
                          void *context)
{
    node_spec_change(node, json_pack("{s:b, s:n}", "schedulable", 1, "draining"), condition, done,
                     context);
}

void node_drain(struct node *node, struct node_condition condition, node_done_fn *done,
                void *context)
{
    node_spec_change(node, json_pack("{s:b, s:b}", "schedulable", 0, "draining", 1), condition,
                     done, context);
}

/* --- shown --- */

int node_schedule_status(const struct node *node, json_t *info)
{
    int left = count_left(node);

    return json_object_set_new(info, "schedulable", json_boolean(!node->spec.cordoned)) |
           json_object_set_new(info, "drain",
                               !node->spec.draining
                                   ? json_null()
                                   : json_pack("{s:s, s:i}", "state", left > 0 ? "running" : "done",
                                               "vms_left", left));
}
