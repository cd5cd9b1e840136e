/* vm_hotplug.h - disks and nics that come to a VM that runs, and go (vm_devices.h says what is
 * due). Loop thread. */
#pragma once
#include <stdbool.h>
#include "vmm/control_protocol.h"

struct node;
struct vm;

/* Of a VM that runs, or is paused: takes the steps that are due.  Level-triggered. */
void vm_hotplug_step(struct node *node, struct vm *vm);
/* It has no process, and nothing is left of the last one: what was to go is gone. */
void vm_hotplug_is_down(struct node *node, struct vm *vm);
/* Its VMM has answered, or its guest has let one go. */
void vm_hotplug_answered(struct node *node, struct vm *vm, enum vmm_device_kind kind,
                         unsigned place, bool present, int result);
/* Its VMM will answer nothing more. */
void vm_hotplug_is_lost(struct vm *vm);
