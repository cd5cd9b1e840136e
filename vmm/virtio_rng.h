/* virtio_rng.h - virtio entropy device (virtio 1.2, 5.4): fills buffers from getrandom(2), at most
 * VIRTIO_RNG_REQUEST_BYTES of each. */
#pragma once
#include <stdint.h>

struct error;
struct pci_root;

#define VIRTIO_RNG_REQUEST_BYTES 65536

/* Main thread, before the vCPUs run; the root owns the device.  stats_bytes: counts what was given;
 * borrowed. */
int virtio_rng_add(struct pci_root *root, uint64_t *stats_bytes, struct error *err);
