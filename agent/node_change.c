#include "agent/node_change.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/jail.h"
#include "agent/label_selector.h"
#include "agent/operation.h"
#include "agent/spec_change.h"
#include "agent/spec_rules.h"
#include "base/json.h"
#include "base/log.h"
#include "base/loop.h"
#include "storage/database.h"

static void change_begin(struct change *change);

static bool same_resource(const struct change *a, const struct change *b)
{
    return a->kind == b->kind && strcmp(a->id, b->id) == 0;
}

/* Answers, and lets the next change of the same resource begin. */
static void change_finish(void *context)
{
    struct change *change = context;
    struct node *node = change->node;
    struct change **link = &node->changes;
    struct change *next;

    while (*link != change)
        link = &(*link)->next;
    *link = change->next;
    for (next = node->changes; next && !same_resource(next, change); next = next->next)
        ;
    change->done(change->context, change->result, &change->err);
    vm_spec_clear(&change->new_spec);
    json_decref(change->new_json);
    json_decref(change->body);
    free(change);
    if (next)
        change_begin(next);
}

/* Later, so that `done` is never called before the request's call has returned. */
static void finish_later(struct change *change, int result)
{
    change->result = result;
    if (loop_post(change->node->loop, change_finish, change) < 0)
        change_finish(change);
}

/* --- committing --- */

static void undo_creation(struct change *change)
{
    struct resource *resource = change->target;

    resource_remove(&change->node->tables[resource->kind], resource);
    resource_ops_of(resource->kind)->free(resource);
}

static void change_committed(void *context, int result, const struct error *err)
{
    struct change *change = context;
    struct node *node = change->node;
    struct resource *resource = change->target;
    const struct resource_ops *ops = resource_ops_of(change->kind);

    resource->committing = false;
    resource->leaving = false;
    if (change->condition.key && result >= 0)
        change->condition.key->committed = true;
    if (change->kind == RESOURCE_VM)
        change_settle_vm((struct vm *)resource);
    if (result < 0) {
        change->err = *err;
        node->database_error = -result;
        log_error(node->log, "a change of %s %s could not be recorded: %s",
                  resource_kind_name(change->kind), change->id, err->message);
        if (change->verb == CHANGE_PART)
            change_undo_part(change);
        if (change->verb == CHANGE_PUT)
            undo_creation(change);
        else
            node_save_held(node, resource);
        change->result = result;
        change_finish(change);
        return;
    }
    node->database_error = 0;
    change->result = change->verb == CHANGE_PUT || (change->verb == CHANGE_PART && change->body);
    switch (change->verb) {
    case CHANGE_PUT:
        resource->hidden = false;
        operation_begin(node, resource);
        ops->begin(node, resource);
        operation_look(node, resource);
        break;
    case CHANGE_DELETE:
        resource->deleting = true;
        ops->remove(node, resource);
        break;
    default:
        ops->apply(change);
        break;
    }
    node_save_held(node, resource);
    change_finish(change);
}

int change_commit(struct change *change, struct error *err)
{
    struct node *node = change->node;
    struct resource *resource = change->target;
    json_t *status = resource_ops_of(change->kind)->status(node, resource, /* stored= */ true);
    char *spec_text = json_canonical(resource->spec);
    char *status_text = json_canonical(status);
    struct key_record key;
    int result;

    resource->revision = ++node->revision;
    if (change->condition.key)
        key = node_key_record(node, change->condition.key);
    if (spec_text && status_text) {
        struct record record = node_record(resource, spec_text, status_text);

        record.idempotency = change->condition.key ? &key : NULL;
        result = database_put(node->database, &record, change_committed, change, err);
        resource->committing = result >= 0;
    } else {
        result = error_no_memory(err);
    }
    free(spec_text);
    free(status_text);
    json_decref(status);
    return result < 0 ? result : CHANGE_COMMITTING;
}

/* --- PUT and DELETE --- */

static int check_condition(const struct change *change, const struct resource *resource,
                           struct error *err)
{
    if (resource && change->condition.if_absent)
        return error_set(err, ESTALE, "%s %s exists", resource_kind_name(change->kind), change->id);
    return resource_check_condition(&change->condition, resource ? resource->generation : 0,
                                    resource ? resource->uid : "", err);
}

static int compare(const struct change *change, const struct resource *existing,
                   const struct resource *fresh, struct error *err)
{
    static const char *const except[] = { "desired_state", NULL };
    char field[64];

    if (existing->deleting)
        return error_set(err, EBUSY, "%s %s is being deleted", resource_kind_name(change->kind),
                         change->id);
    if (!spec_differs(existing->spec, fresh->spec, except, field, sizeof field))
        return 0;
    return error_field(err, EEXIST, field, "%s %s exists with another %s",
                       resource_kind_name(change->kind), change->id, field);
}

static bool user_is_taken(const struct node *node, uint32_t instance)
{
    const struct vm *vm;
    uid_t user = jail_vm_user(node->jail, instance);

    for (size_t i = 0; (vm = node_vm_at(node, i)); i++)
        if (jail_vm_user(node->jail, vm->head.instance) == user)
            return true;
    return false;
}

/* Never given before.  VMs that exist at the same time have users of their own, though users come
 * round again. */
static int next_instance(const struct node *node, enum resource_kind kind, uint32_t *ret_instance,
                         struct error *err)
{
    uint64_t instance = (uint64_t)node->last_instance + 1;
    uint64_t last = instance + node->tables[RESOURCE_VM].count;

    while (kind == RESOURCE_VM && instance <= last && user_is_taken(node, (uint32_t)instance))
        instance++;
    if (last > UINT32_MAX)
        return error_set(err, EAGAIN, "this node has given all its instance numbers");
    if (instance > last)
        return error_set(err, EAGAIN, "every user of the node's range has a VM: see uid-count");
    *ret_instance = (uint32_t)instance;
    return 0;
}

static int create(struct change *change, struct resource *fresh, struct error *err)
{
    struct node *node = change->node;
    const struct resource_ops *ops = resource_ops_of(change->kind);
    int result;

    snprintf(fresh->id, sizeof fresh->id, "%s", change->id);
    fresh->kind = change->kind;
    fresh->generation = 1;
    fresh->hidden = true;
    uid_generate(fresh->uid);
    result = next_instance(node, change->kind, &fresh->instance, err);
    if (result == 0)
        result = ops->reserve(node, fresh, err);
    if (result == 0 && resource_insert(&node->tables[change->kind], fresh) < 0)
        result = error_no_memory(err);
    if (result < 0) {
        ops->free(fresh);
        return result;
    }
    node->last_instance = fresh->instance;
    change->target = fresh;
    result = change_commit(change, err);
    if (result < 0)
        undo_creation(change);
    return result;
}

/* What was judged already: the resource's own spec, or a fork's parent's; NULL = nothing. */
static const json_t *spec_before(const struct change *change, const struct resource *existing,
                                 const struct resource *fresh)
{
    const char *fork =
        json_string_value(json_object_get(json_object_get(fresh->spec, "boot"), "fork"));
    const struct vm *parent = fork && !existing ? node_find_vm(change->node, fork) : NULL;

    return existing ? existing->spec : parent ? parent->head.spec : NULL;
}

static int begin_put(struct change *change, struct error *err)
{
    const struct resource_ops *ops = resource_ops_of(change->kind);
    struct resource *existing = resource_find(&change->node->tables[change->kind], change->id);
    struct resource *fresh = NULL;
    int result;

    if (!id_is_valid(change->id))
        return error_field(err, EINVAL, "id", "id: " ID_RULE);
    result = check_condition(change, existing, err);
    if (result != 0)
        return result;
    result = resource_parse(change->kind, change->body, &fresh, err);
    if (result < 0)
        return result;
    result = spec_rules_check(change->kind, fresh->spec, spec_before(change, existing, fresh), err);
    if (result < 0) {
        ops->free(fresh);
        return result;
    }
    if (!existing)
        return create(change, fresh, err);
    result = compare(change, existing, fresh, err);
    if (result == 0)
        node_retry(change->node, existing);
    ops->free(fresh);
    return result;
}

int change_check_protection(const struct resource *resource, struct error *err)
{
    return json_is_true(json_object_get(resource->spec, "delete_protection"))
               ? error_field(err, EBUSY, "delete_protection",
                             "%s %s has delete_protection: PATCH that to false first",
                             resource_kind_name(resource->kind), resource->id)
               : 0;
}

/* Others' changes came before this one's turn: what it is about may have other labels by now, or be
 * another's of the same id. */
static struct resource *find_target(const struct change *change)
{
    struct resource *resource = node_find(change->node, change->kind, change->id);
    const struct label_selector *limits = change->condition.limits;

    return resource && limits &&
                   !label_selector_matches(limits, json_object_get(resource->spec, "labels"))
               ? NULL
               : resource;
}

static int begin_delete(struct change *change, struct error *err)
{
    struct resource *resource = find_target(change);
    int result;

    if (!resource)
        return resource_not_found(change->kind, change->id, err);
    result = check_condition(change, resource, err);
    if (result == 0 && resource->deleting)
        node_retry(change->node, resource);
    if (result < 0 || resource->deleting)
        return result;
    result = change_check_protection(resource, err);
    if (result == 0)
        result =
            resource_ops_of(change->kind)->may_remove(change->node, resource, change->force, err);
    if (result < 0)
        return result;
    change->target = resource;
    /* The row says "deleting" first; memory follows once that is on the disk. */
    resource->deleting = true;
    result = change_commit(change, err);
    resource->deleting = false;
    resource->leaving = result == CHANGE_COMMITTING;
    return result;
}

/* PATCH and ACTION. */
static int begin_change(struct change *change, struct error *err)
{
    const struct resource_ops *ops = resource_ops_of(change->kind);
    struct resource *resource = find_target(change);
    int result;

    if (!resource)
        return resource_not_found(change->kind, change->id, err);
    result = check_condition(change, resource, err);
    if (result < 0)
        return result;
    if (resource->deleting && change->verb == CHANGE_ACTION && change->action == VM_ACTION_KILL)
        return 0; /* it is being killed */
    if (resource->deleting)
        return error_set(err, EBUSY, "%s %s is being deleted", resource_kind_name(change->kind),
                         change->id);
    change->target = resource;
    if (change->verb == CHANGE_ACTION)
        return change_begin_action(change, err);
    if (change->verb == CHANGE_PART)
        return change_begin_part(change, err);
    return ops->patch ? ops->patch(change, err)
                      : error_set(err, EINVAL, "nothing of it can be changed");
}

/* --- the queue --- */

static void change_begin(struct change *change)
{
    static int (*const begin[CHANGE_VERB_COUNT])(struct change *, struct error *) = {
        [CHANGE_PUT] = begin_put,       [CHANGE_PATCH] = begin_change,
        [CHANGE_DELETE] = begin_delete, [CHANGE_ACTION] = begin_change,
        [CHANGE_PART] = begin_change,
    };
    int result = begin[change->verb](change, &change->err);

    if (result != CHANGE_COMMITTING)
        finish_later(change, result);
}

_Static_assert((int)VM_PART_DISK == VMM_DEVICE_DISK && (int)VM_PART_NIC == VMM_DEVICE_NIC,
               "what the API calls a part is what the VMM calls a device");

static struct change *change_new(struct node *node, const struct node_change *asked)
{
    struct change *change = malloc(sizeof *change);

    if (!change)
        return NULL;
    *change = (struct change){
        .node = node,
        .verb = asked->verb,
        .kind = asked->kind,
        .body = json_incref(asked->body),
        .force = asked->force,
        .action = asked->action,
        .part = (enum vmm_device_kind)asked->part,
        .merge = asked->merge,
        .condition = asked->condition,
        .done = asked->done,
        .context = asked->context,
    };
    /* One too long stays too long for id_is_valid, and is found nowhere. */
    snprintf(change->id, sizeof change->id, "%s", strlen(asked->id) > ID_MAX ? "" : asked->id);
    if (asked->part_name)
        snprintf(change->part_name, sizeof change->part_name, "%s", asked->part_name);
    return change;
}

void node_submit(struct node *node, const struct node_change *asked)
{
    struct change *change = change_new(node, asked);
    struct change **end = &node->changes;
    struct error err;
    bool wait = false;

    if (!change) {
        error_no_memory(&err);
        asked->done(asked->context, -EAGAIN, &err);
        return;
    }
    for (; *end; end = &(*end)->next)
        wait |= same_resource(*end, change);
    *end = change;
    if (!wait)
        change_begin(change);
}
