#include "agent/node_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/node_change.h"
#include "agent/node_snapshot.h"
#include "agent/node_wait.h"
#include "agent/operation.h"
#include "agent/vm_fork.h"
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "storage/database.h"
#include "storage/space.h"

const struct resource_ops *resource_ops_of(enum resource_kind kind)
{
    static const struct resource_ops *const all[RESOURCE_KIND_COUNT] = {
        [RESOURCE_IMAGE] = &image_ops,       [RESOURCE_VOLUME] = &volume_ops,
        [RESOURCE_NETWORK] = &network_ops,   [RESOURCE_VM] = &vm_ops,
        [RESOURCE_SNAPSHOT] = &snapshot_ops, [RESOURCE_OPERATION] = &operation_ops,
    };

    return all[kind];
}

/* --- looking up --- */

int resource_parse(enum resource_kind kind, const json_t *spec, struct resource **ret_resource,
                   struct error *err)
{
    const struct resource_ops *ops = resource_ops_of(kind);
    struct resource *fresh = NULL;
    int result = ops->parse(spec, &fresh, err);

    if (result < 0)
        return result;
    if (!fresh->spec) {
        ops->free(fresh);
        return error_no_memory(err);
    }
    *ret_resource = fresh;
    return 0;
}

struct resource *node_find(const struct node *node, enum resource_kind kind, const char *id)
{
    struct resource *resource = resource_find(&node->tables[kind], id);

    return resource && !resource->hidden ? resource : NULL;
}

struct image *node_find_image(const struct node *node, const char *id)
{
    return (struct image *)node_find(node, RESOURCE_IMAGE, id);
}

struct volume *node_find_volume(const struct node *node, const char *id)
{
    return (struct volume *)node_find(node, RESOURCE_VOLUME, id);
}

struct network *node_find_network(const struct node *node, const char *id)
{
    return (struct network *)node_find(node, RESOURCE_NETWORK, id);
}

static struct resource *resource_at(const struct node *node, enum resource_kind kind, size_t index)
{
    const struct resource_table *table = &node->tables[kind];

    return index < table->count ? table->items[index] : NULL;
}

struct vm *node_vm_at(const struct node *node, size_t index)
{
    return (struct vm *)resource_at(node, RESOURCE_VM, index);
}

struct volume *node_volume_at(const struct node *node, size_t index)
{
    return (struct volume *)resource_at(node, RESOURCE_VOLUME, index);
}

struct network *node_network_at(const struct node *node, size_t index)
{
    return (struct network *)resource_at(node, RESOURCE_NETWORK, index);
}

struct snapshot *node_snapshot_at(const struct node *node, size_t index)
{
    return (struct snapshot *)resource_at(node, RESOURCE_SNAPSHOT, index);
}

struct operation *node_operation_at(const struct node *node, size_t index)
{
    return (struct operation *)resource_at(node, RESOURCE_OPERATION, index);
}

const struct vm *vm_of_instance(const struct node *node, uint32_t instance)
{
    const struct vm *vm;

    for (size_t i = 0; (vm = node_vm_at(node, i)); i++)
        if (vm->head.instance == instance)
            return vm;
    return NULL;
}

struct vm *node_find_vm(const struct node *node, const char *id)
{
    return (struct vm *)node_find(node, RESOURCE_VM, id);
}

const char *progress_state_name(enum progress_state state, const char *working)
{
    return state == PROGRESS_WORKING ? working : state == PROGRESS_READY ? "ready" : "failed";
}

const char *resource_state_name(const struct resource *resource)
{
    if (resource->kind == RESOURCE_OPERATION)
        return operation_state_name(((const struct operation *)resource)->state);
    if (resource->kind == RESOURCE_VM)
        return vm_state_name(resource->deleting ? VM_DELETING
                                                : ((const struct vm *)resource)->state);
    if (resource->deleting)
        return "deleting";
    return progress_state_name(resource_progress(resource),
                               resource->kind == RESOURCE_IMAGE ? "importing" : "creating");
}

int progress_restore(struct resource *resource, const json_t *status,
                     enum progress_state *ret_state, char *ret_reason, size_t size,
                     struct error *err)
{
    const char *state = json_text(status, "state");

    if (!state[0])
        return error_set(err, EINVAL, "it has no state");
    resource->deleting = strcmp(state, "deleting") == 0;
    *ret_state = strcmp(state, "ready") == 0    ? PROGRESS_READY
                 : strcmp(state, "failed") == 0 ? PROGRESS_FAILED
                                                : PROGRESS_WORKING;
    snprintf(ret_reason, size, "%s", json_text(status, "reason"));
    return 0;
}

/* --- reading --- */

json_t *resource_json(const struct node *node, const struct resource *resource)
{
    json_t *status = resource_ops_of(resource->kind)->status(node, resource, /* stored= */ false);

    return json_pack("{s:s, s:s, s:I, s:I, s:O, s:o}", "id", resource->id, "uid", resource->uid,
                     "generation", (json_int_t)resource->generation, "revision",
                     (json_int_t)resource->revision, "spec", resource->spec, "status", status);
}

int node_get(struct node *node, enum resource_kind kind, const char *id, json_t **ret_json,
             struct error *err)
{
    const struct resource *resource = node_find(node, kind, id);
    json_t *json = resource ? resource_json(node, resource) : NULL;

    if (!resource)
        return resource_not_found(kind, id, err);
    if (!json)
        return error_no_memory(err);
    *ret_json = json;
    return 0;
}

int node_check_condition(const struct node *node, enum resource_kind kind, const char *id,
                         const struct node_condition *condition, struct error *err)
{
    const struct resource *resource = node_find(node, kind, id);

    return resource ? resource_check_condition(condition, resource->generation, resource->uid, err)
                    : resource_not_found(kind, id, err);
}

int node_failure(const struct node *node, enum resource_kind kind, const char *id)
{
    const struct resource *resource = node_find(node, kind, id);

    return resource ? resource->failure : 0;
}

int64_t node_revision(const struct node *node)
{
    return node->database ? database_revision(node->database) : 0;
}

/* --- writing behind --- */

static void write_row(struct node *node, struct resource *resource);

/* What the last failures left: rows older than the truth, and rows of what is gone. */
void node_save_again(struct node *node)
{
    node->unsaved = false;
    for (int kind = 0; kind < RESOURCE_KIND_COUNT; kind++) {
        const struct resource_table *table = &node->tables[kind];

        for (size_t i = 0; i < table->count; i++) {
            struct resource *resource = table->items[i];

            if (resource->unsaved && resource->gone)
                node_gone(node, resource);
            else if (resource->unsaved && !resource->committing)
                write_row(node, resource);
        }
    }
}

/* The worker answers in order, so a resource is still there: its removal is answered last. */
static void note_outcome(struct node *node, struct resource *resource, int result,
                         const struct error *err)
{
    bool first = node->database_error == 0;

    node->database_error = result < 0 ? -result : 0;
    if (result >= 0)
        return;
    if (first)
        log_error(node->log, "a change of %s %s could not be recorded, it is tried again: %s",
                  resource_kind_name(resource->kind), resource->id, err->message);
    resource->unsaved = true;
    node->unsaved = true;
}

struct write {
    struct node *node;
    struct resource *resource;
};

static void written(void *context, int result, const struct error *err)
{
    struct write *write = context;

    write->resource->writing--;
    if (!write->resource->gone) /* else its removal, which is on its way, makes good for it */
        note_outcome(write->node, write->resource, result, err);
    if (write->resource->kind == RESOURCE_VOLUME)
        node_wake_vms(write->node); /* forks wait for that */
    if (write->resource->kind == RESOURCE_IMAGE)
        image_is_written(write->node, (struct image *)write->resource);
    free(write);
}

struct record node_record(const struct resource *resource, const char *spec_text,
                          const char *status_text)
{
    return (struct record){
        .kind = resource_kind_name(resource->kind),
        .id = resource->id,
        .uid = resource->uid,
        .instance = resource->instance,
        .generation = resource->generation,
        .revision = resource->revision,
        .spec = spec_text,
        .status = status_text,
    };
}

static int submit_row(struct node *node, struct resource *resource, const char *spec_text,
                      const char *status_text, struct error *err)
{
    struct write *write = malloc(sizeof *write);
    struct record record = node_record(resource, spec_text, status_text);
    int result;

    if (!write)
        return error_set(err, ENOMEM, "memory is short");
    *write = (struct write){ .node = node, .resource = resource };
    result = database_put(node->database, &record, written, write, err);
    if (result < 0)
        free(write);
    else
        resource->writing++;
    return result;
}

static void write_row(struct node *node, struct resource *resource)
{
    json_t *status = resource_ops_of(resource->kind)->status(node, resource, /* stored= */ true);
    char *spec_text = json_canonical(resource->spec);
    char *status_text = json_canonical(status);
    struct error err = { .code = ENOMEM, .message = "memory is short" };
    int result = -ENOMEM;

    resource->unsaved = false;
    /* Given as it is written: revisions, which events go by, are in the order of the writes. */
    resource->revision = ++node->revision;
    if (spec_text && status_text)
        result = submit_row(node, resource, spec_text, status_text, &err);
    if (result < 0)
        note_outcome(node, resource, result, &err);
    free(spec_text);
    free(status_text);
    json_decref(status);
}

void node_save(struct node *node, struct resource *resource)
{
    /* Else it would undo on the disk what is being committed and not yet in memory. */
    if (resource->committing)
        resource->unsaved = true;
    else if (!resource->hidden && !resource->gone)
        write_row(node, resource);
    node_notify(node, resource);
}

void node_save_held(struct node *node, struct resource *resource)
{
    if (resource->unsaved && !resource->gone)
        write_row(node, resource);
}

void node_notify(struct node *node, struct resource *resource)
{
    node_wait_look(node, resource);
    operation_look(node, resource);
}

static void removed(void *context, int result, const struct error *err)
{
    struct write *write = context;
    struct node *node = write->node;
    struct resource *resource = write->resource;

    free(write);
    /* The row stays, marked as deleting; the client sees it still. */
    note_outcome(node, resource, result, err);
    if (result < 0)
        return;
    resource_remove(&node->tables[resource->kind], resource);
    operation_target_gone(node, resource);
    node_wait_look(node, resource);
    node_wake_vms(node);
    resource_ops_of(resource->kind)->free(resource);
    if (!node->ending)
        vm_fork_tidy(node); /* it may have been the last that stood on a fork's snapshot */
}

void node_gone(struct node *node, struct resource *resource)
{
    struct write *write = malloc(sizeof *write);
    struct record record = { .kind = resource_kind_name(resource->kind),
                             .id = resource->id,
                             .revision = ++node->revision };
    struct error err = { .code = ENOMEM, .message = "memory is short" };

    resource->gone = true;
    resource->unsaved = false;
    if (!write) {
        note_outcome(node, resource, -ENOMEM, &err);
        return;
    }
    *write = (struct write){ .node = node, .resource = resource };
    if (database_delete(node->database, &record, removed, write, &err) < 0)
        removed(write, -err.code, &err);
}

void node_wake_vms(struct node *node)
{
    struct vm *vm;

    for (size_t i = 0; (vm = node_vm_at(node, i)); i++) {
        if (!vm->head.hidden && !vm->head.gone && (vm->start_due || vm->head.deleting))
            vm_step(node, vm);
    }
}

/* --- capacity --- */

struct memory_capacity node_memory_capacity(const struct node *node)
{
    return (struct memory_capacity){
        .host_mib = node->memory_bytes >> 20,
        .reserve_mib = node_memory_reserve_mib(node),
        .ratio_percent = (uint64_t)node_memory_ratio(node),
        .swap_mib = node->swap_room.held_mib - node->swap_room.taken_mib,
        .is_short = node_memory_is_short(node),
    };
}

bool vm_is_promised(const struct vm *vm)
{
    if (vm->head.hidden)
        return vm->spec.desired_running;
    return vm_state_is_live(vm->state) || vm->pidfd >= 0 || vm->start_due || vm->start_committing ||
           vm->timer;
}

static uint64_t greater(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Between its admission and its commit nobody else gets what a change asks for. */
struct memory_promise node_promised(const struct node *node, const struct vm *except)
{
    struct memory_promise promised = { 0 };
    const struct vm_spec *next;
    const struct vm *vm;

    for (size_t i = 0; (vm = node_vm_at(node, i)); i++) {
        if (vm == except || !vm_is_promised(vm) ||
            (except && except->autostart_waits && vm->autostart_waits))
            continue;
        next = vm->next ? vm->next : &vm->spec;
        promised.max_mib +=
            greater(vm->spec.memory_max_mib, next->memory_max_mib) + VM_OVERHEAD_MIB;
        promised.min_mib +=
            greater(vm->spec.memory_min_mib, next->memory_min_mib) + VM_OVERHEAD_MIB;
    }
    return promised;
}

uint64_t node_promised_disk(const struct node *node)
{
    const struct volume *volume;
    uint64_t promised = snapshot_promised_bytes(node) + vm_fork_promised_bytes(node);

    for (size_t i = 0; (volume = node_volume_at(node, i)); i++)
        promised += volume->wanted_bytes;
    for (const struct change *change = node->changes; change; change = change->next)
        promised += change->more_bytes;
    return promised;
}

int node_admit_disk(const struct node *node, uint64_t bytes, const char *field, struct error *err)
{
    uint64_t total = 0, available = 0;
    int result = space_filesystem(node->volumes_dir_fd, &total, &available, err);

    return result < 0 ? result
                      : space_admit(total, (uint64_t)node->config->disk_ratio_percent,
                                    node_promised_disk(node), bytes, field, err);
}
