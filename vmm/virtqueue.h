/* virtqueue.h - the device's side of one split virtqueue (virtio 1.2, 2.7), with indirect
 * descriptors and event indices.
 *
 * The guest is not trusted and keeps running: every descriptor is copied once, the copy is checked
 * and only the copy is used.  Every loop is bounded by the queue's size.  A broken rule is answered
 * by -EPROTO from whichever call sees it first, and by every call after it until virtqueue_reset.
 *
 * A queue belongs to its device's lock (virtio_device.h): whoever calls, holds it. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct guest_memory;
struct transfer;
struct vring_avail; /* linux/virtio_ring.h, as the next */
struct vring_desc;
struct vring_used;

#define VIRTQUEUE_SIZE_MAX 256 /* entries; also the longest chain */

/* One buffer that the guest offered: `readable_count` vectors for the device to read, then
 * `writable_count` for it to write, all inside guest RAM. */
struct virtqueue_chain {
    uint16_t head;
    uint16_t readable_count;
    uint16_t writable_count;
    struct iovec *vectors; /* borrowed from the caller of virtqueue_pop */
};

struct virtqueue {
    const struct guest_memory *memory; /* borrowed */
    uint16_t size_max;

    /* What the driver configures; frozen while enabled. */
    uint16_t size;
    uint64_t descriptor_address, avail_address, used_address; /* guest-physical */

    /* Valid while enabled. */
    bool enabled;
    bool broken;
    bool indirect, event_index; /* negotiated */
    struct vring_desc *descriptors;
    struct vring_avail *avail;
    struct vring_used *used;
    uint16_t next_avail;     /* the next avail entry to take */
    uint16_t next_used;      /* the next used entry to fill; published by virtqueue_publish */
    uint16_t published_used; /* used->idx as the driver sees it, and was last interrupted for */
    uint16_t in_flight;      /* chains taken and not yet put back */
};

void virtqueue_init(struct virtqueue *queue, const struct guest_memory *memory, uint16_t size_max);
/* Disabled, unconfigured, and no longer broken. */
void virtqueue_reset(struct virtqueue *queue);

/* Checks size, alignment, place and overlap of the three rings (2.7, 4.1.4.3) and maps them.
 * 0, or -EPROTO and the queue stays disabled. */
int virtqueue_enable(struct virtqueue *queue, bool indirect, bool event_index);

/* Into and out of a snapshot (transfer.h); nothing is in flight.  A loaded one is checked like one
 * that a driver enables. */
void virtqueue_transfer(struct virtqueue *queue, struct transfer *transfer);

/* Takes the next chain; at most `vectors_max` vectors are written to `vectors`.
 * 1 and *ret_chain; 0 if none waits; -E2BIG if the chain has more vectors (it stays in the queue;
 * cannot happen with vectors_max >= VIRTQUEUE_SIZE_MAX); -EPROTO. */
int virtqueue_pop(struct virtqueue *queue, struct iovec *vectors, unsigned vectors_max,
                  struct virtqueue_chain *ret_chain);
/* Reads one that was taken and not put back anew, into the vectors that it has (of
 * VIRTQUEUE_SIZE_MAX): 0 or -EPROTO. */
int virtqueue_reread(struct virtqueue *queue, struct virtqueue_chain *chain);
/* Gives back the last `count` chains taken, unused: they will be popped again. */
void virtqueue_rewind(struct virtqueue *queue, uint16_t count);

/* Fills a used entry; `written` is how many bytes of the writable part were.  The driver sees it at
 * the next virtqueue_publish. */
void virtqueue_put(struct virtqueue *queue, uint16_t head, uint32_t written);
/* Somebody else has served the queue up to there. */
static inline void virtqueue_resume(struct virtqueue *queue, uint16_t index)
{
    queue->next_avail = queue->next_used = queue->published_used = index;
}
/* Shows the driver what was put, and tells whether it asked for an interrupt. */
bool virtqueue_publish(struct virtqueue *queue);

/* Asks the driver not to kick while we look at the queue anyway. */
void virtqueue_disable_kicks(struct virtqueue *queue);
/* Asks for kicks again; true if chains arrived meanwhile, so that the caller looks again.  `left`
 * is how many waiting chains the caller has seen and left where they are: the kick is for the next.
 */
bool virtqueue_enable_kicks(struct virtqueue *queue, uint16_t left);
