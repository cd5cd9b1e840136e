#include "agent/vm_lifecycle.h"

#include <stddef.h>
#include <string.h>

/* VM_NONE is 0, so an empty cell means: event refused (HTTP 409).  A paused guest cannot answer the
 * power button: it is resumed first, or killed. */
static const enum vm_state next_state[VM_STATE_COUNT][VM_EVENT_COUNT] = {
    [VM_CREATING] = { [VM_EVENT_STOP] = VM_STOPPED,
                      [VM_EVENT_KILL] = VM_STOPPED,
                      [VM_EVENT_DELETE] = VM_DELETING,
                      [VM_EVENT_LAUNCH] = VM_STARTING },
    [VM_STOPPED] = { [VM_EVENT_START] = VM_CREATING,
                     [VM_EVENT_KILL] = VM_STOPPED,
                     [VM_EVENT_DELETE] = VM_DELETING,
                     [VM_EVENT_LAUNCH] = VM_STARTING },
    [VM_STARTING] = { [VM_EVENT_STOP] = VM_STOPPING,
                      [VM_EVENT_KILL] = VM_STOPPING,
                      [VM_EVENT_DELETE] = VM_DELETING,
                      [VM_EVENT_READY] = VM_RUNNING,
                      [VM_EVENT_EXIT_GOOD] = VM_STOPPED,
                      [VM_EVENT_EXIT_BAD] = VM_FAILED },
    [VM_RUNNING] = { [VM_EVENT_STOP] = VM_STOPPING,
                     [VM_EVENT_KILL] = VM_STOPPING,
                     [VM_EVENT_REBOOT] = VM_STOPPING,
                     [VM_EVENT_PAUSE] = VM_PAUSING,
                     [VM_EVENT_RESUME] = VM_RUNNING,
                     [VM_EVENT_DELETE] = VM_DELETING,
                     [VM_EVENT_HELD] = VM_PAUSED, /* found so, though nobody wants it */
                     [VM_EVENT_RELEASED] = VM_RUNNING,
                     [VM_EVENT_EXIT_GOOD] = VM_STOPPED,
                     [VM_EVENT_EXIT_BAD] = VM_FAILED },
    [VM_PAUSING] = { [VM_EVENT_KILL] = VM_STOPPING,
                     [VM_EVENT_PAUSE] = VM_PAUSING,
                     [VM_EVENT_RESUME] = VM_RUNNING,
                     [VM_EVENT_DELETE] = VM_DELETING,
                     [VM_EVENT_HELD] = VM_PAUSED,
                     [VM_EVENT_RELEASED] = VM_RUNNING, /* it was never told, or is not to be */
                     [VM_EVENT_EXIT_GOOD] = VM_STOPPED,
                     [VM_EVENT_EXIT_BAD] = VM_FAILED },
    [VM_PAUSED] = { [VM_EVENT_KILL] = VM_STOPPING,
                    [VM_EVENT_PAUSE] = VM_PAUSED,
                    [VM_EVENT_RESUME] = VM_RUNNING,
                    [VM_EVENT_DELETE] = VM_DELETING,
                    [VM_EVENT_HELD] = VM_PAUSED,
                    [VM_EVENT_RELEASED] = VM_RUNNING,
                    [VM_EVENT_EXIT_GOOD] = VM_STOPPED,
                    [VM_EVENT_EXIT_BAD] = VM_FAILED },
    [VM_STOPPING] = { [VM_EVENT_STOP] = VM_STOPPING,
                      [VM_EVENT_KILL] = VM_STOPPING,
                      [VM_EVENT_DELETE] = VM_DELETING,
                      [VM_EVENT_READY] = VM_STOPPING,
                      [VM_EVENT_EXIT_GOOD] = VM_STOPPED,
                      [VM_EVENT_EXIT_BAD] = VM_STOPPED },
    [VM_FAILED] = { [VM_EVENT_START] = VM_CREATING,
                    [VM_EVENT_STOP] = VM_STOPPED,
                    [VM_EVENT_KILL] = VM_STOPPED,
                    [VM_EVENT_DELETE] = VM_DELETING,
                    [VM_EVENT_LAUNCH] = VM_STARTING },
    [VM_DELETING] = { [VM_EVENT_KILL] = VM_DELETING,
                      [VM_EVENT_DELETE] = VM_DELETING,
                      [VM_EVENT_READY] = VM_DELETING,
                      [VM_EVENT_EXIT_GOOD] = VM_DELETING,
                      [VM_EVENT_EXIT_BAD] = VM_DELETING },
};

static const char *const state_names[VM_STATE_COUNT] = {
    [VM_NONE] = "none",         [VM_CREATING] = "creating", [VM_STOPPED] = "stopped",
    [VM_STARTING] = "starting", [VM_RUNNING] = "running",   [VM_PAUSING] = "pausing",
    [VM_PAUSED] = "paused",     [VM_STOPPING] = "stopping", [VM_FAILED] = "failed",
    [VM_DELETING] = "deleting",
};

static const char *const event_names[VM_EVENT_COUNT] = {
    [VM_EVENT_START] = "start",    [VM_EVENT_STOP] = "stop",         [VM_EVENT_KILL] = "kill",
    [VM_EVENT_REBOOT] = "reboot",  [VM_EVENT_PAUSE] = "pause",       [VM_EVENT_RESUME] = "resume",
    [VM_EVENT_HELD] = "held",      [VM_EVENT_RELEASED] = "released", [VM_EVENT_DELETE] = "delete",
    [VM_EVENT_LAUNCH] = "launch",  [VM_EVENT_READY] = "ready",       [VM_EVENT_EXIT_GOOD] = "exit",
    [VM_EVENT_EXIT_BAD] = "crash",
};

const char *const vm_restart_names[VM_RESTART_COUNT] = {
    [VM_RESTART_NEVER] = "never",
    [VM_RESTART_ON_FAILURE] = "on-failure",
    [VM_RESTART_ALWAYS] = "always",
};

const char *const vm_on_reboot_names[VM_ON_REBOOT_COUNT] = {
    [VM_ON_REBOOT_RESTART] = "restart",
    [VM_ON_REBOOT_STOP] = "stop",
};

/* How a cause counts: which row of the contract's table it belongs to. */
enum exit_row { ROW_POWEROFF, ROW_REBOOT, ROW_CRASH, ROW_KILLED, ROW_HOST_REBOOT };

static const struct {
    const char *name;
    enum exit_row row;
} causes[VM_CAUSE_COUNT] = {
    [VM_CAUSE_POWEROFF] = { "guest-poweroff", ROW_POWEROFF },
    [VM_CAUSE_REBOOT] = { "guest-reboot", ROW_REBOOT },
    [VM_CAUSE_PANIC] = { "guest-panic", ROW_CRASH },
    [VM_CAUSE_TRIPLE_FAULT] = { "triple-fault", ROW_CRASH },
    [VM_CAUSE_KVM_ERROR] = { "kvm-error", ROW_CRASH },
    [VM_CAUSE_VMM_ERROR] = { "vmm-error", ROW_CRASH },
    [VM_CAUSE_CONFIG] = { "config-error", ROW_CRASH },
    [VM_CAUSE_START_FAILED] = { "start-failed", ROW_CRASH },
    [VM_CAUSE_KILLED] = { "killed", ROW_KILLED },
    [VM_CAUSE_OOM] = { "oom-killed", ROW_CRASH },
    [VM_CAUSE_UNKNOWN] = { "unknown-agent-was-down", ROW_CRASH },
    [VM_CAUSE_HOST_REBOOT] = { "host-reboot", ROW_HOST_REBOOT },
};

enum vm_state vm_lifecycle_next(enum vm_state state, enum vm_event event)
{
    return next_state[state][event];
}

const char *vm_state_name(enum vm_state state)
{
    return state_names[state];
}

enum vm_state vm_state_parse(const char *name)
{
    for (int state = VM_NONE + 1; state < VM_STATE_COUNT; state++)
        if (strcmp(name, state_names[state]) == 0)
            return (enum vm_state)state;
    return VM_NONE;
}

const char *vm_event_name(enum vm_event event)
{
    return event_names[event];
}

bool vm_state_is_live(enum vm_state state)
{
    return state == VM_STARTING || state == VM_RUNNING || state == VM_PAUSING ||
           state == VM_PAUSED || state == VM_STOPPING;
}

const char *vm_cause_name(enum vm_cause cause)
{
    return causes[cause].name;
}

bool vm_cause_is_failure(enum vm_cause cause)
{
    return causes[cause].row == ROW_CRASH;
}

enum vm_cause vm_cause_parse(const char *name)
{
    int cause = 0;

    while (cause < VM_CAUSE_COUNT && strcmp(name, causes[cause].name) != 0)
        cause++;
    return (enum vm_cause)cause;
}

struct vm_verdict vm_lifecycle_after_exit(const struct vm_exit_context *c)
{
    static const struct vm_verdict stay_stopped = { VM_STOPPED, false, VM_THEN_STAY };
    static const struct vm_verdict start_again = { VM_STOPPED, true, VM_THEN_START };
    static const struct vm_verdict start_later = { VM_STOPPED, true, VM_THEN_START_LATER };
    static const struct vm_verdict failed = { VM_FAILED, true, VM_THEN_STAY };
    static const struct vm_verdict retry = { VM_FAILED, true, VM_THEN_START_LATER };

    if (!c->desired_running)
        return stay_stopped;
    if (c->reboot_asked)
        return start_again;
    switch (causes[c->cause].row) {
    case ROW_POWEROFF:
        return c->restart == VM_RESTART_ALWAYS ? start_later : stay_stopped;
    case ROW_REBOOT:
        if (c->on_reboot == VM_ON_REBOOT_RESTART || c->restart == VM_RESTART_ALWAYS)
            return start_again;
        return stay_stopped;
    case ROW_HOST_REBOOT:
        /* Desired stays as it was: an operator may start it by hand and it is as before. */
        return c->autostart ? start_again : (struct vm_verdict){ VM_STOPPED, true, VM_THEN_STAY };
    case ROW_KILLED:
        return stay_stopped;
    case ROW_CRASH:
        break;
    }
    return c->restart == VM_RESTART_NEVER ? failed : retry;
}

int vm_lifecycle_backoff_ms(unsigned failures)
{
    const int cap_ms = 5 * 60 * 1000;
    int ms = 1000;

    while (failures > 1 && ms < cap_ms) {
        ms *= 2;
        failures--;
    }
    return ms < cap_ms ? ms : cap_ms;
}
