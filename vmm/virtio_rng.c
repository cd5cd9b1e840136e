/* virtio_rng.c - see virtio_rng.h. */
#include "vmm/virtio_rng.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include "base/error.h"
#include "vmm/io_vector.h"
#include "vmm/stats_counter.h"
#include "vmm/virtio_device.h"
#include "vmm/virtio_pci.h"

#define RNG_DEVICE_ID  4
#define RNG_PCI_CLASS  0x00ff00
#define RNG_QUEUE_SIZE 64

struct virtio_rng {
    struct virtio_device *device; /* borrowed */
    uint64_t *stats_bytes;        /* borrowed */
    struct iovec vectors[VIRTQUEUE_SIZE_MAX];
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

static int rng_serve(void *owner, unsigned index)
{
    struct virtio_rng *rng = owner;
    struct virtqueue *queue = virtio_device_queue(rng->device, index);
    struct virtqueue_chain chain;
    int result = virtqueue_pop(queue, rng->vectors, VIRTQUEUE_SIZE_MAX, &chain);

    if (result <= 0)
        return result;
    if (chain.readable_count > 0) /* 5.4.6.1 */
        return -EPROTO;

    unsigned count =
        io_vector_slice(rng->vectors, chain.writable_count, 0, VIRTIO_RNG_REQUEST_BYTES);
    uint32_t filled = rng_fill(rng->vectors, count);

    stats_add(rng->stats_bytes, filled);
    virtqueue_put(queue, chain.head, filled);
    virtio_device_complete(rng->device, index);
    return 1;
}

static uint64_t rng_offer_features(void *owner)
{
    (void)owner;
    return 0;
}

static void rng_read_config(void *owner, void *config)
{
    (void)owner;
    (void)config;
}

static const struct virtio_device_ops rng_ops = {
    .name = "rng",
    .device_id = RNG_DEVICE_ID,
    .queue_count = 1,
    .queue_size = RNG_QUEUE_SIZE,
    .offer_features = rng_offer_features,
    .read_config = rng_read_config,
    .serve = rng_serve,
    .free = free,
};

int virtio_rng_add(struct pci_root *root, uint64_t *stats_bytes, struct loop *loop,
                   struct error *err)
{
    struct virtio_rng *rng = calloc(1, sizeof(*rng));
    int result;

    if (!rng)
        return error_set(err, ENOMEM, "virtio rng");
    rng->stats_bytes = stats_bytes;
    result =
        virtio_pci_add(root, PCI_SLOT_ANY, &rng_ops, rng, RNG_PCI_CLASS, loop, &rng->device, err);
    if (result != 0)
        free(rng);
    return result;
}
