/* virtio_balloon.c - see virtio_balloon.h. */
#include "vmm/virtio_balloon.h"
#include <errno.h>
#include <linux/virtio_balloon.h>
#include <stddef.h>
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

#define BALLOON_PCI_CLASS  0x00ff00
#define BALLOON_QUEUE_SIZE 128
#define FEATURE_DEFLATE    (1ull << VIRTIO_BALLOON_F_DEFLATE_ON_OOM)
#define FEATURE_REPORTING  (1ull << VIRTIO_BALLOON_F_REPORTING)

/* What follows needs features that are not offered. */
#define CONFIG_BYTES offsetof(struct virtio_balloon_config, free_page_hint_cmd_id)

/* A chain is heard this far.  Linux sends 256 page numbers, reports of 128 MiB, 16 statistics. */
#define CHAIN_PAGES        4096
#define CHAIN_REPORT_BYTES (1ull << 30)
#define CHAIN_STATS        64

enum { QUEUE_INFLATE, QUEUE_DEFLATE, QUEUE_STATS, QUEUE_REPORTING, QUEUE_COUNT };

struct virtio_balloon {
    struct virtio_device *device; /* borrowed */
    struct guest_memory *memory;  /* borrowed */
    struct stats_balloon *stats;  /* borrowed */
    struct vmm_balloon config;
    uint32_t actual;          /* pages, as the driver says */
    struct loop_timer *timer; /* until the guest is asked for statistics; loop's thread */
    uint16_t stats_head; /* the buffer we hold while one is in flight: giving it back is asking */
    uint32_t pages[CHAIN_PAGES];
};

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
        (void)guest_memory_discard(balloon->memory, (uint64_t)pages[i] << VIRTIO_BALLOON_PFN_SHIFT,
                                   (pages[next - 1] - pages[i] + 1ull) << VIRTIO_BALLOON_PFN_SHIFT);
    }
    stats_add(&balloon->stats->inflated_bytes, (uint64_t)count << VIRTIO_BALLOON_PFN_SHIFT);
}

/* Each vector is a range of free memory, and stays free until the chain is back (5.5.6.7).  Nothing
 * is taken that might not come back: a driver may have been offered reports by a VM of before. */
static void take_report(struct virtio_balloon *balloon, const struct virtqueue_chain *chain)
{
    uint64_t most = guest_memory_refills(balloon->memory) ? CHAIN_REPORT_BYTES : 0;
    unsigned count = io_vector_slice(chain->vectors, chain->writable_count, 0, most);

    for (unsigned i = 0; i < count; i++)
        (void)guest_memory_discard_mapped(balloon->memory, chain->vectors[i].iov_base,
                                          chain->vectors[i].iov_len);
    stats_add(&balloon->stats->reported_bytes, io_vector_bytes(chain->vectors, count));
}

/* If there is one, beside `others` of the same queue. */
static void give_back_stats(struct virtio_balloon *balloon, unsigned others)
{
    struct virtqueue *queue = virtio_device_queue(balloon->device, QUEUE_STATS);

    if (queue->in_flight <= others)
        return;
    virtqueue_put(queue, balloon->stats_head, 0);
    virtio_device_complete(balloon->device, QUEUE_STATS);
}

static void ask_for_stats(void *context)
{
    struct virtio_balloon *balloon = context;

    virtio_device_lock(balloon->device);
    balloon->timer = NULL;
    if (virtio_device_is_live(balloon->device) &&
        virtio_device_queue(balloon->device, QUEUE_STATS)->enabled)
        give_back_stats(balloon, 0);
    virtio_device_unlock(balloon->device);
}

/* Without memory for a timer, nothing is asked until the next change. */
static void plan_stats(struct virtio_balloon *balloon)
{
    if (!balloon->timer && balloon->config.stats_interval_s > 0)
        balloon->timer = loop_after(balloon->device->loop, balloon->config.stats_interval_s * 1000,
                                    ask_for_stats, balloon);
}

static void read_stats(struct virtio_balloon *balloon, const struct virtqueue_chain *chain)
{
    uint64_t deflates = virtio_device_features(balloon->device) & FEATURE_DEFLATE;
    uint64_t known = deflates ? 0 : STATS_GUEST_KEEPS;
    struct virtio_balloon_stat stat; /* 5.5.6.3 */

    for (unsigned i = 0; i < CHAIN_STATS; i++) {
        if (!io_vector_read(chain->vectors, chain->readable_count, i * sizeof(stat), &stat,
                            sizeof(stat)) ||
            stat.tag >= STATS_GUEST_MAX)
            continue;
        stats_set(&balloon->stats->guest[stat.tag], stat.val);
        known |= 1ull << stat.tag;
    }
    stats_set(&balloon->stats->guest_known, known);
    stats_set(&balloon->stats->guest_ms, (uint64_t)loop_now_ms());
    plan_stats(balloon);
}

/* A report is told by its direction: a driver that does not take the statistics' queue numbers the
 * queue of reports in its place. */
static int balloon_serve(void *owner, unsigned index, const struct virtqueue_chain *chain)
{
    struct virtio_balloon *balloon = owner;

    if (index == QUEUE_INFLATE) {
        inflate(balloon, chain);
    } else if (index >= QUEUE_STATS && chain->writable_count > 0) {
        take_report(balloon, chain);
    } else if (index == QUEUE_STATS) { /* the newest is held */
        read_stats(balloon, chain);
        give_back_stats(balloon, 1);
        balloon->stats_head = chain->head;
        return -EINPROGRESS;
    }
    return 0;
}

static uint64_t balloon_offer_features(void *owner)
{
    const struct virtio_balloon *balloon = owner;

    return (guest_memory_refills(balloon->memory) ? FEATURE_REPORTING : 0) |
           (balloon->config.deflate_on_oom ? FEATURE_DEFLATE : 0);
}

static void balloon_read_config(void *owner, void *config)
{
    const struct virtio_balloon *balloon = owner;
    const struct virtio_balloon_config values = {
        .num_pages = balloon->config.target_mib << (20 - VIRTIO_BALLOON_PFN_SHIFT),
        .actual = balloon->actual,
    };

    memcpy(config, &values, CONFIG_BYTES);
}

static void set_actual(struct virtio_balloon *balloon, uint32_t pages)
{
    balloon->actual = pages;
    stats_set(&balloon->stats->actual_bytes, (uint64_t)pages << VIRTIO_BALLOON_PFN_SHIFT);
}

static void balloon_write_config(void *owner, uint64_t offset, unsigned size, uint64_t value)
{
    if (offset == offsetof(struct virtio_balloon_config, actual) && size == sizeof(uint32_t))
        set_actual(owner, (uint32_t)value);
}

static void balloon_reset(void *owner)
{
    set_actual(owner, 0);
}

/* What the driver was offered it keeps, also if the VM's spec has changed since. */
static void balloon_transfer(void *owner, struct transfer *transfer)
{
    struct virtio_balloon *balloon = owner;
    struct virtqueue *queue = virtio_device_queue(balloon->device, QUEUE_STATS);
    uint8_t held = queue->in_flight > 0;

    transfer_value(transfer, "balloon actual", balloon->actual);
    transfer_value(transfer, "balloon buffer", balloon->stats_head);
    transfer_value(transfer, "balloon holds", held);
    if (!transfer->loading || !transfer_is_good(transfer))
        return;
    balloon->device->offered_features |=
        balloon->device->driver_features & (FEATURE_DEFLATE | FEATURE_REPORTING);
    queue->in_flight = queue->enabled && held;
    set_actual(balloon, balloon->actual);
    plan_stats(balloon);
}

static const struct virtio_device_ops balloon_ops = {
    .name = "balloon",
    .device_id = VIRTIO_ID_BALLOON,
    .pci_class = BALLOON_PCI_CLASS,
    .queue_count = QUEUE_COUNT,
    .queue_size = BALLOON_QUEUE_SIZE,
    .config_bytes = CONFIG_BYTES,
    .features = 1ull << VIRTIO_BALLOON_F_STATS_VQ,
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
    balloon->config = *config; /* its deflate_on_oom was offered, once */
    stats_set(&balloon->stats->target_bytes, (uint64_t)config->target_mib << 20);
}

int virtio_balloon_add(struct pci_root *root, const struct vmm_balloon *config,
                       struct stats_balloon *stats, struct virtio_balloon **ret_balloon,
                       struct error *err)
{
    struct virtio_balloon *balloon = calloc(1, sizeof(*balloon));
    int result;

    if (!balloon)
        return error_set(err, ENOMEM, "virtio balloon");
    balloon->memory = pci_root_host(root)->memory;
    balloon->stats = stats;
    set_target(balloon, config);
    result = virtio_pci_add(root, PCI_SLOT_ANY, &balloon_ops, balloon, &balloon->device, err);
    if (result == 0)
        *ret_balloon = balloon;
    return result;
}

void virtio_balloon_change(struct virtio_balloon *balloon, const struct vmm_balloon *config)
{
    bool resized = config->target_mib != balloon->config.target_mib;

    virtio_device_lock(balloon->device);
    if (config->stats_interval_s != balloon->config.stats_interval_s)
        balloon->timer = loop_cancel(balloon->timer);
    set_target(balloon, config);
    plan_stats(balloon);
    if (resized)
        virtio_device_config_changed(balloon->device);
    virtio_device_unlock(balloon->device);
}
