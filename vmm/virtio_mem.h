/* virtio_mem.h - virtio memory device (virtio 1.2, 5.15): RAM above the rest that the guest plugs
 * and unplugs while it runs, in blocks of 2 MiB, as much as the agent wants it to have.
 *
 * What the driver may have is bounded by what was asked for; what it unplugs goes back to the host
 * and reads as zeroes.  The region is mapped all the time: a guest that uses blocks which it did
 * not plug gets memory, no more than the region has, and all of that was admitted for it. */
#pragma once
#include <stdint.h>

struct error;
struct pci_root;
struct stats_memory;
struct virtio_mem; /* opaque; see virtio_mem.c */

/* Main thread, before the vCPUs run; the root owns the device, *ret_mem is borrowed from it.
 * The guest's memory has a region for it, of whole blocks; `requested` bytes, whole blocks of it;
 * `stats` is borrowed. */
int virtio_mem_add(struct pci_root *root, uint64_t requested, struct stats_memory *stats,
                   struct virtio_mem **ret_mem, struct error *err);
/* The size, which may be another than before: then the driver is told, and follows when it can.
 * Loop's thread. */
void virtio_mem_change(struct virtio_mem *mem, uint64_t requested);
