/* virtio_block.c - see virtio_block.h. */
#include "vmm/virtio_block.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "base/loop.h"
#include "base/write_marks.h"
#include "vmm/disk_delta.h"
#include "vmm/io_vector.h"
#include "vmm/stats_counter.h"
#include "vmm/stats_page.h"
#include "vmm/transfer.h"
#include "vmm/virtio_device.h"
#include "vmm/virtio_pci.h"

#define BLOCK_DEVICE_ID  2
#define BLOCK_PCI_CLASS  0x018000
#define BLOCK_QUEUE_SIZE VIRTQUEUE_SIZE_MAX
#define SECTOR           VIRTIO_BLOCK_SECTOR_BYTES

/* 5.2.3 */
#define FEATURE_SIZE_MAX     (1ull << 1)
#define FEATURE_SEGMENT_MAX  (1ull << 2)
#define FEATURE_READ_ONLY    (1ull << 5)
#define FEATURE_BLOCK_SIZE   (1ull << 6)
#define FEATURE_FLUSH        (1ull << 9)
#define FEATURE_TOPOLOGY     (1ull << 10)
#define FEATURE_MULTI_QUEUE  (1ull << 12)
#define FEATURE_DISCARD      (1ull << 13)
#define FEATURE_WRITE_ZEROES (1ull << 14)

/* FreeBSD takes no disk whose segments are shorter than its largest request, 1 MiB.  Two
 * descriptors of a chain are header and status. */
#define SEGMENT_BYTES (1u << 20)
#define SEGMENTS      (BLOCK_QUEUE_SIZE - 2)
/* A request may be done in one go on the loop's thread, so its size is bounded, by less than the
 * segments could hold: larger ones fail.  Linux's have at most 1280 KiB, unless it is told. */
#define REQUEST_BYTES_MAX (32ull << 20)
/* After so much the other devices get their turn. */
#define TURN_REQUESTS 64
#define TURN_BYTES    (16u << 20)
/* Punching a hole takes time by its extents: 1 GiB each, and the others' turn then. */
#define RANGE_SECTORS_MAX (1u << 21)
#define TOPOLOGY_EXPONENT 3 /* 4096-byte blocks underneath */

struct block_config { /* 5.2.4 */
    uint64_t capacity;
    uint32_t size_max, segment_max;
    uint16_t cylinders;
    uint8_t heads, sectors;
    uint32_t block_size;
    uint8_t physical_exponent, alignment_offset;
    uint16_t io_min;
    uint32_t io_optimal;
    uint8_t writeback, unused;
    uint16_t queues;
    uint32_t discard_sectors_max, discard_segments_max, discard_alignment;
    uint32_t zeroes_sectors_max, zeroes_segments_max;
    uint8_t zeroes_may_unmap, unused2[3];
} __attribute__((packed)); /* 60 bytes */

enum {
    REQUEST_IN = 0,
    REQUEST_OUT = 1,
    REQUEST_FLUSH = 4,
    REQUEST_GET_ID = 8,
    REQUEST_DISCARD = 11,
    REQUEST_WRITE_ZEROES = 13
};

struct block_header { /* 5.2.6 */
    uint32_t type, reserved;
    uint64_t sector;
};

struct block_range { /* of discard and write zeroes */
    uint64_t sector;
    uint32_t sectors, flags;
};
#define RANGE_UNMAP 1u

enum block_status { STATUS_OK, STATUS_IO_ERROR, STATUS_UNSUPPORTED, STATUS_PENDING };

struct block_request {
    struct disk_request disk; /* first */
    struct virtio_block *block;
    struct virtqueue_chain chain;
    uint8_t *status;  /* in guest RAM */
    unsigned queue;   /* that it came by */
    uint64_t offset;  /* in the disk, of what it changes */
    uint32_t written; /* bytes of the writable part, without the status */
    bool flushing;    /* a write-through driver's write, now being flushed */
    struct iovec vectors[VIRTQUEUE_SIZE_MAX];
};

struct virtio_block {
    struct virtio_device_ops ops; /* with the number of queues that this one has */
    struct virtio_device *device; /* borrowed */
    struct disk *disk;            /* owned */
    struct loop_source *source;   /* of the disk's event; NULL = none */
    struct stats_disk *stats;     /* borrowed */
    struct virtio_throttle throttle;
    bool read_only;
    uint64_t sectors;
    char serial[VIRTIO_BLOCK_SERIAL_BYTES];
    uint64_t turn_bytes;
    uint8_t *marks; /* of what is written; borrowed; NULL = nobody asks */
    unsigned mark_shift;
    void (*tell_full)(void *context, unsigned place, bool full); /* NULL = none waits for space */
    void *context;
    unsigned place;
    uint16_t kept_count;
    uint16_t kept[DISK_IN_FLIGHT_MAX]; /* requests that wait for space, oldest first */
    /* A stack of free requests, lowest on top, so that few pages of the array are ever touched. */
    uint16_t free_count;
    uint16_t free_requests[DISK_IN_FLIGHT_MAX];
    struct block_request requests[DISK_IN_FLIGHT_MAX];
};

/* --- ending a request --- */

static void request_finish(struct block_request *request, enum block_status status)
{
    struct virtio_block *block = request->block;

    if (status != STATUS_OK) {
        request->written = 0;
        stats_add(&block->stats->errors, 1);
    }
    __atomic_store_n(request->status, (uint8_t)status, __ATOMIC_RELAXED);
    virtqueue_put(virtio_device_queue(block->device, request->queue), request->chain.head,
                  request->written + 1);
    virtio_device_complete(block->device, request->queue);
    for (unsigned i = 0; i < block->ops.queue_count && block->free_count == 0; i++)
        virtio_device_kick(block->device, i); /* each may have waited for this */
    block->free_requests[block->free_count++] = (uint16_t)(request - block->requests);
}

static void request_count(const struct block_request *request)
{
    struct stats_disk *stats = request->block->stats;
    enum disk_operation what = request->disk.operation;

    stats_add(what == DISK_READ    ? &stats->read_ops
              : what == DISK_WRITE ? &stats->write_ops
              : what == DISK_FLUSH ? &stats->flush_ops
                                   : &stats->discard_ops,
              1);
    stats_add(what == DISK_READ    ? &stats->read_bytes
              : what == DISK_WRITE ? &stats->write_bytes
                                   : &stats->discard_bytes,
              request->disk.size); /* 0 of a flush */
}

/* Also of what failed: part of it may be there. */
static void request_mark(const struct block_request *request)
{
    const struct virtio_block *block = request->block;

    if (block->marks && request->disk.operation != DISK_READ && request->disk.size > 0)
        write_marks_set(block->marks, block->mark_shift, request->offset, request->disk.size);
}

/* Nobody wants what a drain cancels. */
static bool request_keep(struct block_request *request, int result)
{
    struct virtio_block *block = request->block;

    if ((result != -ENOSPC && result != -EDQUOT) || !block->tell_full || block->disk->cancelling)
        return false;
    block->kept[block->kept_count++] = (uint16_t)(request - block->requests);
    if (block->kept_count == 1)
        block->tell_full(block->context, block->place, true);
    return true;
}

static void request_done(struct disk_request *disk, int result)
{
    struct block_request *request = (struct block_request *)disk;

    request_mark(request);
    if (request_keep(request, result))
        return;
    if (result < 0) {
        request_finish(request, result == -EOPNOTSUPP ? STATUS_UNSUPPORTED : STATUS_IO_ERROR);
        return;
    }
    if (!request->flushing)
        request_count(request);
    /* 5.2.6.2: without FLUSH the driver takes every completed write as stable. */
    if (!(virtio_device_features(request->block->device) & FEATURE_FLUSH) &&
        disk->operation != DISK_READ && disk->operation != DISK_FLUSH) {
        request->flushing = true;
        disk->operation = DISK_FLUSH;
        disk->offset = disk->size = 0;
        disk->vector_count = 0;
        disk_submit(request->block->disk, disk);
        return;
    }
    request_finish(request, STATUS_OK);
}

/* --- starting one, by its type --- */

static bool range_is_inside(const struct virtio_block *block, uint64_t sector, uint64_t sectors)
{
    return sectors > 0 && sector <= block->sectors && sectors <= block->sectors - sector;
}

static enum block_status request_submit(struct block_request *request, uint64_t sector,
                                        uint64_t size)
{
    request->offset = request->disk.offset = sector * SECTOR;
    request->disk.size = size;
    request->disk.done = request_done;
    request->block->turn_bytes += size;
    rate_limit_spend(&request->block->throttle.limit, request->disk.vector_count > 0 ? size : 0);
    disk_submit(request->block->disk, &request->disk);
    return STATUS_PENDING;
}

/* `vectors` hold the data from `skip` on, `size` bytes of it. */
static enum block_status request_transfer(struct block_request *request,
                                          const struct block_header *header, struct iovec *vectors,
                                          unsigned count, uint64_t skip, uint64_t size)
{
    struct virtio_block *block = request->block;

    if (size % SECTOR != 0 || size > REQUEST_BYTES_MAX ||
        !range_is_inside(block, header->sector, size / SECTOR))
        return STATUS_IO_ERROR;
    request->disk.vectors = vectors;
    request->disk.vector_count = io_vector_slice(vectors, count, skip, size);
    return request_submit(request, header->sector, size);
}

static enum block_status start_read(struct block_request *request,
                                    const struct block_header *header)
{
    struct iovec *writable = request->vectors + request->chain.readable_count;
    unsigned count = request->chain.writable_count;
    uint64_t size = io_vector_bytes(writable, count) - 1; /* the status */

    request->written = (uint32_t)size; /* if it is not too much */
    return request_transfer(request, header, writable, count, 0, size);
}

static enum block_status start_write(struct block_request *request,
                                     const struct block_header *header)
{
    unsigned count = request->chain.readable_count;
    uint64_t size = io_vector_bytes(request->vectors, count) - sizeof(*header);

    if (request->block->read_only)
        return STATUS_IO_ERROR;
    return request_transfer(request, header, request->vectors, count, sizeof(*header), size);
}

static enum block_status start_flush(struct block_request *request,
                                     const struct block_header *header)
{
    (void)header;
    return request_submit(request, 0, 0);
}

static enum block_status start_get_id(struct block_request *request,
                                      const struct block_header *header)
{
    const struct iovec *writable = request->vectors + request->chain.readable_count;
    unsigned count = request->chain.writable_count;

    (void)header;
    if (io_vector_bytes(writable, count) != VIRTIO_BLOCK_SERIAL_BYTES + 1)
        return STATUS_IO_ERROR;
    io_vector_write(writable, count, 0, request->block->serial, VIRTIO_BLOCK_SERIAL_BYTES);
    request->written = VIRTIO_BLOCK_SERIAL_BYTES;
    return STATUS_OK;
}

/* Discard and write zeroes: exactly one range, which is what the configuration allows. */
static enum block_status start_range(struct block_request *request,
                                     const struct block_header *header)
{
    struct virtio_block *block = request->block;
    unsigned count = request->chain.readable_count;
    struct block_range range;

    if (io_vector_bytes(request->vectors, count) != sizeof(*header) + sizeof(range) ||
        !io_vector_read(request->vectors, count, sizeof(*header), &range, sizeof(range)))
        return STATUS_IO_ERROR;
    if ((range.flags & ~RANGE_UNMAP) ||
        (request->disk.operation == DISK_DISCARD && range.flags != 0))
        return STATUS_UNSUPPORTED;
    if (block->read_only || range.sectors > RANGE_SECTORS_MAX ||
        !range_is_inside(block, range.sector, range.sectors))
        return STATUS_IO_ERROR;
    request->disk.may_unmap = range.flags & RANGE_UNMAP;
    return request_submit(request, range.sector, (uint64_t)range.sectors * SECTOR);
}

static const struct request_type {
    enum block_status (*start)(struct block_request *request, const struct block_header *header);
    enum disk_operation operation; /* of the disk, if it has one */
    uint64_t feature;              /* must be negotiated; 0 = none */
} request_types[] = {
    [REQUEST_IN] = { start_read, DISK_READ, 0 },
    [REQUEST_OUT] = { start_write, DISK_WRITE, 0 },
    [REQUEST_FLUSH] = { start_flush, DISK_FLUSH, 0 },
    [REQUEST_GET_ID] = { start_get_id, 0, 0 },
    [REQUEST_DISCARD] = { start_range, DISK_DISCARD, FEATURE_DISCARD },
    [REQUEST_WRITE_ZEROES] = { start_range, DISK_WRITE_ZEROES, FEATURE_WRITE_ZEROES },
};

/* False if the chain has no room for a header or a status: it cannot be answered. */
static bool request_start(struct block_request *request)
{
    struct virtqueue_chain *chain = &request->chain;
    uint64_t features = virtio_device_features(request->block->device);
    enum block_status status = STATUS_UNSUPPORTED;
    struct request_type type = { 0 };
    struct block_header header;

    if (chain->writable_count == 0 ||
        !io_vector_read(request->vectors, chain->readable_count, 0, &header, sizeof(header)))
        return false;

    const struct iovec *last = &request->vectors[chain->readable_count + chain->writable_count - 1];

    if (header.type < ARRAY_LENGTH(request_types))
        type = request_types[header.type];
    request->disk = (struct disk_request){ .operation = type.operation };
    request->status = (uint8_t *)last->iov_base + last->iov_len - 1;
    request->written = 0;
    request->flushing = false;
    if (type.start && (features & type.feature) == type.feature)
        status = type.start(request, &header);
    if (status != STATUS_PENDING)
        request_finish(request, status);
    return true;
}

/* --- the device --- */

/* virtio_device_serve */
static int block_serve(void *owner, unsigned index)
{
    struct virtio_block *block = owner;
    struct block_request *request;
    int result;

    if (block->turn_bytes >= TURN_BYTES) {
        virtio_device_kick(block->device, index);
        return -EAGAIN;
    }
    if (block->free_count == 0 || virtio_throttle_holds(&block->throttle))
        return -EAGAIN;
    request = &block->requests[block->free_requests[block->free_count - 1]];
    result = virtqueue_pop(virtio_device_queue(block->device, index), request->vectors,
                           VIRTQUEUE_SIZE_MAX, &request->chain);
    if (result <= 0)
        return result;
    block->free_count--;
    request->block = block;
    request->queue = index;
    if (request_start(request))
        return 1;
    block->free_count++; /* it is still on top */
    return -EPROTO;
}

static void block_process_queue(void *owner, unsigned index)
{
    struct virtio_block *block = owner;

    block->turn_bytes = 0;
    virtio_device_serve(block->device, index, block_serve, TURN_REQUESTS);
    disk_run(block->disk); /* all of the turn by one system call */
}

static void block_disk_event(void *context, uint32_t events)
{
    struct virtio_block *block = context;

    (void)events;
    virtio_device_lock(block->device);
    disk_run(block->disk);
    virtio_device_unlock(block->device);
}

/* Those that waited for space do no more; returns how many. */
static uint16_t kept_take(struct virtio_block *block, uint16_t *ret_kept)
{
    uint16_t count = block->kept_count;

    if (count > 0)
        block->tell_full(block->context, block->place, false);
    memcpy(ret_kept, block->kept, count * sizeof block->kept[0]);
    block->kept_count = 0;
    return count;
}

static void block_drain(void *owner)
{
    struct virtio_block *block = owner;

    disk_drain(block->disk, DISK_CANCEL);
    block->free_count =
        (uint16_t)(block->free_count + kept_take(block, &block->free_requests[block->free_count]));
}

struct block_flush {
    struct disk_request disk; /* first */
    int result;
};

static void flush_done(struct disk_request *disk, int result)
{
    ((struct block_flush *)disk)->result = result;
}

/* Nothing of ours is in a snapshot, but what it relies on must be in the disk's files: which blocks
 * a delta holds is in memory until a flush. */
static void block_transfer(void *owner, struct transfer *transfer)
{
    struct virtio_block *block = owner;
    struct block_flush flush = { { .operation = DISK_FLUSH, .done = flush_done }, 0 };

    if (transfer->loading)
        return;
    if (block->kept_count > 0)
        transfer_refuse(transfer, EBUSY, "requests of a disk wait for space: they are in no file");
    disk_submit(block->disk, &flush.disk);
    disk_drain(block->disk, DISK_FINISH);
    if (flush.result < 0)
        transfer_refuse(transfer, -flush.result, "a disk cannot be flushed");
}

static uint64_t block_offer_features(void *owner)
{
    const struct virtio_block *block = owner;
    uint64_t features = FEATURE_SIZE_MAX | FEATURE_SEGMENT_MAX | FEATURE_BLOCK_SIZE |
                        FEATURE_FLUSH | FEATURE_TOPOLOGY |
                        (block->ops.queue_count > 1 ? FEATURE_MULTI_QUEUE : 0);

    return features |
           (block->read_only ? FEATURE_READ_ONLY : FEATURE_DISCARD | FEATURE_WRITE_ZEROES);
}

static void block_read_config(void *owner, void *config)
{
    const struct virtio_block *block = owner;
    const struct block_config values = {
        .capacity = block->sectors,
        .size_max = SEGMENT_BYTES,
        .segment_max = SEGMENTS,
        .block_size = SECTOR,
        .physical_exponent = TOPOLOGY_EXPONENT,
        .io_min = 1u << TOPOLOGY_EXPONENT,
        .queues = block->ops.queue_count,
        .discard_sectors_max = RANGE_SECTORS_MAX,
        .discard_segments_max = 1,
        .discard_alignment = 1u << TOPOLOGY_EXPONENT,
        .zeroes_sectors_max = RANGE_SECTORS_MAX,
        .zeroes_segments_max = 1,
        .zeroes_may_unmap = 1,
    };

    memcpy(config, &values, sizeof(values));
}

static void block_free(void *owner)
{
    struct virtio_block *block = owner;

    if (block->disk)
        block_drain(block);
    loop_cancel(block->throttle.timer);
    loop_remove(block->source);
    disk_free(block->disk);
    free(block);
}

static const struct virtio_device_ops block_ops = {
    .name = "block",
    .device_id = BLOCK_DEVICE_ID,
    .pci_class = BLOCK_PCI_CLASS,
    .queue_count = 1,
    .queue_size = BLOCK_QUEUE_SIZE,
    .config_bytes = sizeof(struct block_config),
    .offer_features = block_offer_features,
    .read_config = block_read_config,
    .process_queue = block_process_queue,
    .transfer = block_transfer,
    .drain = block_drain,
    .free = block_free,
};

int virtio_block_add(struct pci_root *root, const struct virtio_block_spec *spec, struct error *err)
{
    struct virtio_block *block;
    int result;

    if (spec->size_bytes == 0 || spec->size_bytes % SECTOR != 0 || spec->size_bytes > INT64_MAX)
        return error_set(err, EINVAL, "disk size of %llu bytes is not a multiple of %d",
                         (unsigned long long)spec->size_bytes, SECTOR);
    block = calloc(1, sizeof(*block));
    if (!block)
        return error_set(err, ENOMEM, "virtio block");
    block->ops = block_ops;
    block->ops.queue_count = (uint16_t)spec->queues;
    block->stats = spec->stats;
    block->read_only = spec->read_only;
    block->sectors = spec->size_bytes / SECTOR;
    block->tell_full = spec->tell_full;
    block->context = spec->context;
    block->place = spec->place;
    memcpy(block->serial, spec->serial, sizeof(block->serial));
    block->free_count = DISK_IN_FLIGHT_MAX;
    for (unsigned i = 0; i < DISK_IN_FLIGHT_MAX; i++)
        block->free_requests[i] = (uint16_t)(DISK_IN_FLIGHT_MAX - 1 - i);

    result = spec->is_delta ? disk_delta_new(spec->base_fd, spec->fd, spec->ring, spec->size_bytes,
                                             &block->disk, err)
                            : disk_raw_new(spec->fd, spec->ring, &block->disk, err);
    if (result == 0 && block->disk->event_fd >= 0)
        result = loop_add(pci_root_host(root)->loop, block->disk->event_fd, EPOLLIN | EPOLLET,
                          block_disk_event, block, &block->source, err);
    if (result == 0)
        result = virtio_pci_add(root, spec->slot, &block->ops, block, &block->device, err);
    else
        block_free(block);
    if (result != 0)
        return result;
    if (spec->ret_block)
        *spec->ret_block = block;
    virtio_throttle_set(&block->throttle, &spec->rate_limit, block->device);
    /* A reset cancels what is in flight (disk.h), by whichever queue it came. */
    if (spec->queues > 1)
        block->device->offered_features &= ~VIRTIO_FEATURE_RING_RESET;
    return 0;
}

void virtio_block_change(struct virtio_block *block, uint64_t size_bytes,
                         const struct vmm_rate_limit *limit)
{
    virtio_device_lock(block->device);
    virtio_throttle_set(&block->throttle, limit, block->device);
    if (size_bytes / SECTOR > block->sectors && size_bytes <= block->disk->bytes_max) {
        block->sectors = size_bytes / SECTOR;
        virtio_device_config_changed(block->device);
    }
    virtio_device_unlock(block->device);
}

void virtio_block_mark_writes(struct virtio_block *block, uint8_t *marks, unsigned shift)
{
    virtio_device_lock(block->device);
    block->marks = marks;
    block->mark_shift = shift;
    virtio_device_unlock(block->device);
}

void virtio_block_finish(struct virtio_block *block, enum disk_drain how)
{
    virtio_device_lock(block->device);
    disk_drain(block->disk, how);
    virtio_device_unlock(block->device);
}

/* Its chain is read anew: the engine has changed the vectors.  If it is no request any more, the
 * driver broke a rule.  Limits counted it when it came. */
void virtio_block_retry(struct virtio_block *block)
{
    const struct rate_limit spent = block->throttle.limit;
    uint16_t kept[DISK_IN_FLIGHT_MAX], count = 0;

    virtio_device_lock(block->device);
    if (virtio_device_is_live(block->device))
        count = kept_take(block, kept);
    for (unsigned i = 0; i < count; i++) {
        struct block_request *request = &block->requests[kept[i]];

        if (virtio_device_is_live(block->device) &&
            virtqueue_reread(virtio_device_queue(block->device, request->queue), &request->chain) ==
                0 &&
            request_start(request))
            continue;
        virtio_device_fault(block->device);
        block->free_requests[block->free_count++] = kept[i];
    }
    block->throttle.limit = spent;
    disk_run(block->disk);
    virtio_device_unlock(block->device);
}
