/* Requests about one disk or nic of a VM: PUT makes it part of the spec, DELETE takes it out, and
 * what its process has follows (vm_hotplug.c); PATCH is one of the VM.  The spec is made from the
 * one that the VM has when the change's turn comes. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/node_change.h"
#include "agent/node_snapshot.h"
#include "agent/spec_change.h"
#include "agent/vm_devices.h"
#include "agent/vm_fork.h"
#include "base/cleanup.h"
#include "base/json.h"

static const struct {
    const char *name, *array, *items; /* of the spec */
} parts[VMM_DEVICE_KIND_COUNT] = {
    [VMM_DEVICE_DISK] = { "disk", "disks", "disks[]" },
    [VMM_DEVICE_NIC] = { "nic", "nics", "nics[]" },
};

static struct vm *target_vm(const struct change *change)
{
    return (struct vm *)change->target;
}

static struct vm_device *device_of(const struct change *change)
{
    return &target_vm(change)->devices.at[change->part][change->place];
}

static uint8_t *place_at(const struct change *change, struct vm_spec *spec, size_t index)
{
    return change->part == VMM_DEVICE_DISK ? &spec->disks[index].place : &spec->nics[index].place;
}

/* --- committed --- */

static void remember(struct change *change, const struct vm_spec *spec)
{
    struct vm_devices *devices = &target_vm(change)->devices;
    unsigned place = change->place;

    for (unsigned i = 0; change->part == VMM_DEVICE_DISK && i < spec->disk_count; i++)
        if (spec->disks[i].place == place)
            devices->disks[place] = spec->disks[i];
    for (unsigned i = 0; change->part == VMM_DEVICE_NIC && i < spec->nic_count; i++)
        if (spec->nics[i].place == place)
            devices->nics[place] = spec->nics[i];
}

/* A process that is being made has the devices that the VM had when it was begun; one may begin
 * while this is being committed. */
void change_apply_part(struct change *change, bool committed)
{
    struct vm *vm = target_vm(change);
    struct vm_device *device = device_of(change);
    bool may_have_process = !committed || vm->pidfd >= 0 || vm->jobs > 0;

    vm->devices.changing = false;
    if (change->body) {
        *device = (struct vm_device){ .there = may_have_process ? VM_DEVICE_IS_ABSENT
                                                                : VM_DEVICE_IS_PRESENT };
        return;
    }
    remember(change, &change->new_spec);
    device->use = VM_DEVICE_LEAVING;
    device->up |= change->part == VMM_DEVICE_NIC;
    device->failed = false;
    device->again_ms = 0;
    device->reason[0] = '\0';
}

void change_undo_part(struct change *change)
{
    struct vm *vm = target_vm(change);

    vm->devices.changing = false;
    if (change->body) {
        *device_of(change) = (struct vm_device){ 0 };
        if (change->part == VMM_DEVICE_NIC)
            vm->nics[change->place] = (struct vm_nic){ 0 };
    }
    node_wake_vms(change->node); /* a fork may have waited for it */
}

/* --- asked for --- */

/* A machine that is being copied, or is still to become what it was elsewhere, stays as it is. */
static int check_moment(const struct change *change, struct error *err)
{
    const struct vm *vm = target_vm(change);
    const struct snapshot *snapshot = snapshot_under_way(change->node, change->id);

    if (vm->restore == VM_RESTORE_DUE || vm->restore == VM_RESTORE_UNDER_WAY)
        return error_set(err, EBUSY, "vm %s is yet to go on from its %s: start it first",
                         change->id, vm->spec.fork[0] ? "parent" : "snapshot");
    if (snapshot)
        return error_set(err, EBUSY, "snapshot %s of vm %s is just being made", snapshot->head.id,
                         change->id);
    if (vm_fork_holds(vm))
        return error_set(err, EBUSY, "vm %s is being forked: try again", change->id);
    return 0;
}

static int commit(struct change *change, struct error *err)
{
    struct vm *vm = target_vm(change);
    int result;

    change->new_generation = vm->head.generation + 1;
    change->new_intent = vm->intent;
    vm->devices.changing = true;
    result = change_commit_vm(change, err);
    if (result < 0)
        change_undo_part(change);
    return result;
}

/* Fields are named as in the VM's spec; the body is one item of it. */
static void name_as_in_body(struct error *err)
{
    const char *dot = strstr(err->field, "].");
    size_t length = dot ? (size_t)(dot + 2 - err->field) : 0;

    if (length == 0)
        return;
    if (strncmp(err->message, err->field, length) == 0)
        memmove(err->message, err->message + length, strlen(err->message + length) + 1);
    memmove(err->field, err->field + length, strlen(err->field + length) + 1);
}

static int parse(struct change *change, const json_t *spec, struct error *err)
{
    int result = vm_spec_parse(spec, &change->new_spec, err);

    if (result == 0)
        vm_spec_keep_places(&change->new_spec, &target_vm(change)->spec);
    return result;
}

static size_t find_item(const json_t *array, const char *name)
{
    size_t index = 0;

    while (index < json_array_size(array) &&
           strcmp(json_string_value(json_object_get(json_array_get(array, index), "name")), name) !=
               0)
        index++;
    return index;
}

/* It is there; is it the same?  One that could not be attached is tried again. */
static int compare(struct change *change, size_t index, struct error *err)
{
    struct vm *vm = target_vm(change);
    const char *array = parts[change->part].array;
    json_t *spec = vm_spec_json(&change->new_spec);
    const json_t *old = json_array_get(json_object_get(vm->head.spec, array), index);
    char field[64];
    int result = 0;

    if (!spec)
        result = error_no_memory(err);
    else if (spec_differs(old, json_array_get(json_object_get(spec, array), index), NULL, field,
                          sizeof field))
        result = error_field(err, EEXIST, field, "%s %s of vm %s exists with another %s",
                             parts[change->part].name, change->part_name, change->id, field);
    json_decref(spec);
    change->place = *place_at(change, &vm->spec, index);
    if (result == 0 && device_of(change)->failed) {
        device_of(change)->failed = false;
        device_of(change)->again_ms = 0;
        node_save(change->node, &vm->head);
        vm_step(change->node, vm);
    }
    return result;
}

/* Is what it needs free?  From now on nobody else gets it. */
static int reserve(struct change *change, struct error *err)
{
    struct vm *vm = target_vm(change);
    struct vm_spec *spec = &change->new_spec, old = vm->spec;
    bool is_disk = change->part == VMM_DEVICE_DISK;
    unsigned index = (is_disk ? spec->disk_count : spec->nic_count) - 1;
    int place = vm_devices_find_place(vm, change->part, err);
    int result;

    if (place < 0)
        return place;
    change->place = (unsigned)place;
    *place_at(change, spec, index) = (uint8_t)place;
    vm->spec = *spec;
    result = is_disk ? vm_check_disk(change->node, vm, index, err)
                     : vm_reserve_nic(change->node, vm, index, err);
    vm->spec = old;
    if (result < 0)
        return result;
    remember(change, spec);
    device_of(change)->use = VM_DEVICE_RESERVED;
    return 0;
}

/* Has the VM as it is room for one more, and no other disk that volume?  What was sent may be all
 * right. */
static int check_room(const struct change *change, const json_t *array, struct error *err)
{
    const char *volume = json_string_value(json_object_get(change->body, "volume"));
    json_t *item;
    size_t index;

    if (vm_devices_find_place(target_vm(change), change->part, err) < 0)
        return -err->code;
    json_array_foreach((json_t *)array, index, item)
    {
        const char *has = json_string_value(json_object_get(item, "volume"));

        if (has && volume && strcmp(has, volume) == 0)
            return error_field(err, EBUSY, "volume", "volume: volume %s is in use by vm %s", volume,
                               change->id);
    }
    return 0;
}

static int put_part(struct change *change, json_t *spec, json_t *array, size_t index,
                    struct error *err)
{
    const json_t *name = json_object_get(change->body, "name");
    json_t *item = json_whole_copy(change->body);
    bool is_new = index == json_array_size(array);
    int result;

    if (name && (!json_is_string(name) || strcmp(json_string_value(name), change->part_name) != 0))
        result = error_field(err, EINVAL, "name", "name: is the path's, %s, or left out",
                             change->part_name);
    else if (vm_devices_find_leaving(target_vm(change), change->part, change->part_name) >= 0)
        result = error_set(err, EBUSY, "%s %s of vm %s is still being detached",
                           parts[change->part].name, change->part_name, change->id);
    else if (is_new && check_room(change, array, err) < 0)
        result = -err->code;
    else if (json_object_set_new(item, "name", json_string(change->part_name)) < 0)
        result = error_no_memory(err);
    else if ((is_new ? json_array_append(array, item) : json_array_set(array, index, item)) < 0)
        result = error_no_memory(err);
    else
        result = parse(change, spec, err);
    json_decref(item);
    if (result == 0 && !is_new)
        return compare(change, index, err);
    if (result == 0)
        result = check_moment(change, err);
    if (result == 0)
        result = reserve(change, err);
    if (result < 0)
        name_as_in_body(err);
    return result < 0 ? result : commit(change, err);
}

/* A patch of the VM, with that item patched. */
static int patch_part(struct change *change, json_t *array, size_t index, struct error *err)
{
    json_t *patch = NULL;
    int result;

    if (index == json_array_size(array))
        return error_set(err, ENOENT, "vm %s has no %s %s", change->id, parts[change->part].name,
                         change->part_name);
    result = spec_change_check_nulls(RESOURCE_VM, json_array_get(array, index), change->body,
                                     parts[change->part].items, err);
    if (result < 0) {
        name_as_in_body(err);
        return result;
    }
    if (json_merge_patch(json_array_get(array, index), change->body) == 0)
        patch = json_pack("{s:O}", parts[change->part].array, array);
    if (!patch)
        return error_no_memory(err);
    json_decref(change->body);
    change->body = patch;
    change->verb = CHANGE_PATCH;
    result = change_patch_vm(change, err);
    if (result < 0)
        name_as_in_body(err);
    return result;
}

static int remove_part(struct change *change, json_t *spec, json_t *array, size_t index,
                       struct error *err)
{
    struct vm *vm = target_vm(change);
    int leaving = vm_devices_find_leaving(vm, change->part, change->part_name);
    int result;

    if (index == json_array_size(array) && leaving < 0)
        return error_set(err, ENOENT, "vm %s has no %s %s", change->id, parts[change->part].name,
                         change->part_name);
    if (index == json_array_size(array)) { /* its guest is asked once more */
        vm->devices.at[change->part][leaving].again_ms = 0;
        vm_step(change->node, vm);
        return 0;
    }
    change->place = *place_at(change, &vm->spec, index);
    json_array_remove(array, index);
    result = check_moment(change, err);
    if (result == 0)
        result = parse(change, spec, err);
    return result < 0 ? result : commit(change, err);
}

int change_begin_part(struct change *change, struct error *err)
{
    json_t *spec = json_whole_copy(target_vm(change)->head.spec);
    json_t *array = json_object_get(spec, parts[change->part].array);
    size_t index = find_item(array, change->part_name);
    int result;

    if (!array)
        result = error_no_memory(err);
    else if (change->merge)
        result = patch_part(change, array, index, err);
    else if (change->body)
        result = put_part(change, spec, array, index, err);
    else
        result = remove_part(change, spec, array, index, err);
    json_decref(spec);
    return result;
}
