/* A VM's process is watched; when it has ended, what it left says why.  All of that is untrusted.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#include "agent/jail.h"
#include "agent/jail_files.h"
#include "agent/node_console.h"
#include "agent/node_internal.h"
#include "agent/vm_hotplug.h"
#include "agent/vm_vsock.h"
#include "agent/vmm_client.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/process.h"

void vm_forget_process(struct vm *vm)
{
    vm->pid_source = loop_remove(vm->pid_source);
    vm->client = vmm_client_free(vm->client);
    vm_console_forget(vm);
    vm_vsock_forget(vm);
    vm_hotplug_is_lost(vm);
    cleanup_close(&vm->pidfd);
    cleanup_close(&vm->page_fd);
    cleanup_close(&vm->status_fd);
    vm->pid = 0;
    vm->stop_sent = false;
    vm->stop_by_ms = 0;
    vm->kill_sent = false;
    vm->sacrificed[0] = '\0';
    vm->balance = (struct balancer_memory){ 0 };
    vm->plan = (struct balancer_plan){ 0 };
    vm->high_mib = vm->low_mib = 0;
    vm->heard_ms = 0;
    vm->told = VM_TOLD_NOTHING;
    vm->full[0] = '\0';
    vm->silent = false;
    vm->hold_timer = loop_cancel(vm->hold_timer);
    vm->memory_base[0] = '\0';
}

/* What the process itself said, if it said anything.  Who powered off because of SIGTERM was asked
 * by whoever ends the host, or all VMs: what follows is what follows the host's reboot. */
static bool cause_of_page(const struct stats_page *page, enum vm_cause *ret_cause)
{
    static const int causes[EXIT_REASON_COUNT] = {
        [EXIT_REASON_POWEROFF] = VM_CAUSE_POWEROFF,
        [EXIT_REASON_REBOOT] = VM_CAUSE_REBOOT,
        [EXIT_REASON_PANIC] = VM_CAUSE_PANIC,
        [EXIT_REASON_TRIPLE_FAULT] = VM_CAUSE_TRIPLE_FAULT,
        [EXIT_REASON_KVM_ERROR] = VM_CAUSE_KVM_ERROR,
        [EXIT_REASON_VMM_ERROR] = VM_CAUSE_VMM_ERROR,
        [EXIT_REASON_CONFIG] = VM_CAUSE_CONFIG,
    };

    if (page->exit_reason == EXIT_REASON_NONE || page->exit_reason >= EXIT_REASON_COUNT)
        return false;
    *ret_cause = page->exit_reason == EXIT_REASON_POWEROFF && page->exit_detail == SIGTERM
                     ? VM_CAUSE_HOST_REBOOT
                     : (enum vm_cause)causes[page->exit_reason];
    return true;
}

/* Untrusted text, into JSON and logs. */
static void clean_text(char *text)
{
    for (char *c = text; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
}

/* Nobody knows it after a reboot of the host: a snapshot must not come back over disks that may
 * have moved on. */
void vm_restore_ended(const struct node *node, struct vm *vm, bool host_rebooted)
{
    struct stats_page page;

    if (vm->restore != VM_RESTORE_UNDER_WAY)
        return;
    vm_read_page(node, vm, &page);
    vm->restore = host_rebooted || page.start_ns != 0 ? VM_RESTORE_DONE : VM_RESTORE_DUE;
}

/* An earlier agent ended before it had told the VMM what to be: nothing of the guest ever ran. */
static void begin_again(struct node *node, struct vm *vm)
{
    vm->timer = loop_cancel(vm->timer);
    vm_restore_ended(node, vm, /* host_rebooted= */ false);
    vm_forget_process(vm);
    vm->state = VM_CREATING;
    vm->start_due = vm->spec.desired_running;
    vm_step(node, vm);
}

/* The process is gone.  reaped: `status` is its wait status. */
static void conclude(struct node *node, struct vm *vm, bool reaped, int status)
{
    struct stats_page page;
    enum vm_cause cause;
    char text[140] = "";
    int detail = 0;

    if (vm->launch_error != 0) {
        vm_ended(node, vm, VM_CAUSE_START_FAILED, vm->launch_error, vm->launch_message);
        return;
    }
    if (vm_read_page(node, vm, &page) < 0 && !reaped && !vm->kill_sent &&
        vm->state == VM_STARTING) {
        begin_again(node, vm);
        return;
    }
    if (cause_of_page(&page, &cause)) {
        detail = page.exit_detail;
        snprintf(text, sizeof text, "%s%s", cause == VM_CAUSE_HOST_REBOOT ? "SIGTERM: " : "",
                 page.exit_text);
        clean_text(text);
    } else if (vm->sacrificed[0]) {
        cause = VM_CAUSE_OOM;
        snprintf(text, sizeof text, "%s", vm->sacrificed);
    } else if (jail_cgroup_oom_kills(jail_cgroups(node->jail), vm->head.instance) > 0) {
        cause = VM_CAUSE_OOM;
    } else if (vm->kill_sent) {
        cause = VM_CAUSE_KILLED;
    } else if (!reaped && page.exit_detail == SIGTERM) { /* it did not listen */
        cause = VM_CAUSE_HOST_REBOOT;
        detail = SIGTERM;
        snprintf(text, sizeof text, "SIGTERM, then killed");
    } else if (!reaped) {
        cause = VM_CAUSE_UNKNOWN;
    } else {
        cause = VM_CAUSE_VMM_ERROR;
        detail = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
        snprintf(text, sizeof text, "%s %d", WIFSIGNALED(status) ? "signal" : "exit status",
                 detail);
    }
    vm_ended(node, vm, cause, detail, text);
}

void vm_conclude(struct node *node, struct vm *vm, bool host_rebooted)
{
    memcpy(vm->boot_id, node->boot_id, sizeof vm->boot_id); /* that reboot is dealt with */
    if (host_rebooted)
        vm_ended(node, vm, VM_CAUSE_HOST_REBOOT, 0, "");
    else
        conclude(node, vm, /* reaped= */ false, 0);
}

static void on_process_end(void *context, uint32_t events)
{
    struct vm_closure *closure = context;
    struct vm *vm = closure->vm;
    int status = 0;
    int result = process_reap(vm->pidfd, &status);

    (void)events;
    if (result == -EAGAIN)
        return;
    conclude(closure->node, vm, result == 0, status);
}

int vm_read_page(const struct node *node, const struct vm *vm, struct stats_page *ret_page)
{
    return vm->page_fd >= 0 ? jail_read_open_page(vm->page_fd, ret_page)
                            : jail_read_page(node->jail, vm->head.instance, ret_page);
}

void vm_open_process(const struct node *node, struct vm *vm)
{
    char path[40];

    snprintf(path, sizeof path, "/proc/%d/status", (int)vm->pid);
    vm->status_fd = open(path, O_RDONLY | O_CLOEXEC);
    vm->page_fd = jail_open_page(node->jail, vm->head.instance);
}

void vm_watch_process(struct node *node, struct vm *vm)
{
    struct error err = { 0 };

    vm_open_process(node, vm);
    if (loop_add(node->loop, vm->pidfd, EPOLLIN, on_process_end, &vm->closure, &vm->pid_source,
                 &err) < 0) {
        log_error(node->log, "vm %s: cannot watch its process: %s", vm->head.id, err.message);
        process_kill(vm->pidfd, SIGKILL);
        vm_ended(node, vm, VM_CAUSE_START_FAILED, err.code, err.message);
    }
}
