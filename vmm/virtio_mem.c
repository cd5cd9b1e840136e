/* virtio_mem.c - see virtio_mem.h. */
#include "vmm/virtio_mem.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "vmm/control_protocol.h"
#include "vmm/guest_memory.h"
#include "vmm/io_vector.h"
#include "vmm/transfer.h"
#include "vmm/virtio_device.h"
#include "vmm/virtio_pci.h"

#define MEM_DEVICE_ID  24
#define MEM_PCI_CLASS  0x00ff00
#define MEM_QUEUE_SIZE 64

#define FEATURE_UNPLUGGED_INACCESSIBLE (1ull << 1) /* the driver leaves alone what it has not */

#define BLOCK_BYTES VMM_MEMORY_BLOCK

enum { REQUEST_PLUG, REQUEST_UNPLUG, REQUEST_UNPLUG_ALL, REQUEST_STATE }; /* 5.15.6 */
enum { RESPONSE_ACK, RESPONSE_NACK, RESPONSE_BUSY, RESPONSE_ERROR };
enum { STATE_PLUGGED, STATE_UNPLUGGED, STATE_MIXED };

struct mem_config { /* 5.15.4 */
    uint64_t block_size;
    uint16_t node, padding[3];
    uint64_t address, region_size, usable_size, plugged_size, requested_size;
};

struct mem_request {
    uint16_t type, padding[3];
    uint64_t address;
    uint16_t count, padding2[3]; /* of blocks */
};

struct mem_response {
    uint16_t type, padding[3];
    uint16_t state;
};

struct virtio_mem {
    struct virtio_device *device;      /* borrowed */
    const struct guest_memory *memory; /* borrowed */
    struct stats_memory *stats;        /* borrowed */
    struct guest_memory_region region;
    uint64_t requested; /* bytes */
    uint64_t announced; /* of them, by an interrupt: before a snapshot it may have been others */
    uint64_t plugged;   /* blocks */
    uint64_t blocks;    /* of the region */
    struct iovec vectors[VIRTQUEUE_SIZE_MAX];
    uint8_t is_plugged[]; /* of each block: 0 or 1 */
};

static void tell(struct virtio_mem *mem)
{
    __atomic_store_n(&mem->stats->requested_bytes, mem->requested, __ATOMIC_RELAXED);
    __atomic_store_n(&mem->stats->plugged_bytes, mem->plugged * BLOCK_BYTES, __ATOMIC_RELAXED);
}

/* The number of a range's first block; false unless it is whole blocks of the region. */
static bool find_blocks(const struct virtio_mem *mem, const struct mem_request *request,
                        uint64_t *ret_first)
{
    uint64_t offset = request->address - mem->region.guest_start;

    if (request->address < mem->region.guest_start || offset >= mem->region.size ||
        offset % BLOCK_BYTES != 0 || request->count == 0 ||
        request->count > mem->blocks - offset / BLOCK_BYTES)
        return false;
    *ret_first = offset / BLOCK_BYTES;
    return true;
}

static uint16_t state_of(const struct virtio_mem *mem, uint64_t first, uint64_t count)
{
    uint64_t plugged = 0;

    for (uint64_t i = first; i < first + count; i++)
        plugged += mem->is_plugged[i];
    return plugged == count ? STATE_PLUGGED : plugged == 0 ? STATE_UNPLUGGED : STATE_MIXED;
}

static void unplug(struct virtio_mem *mem, uint64_t first, uint64_t count)
{
    for (uint64_t i = first; i < first + count; i++) {
        mem->plugged -= mem->is_plugged[i];
        mem->is_plugged[i] = 0;
    }
    guest_memory_discard(mem->memory, mem->region.guest_start + first * BLOCK_BYTES,
                         count * BLOCK_BYTES);
}

static uint16_t plug(struct virtio_mem *mem, uint64_t first, uint64_t count)
{
    if (state_of(mem, first, count) != STATE_UNPLUGGED)
        return RESPONSE_ERROR;
    if ((mem->plugged + count) * BLOCK_BYTES > mem->requested)
        return RESPONSE_NACK;
    unplug(mem, first, count); /* whatever was there: it comes as zeroes */
    memset(mem->is_plugged + first, 1, count);
    mem->plugged += count;
    return RESPONSE_ACK;
}

static struct mem_response answer(struct virtio_mem *mem, const struct mem_request *request)
{
    struct mem_response response = { .type = RESPONSE_ACK };
    uint64_t first = 0;

    if (request->type == REQUEST_UNPLUG_ALL) {
        unplug(mem, 0, mem->blocks);
    } else if (request->type > REQUEST_STATE || !find_blocks(mem, request, &first)) {
        response.type = RESPONSE_ERROR;
    } else if (request->type == REQUEST_STATE) {
        response.state = state_of(mem, first, request->count);
    } else if (request->type == REQUEST_PLUG) {
        response.type = plug(mem, first, request->count);
    } else if (state_of(mem, first, request->count) == STATE_PLUGGED) {
        unplug(mem, first, request->count);
    } else {
        response.type = RESPONSE_ERROR;
    }
    return response;
}

static int mem_serve(void *owner, unsigned index)
{
    struct virtio_mem *mem = owner;
    struct virtqueue *queue = virtio_device_queue(mem->device, index);
    struct virtqueue_chain chain;
    struct mem_request request;
    struct mem_response response;
    const size_t size = offsetof(struct mem_response, state) + sizeof response.state;
    int result = virtqueue_pop(queue, mem->vectors, VIRTQUEUE_SIZE_MAX, &chain);

    if (result <= 0)
        return result;
    if (!io_vector_read(chain.vectors, chain.readable_count, 0, &request, sizeof request) ||
        io_vector_bytes(chain.vectors + chain.readable_count, chain.writable_count) < size)
        return -EPROTO;
    response = answer(mem, &request);
    tell(mem);
    (void)io_vector_write(chain.vectors + chain.readable_count, chain.writable_count, 0, &response,
                          size);
    virtqueue_put(queue, chain.head, (uint32_t)size);
    virtio_device_complete(mem->device, index);
    return 1;
}

static uint64_t mem_offer_features(void *owner)
{
    (void)owner;
    return FEATURE_UNPLUGGED_INACCESSIBLE;
}

static void mem_read_config(void *owner, void *config)
{
    const struct virtio_mem *mem = owner;
    const struct mem_config values = {
        .block_size = BLOCK_BYTES,
        .address = mem->region.guest_start,
        .region_size = mem->region.size,
        .usable_size = mem->region.size,
        .plugged_size = mem->plugged * BLOCK_BYTES,
        .requested_size = mem->requested,
    };

    memcpy(config, &values, sizeof values);
}

/* What the driver has, it keeps when the device is reset (5.15.5.2). */
static void mem_transfer(void *owner, struct transfer *transfer)
{
    struct virtio_mem *mem = owner;

    transfer_item(transfer, "memory announced", &mem->announced, sizeof mem->announced);
    transfer_item(transfer, "memory plugged", mem->is_plugged, mem->blocks);
    mem->plugged = 0;
    for (uint64_t i = 0; i < mem->blocks; i++) {
        if (mem->is_plugged[i] > 1)
            transfer_refuse(transfer, EINVAL, "a block of memory is neither there nor not");
        mem->plugged += mem->is_plugged[i];
    }
    tell(mem);
}

static const struct virtio_device_ops mem_ops = {
    .name = "mem",
    .device_id = MEM_DEVICE_ID,
    .queue_count = 1,
    .queue_size = MEM_QUEUE_SIZE,
    .config_bytes = sizeof(struct mem_config),
    .offer_features = mem_offer_features,
    .read_config = mem_read_config,
    .serve = mem_serve,
    .transfer = mem_transfer,
    .free = free,
};

int virtio_mem_add(struct pci_root *root, const struct guest_memory *memory,
                   const struct guest_memory_region *region, uint64_t requested,
                   struct stats_memory *stats, struct loop *loop, struct virtio_mem **ret_mem,
                   struct error *err)
{
    uint64_t blocks = region->size / BLOCK_BYTES;
    struct virtio_mem *mem = calloc(1, sizeof(*mem) + blocks);
    int result;

    if (!mem)
        return error_set(err, ENOMEM, "virtio mem");
    mem->memory = memory;
    mem->stats = stats;
    mem->region = *region;
    mem->requested = mem->announced = requested;
    mem->blocks = blocks;
    tell(mem);
    result =
        virtio_pci_add(root, PCI_SLOT_ANY, &mem_ops, mem, MEM_PCI_CLASS, loop, &mem->device, err);
    if (result != 0)
        free(mem);
    else
        *ret_mem = mem;
    return result;
}

void virtio_mem_change(struct virtio_mem *mem, uint64_t requested)
{
    virtio_device_lock(mem->device);
    if (requested != mem->announced) {
        mem->requested = mem->announced = requested;
        tell(mem);
        virtio_device_config_changed(mem->device);
    }
    virtio_device_unlock(mem->device);
}
