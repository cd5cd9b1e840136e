/* virtio_mem.c - see virtio_mem.h. */
#include "vmm/virtio_mem.h"
#include <errno.h>
#include <linux/virtio_mem.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "vmm/control_protocol.h"
#include "vmm/guest_memory.h"
#include "vmm/io_vector.h"
#include "vmm/stats_counter.h"
#include "vmm/transfer.h"
#include "vmm/virtio_device.h"
#include "vmm/virtio_pci.h"

#define MEM_PCI_CLASS  0x00ff00
#define MEM_QUEUE_SIZE 64

#define BLOCK_BYTES VMM_MEMORY_BLOCK

struct virtio_mem {
    struct virtio_device *device; /* borrowed */
    struct guest_memory *memory;  /* borrowed */
    struct stats_memory *stats;   /* borrowed */
    struct guest_memory_region region;
    uint64_t requested;   /* bytes */
    uint64_t plugged;     /* blocks */
    uint64_t blocks;      /* of the region */
    uint8_t is_plugged[]; /* of each block: 0 or 1 */
};

static void tell(struct virtio_mem *mem)
{
    stats_set(&mem->stats->requested_bytes, mem->requested);
    stats_set(&mem->stats->plugged_bytes, mem->plugged * BLOCK_BYTES);
}

/* The number of a range's first block; false unless it is whole blocks of the region. */
static bool find_blocks(const struct virtio_mem *mem, uint64_t address, uint64_t count,
                        uint64_t *ret_first)
{
    uint64_t offset = address - mem->region.guest_start;

    if (address < mem->region.guest_start || offset >= mem->region.size ||
        offset % BLOCK_BYTES != 0 || count == 0 || count > mem->blocks - offset / BLOCK_BYTES)
        return false;
    *ret_first = offset / BLOCK_BYTES;
    return true;
}

static uint16_t state_of(const struct virtio_mem *mem, uint64_t first, uint64_t count)
{
    uint64_t plugged = 0;

    for (uint64_t i = first; i < first + count; i++)
        plugged += mem->is_plugged[i];
    return plugged == count ? VIRTIO_MEM_STATE_PLUGGED
           : plugged == 0   ? VIRTIO_MEM_STATE_UNPLUGGED
                            : VIRTIO_MEM_STATE_MIXED;
}

/* All or none: where the host cannot take the memory back now, the driver asks again. */
static uint16_t unplug(struct virtio_mem *mem, uint64_t first, uint64_t count)
{
    if (!guest_memory_discard(mem->memory, mem->region.guest_start + first * BLOCK_BYTES,
                              count * BLOCK_BYTES))
        return VIRTIO_MEM_RESP_BUSY;
    for (uint64_t i = first; i < first + count; i++) {
        mem->plugged -= mem->is_plugged[i];
        mem->is_plugged[i] = 0;
    }
    return VIRTIO_MEM_RESP_ACK;
}

static uint16_t plug(struct virtio_mem *mem, uint64_t first, uint64_t count)
{
    if (state_of(mem, first, count) != VIRTIO_MEM_STATE_UNPLUGGED)
        return VIRTIO_MEM_RESP_ERROR;
    if ((mem->plugged + count) * BLOCK_BYTES > mem->requested)
        return VIRTIO_MEM_RESP_NACK;
    if (unplug(mem, first, count) != VIRTIO_MEM_RESP_ACK) /* it comes as zeroes, or not */
        return VIRTIO_MEM_RESP_BUSY;
    memset(mem->is_plugged + first, 1, count);
    mem->plugged += count;
    return VIRTIO_MEM_RESP_ACK;
}

static struct virtio_mem_resp answer(struct virtio_mem *mem, const struct virtio_mem_req *request)
{
    struct virtio_mem_resp response = { .type = VIRTIO_MEM_RESP_ACK };
    uint64_t first = 0, count = request->u.state.nb_blocks; /* the other requests look the same */

    if (request->type == VIRTIO_MEM_REQ_UNPLUG_ALL) {
        response.type = unplug(mem, 0, mem->blocks);
    } else if (request->type > VIRTIO_MEM_REQ_STATE ||
               !find_blocks(mem, request->u.state.addr, count, &first)) {
        response.type = VIRTIO_MEM_RESP_ERROR;
    } else if (request->type == VIRTIO_MEM_REQ_STATE) {
        response.u.state.state = state_of(mem, first, count);
    } else if (request->type == VIRTIO_MEM_REQ_PLUG) {
        response.type = plug(mem, first, count);
    } else if (state_of(mem, first, count) == VIRTIO_MEM_STATE_PLUGGED) {
        response.type = unplug(mem, first, count);
    } else {
        response.type = VIRTIO_MEM_RESP_ERROR;
    }
    return response;
}

static int mem_serve(void *owner, unsigned queue, const struct virtqueue_chain *chain)
{
    struct virtio_mem *mem = owner;
    const struct iovec *writable = chain->vectors + chain->readable_count;
    struct virtio_mem_req request;
    struct virtio_mem_resp response;

    (void)queue;
    if (!io_vector_read(chain->vectors, chain->readable_count, 0, &request, sizeof request) ||
        io_vector_bytes(writable, chain->writable_count) < sizeof response)
        return -EPROTO;
    response = answer(mem, &request);
    tell(mem);
    (void)io_vector_write(writable, chain->writable_count, 0, &response, sizeof response);
    return sizeof response;
}

static void mem_read_config(void *owner, void *config)
{
    const struct virtio_mem *mem = owner;
    const struct virtio_mem_config values = {
        .block_size = BLOCK_BYTES,
        .addr = mem->region.guest_start,
        .region_size = mem->region.size,
        .usable_region_size = mem->region.size,
        .plugged_size = mem->plugged * BLOCK_BYTES,
        .requested_size = mem->requested,
    };

    memcpy(config, &values, sizeof values);
}

/* What the driver has, it keeps when the device is reset (5.15.5.2). */
static void mem_transfer(void *owner, struct transfer *transfer)
{
    struct virtio_mem *mem = owner;
    uint64_t announced = mem->requested; /* is not needed, but part of the state */

    transfer_value(transfer, "memory announced", announced);
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
    .device_id = VIRTIO_ID_MEM,
    .pci_class = MEM_PCI_CLASS,
    .queue_count = 1,
    .queue_size = MEM_QUEUE_SIZE,
    .config_bytes = sizeof(struct virtio_mem_config),
    /* the driver leaves alone what it has not plugged */
    .features = 1ull << VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE,
    .read_config = mem_read_config,
    .serve = mem_serve,
    .transfer = mem_transfer,
    .free = free,
};

int virtio_mem_add(struct pci_root *root, uint64_t requested, struct stats_memory *stats,
                   struct virtio_mem **ret_mem, struct error *err)
{
    struct guest_memory *memory = pci_root_host(root)->memory;
    struct guest_memory_region region =
        guest_memory_region(memory, guest_memory_region_count(memory) - 1);
    uint64_t blocks = region.size / BLOCK_BYTES;
    struct virtio_mem *mem = calloc(1, sizeof(*mem) + blocks);
    int result;

    if (!mem)
        return error_set(err, ENOMEM, "virtio mem");
    mem->memory = memory;
    mem->stats = stats;
    mem->region = region;
    mem->requested = requested;
    mem->blocks = blocks;
    tell(mem);
    result = virtio_pci_add(root, PCI_SLOT_ANY, &mem_ops, mem, &mem->device, err);
    if (result == 0)
        *ret_mem = mem;
    return result;
}

void virtio_mem_change(struct virtio_mem *mem, uint64_t requested)
{
    virtio_device_lock(mem->device);
    if (requested != mem->requested) {
        mem->requested = requested;
        tell(mem);
        virtio_device_config_changed(mem->device);
    }
    virtio_device_unlock(mem->device);
}
