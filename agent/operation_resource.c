/* Operations as resources: what is read, shown and stored, and how they are asked to be cancelled.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/node_change.h"
#include "agent/operation.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"

static const char *const verb_names[OPERATION_VERB_COUNT] = {
    [OPERATION_IMPORT] = "import",
    [OPERATION_COPY] = "copy",
    [OPERATION_SNAPSHOT] = "snapshot",
    [OPERATION_FORK] = "fork",
};

static const char *const state_names[OPERATION_STATE_COUNT] = {
    [OPERATION_PENDING] = "pending",     [OPERATION_RUNNING] = "running",
    [OPERATION_SUCCEEDED] = "succeeded", [OPERATION_FAILED] = "failed",
    [OPERATION_CANCELLED] = "cancelled",
};

static const char *const step_names[OPERATION_STEP_COUNT] = {
    [STEP_WAIT] = "wait",   [STEP_FETCH] = "fetch",     [STEP_STORE] = "store",
    [STEP_COPY] = "copy",   [STEP_PREPARE] = "prepare", [STEP_HOLD] = "hold",
    [STEP_WRITE] = "write", [STEP_SEAL] = "seal",       [STEP_UNDO] = "undo",
    [STEP_START] = "start", [STEP_FIND] = "find",
};

static const char *const step_state_names[STEP_STATE_COUNT] = {
    [STEP_RUNNING] = "running",         [STEP_DONE] = "done",
    [STEP_FAILED] = "failed",           [STEP_CANCELLED] = "cancelled",
    [STEP_INTERRUPTED] = "interrupted",
};

static const enum resource_kind target_kinds[OPERATION_VERB_COUNT] = {
    [OPERATION_IMPORT] = RESOURCE_IMAGE,
    [OPERATION_COPY] = RESOURCE_VOLUME,
    [OPERATION_SNAPSHOT] = RESOURCE_SNAPSHOT,
    [OPERATION_FORK] = RESOURCE_VM,
};

const char *operation_verb_name(enum operation_verb verb)
{
    return verb_names[verb];
}

const char *operation_state_name(enum operation_state state)
{
    return state_names[state];
}

/* --- its spec --- */

static json_t *spec_json(const struct operation *operation)
{
    return json_pack("{s:s, s:{s:s, s:s, s:s}, s:b}", "verb", verb_names[operation->verb], "target",
                     "kind", resource_kind_name(operation->target_kind), "id", operation->target_id,
                     "uid", operation->target_uid, "cancel", operation->cancel);
}

void operation_make_id(enum operation_verb verb, const struct resource *target,
                       char ret_id[ID_MAX + 1])
{
    snprintf(ret_id, ID_MAX + 1, "%s-%s", verb_names[verb], target->uid);
}

struct operation *operation_new(enum operation_verb verb, const struct resource *target)
{
    struct operation *operation = calloc(1, sizeof *operation);

    if (!operation)
        return NULL;
    operation->head.kind = RESOURCE_OPERATION;
    operation->head.generation = 1;
    operation_make_id(verb, target, operation->head.id);
    uid_generate(operation->head.uid);
    operation->verb = verb;
    operation->target_kind = target->kind;
    memcpy(operation->target_id, target->id, sizeof operation->target_id);
    memcpy(operation->target_uid, target->uid, sizeof operation->target_uid);
    operation->head.spec = spec_json(operation);
    if (!operation->head.spec) {
        free(operation);
        return NULL;
    }
    return operation;
}

/* Of our own making, from the row, or with a patch of `cancel`. */
static int operation_parse(const json_t *spec, struct resource **ret_resource, struct error *err)
{
    const json_t *target = json_object_get(spec, "target");
    struct operation *operation = calloc(1, sizeof *operation);
    struct json_reader reader;
    const char *id, *uid;

    if (!operation)
        return error_no_memory(err);
    json_reader_init(&reader, spec, "", err);
    operation->verb = (enum operation_verb)json_read_enum(&reader, "verb", verb_names,
                                                          OPERATION_VERB_COUNT, JSON_REQUIRED, 0);
    operation->cancel = json_read_bool(&reader, "cancel", false);
    operation->target_kind = target_kinds[operation->verb];
    id = json_string_value(json_object_get(target, "id"));
    uid = json_string_value(json_object_get(target, "uid"));
    if (reader.result < 0 || !id || !uid) {
        free(operation);
        return reader.result < 0 ? reader.result
                                 : error_set(err, EINVAL, "an operation without a target");
    }
    snprintf(operation->target_id, sizeof operation->target_id, "%s", id);
    snprintf(operation->target_uid, sizeof operation->target_uid, "%s", uid);
    operation->head.spec = spec_json(operation);
    *ret_resource = &operation->head;
    return 0;
}

/* --- cancelling: a PATCH of the node's own making --- */

static int operation_patch(struct change *change, struct error *err)
{
    const struct operation *operation = (const struct operation *)change->target;
    const struct resource *fork = operation->verb == OPERATION_FORK
                                      ? node_find(change->node, RESOURCE_VM, operation->target_id)
                                      : NULL;
    int result;

    if (operation->state == OPERATION_CANCELLED ||
        (operation->cancel && !operation_has_ended(operation)))
        return 0;
    if (operation_has_ended(operation))
        return error_set(err, EBUSY, "operation %s has ended: it %s", operation->head.id,
                         state_names[operation->state]);
    result = fork ? change_check_protection(fork, err) : 0;
    if (result == 0)
        result = change_patch_spec(change, err);
    return result;
}

static void operation_apply(struct change *change)
{
    struct operation *operation = (struct operation *)change->target;

    change_apply_spec(change);
    operation->cancel = true;
    operation_cancel(change->node, operation);
}

/* --- its status --- */

static json_t *time_json(int64_t ms)
{
    char text[TIMESTAMP_TEXT];

    if (ms == 0)
        return json_null();
    timestamp_format(ms, text);
    return json_string(text);
}

static json_t *steps_json(const struct operation *operation)
{
    json_t *steps = json_array();
    int result = 0;

    for (size_t i = 0; i < operation->step_count; i++)
        result |= json_array_append_new(
            steps, json_pack("{s:s, s:s}", "name", step_names[operation->steps[i].name], "state",
                             step_state_names[operation->steps[i].state]));
    return json_whole(steps, result);
}

static json_t *error_json(const struct operation *operation)
{
    char title[32];

    if (operation->state != OPERATION_FAILED)
        return json_null();
    snprintf(title, sizeof title, "%s failed", verb_names[operation->verb]);
    return json_pack("{s:s, s:s, s:o, s:i}", "type",
                     operation->verb == OPERATION_IMPORT ? "urn:warren:problem:import-failed"
                                                         : "urn:warren:problem:operation-failed",
                     "title", title, "detail", json_message(operation->reason), "status", 422);
}

static json_t *result_json(const struct operation *operation)
{
    if (operation->state != OPERATION_SUCCEEDED)
        return json_null();
    return json_sprintf("/v1/%ss/%s", resource_kind_name(operation->target_kind),
                        operation->target_id);
}

/* How far it is between two steps is nowhere written down. */
static json_t *progress_json(const struct node *node, const struct operation *operation)
{
    const struct resource *target =
        resource_find(&node->tables[operation->target_kind], operation->target_id);
    struct operation_view view = { .done_bytes = operation->done_bytes,
                                   .total_bytes = operation->total_bytes };

    if (!operation_has_ended(operation) && target &&
        strcmp(target->uid, operation->target_uid) == 0)
        view = operation_view(target);
    return json_pack("{s:I, s:o}", "done_bytes", (json_int_t)view.done_bytes, "total_bytes",
                     view.total_bytes > 0 ? json_integer((json_int_t)view.total_bytes)
                                          : json_null());
}

static json_t *operation_status(const struct node *node, const struct resource *resource,
                                bool stored)
{
    const struct operation *operation = (const struct operation *)resource;
    json_t *status =
        json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "state",
                  state_names[operation->state], "reason", json_reason(operation->reason),
                  "progress", progress_json(node, operation), "steps", steps_json(operation),
                  "error", error_json(operation), "result", result_json(operation), "started",
                  time_json(operation->started_ms), "ended", time_json(operation->ended_ms));
    int result = 0;

    if (stored)
        result = json_object_set_new(status, "started_ms", json_integer(operation->started_ms)) |
                 json_object_set_new(status, "ended_ms", json_integer(operation->ended_ms));
    return json_whole(status, result);
}

static void restore_steps(struct operation *operation, const json_t *steps)
{
    json_t *step;
    size_t i;

    json_array_foreach((json_t *)steps, i, step)
    {
        int name = json_index(step, "name", step_names, OPERATION_STEP_COUNT);
        int state = json_index(step, "state", step_state_names, STEP_STATE_COUNT);

        if (name < 0 || state < 0 || operation->step_count == OPERATION_STEPS_MAX)
            continue;
        operation->steps[operation->step_count].name = (enum operation_step)name;
        operation->steps[operation->step_count++].state = (enum step_state)state;
    }
}

static int operation_restore(struct resource *resource, const json_t *status, struct error *err)
{
    struct operation *operation = (struct operation *)resource;
    const json_t *progress = json_object_get(status, "progress");
    int state = json_index(status, "state", state_names, OPERATION_STATE_COUNT);

    if (state < 0)
        return error_set(err, EINVAL, "it has no state");
    operation->state = (enum operation_state)state;
    snprintf(operation->reason, sizeof operation->reason, "%s", json_text(status, "reason"));
    operation->done_bytes = (uint64_t)json_integer_value(json_object_get(progress, "done_bytes"));
    operation->total_bytes = (uint64_t)json_integer_value(json_object_get(progress, "total_bytes"));
    operation->started_ms = json_integer_value(json_object_get(status, "started_ms"));
    operation->ended_ms = json_integer_value(json_object_get(status, "ended_ms"));
    restore_steps(operation, json_object_get(status, "steps"));
    return 0;
}

const struct resource_ops operation_ops = {
    .parse = operation_parse,
    .patch = operation_patch,
    .apply = operation_apply,
    .status = operation_status,
    .restore = operation_restore,
    .free = resource_free,
};
