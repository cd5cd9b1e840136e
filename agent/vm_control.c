/* What a VM's process says over its control connection, and what becomes of it. */
#include <signal.h>
#include <string.h>

#include "agent/node_console.h"
#include "agent/node_internal.h"
#include "agent/node_snapshot.h"
#include "agent/vm_balloon.h"
#include "agent/vm_disk.h"
#include "agent/vm_files.h"
#include "agent/vm_fork.h"
#include "agent/vm_hotplug.h"
#include "agent/vm_memory.h"
#include "agent/vm_vsock.h"
#include "agent/vmm_client.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/process.h"

static void heard(struct vm_closure *closure)
{
    struct vm *vm = closure->vm;

    if (!vm->silent)
        return;
    vm->silent = false;
    node_save(closure->node, &vm->head);
}

/* What a snapshot's memory was mapped into is changes of it; into other memory it was read. */
void vm_is_restored(const struct node *node, struct vm *vm)
{
    const struct snapshot *snapshot = node_find_snapshot(node, vm->spec.snapshot);

    if (snapshot && !vm->forked && vm_files_backing(vm) == VMM_MEMORY_ANONYMOUS)
        memcpy(vm->memory_base, snapshot->head.uid, sizeof vm->memory_base);
    vm->restore = VM_RESTORE_DONE;
}

static void on_ready(void *context)
{
    struct vm_closure *closure = context;
    struct node *node = closure->node;
    struct vm *vm = closure->vm;
    enum vm_state next = vm_lifecycle_next(vm->state, VM_EVENT_READY);
    bool restored = vm->restore == VM_RESTORE_UNDER_WAY;

    if (restored)
        vm_is_restored(node, vm);
    if (next == VM_NONE)
        return;
    if (next == VM_RUNNING) {
        vm->timer = loop_cancel(vm->timer);
        if (vm->launch_ns > 0) /* an adopted one was launched by another agent */
            histogram_observe(restored ? &node->restores : &node->starts,
                              (loop_now_ns() - vm->launch_ns) / 1000);
        vm_set_state(node, vm, VM_RUNNING, "");
    }
    vm_balloon_tell(node, vm); /* its size may have changed since CONFIGURE */
    vm_memory_tell(node, vm);
    vm_tell_devices(node, vm);
    vm_step(node, vm);
}

/* Asked at adoption, and answered after pause and resume.  One that does not run yet was not
 * configured, and never will be: the agent that made it is gone. */
static void on_state(void *context, bool running, bool paused)
{
    struct vm_closure *closure = context;
    struct vm *vm = closure->vm;
    enum vm_state next;

    heard(closure);
    if (!running) {
        if (vm->state == VM_STARTING && vm->pidfd >= 0)
            process_kill(vm->pidfd, SIGKILL);
        return;
    }
    if (vm->state == VM_STARTING)
        on_ready(context);
    next = vm_lifecycle_next(vm->state, paused ? VM_EVENT_HELD : VM_EVENT_RELEASED);
    if (next != VM_NONE)
        vm_set_state(closure->node, vm, next, next == VM_PAUSED ? vm_pause_reason(vm) : "");
    if (next == VM_RUNNING && vm->held_ns > 0) {
        histogram_observe(&closure->node->holds, (loop_now_ns() - vm->held_ns) / 1000);
        vm->held_ns = 0;
    }
    vm_balloon_tell(closure->node, vm); /* or before its adoption */
    vm_memory_tell(closure->node, vm);
    vm_tell_devices(closure->node, vm);
    vm_step(closure->node, vm);
}

bool vm_is_cut_off(const struct vm *vm)
{
    return vm->pidfd >= 0 && !vm->client && !vm->kill_sent;
}

/* The process itself will follow, or it is sick: the start or stop time-out ends it.  Not connected
 * again by this agent: who sends what is forbidden would do so again. */
static void on_closed(void *context, bool forbidden)
{
    struct vm_closure *closure = context;

    if (forbidden) {
        log_warning(closure->node->log,
                    "vm %s: its VMM sent what it may not: no connection until warrend is restarted",
                    closure->vm->head.id);
        node_save(closure->node, &closure->vm->head);
    }
    closure->vm->client = vmm_client_free(closure->vm->client);
    vm_console_forget(closure->vm);
    vm_vsock_forget(closure->vm);
    vm_hotplug_is_lost(closure->vm);
    if (closure->vm->snapshot)
        snapshot_vm_is_lost(closure->node, closure->vm->snapshot,
                            closure->vm->kill_sent ? "the VM was killed"
                                                   : "the VM ended, or its VMM does not answer");
    vm_fork_is_lost(closure->node, closure->vm);
    vm_step(closure->node, closure->vm); /* a stop may have waited for the snapshot */
}

static void on_snapshot(void *context, int result, int *fds, size_t fd_count)
{
    struct vm_closure *closure = context;

    heard(closure);
    if (closure->vm->fork_asked)
        vm_fork_is_made(closure->node, closure->vm, result, fds, fd_count);
    else if (closure->vm->snapshot)
        snapshot_is_written(closure->node, closure->vm->snapshot, result, fds, fd_count);
}

static void on_marking(void *context, int result)
{
    struct vm_closure *closure = context;

    heard(closure);
    if (closure->vm->snapshot)
        snapshot_is_marked(closure->node, closure->vm->snapshot, result);
}

static void on_input(void *context, bool taken)
{
    struct vm_closure *closure = context;

    vm_console_answered(closure->vm, taken);
}

static void on_vsock(void *context, const struct vmm_vsock *message)
{
    struct vm_closure *closure = context;

    vm_vsock_message(closure->node, closure->vm, message);
}

static void on_full(void *context, unsigned place)
{
    struct vm_closure *closure = context;

    vm_disk_is_full(closure->node, closure->vm, place);
}

static void on_device(void *context, enum vmm_device_kind kind, unsigned place, bool present,
                      int result)
{
    struct vm_closure *closure = context;

    vm_hotplug_answered(closure->node, closure->vm, kind, place, present, result);
}

const struct vmm_client_ops vm_client_ops = {
    .ready = on_ready,
    .state = on_state,
    .input = on_input,
    .marking = on_marking,
    .vsock = on_vsock,
    .full = on_full,
    .device = on_device,
    .snapshot = on_snapshot,
    .closed = on_closed,
};
