/* virtio_balloon.c - see virtio_balloon.h. */
#include "vmm/virtio_balloon.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/loop.h"
#include "vmm/control_protocol.h"
#include "vmm/guest_memory.h"
#include "vmm/io_vector.h"
#include "vmm/stats_counter.h"
#include "vmm/transfer.h"
#include "vmm/virtio_device.h"
#include "vmm/virtio_pci.h"

#define BALLOON_DEVICE_ID  5
#define BALLOON_PCI_CLASS  0x00ff00
#define BALLOON_QUEUE_SIZE 128
#define BALLOON_PAGE_SHIFT 12
#define CONFIG_ACTUAL      4 /* offset of the only writable field, 5.5.4 */

#define FEATURE_STATS_QUEUE    (1ull << 1)
#define FEATURE_DEFLATE_ON_OOM (1ull << 2)
#define FEATURE_PAGE_REPORTING (1ull << 5)

/* A chain is heard this far.  Linux sends 256 page numbers, reports of 128 MiB, 16 statistics. */
#define CHAIN_PAGES        4096
#define CHAIN_REPORT_BYTES (1ull << 30)
#define CHAIN_STATS        64

enum { QUEUE_INFLATE, QUEUE_DEFLATE, QUEUE_STATS, QUEUE_REPORTING, QUEUE_COUNT };

struct __attribute__((packed)) stat { /* 5.5.6.3 */
    uint16_t tag;
    uint64_t value;
};

struct virtio_balloon {
    struct virtio_device *device;      /* borrowed */
    const struct guest_memory *memory; /* borrowed */
    struct stats_balloon *stats;       /* borrowed */
    struct loop *loop;                 /* borrowed */
    struct vmm_balloon config;
    uint32_t actual;          /* pages, as the driver says */
    struct loop_timer *timer; /* until the guest is asked for statistics; loop's thread */
    uint16_t stats_head; /* the buffer we hold while one is in flight: giving it back is asking */
    uint32_t pages[CHAIN_PAGES];
    struct iovec vectors[VIRTQUEUE_SIZE_MAX];
};

static void stats_set(uint64_t *counter, uint64_t value)
{
    __atomic_store_n(counter, value, __ATOMIC_RELAXED);
}

static int compare_pages(const void *a, const void *b)
{
    const uint32_t *one = a, *other = b;

    return (*one > *other) - (*one < *other);
}

/* Page numbers in any order (5.5.6): sorted, so that a huge page goes whole, in one call. */
static void inflate(struct virtio_balloon *balloon, const struct virtqueue_chain *chain)
{
    uint64_t bytes = io_vector_bytes(chain->vectors, chain->readable_count);
    size_t count = bytes < sizeof(balloon->pages) ? bytes / 4 : CHAIN_PAGES;
    uint32_t *pages = balloon->pages;

    io_vector_read(chain->vectors, chain->readable_count, 0, pages, count * sizeof(pages[0]));
    qsort(pages, count, sizeof(pages[0]), compare_pages);
    for (size_t i = 0, next; i < count; i = next) {
        for (next = i + 1; next < count && pages[next] - pages[next - 1] <= 1; next++)
            continue;
        guest_memory_discard(balloon->memory, (uint64_t)pages[i] << BALLOON_PAGE_SHIFT,
                             (pages[next - 1] - pages[i] + 1ull) << BALLOON_PAGE_SHIFT);
    }
    stats_add(&balloon->stats->inflated_bytes, (uint64_t)count << BALLOON_PAGE_SHIFT);
}

/* Each vector is a range of free memory, and stays free until the chain is back (5.5.6.7). */
static void take_report(struct virtio_balloon *balloon, const struct virtqueue_chain *chain)
{
    unsigned count = io_vector_slice(chain->vectors, chain->writable_count, 0, CHAIN_REPORT_BYTES);

    for (unsigned i = 0; i < count; i++)
        guest_memory_discard_mapped(balloon->memory, chain->vectors[i].iov_base,
                                    chain->vectors[i].iov_len);
    stats_add(&balloon->stats->reported_bytes, io_vector_bytes(chain->vectors, count));
}

static void ask_for_stats(void *context)
{
    struct virtio_balloon *balloon = context;
    struct virtqueue *queue = virtio_device_queue(balloon->device, QUEUE_STATS);

    virtio_device_lock(balloon->device);
    balloon->timer = NULL;
    if (virtio_device_is_live(balloon->device) && queue->enabled && queue->in_flight > 0) {
        virtqueue_put(queue, balloon->stats_head, 0);
        virtio_device_complete(balloon->device, QUEUE_STATS);
    }
    virtio_device_unlock(balloon->device);
}

/* Without memory for a timer, nothing is asked until the next change. */
static void plan_stats(struct virtio_balloon *balloon)
{
    if (!balloon->timer && balloon->config.stats_interval_s > 0)
        balloon->timer = loop_after(balloon->loop, balloon->config.stats_interval_s * 1000,
                                    ask_for_stats, balloon);
}

static void read_stats(struct virtio_balloon *balloon, const struct virtqueue_chain *chain)
{
    struct stats_balloon *stats = balloon->stats;
    uint64_t known = 0;
    struct stat stat;

    for (unsigned i = 0; i < CHAIN_STATS; i++) {
        if (!io_vector_read(chain->vectors, chain->readable_count, i * sizeof(stat), &stat,
                            sizeof(stat)) ||
            stat.tag >= STATS_GUEST_MAX)
            continue;
        stats_set(&stats->guest[stat.tag], stat.value);
        known |= 1ull << stat.tag;
    }
    stats_set(&stats->guest_known, known);
    stats_set(&stats->guest_ms, (uint64_t)loop_now_ms());
    plan_stats(balloon);
}

/* A report is told by its direction: a driver that does not take the statistics' queue numbers the
 * queue of reports in its place. */
static int balloon_serve(void *owner, unsigned index)
{
    struct virtio_balloon *balloon = owner;
    struct virtqueue *queue = virtio_device_queue(balloon->device, index);
    struct virtqueue_chain chain;
    int result = virtqueue_pop(queue, balloon->vectors, VIRTQUEUE_SIZE_MAX, &chain);
    uint16_t done;

    if (result <= 0)
        return result;
    done = chain.head;
    if (index == QUEUE_INFLATE) {
        inflate(balloon, &chain);
    } else if (index >= QUEUE_STATS && chain.writable_count > 0) {
        take_report(balloon, &chain);
    } else if (index == QUEUE_STATS) { /* the newest is held */
        read_stats(balloon, &chain);
        done = balloon->stats_head;
        balloon->stats_head = chain.head;
        if (queue->in_flight < 2)
            return 1;
    }
    virtqueue_put(queue, done, 0);
    virtio_device_complete(balloon->device, index);
    return 1;
}

static uint64_t balloon_offer_features(void *owner)
{
    const struct virtio_balloon *balloon = owner;

    return FEATURE_STATS_QUEUE |
           (guest_memory_refills(balloon->memory) ? FEATURE_PAGE_REPORTING : 0) |
           (balloon->config.deflate_on_oom ? FEATURE_DEFLATE_ON_OOM : 0);
}

static void balloon_read_config(void *owner, void *config)
{
    const struct virtio_balloon *balloon = owner;
    uint32_t target = balloon->config.target_mib << (20 - BALLOON_PAGE_SHIFT);

    memcpy(config, &target, sizeof(target));
    memcpy((char *)config + CONFIG_ACTUAL, &balloon->actual, sizeof(balloon->actual));
}

static void set_actual(struct virtio_balloon *balloon, uint32_t pages)
{
    balloon->actual = pages;
    stats_set(&balloon->stats->actual_bytes, (uint64_t)pages << BALLOON_PAGE_SHIFT);
}

static void balloon_write_config(void *owner, uint64_t offset, unsigned size, uint64_t value)
{
    if (offset == CONFIG_ACTUAL && size == sizeof(uint32_t))
        set_actual(owner, (uint32_t)value);
}

static void balloon_reset(void *owner)
{
    set_actual(owner, 0);
}

static void balloon_transfer(void *owner, struct transfer *transfer)
{
    struct virtio_balloon *balloon = owner;
    struct virtqueue *queue = virtio_device_queue(balloon->device, QUEUE_STATS);
    uint8_t held = queue->in_flight > 0;

    transfer_item(transfer, "balloon actual", &balloon->actual, sizeof(balloon->actual));
    transfer_item(transfer, "balloon buffer", &balloon->stats_head, sizeof(balloon->stats_head));
    transfer_item(transfer, "balloon holds", &held, sizeof(held));
    if (!transfer->loading || !transfer_is_good(transfer))
        return;
    queue->in_flight = queue->enabled && held;
    set_actual(balloon, balloon->actual);
    plan_stats(balloon);
}

static const struct virtio_device_ops balloon_ops = {
    .name = "balloon",
    .device_id = BALLOON_DEVICE_ID,
    .queue_count = QUEUE_COUNT,
    .queue_size = BALLOON_QUEUE_SIZE,
    .config_bytes = 2 * sizeof(uint32_t), /* what follows needs features that are not offered */
    .offer_features = balloon_offer_features,
    .read_config = balloon_read_config,
    .write_config = balloon_write_config,
    .serve = balloon_serve,
    .transfer = balloon_transfer,
    .reset = balloon_reset,
    .free = free, /* the loop has ended: a timer left never fires */
};

static void set_target(struct virtio_balloon *balloon, const struct vmm_balloon *config)
{
    balloon->config.target_mib = config->target_mib;
    balloon->config.stats_interval_s = config->stats_interval_s;
    stats_set(&balloon->stats->target_bytes, (uint64_t)config->target_mib << 20);
}

int virtio_balloon_add(struct pci_root *root, const struct vmm_balloon *config,
                       const struct guest_memory *memory, struct stats_balloon *stats,
                       struct loop *loop, struct virtio_balloon **ret_balloon, struct error *err)
{
    struct virtio_balloon *balloon = calloc(1, sizeof(*balloon));
    int result;

    if (!balloon)
        return error_set(err, ENOMEM, "virtio balloon");
    balloon->memory = memory;
    balloon->stats = stats;
    balloon->loop = loop;
    balloon->config.deflate_on_oom = config->deflate_on_oom;
    set_target(balloon, config);
    result = virtio_pci_add(root, PCI_SLOT_ANY, &balloon_ops, balloon, BALLOON_PCI_CLASS, loop,
                            &balloon->device, err);
    if (result != 0)
        free(balloon);
    else
        *ret_balloon = balloon;
    return result;
}

void virtio_balloon_change(struct virtio_balloon *balloon, const struct vmm_balloon *config)
{
    bool resized = config->target_mib != balloon->config.target_mib;

    virtio_device_lock(balloon->device);
    set_target(balloon, config);
    plan_stats(balloon);
    if (resized)
        virtio_device_config_changed(balloon->device);
    virtio_device_unlock(balloon->device);
}
