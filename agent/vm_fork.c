#include "agent/vm_fork.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/node_internal.h"
#include "agent/node_snapshot.h"
#include "agent/spec_change.h"
#include "agent/vm_files.h"
#include "agent/vm_memory.h"
#include "agent/vmm_client.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/worker.h"

#define OTHER_MACHINE  "its parent is another machine by now"
#define WHOLE_LIMIT_MS (30 * 1000) /* a guest need never let a device go */

/* What forks begin with.  Shared by those of one moment: who waited when the VMM was asked. */
struct fork_source {
    struct worker *closer; /* borrowed: it may be the last that has the memory */
    unsigned users;
    bool is_asked;             /* whose it is has been decided */
    bool is_made;              /* and they can begin */
    bool has_disks;            /* that are written to: they are copied by a snapshot, */
    char snapshot[ID_MAX + 1]; /* this one; "" = not begun yet */
    int state_fd;              /* owned, as the next */
    int layers[VMM_LAYERS_MAX];
    size_t layer_count;
};

struct fork_source *fork_source_release(struct fork_source *source)
{
    if (source && --source->users == 0) {
        cleanup_close(&source->state_fd);
        for (size_t i = 0; i < source->layer_count; i++)
            worker_close(source->closer, source->layers[i]);
        free(source);
    }
    return NULL;
}

/* By others than the parent, or its snapshot. */
bool fork_source_is_wanted(const struct fork_source *source)
{
    return source->users > 1;
}

static struct fork_source *source_new(const struct node *node)
{
    struct fork_source *source = calloc(1, sizeof *source);

    if (!source)
        return NULL;
    source->closer = node->close_worker;
    source->users = 1;
    source->state_fd = memfd_create("fork-state", MFD_CLOEXEC);
    return source->state_fd < 0 ? fork_source_release(source) : source;
}

/* --- the fork --- */

static bool lives(const struct vm *vm)
{
    return vm->pidfd >= 0 && !resource_is_leaving(&vm->head) &&
           (vm->state == VM_STARTING || vm->state == VM_RUNNING || vm->state == VM_PAUSING ||
            vm->state == VM_PAUSED);
}

/* The spec, with the parent's volumes.  NULL if memory is short. */
static json_t *spec_as_of(const struct vm *parent, const struct vm *vm)
{
    json_t *spec = json_whole_copy(vm->head.spec), *disk;
    int result = 0;
    size_t i;

    json_array_foreach(json_object_get(spec, "disks"), i, disk)
    {
        if (i < parent->spec.disk_count && !parent->spec.disks[i].read_only)
            result |=
                json_object_set_new(disk, "volume", json_string(parent->spec.disks[i].volume));
    }
    return json_whole(spec, result);
}

static int check_same(const struct vm *parent, const struct vm *vm, struct error *err)
{
    static const char *const own[] = {
        "boot",      "nics",          "labels",          "restart",           "autostart",
        "on_reboot", "desired_state", "autostart_order", "delete_protection", NULL
    };
    const struct vm_spec *a = &parent->spec, *b = &vm->spec;
    json_t *spec = spec_as_of(parent, vm);
    char field[64];
    bool differs;

    if (!spec)
        return error_no_memory(err);
    differs = spec_differs(parent->head.spec, spec, own, field, sizeof field);
    json_decref(spec);
    if (differs)
        return error_field(err, EINVAL, field, "%s: must be as in vm %s, of which it is a fork",
                           field, parent->head.id);
    if (strcmp(a->kernel, b->kernel) != 0 || strcmp(a->initrd, b->initrd) != 0 ||
        strcmp(a->cmdline, b->cmdline) != 0 || strcmp(a->snapshot, b->snapshot) != 0)
        return error_field(err, EINVAL, "boot", "boot: must be as in vm %s", parent->head.id);
    for (unsigned i = 0; i < b->nic_count || i < a->nic_count; i++)
        if (a->nic_count != b->nic_count || strcmp(a->nics[i].name, b->nics[i].name) != 0 ||
            strcmp(a->nics[i].network, b->nics[i].network) != 0)
            return error_field(err, EINVAL, "nics",
                               "nics: must be those of vm %s, by name and network",
                               parent->head.id);
    return 0;
}

/* Does its memory consist of files?  Else what a VM was restored from was read, or it has been
 * started anew since. */
static bool is_of_files(const struct vm *vm)
{
    return vm->restore == VM_RESTORE_UNDER_WAY ? vm_files_backing(vm) == VMM_MEMORY_ANONYMOUS
                                               : vm->memory_base[0] || vm->forked;
}

static int check_memory(const struct vm *parent, struct error *err)
{
    if (parent->spec.memory_backing == VMM_MEMORY_SHARED ||
        (parent->restore != VM_RESTORE_NONE && is_of_files(parent)))
        return 0;
    return error_set(err, EBUSY,
                     "the memory of vm %s cannot be forked: its memory_backing is not shared%s",
                     parent->head.id,
                     parent->restore == VM_RESTORE_NONE
                         ? ""
                         : ", and it does not stand on what the VM was restored from");
}

int vm_fork_check(const struct node *node, const struct vm *vm, struct error *err)
{
    const struct vm *parent = node_find_vm(node, vm->spec.fork);
    int result;

    if (!parent)
        return error_field(err, EINVAL, "boot.fork", "boot.fork: there is no vm %s", vm->spec.fork);
    if (!lives(parent))
        return error_field(err, EBUSY, "boot.fork",
                           "boot.fork: vm %s is %s: only a VM that runs can be forked",
                           parent->head.id, vm_state_name(parent->state));
    if (check_memory(parent, err) < 0 || vm_devices_check_whole(parent, err) < 0) {
        char reason[sizeof err->message];

        snprintf(reason, sizeof reason, "%s", err->message);
        return error_field(err, EBUSY, "boot.fork", "boot.fork: %.200s", reason);
    }
    result = check_same(parent, vm, err);
    return result < 0 ? result : vm_fork_check_disks(node, parent, vm, err);
}

/* One that is written to is a volume of the fork's own. */
static bool is_same_disk(const struct vm_disk_spec *disk, const struct vm_disk_spec *was)
{
    return strcmp(disk->name, was->name) == 0 && disk->read_only == was->read_only &&
           disk->queues == was->queues &&
           (!disk->read_only || strcmp(disk->volume, was->volume) == 0);
}

/* A machine goes on as what it is; the parent may have been changed since the fork was asked for.
 */
static bool is_same_machine(const struct vm *vm, const struct vm *parent)
{
    const struct vm_spec *spec = &vm->spec, *was = &parent->spec;

    if (spec->vcpus != was->vcpus || spec->cpu != was->cpu || spec->memory_mib != was->memory_mib ||
        spec->memory_max_mib != was->memory_max_mib ||
        spec->memory_backing != was->memory_backing || !spec->vsock.cid != !was->vsock.cid)
        return false;
    for (unsigned place = 0; place < VM_PLACES; place++) {
        const struct vm_disk_spec *disk = vm_disk_at(vm, place),
                                  *disk_was = vm_disk_at(parent, place);
        const struct vm_nic_spec *nic = vm_nic_at(vm, place), *nic_was = vm_nic_at(parent, place);

        if (!disk != !disk_was || (disk && !is_same_disk(disk, disk_was)) || !nic != !nic_was ||
            (nic &&
             (strcmp(nic->network, nic_was->network) != 0 || nic->queues != nic_was->queues)))
            return false;
    }
    return true;
}

bool vm_fork_is_due(const struct vm *vm)
{
    return vm->spec.fork[0] && vm->restore == VM_RESTORE_DUE;
}

bool vm_fork_awaits(const struct vm *vm)
{
    return vm_fork_is_due(vm) && !(vm->fork && vm->fork->is_made);
}

static void fail_fork(struct node *node, struct vm *vm, const char *reason)
{
    vm_fork_drop(vm);
    vm->start_due = false;
    vm_set_state(node, vm, VM_FAILED, reason);
}

static void on_whole_timeout(void *context)
{
    const struct vm_closure *closure = context;
    struct vm *vm = closure->vm;
    const struct vm *parent = node_find_vm(closure->node, vm->spec.fork);
    struct error err = { 0 };
    char reason[sizeof vm->reason];

    vm->fork_timer = NULL;
    if (parent && vm_devices_check_whole(parent, &err) < 0) {
        snprintf(reason, sizeof reason, "%.110s, for %d s now: start the fork once it is",
                 err.message, WHOLE_LIMIT_MS / 1000);
        fail_fork(closure->node, vm, reason);
    }
    vm_step(closure->node, vm);
}

/* Else it is looked at again once its devices are settled, or have not been for too long. */
static bool is_whole(struct node *node, const struct vm *parent, struct vm *vm, char *ret_what,
                     size_t size)
{
    struct error err = { 0 };

    if (vm_devices_check_whole(parent, &err) == 0) {
        vm->fork_timer = loop_cancel(vm->fork_timer);
        return true;
    }
    if (!vm->fork_timer)
        vm->fork_timer = loop_after(node->loop, WHOLE_LIMIT_MS, on_whole_timeout, &vm->closure);
    snprintf(ret_what, size, "%s", err.message);
    return false;
}

void vm_fork_await(struct node *node, struct vm *vm, char *ret_what, size_t size, bool *ret_never)
{
    struct vm *parent = node_find_vm(node, vm->spec.fork);
    struct error err = { 0 };

    if (!vm_fork_awaits(vm))
        return;
    *ret_never = !vm->fork && (!parent || !lives(parent));
    snprintf(ret_what, size,
             *ret_never ? "vm %s, of which it is a fork, does not run" : "vm %s is being forked",
             vm->spec.fork);
    if (*ret_never || vm->fork || !vm_fork_put_volumes(node, vm) ||
        !is_whole(node, parent, vm, ret_what, size) || parent->forking)
        return;
    if (!is_same_machine(vm, parent))
        error_set(&err, EBUSY, "%s: vm %s", OTHER_MACHINE, vm->spec.fork);
    *ret_never = err.code != 0 || check_memory(parent, &err) < 0;
    if (*ret_never) {
        snprintf(ret_what, size, "%s", err.message);
        return;
    }
    parent->forking = source_new(node);
    if (!parent->forking) {
        *ret_never = true;
        snprintf(ret_what, size, "memory is short");
        return;
    }
    parent->forking->has_disks = vm_fork_has_disks(&parent->spec);
    vm_step(node, parent);
}

void vm_fork_files(const struct vm *vm, struct vm_files *files)
{
    const struct fork_source *source = vm->fork;

    files->restore = (uint8_t)source->layer_count;
    files->fork_fds[0] = fcntl(source->state_fd, F_DUPFD_CLOEXEC, 0);
    for (size_t i = 0; i < source->layer_count; i++)
        files->fork_fds[1 + i] = fcntl(source->layers[i], F_DUPFD_CLOEXEC, 0);
}

void vm_fork_drop(struct vm *vm)
{
    vm->fork = fork_source_release(vm->fork);
    vm->fork_timer = loop_cancel(vm->fork_timer);
}

/* --- the parent --- */

bool vm_fork_holds(const struct vm *vm)
{
    return vm->forking && !vm->forking->has_disks;
}

bool vm_fork_wants(const struct vm *vm, const char *snapshot)
{
    return vm->forking && strcmp(vm->forking->snapshot, snapshot) == 0;
}

/* Whoever waits now has it, made or not. */
static void give_source(struct node *node, const struct vm *parent, struct fork_source *source)
{
    struct vm *vm;

    source->is_asked = true;
    for (size_t i = 0; (vm = node_vm_at(node, i)); i++) {
        if (vm == parent || vm->head.hidden || !vm->start_due || !vm_fork_is_due(vm) || vm->fork ||
            strcmp(vm->spec.fork, parent->head.id) != 0 || !vm_fork_volumes_wait(node, vm))
            continue;
        if (!is_same_machine(vm, parent)) {
            fail_fork(node, vm, OTHER_MACHINE);
            continue;
        }
        source->users++;
        vm->fork = source;
        vm->fork_timer = loop_cancel(vm->fork_timer);
        vm_inherit_nics(vm, parent);
    }
}

/* They begin, with disks made of the snapshot's if there is one; or, for a reason, do not.  Who
 * came too late for it asks now. */
static void tell_forks(struct node *node, struct fork_source *source,
                       const struct snapshot *snapshot, const char *reason)
{
    struct vm *vm;

    source->is_made = !reason;
    for (size_t i = 0; (vm = node_vm_at(node, i)); i++) {
        if (vm->fork != source)
            continue;
        if (reason)
            fail_fork(node, vm, reason);
        else if (snapshot)
            vm_fork_make_volumes(node, vm, snapshot);
        vm_step(node, vm);
    }
    fork_source_release(source);
    node_wake_vms(node);
}

static void end_fork(struct node *node, struct vm *vm, const char *reason)
{
    struct fork_source *source = take_pointer(vm->forking);

    if (!source->is_asked)
        give_source(node, vm, source);
    tell_forks(node, source, NULL, reason);
    vm_release(node, vm);
}

/* --- the snapshot of the disks --- */

static void snapshot_is_put(void *context, int result, const struct error *err)
{
    struct vm_reference *parent = context;
    struct vm *vm = vm_reference_find(parent);

    if (result < 0 && vm && vm_fork_wants(vm, parent->about))
        end_fork(parent->node, vm, err->message);
    free(parent);
}

void vm_fork_step(struct node *node, struct vm *vm)
{
    struct fork_source *source = vm->forking;
    struct vm_reference *parent;
    json_t *spec;

    if (!source || !source->has_disks || source->snapshot[0] ||
        snapshot_under_way(node, vm->head.id))
        return;
    for (uint32_t n = node->last_instance + 1; !source->snapshot[0]; n++) {
        snprintf(source->snapshot, sizeof source->snapshot, "fork-%u", n);
        if (resource_find(&node->tables[RESOURCE_SNAPSHOT], source->snapshot))
            source->snapshot[0] = '\0'; /* somebody named his so */
    }
    parent = vm_reference_new(node, vm, source->snapshot);
    spec = json_pack("{s:s, s:s}", "vm", vm->head.id, "mode", "fork");
    if (parent && spec)
        node_submit(node, &(struct node_change){ .verb = CHANGE_PUT,
                                                 .kind = RESOURCE_SNAPSHOT,
                                                 .id = source->snapshot,
                                                 .body = spec,
                                                 .condition.if_absent = true,
                                                 .done = snapshot_is_put,
                                                 .context = parent });
    else
        free(parent);
    if (!parent || !spec)
        end_fork(node, vm, "memory is short");
    json_decref(spec);
}

void vm_fork_is_copied(struct node *node, struct snapshot *snapshot, const char *reason)
{
    struct fork_source *source = take_pointer(snapshot->fork);
    struct vm *vm = node_find_vm(node, snapshot->vm);

    if (source)
        tell_forks(node, source, snapshot, reason);
    else if (vm && vm_fork_wants(vm, snapshot->head.id) && !vm->fork_asked)
        end_fork(node, vm, reason); /* it did not come to the asking */
}

/* --- asking --- */

int vm_fork_ask(struct node *node, struct vm *vm, struct error *err)
{
    uint64_t bytes = vm_spec_memory_bytes(&vm->spec);
    auto_close int changes = vm_memory_open(VMM_MEMORY_SHARED, bytes, err);
    auto_close int pagemap = changes < 0 ? -1 : vm_memory_open_pagemap(vm, err);
    int result;

    if (!vm->forking)
        return error_set(err, ECANCELED, "nobody wants a fork any more");
    if (changes < 0 || pagemap < 0)
        return changes < 0 ? changes : pagemap;
    if (!vm->client)
        return error_set(err, ENOTCONN, "its VMM cannot be asked");
    result =
        vmm_client_fork(vm->client, (const int[]){ vm->forking->state_fd, pagemap, changes }, err);
    if (result < 0)
        return result;
    vm->fork_asked = true;
    give_source(node, vm, vm->forking);
    return 0;
}

void vm_fork_is_held(struct node *node, struct vm *vm)
{
    struct error err = { 0 };

    if (vm->fork_asked)
        return;
    if (vm_fork_ask(node, vm, &err) < 0) {
        log_warning(node->log, "vm %s: cannot be forked: %s", vm->head.id, err.message);
        end_fork(node, vm, err.message);
    }
}

/* The VMM's word: files of the memory's size, whatever is in them.  All that have them get the same
 * open files, so a VMM that is taken over could change others' memory. */
static bool are_memory(const struct vm *vm, const int *fds, size_t count)
{
    struct stat status;

    for (size_t i = 0; i < count; i++)
        if (fstat(fds[i], &status) < 0 || !S_ISREG(status.st_mode) ||
            (uint64_t)status.st_size != vm_spec_memory_bytes(&vm->spec) ||
            vm_memory_seal(fds[i]) < 0)
            return false;
    return count > 0;
}

static const char *why_not(int result)
{
    switch (result) {
    case -EOPNOTSUPP:
        return "memfds have huge pages here: set shmem_enabled to advise";
    case -E2BIG:
        return "its memory stands on 8 files, the most there may be: fork what it was made of";
    default:
        return strerror(-result);
    }
}

_Static_assert(VMM_LAYERS_MAX == 8, "as why_not says");

void vm_fork_is_made(struct node *node, struct vm *vm, int result, int *fds, size_t fd_count)
{
    struct snapshot *snapshot = vm->snapshot;
    char reason[160];

    if (!vm->forking || !vm->fork_asked)
        return;
    vm->fork_asked = false;
    if (result == 0 && !are_memory(vm, fds, fd_count))
        result = -EBADMSG;
    if (result == 0 && vm->forking->has_disks &&
        (!(snapshot && vm_fork_wants(vm, snapshot->head.id)) ||
         !fork_source_is_wanted(vm->forking)))
        result = -ECANCELED; /* it was deleted meanwhile, or all forks were */
    if (result < 0) {
        snprintf(reason, sizeof reason, "vm %s could not be forked: %s", vm->head.id,
                 why_not(result));
        log_warning(node->log, "%s", reason);
        if (snapshot && vm_fork_wants(vm, snapshot->head.id))
            snapshot_is_written(node, snapshot, result, NULL, 0);
        end_fork(node, vm, reason);
        return;
    }
    for (size_t i = 0; i < fd_count; i++)
        vm->forking->layers[i] = take_fd(&fds[i]);
    vm->forking->layer_count = fd_count;
    if (!vm->forking->has_disks) {
        end_fork(node, vm, NULL);
        return;
    }
    snapshot->fork = take_pointer(vm->forking);
    snapshot_is_written(node, snapshot, 0, NULL, 0);
}

void vm_fork_is_late(struct node *node, struct vm *vm, const char *why)
{
    char reason[160];

    vm->fork_asked = false;
    snprintf(reason, sizeof reason, "vm %s could not be forked: %s", vm->head.id, why);
    log_warning(node->log, "%s", reason);
    end_fork(node, vm, reason);
}

/* Those that it could not be asked for yet: if it has ended they never begin. */
static void wake_forks(struct node *node, const struct vm *parent)
{
    struct vm *vm;

    for (size_t i = 0; (vm = node_vm_at(node, i)); i++)
        if (vm->start_due && vm_fork_awaits(vm) && strcmp(vm->spec.fork, parent->head.id) == 0)
            vm_step(node, vm);
}

void vm_fork_is_lost(struct node *node, struct vm *vm)
{
    char reason[120];

    if (!vm->forking) {
        wake_forks(node, vm);
        return;
    }
    vm->fork_asked = false;
    snprintf(reason, sizeof reason, "vm %s ended before it was forked", vm->head.id);
    end_fork(node, vm, reason);
}
