#include "agent/jail_rings.h"

void jail_rings_fill(struct jail_rings *rings)
{
    while (rings->count < VMM_DISKS_MAX && disk_ring_make(&rings->ready[rings->count]) == 0)
        rings->count++;
}

void jail_rings_take(struct jail_rings *rings, unsigned disk_places, int *ret_fds,
                     struct vmm_rings *ret_rings)
{
    unsigned wanted = disk_places + JAIL_RINGS_SPARE;
    struct vmm_rings taken = { 0 };

    if (wanted > VMM_DISKS_MAX)
        wanted = VMM_DISKS_MAX;
    if (rings->count < wanted)
        jail_rings_fill(rings);
    for (; taken.count < wanted && rings->count > 0; taken.count++) {
        const struct disk_ring *ring = &rings->ready[--rings->count];

        taken.layout = ring->layout;
        *ret_fds++ = ring->fd;
        *ret_fds++ = ring->event_fd;
    }
    *ret_rings = taken;
}

void jail_rings_close(struct jail_rings *rings)
{
    while (rings->count > 0)
        disk_ring_close(&rings->ready[--rings->count]);
}
