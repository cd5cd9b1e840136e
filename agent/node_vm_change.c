/* Changes of an existing VM: PATCH and the verbs (its parts: node_vm_part.c).  The candidate is
 * written first; memory follows when the commit is back (change_apply_vm), and only then is
 * anything done about it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/jail.h"
#include "agent/node_change.h"
#include "agent/spec_change.h"
#include "agent/vm_balloon.h"
#include "agent/vm_disk.h"
#include "agent/vm_memory.h"
#include "agent/vm_share.h"
#include "agent/vm_vsock.h"
#include "base/cleanup.h"
#include "base/json.h"

static struct vm *target_vm(const struct change *change)
{
    return (struct vm *)change->target;
}

/* Does it make the VM start?  One that failed is wanted all the same, and does if its policy says
 * so from now on: else the next agent would find it, and start it. */
static bool change_starts(const struct change *change)
{
    const struct vm *vm = target_vm(change);
    const struct vm_spec *spec = &change->new_spec;

    if (change->verb == CHANGE_ACTION)
        return change->action == VM_ACTION_START || change->action == VM_ACTION_REBOOT;
    return spec->desired_running &&
           (!vm->spec.desired_running ||
            (vm->state == VM_FAILED && vm->spec.restart == VM_RESTART_NEVER &&
             spec->restart != VM_RESTART_NEVER));
}

/* It was paused for want of space or memory, and is to go on, or to be paused because it was asked
 * for: then it does not go on when there is memory again. */
static bool ends_want(const struct change *change)
{
    return change->new_intent != VM_INTENT_PAUSE ||
           (change->verb == CHANGE_ACTION && node_memory_paused(target_vm(change)));
}

/* Its text goes with it: making one anew may fail. */
static void swap_spec(struct vm *vm, struct change *change)
{
    struct vm_spec old = vm->spec;
    json_t *old_json = vm->head.spec;

    vm->spec = change->new_spec;
    change->new_spec = old;
    vm->head.spec = change->new_json;
    change->new_json = old_json;
}

int change_commit_vm(struct change *change, struct error *err)
{
    struct vm *vm = target_vm(change);
    struct vm_devices devices = vm->devices;
    int64_t generation = vm->head.generation;
    enum vm_intent intent = vm->intent;
    bool starts = change_starts(change);
    char full = vm->full[0];
    int result;

    if (!change->new_json) /* a PATCH has compared it */
        change->new_json = vm_spec_json(&change->new_spec);
    if (!change->new_json)
        return error_no_memory(err);
    change->old_generation = generation;
    swap_spec(vm, change);
    vm->head.generation = change->new_generation;
    vm->intent = change->new_intent;
    vm->start_committing = starts;
    if (ends_want(change))
        vm->full[0] = '\0';
    if (change->verb == CHANGE_PART)
        change_apply_part(change, /* committed= */ false);
    result = change_commit(change, err);
    swap_spec(vm, change);
    vm->devices = devices;
    vm->head.generation = generation;
    vm->intent = intent;
    vm->full[0] = full;
    vm->start_committing = starts && result == CHANGE_COMMITTING;
    vm->next = result == CHANGE_COMMITTING ? &change->new_spec : NULL;
    return result;
}

void change_settle_vm(struct vm *vm)
{
    vm->start_committing = false;
    vm->next = NULL;
}

static bool claims_the_same(const struct vm_spec *a, const struct vm_spec *b)
{
    return a->memory_min_mib == b->memory_min_mib && a->memory_weight == b->memory_weight &&
           a->priority == b->priority;
}

void change_apply_vm(struct change *change)
{
    struct vm *vm = target_vm(change);
    bool started;

    /* The VM may have ended meanwhile: what the patch does not name stays as that left it. */
    if (change->verb == CHANGE_PATCH || change->verb == CHANGE_PART) {
        change->new_intent = vm->intent;
        if (!json_object_get(change->body, "desired_state"))
            change->new_spec.desired_running = vm->spec.desired_running;
    }
    started = change_starts(change);
    swap_spec(vm, change);
    vm_renew_json(vm);
    if (change->verb == CHANGE_PART)
        change_apply_part(change, /* committed= */ true);
    vm->head.generation += change->new_generation - change->old_generation;
    vm->intent = change->new_intent;
    if (ends_want(change))
        vm->full[0] = '\0';
    if (started && change->new_intent == VM_INTENT_NONE) {
        vm->start_due = true;
        vm->autostart_waits = false; /* who asks does not wait for its turn */
        vm->failures = 0;
    } else if (!vm->spec.desired_running) {
        vm->start_due = false;
    }
    vm->head.stuck = false; /* who asks does not wait for the next try */
    if (change->verb == CHANGE_PATCH && json_object_get(change->body, "balloon"))
        vm_balloon_tell(change->node, vm);
    if (change->verb == CHANGE_PATCH && json_object_get(change->body, "memory_target_mib"))
        vm_memory_tell(change->node, vm);
    if (change->verb == CHANGE_PATCH &&
        (json_object_get(change->body, "disks") || json_object_get(change->body, "nics")))
        vm_tell_devices(change->node, vm);
    if (!jail_share_is_same(&change->new_spec.share, &vm->spec.share)) /* that is the old one now */
        vm_share_tell(change->node, vm);
    if (change->node->labels_changed && !json_equal(change->new_spec.labels, vm->spec.labels))
        change->node->labels_changed(change->node->labels_context);
    vm_step(change->node, vm);
    if (!claims_the_same(&change->new_spec, &vm->spec))
        node_memory_follow(change->node);
    if (change->verb == CHANGE_PART)
        node_wake_vms(change->node); /* a fork may have waited for it */
}

void node_watch_labels(struct node *node, node_labels_fn *changed, void *context)
{
    node->labels_changed = changed;
    node->labels_context = context;
}

/* --- PATCH --- */

/* Is there what it names, and has the host what it asks for?  What is as it was may stay so. */
static int admit_patch(const struct change *change, struct error *err)
{
    const struct vm *vm = target_vm(change);
    const struct vm_spec *spec = &change->new_spec, *old = &vm->spec;
    int result = 0;

    if (strcmp(spec->kernel, old->kernel) != 0 || strcmp(spec->initrd, old->initrd) != 0)
        result = vm_check_images(change->node, spec, err);
    if (result == 0 && memcmp(&spec->vsock, &old->vsock, sizeof spec->vsock) != 0)
        result = vm_vsock_check(change->node->config, &spec->vsock, err);
    if (result == 0 && !jail_share_is_same(&spec->share, &old->share))
        result = jail_share_check(jail_cgroups(change->node->jail), &spec->share, err);
    if (result == 0 && change_starts(change))
        result = vm_admit(change->node, vm, spec, err);
    else if (result == 0 && vm_is_promised(vm) && spec->memory_min_mib > old->memory_min_mib)
        result = vm_admit_guarantee(change->node, vm, spec, err);
    return result;
}

/* The patched spec.  Sizes that were as by default, because nobody asked for another, stay so: else
 * no patch could change memory_mib alone. */
static json_t *merge_patch(const struct change *change)
{
    static const char *const sizes[][2] = {
        { "memory_max_mib", "memory_mib" },
        { "memory_target_mib", "memory_mib" },
        { "memory_min_mib", "memory_max_mib" },
    };
    const json_t *before = target_vm(change)->head.spec;
    json_t *merged = json_patched(before, change->body);

    for (size_t i = 0; i < ARRAY_LENGTH(sizes); i++)
        if (!json_object_get(change->body, sizes[i][0]) &&
            json_equal(json_object_get(before, sizes[i][0]), json_object_get(before, sizes[i][1])))
            json_object_del(merged, sizes[i][0]);
    return merged;
}

/* What a patch of what a machine is made of has to wait for; NULL = nothing. */
static const char *busy_with(const struct vm *vm, char ret_text[64])
{
    if (vm->restore == VM_RESTORE_DUE || vm->restore == VM_RESTORE_UNDER_WAY)
        snprintf(ret_text, 64, "yet to go on from its %s: start it first",
                 vm->spec.fork[0] ? "parent" : "snapshot");
    else if (vm_is_promised(vm))
        snprintf(ret_text, 64, "%s: %s", vm_state_name(vm->state),
                 vm->spec.desired_running ? "stop it first" : "wait until it has stopped");
    else
        return NULL;
    return ret_text;
}

int change_patch_vm(struct change *change, struct error *err)
{
    struct vm *vm = target_vm(change);
    int result = spec_change_check_nulls(RESOURCE_VM, vm->head.spec, change->body, "", err);
    json_t *merged = result == 0 ? merge_patch(change) : NULL;
    char busy[64];

    if (result < 0)
        return result;
    if (!merged)
        return error_no_memory(err);
    result = vm_spec_parse(merged, &change->new_spec, err);
    json_decref(merged);
    if (result < 0)
        return result;
    vm_spec_keep_places(&change->new_spec, &vm->spec);
    change->new_json = vm_spec_json(&change->new_spec);
    if (!change->new_json)
        return error_no_memory(err);
    result = change_check_spec(change, change->new_json, busy_with(vm, busy), err);
    if (result > 0 && admit_patch(change, err) < 0)
        result = -err->code;
    if (result <= 0)
        return result;
    change->new_generation = vm->head.generation + 1;
    change->new_intent = vm->intent;
    return change_commit_vm(change, err);
}

/* --- verbs --- */

static const struct {
    enum vm_event event;
    bool desired_running;
    enum vm_intent intent;
} actions[] = {
    [VM_ACTION_START] = { VM_EVENT_START, true, VM_INTENT_NONE },
    [VM_ACTION_STOP] = { VM_EVENT_STOP, false, VM_INTENT_NONE },
    [VM_ACTION_KILL] = { VM_EVENT_KILL, false, VM_INTENT_KILL },
    [VM_ACTION_REBOOT] = { VM_EVENT_REBOOT, true, VM_INTENT_REBOOT },
    [VM_ACTION_PAUSE] = { VM_EVENT_PAUSE, true, VM_INTENT_PAUSE },
    [VM_ACTION_RESUME] = { VM_EVENT_RESUME, true, VM_INTENT_NONE },
};

int change_begin_action(struct change *change, struct error *err)
{
    struct vm *vm = target_vm(change);
    enum vm_event event = actions[change->action].event;
    /* One that only a snapshot or a fork holds, or that is on its way back from there, counts as
     * running: what is asked is done after that.  So does one that a full disk holds: it is resumed
     * for what is asked. */
    bool held =
        ((vm->state == VM_PAUSING || vm->state == VM_PAUSED) && vm->intent == VM_INTENT_NONE) ||
        vm->full[0];
    enum vm_state state = held ? VM_RUNNING : vm->state;
    /* Down, but about to be started again, by policy or after a host's reboot. */
    bool revoked = event == VM_EVENT_STOP && vm->state == VM_STOPPED && vm->spec.desired_running;

    if (!revoked && vm_lifecycle_next(state, event) == VM_NONE)
        return error_set(err, EBUSY, "%s is not possible while vm %s is %s%s", vm_event_name(event),
                         vm->head.id, vm_state_name(vm->state),
                         state == VM_PAUSED ? ": resume it first" : "");
    if (event == VM_EVENT_START && vm_admit(change->node, vm, &vm->spec, err) < 0)
        return -err->code;
    if (vm_spec_parse(vm->head.spec, &change->new_spec, err) < 0)
        return -err->code;
    vm_spec_keep_places(&change->new_spec, &vm->spec);
    change->new_spec.desired_running = actions[change->action].desired_running;
    change->new_generation =
        vm->head.generation + (change->new_spec.desired_running != vm->spec.desired_running);
    change->new_intent = actions[change->action].intent;
    return change_commit_vm(change, err);
}
