/* virtqueue.c - see virtqueue.h. */
#include "vmm/virtqueue.h"
#include <errno.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include "vmm/guest_memory.h"
#include "vmm/transfer.h"

/* The rings (virtio 1.2, 2.7.5 to 2.7.8) are linux/virtio_ring.h's: little-endian, as is every host
 * we run on.  Behind the available one stands used_event. */

void virtqueue_init(struct virtqueue *queue, const struct guest_memory *memory, uint16_t size_max)
{
    *queue = (struct virtqueue){ .memory = memory, .size_max = size_max, .size = size_max };
}

void virtqueue_reset(struct virtqueue *queue)
{
    virtqueue_init(queue, queue->memory, queue->size_max);
}

static int queue_break(struct virtqueue *queue)
{
    queue->broken = true;
    return -EPROTO;
}

static bool ranges_overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
    return a < b + b_size && b < a + a_size;
}

int virtqueue_enable(struct virtqueue *queue, bool indirect, bool event_index)
{
    uint64_t size = queue->size;
    uint64_t descriptor_bytes = size * sizeof(struct vring_desc);
    uint64_t avail_bytes = sizeof(struct vring_avail) + (size + 1) * sizeof(uint16_t);
    uint64_t used_bytes =
        sizeof(struct vring_used) + size * sizeof(struct vring_used_elem) + sizeof(uint16_t);

    if (size == 0 || size > queue->size_max || (size & (size - 1)) != 0)
        return -EPROTO;
    if (queue->descriptor_address % 16 != 0 || queue->avail_address % 2 != 0 ||
        queue->used_address % 4 != 0)
        return -EPROTO;

    void *descriptors =
        guest_memory_map(queue->memory, queue->descriptor_address, descriptor_bytes);
    void *avail = guest_memory_map(queue->memory, queue->avail_address, avail_bytes);
    void *used = guest_memory_map(queue->memory, queue->used_address, used_bytes);

    if (!descriptors || !avail || !used)
        return -EPROTO;
    if (ranges_overlap(queue->descriptor_address, descriptor_bytes, queue->avail_address,
                       avail_bytes) ||
        ranges_overlap(queue->descriptor_address, descriptor_bytes, queue->used_address,
                       used_bytes) ||
        ranges_overlap(queue->avail_address, avail_bytes, queue->used_address, used_bytes))
        return -EPROTO;

    queue->descriptors = descriptors;
    queue->avail = avail;
    queue->used = used;
    queue->indirect = indirect;
    queue->event_index = event_index;
    queue->enabled = true; /* the indices are those of virtqueue_reset */
    return 0;
}

void virtqueue_transfer(struct virtqueue *queue, struct transfer *transfer)
{
    struct {
        uint64_t descriptors, avail, used;
        uint16_t size, next_avail, next_used;
        uint8_t enabled, broken, indirect, event_index, padding[6];
    } state = { queue->descriptor_address,
                queue->avail_address,
                queue->used_address,
                queue->size,
                queue->next_avail,
                queue->next_used,
                queue->enabled,
                queue->broken,
                queue->indirect,
                queue->event_index,
                { 0 } };

    transfer_value(transfer, "virtqueue", state);
    if (!transfer->loading || !transfer_is_good(transfer))
        return;
    queue->descriptor_address = state.descriptors;
    queue->avail_address = state.avail;
    queue->used_address = state.used;
    queue->size = state.size;
    if (state.enabled && virtqueue_enable(queue, state.indirect, state.event_index) < 0)
        transfer_refuse(transfer, EPROTO, "a virtqueue's rings are not in its memory");
    queue->broken = state.broken;
    queue->next_avail = state.next_avail;
    queue->next_used = queue->published_used = state.next_used;
}

/* How many chains the driver has offered and we have not taken, or -EPROTO. */
static int chains_waiting(struct virtqueue *queue)
{
    if (queue->broken)
        return -EPROTO;
    if (!queue->enabled)
        return 0;

    uint16_t index = __atomic_load_n(&queue->avail->idx, __ATOMIC_ACQUIRE);
    uint16_t waiting = (uint16_t)(index - queue->next_avail);

    return waiting > queue->size ? queue_break(queue) : waiting;
}

/* A walk along one chain. */
struct chain_walk {
    struct virtqueue *queue;
    const struct vring_desc *table; /* the ring's, or an indirect one in guest RAM */
    uint32_t table_count;
    bool in_indirect;
    struct virtqueue_chain *chain;
    unsigned vectors_max;
};

static int walk_add_buffer(struct chain_walk *walk, const struct vring_desc *descriptor)
{
    struct virtqueue_chain *chain = walk->chain;
    unsigned count = chain->readable_count + chain->writable_count;
    void *host = guest_memory_map(walk->queue->memory, descriptor->addr, descriptor->len);

    if (!host || count >= walk->queue->size) /* not RAM, wraps, or empty; or too many */
        return -EPROTO;
    if (count >= walk->vectors_max)
        return -E2BIG;
    chain->vectors[count] = (struct iovec){ .iov_base = host, .iov_len = descriptor->len };
    if (descriptor->flags & VRING_DESC_F_WRITE)
        chain->writable_count++;
    else if (chain->writable_count > 0) /* 2.7.4.2: readable ones first */
        return -EPROTO;
    else
        chain->readable_count++;
    return 0;
}

/* 2.7.5.3: only where negotiated, not nested, last of its chain, a whole number of descriptors. */
static int walk_enter_indirect(struct chain_walk *walk, const struct vring_desc *descriptor)
{
    if (!walk->queue->indirect || walk->in_indirect || (descriptor->flags & VRING_DESC_F_NEXT))
        return -EPROTO;
    if (descriptor->len == 0 || descriptor->len % sizeof(*descriptor) != 0)
        return -EPROTO;

    walk->table = guest_memory_map(walk->queue->memory, descriptor->addr, descriptor->len);
    walk->table_count = descriptor->len / sizeof(*descriptor);
    walk->in_indirect = true;
    return walk->table ? 0 : -EPROTO;
}

/* Ends: each turn adds a buffer, of which there may be as many as the queue has entries, but the
 * one that enters an indirect table. */
static int walk_chain(struct chain_walk *walk, uint16_t head)
{
    uint32_t next = head;

    for (;;) {
        struct vring_desc copy;
        int result;

        if (next >= walk->table_count)
            return -EPROTO;
        memcpy(&copy, walk->table + next, sizeof(copy));
        /* The compiler may not read the guest's memory a second time instead of the copy. */
        __asm__ volatile("" : "+m"(copy) : : "memory");

        if (copy.flags & VRING_DESC_F_INDIRECT) {
            result = walk_enter_indirect(walk, &copy);
            if (result < 0)
                return result;
            next = 0;
            continue;
        }

        result = walk_add_buffer(walk, &copy);
        if (result < 0)
            return result;
        if (!(copy.flags & VRING_DESC_F_NEXT))
            return 0;
        next = copy.next;
    }
}

static int read_chain(struct virtqueue *queue, unsigned vectors_max, struct virtqueue_chain *chain)
{
    struct chain_walk walk = {
        .queue = queue,
        .table = queue->descriptors,
        .table_count = queue->size,
        .chain = chain,
        .vectors_max = vectors_max,
    };
    int result = walk_chain(&walk, chain->head);

    return result < 0 && result != -E2BIG ? queue_break(queue) : result;
}

int virtqueue_reread(struct virtqueue *queue, struct virtqueue_chain *chain)
{
    chain->readable_count = chain->writable_count = 0;
    return queue->broken ? -EPROTO : read_chain(queue, VIRTQUEUE_SIZE_MAX, chain);
}

int virtqueue_pop(struct virtqueue *queue, struct iovec *vectors, unsigned vectors_max,
                  struct virtqueue_chain *ret_chain)
{
    int waiting = chains_waiting(queue);

    if (waiting <= 0)
        return waiting;
    if (queue->in_flight >= queue->size) /* offered again before we gave it back */
        return queue_break(queue);

    uint16_t slot = queue->next_avail % queue->size;
    int result;

    *ret_chain = (struct virtqueue_chain){
        .head = __atomic_load_n(&queue->avail->ring[slot], __ATOMIC_RELAXED),
        .vectors = vectors,
    };
    result = read_chain(queue, vectors_max, ret_chain);
    if (result < 0)
        return result;
    queue->next_avail++;
    queue->in_flight++;
    return 1;
}

void virtqueue_rewind(struct virtqueue *queue, uint16_t count)
{
    queue->next_avail = (uint16_t)(queue->next_avail - count);
    queue->in_flight = (uint16_t)(queue->in_flight - count);
}

void virtqueue_put(struct virtqueue *queue, uint16_t head, uint32_t written)
{
    struct vring_used_elem *entry = &queue->used->ring[queue->next_used % queue->size];

    __atomic_store_n(&entry->id, head, __ATOMIC_RELAXED);
    __atomic_store_n(&entry->len, written, __ATOMIC_RELAXED);
    queue->next_used++;
    queue->in_flight--;
}

bool virtqueue_publish(struct virtqueue *queue)
{
    uint16_t now = queue->next_used;
    uint16_t before = queue->published_used;

    if (now == before)
        return false;
    __atomic_store_n(&queue->used->idx, now, __ATOMIC_RELEASE);
    queue->published_used = now;
    /* The driver writes used_event (or the flag) and then reads used->idx; we the other way
     * round: without a full barrier on both sides each could miss the other. */
    __sync_synchronize();

    if (!queue->event_index)
        return !(__atomic_load_n(&queue->avail->flags, __ATOMIC_RELAXED) &
                 VRING_AVAIL_F_NO_INTERRUPT);

    /* 2.7.7: interrupt if used_event was passed by what is new. */
    return vring_need_event(__atomic_load_n(&queue->avail->ring[queue->size], __ATOMIC_RELAXED),
                            now, before);
}

/* avail_event stands behind the used ring. */
static uint16_t *queue_avail_event(const struct virtqueue *queue)
{
    return (uint16_t *)(void *)&queue->used->ring[queue->size];
}

void virtqueue_disable_kicks(struct virtqueue *queue)
{
    /* With event indices an old avail_event is enough: it asks for no kick until it is passed. */
    if (queue->enabled && !queue->event_index)
        __atomic_store_n(&queue->used->flags, VRING_USED_F_NO_NOTIFY, __ATOMIC_RELAXED);
}

bool virtqueue_enable_kicks(struct virtqueue *queue, uint16_t left)
{
    if (!queue->enabled)
        return false;
    if (queue->event_index)
        __atomic_store_n(queue_avail_event(queue), (uint16_t)(queue->next_avail + left),
                         __ATOMIC_RELAXED);
    else
        __atomic_store_n(&queue->used->flags, 0, __ATOMIC_RELAXED);
    __sync_synchronize();                 /* as in virtqueue_publish */
    return chains_waiting(queue) != left; /* a violation counts: the next pop reports it */
}
