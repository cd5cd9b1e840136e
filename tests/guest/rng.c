/* rng.c - see rng.h.  Virtio 1.2, 5.4. */
#include <stddef.h>
#include "tests/guest/apic.h"
#include "tests/guest/console.h"
#include "tests/guest/rng.h"
#include "tests/guest/text.h"
#include "tests/guest/virtio.h"

#define RNG_BYTES_MAX 256
#define RNG_TIMEOUT   (5 * SECOND)

static struct virtqueue queue;
static struct virtio_device device;
static uint8_t bytes[RNG_BYTES_MAX];

void rng_run(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    uint64_t wanted;
    struct virtqueue_used_element element;

    (void)guest;
    if (count != 1 || !text_number(arguments[0], &wanted) || wanted == 0 ||
        wanted > RNG_BYTES_MAX) {
        console_print("rng usage\n");
        return;
    }
    if (!virtio_open(&device, "rng", VIRTIO_RNG, index, 0) || !virtio_add_queue(&device, &queue, 0))
        return;
    virtio_start(&device);
    queue.descriptors[0] = (struct virtqueue_descriptor){ .address = (uintptr_t)bytes,
                                                          .length = (uint32_t)wanted,
                                                          .flags = DESCRIPTOR_WRITE };
    virtqueue_submit(&queue, 0, true);
    if (!virtqueue_wait(&queue, RNG_TIMEOUT, &element)) {
        console_print("rng %u timeout\n", wanted);
        return;
    }
    console_print("rng %u ok ", (uint64_t)element.length);
    for (uint32_t i = 0; i < element.length && i < wanted; i++)
        console_print("%b", bytes[i]);
    console_print("\n");
}
