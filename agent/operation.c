#include "agent/operation.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/node_snapshot.h"
#include "agent/node_volume.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "storage/image.h"

/* The target's, if it is there and not being trimmed; NULL. */
static struct operation *operation_of(const struct node *node, const struct resource *target)
{
    struct resource *found;
    enum operation_verb verb;
    char id[ID_MAX + 1];

    if (!operation_verb_of(target, &verb))
        return NULL;
    operation_make_id(verb, target, id);
    found = resource_find(&node->tables[RESOURCE_OPERATION], id);
    return found && !found->gone ? (struct operation *)found : NULL;
}

json_t *operation_link(const struct node *node, const struct resource *target)
{
    const struct operation *operation = operation_of(node, target);

    return operation ? json_string(operation->head.id) : json_null();
}

static struct resource *target_of(const struct node *node, const struct operation *operation)
{
    struct resource *target =
        resource_find(&node->tables[operation->target_kind], operation->target_id);

    return target && strcmp(target->uid, operation->target_uid) == 0 ? target : NULL;
}

/* --- bringing it in line --- */

static void end_step(struct operation *operation, enum step_state state)
{
    if (operation->step_count > 0 &&
        operation->steps[operation->step_count - 1].state == STEP_RUNNING)
        operation->steps[operation->step_count - 1].state = state;
}

/* True if it is another one. */
static bool note_step(struct operation *operation, enum operation_step name)
{
    size_t count = operation->step_count;

    if (count > 0 && operation->steps[count - 1].name == name &&
        operation->steps[count - 1].state == STEP_RUNNING)
        return false;
    end_step(operation, STEP_DONE);
    if (count == OPERATION_STEPS_MAX)
        memmove(operation->steps, operation->steps + 1, --count * sizeof operation->steps[0]);
    operation->steps[count].name = name;
    operation->steps[count].state = STEP_RUNNING;
    operation->step_count = count + 1;
    return true;
}

static void end(struct node *node, struct operation *operation, enum operation_state state,
                const char *reason)
{
    static const enum step_state step_states[OPERATION_STATE_COUNT] = {
        [OPERATION_SUCCEEDED] = STEP_DONE,
        [OPERATION_FAILED] = STEP_FAILED,
        [OPERATION_CANCELLED] = STEP_CANCELLED,
    };

    end_step(operation, step_states[state]);
    operation->state = state;
    operation->ended_ms = timestamp_now_ms();
    snprintf(operation->reason, sizeof operation->reason, "%s", reason);
    node_save(node, &operation->head);
}

/* Its target is on its way out, and only that is its end, whatever the target comes to first. */
static bool is_undone(const struct operation *operation)
{
    return operation->verb == OPERATION_FORK && operation->cancel;
}

void operation_look(struct node *node, const struct resource *target)
{
    struct operation *operation =
        target->kind == RESOURCE_OPERATION ? NULL : operation_of(node, target);
    struct operation_view view;
    bool changed;

    if (!operation || operation_has_ended(operation) || target->hidden ||
        (target->deleting && !is_undone(operation)))
        return; /* one that is being deleted is told of once it is gone */
    view = is_undone(operation)
               ? (struct operation_view){ .state = OPERATION_RUNNING, .step = STEP_UNDO }
               : operation_view(target);
    if (view.state == OPERATION_FAILED && operation->cancel)
        view.state = OPERATION_CANCELLED;
    operation->done_bytes = view.done_bytes;
    operation->total_bytes = view.total_bytes;
    if (view.state >= OPERATION_SUCCEEDED) {
        end(node, operation, view.state, view.state == OPERATION_SUCCEEDED ? "" : view.reason);
        return;
    }
    changed = view.state != operation->state;
    if (view.state == OPERATION_RUNNING && operation->started_ms == 0)
        operation->started_ms = timestamp_now_ms();
    operation->state = view.state;
    changed |= note_step(operation, view.step);
    if (changed)
        node_save(node, &operation->head);
}

/* --- its beginning and end --- */

void operation_begin(struct node *node, const struct resource *target)
{
    struct operation *operation;
    enum operation_verb verb;

    if (!operation_verb_of(target, &verb) || operation_of(node, target))
        return;
    operation = node->last_instance < UINT32_MAX ? operation_new(verb, target) : NULL;
    if (operation && resource_insert(&node->tables[RESOURCE_OPERATION], &operation->head) < 0) {
        operation_ops.free(&operation->head);
        operation = NULL;
    }
    if (!operation) { /* the work goes on without */
        log_warning(node->log, "%s %s: memory is short for its operation",
                    resource_kind_name(target->kind), target->id);
        return;
    }
    operation->head.instance = ++node->last_instance;
    note_step(operation, STEP_WAIT);
    node_save(node, &operation->head);
}

static void end_without_target(struct node *node, struct operation *operation)
{
    char reason[sizeof operation->reason];

    if (operation->cancel)
        snprintf(reason, sizeof reason, "the %s was cancelled",
                 operation_verb_name(operation->verb));
    else
        snprintf(reason, sizeof reason, "%s %s was deleted",
                 resource_kind_name(operation->target_kind), operation->target_id);
    end(node, operation, OPERATION_CANCELLED, reason);
}

void operation_target_gone(struct node *node, const struct resource *target)
{
    struct operation *operation =
        target->kind == RESOURCE_OPERATION ? NULL : operation_of(node, target);

    if (operation && !operation_has_ended(operation))
        end_without_target(node, operation);
}

static void fork_is_deleted(void *context, int result, const struct error *err)
{
    const struct node *node = context;

    if (result < 0 && result != -ENOENT)
        log_warning(node->log, "a fork that was cancelled stays for now: %s", err->message);
}

/* With all that is its own, as by DELETE; its row says so first, so the next agent goes on. */
static void undo_fork(struct node *node, const struct operation *operation, struct resource *target)
{
    operation_look(node, target);
    if (!resource_is_leaving(target))
        node_submit(node, &(struct node_change){ .verb = CHANGE_DELETE,
                                                 .kind = RESOURCE_VM,
                                                 .id = operation->target_id,
                                                 .force = true,
                                                 .done = fork_is_deleted,
                                                 .context = node });
}

void operation_cancel(struct node *node, struct operation *operation)
{
    struct resource *target = target_of(node, operation);

    if (!target || operation_has_ended(operation))
        return;
    if (is_undone(operation))
        undo_fork(node, operation, target);
    else if (target->deleting || resource_progress(target) != PROGRESS_WORKING)
        return;
    else if (target->kind == RESOURCE_IMAGE && ((struct image *)target)->import)
        image_import_cancel(((struct image *)target)->import);
    else if (target->kind == RESOURCE_VOLUME)
        volume_cancel(node, (struct volume *)target);
    else if (target->kind == RESOURCE_SNAPSHOT)
        snapshot_cancel(node, (struct snapshot *)target);
}

/* --- at the start --- */

void operation_interrupted(struct node *node, const struct resource *target)
{
    struct operation *operation = operation_of(node, target);

    if (operation && !operation_has_ended(operation))
        end_step(operation, STEP_INTERRUPTED);
}

void operations_interrupted(struct node *node)
{
    struct operation *operation;

    for (size_t i = 0; (operation = node_operation_at(node, i)); i++) {
        if (!operation_has_ended(operation))
            end_step(operation, STEP_INTERRUPTED);
    }
}

static bool has_work(const struct resource *target)
{
    return !target->deleting && operation_view(target).state < OPERATION_SUCCEEDED;
}

void operations_reconcile(struct node *node)
{
    static const enum resource_kind kinds[] = { RESOURCE_IMAGE, RESOURCE_VOLUME, RESOURCE_SNAPSHOT,
                                                RESOURCE_VM };
    struct operation *operation;
    enum operation_verb verb;

    for (size_t k = 0; k < ARRAY_LENGTH(kinds); k++)
        for (size_t i = 0; i < node->tables[kinds[k]].count; i++) {
            const struct resource *target = node->tables[kinds[k]].items[i];

            if (operation_verb_of(target, &verb) && has_work(target))
                operation_begin(node, target);
            operation_look(node, target);
        }
    for (size_t i = 0; (operation = node_operation_at(node, i)); i++) {
        if (operation_has_ended(operation))
            continue;
        if (!target_of(node, operation))
            end_without_target(node, operation);
        else if (operation->cancel)
            operation_cancel(node, operation);
    }
}

/* --- once a second --- */

static struct operation *oldest(const struct node *node, size_t *ret_ended)
{
    struct operation *operation;
    struct operation *result = NULL;
    size_t ended = 0;

    for (size_t i = 0; (operation = node_operation_at(node, i)); i++) {
        if (!operation_has_ended(operation) || operation->head.gone)
            continue;
        ended++;
        if (!result || operation->ended_ms < result->ended_ms)
            result = operation;
    }
    *ret_ended = ended;
    return result;
}

static void trim(struct node *node)
{
    enum { AT_ONCE = 100 };
    int64_t now_ms = timestamp_now_ms();

    for (int i = 0; i < AT_ONCE; i++) {
        size_t ended;
        struct operation *operation = oldest(node, &ended);

        if (!operation ||
            (ended <= OPERATIONS_KEPT && now_ms - operation->ended_ms < OPERATION_KEPT_MS))
            return;
        node_gone(node, &operation->head);
    }
}

void operations_tend(struct node *node)
{
    struct operation *operation;

    for (size_t i = 0; (operation = node_operation_at(node, i)); i++)
        if (is_undone(operation))
            operation_cancel(node, operation);
    trim(node);
}
