/* virtio_block.h - virtio block device (virtio 1.2, 5.2): one queue; read, write, flush, get id,
 * discard, write zeroes. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct error;
struct loop;
struct pci_root;
struct stats_disk;

#define VIRTIO_BLOCK_SERIAL_BYTES 20
#define VIRTIO_BLOCK_SECTOR_BYTES 512

struct virtio_block_spec {
    int fd, base_fd; /* raw file, or delta and its base; borrowed, outlive the device */
    bool is_delta, read_only;
    uint64_t size_bytes;                    /* multiple of 512; the file is at least that long */
    char serial[VIRTIO_BLOCK_SERIAL_BYTES]; /* NUL padded, need not end in NUL */
    struct stats_disk *stats;               /* borrowed */
};

/* Main thread, before the vCPUs run; the root owns the device. */
int virtio_block_add(struct pci_root *root, const struct virtio_block_spec *spec, struct loop *loop,
                     struct error *err);
