/* vm_balloon.h - a VM's balloon: what its VMM is told, and what is known of it.  Loop thread. */
#pragma once
#include <jansson.h>
#include "vmm/control_protocol.h"

struct node;
struct stats_page;
struct vm;
struct vm_spec;

/* balanced_mib: what the balancer wants of it; the larger of that and what its user wants counts.
 */
struct vmm_balloon vm_balloon_config(const struct vm_spec *spec, uint32_t balanced_mib);

/* Tells a running VMM what the spec says; called when it may have missed a change. */
void vm_balloon_tell(const struct node *node, struct vm *vm);

/* Adds `balloon` and `memory` to a status; null where nothing is known.  page: NULL = no process.
 */
int vm_balloon_status(const struct vm *vm, const struct stats_page *page, json_t *status);
