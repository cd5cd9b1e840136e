/* The only way to start: rows on one side, processes, directories, cgroups, bridges and files on
 * the other.  What runs is adopted, what no row names is removed, what was begun is finished or
 * undone. */
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/database_age.h"
#include "agent/jail.h"
#include "agent/node_internal.h"
#include "agent/node_setup.h"
#include "agent/node_snapshot.h"
#include "agent/node_volume.h"
#include "agent/operation.h"
#include "agent/vm_disk.h"
#include "agent/vm_fork.h"
#include "agent/vm_share.h"
#include "agent/vmm_client.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/process.h"
#include "base/worker.h"
#include "storage/image.h"
#include "storage/snapshot_store.h"
#include "storage/trash.h"
#include "storage/volume.h"

/* --- processes --- */

int node_find_process(const struct node *node, uint32_t instance, pid_t *ret_pid)
{
    struct process_identity identity;
    int pidfd;

    if (jail_identity(node->jail, instance, &identity, NULL) < 0)
        return -1;
    pidfd = process_open(&identity, NULL);
    if (pidfd >= 0)
        *ret_pid = identity.pid;
    return pidfd;
}

/* -ESRCH: it has just ended. */
static int ask(struct node *node, struct vm *vm, struct error *err)
{
    int control_fd = jail_connect(node->jail, vm->head.instance, err);

    if (control_fd >= 0 &&
        vmm_client_new(node->loop, node->close_worker, control_fd, &vm_client_ops, &vm->closure,
                       &vm->client, err) == 0 &&
        vmm_client_ping(vm->client, err) == 0)
        return 0;
    return process_await(vm->pidfd, 0) == 0 ? -ESRCH : -err->code;
}

static int64_t process_age(const struct node *node, const struct vm *vm)
{
    struct process_identity identity;

    return jail_identity(node->jail, vm->head.instance, &identity, NULL) < 0
               ? 0
               : process_age_ms(&identity);
}

/* Connects to the VMM; one that does not take connections is watched all the same.  One that ends
 * meanwhile is as if it had not been found. */
static void adopt(struct node *node, struct vm *vm)
{
    struct error err = { 0 };
    struct stats_page page;
    int result = ask(node, vm, &err);

    vm->placed = true;
    vm->log_fd = jail_open_log(node->jail, vm->head.instance);
    memcpy(vm->boot_id, node->boot_id, sizeof vm->boot_id);
    if (result == -ESRCH) {
        vm_forget_process(vm);
        return;
    }
    if (vm->head.generation > 1) /* else it has what it was started with */
        vm_share_tell(node, vm);
    if (result < 0) {
        log_warning(node->log, "vm %s: adopted, but its VMM cannot be asked: %s", vm->head.id,
                    err.message);
        vm->silent = true; /* its status says so */
    }
    /* Its start was never recorded, but it is there: its page, or its answer, says how far. */
    if (!vm_state_is_live(vm->state) && !vm->head.deleting)
        vm->state = VM_STARTING;
    vm_read_page(node, vm, &page);
    node_memory_adopt(node, vm, &page);
    if (vm->restore == VM_RESTORE_DUE) { /* what its process was started for */
        vm->restore = VM_RESTORE_UNDER_WAY;
        vm->forked = vm->spec.fork[0] != '\0';
    }
    if (vm->restore == VM_RESTORE_UNDER_WAY && page.start_ns != 0)
        vm_is_restored(node, vm);
    if (vm->state == VM_STARTING && page.start_ns != 0)
        vm_set_state(node, vm, VM_RUNNING, ""); /* even if it cannot be asked: it is not killed */
    else if (vm->state == VM_STARTING)
        vm_await_ready(node, vm, process_age(node, vm)); /* however often the agent begins anew */
    vm_watch_process(node, vm);
}

static void find_vm(struct node *node, struct vm *vm)
{
    struct process_identity identity;

    vm->closure = (struct vm_closure){ .node = node, .vm = vm };
    vm->pidfd = node_find_process(node, vm->head.instance, &vm->pid);
    /* What there is of it is cleaned up before its next start. */
    vm->placed = vm->head.deleting || vm_state_is_live(vm->state) ||
                 jail_identity(node->jail, vm->head.instance, &identity, NULL) == 0;
    if (vm->pidfd >= 0)
        adopt(node, vm);
}

/* Since it was last started. */
static bool host_rebooted(const struct node *node, const struct vm *vm)
{
    return vm->boot_id[0] && strcmp(vm->boot_id, node->boot_id) != 0;
}

/* No process, though the row says that it lives. */
static void settle_missing(struct node *node, struct vm *vm)
{
    struct process_identity identity;

    if (host_rebooted(node, vm)) {
        vm_conclude(node, vm, /* host_rebooted= */ true);
    } else if (vm->state == VM_STARTING &&
               jail_identity(node->jail, vm->head.instance, &identity, NULL) < 0) {
        /* The agent ended before there was a process: it is started as if for the first time. */
        vm_restore_ended(node, vm, /* host_rebooted= */ false);
        vm->state = VM_CREATING;
        vm->start_due = vm->spec.desired_running;
        vm_step(node, vm);
    } else {
        vm_conclude(node, vm, /* host_rebooted= */ false);
    }
}

/* Was it about to be started, or waiting for its backoff, when the agent ended? */
static bool start_was_due(const struct vm *vm)
{
    if (!vm->spec.desired_running)
        return false;
    if (vm->start_was_due) /* by hand, say, whatever its restart policy is */
        return true;
    switch (vm->state) {
    case VM_CREATING:
        return true;
    case VM_STOPPED: /* by policy or verb; but a host's reboot leaves it to autostart */
        return vm->autostart_waits || !(vm->exit.set && vm->exit.cause == VM_CAUSE_HOST_REBOOT);
    case VM_FAILED:
        return vm->spec.restart != VM_RESTART_NEVER;
    default:
        return false;
    }
}

/* After a host's reboot autostart decides, also about one that was down and to be started again. */
static bool autostart_decides(const struct node *node, const struct vm *vm)
{
    return host_rebooted(node, vm) && vm->spec.desired_running && vm->state != VM_CREATING &&
           (vm->spec.autostart || start_was_due(vm));
}

static void settle_vm(struct node *node, struct vm *vm)
{
    if (vm->pidfd < 0 && !vm->head.deleting && autostart_decides(node, vm)) {
        vm_conclude(node, vm, /* host_rebooted= */ true);
        return;
    }
    if (vm->pidfd < 0 && !vm->head.deleting && vm_state_is_live(vm->state)) {
        settle_missing(node, vm);
        return;
    }
    if (vm->pidfd < 0)
        vm->start_due = start_was_due(vm);
    else
        vm_disk_look(node, vm);
    vm_step(node, vm);
}

/* --- networks and files --- */

/* Its process has it: a tap lives as long as that. */
static bool has_nic(const struct node *node, const struct vm *vm, unsigned place)
{
    char tap[IFNAMSIZ];

    nic_tap_name(node->config->prefix, vm->head.instance, (uint8_t)place, tap);
    return vm_nic_in_machine(vm, place) || (vm_nic_at(vm, place) && if_nametoindex(tap) != 0);
}

static int restore_networks(struct node *node, struct error *err)
{
    size_t network_count = node->tables[RESOURCE_NETWORK].count;
    size_t vm_count = node->tables[RESOURCE_VM].count;
    auto_free struct network_config *configs = calloc(network_count + 1, sizeof *configs);
    auto_free struct nic_config *nics = calloc(vm_count * VMM_NICS_MAX + 1, sizeof *nics);
    size_t config_count = 0;
    size_t nic_count = 0;
    const struct network *network;
    const struct vm *vm;

    if (!configs || !nics)
        return error_set(err, ENOMEM, "memory is short");
    for (size_t i = 0; (network = node_network_at(node, i)); i++)
        if (!network->head.deleting)
            configs[config_count++] = network->config;
    for (size_t i = 0; (vm = node_vm_at(node, i)); i++) {
        for (unsigned place = 0; vm->pidfd >= 0 && place < VMM_NICS_MAX; place++)
            if (has_nic(node, vm, place))
                vm_nic_config(node, vm, vm_nic_at(vm, place), &nics[nic_count++]);
    }
    return net_host_restore(node->net, configs, config_count, nics, nic_count, err);
}

static bool has_files(const struct resource *resource)
{
    switch (resource->kind) {
    case RESOURCE_IMAGE:
        return resource_progress(resource) == PROGRESS_READY;
    case RESOURCE_VOLUME: /* a fork that has yet to be begins with another moment */
        return !((const struct volume *)resource)->fork[0] ||
               resource_progress(resource) == PROGRESS_READY;
    case RESOURCE_SNAPSHOT:
        return resource_progress(resource) != PROGRESS_FAILED;
    default:
        return true;
    }
}

static int sweep_kind(const struct node *node, enum resource_kind kind, struct error *err)
{
    const struct resource_table *table = &node->tables[kind];
    auto_free uint32_t *keep = calloc(table->count + 1, sizeof *keep);
    size_t count = 0;

    if (!keep)
        return error_set(err, ENOMEM, "memory is short to sweep files");
    for (size_t i = 0; i < table->count; i++)
        if (has_files(table->items[i]))
            keep[count++] = table->items[i]->instance;
    return kind == RESOURCE_IMAGE    ? image_sweep(node->images, keep, count, err)
           : kind == RESOURCE_VOLUME ? volume_sweep(node->volumes, keep, count, err)
                                     : snapshot_store_sweep(node->snapshots, keep, count, err);
}

static int empty_trash(void *argument, struct error *err)
{
    const struct node *node = argument;
    const int fds[] = { node->images_dir_fd, node->volumes_dir_fd, node->snapshots_dir_fd };
    int result = 0;

    for (size_t i = 0; i < ARRAY_LENGTH(fds); i++)
        if (trash_empty(fds[i], err) < 0)
            result = -err->code;
    return result;
}

static void trash_is_empty(void *argument, int result, const struct error *err)
{
    const struct node *node = argument;

    if (result < 0)
        log_error(node->log, "%s; the next agent tries again", err->message);
}

/* What cannot be removed keeps no agent from starting: no number is given twice, so it is in
 * nobody's way, and what is begun again clears its own.  Nor does what is large. */
static void sweep_files(struct node *node)
{
    static const enum resource_kind kinds[] = { RESOURCE_IMAGE, RESOURCE_VOLUME,
                                                RESOURCE_SNAPSHOT };
    struct error later = { 0 };

    for (size_t i = 0; i < ARRAY_LENGTH(kinds); i++) {
        struct error err = { 0 };

        if (sweep_kind(node, kinds[i], &err) < 0)
            log_error(node->log, "%s; the next agent tries again", err.message);
    }
    if (worker_submit(node->copy_worker, empty_trash, trash_is_empty, node, &later) < 0)
        trash_is_empty(node, -later.code, &later);
}

/* Unfinished creations are begun again, unfinished deletions go on. */
static void go_on(struct node *node, enum resource_kind kind)
{
    const struct resource_table *table = &node->tables[kind];

    for (size_t i = 0; i < table->count; i++) {
        struct resource *resource = table->items[i];
        bool working =
            kind == RESOURCE_NETWORK ||
            (kind == RESOURCE_IMAGE && ((struct image *)resource)->state == PROGRESS_WORKING) ||
            (kind == RESOURCE_VOLUME && (((struct volume *)resource)->state == PROGRESS_WORKING ||
                                         volume_is_growing((struct volume *)resource))) ||
            (kind == RESOURCE_SNAPSHOT && ((struct snapshot *)resource)->state == PROGRESS_WORKING);

        if (resource->deleting)
            resource_ops_of(kind)->remove(node, resource);
        else if (working)
            resource_ops_of(kind)->begin(node, resource);
    }
}

int node_reconcile(struct node *node, struct error *err)
{
    struct error network_err = { 0 };
    struct vm *vm;
    int64_t began_ns = loop_now_ns();
    int result = node->damage[0] ? 0 : database_age_check(node, err);

    if (result == -EUCLEAN)
        node_damage_begin(node, err);
    if (node->damage[0])
        return 0;
    if (result < 0)
        return result;
    for (size_t i = 0; (vm = node_vm_at(node, i)); i++) {
        find_vm(node, vm);
        node->adopted += vm->pidfd >= 0;
    }
    result = node_remove_orphans(node, err);
    if (result < 0)
        return result;
    sweep_files(node);
    /* A network that cannot be made is shown as failed; VMs must not be lost for it. */
    if (restore_networks(node, &network_err) < 0)
        log_error(node->log, "networks: %s", network_err.message);
    node->finding_count = net_host_findings(node->net, node->findings);
    operations_interrupted(node);
    go_on(node, RESOURCE_IMAGE);
    go_on(node, RESOURCE_SNAPSHOT);
    go_on(node, RESOURCE_VOLUME);
    go_on(node, RESOURCE_NETWORK);
    for (size_t i = 0; (vm = node_vm_at(node, i)); i++)
        settle_vm(node, vm);
    operations_reconcile(node);
    node_autostart(node);
    vm_fork_tidy(node);
    log_info(node->log, "%zu VMs, %zu of them running", node->tables[RESOURCE_VM].count,
             (size_t)node->adopted);
    node->reconcile_us = (loop_now_ns() - began_ns) / 1000;
    return node_tend(node, err);
}
