/* The volumes of forks: each writable disk of a fork is a volume of its own, by the name that its
 * spec says, put by the fork itself once its row is committed, made anew whenever it is forked, and
 * gone with it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/node_internal.h"
#include "agent/node_snapshot.h"
#include "agent/vm_fork.h"
#include "base/error.h"
#include "base/log.h"
#include "storage/volume.h"

struct vm_reference *vm_reference_new(struct node *node, const struct vm *vm, const char *about)
{
    struct vm_reference *reference = malloc(sizeof *reference);

    if (!reference)
        return NULL;
    *reference = (struct vm_reference){ .node = node };
    memcpy(reference->id, vm->head.id, sizeof reference->id);
    memcpy(reference->uid, vm->head.uid, sizeof reference->uid);
    snprintf(reference->about, sizeof reference->about, "%s", about);
    return reference;
}

struct vm *vm_reference_find(const struct vm_reference *reference)
{
    struct vm *vm = node_find_vm(reference->node, reference->id);

    return vm && strcmp(vm->head.uid, reference->uid) == 0 ? vm : NULL;
}

/* Hidden ones too. */
static struct volume *find_volume(const struct node *node, const char *id)
{
    return (struct volume *)resource_find(&node->tables[RESOURCE_VOLUME], id);
}

bool vm_fork_has_disks(const struct vm_spec *spec)
{
    for (unsigned i = 0; i < spec->disk_count; i++)
        if (!spec->disks[i].read_only)
            return true;
    return false;
}

/* --- may they be? --- */

int vm_fork_check_disks(const struct node *node, const struct vm *parent, const struct vm *vm,
                        struct error *err)
{
    uint64_t wanted = 0;
    char field[32];

    if (!vm_fork_has_disks(&parent->spec))
        return 0;
    for (unsigned i = 0; i < parent->spec.disk_count; i++) {
        const struct volume *theirs = node_find_volume(node, parent->spec.disks[i].volume);
        uint64_t copied = 0;

        if (parent->spec.disks[i].read_only)
            continue;
        snprintf(field, sizeof field, "disks[%u].volume", i);
        if (find_volume(node, vm->spec.disks[i].volume))
            return error_field(err, EBUSY, field,
                               "%s: volume %s is there: a fork makes a volume of its own", field,
                               vm->spec.disks[i].volume);
        if (!theirs)
            continue;
        volume_allocated_bytes(node->volumes, theirs->head.instance, &copied, NULL);
        wanted += theirs->size_bytes + copied; /* by the snapshot */
    }
    return node_admit_disk(node, wanted, "disks", err);
}

uint64_t vm_fork_promised_bytes(const struct node *node)
{
    const struct vm *vm;
    uint64_t promised = 0;

    for (size_t i = 0; (vm = node_vm_at(node, i)); i++) {
        const struct vm *parent = vm_fork_is_due(vm) ? node_find_vm(node, vm->spec.fork) : NULL;

        for (unsigned d = 0; parent && d < vm->spec.disk_count && d < parent->spec.disk_count;
             d++) {
            const struct volume *theirs = node_find_volume(node, parent->spec.disks[d].volume);

            if (theirs && !vm->spec.disks[d].read_only &&
                !find_volume(node, vm->spec.disks[d].volume))
                promised += theirs->size_bytes;
        }
    }
    return promised;
}

int vm_fork_reserve_volume(const struct node *node, struct volume *volume, struct error *err)
{
    const struct vm *vm = node_find_vm(node, volume->fork);
    const struct vm *parent = vm && vm_fork_is_due(vm) ? node_find_vm(node, vm->spec.fork) : NULL;

    for (unsigned i = 0; parent && i < vm->spec.disk_count && i < parent->spec.disk_count; i++) {
        const struct vm_disk_spec *disk = &vm->spec.disks[i];
        const struct volume *theirs = node_find_volume(node, parent->spec.disks[i].volume);

        if (disk->read_only || !theirs || strcmp(disk->name, volume->source.disk) != 0 ||
            strcmp(disk->volume, volume->head.id) != 0)
            continue;
        volume->size_bytes = theirs->size_bytes;
        return 0;
    }
    return error_field(err, EINVAL, "fork", "fork: only what is to be forked has such volumes");
}

/* --- put, and made --- */

static void volume_is_put(void *context, int result, const struct error *err)
{
    struct vm_reference *reference = context;
    struct node *node = reference->node;
    struct vm *vm = vm_reference_find(reference);
    char reason[160];

    if (vm && result < 0 && !resource_is_leaving(&vm->head)) {
        snprintf(reason, sizeof reason, "volume %.63s: %.80s", reference->about, err->message);
        vm->start_due = false;
        vm_set_state(node, vm, VM_FAILED, reason);
    }
    if (vm)
        vm_step(node, vm);
    free(reference);
}

static void put_volume(struct node *node, struct vm *vm, const struct vm_disk_spec *disk)
{
    struct vm_reference *reference = vm_reference_new(node, vm, disk->volume);
    json_t *spec = json_pack("{s:s, s:s}", "fork", vm->head.id, "disk", disk->name);
    struct error err = { .code = ENOMEM, .message = "memory is short" };

    if (reference && spec)
        node_submit(node, &(struct node_change){ .verb = CHANGE_PUT,
                                                 .kind = RESOURCE_VOLUME,
                                                 .id = disk->volume,
                                                 .body = spec,
                                                 .done = volume_is_put,
                                                 .context = reference });
    else
        node_retry_later(node, &vm->head, "make its volumes", &err);
    if (!spec)
        free(reference);
    json_decref(spec);
}

/* And not an earlier fork's of that id, which another VM had when that went: a volume is made after
 * its fork, and numbers ascend. */
static bool is_of(const struct volume *volume, const struct vm *vm)
{
    return strcmp(volume->fork, vm->head.id) == 0 && volume->head.instance > vm->head.instance;
}

/* It is there, and nothing is being done about it. */
static bool volume_waits(const struct vm *vm, const struct volume *volume)
{
    return volume && !volume->head.hidden && !resource_is_leaving(&volume->head) &&
           !volume->job_running && is_of(volume, vm);
}

bool vm_fork_volumes_wait(const struct node *node, const struct vm *vm)
{
    for (unsigned i = 0; i < vm->spec.disk_count; i++)
        if (!vm->spec.disks[i].read_only &&
            !volume_waits(vm, find_volume(node, vm->spec.disks[i].volume)))
            return false;
    return true;
}

bool vm_fork_put_volumes(struct node *node, struct vm *vm)
{
    for (unsigned i = 0; i < vm->spec.disk_count; i++)
        if (!vm->spec.disks[i].read_only && !find_volume(node, vm->spec.disks[i].volume))
            put_volume(node, vm, &vm->spec.disks[i]);
    return vm_fork_volumes_wait(node, vm);
}

void vm_fork_make_volumes(struct node *node, struct vm *vm, const struct snapshot *snapshot)
{
    for (unsigned i = 0; i < vm->spec.disk_count; i++) {
        const struct vm_disk_spec *disk = &vm->spec.disks[i];
        struct volume *volume = find_volume(node, disk->volume);

        if (!disk->read_only && volume_waits(vm, volume))
            volume_make_fork(node, volume, snapshot, disk->cache != VM_CACHE_NONE);
    }
}

/* --- and gone --- */

static void volume_is_left(void *context, int result, const struct error *err)
{
    struct vm_reference *reference = context;
    struct vm *vm = vm_reference_find(reference);

    if (vm && result < 0 && result != -ENOENT)
        node_retry_later(reference->node, &vm->head, "delete its volumes", err);
    else if (vm)
        vm_step(reference->node, vm);
    free(reference);
}

static void leave_volume(struct node *node, struct vm *vm, const struct volume *volume)
{
    struct vm_reference *reference = vm_reference_new(node, vm, volume->head.id);
    struct error err = { .code = ENOMEM, .message = "memory is short" };

    if (reference)
        node_submit(node, &(struct node_change){ .verb = CHANGE_DELETE,
                                                 .kind = RESOURCE_VOLUME,
                                                 .id = volume->head.id,
                                                 .done = volume_is_left,
                                                 .context = reference });
    else
        node_retry_later(node, &vm->head, "delete its volumes", &err);
}

static bool is_of_fork(const struct snapshot *snapshot)
{
    return snapshot->is_fork && !snapshot->head.hidden;
}

bool vm_fork_leave(struct node *node, struct vm *vm)
{
    const struct volume *volume;
    const struct snapshot *snapshot;
    bool gone = true;

    if (!vm->spec.fork[0])
        return true;
    vm_fork_drop(vm);
    for (size_t i = 0; (volume = node_volume_at(node, i)); i++) {
        if (!is_of(volume, vm) || volume_user(node, volume->head.id, vm))
            continue;
        gone = false;
        if (!volume->head.hidden && !resource_is_leaving(&volume->head) && !vm->head.stuck)
            leave_volume(node, vm, volume);
    }
    vm_fork_tidy(node);
    for (size_t i = 0; (snapshot = node_snapshot_at(node, i)); i++) {
        if (is_of_fork(snapshot) && resource_is_leaving(&snapshot->head) &&
            strcmp(snapshot->vm, vm->spec.fork) == 0)
            gone = false;
    }
    return gone;
}

static void snapshot_is_left(void *context, int result, const struct error *err)
{
    const struct node *node = context;

    if (result < 0 && result != -ENOENT)
        log_warning(node->log, "a fork's snapshot stays for now: %s", err->message);
}

static bool is_needed(struct node *node, const struct snapshot *snapshot)
{
    if (snapshot->fork)
        return fork_source_is_wanted(snapshot->fork);
    return snapshot->state == PROGRESS_WORKING ||
           snapshot_ops.may_remove(node, &snapshot->head, false, NULL) < 0;
}

/* Nothing leaves the table within: commits are answered later. */
void vm_fork_tidy(struct node *node)
{
    const struct snapshot *snapshot;

    for (size_t i = 0; (snapshot = node_snapshot_at(node, i)); i++) {
        if (is_of_fork(snapshot) && !resource_is_leaving(&snapshot->head) &&
            !is_needed(node, snapshot))
            node_submit(node, &(struct node_change){ .verb = CHANGE_DELETE,
                                                     .kind = RESOURCE_SNAPSHOT,
                                                     .id = snapshot->head.id,
                                                     .done = snapshot_is_left,
                                                     .context = node });
    }
}
