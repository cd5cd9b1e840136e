/* vm_fork.h - VMs that begin as copies of a running one (boot.fork).  Loop thread only.
 *
 * A fork asks its parent when it is to start.  The parent is held for a moment; its VMM gives its
 * state and the files that its memory consists of (FORK, vmm/control_protocol.h); all forks that
 * wait begin with these, and the parent goes on.  Nothing of it is kept: a fork that did not come
 * to run before the agent ended asks again.
 *
 * Where the parent writes to disks, a snapshot of mode `fork` holds it (snapshot_work.c), which
 * sends FORK where others send SNAPSHOT and has the copies of the disks.  Each fork has a volume of
 * its own for each of these disks, made of that snapshot; the fork's row is the intent for them,
 * and they go with it.  The snapshot goes when no volume stands on it. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/id.h"

struct error;
struct fork_source;
struct node;
struct snapshot;
struct vm;
struct vm_files;
struct vm_spec;
struct volume;

/* Can it be made of its parent as both are?  -EINVAL, -EBUSY or -ENOSPC with the field. */
int vm_fork_check(const struct node *node, const struct vm *vm, struct error *err);
/* Its next start is as a fork. */
bool vm_fork_is_due(const struct vm *vm);
/* And what that begins with is not there yet. */
bool vm_fork_awaits(const struct vm *vm);
/* What that still waits for, "" = nothing; asks the parent.  *ret_never: it will not come.  One
 * that waits for a device of its parent to come or go fails after 30 s. */
void vm_fork_await(struct node *node, struct vm *vm, char *ret_what, size_t size, bool *ret_never);
/* Copies of its source's files, for its process; -1 where that failed. */
void vm_fork_files(const struct vm *vm, struct vm_files *files);
void vm_fork_drop(struct vm *vm); /* its source is needed, and waited for, no more */
struct fork_source *fork_source_release(struct fork_source *source); /* NULL in, NULL out */
bool fork_source_is_wanted(const struct fork_source *source);        /* once it was given */

/* The parent: is it to be held for a fork, without a snapshot? */
bool vm_fork_holds(const struct vm *vm);
/* It is held; called whenever that is looked at. */
void vm_fork_is_held(struct node *node, struct vm *vm);
/* It could be held: begins the snapshot that a fork of it needs, if one does. */
void vm_fork_step(struct node *node, struct vm *vm);
/* Is the snapshot that one? */
bool vm_fork_wants(const struct vm *vm, const char *snapshot);
/* It is held by that snapshot.  -errno, or vm_fork_is_made will be called. */
int vm_fork_ask(struct node *node, struct vm *vm, struct error *err);
/* Its VMM has answered: -errno, or the files, which are taken. */
void vm_fork_is_made(struct node *node, struct vm *vm, int result, int *fds, size_t fd_count);
/* The snapshot is ready, or, with a reason, has failed. */
void vm_fork_is_copied(struct node *node, struct snapshot *snapshot, const char *reason);
/* It has ended, or cannot be asked any more: those that wait for it hear of it. */
void vm_fork_is_lost(struct node *node, struct vm *vm);
/* Its VMM did not answer in time. */
void vm_fork_is_late(struct node *node, struct vm *vm, const char *why);

/* --- vm_fork_disks.c: the forks' volumes --- */

bool vm_fork_has_disks(const struct vm_spec *spec); /* that it writes to */
int vm_fork_check_disks(const struct node *node, const struct vm *parent, const struct vm *vm,
                        struct error *err);
/* Of the volumes that forks will have and have not yet. */
uint64_t vm_fork_promised_bytes(const struct node *node);
/* May it be, as a volume of the fork that it names?  Gives it its size. */
int vm_fork_reserve_volume(const struct node *node, struct volume *volume, struct error *err);
/* Puts those that are not there.  True if there are all. */
bool vm_fork_put_volumes(struct node *node, struct vm *vm);
bool vm_fork_volumes_wait(const struct node *node, const struct vm *vm);
void vm_fork_make_volumes(struct node *node, struct vm *vm, const struct snapshot *snapshot);
/* Its volumes go with it; true once they are gone, and what they stood on. */
bool vm_fork_leave(struct node *node, struct vm *vm);
/* Deletes snapshots of forks that nobody needs. */
void vm_fork_tidy(struct node *node);

/* A VM, for callbacks that may come when it has gone. */
struct vm_reference {
    struct node *node;
    char id[ID_MAX + 1];
    char uid[UID_TEXT];
    char about[ID_MAX + 1]; /* the other resource */
};

/* malloc'ed, or NULL. */
struct vm_reference *vm_reference_new(struct node *node, const struct vm *vm, const char *about);
struct vm *vm_reference_find(const struct vm_reference *reference); /* NULL if it is gone */
