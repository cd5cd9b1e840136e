#include "agent/vm_disk.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/jail.h"
#include "agent/jail_limit.h"
#include "agent/node_internal.h"
#include "agent/vmm_client.h"
#include "base/error.h"
#include "base/log.h"
#include "storage/volume.h"

/* --- sizes and rate limits --- */

static uint64_t file_bytes(const struct volume *volume, uint64_t bytes)
{
    return volume_file_bytes(bytes, (enum volume_format)volume->format);
}

/* The limit first: what the guest could see and not write to would be errors. */
static int tell_disk(const struct node *node, struct vm *vm, unsigned index, struct error *err)
{
    const struct vm_disk_spec *spec = &vm->spec.disks[index];
    const struct volume *volume = node_find_volume(node, spec->volume);
    struct vmm_attach change = { .kind = VMM_DEVICE_DISK };
    int result = 0;

    if (!volume)
        return 0;
    if (!spec->read_only && vm->pid > 0)
        result = jail_limit_raise(vm->pid, file_bytes(volume, volume->size_bytes), err);
    if (result < 0)
        return result;
    vm_fill_disk(node, spec, &change.disk);
    return vmm_client_change(vm->client, &change, err);
}

static int tell_nic(const struct node *node, struct vm *vm, unsigned index, struct error *err)
{
    struct vmm_attach change = { .kind = VMM_DEVICE_NIC };

    vm_fill_nic(node, vm, &vm->spec.nics[index], &change.nic);
    return vmm_client_change(vm->client, &change, err);
}

static void tell_device(const struct node *node, struct vm *vm, enum vmm_device_kind kind,
                        unsigned index)
{
    struct error err = { 0 };
    int result;

    if (!vm->client || !vmm_client_is_known(vm->client)) /* who comes to be known is told all */
        return;
    result = kind == VMM_DEVICE_DISK ? tell_disk(node, vm, index, &err)
                                     : tell_nic(node, vm, index, &err);
    if (result < 0)
        log_warning(node->log, "vm %s: its %s %u cannot be changed: %s", vm->head.id,
                    kind == VMM_DEVICE_DISK ? "disk" : "nic", index, err.message);
}

void vm_tell_devices(const struct node *node, struct vm *vm)
{
    bool changed = vm->head.generation > 1;

    for (unsigned i = 0; i < vm->spec.disk_count; i++) {
        const struct volume *volume = node_find_volume(node, vm->spec.disks[i].volume);

        if (changed || (volume && volume->head.generation > 1))
            tell_device(node, vm, VMM_DEVICE_DISK, i);
    }
    for (unsigned i = 0; changed && i < vm->spec.nic_count; i++)
        tell_device(node, vm, VMM_DEVICE_NIC, i);
}

/* --- volumes that grow --- */

static bool has_volume(const struct vm *vm, unsigned index, const struct volume *volume)
{
    return strcmp(vm->spec.disks[index].volume, volume->head.id) == 0;
}

int vm_disk_may_grow(const struct node *node, const struct volume *volume, uint64_t bytes,
                     struct error *err)
{
    const struct vm *vm;
    struct error why = { 0 };

    for (size_t i = 0; (vm = node_vm_at(node, i)); i++) {
        for (unsigned d = 0; vm->pid > 0 && d < vm->spec.disk_count; d++)
            if (has_volume(vm, d, volume) && !vm->spec.disks[d].read_only &&
                jail_limit_raise(vm->pid, file_bytes(volume, bytes), &why) < 0)
                return error_set(err, EBUSY, "vm %s must be stopped first: %.200s", vm->head.id,
                                 why.message);
    }
    return 0;
}

void vm_disk_has_grown(const struct node *node, const struct volume *volume)
{
    struct vm *vm;

    for (size_t i = 0; (vm = node_vm_at(node, i)); i++) {
        for (unsigned d = 0; d < vm->spec.disk_count; d++)
            if (has_volume(vm, d, volume))
                tell_device(node, vm, VMM_DEVICE_DISK, d);
    }
}

/* --- disks without space --- */

/* A VM that is to end, or whose VMM has no reason to say so, is not held up. */
static bool may_pause(const struct vm *vm, const struct vm_disk_spec *disk)
{
    bool alive = vm->state == VM_RUNNING || vm->state == VM_PAUSING || vm->state == VM_PAUSED;

    return alive && vm->spec.desired_running && !vm->head.deleting &&
           (vm->intent == VM_INTENT_NONE || vm->intent == VM_INTENT_PAUSE) && disk &&
           disk->on_enospc == VM_ENOSPC_PAUSE;
}

void vm_disk_is_full(struct node *node, struct vm *vm, unsigned place)
{
    /* One that is to go, too: its guest cannot let go of it before its requests are done. */
    const struct vm_disk_spec *disk = vm_disk_at(vm, place);

    if (!may_pause(vm, disk) || vm->full[0])
        return;
    snprintf(vm->full, sizeof vm->full, "disk-full: %s", disk->name);
    log_warning(node->log, "vm %s: %s: it is paused until it is resumed", vm->head.id, vm->full);
    vm->intent = VM_INTENT_PAUSE;
    node_save(node, &vm->head);
    vm_step(node, vm);
}

/* One that is to go on is resumed anyway, and then its VMM tries again and says so anew. */
void vm_disk_look(struct node *node, struct vm *vm)
{
    struct stats_page page;

    if (vm->state != VM_RUNNING || vm_read_page(node, vm, &page) < 0)
        return;
    for (unsigned place = 0; place < VMM_DISKS_MAX; place++)
        if (page.disk_full[place])
            vm_disk_is_full(node, vm, place);
}
