/* virtio_device.c - see virtio_device.h. */
#include "vmm/virtio_device.h"
#include <errno.h>
#include <string.h>
#include "base/loop.h"
#include "vmm/transfer.h"

#define CONFIG_BYTES_MAX 256
#define TURN_CHAINS      8 /* of a simple device, then the others' turn */

#define COMMON_FEATURES                                                                \
    (VIRTIO_FEATURE_VERSION_1 | VIRTIO_FEATURE_INDIRECT | VIRTIO_FEATURE_EVENT_INDEX | \
     VIRTIO_FEATURE_RING_RESET)

void virtio_device_init(struct virtio_device *device, const struct virtio_device_ops *ops,
                        void *owner, const struct guest_memory *memory)
{
    device->ops = ops;
    device->owner = owner;
    device->offered_features = COMMON_FEATURES | ops->features;
    if (ops->offer_features)
        device->offered_features |= ops->offer_features(owner);
    for (unsigned i = 0; i < ops->queue_count; i++)
        virtqueue_init(&device->queues[i], memory, ops->queue_size);
}

bool virtio_device_is_live(const struct virtio_device *device)
{
    return (device->status & (VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_NEEDS_RESET |
                              VIRTIO_STATUS_FAILED)) == VIRTIO_STATUS_DRIVER_OK;
}

uint64_t virtio_device_features(const struct virtio_device *device)
{
    return device->status & VIRTIO_STATUS_FEATURES_OK ? device->driver_features : 0;
}

void virtio_device_fault(struct virtio_device *device)
{
    if (device->status & VIRTIO_STATUS_NEEDS_RESET)
        return;
    device->status |= VIRTIO_STATUS_NEEDS_RESET;
    if (device->status & VIRTIO_STATUS_DRIVER_OK) /* 2.1.2: only then a notification */
        device->transport_ops->interrupt(device->transport, VIRTIO_CONFIG_INTERRUPT);
}

void virtio_device_complete(struct virtio_device *device, unsigned queue)
{
    if (virtqueue_publish(&device->queues[queue]))
        device->transport_ops->interrupt(device->transport, (int)queue);
}

void virtio_device_kick(struct virtio_device *device, unsigned queue)
{
    device->transport_ops->kick(device->transport, queue);
}

static void device_kick_all(struct virtio_device *device)
{
    for (unsigned i = 0; i < device->ops->queue_count; i++)
        virtio_device_kick(device, i);
}

static void throttle_opens(void *context)
{
    struct virtio_throttle *throttle = context;

    throttle->timer = NULL;
    device_kick_all(throttle->device);
}

void virtio_throttle_set(struct virtio_throttle *throttle, const struct vmm_rate_limit *spec,
                         struct virtio_device *device)
{
    throttle->device = device;
    rate_limit_set(&throttle->limit, spec, loop_now_ms());
    if (throttle->timer) { /* what it holds may have to wait less */
        loop_cancel(throttle->timer);
        throttle_opens(throttle);
    }
}

bool virtio_throttle_holds(struct virtio_throttle *throttle)
{
    int64_t ms = rate_limit_is_set(&throttle->limit)
                     ? rate_limit_wait(&throttle->limit, loop_now_ms())
                     : 0; /* without asking for the time */

    if (ms == 0)
        return false;
    if (!throttle->timer)
        throttle->timer = loop_after(throttle->device->loop, ms, throttle_opens, throttle);
    if (!throttle->timer) /* memory is short: look again at once */
        throttle_opens(throttle);
    return true;
}

void virtio_device_config_changed(struct virtio_device *device)
{
    device->config_generation++;
    if (device->status & VIRTIO_STATUS_DRIVER_OK)
        device->transport_ops->interrupt(device->transport, VIRTIO_CONFIG_INTERRUPT);
    else /* a driver that is just starting may have read what was before */
        device->outdated = true;
}

/* For ops->serve. */
static int serve_chain(struct virtio_device *device, unsigned queue)
{
    struct iovec vectors[VIRTQUEUE_SIZE_MAX];
    struct virtqueue_chain chain;
    int result = virtqueue_pop(&device->queues[queue], vectors, VIRTQUEUE_SIZE_MAX, &chain);

    if (result <= 0)
        return result;
    result = device->ops->serve(device->owner, queue, &chain);
    if (result >= 0)
        virtqueue_put(&device->queues[queue], chain.head, (uint32_t)result);
    return result >= 0 || result == -EINPROGRESS ? 1 : result;
}

void virtio_device_serve(struct virtio_device *device, unsigned queue,
                         int (*serve)(void *owner, unsigned queue), unsigned turn)
{
    unsigned served = 0;
    int result;

    do {
        virtqueue_disable_kicks(&device->queues[queue]);
        do {
            if (served >= turn) {
                virtio_device_kick(device, queue);
                result = -EAGAIN;
                break;
            }
            result = serve ? serve(device->owner, queue) : serve_chain(device, queue);
            served += result > 0 ? (unsigned)result : 1;
        } while (result > 0);
    } while (result == 0 && virtqueue_enable_kicks(&device->queues[queue], 0));
    if (result < 0 && result != -EAGAIN)
        virtio_device_fault(device);
    virtio_device_complete(device, queue);
}

/* What KVM had still to deliver is in no saved APIC.  A driver that finds nothing new ignores the
 * interrupt, also if it had asked for none. */
static void device_wake(struct virtio_device *device)
{
    if (!(device->status & VIRTIO_STATUS_DRIVER_OK))
        return;
    for (unsigned i = 0; device->wakes && i < device->ops->queue_count; i++) {
        if (device->queues[i].enabled)
            device->transport_ops->interrupt(device->transport, (int)i);
    }
    if (device->outdated)
        virtio_device_config_changed(device);
    device->wakes = device->outdated = false;
}

void virtio_device_process(struct virtio_device *device, unsigned queue)
{
    device_wake(device);
    if (!virtio_device_is_live(device) || !device->queues[queue].enabled)
        return;
    if (device->ops->serve)
        virtio_device_serve(device, queue, NULL, TURN_CHAINS);
    else
        device->ops->process_queue(device->owner, queue);
}

static void device_drain(struct virtio_device *device)
{
    if (device->ops->drain)
        device->ops->drain(device->owner);
}

static void device_reset(struct virtio_device *device)
{
    device_drain(device);
    if (device->ops->reset)
        device->ops->reset(device->owner);
    for (unsigned i = 0; i < device->ops->queue_count; i++)
        virtqueue_reset(&device->queues[i]);
    device->status = 0;
    device->driver_features = 0;
    device->outdated = false; /* it will be read anew */
}

static bool features_are_acceptable(const struct virtio_device *device)
{
    uint64_t features = device->driver_features;

    if ((features & ~device->offered_features) || !(features & VIRTIO_FEATURE_VERSION_1))
        return false;
    return !device->ops->accept_features || device->ops->accept_features(device->owner, features);
}

void virtio_device_set_status(struct virtio_device *device, uint8_t status)
{
    /* 3.1.1: each bit needs all those before it. */
    static const uint8_t order[] = { VIRTIO_STATUS_ACKNOWLEDGE, VIRTIO_STATUS_DRIVER,
                                     VIRTIO_STATUS_FEATURES_OK, VIRTIO_STATUS_DRIVER_OK };
    const uint8_t driver_bits = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER |
                                VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK |
                                VIRTIO_STATUS_FAILED;
    uint8_t have = device->status & driver_bits;
    bool gap = false;

    if (status == 0) {
        device_reset(device);
        return;
    }
    status &= driver_bits; /* NEEDS_RESET is ours; a driver writes it back as it read it */
    if (have & ~status)    /* 2.1.1: the driver must not clear bits */
        return;
    for (unsigned i = 0; i < sizeof(order); i++) {
        if (!(status & order[i]))
            gap = true;
        else if (gap)
            return;
    }

    uint8_t added = status & ~have;

    device->status |= added & (VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
    if (added & VIRTIO_STATUS_FAILED)
        device->status |= VIRTIO_STATUS_FAILED;
    if ((added & VIRTIO_STATUS_FEATURES_OK) && features_are_acceptable(device))
        device->status |= VIRTIO_STATUS_FEATURES_OK;
    if ((added & VIRTIO_STATUS_DRIVER_OK) && (device->status & VIRTIO_STATUS_FEATURES_OK)) {
        device->status |= VIRTIO_STATUS_DRIVER_OK;
        device_kick_all(device);
    }
}

void virtio_device_halt(struct virtio_device *device)
{
    device_drain(device);
    device->status &= (uint8_t)~VIRTIO_STATUS_DRIVER_OK;
}

/* Queues are looked at: kicks of before the snapshot are not in it.  Also those of the machine that
 * goes on, so that nothing that was on its way when it was held can silence it. */
void virtio_device_transfer(struct virtio_device *device, struct transfer *transfer)
{
    transfer_value(transfer, "device status", device->status);
    transfer_value(transfer, "device features", device->driver_features);
    transfer_value(transfer, "device generation", device->config_generation);
    if ((device->status & (VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK)) ==
        VIRTIO_STATUS_DRIVER_OK)
        transfer_refuse(transfer, EINVAL, "virtio %s: started before its features were settled",
                        device->ops->name);
    for (unsigned i = 0; i < device->ops->queue_count; i++)
        virtqueue_transfer(&device->queues[i], transfer);
    if (device->ops->transfer)
        device->ops->transfer(device->owner, transfer);
    if ((device->status & VIRTIO_STATUS_FEATURES_OK) && !features_are_acceptable(device))
        transfer_refuse(transfer, ENOTSUP, "virtio %s: features that are not offered here",
                        device->ops->name);
    device->outdated |= transfer->loading;
    device->config_generation += transfer->loading; /* also for who reads before it is told */
    device->wakes = true;
    device_kick_all(device);
}

void virtio_device_accept(struct virtio_device *device, uint32_t index, uint32_t bits)
{
    if (!(device->status & VIRTIO_STATUS_DRIVER) || (device->status & VIRTIO_STATUS_FEATURES_OK) ||
        index >= 2)
        return;
    device->driver_features &= ~(0xffffffffull << (index * 32));
    device->driver_features |= (uint64_t)bits << (index * 32);
}

struct virtqueue *virtio_device_configurable(struct virtio_device *device, unsigned queue)
{
    /* Set up only between FEATURES_OK and DRIVER_OK (3.1.1, step 7); later only a queue that was
     * reset (2.6.1), which is the same test, since any other one is enabled or was never set up. */
    if (queue >= device->ops->queue_count || !(device->status & VIRTIO_STATUS_FEATURES_OK))
        return NULL;
    if ((device->status & VIRTIO_STATUS_DRIVER_OK) &&
        !(device->driver_features & VIRTIO_FEATURE_RING_RESET))
        return NULL;
    return device->queues[queue].enabled ? NULL : &device->queues[queue];
}

void virtio_device_enable_queue(struct virtio_device *device, unsigned queue)
{
    if (virtqueue_enable(&device->queues[queue], device->driver_features & VIRTIO_FEATURE_INDIRECT,
                         device->driver_features & VIRTIO_FEATURE_EVENT_INDEX) < 0)
        virtio_device_fault(device);
    else if (virtio_device_is_live(device))
        virtio_device_kick(device, queue);
}

void virtio_device_reset_queue(struct virtio_device *device, unsigned queue)
{
    if (queue >= device->ops->queue_count || !device->queues[queue].enabled ||
        !(virtio_device_features(device) & VIRTIO_FEATURE_RING_RESET))
        return;
    device_drain(device);
    virtqueue_reset(&device->queues[queue]);
}

uint64_t virtio_device_read_config(struct virtio_device *device, uint64_t offset, unsigned size)
{
    uint8_t config[CONFIG_BYTES_MAX] = { 0 };
    uint64_t value = 0;

    if (offset > device->ops->config_bytes || size > device->ops->config_bytes - offset)
        return ~0ull;
    device->ops->read_config(device->owner, config);
    memcpy(&value, config + offset, size);
    return value;
}
