/* Carrying out a VM's start and clean-up: taps on the network worker, process, files and cgroup on
 * the launch worker, side by side; then CONFIGURE, and watching what becomes of it.
 *
 * A job has copies of all it needs.  The VM lives until its jobs are back (vm->jobs). */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "agent/jail.h"
#include "agent/node_console.h"
#include "agent/node_internal.h"
#include "agent/vm_balloon.h"
#include "agent/vm_files.h"
#include "agent/vm_fork.h"
#include "agent/vm_share.h"
#include "agent/vmm_client.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/process.h"
#include "base/worker.h"
#include "storage/volume.h"

_Static_assert(NIC_QUEUES_MAX == VMM_QUEUES_MAX, "a tap has as many queues as its nic");

#define START_LEAST_MS 1000 /* for what an adopted one may have said already */

struct nic_job {
    struct node *node;
    struct vm *vm;
    unsigned count;
    struct nic_config nics[VMM_NICS_MAX];
    /* By place, owned; -1 = none.  The last to close a tap waits for some 20 ms. */
    int tap_fds[VMM_NICS_MAX][VMM_QUEUES_MAX];
};

struct process_job {
    struct node *node;
    struct vm *vm;
    uint32_t instance;
    char hostname[ID_MAX + 1];
    bool remove; /* clean-up: the directory, too */
    struct jail_share share;

    struct jail_process process;
    struct vm_files files;
};

void vm_nic_config(const struct node *node, const struct vm *vm, const struct vm_nic_spec *nic,
                   struct nic_config *ret_config)
{
    const struct network *network = node_find_network(node, nic->network);
    const struct vm_nic *outside = &vm->nics[nic->place];
    const struct vm_nic *inside = &vm->inside[nic->place];
    struct nic_config config = {
        .instance = vm->head.instance,
        .index = nic->place,
        .network_instance = network ? network->head.instance : 0,
        .ipv4 = outside->ipv4,
        .forked = vm_nic_is_forked(vm, nic->place),
        .inside_ipv4 = inside->ipv4,
        .owner = jail_vm_user(node->jail, vm->head.instance),
        .queues = (uint8_t)nic->queues,
    };

    memcpy(config.mac, outside->mac, sizeof config.mac);
    memcpy(config.inside_mac, inside->mac, sizeof config.inside_mac);
    memcpy(config.hostname, vm->head.id, sizeof config.hostname);
    *ret_config = config;
}

/* --- jobs, on their workers --- */

static int nics_up(void *argument, struct error *err)
{
    struct nic_job *job = argument;

    for (unsigned i = 0; i < job->count; i++) {
        int *fds = job->tap_fds[job->nics[i].index];
        int result = nic_up(job->node->net, &job->nics[i], fds, err);

        if (result < 0)
            return error_wrap(err, "nic %u", job->nics[i].index);
    }
    return 0;
}

static void close_taps(int tap_fds[VMM_NICS_MAX][VMM_QUEUES_MAX])
{
    for (unsigned i = 0; i < VMM_NICS_MAX; i++)
        for (unsigned k = 0; k < VMM_QUEUES_MAX; k++)
            cleanup_close(&tap_fds[i][k]);
}

static int nics_down(void *argument, struct error *err)
{
    struct nic_job *job = argument;
    int first = 0;

    close_taps(job->tap_fds);
    for (unsigned i = 0; i < job->count; i++) {
        int result = nic_down(job->node->net, &job->nics[i], first ? NULL : err);

        if (result < 0 && first == 0)
            first = result;
    }
    return first;
}

static int open_files(void *context, struct error *err)
{
    struct process_job *job = context;

    return vm_files_open(job->node, &job->files, err);
}

static int start_process(void *argument, struct error *err)
{
    struct process_job *job = argument;
    const struct jail_spec spec = { .hostname = job->hostname,
                                    .max_file_bytes = job->files.max_file_bytes,
                                    .disk_places = job->files.disk_places,
                                    .share = job->share,
                                    .meanwhile = open_files,
                                    .context = job };
    int result = jail_start(job->node->jail, job->instance, &spec, &job->process, err);

    if (result == 0)
        job->files.fds[VM_FILES_PAGE] = take_fd(&job->process.page_fd);
    return result;
}

static int clean_process(void *argument, struct error *err)
{
    struct process_job *job = argument;

    jail_keep_log(job->node->jail, job->instance, job->process.log_fd);
    return job->remove ? jail_remove(job->node->jail, job->instance, err)
                       : jail_clean_up(job->node->jail, job->instance, err);
}

/* --- configure --- */

static void on_start_timeout(void *context)
{
    struct vm_closure *closure = context;
    struct vm *vm = closure->vm;

    vm->timer = NULL;
    vm->launch_error = ETIMEDOUT;
    snprintf(vm->launch_message, sizeof vm->launch_message, "its VMM was not ready within %d s",
             vm_files_limit_ms(vm) / 1000);
    if (vm->pidfd >= 0)
        process_kill(vm->pidfd, SIGKILL);
}

void vm_await_ready(struct node *node, struct vm *vm, int64_t age_ms)
{
    int64_t left_ms = vm_files_limit_ms(vm) - age_ms;

    vm->timer = loop_after(node->loop, left_ms > START_LEAST_MS ? left_ms : START_LEAST_MS,
                           on_start_timeout, &vm->closure);
}

void vm_fill_disk(const struct node *node, const struct vm_disk_spec *spec,
                  struct vmm_disk *ret_disk)
{
    const struct volume *volume = node_find_volume(node, spec->volume);

    *ret_disk = (struct vmm_disk){
        .read_only = spec->read_only,
        .queues = (uint8_t)spec->queues,
        .place = spec->place,
        .rate_limit = spec->rate_limit,
        .pause_when_full = spec->on_enospc == VM_ENOSPC_PAUSE,
        .format = volume && volume->format == VOLUME_DELTA ? VMM_DISK_DELTA : VMM_DISK_RAW,
        .size_bytes = volume ? volume->size_bytes : 0,
    };
    memcpy(ret_disk->serial, spec->volume, strnlen(spec->volume, sizeof ret_disk->serial));
}

void vm_fill_nic(const struct node *node, const struct vm *vm, const struct vm_nic_spec *spec,
                 struct vmm_nic *ret_nic)
{
    const struct network *network = node_find_network(node, spec->network);
    const struct vm_nic *nic = vm_nic_inside(vm, spec->place);

    *ret_nic = (struct vmm_nic){
        .mtu = network ? network->config.mtu : 0,
        .queues = (uint8_t)spec->queues,
        .place = spec->place,
        .rx_rate_limit = spec->rx_rate_limit,
        .tx_rate_limit = spec->tx_rate_limit,
    };
    memcpy(ret_nic->mac, nic->mac, sizeof ret_nic->mac);
}

static void fill_configure(const struct node *node, const struct vm *vm,
                           const struct vm_files *files, struct vmm_configure *ret_configure)
{
    const struct vm_spec *spec = &vm->spec;
    const struct vm_spec *boot = vm_boot_spec(node, vm);
    const struct image *kernel = node_find_image(node, boot->kernel);
    struct vmm_configure configure = {
        .header = vmm_header(VMM_MESSAGE_CONFIGURE, sizeof configure),
        .vcpus = spec->vcpus,
        .kernel_format = kernel && strcmp(kernel->kernel_format, "bzimage") == 0
                             ? VMM_KERNEL_BZIMAGE
                             : VMM_KERNEL_ELF,
        .memory_bytes = (uint64_t)spec->memory_mib << 20,
        .hotplug_bytes = vm_spec_memory_bytes(spec) - ((uint64_t)spec->memory_mib << 20),
        .requested_bytes = vm_spec_requested_bytes(spec),
        .memory_backing = (uint8_t)vm_files_backing(vm),
        .has_initrd = boot->initrd[0] != '\0' && !files->restore,
        .restore = files->restore,
        .balloon = vm_balloon_config(spec, 0),
        .vsock_cid = spec->vsock.cid,
    };

    configure.cpuid = *jail_cpuid(node->jail);
    memcpy(configure.id, vm->head.id, sizeof configure.id);
    memcpy(configure.cmdline, boot->cmdline, sizeof configure.cmdline);
    for (unsigned place = 0; place < VMM_DISKS_MAX; place++)
        if (vm_disk_in_machine(vm, place))
            vm_fill_disk(node, vm_disk_at(vm, place), &configure.disks[configure.disk_count++]);
    for (unsigned place = 0; place < VMM_NICS_MAX; place++) {
        struct vmm_nic *nic = &configure.nics[configure.nic_count];

        if (!vm_nic_in_machine(vm, place))
            continue;
        vm_fill_nic(node, vm, vm_nic_at(vm, place), nic);
        nic->vhost = files->vhost_fds[place][0] >= 0;
        configure.nic_count++;
    }
    *ret_configure = configure;
}

/* Both jobs are back and good: tells the VMM what it is. */
static int configure_vm(struct node *node, struct vm *vm, struct process_job *job,
                        struct error *err)
{
    struct vmm_configure configure;
    int fds[VM_FILES_MAX + VMM_NICS_MAX * 2 * VMM_QUEUES_MAX];
    size_t count = 0;
    int result = vmm_client_new(node->loop, node->close_worker, take_fd(&job->process.control_fd),
                                &vm_client_ops, &vm->closure, &vm->client, err);

    if (result < 0)
        return result;
    for (unsigned i = 0; i < job->files.count; i++)
        fds[count++] = job->files.fds[i];
    for (unsigned place = 0; place < VMM_NICS_MAX; place++) {
        const struct vm_nic_spec *nic = vm_nic_in_machine(vm, place);

        for (unsigned k = 0; nic && k < nic->queues; k++)
            fds[count++] = vm->tap_fds[place][k];
        for (unsigned k = 0; k < VMM_QUEUES_MAX && job->files.vhost_fds[place][k] >= 0; k++)
            fds[count++] = job->files.vhost_fds[place][k];
    }
    fill_configure(node, vm, &job->files, &configure);
    configure.rings = job->process.rings;
    if (getrandom(configure.generation_id, sizeof configure.generation_id, 0) < 0)
        return error_set(err, errno, "make a generation id: %s", strerror(errno));
    result = cpu_baseline_apply(vm->spec.cpu, &configure.cpuid, err);
    if (result < 0)
        return result;
    vm_await_ready(node, vm, 0);
    return vmm_client_configure(vm->client, &configure, fds, count, err);
}

static void free_process_job(struct process_job *job)
{
    vm_files_close(&job->files);
    cleanup_close(&job->process.pidfd);
    cleanup_close(&job->process.control_fd);
    cleanup_close(&job->process.page_fd);
    cleanup_close(&job->process.log_fd);
    free(job);
}

/* There is no process. */
static void not_launched(struct node *node, struct vm *vm, uint32_t busy_volume)
{
    char what[ID_MAX + 64] = "";

    for (unsigned i = 0; busy_volume && i < vm->spec.disk_count; i++) {
        const struct volume *volume = node_find_volume(node, vm->spec.disks[i].volume);

        if (volume && volume->head.instance == busy_volume)
            snprintf(what, sizeof what, "volume %s is still open in another process",
                     volume->head.id);
    }
    if (what[0])
        vm_put_off(node, vm, what);
    else
        vm_ended(node, vm, VM_CAUSE_START_FAILED, vm->launch_error, vm->launch_message);
}

/* The last of the launch's jobs is back. */
static void launched(struct node *node, struct vm *vm)
{
    struct process_job *job = take_pointer(vm->launch);
    struct error err = { 0 };
    uint32_t busy_volume = job ? job->files.busy_volume : 0;
    bool wanted = vm->spec.desired_running && !vm->head.deleting && vm->intent == VM_INTENT_NONE;

    if (job && job->process.pidfd >= 0) {
        vm->pid = job->process.pid;
        vm->pidfd = take_fd(&job->process.pidfd);
        vm->log_fd = take_fd(&job->process.log_fd);
        if (!jail_share_is_same(&job->share, &vm->spec.share)) /* changed meanwhile */
            vm_share_tell(node, vm);
    }
    if (vm->launch_error == 0 && wanted && configure_vm(node, vm, job, &err) < 0) {
        vm->launch_error = err.code;
        snprintf(vm->launch_message, sizeof vm->launch_message, "%.150s", err.message);
    }
    if (job)
        free_process_job(job);
    if (vm->launch_error == 0 && wanted)
        close_taps(vm->tap_fds); /* the VMM has them; else nics_down closes them */
    if (vm->pidfd < 0) {
        not_launched(node, vm, busy_volume);
        return;
    }
    vm->put_offs = 0;
    vm_watch_process(node, vm);
    if (vm->pidfd < 0)
        return;
    if (vm->launch_error != 0 || !wanted) {
        vm->kill_sent = true; /* conclude() tells which of the two it was */
        process_kill(vm->pidfd, SIGKILL);
    }
    vm_step(node, vm);
}

static void job_back(struct vm *vm, int result, const struct error *err)
{
    vm->jobs--;
    if (result < 0 && vm->launch_error == 0) {
        vm->launch_error = -result;
        snprintf(vm->launch_message, sizeof vm->launch_message, "%.*s",
                 (int)sizeof vm->launch_message - 1, err->message);
    }
}

static void nics_are_up(void *argument, int result, const struct error *err)
{
    struct nic_job *job = argument;
    struct vm *vm = job->vm;

    memcpy(vm->tap_fds, job->tap_fds, sizeof vm->tap_fds);
    job_back(vm, result, err);
    if (vm->jobs == 0)
        launched(job->node, vm);
    free(job);
}

static int prepare_next(void *argument, struct error *err)
{
    struct node *node = argument;

    (void)err;
    jail_prepare(node->jail);
    return 0;
}

static void next_is_prepared(void *argument, int result, const struct error *err)
{
    (void)argument;
    (void)result;
    (void)err;
}

void vm_launch_prepare(struct node *node)
{
    /* If memory is short, the next start takes longer. */
    (void)worker_submit(node->launch_worker, prepare_next, next_is_prepared, node, NULL);
}

static void process_is_started(void *argument, int result, const struct error *err)
{
    struct process_job *job = argument;
    struct vm *vm = job->vm;

    vm_launch_prepare(job->node);
    vm->launch = job;
    job_back(vm, result, err);
    if (vm->jobs == 0)
        launched(job->node, vm);
}

/* --- submitting --- */

/* Those that the machine has; to take them down, also those that it may have. */
static int submit_nics(struct node *node, struct vm *vm, worker_run_fn *run, worker_done_fn *done,
                       struct error *err)
{
    struct nic_job *job = calloc(1, sizeof *job);
    int result;

    if (!job)
        return error_set(err, ENOMEM, "memory is short");
    *job = (struct nic_job){ .node = node, .vm = vm };
    memcpy(job->tap_fds, vm->tap_fds, sizeof job->tap_fds);
    for (unsigned place = 0; place < VMM_NICS_MAX; place++)
        if (run == nics_down ? vm_nic_at(vm, place) : vm_nic_in_machine(vm, place))
            vm_nic_config(node, vm, vm_nic_at(vm, place), &job->nics[job->count++]);
    if (job->count == 0) {
        free(job);
        return 0;
    }
    result = worker_submit(node->net_worker, run, done, job, err);
    if (result < 0) {
        free(job);
        return result;
    }
    memset(vm->tap_fds, 0xff, sizeof vm->tap_fds); /* all -1 */
    vm->jobs++;
    return 0;
}

static struct process_job *process_job_new(struct node *node, struct vm *vm)
{
    struct process_job *job = calloc(1, sizeof *job);

    if (!job)
        return NULL;
    *job = (struct process_job){
        .node = node,
        .vm = vm,
        .instance = vm->head.instance,
        .process = { .pidfd = -1,
                     .control_fd = -1,
                     .page_fd = -1,
                     .log_fd = take_fd(&vm->log_fd) }, /* of a process that has ended */
        .remove = vm->head.deleting,
        .share = vm->spec.share,
    };
    memcpy(job->hostname, vm->head.id, sizeof job->hostname);
    vm_files_choose(node, vm, &job->files);
    vm_fork_drop(vm);
    return job;
}

static int submit_process(struct node *node, struct vm *vm, worker_run_fn *run,
                          worker_done_fn *done, struct error *err)
{
    struct process_job *job = process_job_new(node, vm);
    int result;

    if (!job)
        return error_set(err, ENOMEM, "memory is short");
    result = worker_submit(node->launch_worker, run, done, job, err);
    if (result < 0) {
        vm->log_fd = take_fd(&job->process.log_fd);
        free_process_job(job);
    } else {
        vm->jobs++;
    }
    return result;
}

void vm_launch(struct node *node, struct vm *vm)
{
    struct error err = { 0 };

    vm_console_catch_up(node, vm);
    vm->placed = true;
    vm->launch_error = 0;
    vm->launch_message[0] = '\0';
    if (vm->restore == VM_RESTORE_DUE)
        vm->restore = VM_RESTORE_UNDER_WAY;
    vm->forked = vm->fork != NULL;
    vm->launch_ns = loop_now_ns();
    vm->held_ns = 0;
    memcpy(vm->boot_id, node->boot_id, sizeof vm->boot_id);
    vm_set_state(node, vm, VM_STARTING, "");
    node_tend_cgroup(node);
    if (submit_process(node, vm, start_process, process_is_started, &err) < 0) {
        vm_ended(node, vm, VM_CAUSE_START_FAILED, err.code, err.message);
        return;
    }
    if (submit_nics(node, vm, nics_up, nics_are_up, &err) < 0) {
        /* Told when the process's job is back. */
        vm->launch_error = err.code;
        snprintf(vm->launch_message, sizeof vm->launch_message, "memory is short");
    }
}

/* --- cleaning up --- */

static void clean_failed(struct vm *vm, const struct error *err)
{
    if (vm->clean_error.code == 0)
        vm->clean_error = *err;
}

/* All of it was tried.  What is left of the VM is still in the way of its next start, or its row
 * of being removed. */
static void cleaned(struct node *node, struct vm *vm)
{
    if (vm->clean_error.code != 0) {
        vm->placed = true;
        node_retry_later(node, &vm->head, "clean up", &vm->clean_error);
        if (vm->head.deleting)
            vm_set_state(node, vm, VM_DELETING, vm->clean_error.message);
    } else {
        node_retry_over(&vm->head);
    }
    vm_step(node, vm);
}

static void cleaned_part(struct node *node, struct vm *vm, int result, const struct error *err)
{
    if (result < 0)
        clean_failed(vm, err);
    if (--vm->jobs == 0)
        cleaned(node, vm);
}

static void nics_are_down(void *argument, int result, const struct error *err)
{
    struct nic_job *job = argument;

    cleaned_part(job->node, job->vm, result, err);
    free(job);
}

static void process_is_cleaned(void *argument, int result, const struct error *err)
{
    struct process_job *job = argument;

    cleaned_part(job->node, job->vm, result, err);
    free_process_job(job);
}

void vm_clean_up(struct node *node, struct vm *vm)
{
    struct error err = { 0 };

    vm->placed = false; /* a deletion that comes meanwhile sets it again: more is to be removed */
    vm->clean_error = (struct error){ 0 };
    if (submit_nics(node, vm, nics_down, nics_are_down, &err) < 0)
        clean_failed(vm, &err);
    if (submit_process(node, vm, clean_process, process_is_cleaned, &err) < 0)
        clean_failed(vm, &err);
    if (vm->jobs == 0)
        cleaned(node, vm);
}
