/* What is done about a VM: one level-triggered step function, and the handling of its end.  The
 * decisions are vm_lifecycle.c's; the jobs that carry them out are vm_launch.c's. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "agent/jail.h"
#include "agent/node_internal.h"
#include "agent/node_schedule.h"
#include "agent/node_snapshot.h"
#include "agent/vm_fork.h"
#include "agent/vm_hotplug.h"
#include "agent/vm_memory.h"
#include "agent/vmm_client.h"
#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/process.h"

#define STEADY_MS       (10 * 60 * 1000) /* after such a life, a crash is the first again */
#define SHORT_MS        (10 * 1000)
#define REBOOTS_AT_ONCE 5 /* of guests that reboot within SHORT_MS */
#define PUT_OFFS_MAX    5 /* starts that are put off: 16 s between two tries at most */
#define HOLD_LIMIT_MS   (30 * 1000)

void vm_set_state(struct node *node, struct vm *vm, enum vm_state state, const char *reason)
{
    bool same = vm->state == state && strcmp(vm->reason, reason) == 0;

    if (vm->state != state)
        vm->since_ms = timestamp_now_ms();
    vm->state = state;
    snprintf(vm->reason, sizeof vm->reason, "%s", reason);
    if (!same && state == VM_FAILED && vm_cause_parse(reason) == VM_CAUSE_COUNT) /* else it ended */
        log_warning(node->log, "vm %s: failed: %s", vm->head.id, reason);
    if (same)
        return;
    log_debug(node->log, "vm %s: %s%s%s", vm->head.id, vm_state_name(state), reason[0] ? ": " : "",
              reason);
    node_save(node, &vm->head);
}

/* Nothing is under way, so what was asked for up to now has been dealt with. */
static void observe(struct node *node, struct vm *vm)
{
    if (vm->observed_generation == vm->head.generation)
        return;
    vm->observed_generation = vm->head.generation;
    node_save(node, &vm->head);
}

/* --- stopping --- */

static void kill_process(struct node *node, struct vm *vm)
{
    if (vm->pidfd < 0 || vm->kill_sent)
        return;
    vm->kill_sent = true;
    if (process_kill(vm->pidfd, SIGKILL) < 0)
        log_error(node->log, "vm %s: cannot kill process %d", vm->head.id, (int)vm->pid);
}

static void on_stop_timeout(void *context)
{
    struct vm_closure *closure = context;
    struct vm *vm = closure->vm;

    vm->timer = NULL;
    log_warning(closure->node->log, "vm %s: did not stop within %u s, killing it", vm->head.id,
                vm->spec.stop_timeout_s);
    kill_process(closure->node, vm);
}

/* The guest has so long from when it was first asked, however often the agent begins anew. */
static int64_t stop_within_ms(struct vm *vm)
{
    int64_t most_ms = (int64_t)vm->spec.stop_timeout_s * 1000;
    int64_t left_ms = vm->stop_by_ms - loop_now_ms();

    if (vm->stop_by_ms == 0 || left_ms > most_ms) {
        vm->stop_by_ms = loop_now_ms() + most_ms;
        left_ms = most_ms;
    }
    return left_ms > 0 ? left_ms : 0;
}

static void stop(struct node *node, struct vm *vm)
{
    struct error err = { 0 };
    int64_t within_ms = stop_within_ms(vm);

    vm_set_state(node, vm, VM_STOPPING, vm->spec.desired_running ? "reboot" : "stop");
    if (vm->stop_sent || vm->kill_sent)
        return;
    vm->stop_sent = true;
    loop_cancel(vm->timer);
    vm->timer = loop_after(node->loop, within_ms, on_stop_timeout, &vm->closure);
    if (!vm->client || !vm->timer || vmm_client_power_button(vm->client, &err) < 0)
        kill_process(node, vm); /* it cannot be asked */
}

/* --- pausing --- */

static int64_t hold_limit_ms(const struct vm *vm)
{
    return HOLD_LIMIT_MS + vm_memory_file_ms(vm);
}

static void tell_pause(struct node *node, struct vm *vm, bool pause)
{
    struct error err = { .message = "there is no connection" };

    vm->told = pause ? VM_TOLD_PAUSE : VM_TOLD_RESUME;
    if (!vm->client || vmm_client_pause(vm->client, pause, &err) < 0)
        log_error(node->log, "vm %s: cannot be asked to %s: %s", vm->head.id,
                  pause ? "pause" : "resume", err.message);
}

/* One message for each change of mind; the answer sets the state.  Told again by the next agent:
 * it does not know what the last one said. */
static void pause_or_resume(struct node *node, struct vm *vm)
{
    bool pause = vm->intent == VM_INTENT_PAUSE || snapshot_holds(vm->snapshot) || vm_fork_holds(vm);

    if (pause && vm->state != VM_PAUSING)
        vm_set_state(node, vm, vm->state == VM_RUNNING ? VM_PAUSING : vm->state,
                     vm_pause_reason(vm));
    if (vm->told == (pause ? VM_TOLD_PAUSE : VM_TOLD_RESUME) ||
        (!pause && vm->state == VM_RUNNING && vm->told == VM_TOLD_NOTHING))
        return;
    tell_pause(node, vm, pause);
}

/* Slow or dead: it may still answer, and is not killed. */
static void is_silent(struct node *node, struct vm *vm)
{
    if (!vm->silent)
        log_warning(node->log, "vm %s: its VMM does not answer", vm->head.id);
    vm->silent = true;
    node_save(node, &vm->head);
}

void vm_see_silence(struct node *node, struct vm *vm)
{
    if (!vm->silent && vm->client && vmm_client_owes_ms(vm->client) > hold_limit_ms(vm))
        is_silent(node, vm);
}

static void on_hold_timeout(void *context)
{
    struct vm_closure *closure = context;
    struct vm *vm = closure->vm;
    char why[64];

    vm->hold_timer = NULL;
    if (!snapshot_awaits_vmm(vm->snapshot) && !vm_fork_holds(vm))
        return;
    is_silent(closure->node, vm);
    snprintf(why, sizeof why, "its VMM did not answer within %lld s",
             (long long)hold_limit_ms(vm) / 1000);
    if (snapshot_awaits_vmm(vm->snapshot))
        snapshot_vm_is_late(closure->node, vm->snapshot, why);
    if (vm->fork_asked || vm_fork_holds(vm)) /* also the fork that the snapshot was for */
        vm_fork_is_late(closure->node, vm, why);
}

void vm_limit_hold(struct node *node, struct vm *vm)
{
    if (!vm->hold_timer && (!vm->snapshot || vm->snapshot->step <= SNAPSHOT_WRITE))
        vm->hold_timer = loop_after(node->loop, hold_limit_ms(vm), on_hold_timeout, &vm->closure);
}

void vm_let_go(struct node *node, struct vm *vm)
{
    if (vm->told == VM_TOLD_PAUSE && vm->intent != VM_INTENT_PAUSE && vm->client)
        tell_pause(node, vm, false);
}

/* Whatever else was asked meanwhile, a stop, say, needs a guest that runs. */
void vm_release(struct node *node, struct vm *vm)
{
    vm->hold_timer = loop_cancel(vm->hold_timer);
    if (vm->intent == VM_INTENT_PAUSE)
        vm->held_ns = 0;
    if (!snapshot_holds(vm->snapshot) && !vm_fork_holds(vm))
        vm_let_go(node, vm);
    vm_step(node, vm);
}

/* --- starting --- */

void vm_missing_volume(const struct node *node, const char *id, char *ret_what, size_t size,
                       bool *ret_never)
{
    const struct volume *volume = node_find_volume(node, id);

    if (volume && volume->state == PROGRESS_READY) {
        /* Once it runs nothing else tells what a fork's disks stand on. */
        if (volume->fork[0] && !resource_is_saved(&volume->head))
            snprintf(ret_what, size, "volume %s is being recorded", id);
        return;
    }
    snprintf(ret_what, size, "volume %s is %s", id,
             volume ? resource_state_name(&volume->head) : "gone");
    *ret_never = !volume || volume->state == PROGRESS_FAILED;
}

void vm_missing_network(const struct node *node, const char *id, char *ret_what, size_t size,
                        bool *ret_never)
{
    const struct network *network = node_find_network(node, id);

    if (network && network->state == PROGRESS_READY)
        return;
    snprintf(ret_what, size, "network %s is %s", id,
             network ? resource_state_name(&network->head) : "gone");
    *ret_never = !network; /* one that failed is tried again */
}

static void missing_for_start(const struct node *node, const struct vm *vm, char *ret_what,
                              size_t size, bool *ret_never)
{
    const struct vm_spec *spec = &vm->spec;
    const struct vm_spec *boot = vm_boot_spec(node, vm);
    const struct snapshot *snapshot = node_find_snapshot(node, spec->snapshot);
    const char *images[2] = { boot->kernel, boot->initrd };

    ret_what[0] = '\0';
    *ret_never = false;
    if (spec->snapshot[0] && !vm_fork_is_due(vm) &&
        (!snapshot || snapshot->state != PROGRESS_READY)) {
        snprintf(ret_what, size, "snapshot %s is %s", spec->snapshot,
                 snapshot ? resource_state_name(&snapshot->head) : "gone");
        *ret_never = !snapshot || snapshot->state == PROGRESS_FAILED;
    }
    for (int i = 0; i < 2 && !ret_what[0]; i++) {
        const struct image *image = images[i][0] ? node_find_image(node, images[i]) : NULL;

        if (images[i][0] && (!image || image->state != PROGRESS_READY)) {
            snprintf(ret_what, size, "image %s is %s", images[i],
                     image ? resource_state_name(&image->head) : "gone");
            *ret_never = !image || image->state == PROGRESS_FAILED;
        }
    }
    for (unsigned i = 0; i < spec->disk_count && !ret_what[0]; i++)
        if (!vm_fork_awaits(vm) ||
            spec->disks[i].read_only) /* else made when the parent is forked */
            vm_missing_volume(node, spec->disks[i].volume, ret_what, size, ret_never);
    for (unsigned i = 0; i < spec->nic_count && !ret_what[0]; i++)
        vm_missing_network(node, spec->nics[i].network, ret_what, size, ret_never);
}

static void try_start(struct node *node, struct vm *vm)
{
    char what[160];
    bool never;

    missing_for_start(node, vm, what, sizeof what, &never);
    if (!what[0])
        vm_fork_await(node, vm, what, sizeof what, &never);
    if (never) {
        vm_fork_drop(vm);
        vm->start_due = false;
        vm_set_state(node, vm, VM_FAILED, what);
        observe(node, vm);
    } else if (what[0]) {
        vm_set_state(node, vm, VM_CREATING, what);
    } else {
        vm->start_due = false;
        vm_launch(node, vm);
    }
}

/* --- the step --- */

static void hold(struct node *node, struct vm *vm)
{
    if (vm->state == VM_RUNNING)
        vm->held_ns = loop_now_ns();
    vm_limit_hold(node, vm);
    pause_or_resume(node, vm);
}

static bool wants_stop(const struct vm *vm)
{
    return !vm->spec.desired_running || vm->intent == VM_INTENT_REBOOT;
}

static void step_live(struct node *node, struct vm *vm)
{
    if (vm->head.deleting || vm->intent == VM_INTENT_KILL) {
        if (!vm->head.deleting)
            vm_set_state(node, vm, VM_STOPPING, "kill");
        kill_process(node, vm);
    } else if (snapshot_holds(vm->snapshot)) {
        hold(node, vm);
        if (vm->state == VM_PAUSED)
            snapshot_vm_is_held(node, vm->snapshot);
    } else if (vm_fork_holds(vm)) {
        hold(node, vm);
        if (vm->state == VM_PAUSED)
            vm_fork_is_held(node, vm);
    } else if (wants_stop(vm) && snapshot_comes_first(vm->snapshot)) {
        return;
    } else if (wants_stop(vm) || vm->state == VM_STOPPING) {
        /* A stop that was begun is finished, also if the VM is wanted again: the guest may have
         * gone half of the way. */
        if ((vm->state == VM_PAUSED || vm->state == VM_PAUSING) && vm->told != VM_TOLD_RESUME)
            tell_pause(node, vm, false);
        stop(node, vm);
    } else if (vm->state == VM_RUNNING || vm->state == VM_PAUSING || vm->state == VM_PAUSED) {
        pause_or_resume(node, vm);
        vm_hotplug_step(node, vm);
        if (vm->state == (vm->intent == VM_INTENT_PAUSE ? VM_PAUSED : VM_RUNNING) &&
            vm_devices_are_settled(vm)) {
            observe(node, vm);
            vm_fork_step(node, vm);
        }
    }
}

static void step_down(struct node *node, struct vm *vm)
{
    if (vm->placed) {
        if (!vm->head.stuck)
            vm_clean_up(node, vm);
        return;
    }
    vm_hotplug_is_down(node, vm);
    if (vm->head.deleting) {
        vm->timer = loop_cancel(vm->timer);
        if (!vm->head.gone && vm_fork_leave(node, vm))
            node_gone(node, &vm->head);
        return;
    }
    if (vm->intent != VM_INTENT_NONE) {
        /* It ended before, or because of, what was asked. */
        vm->start_due |= vm->intent == VM_INTENT_REBOOT && vm->spec.desired_running;
        vm->intent = VM_INTENT_NONE;
    }
    if (vm->state == VM_FAILED && vm->spec.restart == VM_RESTART_NEVER)
        vm->timer = loop_cancel(vm->timer); /* the policy was changed while it waited */
    if (!vm->spec.desired_running) {
        vm->timer = loop_cancel(vm->timer);
        vm_fork_drop(vm);
        vm->start_due = vm->autostart_waits = false;
        vm->put_offs = 0;
        if (vm->state != VM_STOPPED)
            vm_set_state(node, vm, VM_STOPPED, "stop");
        observe(node, vm);
    } else if (vm->start_due) {
        vm->timer = loop_cancel(vm->timer);
        if (!vm->autostart_waits)
            try_start(node, vm);
    } else if (!vm->timer) {
        observe(node, vm);
    }
    node_notify(node, &vm->head);
}

void vm_step(struct node *node, struct vm *vm)
{
    if (vm->jobs > 0 || vm->head.hidden || node->ending)
        return;
    if (vm->head.deleting && vm->state != VM_DELETING)
        vm_set_state(node, vm, VM_DELETING, "");
    if (vm->pidfd >= 0)
        step_live(node, vm);
    else if (vm->devices.jobs == 0)
        step_down(node, vm);
}

/* --- the end --- */

static void on_backoff_over(void *context)
{
    struct vm_closure *closure = context;

    closure->vm->timer = NULL;
    closure->vm->start_due = true;
    vm_step(closure->node, closure->vm);
}

/* At once if there is no memory for the timer. */
static void start_later(struct node *node, struct vm *vm, int delay_ms)
{
    vm->timer = loop_after(node->loop, delay_ms, on_backoff_over, &vm->closure);
    vm->start_due = vm->timer == NULL;
}

void vm_put_off(struct node *node, struct vm *vm, const char *what)
{
    unsigned tries = ++vm->put_offs;
    int delay_ms = vm_lifecycle_backoff_ms(tries < PUT_OFFS_MAX ? tries : PUT_OFFS_MAX);
    char why[sizeof vm->reason];

    snprintf(why, sizeof why, "%s; tried again in %d s", what, delay_ms / 1000);
    if (tries == 1)
        log_warning(node->log, "vm %s: not started yet: %s", vm->head.id, why);
    vm_restore_ended(node, vm, /* host_rebooted= */ false);
    vm_forget_process(vm);
    loop_cancel(vm->timer);
    start_later(node, vm, delay_ms);
    vm_set_state(node, vm, VM_CREATING, why);
    vm_step(node, vm);
}

static void record_exit(struct node *node, struct vm *vm, enum vm_cause cause, int detail,
                        const char *text)
{
    vm->exit = (struct vm_exit){
        .set = true, .cause = cause, .detail = detail, .at_ms = timestamp_now_ms()
    };
    snprintf(vm->exit.text, sizeof vm->exit.text, "%s", text);
    node->exits[cause]++;
    log_write(node->log, vm_cause_is_failure(cause) ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO,
              "vm %s: ended: %s%s%s", vm->head.id, vm_cause_name(cause), text[0] ? ": " : "", text);
}

/* How long its process lived; one of an earlier agent counts as old. */
static int64_t lived_ms(const struct vm *vm)
{
    return vm->launch_ns > 0 ? loop_now_ms() - vm->launch_ns / 1000000 : STEADY_MS;
}

/* Ends in a row: crashes, and reboots by a guest that hardly ran.  What to do about them, later if
 * there were many, so that no guest keeps the agent busy. */
static enum vm_then count_failures(struct vm *vm, enum vm_then then, bool crashed, bool asked)
{
    int64_t lived = lived_ms(vm);
    bool short_lived = then == VM_THEN_START && !asked && lived < SHORT_MS;

    if (lived >= STEADY_MS)
        vm->failures = 0;
    if (crashed || short_lived || then == VM_THEN_START_LATER)
        vm->failures++;
    else
        vm->failures = 0;
    return short_lived && vm->failures > REBOOTS_AT_ONCE ? VM_THEN_START_LATER : then;
}

void vm_renew_json(struct vm *vm)
{
    json_t *json = vm_spec_json(&vm->spec);

    if (!json)
        return;
    json_decref(vm->head.spec);
    vm->head.spec = json;
}

static void apply_verdict(struct node *node, struct vm *vm, const struct vm_verdict *verdict)
{
    if (verdict->desired_running != vm->spec.desired_running) {
        vm->spec.desired_running = verdict->desired_running;
        vm_renew_json(vm);
        vm->head.generation++;
    }
    if (verdict->then != VM_THEN_STAY)
        vm->restarts++;
    if (verdict->then == VM_THEN_START)
        vm->start_due = true;
    if (verdict->then == VM_THEN_START_LATER) {
        int delay_ms = vm_lifecycle_backoff_ms(vm->failures);

        log_info(node->log, "vm %s: is started again in %d s", vm->head.id, delay_ms / 1000);
        start_later(node, vm, delay_ms);
    }
}

void vm_ended(struct node *node, struct vm *vm, enum vm_cause cause, int detail, const char *text)
{
    struct vm_exit_context context = {
        .cause = cause,
        .restart = vm->spec.restart,
        .on_reboot = vm->spec.on_reboot,
        .autostart = vm->spec.autostart,
        .desired_running = vm->spec.desired_running,
        .reboot_asked = vm->intent == VM_INTENT_REBOOT || vm->state == VM_STOPPING,
    };
    struct vm_verdict verdict = vm_lifecycle_after_exit(&context);
    enum vm_state next = vm_lifecycle_next(
        vm->state, verdict.state == VM_FAILED ? VM_EVENT_EXIT_BAD : VM_EVENT_EXIT_GOOD);

    vm->timer = loop_cancel(vm->timer);
    vm_restore_ended(node, vm, cause == VM_CAUSE_HOST_REBOOT);
    vm_forget_process(vm);
    record_exit(node, vm, cause, detail, text);
    if (vm->snapshot)
        snapshot_vm_is_lost(node, vm->snapshot, "the VM ended before it was written");
    vm_fork_is_lost(node, vm);
    if (vm->head.deleting) {
        vm_step(node, vm);
        return;
    }
    vm->intent = VM_INTENT_NONE;
    verdict.then =
        count_failures(vm, verdict.then, verdict.state == VM_FAILED, context.reboot_asked);
    apply_verdict(node, vm, &verdict);
    vm->autostart_waits = cause == VM_CAUSE_HOST_REBOOT && vm->start_due;
    vm_set_state(node, vm, next == VM_NONE ? verdict.state : next, vm_cause_name(cause));
    vm_step(node, vm);
    node_drain_go_on(node);
}
