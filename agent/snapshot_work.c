/* The way of a snapshot: files are made, its disks are copied while its VM runs, the VM is held,
 * its VMM writes, what was written to the disks meanwhile is copied, the VM goes on, the files are
 * synced and summed up.  A failure anywhere leads to the last step, which
 * undoes it; what the agent's end interrupts is found in its row, and undone by the next one, or
 * finished if nothing but the row is missing. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/node_snapshot.h"
#include "agent/operation.h"
#include "agent/vm_fork.h"
#include "agent/vm_memory.h"
#include "agent/vmm_client.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/worker.h"
#include "storage/snapshot_store.h"
#include "storage/volume.h"

_Static_assert(SNAPSHOT_PARENTS_MAX == VMM_LAYERS_MAX - 1, "all but the snapshot itself");

struct snapshot_job {
    struct node *node;
    struct snapshot *snapshot;
    uint32_t instance;
    uint64_t memory_bytes;
    uint32_t chain[VMM_LAYERS_MAX]; /* snapshots on which it stands, and itself */
    size_t chain_count;
    struct worker *own_worker;   /* owned; of what takes long */
    struct snapshot_disks disks; /* to be copied */

    int state_fd, memory_fd; /* results; owned; else -1 */
    struct stat layers[VMM_LAYERS_MAX];
    struct snapshot_seal seal;
};

static void go_to(struct node *node, struct snapshot *snapshot, enum snapshot_step step);

static void fail(struct node *node, struct snapshot *snapshot, const struct error *err)
{
    if (snapshot->error.code == 0)
        snapshot->error = *err;
    if (!snapshot->job)
        go_to(node, snapshot, SNAPSHOT_UNDO);
    else
        __atomic_store_n(&snapshot->job->disks.cancelled, true, __ATOMIC_RELAXED);
}

/* --- jobs, on the disk worker; while the VM is held, on one of their own --- */

static int run_prepare(void *argument, struct error *err)
{
    struct snapshot_job *job = argument;
    int result = 0;

    for (size_t i = 0; result == 0 && i + 1 < job->chain_count; i++) {
        auto_close int fd = -1;

        result = snapshot_store_open_memory(job->node->snapshots, job->chain[i], &fd, err);
        if (result == 0 && fstat(fd, &job->layers[i]) < 0)
            return error_set(err, errno, "look at the parent's memory: %s", strerror(errno));
    }
    if (result == 0)
        result = snapshot_store_begin(job->node->snapshots, job->instance, job->memory_bytes,
                                      &job->state_fd, &job->memory_fd, err);
    if (result == 0)
        result = snapshot_disks_prepare(&job->disks, err);
    if (result < 0 || job->chain_count < 2)
        return result;
    result = sparse_check_exact(job->memory_fd); /* a hole is the parent's page, zeroes are not */
    if (result == -EOPNOTSUPP)
        return error_set(err, EOPNOTSUPP,
                         "the file system of the state directory does not know holes of a page: "
                         "take a full snapshot");
    return result < 0 ? error_set(err, result, "try the memory's file: %s", strerror(-result)) : 0;
}

static int run_ahead(void *argument, struct error *err)
{
    struct snapshot_job *job = argument;

    return snapshot_disks_copy_ahead(&job->disks, err);
}

static int run_copy(void *argument, struct error *err)
{
    struct snapshot_job *job = argument;

    return snapshot_disks_copy(&job->disks, err);
}

static int run_seal(void *argument, struct error *err)
{
    struct snapshot_job *job = argument;

    return snapshot_store_seal(job->node->snapshots, job->instance, &job->seal, err);
}

/* Memory that the guest took and gave back since then is written as zeroes. */
static int run_thin(void *argument, struct error *err)
{
    struct snapshot_job *job = argument;
    int result = snapshot_store_thin(job->node->snapshots, job->instance, job->chain,
                                     job->chain_count - 1, err);

    return result < 0 ? result : run_seal(argument, err);
}

/* Of an earlier agent's: whole, or undone. */
static int run_find(void *argument, struct error *err)
{
    struct snapshot_job *job = argument;

    if (snapshot_store_find(job->node->snapshots, job->instance) == 0)
        return run_seal(argument, err);
    return error_set(err, ECANCELED, "the agent ended while it was being made");
}

static int run_undo(void *argument, struct error *err)
{
    struct snapshot_job *job = argument;

    /* Here: the last that closes a removed file waits until its blocks are free. */
    cleanup_close(&job->state_fd);
    cleanup_close(&job->memory_fd);
    return snapshot_store_remove(job->node->snapshots, job->instance, err);
}

/* --- and back --- */

/* Until here they are open: who syncs a file that nobody has open may not hear what could not be
 * written before. */
static void close_files(struct snapshot *snapshot)
{
    cleanup_close(&snapshot->state_fd);
    cleanup_close(&snapshot->memory_fd);
}

static void is_ready(struct node *node, struct snapshot *snapshot, const struct snapshot_seal *seal)
{
    close_files(snapshot);
    snapshot->state = PROGRESS_READY;
    snapshot->size_bytes = seal->size_bytes;
    memcpy(snapshot->digest, seal->digest, sizeof snapshot->digest);
    node_save(node, &snapshot->head);
    node_wake_volumes(node);
    node_wake_vms(node);
    if (snapshot->is_fork)
        vm_fork_is_copied(node, snapshot, NULL);
    vm_fork_tidy(node); /* if nobody waits for it any more */
}

static void is_undone(struct node *node, struct snapshot *snapshot, int result,
                      const struct error *err)
{
    close_files(snapshot);
    if (result < 0) {
        snprintf(snapshot->reason, sizeof snapshot->reason, "%.150s", err->message);
        node_retry_later(node, &snapshot->head, "remove", err);
        node_save(node, &snapshot->head);
        return;
    }
    node_retry_over(&snapshot->head);
    if (snapshot->is_fork)
        vm_fork_is_copied(node, snapshot, snapshot->error.message);
    if (snapshot->head.deleting) {
        node_gone(node, &snapshot->head);
        return;
    }
    log_warning(node->log, "snapshot %s: %s", snapshot->head.id, snapshot->error.message);
    snapshot->state = PROGRESS_FAILED;
    snapshot->head.failure = snapshot->error.code;
    snapshot->size_bytes = 0;
    snprintf(snapshot->reason, sizeof snapshot->reason, "%.150s", snapshot->error.message);
    node_save(node, &snapshot->head);
    node_wake_volumes(node);
    node_wake_vms(node);
    vm_fork_tidy(node);
}

static void job_end(struct snapshot_job *job)
{
    job->snapshot->state_fd = take_fd(&job->state_fd);
    job->snapshot->memory_fd = take_fd(&job->memory_fd);
    job->snapshot->marks = snapshot_marks_take(&job->disks.marks);
    job->snapshot->copied_ahead = job->disks.copied_ahead;
    worker_free(job->own_worker);
    free(job);
}

static void job_is_done(void *argument, int result, const struct error *err)
{
    struct snapshot_job *job = argument;
    struct snapshot *snapshot = job->snapshot;
    struct node *node = job->node;
    struct snapshot_seal seal = job->seal;
    struct error more = { 0 };

    snapshot->job = NULL;
    if (snapshot->step == SNAPSHOT_PREPARE) {
        snapshot->layer_count = job->chain_count - 1;
        memcpy(snapshot->layers, job->layers, sizeof snapshot->layers);
    }
    job_end(job);
    if (node->ending)
        return; /* the next agent sees to it */
    if (snapshot->step == SNAPSHOT_UNDO) {
        is_undone(node, snapshot, result, err);
    } else if (result < 0 || snapshot->error.code || snapshot->head.deleting) {
        fail(node, snapshot, err); /* the first error counts */
    } else if (snapshot->step == SNAPSHOT_FOUND || snapshot->step == SNAPSHOT_SEAL) {
        is_ready(node, snapshot, &seal);
    } else if (snapshot->step == SNAPSHOT_AHEAD && snapshot_admit_more(node, snapshot, &more) < 0) {
        fail(node, snapshot, &more);
    } else {
        go_to(node, snapshot, snapshot->step + 1);
    }
}

static void choose_disks(const struct node *node, const struct snapshot *snapshot,
                         struct snapshot_disks *disks)
{
    for (unsigned i = 0; i < snapshot->vm_spec.disk_count; i++) {
        const struct volume *volume = node_find_volume(node, snapshot->vm_spec.disks[i].volume);

        if (snapshot->disks[i].read_only || !volume)
            continue;
        disks->list[disks->count].index = i;
        disks->list[disks->count].place = snapshot->vm_spec.disks[i].place;
        disks->list[disks->count].volume = volume->head.instance;
        disks->list[disks->count].format = (enum volume_format)snapshot->disks[i].format;
        disks->count++;
    }
}

/* Copies and syncs: neither a held VM waits for anybody else's, nor does anybody for these. */
static bool takes_long(worker_run_fn *run)
{
    return run == run_ahead || run == run_copy || run == run_seal || run == run_thin;
}

static void submit(struct node *node, struct snapshot *snapshot, worker_run_fn *run)
{
    struct snapshot_job *job = malloc(sizeof *job);
    struct error err = { .code = ENOMEM, .message = "memory is short" };
    int result = 0;

    if (job) {
        *job = (struct snapshot_job){
            .node = node,
            .snapshot = snapshot,
            .instance = snapshot->head.instance,
            .memory_bytes = snapshot->is_fork ? 0 : vm_spec_memory_bytes(&snapshot->vm_spec),
            .state_fd = take_fd(&snapshot->state_fd),
            .memory_fd = take_fd(&snapshot->memory_fd),
            .disks = { .store = node->snapshots,
                       .volumes = node->volumes,
                       .instance = snapshot->head.instance,
                       .marks = snapshot_marks_take(&snapshot->marks),
                       .copied_ahead = snapshot->copied_ahead },
        };
        job->chain_count = snapshot_chain(node, snapshot, job->chain);
        choose_disks(node, snapshot, &job->disks);
        if (takes_long(run))
            result = worker_new(node->loop, "snapshot", NULL, &job->own_worker, &err);
        if (result == 0)
            result = worker_submit(job->own_worker ? job->own_worker : node->disk_worker, run,
                                   job_is_done, job, &err);
        if (result == 0) {
            snapshot->job = job;
            return;
        }
        job_end(job);
    }
    if (snapshot->step == SNAPSHOT_UNDO)
        is_undone(node, snapshot, -err.code, &err);
    else
        fail(node, snapshot, &err);
}

/* --- the VM --- */

bool snapshot_awaits_vmm(const struct snapshot *snapshot)
{
    return snapshot && (snapshot->step == SNAPSHOT_MARK || snapshot->step == SNAPSHOT_HOLD ||
                        snapshot->step == SNAPSHOT_WRITE);
}

bool snapshot_comes_first(const struct snapshot *snapshot)
{
    return snapshot && snapshot->step >= SNAPSHOT_PREPARE && snapshot->step <= SNAPSHOT_COPY;
}

bool snapshot_holds(const struct snapshot *snapshot)
{
    return snapshot && snapshot->step >= SNAPSHOT_HOLD && snapshot->step <= SNAPSHOT_COPY;
}

const char *vm_pause_reason(const struct vm *vm)
{
    return vm->full[0]                     ? vm->full
           : vm->intent == VM_INTENT_PAUSE ? "pause"
           : snapshot_holds(vm->snapshot)  ? "snapshot"
                                           : "fork";
}

static int take_vm(struct node *node, struct snapshot *snapshot, struct error *err)
{
    struct vm *vm = node_find_vm(node, snapshot->vm);

    if (!vm || strcmp(vm->head.uid, snapshot->vm_uid) != 0)
        return error_set(err, ENOENT, "vm %s is gone", snapshot->vm);
    if (snapshot_check_source(vm, err) < 0 || snapshot_check_parent(node, snapshot, vm, err) < 0)
        return -err->code;
    snapshot->source = vm;
    vm->snapshot = snapshot;
    return 0;
}

static void release_vm(struct node *node, struct snapshot *snapshot)
{
    struct vm *vm = take_pointer(snapshot->source);

    if (snapshot->marks.fd >= 0 && vm && vm->client)
        (void)vmm_client_mark_writes(vm->client, -1, snapshot->marks.shifts, NULL);
    snapshot_marks_free(&snapshot->marks);
    if (!vm)
        return;
    vm->snapshot = NULL;
    vm_release(node, vm);
}

/* Where that is worth it, and the VMM can. */
static void ask_for_marks(struct node *node, struct snapshot *snapshot)
{
    struct vm *vm = snapshot->source;

    if (snapshot->marks.fd >= 0 && vm->client &&
        vmm_client_mark_writes(vm->client, snapshot->marks.fd, snapshot->marks.shifts, NULL) == 0)
        vm_limit_hold(node, vm);
    else
        go_to(node, snapshot, SNAPSHOT_HOLD);
}

/* Its log says why it could not. */
void snapshot_is_marked(struct node *node, struct snapshot *snapshot, int result)
{
    if (snapshot->step != SNAPSHOT_MARK)
        return;
    snapshot->source->hold_timer = loop_cancel(snapshot->source->hold_timer);
    go_to(node, snapshot, result < 0 ? SNAPSHOT_HOLD : SNAPSHOT_AHEAD);
}

static void hold_vm(struct node *node, struct snapshot *snapshot)
{
    struct vm *vm = snapshot->source;
    struct error err = { 0 };

    if (vm->state != VM_RUNNING && vm->state != VM_PAUSING && vm->state != VM_PAUSED) {
        error_set(&err, EBUSY, "the VM is %s", vm_state_name(vm->state));
        fail(node, snapshot, &err);
        return;
    }
    vm_step(node, vm);
}

/* So that whoever takes the VMM over later cannot change what others are restored from. */
static int open_for_reading(int fd, struct error *err)
{
    char path[40];
    int result;

    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    result = open(path, O_RDONLY | O_CLOEXEC);
    return result < 0 ? error_set(err, errno, "open the memory again: %s", strerror(errno))
                      : result;
}

static int ask_vmm(struct node *node, struct snapshot *snapshot, struct error *err)
{
    struct vm *vm = snapshot->source;
    auto_close int pagemap = -1, base = -1;

    if (vm->full[0])
        return snapshot_check_source(vm, err);
    if (!vm->client)
        return error_set(err, ENOTCONN, "its VMM cannot be asked");
    if (snapshot->is_fork)
        return vm_fork_ask(node, vm, err);
    pagemap = vm_memory_open_pagemap(vm, err);
    if (pagemap < 0)
        return pagemap;
    if (snapshot->parent[0])
        return vmm_client_fork(
            vm->client, (const int[]){ snapshot->state_fd, pagemap, snapshot->memory_fd }, err);
    base = snapshot->track ? open_for_reading(snapshot->memory_fd, err) : -1;
    if (base < 0 && snapshot->track)
        return base;
    return vmm_client_snapshot(
        vm->client, (const int[]){ snapshot->state_fd, snapshot->memory_fd, pagemap, base }, err);
}

void snapshot_vm_is_held(struct node *node, struct snapshot *snapshot)
{
    struct error err = { 0 };

    /* A fork that was asked for first is answered first: one question at a time, or an answer would
     * be taken for the other's. */
    if (snapshot->step != SNAPSHOT_HOLD || snapshot->source->fork_asked)
        return;
    snapshot->step = SNAPSHOT_WRITE;
    operation_look(node, &snapshot->head);
    if (ask_vmm(node, snapshot, &err) < 0)
        fail(node, snapshot, &err);
}

/* What we know of the VM's memory may be old: the last agent may have ended before it wrote down
 * that there is another base.  So the VMM's own files decide, before anything stands on this one.
 */
static bool stands_on_parent(const struct snapshot *snapshot, const int *fds, size_t fd_count)
{
    struct stat status;

    if (fd_count != snapshot->layer_count + 1)
        return false;
    for (size_t i = 0; i < snapshot->layer_count; i++)
        if (fstat(fds[i], &status) < 0 || status.st_dev != snapshot->layers[i].st_dev ||
            status.st_ino != snapshot->layers[i].st_ino)
            return false;
    return true;
}

static void note_base(struct node *node, struct vm *vm, const char *uid)
{
    snprintf(vm->memory_base, sizeof vm->memory_base, "%s", uid);
    node_save(node, &vm->head);
}

void snapshot_is_written(struct node *node, struct snapshot *snapshot, int result, const int *fds,
                         size_t fd_count)
{
    struct vm *vm = snapshot->source;
    struct error err = { 0 };

    if (snapshot->step != SNAPSHOT_WRITE)
        return;
    vm->hold_timer = loop_cancel(vm->hold_timer);
    if (result < 0) {
        error_set(&err, result, "its VMM could not write it: %s", strerror(-result));
    } else if (snapshot->parent[0] && !stands_on_parent(snapshot, fds, fd_count)) {
        error_set(&err, ESTALE, "the memory of vm %s does not stand on snapshot %s any more",
                  vm->head.id, snapshot->parent);
        note_base(node, vm, "");
    } else if (snapshot->track) {
        note_base(node, vm, snapshot->head.uid);
    }
    if (err.code)
        fail(node, snapshot, &err);
    else
        go_to(node, snapshot, SNAPSHOT_COPY);
}

void snapshot_vm_is_late(struct node *node, struct snapshot *snapshot, const char *why)
{
    struct error err = { 0 };

    error_set(&err, ETIMEDOUT, "%s", why);
    fail(node, snapshot, &err);
}

void snapshot_vm_is_lost(struct node *node, struct snapshot *snapshot, const char *why)
{
    struct error err = { 0 };

    /* It goes its own way, and perhaps away. */
    snapshot->source->snapshot = NULL;
    snapshot->source = NULL;
    error_set(&err, ECANCELED, "%s", why);
    fail(node, snapshot, &err);
}

/* --- from step to step --- */

static void go_to(struct node *node, struct snapshot *snapshot, enum snapshot_step step)
{
    struct error err = { 0 };

    snapshot->step = step;
    operation_look(node, &snapshot->head);
    switch (step) {
    case SNAPSHOT_FOUND:
        submit(node, snapshot, run_find);
        break;
    case SNAPSHOT_PREPARE:
        if (take_vm(node, snapshot, &err) < 0)
            fail(node, snapshot, &err);
        else
            submit(node, snapshot, run_prepare);
        break;
    case SNAPSHOT_MARK:
        ask_for_marks(node, snapshot);
        break;
    case SNAPSHOT_AHEAD:
        submit(node, snapshot, run_ahead);
        break;
    case SNAPSHOT_HOLD:
        hold_vm(node, snapshot);
        break;
    case SNAPSHOT_COPY:
        submit(node, snapshot, run_copy);
        break;
    case SNAPSHOT_SEAL:
        release_vm(node, snapshot);
        submit(node, snapshot, snapshot->parent[0] ? run_thin : run_seal);
        break;
    case SNAPSHOT_UNDO:
        release_vm(node, snapshot);
        submit(node, snapshot, run_undo);
        break;
    case SNAPSHOT_NEW:
    case SNAPSHOT_WRITE:
        break;
    }
}

void snapshot_begin(struct node *node, struct resource *resource)
{
    struct snapshot *snapshot = (struct snapshot *)resource;

    if (!snapshot->job)
        go_to(node, snapshot, snapshot->step == SNAPSHOT_NEW ? SNAPSHOT_PREPARE : snapshot->step);
}

void snapshot_remove(struct node *node, struct resource *resource)
{
    struct snapshot *snapshot = (struct snapshot *)resource;
    struct error err = { 0 };

    error_set(&err, ECANCELED, "it is being deleted");
    fail(node, snapshot, &err);
}

void snapshot_cancel(struct node *node, struct snapshot *snapshot)
{
    struct error err = { 0 };

    error_set(&err, ECANCELED, "it was cancelled");
    fail(node, snapshot, &err);
}

uint64_t snapshot_copied_bytes(const struct snapshot *snapshot)
{
    return snapshot->job ? __atomic_load_n(&snapshot->job->disks.done, __ATOMIC_RELAXED) : 0;
}

void snapshot_await_copy(struct snapshot *snapshot)
{
    if (snapshot->job)
        worker_free(take_pointer(snapshot->job->own_worker)); /* job_is_done frees the rest */
}
