/* virtio_rng.c - see virtio_rng.h. */
#include "vmm/virtio_rng.h"
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <sys/random.h>
#include "base/error.h"
#include "vmm/io_vector.h"
#include "vmm/stats_counter.h"
#include "vmm/virtio_device.h"
#include "vmm/virtio_pci.h"

#define RNG_PCI_CLASS  0x00ff00
#define RNG_QUEUE_SIZE 64

struct virtio_rng {
    struct virtio_device *device; /* borrowed */
    uint64_t *stats_bytes;        /* borrowed */
};

/* Bytes written; short only if getrandom fails, which it does not once the host has booted. */
static uint32_t rng_fill(const struct iovec *vectors, unsigned count)
{
    uint32_t filled = 0;

    for (unsigned i = 0; i < count; i++) {
        uint8_t *to = vectors[i].iov_base;
        size_t left = vectors[i].iov_len;

        while (left > 0) {
            ssize_t part = getrandom(to, left, 0);

            if (part < 0 && errno == EINTR)
                continue;
            if (part < 0)
                return filled;
            to += part;
            left -= (size_t)part;
            filled += (uint32_t)part;
        }
    }
    return filled;
}

static int rng_serve(void *owner, unsigned queue, const struct virtqueue_chain *chain)
{
    struct virtio_rng *rng = owner;
    unsigned count =
        io_vector_slice(chain->vectors, chain->writable_count, 0, VIRTIO_RNG_REQUEST_BYTES);
    uint32_t filled;

    (void)queue;
    if (chain->readable_count > 0) /* 5.4.6.1 */
        return -EPROTO;
    filled = rng_fill(chain->vectors, count);
    stats_add(rng->stats_bytes, filled);
    return (int)filled;
}

static const struct virtio_device_ops rng_ops = {
    .name = "rng",
    .device_id = VIRTIO_ID_RNG,
    .pci_class = RNG_PCI_CLASS,
    .queue_count = 1,
    .queue_size = RNG_QUEUE_SIZE,
    .serve = rng_serve,
    .free = free,
};

int virtio_rng_add(struct pci_root *root, uint64_t *stats_bytes, struct error *err)
{
    struct virtio_rng *rng = calloc(1, sizeof(*rng));

    if (!rng)
        return error_set(err, ENOMEM, "virtio rng");
    rng->stats_bytes = stats_bytes;
    return virtio_pci_add(root, PCI_SLOT_ANY, &rng_ops, rng, &rng->device, err);
}
