/* jail_rings.h - rings for disks (base/disk_ring.h) of VMMs that are yet to start: a VMM may make
 * none, and cannot be sent one later, so it inherits one for each disk that it begins with and a
 * few for disks that are attached.  Launch worker. */
#pragma once
#include "base/disk_ring.h"
#include "vmm/control_protocol.h"

/* For attached disks; more of those than this wait for each of their requests.  Not one for each
 * that could come: most VMs never get any, and 8 are 144 KiB of kernel memory. */
#define JAIL_RINGS_SPARE 2

struct jail_rings {
    unsigned count;
    struct disk_ring ready[VMM_DISKS_MAX]; /* owned */
};

/* Makes as many as one VMM may want: 25 us each.  Where the host has no io_uring for us, none. */
void jail_rings_fill(struct jail_rings *rings);
/* What a VM gets whose disks begin below place `disk_places`: fds in the order of the protocol
 * (owned by the caller). */
void jail_rings_take(struct jail_rings *rings, unsigned disk_places, int *ret_fds,
                     struct vmm_rings *ret_rings);
void jail_rings_close(struct jail_rings *rings);
