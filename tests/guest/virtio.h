/* virtio.h - modern virtio-pci devices with split queues.  Virtio 1.2: 2.7, 3.1, 4.1. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#define VIRTIO_ID(type)      ((0x1040u + (type)) << 16 | 0x1af4)
#define VIRTIO_NET           1
#define VIRTIO_BLOCK         2
#define VIRTIO_RNG           4
#define VIRTIO_BALLOON       5
#define VIRTIO_VSOCK         19
#define VIRTIO_MEM           24
#define VIRTIO_F_EVENT_INDEX (UINT64_C(1) << 29)
#define VIRTIO_F_VERSION_1   (UINT64_C(1) << 32)

#define VIRTQUEUE_MAX    128 /* descriptors used of whatever the device offers */
#define DESCRIPTOR_NEXT  1
#define DESCRIPTOR_WRITE 2

struct virtqueue_descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags;
    uint16_t next;
};

struct virtqueue_used_element {
    uint32_t id;
    uint32_t length;
};

struct virtqueue { /* the first three are what the device reads: one page, page-aligned */
    struct virtqueue_descriptor descriptors[VIRTQUEUE_MAX];
    struct {
        uint16_t flags;
        uint16_t index;
        uint16_t ring[VIRTQUEUE_MAX];
        uint16_t used_event;
    } available __attribute__((aligned(16)));
    struct {
        uint16_t flags;
        uint16_t index;
        struct virtqueue_used_element ring[VIRTQUEUE_MAX];
        uint16_t available_event;
    } used __attribute__((aligned(16)));

    uint16_t number;
    uint16_t size;
    uint16_t used_seen;
    uint16_t announced;        /* up to there the device was told, or did not want to be */
    bool events;               /* event indices (2.7.10) were agreed to */
    volatile uint16_t *notify; /* this queue's doorbell */
} __attribute__((aligned(4096)));

struct virtio_device {
    unsigned slot;
    volatile uint8_t *common;
    volatile uint8_t *notify;
    volatile uint8_t *isr;
    volatile uint8_t *config;
    uint32_t notify_multiplier;
    uint64_t features; /* accepted */
};

/* From now on devices are opened with event indices, and whoever waits for a queue sleeps until its
 * interrupt comes, however long: what is lost is not made good by looking again. */
void virtio_trust_events(void);

/* Finds the index-th device of the type, resets it and agrees on what of wanted it offers
 * (VERSION_1 always). Prints "<name> <index> absent" or what is wrong, and returns false.
 * Interrupts go to VECTOR_DEVICE by MSI-X. */
bool virtio_open(struct virtio_device *device, const char *name, unsigned type, unsigned index,
                 uint64_t wanted);
/* The same of whatever is in this slot. */
bool virtio_open_slot(struct virtio_device *device, const char *name, unsigned slot,
                      uint64_t wanted);
bool virtio_add_queue(struct virtio_device *device, struct virtqueue *queue, uint16_t number);
/* A changed configuration interrupts, too; before virtio_start. */
void virtio_watch_config(struct virtio_device *device);
void virtio_start(struct virtio_device *device);

/* Makes the chain that begins at descriptor head available and, if notify, kicks. */
void virtqueue_submit(struct virtqueue *queue, uint16_t head, bool notify);
void virtqueue_notify(struct virtqueue *queue);
/* Takes the next used element; false if there is none. */
bool virtqueue_take(struct virtqueue *queue, struct virtqueue_used_element *ret_element);
/* As above, waits: spins shortly, then sleeps. */
bool virtqueue_wait(struct virtqueue *queue, uint64_t timeout_ns,
                    struct virtqueue_used_element *ret_element);
