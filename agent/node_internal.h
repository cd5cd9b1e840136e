/* node_internal.h - the node's own state, shared by the files of agent/ that work on it.  Loop
 * thread only; workers get copies of what they need. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "agent/config.h"
#include "agent/disk_base.h"
#include "agent/host_memory.h"
#include "agent/key_table.h"
#include "agent/node.h"
#include "agent/node_memory.h"
#include "agent/node_spec.h"
#include "agent/resource.h"
#include "agent/vm_devices.h"
#include "agent/vm_lifecycle.h"
#include "agent/vm_spec.h"
#include "base/histogram.h"
#include "base/error.h"
#include "net/network.h"
#include "scheduler/admission.h"
#include "scheduler/balancer.h"

struct change;
struct console_follower;
struct event_stream;
struct console_input;
struct database;
struct fork_source;
struct image_import;
struct image_store;
struct jail;
struct key_record;
struct log;
struct loop;
struct loop_source;
struct loop_timer;
struct operation;
struct process_job;
struct snapshot;
struct snapshot_store;
struct volume_copy;
struct volume_store;
struct vsock_request;
struct worker;
struct vmm_client;
struct vmm_client_ops;

#define BOOT_ID_TEXT 37

enum progress_state { PROGRESS_WORKING, PROGRESS_READY, PROGRESS_FAILED, PROGRESS_STATE_COUNT };

struct image {
    struct resource head;
    int kind; /* enum image_kind of storage/image.h */
    enum progress_state state;
    char reason[160];
    uint64_t size_bytes;
    uint64_t done_bytes;
    uint64_t total_bytes; /* 0 = not known */
    char sha256[65];
    char kernel_format[8];       /* "elf", "bzimage"; "" = not a kernel */
    struct image_import *import; /* while it runs */
    unsigned killed;             /* processes that imported it and were killed */
    struct node *node;           /* whose it is, for the import's calls */
    bool imported;               /* its file is whole: it is ready as soon as its row says so */
};

struct volume {
    struct resource head;
    enum progress_state state;
    char reason[160];
    uint64_t size_bytes;
    uint64_t wanted_bytes;    /* more than it has: it is growing (node_volume.h) */
    uint64_t allocated_bytes; /* as last looked at */
    struct disk_base source;  /* what it begins with */
    char fork[ID_MAX + 1]; /* the VM, a fork, of whose parent's source.disk it is a copy; "" = none.
                            * Then source.snapshot is set when that is forked */
    int clone;             /* enum volume_clone of storage/volume.h: as asked for */
    int format;            /* enum volume_format: as made */
    struct disk_base base; /* of a delta; it must stay */
    bool job_running;
    struct volume_copy *copy; /* borrowed from the job that makes it; NULL = none does */
};

/* How far its worker is; atomic. */
struct volume_copy {
    uint64_t done, total; /* bytes */
    bool cancelled;       /* set by the loop */
    bool taken;           /* by the worker, or by the loop, which takes it back; who is first */
    bool taken_back;      /* the loop's own: the volume is not its job's any more */
};

#define NETWORK_RECENT_MAX 64

struct network {
    struct resource head;
    enum progress_state state;
    char reason[160];
    struct network_config config;
    uint32_t recent[NETWORK_RECENT_MAX]; /* released addresses, the oldest first */
    size_t recent_count;
    unsigned restarts; /* how often it was restored, ever */
    bool job_running;
};

struct vm_nic {
    uint8_t mac[6];
    uint32_t ipv4; /* host order */
};

struct vm_exit {
    bool set;
    enum vm_cause cause;
    int detail;
    char text[160];
    int64_t at_ms;
};

/* What was asked for beyond the desired state. */
enum vm_intent {
    VM_INTENT_NONE,
    VM_INTENT_KILL,
    VM_INTENT_REBOOT,
    VM_INTENT_PAUSE, /* for as long as it is to be paused */
    VM_INTENT_COUNT,
};

/* What its VMM was last told by this agent. */
enum vm_told { VM_TOLD_NOTHING, VM_TOLD_PAUSE, VM_TOLD_RESUME };

/* Of the snapshot that it boots from: once, for its disks move on. */
enum vm_restore {
    VM_RESTORE_NONE, /* it boots a kernel */
    VM_RESTORE_DUE,
    VM_RESTORE_UNDER_WAY, /* its process is to restore it */
    VM_RESTORE_DONE,      /* its guest has run: from now on the snapshot's kernel boots */
    VM_RESTORE_COUNT
};

struct vm;

/* The context of a VM's timer and fds. */
struct vm_closure {
    struct node *node;
    struct vm *vm;
};

struct vm {
    struct resource head;
    struct vm_closure closure;
    struct vm_spec spec;
    enum vm_state state;
    char reason[160];
    int64_t since_ms;
    struct vm_exit exit;
    struct vm_nic nics[VMM_NICS_MAX]; /* by place */
    int64_t observed_generation;
    char boot_id[BOOT_ID_TEXT]; /* of the host when it was last started */
    unsigned restarts;          /* by policy, ever */
    unsigned failures;          /* in a row, whichever agent saw them; for the backoff */
    enum vm_intent intent;
    char full[ID_MAX + 16]; /* why it is paused, if a disk is full: "disk-full: " and its name */
    enum vm_restore restore;

    struct vm_devices devices;
    /* By place: of a fork's nics: what its guest has, behind its NAT; all zero = it is none. */
    struct vm_nic inside[VMM_NICS_MAX];
    bool forked;                /* its process is, or was, a fork's */
    char memory_base[UID_TEXT]; /* the snapshot that its process's memory is changes of */

    struct fork_source *fork;      /* owned: what its next start begins with, or NULL */
    struct loop_timer *fork_timer; /* while that cannot be asked for: how long it waits */
    struct fork_source *forking;   /* owned: while a fork is being made of it */
    bool fork_asked;               /* and its VMM is at it */
    struct snapshot *snapshot;     /* that is just being made of it */
    const struct vm_spec *next;    /* borrowed; what a change that is being committed makes of its
                                    * spec; NULL = none is */
    bool start_committing;         /* and that starts it */
    bool start_due;                /* start as soon as nothing stands against it */
    bool start_was_due;            /* for the agent that wrote its row */
    bool autostart_waits;          /* but not before its turn (node_autostart.c) */
    bool stop_sent;                /* the power button was pressed, by this agent */
    int64_t stop_by_ms;            /* CLOCK_MONOTONIC, in the row: its process lives no longer than
                                    * the host; 0 = it need not stop */
    bool kill_sent;                /* the process got SIGKILL from us */
    enum vm_told told;
    bool silent;                   /* its VMM owes an answer for too long */
    struct loop_timer *hold_timer; /* until it does */
    int64_t held_ns; /* since when a snapshot or fork keeps it from running; 0 = none does */
    struct loop_timer *timer; /* backoff, time to start, time to stop: whichever the state has */

    unsigned jobs;              /* on workers now; no step is taken before they are back */
    struct process_job *launch; /* owned; what the process's job brought, until all jobs are back */
    int launch_error;           /* first failure of the launch's jobs; 0 = none */
    char launch_message[160];   /* what it was */
    unsigned put_offs;          /* of its start in a row, because another process has a volume */
    struct error clean_error;   /* first failure of the clean-up's jobs; code 0 = none */
    /* By place and queue; owned between nic_up and CONFIGURE; else -1. */
    int tap_fds[VMM_NICS_MAX][VMM_QUEUES_MAX];
    bool placed;   /* taps, cgroup or process may be there: clean up before the next start */
    pid_t pid;     /* 0 = none */
    int pidfd;     /* owned; -1 = none */
    int log_fd;    /* owned; what its process logs, until its clean-up reads it; -1 = none */
    int page_fd;   /* owned; the process's page; -1 = none */
    int status_fd; /* owned; /proc/PID/status; -1 = none */
    struct loop_source *pid_source;
    struct vmm_client *client;
    struct console_input *inputs; /* sent to the VMM and not yet answered, oldest first */
    struct vsock_request *vsocks; /* the same */
    uint32_t vsock_id;            /* of the last of them, ever */
    int64_t launch_ns;            /* CLOCK_MONOTONIC, for the start latency */

    struct balancer_memory balance; /* node_memory.c's */
    struct balancer_plan plan;
    uint64_t heard_ms, heard_faults; /* its guest's last statistics: of when, and their faults */
    uint64_t refaults;               /* a second, as of then */
    uint32_t high_mib;               /* memory.high of its cgroup, as it was last set; 0 = max */
    uint32_t low_mib;                /* memory.low, the same, without overhead */
    size_t balance_place;            /* in the balancer's last plan, if that is of its instance */
    int64_t held_told_ms;            /* when its reason last said that memory.high holds it */
    char sacrificed[104];            /* why it is killed, if the host is short; "" = it is not */
};

struct node {
    struct loop *loop;
    const struct log *log;
    const struct config *config;
    struct database *database;
    struct worker *net_worker;    /* owns net */
    struct worker *disk_worker;   /* fsyncs, and what else waits for a disk */
    struct worker *copy_worker;   /* volumes' copies: they may take long, and nobody else waits */
    struct worker *launch_worker; /* processes, run directories, cgroups */
    struct worker *close_worker;  /* files of which closing the last may take long */
    struct net_host *net;
    struct image_store *images;
    struct volume_store *volumes;
    struct snapshot_store *snapshots;
    struct jail *jail;
    int images_dir_fd;
    int volumes_dir_fd;
    int snapshots_dir_fd;

    struct resource_table tables[RESOURCE_KIND_COUNT]; /* by kind */
    uint32_t last_instance;
    int64_t revision;
    int64_t generation;    /* of the node's own spec (node_spec.h), as the next three */
    struct node_spec spec; /* what is committed */
    struct node_status status;
    struct node_row row;
    struct key_table keys;
    int64_t clock_ms; /* of day, at the monotonic clock's 0, as of the start: for keys' ages */
    struct change *changes; /* in flight, oldest first */
    struct node_waiter *waiters;
    bool waits_ended; /* nobody is let wait any more */
    struct console_follower *followers;
    struct loop_timer *follow_timer; /* while there are followers */
    struct event_stream *event_streams;
    uint64_t event_listeners_cut;
    node_labels_fn *labels_changed;
    void *labels_context;
    bool ending; /* no further step is taken; the rows tell the next agent what was begun */
    char boot_id[BOOT_ID_TEXT];
    int database_error;        /* last commit's failure; 0 = healthy */
    int database_ticks;        /* for how many it was not */
    char damage[256];          /* of the database, and what to do (node_damage.c); "" = none */
    struct loop_timer *tick;   /* node_tend.c's */
    bool unsaved;              /* some resource is */
    bool tending_networks;     /* that job is under way */
    bool renewing_cgroup;      /* that job is under way */
    bool cgroup_told;          /* that it failed: logged once */
    int network_look;          /* in how many ticks findings are looked for again */
    char network_trouble[256]; /* what tending failed with last; "" = nothing: logged once */

    struct net_finding findings[NET_FINDINGS_MAX]; /* as of the last look */
    size_t finding_count;
    uint64_t memory_bytes;      /* of the host */
    uint64_t swap_bytes;        /* the same */
    struct swap_room swap_room; /* what VMs have of that */
    struct node_memory *memory; /* owned; who gives memory back */
    uint64_t exits[VM_CAUSE_COUNT];
    struct histogram starts, restores;    /* launch to ready */
    struct histogram holds;               /* for snapshots and forks */
    uint64_t retries[RESOURCE_OPERATION]; /* node_retry_later, by kind */
    int64_t reconcile_us;                 /* how long the start's took */
    uint64_t adopted;                     /* VMs found running by it */
};

/* --- the kinds --- */

struct resource_ops {
    /* A new unlinked resource with its canonical spec, or -EINVAL naming the field. */
    int (*parse)(const json_t *spec, struct resource **ret_resource, struct error *err);
    /* May it be, beside all others?  Takes what it needs (addresses); freed with the resource. */
    int (*reserve)(struct node *node, struct resource *resource, struct error *err);
    /* Its creation is committed: begin the work.  Also called for unfinished ones at start. */
    void (*begin)(struct node *node, struct resource *resource);
    /* May it be deleted now? */
    int (*may_remove)(struct node *node, const struct resource *resource, bool force,
                      struct error *err);
    /* Its deletion is committed: undo the work, then node_gone(). */
    void (*remove)(struct node *node, struct resource *resource);
    /* PATCH of one that is there: checks change->body and commits the candidate (node_change.h);
     * apply when that is on the disk, and after an action.  NULL = nothing can be changed. */
    int (*patch)(struct change *change, struct error *err);
    void (*apply)(struct change *change);
    /* "status"; stored: with what only the database needs.  New reference. */
    json_t *(*status)(const struct node *node, const struct resource *resource, bool stored);
    /* Fills in what a stored status says. */
    int (*restore)(struct resource *resource, const json_t *status, struct error *err);
    /* Frees it; nothing of it runs any more. */
    void (*free)(struct resource *resource);
};

extern const struct resource_ops image_ops;
extern const struct resource_ops volume_ops;
extern const struct resource_ops network_ops;
extern const struct resource_ops vm_ops;
extern const struct resource_ops snapshot_ops;
extern const struct resource_ops operation_ops; /* nobody puts or deletes one */
const struct resource_ops *resource_ops_of(enum resource_kind kind);
/* Its parse; the spec is whole, else -EAGAIN. */
int resource_parse(enum resource_kind kind, const json_t *spec, struct resource **ret_resource,
                   struct error *err);

/* --- services of node.c to the kinds --- */

/* NULL also for hidden ones. */
struct resource *node_find(const struct node *node, enum resource_kind kind, const char *id);
struct image *node_find_image(const struct node *node, const char *id);
struct volume *node_find_volume(const struct node *node, const char *id);
struct network *node_find_network(const struct node *node, const char *id);
struct vm *node_find_vm(const struct node *node, const char *id);
const struct vm *vm_of_instance(const struct node *node, uint32_t instance);

/* All of a kind, hidden ones, too, in order of their ids; NULL behind the last. */
struct vm *node_vm_at(const struct node *node, size_t index);
struct volume *node_volume_at(const struct node *node, size_t index);
struct network *node_network_at(const struct node *node, size_t index);
struct snapshot *node_snapshot_at(const struct node *node, size_t index);
struct operation *node_operation_at(const struct node *node, size_t index);

/* Something of it has changed (a fact, not a wish): new revision, written behind, waiters looked
 * at. */
void node_save(struct node *node, struct resource *resource);
/* Writes what was held back while a change was committed. */
void node_save_held(struct node *node, struct resource *resource);
/* Only waiters are looked at. */
void node_notify(struct node *node, struct resource *resource);
/* A deletion's work is done: removes the row, then the resource. */
void node_gone(struct node *node, struct resource *resource);
/* The VMs that wait for an image, volume, network or snapshot look again. */
void node_wake_vms(struct node *node);

/* Writes what could not be written. */
void node_save_again(struct node *node);
/* Looks after networks: what is gone of them is put back. */
void node_tend_networks(struct node *node);

/* --- node_tend.c: what is done again --- */

/* Begins to tend the node, once a second for as long as it lives.  -ENOMEM. */
int node_tend(struct node *node, struct error *err);
/* Others may have removed the control group of VMs: what the launch worker is given next finds it
 * again, if it can be made.  Cheap if it is there. */
void node_tend_cgroup(struct node *node);
/* The work on it (its creation's, its removal's, a VM's clean-up) failed: logs why, and tries again
 * later, and later still if that fails, too. */
void node_retry_later(struct node *node, struct resource *resource, const char *work,
                      const struct error *err);
/* Now, if it is stuck. */
void node_retry(struct node *node, struct resource *resource);
/* It succeeded. */
void node_retry_over(struct resource *resource);

/* Its row, which borrows the texts and what is the resource's. */
struct record node_record(const struct resource *resource, const char *spec_text,
                          const char *status_text);
/* node_keys.c: a key's row as it is now; and one from the disk. */
struct key_record node_key_record(const struct node *node, const struct key *key);
int node_load_key(void *context, const struct key_record *record, struct error *err);

/* node_autostart.c: the next ones whose turn it is.  Called once a second. */
void node_autostart(struct node *node);

/* A row of it is on the disk. What was imported is ready now, and not before: the next agent would
 * import it anew, and its source may be gone as soon as somebody saw that it is ready. */
void image_is_written(struct node *node, struct image *image);
/* Volumes that wait for an image or a snapshot look again. */
void node_wake_volumes(struct node *node);
/* The first VM that has it as a disk, but for `except` (may be NULL); NULL. */
const struct vm *volume_user(const struct node *node, const char *id, const struct vm *except);
/* Makes a fork's volume, which may have been made before, of what its parent's disk was.
 * may_be_delta: else it is a file of its own. */
void volume_make_fork(struct node *node, struct volume *volume, const struct snapshot *snapshot,
                      bool may_be_delta);

json_t *resource_json(const struct node *node, const struct resource *resource);
/* Of any kind but VMs. */
enum progress_state resource_progress(const struct resource *resource);
const char *progress_state_name(enum progress_state state, const char *working);
/* As in its status: "creating", "ready", "deleting"...  Of any kind. */
const char *resource_state_name(const struct resource *resource);
/* What its stored status says of state, reason and deletion.  -EINVAL. */
int progress_restore(struct resource *resource, const json_t *status,
                     enum progress_state *ret_state, char *ret_reason, size_t size,
                     struct error *err);

unsigned node_console_followers(const struct node *node);

/* --- VMs --- */

/* A new array, as GET /v1/node has it. */
json_t *node_findings(const struct node *node);
struct memory_capacity node_memory_capacity(const struct node *node);
/* Memory of the VMs that run or are to run, overhead included, without `except` (may be NULL); if
 * that waits for autostart, also without the others that do. */
struct memory_promise node_promised(const struct node *node, const struct vm *except);
/* Bytes of disk that volumes and snapshots may take. */
uint64_t node_promised_disk(const struct node *node);
/* May so many more be?  -ENOSPC with the numbers and `field` to blame. */
int node_admit_disk(const struct node *node, uint64_t bytes, const char *field, struct error *err);
/* Its memory is promised to it: it runs, or is to run.  One that is deleted has it until its
 * process has ended. */
bool vm_is_promised(const struct vm *vm);
/* May it run with that spec, its own or what that is to be?  -ENOMEM with the numbers. */
int vm_admit(const struct node *node, const struct vm *vm, const struct vm_spec *spec,
             struct error *err);
/* May it, which is promised its memory, have the guarantee of that spec?  -ENOMEM the same. */
int vm_admit_guarantee(const struct node *node, const struct vm *vm, const struct vm_spec *spec,
                       struct error *err);

/* Takes the next step towards what is desired, if one is due.  Level-triggered: call it whenever
 * anything changed. */
void vm_step(struct node *node, struct vm *vm);
/* Its text is that of its spec; without memory for a new one the old one stays. */
void vm_renew_json(struct vm *vm);
void vm_set_state(struct node *node, struct vm *vm, enum vm_state state, const char *reason);
/* Whose kernel, initrd and command line it boots: its own, or its snapshot's.  Borrowed. */
const struct vm_spec *vm_boot_spec(const struct node *node, const struct vm *vm);
/* What a start, or an attach, still waits for; "" = nothing.  *ret_never: it will not come by
 * itself. */
void vm_missing_volume(const struct node *node, const char *id, char *ret_what, size_t size,
                       bool *ret_never);
void vm_missing_network(const struct node *node, const char *id, char *ret_what, size_t size,
                        bool *ret_never);
/* Are the kernel and initrd there that the spec names? */
int vm_check_images(const struct node *node, const struct vm_spec *spec, struct error *err);
/* May it have the disk, or the nic, at that index of its spec, beside all others?  A nic's
 * addresses are put into vm->nics. */
int vm_check_disk(const struct node *node, const struct vm *vm, unsigned index, struct error *err);
int vm_reserve_nic(const struct node *node, struct vm *vm, unsigned index, struct error *err);
/* The network's address is not given again soon. */
void vm_remember_address(struct node *node, const char *id, uint32_t ipv4);
/* A fork's guest has what its parent's has. */
void vm_inherit_nics(struct vm *vm, const struct vm *parent);
/* Why it is paused. */
const char *vm_pause_reason(const struct vm *vm);
/* A VMM has only so long to pause and then to do what it is held for, or to get ready for that. */
void vm_limit_hold(struct node *node, struct vm *vm);
/* Once a second: has its VMM owed the answer to a pause, a resume, or the question at its adoption,
 * for longer than that? */
void vm_see_silence(struct node *node, struct vm *vm);
/* A snapshot or fork holds it no more: it goes on as was asked. */
void vm_release(struct node *node, struct vm *vm);
/* Whoever holds it: it goes on, unless it was asked to pause. */
void vm_let_go(struct node *node, struct vm *vm);
/* The process ended, or could not be made. */
void vm_ended(struct node *node, struct vm *vm, enum vm_cause cause, int detail, const char *text);
/* It could not be started yet, and is soon tried again: that is no failure. */
void vm_put_off(struct node *node, struct vm *vm, const char *what);

/* vm_control.c: control connections of VMs; the context is &vm->closure. */
extern const struct vmm_client_ops vm_client_ops;
/* Its process cannot be asked for anything by this agent: there is no connection. */
bool vm_is_cut_off(const struct vm *vm);

/* vm_launch.c: the jobs.  Each ends in vm_step or vm_ended.  vm_exit.c: the process's end. */
void vm_launch(struct node *node, struct vm *vm);
/* Gets ready on the launch worker what the next start can find ready. */
void vm_launch_prepare(struct node *node);
void vm_clean_up(struct node *node, struct vm *vm);
void vm_forget_process(struct vm *vm);
/* Its process, of an earlier agent, is gone. */
void vm_conclude(struct node *node, struct vm *vm, bool host_rebooted);
/* What is read of it again and again, until it is forgotten: page_fd, status_fd. */
void vm_open_process(const struct node *node, struct vm *vm);
/* And sees its end. */
void vm_watch_process(struct node *node, struct vm *vm);
/* Of its process, or of its last one: jail_read_page. */
int vm_read_page(const struct node *node, const struct vm *vm, struct stats_page *ret_page);
/* Of a process that was to restore it: has its guest run? */
void vm_restore_ended(const struct node *node, struct vm *vm, bool host_rebooted);
/* It does, for the first time. */
void vm_is_restored(const struct node *node, struct vm *vm);
/* Ends it if it is not ready in time; its process has had so much of that. */
void vm_await_ready(struct node *node, struct vm *vm, int64_t age_ms);
/* As the VMM is told of them. */
void vm_fill_disk(const struct node *node, const struct vm_disk_spec *spec,
                  struct vmm_disk *ret_disk);
void vm_fill_nic(const struct node *node, const struct vm *vm, const struct vm_nic_spec *spec,
                 struct vmm_nic *ret_nic);
void vm_nic_config(const struct node *node, const struct vm *vm, const struct vm_nic_spec *nic,
                   struct nic_config *ret_config);
