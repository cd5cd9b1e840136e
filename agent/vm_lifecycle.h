/* vm_lifecycle.h - what may happen to a VM in which state, and what follows.  Pure: no clock, no
 * I/O. */
#pragma once
#include <stdbool.h>

enum vm_state {
    VM_NONE,     /* in tables: the event is refused */
    VM_CREATING, /* recorded; its images or volumes are not ready yet */
    VM_STOPPED,
    VM_STARTING,
    VM_RUNNING,
    VM_PAUSING,
    VM_PAUSED,
    VM_STOPPING,
    VM_FAILED,
    VM_DELETING,
    VM_STATE_COUNT,
};

enum vm_event {
    /* asked for */
    VM_EVENT_START,
    VM_EVENT_STOP,
    VM_EVENT_KILL,
    VM_EVENT_REBOOT,
    VM_EVENT_PAUSE,
    VM_EVENT_RESUME,
    VM_EVENT_DELETE, /* with force; without, only where nothing runs */
    /* observed */
    VM_EVENT_LAUNCH, /* all it needs is there, its process is being made */
    VM_EVENT_READY,
    VM_EVENT_HELD,     /* its vCPUs stand still */
    VM_EVENT_RELEASED, /* they run again */
    VM_EVENT_EXIT_GOOD,
    VM_EVENT_EXIT_BAD,
    VM_EVENT_COUNT,
};

/* VM_NONE: refused. */
enum vm_state vm_lifecycle_next(enum vm_state state, enum vm_event event);

const char *vm_state_name(enum vm_state state);
enum vm_state vm_state_parse(const char *name); /* VM_NONE if there is no such */
const char *vm_event_name(enum vm_event event);

/* A process is, or may be, there. */
bool vm_state_is_live(enum vm_state state);

enum vm_restart { VM_RESTART_NEVER, VM_RESTART_ON_FAILURE, VM_RESTART_ALWAYS, VM_RESTART_COUNT };
enum vm_on_reboot { VM_ON_REBOOT_RESTART, VM_ON_REBOOT_STOP, VM_ON_REBOOT_COUNT };
extern const char *const vm_restart_names[VM_RESTART_COUNT];
extern const char *const vm_on_reboot_names[VM_ON_REBOOT_COUNT];

/* Why a VM's process is gone. */
enum vm_cause {
    VM_CAUSE_POWEROFF, /* the guest went to S5 */
    VM_CAUSE_REBOOT,   /* the guest asked for a reset */
    VM_CAUSE_PANIC,
    VM_CAUSE_TRIPLE_FAULT,
    VM_CAUSE_KVM_ERROR,
    VM_CAUSE_VMM_ERROR,    /* the VMM gave up, or was killed by a signal that we did not send */
    VM_CAUSE_CONFIG,       /* could not be built */
    VM_CAUSE_START_FAILED, /* no process, or it never said ready */
    VM_CAUSE_KILLED,       /* by us: kill, delete, stop time-out */
    VM_CAUSE_OOM,
    VM_CAUSE_UNKNOWN,     /* ended while no agent ran, and left no word */
    VM_CAUSE_HOST_REBOOT, /* or all VMs were to end: their VMMs got SIGTERM */
    VM_CAUSE_COUNT,
};
const char *vm_cause_name(enum vm_cause cause);
bool vm_cause_is_failure(enum vm_cause cause);  /* neither its guest nor anybody asked for that */
enum vm_cause vm_cause_parse(const char *name); /* VM_CAUSE_COUNT if there is no such */

struct vm_exit_context {
    enum vm_cause cause;
    enum vm_restart restart;
    enum vm_on_reboot on_reboot;
    bool autostart;
    bool desired_running; /* false: it was asked to stop */
    bool reboot_asked;    /* by the reboot verb */
};

enum vm_then { VM_THEN_STAY, VM_THEN_START, VM_THEN_START_LATER /* with backoff */ };

struct vm_verdict {
    enum vm_state state; /* VM_STOPPED or VM_FAILED */
    bool desired_running;
    enum vm_then then;
};

/* The event table of the API's contract ("What happens to a VM"). */
struct vm_verdict vm_lifecycle_after_exit(const struct vm_exit_context *context);

/* Milliseconds before start number `failures` in a row (1 = the first): 1 s doubling up to 5 min.
 */
int vm_lifecycle_backoff_ms(unsigned failures);
