/* vm_fork.h - VMs that begin as copies of a running one (boot.fork).  Loop thread only.
 *
 * A fork asks its parent when it is to start.  The parent is held for a moment; its VMM gives its
 * state and the files that its memory consists of (FORK, vmm/control_protocol.h); all forks that
 * wait begin with these, and the parent goes on.  Nothing of it is kept: a fork that did not come
 * to run before the agent ended asks again. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct error;
struct fork_source;
struct node;
struct vm;
struct vm_files;

/* Can it be made of its parent as both are?  -EINVAL or -EBUSY with the field. */
int vm_fork_check(const struct node *node, const struct vm *vm, struct error *err);
/* Its next start is as a fork. */
bool vm_fork_is_due(const struct vm *vm);
/* What that still waits for, "" = nothing; asks the parent.  *ret_never: it will not come. */
void vm_fork_await(struct node *node, struct vm *vm, char *ret_what, size_t size, bool *ret_never);
/* Copies of its source's files, for its process; -1 where that failed. */
void vm_fork_files(const struct vm *vm, struct vm_files *files);
void vm_fork_drop(struct vm *vm); /* its source is needed no more */

/* The parent: is it to be held for a fork? */
bool vm_fork_holds(const struct vm *vm);
/* It is held; called whenever that is looked at. */
void vm_fork_is_held(struct node *node, struct vm *vm);
/* Its VMM has answered: -errno, or the files, which are taken. */
void vm_fork_is_made(struct node *node, struct vm *vm, int result, int *fds, size_t fd_count);
/* It has ended, or cannot be asked any more. */
void vm_fork_is_lost(struct node *node, struct vm *vm);
