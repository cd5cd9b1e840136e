/* node_change.h - how the node's files commit one requested change.  Loop thread only.
 *
 * Changes of one resource run one after the other in the order they came; those of different
 * resources run side by side and share commits. */
#pragma once
#include "agent/node_internal.h"
#include "base/error.h"

/* A struct node_change under way. */
struct change {
    struct node *node;
    enum change_verb verb;
    enum resource_kind kind;
    char id[ID_MAX + 1];
    json_t *body; /* owned */
    bool force;
    enum vm_action action;
    enum vmm_device_kind part; /* PART, as the next */
    char part_name[ID_MAX + 1];
    unsigned place;
    bool merge; /* the same */
    struct node_condition condition;
    node_done_fn *done;
    void *context;

    struct resource *target;
    uint64_t more_bytes;     /* of disk, that the PATCH of a volume promises */
    json_t *new_json;        /* owned; what its spec will be once committed */
    struct vm_spec new_spec; /* PATCH, ACTION, PART: what the VM's will be once committed */
    enum vm_intent new_intent;
    int64_t old_generation; /* when it was submitted */
    int64_t new_generation;
    int result;
    struct error err;
    struct change *next; /* in node->changes */
};

/* What begin functions return beside -errno (refused) and 0 (already so). */
#define CHANGE_COMMITTING 2

/* Writes the target as it now is in memory; change_committed runs when that is on the disk. */
int change_commit(struct change *change, struct error *err);

/* node_vm_change.c: PATCH of VMs (resource_ops), and ACTION and PART, which only they have. */
int change_patch_vm(struct change *change, struct error *err);
int change_begin_action(struct change *change, struct error *err);
void change_apply_vm(struct change *change);
/* Committed or not, it promises nothing any more beyond what its VM's spec says. */
void change_settle_vm(struct vm *vm);
/* Writes the VM as it would be with the change's spec, intent and generation. */
int change_commit_vm(struct change *change, struct error *err);

/* -EBUSY naming it, if its delete_protection is on. */
int change_check_protection(const struct resource *resource, struct error *err);

/* node_patch.c: PATCH of a spec that needs nothing beside its commit, and what other PATCHes share.
 * The first: may the target have this spec (busy: spec_change.h)?  The second: what the spec would
 * be goes into new_json.  Both: 0 = as it is, 1 = another.  The third writes that, the last puts it
 * into effect. */
int change_check_spec(const struct change *change, const json_t *spec, const char *busy,
                      struct error *err);
int change_merge_spec(struct change *change, struct error *err);
int change_commit_spec(struct change *change, struct error *err);
int change_patch_spec(struct change *change, struct error *err);
void change_apply_spec(struct change *change);

/* node_volume_change.c: PATCH of volumes. */
int change_patch_volume(struct change *change, struct error *err);
void change_apply_volume(struct change *change);

/* node_vm_part.c: PART. */
int change_begin_part(struct change *change, struct error *err);
/* The VM has its new spec, and the change its old one: what is at the place follows.  Without
 * `committed` only for the row. */
void change_apply_part(struct change *change, bool committed);
void change_undo_part(struct change *change);
