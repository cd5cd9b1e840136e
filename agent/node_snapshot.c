/* Snapshots as resources: what is read, reserved, shown and stored, who needs whom, and what a VM
 * must be like to be restored from one.  The work is snapshot_work.c's. */
#include "agent/node_snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/labels.h"
#include "agent/node_change.h"
#include "agent/node_volume.h"
#include "agent/operation.h"
#include "agent/vm_fork.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"
#include "net/cidr.h"
#include "net/mac.h"
#include "storage/snapshot_store.h"
#include "storage/space.h"
#include "storage/volume.h"

enum { MODE_FULL, MODE_DIFFERENTIAL, MODE_FORK };
static const char *const mode_names[] = { "full", "differential", "fork" };

struct snapshot *node_find_snapshot(const struct node *node, const char *id)
{
    return (struct snapshot *)node_find(node, RESOURCE_SNAPSHOT, id);
}

const struct vm_spec *vm_boot_spec(const struct node *node, const struct vm *vm)
{
    const struct snapshot *snapshot =
        vm->spec.snapshot[0] ? node_find_snapshot(node, vm->spec.snapshot) : NULL;

    return snapshot ? &snapshot->vm_spec : &vm->spec;
}

const struct snapshot_disk *snapshot_find_disk(const struct snapshot *snapshot, const char *name,
                                               unsigned *ret_index)
{
    for (unsigned i = 0; i < snapshot->vm_spec.disk_count; i++) {
        if (strcmp(snapshot->disks[i].name, name) != 0 || snapshot->disks[i].read_only)
            continue;
        *ret_index = i;
        return &snapshot->disks[i];
    }
    return NULL;
}

/* --- parse --- */

static void snapshot_free(struct resource *resource)
{
    struct snapshot *snapshot = (struct snapshot *)resource;

    snapshot_marks_free(&snapshot->marks);
    cleanup_close(&snapshot->state_fd);
    cleanup_close(&snapshot->memory_fd);
    fork_source_release(snapshot->fork);
    vm_spec_clear(&snapshot->vm_spec);
    json_decref(snapshot->vm_json);
    json_decref(snapshot->head.spec);
    free(snapshot);
}

static json_t *spec_json(const struct snapshot *snapshot, int mode, const json_t *labels)
{
    json_t *spec = json_pack("{s:s, s:s, s:o}", "vm", snapshot->vm, "mode", mode_names[mode],
                             "labels", labels_copy(labels));
    int result = json_set_text(spec, "parent", snapshot->parent);

    if (snapshot->track)
        result |= json_object_set_new(spec, "track_changes", json_true());
    return json_whole(spec, result);
}

static int snapshot_parse(const json_t *spec, struct resource **ret_resource, struct error *err)
{
    struct json_reader reader;
    struct snapshot *snapshot;
    const char *vm, *parent;
    const json_t *labels;
    bool track;
    int mode;

    json_reader_init(&reader, spec, "", err);
    vm = json_read_id(&reader, "vm", JSON_REQUIRED);
    parent = json_read_id(&reader, "parent", JSON_OPTIONAL);
    mode = json_read_enum(&reader, "mode", mode_names, ARRAY_LENGTH(mode_names), JSON_OPTIONAL,
                          parent ? MODE_DIFFERENTIAL : MODE_FULL);
    track = json_read_bool(&reader, "track_changes", false);
    labels = labels_read(&reader);
    if (json_reader_end(&reader) < 0)
        return reader.result;
    if ((mode == MODE_DIFFERENTIAL) != (parent != NULL))
        return error_field(err, EINVAL, "parent",
                           "parent: the snapshot to which a differential one is the difference, "
                           "and of no other");
    if (track && mode != MODE_FULL)
        return error_field(err, EINVAL, "track_changes",
                           "track_changes: of full snapshots only: the VM stands on the parent, "
                           "and will");
    snapshot = calloc(1, sizeof *snapshot);
    if (!snapshot)
        return error_no_memory(err);
    snapshot->state_fd = snapshot->marks.fd = -1;
    snapshot->memory_fd = -1;
    snapshot->is_fork = mode == MODE_FORK;
    snprintf(snapshot->vm, sizeof snapshot->vm, "%s", vm);
    snprintf(snapshot->parent, sizeof snapshot->parent, "%s", parent ? parent : "");
    snapshot->track = track;
    snapshot->head.spec = spec_json(snapshot, mode, labels);
    *ret_resource = &snapshot->head;
    return 0;
}

/* --- reserve --- */

/* The VM as it is, with the kernel that it would boot, not what it was itself made from. */
static int describe_vm(const struct node *node, const struct vm *vm, struct snapshot *snapshot,
                       struct error *err)
{
    const struct vm_spec *boot = vm_boot_spec(node, vm);
    struct vm_spec spec = vm->spec;
    int result;

    spec.snapshot[0] = '\0';
    spec.fork[0] = '\0';
    memcpy(spec.kernel, boot->kernel, sizeof spec.kernel);
    memcpy(spec.initrd, boot->initrd, sizeof spec.initrd);
    memcpy(spec.cmdline, boot->cmdline, sizeof spec.cmdline);
    snapshot->vm_json = vm_spec_json(&spec);
    if (!snapshot->vm_json)
        return error_no_memory(err);
    memcpy(snapshot->vm_uid, vm->head.uid, sizeof snapshot->vm_uid);
    for (unsigned place = 0; place < VMM_NICS_MAX; place++)
        snapshot->nics[place] = *vm_nic_inside(vm, place);
    snapshot->created_ms = timestamp_now_ms();
    result = vm_spec_parse(snapshot->vm_json, &snapshot->vm_spec, err);
    vm_spec_copy_places(&snapshot->vm_spec, &spec);
    return result;
}

static void describe_disks(const struct node *node, struct snapshot *snapshot)
{
    for (unsigned i = 0; i < snapshot->vm_spec.disk_count; i++) {
        const struct vm_disk_spec *spec = &snapshot->vm_spec.disks[i];
        const struct volume *volume = node_find_volume(node, spec->volume);
        struct snapshot_disk *disk = &snapshot->disks[i];

        memcpy(disk->name, spec->name, sizeof disk->name);
        disk->read_only = spec->read_only;
        if (!volume)
            continue;
        disk->size_bytes = volume->size_bytes;
        disk->format = volume->format;
        if (!disk->read_only)
            disk->base = volume->base;
    }
}

/* What it may take, by what its disks have now. */
static uint64_t wanted_bytes(const struct node *node, const struct snapshot *snapshot)
{
    uint64_t wanted =
        snapshot->is_fork ? 0 : vm_spec_memory_bytes(&snapshot->vm_spec) + SNAPSHOT_STATE_BYTES_MAX;

    for (unsigned i = 0; i < snapshot->vm_spec.disk_count; i++) {
        const struct volume *volume = node_find_volume(node, snapshot->vm_spec.disks[i].volume);
        uint64_t bytes = 0;

        if (volume && !snapshot->disks[i].read_only)
            volume_allocated_bytes(node->volumes, volume->head.instance, &bytes, NULL);
        wanted += bytes;
    }
    return wanted;
}

uint64_t snapshot_promised_bytes(const struct node *node)
{
    const struct snapshot *snapshot;
    uint64_t promised = 0;

    for (size_t i = 0; (snapshot = node_snapshot_at(node, i)); i++)
        promised += snapshot->size_bytes;
    return promised;
}

static int check_space(const struct node *node, uint64_t wanted, struct error *err)
{
    uint64_t total = 0;
    uint64_t available = 0;
    int result = node_admit_disk(node, wanted, "", err);

    if (result == 0)
        result = space_filesystem(node->snapshots_dir_fd, &total, &available, err);
    return result == 0 ? space_check_free(available, wanted, err) : result;
}

int snapshot_admit_more(const struct node *node, struct snapshot *snapshot, struct error *err)
{
    uint64_t wanted = wanted_bytes(node, snapshot);
    int result;

    if (wanted <= snapshot->size_bytes)
        return 0;
    result = node_admit_disk(node, wanted - snapshot->size_bytes, "", err);
    if (result == 0)
        snapshot->size_bytes = wanted;
    return result;
}

const struct snapshot *snapshot_under_way(const struct node *node, const char *vm)
{
    const struct snapshot *other;

    for (size_t i = 0; (other = node_snapshot_at(node, i)); i++) {
        if (strcmp(other->vm, vm) == 0 && (other->step == SNAPSHOT_NEW || other->source))
            return other;
    }
    return NULL;
}

int snapshot_check_source(const struct vm *vm, struct error *err)
{
    bool stays = vm->spec.desired_running && !resource_is_leaving(&vm->head) &&
                 (vm->intent == VM_INTENT_NONE || vm->intent == VM_INTENT_PAUSE);

    if (vm->full[0])
        return error_set(err, EBUSY,
                         "vm %s is paused: %s: requests wait for space, and would be in no file",
                         vm->head.id, vm->full);
    if (vm_fork_holds(vm))
        return error_set(err, EBUSY, "vm %s is being forked: try again", vm->head.id);
    if (vm_devices_check_whole(vm, err) < 0)
        return -err->code;
    /* One that is pausing is waited for, as when it is to be held. */
    if ((vm->state == VM_RUNNING || vm->state == VM_PAUSING || vm->state == VM_PAUSED) && stays &&
        vm->pidfd >= 0)
        return 0;
    return error_set(err, EBUSY, "vm %s is %s: only a VM that runs, or is paused, has a state",
                     vm->head.id,
                     stays || vm->state != VM_RUNNING ? vm_state_name(vm->state) : "about to stop");
}

/* A copy has the size that is noted. */
static int check_volumes(const struct node *node, const struct vm *vm, struct error *err)
{
    for (unsigned i = 0; i < vm->spec.disk_count; i++) {
        const struct volume *volume = node_find_volume(node, vm->spec.disks[i].volume);

        if (volume && volume_is_growing(volume))
            return error_set(err, EBUSY, "volume %s is growing: try again", volume->head.id);
    }
    return 0;
}

static int snapshot_reserve(struct node *node, struct resource *resource, struct error *err)
{
    struct snapshot *snapshot = (struct snapshot *)resource;
    const struct vm *vm = node_find_vm(node, snapshot->vm);
    const struct snapshot *rival;
    uint64_t wanted;
    int result;

    if (!vm)
        return error_set(err, ENOENT, "there is no vm %s", snapshot->vm);
    rival = snapshot_under_way(node, snapshot->vm);
    if (rival)
        return error_set(err, EBUSY, "snapshot %s of vm %s is just being made", rival->head.id,
                         snapshot->vm);
    if (snapshot_check_source(vm, err) < 0 || snapshot_check_parent(node, snapshot, vm, err) < 0)
        return -err->code;
    if (snapshot->is_fork && !vm_fork_wants(vm, resource->id))
        return error_field(err, EINVAL, "mode", "mode: fork is for what a fork begins itself");
    if (describe_vm(node, vm, snapshot, err) < 0)
        return error_no_memory(err);
    if (check_volumes(node, vm, err) < 0)
        return -err->code;
    describe_disks(node, snapshot);
    wanted = wanted_bytes(node, snapshot);
    result = check_space(node, wanted, err);
    if (result < 0)
        return result;
    snapshot->size_bytes = wanted;
    snapshot->step = SNAPSHOT_NEW;
    return 0;
}

/* --- who needs whom --- */

/* id: of an image, or of another snapshot. */
static bool has_base(const struct snapshot *snapshot, bool is_image, const char *id)
{
    for (unsigned i = 0; i < snapshot->vm_spec.disk_count; i++) {
        const struct disk_base *base = &snapshot->disks[i].base;

        if (strcmp(is_image ? base->image : base->snapshot, id) == 0)
            return true;
    }
    return false;
}

const struct snapshot *snapshot_of_image(const struct node *node, const char *image)
{
    const struct snapshot *snapshot;

    for (size_t i = 0; (snapshot = node_snapshot_at(node, i)); i++) {
        if (snapshot->state == PROGRESS_FAILED)
            continue;
        if (strcmp(snapshot->vm_spec.kernel, image) == 0 ||
            strcmp(snapshot->vm_spec.initrd, image) == 0 || has_base(snapshot, true, image))
            return snapshot;
    }
    return NULL;
}

/* The first that needs the other; NULL. */
static const struct snapshot *snapshot_of_snapshot(const struct node *node, const char *id)
{
    const struct snapshot *snapshot;

    for (size_t i = 0; (snapshot = node_snapshot_at(node, i)); i++) {
        if (snapshot->state != PROGRESS_FAILED &&
            (has_base(snapshot, false, id) || strcmp(snapshot->parent, id) == 0))
            return snapshot;
    }
    return NULL;
}

static int snapshot_may_remove(struct node *node, const struct resource *resource, bool force,
                               struct error *err)
{
    const struct vm *vm;
    const struct volume *volume;
    const struct snapshot *other = snapshot_of_snapshot(node, resource->id);

    (void)force;
    for (size_t i = 0; (vm = node_vm_at(node, i)); i++)
        if (strcmp(vm->spec.snapshot, resource->id) == 0)
            return error_set(err, EBUSY, "snapshot %s is in use by vm %s", resource->id,
                             vm->head.id);
    for (size_t i = 0; (volume = node_volume_at(node, i)); i++) {
        if (strcmp(volume->base.snapshot, resource->id) == 0)
            return error_set(err, EBUSY, "snapshot %s is the base of volume %s", resource->id,
                             volume->head.id);
        if (strcmp(volume->source.snapshot, resource->id) == 0 && volume->state == PROGRESS_WORKING)
            return error_set(err, EBUSY, "snapshot %s is being copied to volume %s", resource->id,
                             volume->head.id);
    }
    if (other)
        return error_set(err, EBUSY, "snapshot %s is the base of snapshot %s", resource->id,
                         other->head.id);
    return 0;
}

/* --- what a restored VM must be --- */

static int check_number(uint64_t has, uint64_t wanted, const char *field, struct error *err)
{
    return has == wanted
               ? 0
               : error_field(err, EINVAL, field, "%s: must be %llu, as in the snapshot, not %llu",
                             field, (unsigned long long)wanted, (unsigned long long)has);
}

static int check_disk(const struct node *node, const struct snapshot *snapshot, const struct vm *vm,
                      unsigned index, struct error *err)
{
    const struct vm_disk_spec *disk = &vm->spec.disks[index];
    const struct snapshot_disk *was = &snapshot->disks[index];
    const struct volume *volume = node_find_volume(node, disk->volume);
    char field[32];

    snprintf(field, sizeof field, "disks[%u].read_only", index);
    if (disk->read_only != was->read_only)
        return error_field(err, EINVAL, field, "%s: must be %s, as in the snapshot", field,
                           was->read_only ? "true" : "false");
    snprintf(field, sizeof field, "disks[%u].queues", index);
    if (check_number(disk->queues, snapshot->vm_spec.disks[index].queues, field, err) < 0)
        return -err->code;
    snprintf(field, sizeof field, "disks[%u].volume", index);
    if (volume && volume->size_bytes != was->size_bytes)
        return error_field(err, EINVAL, field,
                           "%s: must have %llu MiB, as %s in the snapshot, not %llu", field,
                           (unsigned long long)was->size_bytes >> 20, was->name,
                           (unsigned long long)volume->size_bytes >> 20);
    return 0;
}

int snapshot_check_vm(const struct node *node, const struct snapshot *snapshot, const struct vm *vm,
                      struct error *err)
{
    const struct vm_spec *was = &snapshot->vm_spec;
    const struct vm_spec *spec = &vm->spec;
    int result = check_number(spec->vcpus, was->vcpus, "vcpus", err);

    if (result == 0)
        result = check_number(spec->memory_mib, was->memory_mib, "memory_mib", err);
    if (result == 0)
        result = check_number(spec->memory_max_mib, was->memory_max_mib, "memory_max_mib", err);
    if (result == 0 && spec->disk_count != was->disk_count)
        result = error_field(err, EINVAL, "disks", "disks: must be %u, as in the snapshot, not %u",
                             was->disk_count, spec->disk_count);
    if (result == 0 && spec->nic_count != was->nic_count)
        result = error_field(err, EINVAL, "nics", "nics: must be %u, as in the snapshot, not %u",
                             was->nic_count, spec->nic_count);
    if (result == 0 && !spec->vsock.cid != !was->vsock.cid)
        result = error_field(err, EINVAL, "vsock", "vsock: must %sbe there, as in the snapshot",
                             was->vsock.cid ? "" : "not ");
    if (result == 0 && spec->balloon.deflate_on_oom != was->balloon.deflate_on_oom)
        result = error_field(err, EINVAL, "balloon.deflate_on_oom",
                             "balloon.deflate_on_oom: must be %s, as in the snapshot",
                             was->balloon.deflate_on_oom ? "true" : "false");
    for (unsigned i = 0; result == 0 && i < spec->disk_count; i++)
        result = check_disk(node, snapshot, vm, i, err);
    for (unsigned i = 0; result == 0 && i < spec->nic_count; i++) {
        char field[32];

        snprintf(field, sizeof field, "nics[%u].queues", i);
        result = check_number(spec->nics[i].queues, was->nics[i].queues, field, err);
    }
    return result;
}

int snapshot_check_nic(const struct snapshot *snapshot, unsigned index, struct vm_nic_spec *nic,
                       struct error *err)
{
    const struct vm_nic *was = &snapshot->nics[nic->place];
    char field[32];
    char text[32];

    snprintf(field, sizeof field, "nics[%u].mac", index);
    mac_format(was->mac, text);
    if (nic->has_mac && memcmp(nic->mac, was->mac, sizeof nic->mac) != 0)
        return error_field(err, EINVAL, field, "%s: must be %s: the guest keeps what it had", field,
                           text);
    snprintf(field, sizeof field, "nics[%u].ipv4", index);
    ipv4_format(was->ipv4, text);
    if (nic->has_ipv4 && nic->ipv4 != was->ipv4)
        return error_field(err, EINVAL, field, "%s: must be %s: the guest keeps what it had", field,
                           text);
    nic->has_mac = true;
    memcpy(nic->mac, was->mac, sizeof nic->mac);
    nic->has_ipv4 = true;
    nic->ipv4 = was->ipv4;
    return 0;
}

/* --- status --- */

static json_t *disks_json(const struct snapshot *snapshot)
{
    json_t *array = json_array();
    int result = 0;

    for (unsigned i = 0; i < snapshot->vm_spec.disk_count; i++) {
        const struct snapshot_disk *disk = &snapshot->disks[i];

        result |= json_array_append_new(
            array, json_pack("{s:s, s:I, s:b, s:s, s:o}", "name", disk->name, "size_mib",
                             (json_int_t)(disk->size_bytes >> 20), "read_only", disk->read_only,
                             "format", volume_format_name((enum volume_format)disk->format), "base",
                             disk_base_json(&disk->base)));
    }
    return json_whole(array, result);
}

static json_t *nics_json(const struct snapshot *snapshot)
{
    json_t *array = json_array();
    int result = 0;

    for (unsigned i = 0; i < snapshot->vm_spec.nic_count; i++) {
        const struct vm_nic_spec *nic = &snapshot->vm_spec.nics[i];
        const struct vm_nic *was = &snapshot->nics[nic->place];
        char mac[MAC_TEXT];
        char ipv4[IPV4_TEXT];

        mac_format(was->mac, mac);
        ipv4_format(was->ipv4, ipv4);
        result |= json_array_append_new(array, json_pack("{s:s, s:s, s:s, s:s}", "name", nic->name,
                                                         "network", nic->network, "mac", mac,
                                                         "ipv4", ipv4));
    }
    return json_whole(array, result);
}

static json_t *snapshot_status(const struct node *node, const struct resource *resource,
                               bool stored)
{
    const struct snapshot *snapshot = (const struct snapshot *)resource;
    bool ready = snapshot->state == PROGRESS_READY;
    char created[TIMESTAMP_TEXT];
    json_t *status;
    int result = 0;

    timestamp_format(snapshot->created_ms, created);
    status =
        json_pack("{s:s, s:o, s:o, s:o, s:i, s:i, s:o, s:o, s:s, s:s, s:O}", "state",
                  resource_state_name(resource), "reason", json_reason(snapshot->reason),
                  "operation", operation_link(node, resource), "size_bytes",
                  ready ? json_integer((json_int_t)snapshot->size_bytes) : json_null(), "vcpus",
                  (int)snapshot->vm_spec.vcpus, "memory_mib", (int)snapshot->vm_spec.memory_mib,
                  "disks", disks_json(snapshot), "nics", nics_json(snapshot), "created", created,
                  "vm_uid", snapshot->vm_uid, "vm_spec", snapshot->vm_json);
    if (stored) {
        result |= vm_spec_store_places(&snapshot->vm_spec, status);
        result |= json_object_set_new(status, "created_ms", json_integer(snapshot->created_ms));
        result |= json_object_set_new(status, "digest", json_string(snapshot->digest));
        result |= json_object_set_new(status, "promised_bytes",
                                      json_integer((json_int_t)snapshot->size_bytes));
    }
    return json_whole(status, result);
}

/* --- restore: of what we wrote ourselves --- */

static int restore_parts(struct snapshot *snapshot, const json_t *status, struct error *err)
{
    const json_t *disks = json_object_get(status, "disks");
    const json_t *nics = json_object_get(status, "nics");

    for (unsigned i = 0; i < snapshot->vm_spec.disk_count; i++) {
        const json_t *json = json_array_get(disks, i);
        struct snapshot_disk *disk = &snapshot->disks[i];

        snprintf(disk->name, sizeof disk->name, "%s", json_text(json, "name"));
        disk->size_bytes = (uint64_t)json_integer_value(json_object_get(json, "size_mib")) << 20;
        disk->read_only = json_is_true(json_object_get(json, "read_only"));
        disk->format = volume_format_parse(json_text(json, "format"));
        disk_base_restore(&disk->base, json_object_get(json, "base"));
    }
    for (unsigned i = 0; i < snapshot->vm_spec.nic_count; i++) {
        const json_t *nic = json_array_get(nics, i);
        struct vm_nic *was = &snapshot->nics[snapshot->vm_spec.nics[i].place];

        if (mac_parse(json_text(nic, "mac"), was->mac, err) < 0 ||
            ipv4_parse(json_text(nic, "ipv4"), &was->ipv4, err) < 0)
            return -err->code;
    }
    return 0;
}

static int snapshot_restore(struct resource *resource, const json_t *status, struct error *err)
{
    struct snapshot *snapshot = (struct snapshot *)resource;
    int result = progress_restore(resource, status, &snapshot->state, snapshot->reason,
                                  sizeof snapshot->reason, err);

    if (result < 0)
        return result;
    snprintf(snapshot->vm_uid, sizeof snapshot->vm_uid, "%s", json_text(status, "vm_uid"));
    snprintf(snapshot->digest, sizeof snapshot->digest, "%s", json_text(status, "digest"));
    snapshot->created_ms = json_integer_value(json_object_get(status, "created_ms"));
    snapshot->size_bytes = (uint64_t)json_integer_value(json_object_get(status, "promised_bytes"));
    snapshot->vm_json = json_whole_copy(json_object_get(status, "vm_spec"));
    result = vm_spec_parse(snapshot->vm_json, &snapshot->vm_spec, err);
    if (result < 0)
        return result;
    vm_spec_restore_places(&snapshot->vm_spec, status);
    return restore_parts(snapshot, status, err);
}

const struct resource_ops snapshot_ops = {
    .parse = snapshot_parse,
    .reserve = snapshot_reserve,
    .begin = snapshot_begin,
    .may_remove = snapshot_may_remove,
    .remove = snapshot_remove,
    .patch = change_patch_spec,
    .apply = change_apply_spec,
    .status = snapshot_status,
    .restore = snapshot_restore,
    .free = snapshot_free,
};
