/* virtio_device.h - what every virtio device is, whatever carries it: status, features, queues and
 * configuration (virtio 1.2, chapter 2 and 3.1).  A transport (virtio_pci.c) translates the guest's
 * register accesses into the calls of the second half; a device (virtio_block.c ...) is an ops
 * table that uses the first half.
 *
 * The lock rule: each device has one mutex, given by its transport.  It is held
 *   - on a vCPU thread, around every access to the device's registers, and
 *   - on the loop's thread, around every callback (a queue's kick, a device's own fds).
 * So ops are never called without it, nothing here needs atomics, and a device whose own loop
 * callback starts takes it by virtio_device_lock.  No callee takes another device's lock.  What
 * only the loop's thread may do (loop_change) a device does from process_queue: when the driver
 * sets DRIVER_OK, every enabled queue is kicked once.
 *
 * When the guest breaks a rule, virtio_device_fault sets DEVICE_NEEDS_RESET, sends a configuration
 * interrupt, and no queue is processed until the driver resets the device. */
#pragma once
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include "vmm/rate_limit.h"
#include "vmm/virtqueue.h"

struct guest_memory;
struct loop;
struct loop_timer;
struct transfer;

#define VIRTIO_DEVICE_QUEUES_MAX (2 * VMM_QUEUES_MAX + 1)

/* Device status, 2.1 */
#define VIRTIO_STATUS_ACKNOWLEDGE 1
#define VIRTIO_STATUS_DRIVER      2
#define VIRTIO_STATUS_DRIVER_OK   4
#define VIRTIO_STATUS_FEATURES_OK 8
#define VIRTIO_STATUS_NEEDS_RESET 64
#define VIRTIO_STATUS_FAILED      128

/* Feature bits every device has, chapter 6 */
#define VIRTIO_FEATURE_INDIRECT    (1ull << 28)
#define VIRTIO_FEATURE_EVENT_INDEX (1ull << 29)
#define VIRTIO_FEATURE_VERSION_1   (1ull << 32)
#define VIRTIO_FEATURE_RING_RESET  (1ull << 40)

/* One kind of device.  `owner` is the device's own struct.  All but `free` with the lock held. */
struct virtio_device_ops {
    const char *name;
    uint16_t device_id; /* virtio 1.2, chapter 5 */
    uint32_t pci_class; /* 24 bits */
    uint16_t queue_count;
    uint16_t queue_size; /* power of two, at most VIRTQUEUE_SIZE_MAX */
    uint32_t config_bytes;
    uint64_t features; /* its own; the common ones are added */
    /* More of them; NULL = none. */
    uint64_t (*offer_features)(void *owner);
    /* May refuse a combination (a subset of what was offered); NULL = every one is fine. */
    bool (*accept_features)(void *owner, uint64_t features);
    /* Fills `config_bytes` bytes; NULL if they are 0. */
    void (*read_config)(void *owner, void *config);
    /* The driver writes a field; NULL = none is writable.  On a vCPU thread. */
    void (*write_config)(void *owner, uint64_t offset, unsigned size, uint64_t value);
    /* On the loop's thread, queue enabled and device live: handle what waits, a bounded amount, and
     * virtio_device_kick for the rest. */
    void (*process_queue)(void *owner, unsigned queue);
    /* Instead of it, for simple devices: one chain.  How many bytes were written into it, with
     * which it is given back; -EINPROGRESS if the device keeps it; -EPROTO stops the device. */
    int (*serve)(void *owner, unsigned queue, const struct virtqueue_chain *chain);
    /* What the driver told the device beyond features and queues, into and out of a snapshot;
     * requests are done or put back.  NULL = nothing. */
    void (*transfer)(void *owner, struct transfer *transfer);
    /* Afterwards nothing is under way that touches guest memory; before a reset of the device or of
     * a queue, so on any thread, and nobody wants the results.  NULL = never is. */
    void (*drain)(void *owner);
    /* Forget everything about the driver; the queues are reset after it.  May be NULL. */
    void (*reset)(void *owner);
    /* The device is freed; the loop's thread, no lock needed any more. */
    void (*free)(void *owner);
};

#define VIRTIO_CONFIG_INTERRUPT (-1)

struct virtio_transport_ops {
    /* Queue number or VIRTIO_CONFIG_INTERRUPT. */
    void (*interrupt)(void *transport, int queue);
    /* process_queue in a later turn of the loop; any thread. */
    void (*kick)(void *transport, unsigned queue);
    /* The eventfds of the queue's kicks, which from now on others wait for, and of the interrupts
     * of the vector that it has now (-1 = none); NULL: they do no longer.  Loop thread. */
    int (*lend)(void *transport, unsigned queue, int *ret_interrupt_fd);
};

struct virtio_device {
    const struct virtio_device_ops *ops;
    void *owner; /* owned: ops->free */
    const struct virtio_transport_ops *transport_ops;
    void *transport;       /* borrowed */
    pthread_mutex_t *lock; /* borrowed from the transport */
    struct loop *loop;     /* borrowed; works for the device */

    uint8_t status;
    uint8_t config_generation;
    uint64_t offered_features;
    uint64_t driver_features;
    bool outdated; /* its driver is to be told that it may have read another configuration */
    bool wakes;    /* its driver is to be interrupted for each queue */
    struct virtqueue queues[VIRTIO_DEVICE_QUEUES_MAX];
};

/* --- for devices --- */

static inline struct virtqueue *virtio_device_queue(struct virtio_device *device, unsigned queue)
{
    return &device->queues[queue];
}
static inline void virtio_device_lock(struct virtio_device *device)
{
    pthread_mutex_lock(device->lock);
}
static inline void virtio_device_unlock(struct virtio_device *device)
{
    pthread_mutex_unlock(device->lock);
}
/* DRIVER_OK, and neither NEEDS_RESET nor FAILED. */
bool virtio_device_is_live(const struct virtio_device *device);
/* Negotiated bits; 0 before FEATURES_OK. */
uint64_t virtio_device_features(const struct virtio_device *device);
void virtio_device_fault(struct virtio_device *device);
/* Publishes what was put into the queue and interrupts the driver if it wants that. */
void virtio_device_complete(struct virtio_device *device, unsigned queue);
void virtio_device_kick(struct virtio_device *device, unsigned queue);
/* Serves chains until none waits, with kicks off meanwhile, and publishes what was put into the
 * queue; after `turn` of them the other devices get theirs, whatever the driver writes into its
 * ring meanwhile.  `serve` takes at least one: how many; 0 if none waits; -EAGAIN if it has to
 * wait, and somebody will kick; -EPROTO stops the device. */
void virtio_device_serve(struct virtio_device *device, unsigned queue,
                         int (*serve)(void *owner, unsigned queue), unsigned turn);
/* What read_config fills in has changed: tells the driver. */
void virtio_device_config_changed(struct virtio_device *device);

/* A rate limit in front of a device's queues, all zero = none; loop thread; loop_cancel its timer
 * in the end. */
struct virtio_throttle {
    struct rate_limit limit;
    struct virtio_device *device; /* borrowed */
    struct loop_timer *timer;     /* owned */
};
/* The limits from now on (rate_limit_set). */
void virtio_throttle_set(struct virtio_throttle *throttle, const struct vmm_rate_limit *spec,
                         struct virtio_device *device);
/* True if all has to wait now: the device's queues will be kicked. */
bool virtio_throttle_holds(struct virtio_throttle *throttle);

/* --- for transports --- */

void virtio_device_init(struct virtio_device *device, const struct virtio_device_ops *ops,
                        void *owner, const struct guest_memory *memory);
void virtio_device_process(struct virtio_device *device, unsigned queue);
void virtio_device_transfer(struct virtio_device *device, struct transfer *transfer);
/* A write of the status register.  Bits that are cleared one by one, skipped or out of order
 * (3.1.1) change nothing; 0 resets. */
void virtio_device_set_status(struct virtio_device *device, uint8_t status);
/* It may reach the guest's memory no more; until it is reset, or started again. */
void virtio_device_halt(struct virtio_device *device);
/* 32 bits of features; `index` selects which. */
void virtio_device_accept(struct virtio_device *device, uint32_t index, uint32_t bits);
/* The queue if it exists and its size and addresses may be changed now, else NULL. */
struct virtqueue *virtio_device_configurable(struct virtio_device *device, unsigned queue);
/* Of one that is configurable. */
void virtio_device_enable_queue(struct virtio_device *device, unsigned queue);
void virtio_device_reset_queue(struct virtio_device *device, unsigned queue);
/* From the configuration space; all ones if it ends before. */
uint64_t virtio_device_read_config(struct virtio_device *device, uint64_t offset, unsigned size);
