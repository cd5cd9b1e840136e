/* virtio_block.h - virtio block device (virtio 1.2, 5.2): read, write, flush, get id, discard,
 * write zeroes; one or more queues that share the requests in flight. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "vmm/control_protocol.h"
#include "vmm/disk.h"

struct error;
struct pci_root;
struct stats_disk;
struct uring;
struct virtio_block;

#define VIRTIO_BLOCK_SERIAL_BYTES 20
#define VIRTIO_BLOCK_SECTOR_BYTES 512

struct virtio_block_spec {
    int fd, base_fd; /* raw file, or delta and its base; borrowed, outlive the device */
    bool is_delta, read_only;
    unsigned slot;                          /* PCI */
    unsigned queues;                        /* 1 to VMM_QUEUES_MAX, served alike */
    uint64_t size_bytes;                    /* multiple of 512; the file is at least that long */
    char serial[VIRTIO_BLOCK_SERIAL_BYTES]; /* NUL padded, need not end in NUL */
    struct stats_disk *stats;               /* borrowed */
    struct uring *ring;                     /* borrowed, outlives the device; NULL = none */
    /* NULL: a request for which there is no space fails.  Else it waits for virtio_block_retry, and
     * whether any does is told: true on the loop's thread, both with the device's lock held. */
    void (*tell_full)(void *context, unsigned place, bool full);
    void *context;
    unsigned place;
    struct virtio_block **ret_block; /* borrowed from the root; NULL = not wanted */
    struct vmm_rate_limit rate_limit;
};

/* Main thread, while no vCPU runs; the root owns the device. */
int virtio_block_add(struct pci_root *root, const struct virtio_block_spec *spec,
                     struct error *err);

/* The rest is for the loop's thread.  A size that is not larger, or than which the disk cannot be
 * (disk.h), changes nothing. */
void virtio_block_change(struct virtio_block *block, uint64_t size_bytes,
                         const struct vmm_rate_limit *limit);
/* Nothing is in flight afterwards; vCPUs are held, or it is DISK_CANCEL, on any thread. */
void virtio_block_finish(struct virtio_block *block, enum disk_drain how);
/* From now on what is written, zeroed or discarded is marked when it has ended
 * (base/write_marks.h); marks: the disk's, borrowed; NULL = no more. */
void virtio_block_mark_writes(struct virtio_block *block, uint8_t *marks, unsigned shift);
/* What waits for space is tried again. */
void virtio_block_retry(struct virtio_block *block);
