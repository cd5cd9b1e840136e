/* vm_disk.h - what the VMM of a VM that runs is told of its disks and nics, and what it says of
 * them.  Loop thread. */
#pragma once
#include <stdint.h>

struct error;
struct node;
struct vm;
struct volume;

/* Tells its VMM, if it has one, the rate limits of its disks and nics, and the sizes of the disks'
 * volumes, of all of which something was ever changed: it may have been since CONFIGURE, or told by
 * an agent that ended before it could. */
void vm_tell_devices(const struct node *node, struct vm *vm);

/* May the volume have so many bytes while VMs that use it run?  -EBUSY: which cannot see it. */
int vm_disk_may_grow(const struct node *node, const struct volume *volume, uint64_t bytes,
                     struct error *err);
/* It has its new size: tells those VMs. */
void vm_disk_has_grown(const struct node *node, const struct volume *volume);

/* Its VMM says that requests of the disk at that place wait for space. */
void vm_disk_is_full(struct node *node, struct vm *vm, unsigned place);
/* Did it say so to an agent that ended?  Of one that was adopted. */
void vm_disk_look(struct node *node, struct vm *vm);
