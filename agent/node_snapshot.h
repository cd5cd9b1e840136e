/* node_snapshot.h - snapshots of VMs: what is known of one, and who needs it.  Loop thread only.
 *
 * node_snapshot.c is the resource, snapshot_work.c the way from a running VM to its files. */
#pragma once
#include <sys/stat.h>
#include "agent/disk_base.h"
#include "agent/node_internal.h"
#include "agent/snapshot_disks.h"
#include "base/digest.h"

struct snapshot_job;

struct snapshot_disk {
    char name[ID_MAX + 1];
    uint64_t size_bytes;
    bool read_only;        /* then it is not copied: its volume is what it was */
    int format;            /* enum volume_format */
    struct disk_base base; /* of a delta */
};

/* In this order. */
enum snapshot_step {
    SNAPSHOT_FOUND, /* in its row only: an earlier agent began it */
    SNAPSHOT_NEW,
    SNAPSHOT_PREPARE, /* its files are being made */
    SNAPSHOT_MARK,    /* the VMM is to mark what it writes to the disks */
    SNAPSHOT_AHEAD,   /* they are being copied, and the VM runs */
    SNAPSHOT_HOLD,    /* waits for its VM to be held */
    SNAPSHOT_WRITE,   /* the VMM writes */
    SNAPSHOT_COPY,    /* the disks are being copied, or what was written since */
    SNAPSHOT_SEAL,    /* the VM goes on; files are synced */
    SNAPSHOT_UNDO,
};

struct snapshot {
    struct resource head;
    bool is_fork; /* mode `fork`: a fork's, of the disks alone */
    enum progress_state state;
    char reason[160];
    char vm[ID_MAX + 1];     /* that was asked for */
    char parent[ID_MAX + 1]; /* of whose memory its own is changes; "" = it is full */
    bool track;              /* the VM's memory is to stand on it from then on */
    char vm_uid[UID_TEXT];
    json_t *vm_json;        /* owned; the VM's canonical spec, its boot never a snapshot */
    struct vm_spec vm_spec; /* the same, owned */
    struct snapshot_disk disks[VMM_DISKS_MAX];
    struct vm_nic nics[VMM_NICS_MAX]; /* by place */
    int64_t created_ms;
    uint64_t size_bytes; /* on disk once it is ready; before, the most that it may take */
    char digest[DIGEST_TEXT];

    enum snapshot_step step;
    struct vm *source;           /* while it has to be there; its `snapshot` points back */
    struct snapshot_job *job;    /* on a worker; owned by it */
    struct error error;          /* why it is undone; code 0 = it is not */
    int state_fd, memory_fd;     /* owned until the VMM has them; else -1 */
    struct snapshot_marks marks; /* of its VM's disks; owned */
    bool copied_ahead;           /* its disks, but for what is marked */
    struct fork_source *fork;    /* owned: for whose forks it is, once their memory is there */
    size_t layer_count;          /* of those before it */
    struct stat layers[VMM_LAYERS_MAX];
};

struct snapshot *node_find_snapshot(const struct node *node, const char *id);
/* Of the snapshots whose memory together is this one's, itself the last; how many. */
size_t snapshot_chain(const struct node *node, const struct snapshot *snapshot,
                      uint32_t ret_instances[VMM_LAYERS_MAX]);
/* On which the VM's memory stands, as its process is now; NULL if on none that is known. */
const struct snapshot *snapshot_of_memory(const struct node *node, const struct vm *vm);
/* Can it be made of the VM as both are: does its memory stand on the parent, or can it stand on
 * this one?  -EINVAL or -EBUSY with the field. */
int snapshot_check_parent(const struct node *node, const struct snapshot *snapshot,
                          const struct vm *vm, struct error *err);
/* NULL if it has none of that name, or it was not copied. */
const struct snapshot_disk *snapshot_find_disk(const struct snapshot *snapshot, const char *name,
                                               unsigned *ret_index);
/* The first that needs the image; NULL. */
const struct snapshot *snapshot_of_image(const struct node *node, const char *image);
/* Of all that exist, hidden ones too. */
uint64_t snapshot_promised_bytes(const struct node *node);

/* Of those under way, the one that has the VM, or will have it; NULL. */
const struct snapshot *snapshot_under_way(const struct node *node, const char *vm);
/* May it be snapshotted as it is now?  -EBUSY. */
int snapshot_check_source(const struct vm *vm, struct error *err);
/* Is the VM what can be restored from it?  -EINVAL with the field and what it must be. */
int snapshot_check_vm(const struct node *node, const struct snapshot *snapshot, const struct vm *vm,
                      struct error *err);
/* Gives a nic of such a VM, at its place, its addresses; -EINVAL if it asks for others. */
int snapshot_check_nic(const struct snapshot *snapshot, unsigned index, struct vm_nic_spec *nic,
                       struct error *err);

/* snapshot_work.c: begins it, or goes on with one that was found. */
void snapshot_begin(struct node *node, struct resource *resource);
void snapshot_remove(struct node *node, struct resource *resource);
/* Undoes it; it has failed then. */
void snapshot_cancel(struct node *node, struct snapshot *snapshot);
/* Its disks were copied while they were written to: what they have more by now is promised, too. */
int snapshot_admit_more(const struct node *node, struct snapshot *snapshot, struct error *err);
/* Of its disks, by the job that is on. */
uint64_t snapshot_copied_bytes(const struct snapshot *snapshot);
/* The agent ends: returns when no thread of its own copies for it any more. */
void snapshot_await_copy(struct snapshot *snapshot);
/* Its VM is held; called whenever that is looked at. */
void snapshot_vm_is_held(struct node *node, struct snapshot *snapshot);
/* The VMM has answered: 0 or -errno, and with which files. */
void snapshot_is_written(struct node *node, struct snapshot *snapshot, int result, const int *fds,
                         size_t fd_count);
/* The VMM marks what is written to the disks, or cannot: -errno. */
void snapshot_is_marked(struct node *node, struct snapshot *snapshot, int result);
/* It did not in time. */
void snapshot_vm_is_late(struct node *node, struct snapshot *snapshot, const char *why);
/* Its VM ends, or cannot be asked any more. */
void snapshot_vm_is_lost(struct node *node, struct snapshot *snapshot, const char *why);
/* Its VMM owes it an answer, or is about to; accepts NULL. */
bool snapshot_awaits_vmm(const struct snapshot *snapshot);
/* What stops its VM is done after it; accepts NULL. */
bool snapshot_comes_first(const struct snapshot *snapshot);
/* Its VM is to be held for it now. */
bool snapshot_holds(const struct snapshot *snapshot); /* accepts NULL */
