/* A disk's files are opened by the launch worker, a nic's tap by the network worker, as for a
 * start; then the VMM gets the fds.  A job has copies of all it needs; the VM lives until it is
 * back. */
#include "agent/vm_hotplug.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/jail_limit.h"
#include "agent/node_internal.h"
#include "agent/vm_devices.h"
#include "agent/vm_files.h"
#include "agent/vmm_client.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/worker.h"
#include "storage/volume.h"

#define LOOK_AGAIN_MS 1000 /* at what an attach waits for, or at a VMM that takes nothing */

struct device_job {
    struct node *node;
    struct vm *vm;
    enum vmm_device_kind kind;
    unsigned place;
    struct vm_file_disk disk;
    struct nic_config nic;
    unsigned vhost_queues;       /* of a nic that wants vhost */
    bool vhost;                  /* there are fds for it, behind the tap's */
    int fds[2 * VMM_QUEUES_MAX]; /* owned */
    unsigned count;
};

static struct vm_device *device_of(const struct device_job *job)
{
    return &job->vm->devices.at[job->kind][job->place];
}

static void again_later(struct vm_device *device)
{
    device->again_ms = loop_now_ms() + LOOK_AGAIN_MS;
}

/* --- jobs, on their workers --- */

static int open_disk(void *argument, struct error *err)
{
    struct device_job *job = argument;

    return vm_files_open_disk(job->node, &job->disk, job->fds, &job->count, err);
}

static int bring_up(void *argument, struct error *err)
{
    struct device_job *job = argument;
    int vhost_fds[VMM_QUEUES_MAX];
    int result = nic_up(job->node->net, &job->nic, job->fds, err);

    if (result < 0)
        return result;
    job->count = job->nic.queues;
    vm_files_open_vhost(job->vhost_queues, vhost_fds);
    job->vhost = vhost_fds[0] >= 0;
    for (unsigned i = 0; i < VMM_QUEUES_MAX && vhost_fds[i] >= 0; i++)
        job->fds[job->count++] = vhost_fds[i];
    return 0;
}

static int take_down(void *argument, struct error *err)
{
    struct device_job *job = argument;

    return nic_down(job->node->net, &job->nic, err);
}

/* --- attaching --- */

static int attach(struct device_job *job, struct error *err)
{
    struct node *node = job->node;
    struct vm *vm = job->vm;
    struct vmm_attach device = { .kind = job->kind };
    int result = 0;

    if (job->kind == VMM_DEVICE_NIC) {
        vm_fill_nic(node, vm, vm_nic_at(vm, job->place), &device.nic);
        device.nic.vhost = job->vhost;
    } else {
        vm_fill_disk(node, vm_disk_at(vm, job->place), &device.disk);
        if (job->disk.writable_bytes > 0)
            result = jail_limit_raise(vm->pid, job->disk.writable_bytes, err);
    }
    return result < 0 ? result : vmm_client_attach(vm->client, &device, job->fds, job->count, err);
}

static void failed(struct node *node, const struct vm *vm, struct vm_device *device,
                   const struct error *err)
{
    log_warning(node->log, "vm %s: attach: %s", vm->head.id, err->message);
    vm_device_fail(device, err->message);
}

/* Forks of it may have waited for this. */
static void go_on(struct node *node, struct vm *vm)
{
    node_save(node, &vm->head);
    vm_step(node, vm);
    if (vm_devices_are_settled(vm))
        node_wake_vms(node);
}

static void job_back(struct device_job *job)
{
    device_of(job)->job = false;
    job->vm->devices.jobs--;
}

/* A tap that no VMM was given ends with its last fd, 18 to 40 ms later.  A disk's files are closed
 * at once: the volume's lock goes with them. */
static void job_free(struct device_job *job)
{
    for (unsigned i = 0; i < job->count; i++)
        if (job->kind == VMM_DEVICE_NIC)
            worker_close(job->node->close_worker, job->fds[i]);
        else
            cleanup_close(&job->fds[i]);
    free(job);
}

/* What is waited for is no failure, and told once. */
static void wait_for(struct node *node, struct vm *vm, struct vm_device *device, const char *what)
{
    char reason[sizeof device->reason];

    snprintf(reason, sizeof reason, "%.*s", (int)sizeof reason - 1, what);
    if (strcmp(device->reason, reason) != 0) {
        memcpy(device->reason, reason, sizeof reason);
        node_save(node, &vm->head);
    }
    again_later(device);
}

/* Wanted no more, or by a VM that ends: its fds are closed, and what it had goes as it would have
 * gone otherwise. */
static void is_opened(void *argument, int result, const struct error *err)
{
    struct device_job *job = argument;
    struct vm_device *device = device_of(job);
    struct node *node = job->node;
    struct vm *vm = job->vm;
    struct error inner = { 0 };

    job_back(job);
    if (result == -EBUSY && job->kind == VMM_DEVICE_DISK) { /* a VMM that ended, say, syncs it */
        wait_for(node, vm, device, err->message);
        job_free(job);
        vm_step(node, vm);
        return;
    }
    device->reason[0] = '\0';
    if (result < 0) {
        device->up = false;
        failed(node, vm, device, err);
    } else if (device->use == VM_DEVICE_SPEC && vm->client && !node->ending) {
        if (attach(job, &inner) < 0)
            failed(node, vm, device, &inner);
        else
            device->asked = VM_DEVICE_ATTACH;
    }
    job_free(job);
    go_on(node, vm);
}

static void is_down(void *argument, int result, const struct error *err)
{
    struct device_job *job = argument;
    struct vm_device *device = device_of(job);
    struct node *node = job->node;
    struct vm *vm = job->vm;

    job_back(job);
    device->up = result < 0;
    if (result < 0) {
        log_error(node->log, "vm %s: take a nic down: %s", vm->head.id, err->message);
        again_later(device);
    }
    job_free(job);
    go_on(node, vm);
}

/* --- steps --- */

static void submit(struct node *node, struct vm *vm, enum vmm_device_kind kind, unsigned place,
                   bool down)
{
    struct vm_device *device = &vm->devices.at[kind][place];
    struct device_job *job = calloc(1, sizeof *job);
    struct error err = { .code = ENOMEM, .message = "memory is short" };
    int result = -ENOMEM;

    if (job) {
        *job = (struct device_job){ .node = node, .vm = vm, .kind = kind, .place = place };
        if (kind == VMM_DEVICE_DISK) {
            vm_files_choose_disk(node, vm_disk_at(vm, place), &job->disk);
            result = worker_submit(node->launch_worker, open_disk, is_opened, job, &err);
        } else {
            const struct vm_nic_spec *nic = vm_nic_at(vm, place);

            vm_nic_config(node, vm, nic, &job->nic);
            job->vhost_queues = nic && nic->vhost ? nic->queues : 0;
            result = worker_submit(node->net_worker, down ? take_down : bring_up,
                                   down ? is_down : is_opened, job, &err);
        }
    }
    if (result < 0) {
        free(job);
        again_later(device);
        return;
    }
    device->up |= kind == VMM_DEVICE_NIC;
    device->job = true;
    vm->devices.jobs++;
}

/* What an attach still waits for, as a start would; "" = nothing. */
static void missing(const struct node *node, const struct vm *vm, enum vmm_device_kind kind,
                    unsigned place, char *ret_what, size_t size, bool *ret_never)
{
    const struct vm_disk_spec *disk = kind == VMM_DEVICE_DISK ? vm_disk_at(vm, place) : NULL;

    if (disk)
        vm_missing_volume(node, disk->volume, ret_what, size, ret_never);
    else
        vm_missing_network(node, vm_nic_at(vm, place)->network, ret_what, size, ret_never);
}

/* True: the next step can be taken at once. */
static bool open_it(struct node *node, struct vm *vm, enum vmm_device_kind kind, unsigned place)
{
    struct vm_device *device = &vm->devices.at[kind][place];
    char what[sizeof device->reason] = "";
    bool never = false;

    missing(node, vm, kind, place, what, sizeof what, &never);
    if (never) {
        vm_device_fail(device, what);
        node_save(node, &vm->head);
        return true;
    }
    if (what[0])
        wait_for(node, vm, device, what);
    else
        submit(node, vm, kind, place, /* down= */ false);
    return false;
}

static void ask(struct vm *vm, enum vmm_device_kind kind, unsigned place,
                enum vm_device_question question)
{
    struct vm_device *device = &vm->devices.at[kind][place];

    if (vmm_client_detach(vm->client, kind, place, question == VM_DEVICE_DETACH, NULL) < 0)
        again_later(device); /* it does not read: it is sick, or busy */
    else
        device->asked = question;
}

static void forget(struct node *node, struct vm *vm, enum vmm_device_kind kind, unsigned place)
{
    if (kind == VMM_DEVICE_NIC) {
        vm_remember_address(node, vm->devices.nics[place].network, vm->nics[place].ipv4);
        vm->nics[place] = vm->inside[place] = (struct vm_nic){ 0 };
    }
    vm->devices.at[kind][place] = (struct vm_device){ 0 };
    node_save(node, &vm->head);
}

static bool take_step(struct node *node, struct vm *vm, enum vmm_device_kind kind, unsigned place)
{
    bool in_spec =
        kind == VMM_DEVICE_DISK ? vm_disk_at(vm, place) != NULL : vm_nic_at(vm, place) != NULL;

    switch (vm_device_next(&vm->devices.at[kind][place], in_spec, loop_now_ms())) {
    case VM_DEVICE_ASK_LOOK:
        ask(vm, kind, place, VM_DEVICE_LOOK);
        break;
    case VM_DEVICE_ASK_GO:
        ask(vm, kind, place, VM_DEVICE_DETACH);
        break;
    case VM_DEVICE_OPEN:
        return open_it(node, vm, kind, place);
    case VM_DEVICE_TAKE_DOWN:
        submit(node, vm, kind, place, /* down= */ true);
        break;
    case VM_DEVICE_FORGET:
        forget(node, vm, kind, place);
        break;
    case VM_DEVICE_REST:
    case VM_DEVICE_WAIT:
        break;
    }
    return false;
}

/* Not before an adopted VMM, which may be busy, has said what it can do: that is followed by
 * another step. */
void vm_hotplug_step(struct node *node, struct vm *vm)
{
    if (vm->client && !vmm_client_is_known(vm->client))
        return;
    for (int kind = 0; kind < VMM_DEVICE_KIND_COUNT; kind++)
        for (unsigned place = 0; place < VM_PLACES; place++)
            while (vm->client && take_step(node, vm, (enum vmm_device_kind)kind, place))
                ;
}

void vm_hotplug_is_down(struct node *node, struct vm *vm)
{
    for (int kind = 0; kind < VMM_DEVICE_KIND_COUNT; kind++)
        for (unsigned place = 0; place < VM_PLACES; place++) {
            struct vm_device *device = &vm->devices.at[kind][place];

            if (device->use == VM_DEVICE_LEAVING) {
                forget(node, vm, (enum vmm_device_kind)kind, place);
            } else if (device->use == VM_DEVICE_SPEC &&
                       (device->there != VM_DEVICE_IS_PRESENT || device->failed)) {
                *device = (struct vm_device){ 0 }; /* its next start attaches it */
                node_save(node, &vm->head);
            }
        }
}

void vm_hotplug_answered(struct node *node, struct vm *vm, enum vmm_device_kind kind,
                         unsigned place, bool present, int result)
{
    struct vm_device *device = &vm->devices.at[kind][place];

    vm_device_answered(device, present, result, loop_now_ms());
    if (device->failed)
        log_warning(node->log, "vm %s: attach: %s", vm->head.id, device->reason);
    go_on(node, vm);
}

void vm_hotplug_is_lost(struct vm *vm)
{
    for (int kind = 0; kind < VMM_DEVICE_KIND_COUNT; kind++)
        for (unsigned place = 0; place < VM_PLACES; place++)
            vm_device_unanswered(&vm->devices.at[kind][place]);
}
