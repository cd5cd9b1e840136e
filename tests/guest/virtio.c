/* virtio.c - see virtio.h. */
#include <stddef.h>
#include "tests/guest/apic.h"
#include "tests/guest/console.h"
#include "tests/guest/cpu.h"
#include "tests/guest/memory.h"
#include "tests/guest/pci.h"
#include "tests/guest/text.h"
#include "tests/guest/virtio.h"

enum common_offset { /* 4.1.4.3 */
                     COMMON_DEVICE_FEATURE_SELECT = 0x00,
                     COMMON_DEVICE_FEATURE = 0x04,
                     COMMON_DRIVER_FEATURE_SELECT = 0x08,
                     COMMON_DRIVER_FEATURE = 0x0c,
                     COMMON_CONFIG_VECTOR = 0x10,
                     COMMON_STATUS = 0x14,
                     COMMON_QUEUE_SELECT = 0x16,
                     COMMON_QUEUE_SIZE = 0x18,
                     COMMON_QUEUE_VECTOR = 0x1a,
                     COMMON_QUEUE_ENABLE = 0x1c,
                     COMMON_QUEUE_NOTIFY_OFFSET = 0x1e,
                     COMMON_QUEUE_DESCRIPTORS = 0x20,
                     COMMON_QUEUE_DRIVER = 0x28,
                     COMMON_QUEUE_DEVICE = 0x30,
};

#define STATUS_ACKNOWLEDGE 1
#define STATUS_DRIVER      2
#define STATUS_DRIVER_OK   4
#define STATUS_FEATURES_OK 8
#define NO_VECTOR          0xffff
#define CFG_TYPE_COMMON    1
#define CFG_TYPE_NOTIFY    2
#define CFG_TYPE_ISR       3
#define CFG_TYPE_DEVICE    4
#define MSIX_ENABLE        0x80000000 /* message control is the upper half of the first dword */
#define MSIX_MASK_ALL      0x40000000
#define SPIN_TURNS         400
#define RECHECK_NS         (20 * MILLISECOND) /* what a lost interrupt costs */

static bool trusts_events;

static uint32_t read32(volatile uint8_t *base, unsigned offset)
{
    return *(volatile uint32_t *)(base + offset);
}

static void write32(volatile uint8_t *base, unsigned offset, uint32_t value)
{
    *(volatile uint32_t *)(base + offset) = value;
}

static uint16_t read16(volatile uint8_t *base, unsigned offset)
{
    return *(volatile uint16_t *)(base + offset);
}

static void write16(volatile uint8_t *base, unsigned offset, uint16_t value)
{
    *(volatile uint16_t *)(base + offset) = value;
}

static void write64(volatile uint8_t *base, unsigned offset, const void *pointer)
{
    uint64_t value = (uint64_t)(uintptr_t)pointer;

    write32(base, offset, (uint32_t)value);
    write32(base, offset + 4, (uint32_t)(value >> 32));
}

/* 4.1.4: struct virtio_pci_cap. */
static void find_structures(struct virtio_device *device)
{
    unsigned slot = device->slot;
    unsigned at = 0;

    while ((at = pci_capability(slot, PCI_CAP_VENDOR, at)) != 0) {
        unsigned type = pci_read(slot, at) >> 24;
        uint64_t bar = pci_bar_address(slot, pci_read(slot, at + 4) & 0xff);
        uint32_t offset = pci_read(slot, at + 8);
        volatile uint8_t **place = type == CFG_TYPE_COMMON   ? &device->common
                                   : type == CFG_TYPE_NOTIFY ? &device->notify
                                   : type == CFG_TYPE_ISR    ? &device->isr
                                   : type == CFG_TYPE_DEVICE ? &device->config
                                                             : NULL;

        if (place == NULL || *place != NULL || bar == 0)
            continue; /* the first of each type is the device's preference */
        *place = memory_map(bar + offset, pci_read(slot, at + 12));
        if (type == CFG_TYPE_NOTIFY)
            device->notify_multiplier = pci_read(slot, at + 16);
    }
}

/* Entry 0 of the table is used for every queue; 6.8.2 of PCI 3.0. */
static bool enable_msix(unsigned slot)
{
    unsigned at = pci_capability(slot, PCI_CAP_MSIX, 0);
    uint32_t table;
    uint64_t bar;
    volatile uint8_t *entry;

    if (at == 0)
        return false;
    table = pci_read(slot, at + 4);
    bar = pci_bar_address(slot, table & 7);
    if (bar == 0)
        return false;
    entry = memory_map(bar + (table & ~7u), 16);
    if (entry == NULL)
        return false;
    pci_write(slot, at, (pci_read(slot, at) | MSIX_ENABLE) & ~MSIX_MASK_ALL);
    write32(entry, 0, (uint32_t)MSI_ADDRESS);
    write32(entry, 4, 0);
    write32(entry, 8, VECTOR_DEVICE);
    write32(entry, 12, 0);
    return true;
}

static bool agree_features(struct virtio_device *device, uint64_t wanted)
{
    uint64_t offered;

    write32(device->common, COMMON_DEVICE_FEATURE_SELECT, 0);
    offered = read32(device->common, COMMON_DEVICE_FEATURE);
    write32(device->common, COMMON_DEVICE_FEATURE_SELECT, 1);
    offered |= (uint64_t)read32(device->common, COMMON_DEVICE_FEATURE) << 32;
    wanted |= VIRTIO_F_VERSION_1 | (trusts_events ? VIRTIO_F_EVENT_INDEX : 0);
    device->features = offered & wanted;
    write32(device->common, COMMON_DRIVER_FEATURE_SELECT, 0);
    write32(device->common, COMMON_DRIVER_FEATURE, (uint32_t)device->features);
    write32(device->common, COMMON_DRIVER_FEATURE_SELECT, 1);
    write32(device->common, COMMON_DRIVER_FEATURE, (uint32_t)(device->features >> 32));
    device->common[COMMON_STATUS] = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK;
    return (offered & VIRTIO_F_VERSION_1) != 0 &&
           (device->common[COMMON_STATUS] & STATUS_FEATURES_OK) != 0;
}

void virtio_trust_events(void)
{
    trusts_events = true;
}

bool virtio_open(struct virtio_device *device, const char *name, unsigned type, unsigned index,
                 uint64_t wanted)
{
    int slot = pci_find(VIRTIO_ID(type), index);

    if (slot < 0) {
        console_print("%s %u absent\n", name, (uint64_t)index);
        return false;
    }
    return virtio_open_slot(device, name, (unsigned)slot, wanted);
}

bool virtio_open_slot(struct virtio_device *device, const char *name, unsigned slot,
                      uint64_t wanted)
{
    memset(device, 0, sizeof(*device));
    device->slot = slot;
    pci_enable(device->slot);
    find_structures(device);
    if (device->common == NULL || device->notify == NULL) {
        console_print("%s slot %u broken no-capabilities\n", name, (uint64_t)slot);
        return false;
    }
    device->common[COMMON_STATUS] = 0;
    for (int i = 0; i < 1000 && device->common[COMMON_STATUS] != 0; i++)
        cpu_pause();
    device->common[COMMON_STATUS] = STATUS_ACKNOWLEDGE;
    device->common[COMMON_STATUS] = STATUS_ACKNOWLEDGE | STATUS_DRIVER;
    if (!agree_features(device, wanted)) {
        console_print("%s slot %u broken features\n", name, (uint64_t)slot);
        return false;
    }
    if (!enable_msix(device->slot))
        console_print("%s slot %u note no-msix\n", name, (uint64_t)slot);
    write16(device->common, COMMON_CONFIG_VECTOR, NO_VECTOR);
    return true;
}

bool virtio_add_queue(struct virtio_device *device, struct virtqueue *queue, uint16_t number)
{
    volatile uint8_t *common = device->common;

    memset(queue, 0, sizeof(*queue));
    queue->number = number;
    queue->events = (device->features & VIRTIO_F_EVENT_INDEX) != 0;
    write16(common, COMMON_QUEUE_SELECT, number);
    queue->size = read16(common, COMMON_QUEUE_SIZE);
    if (queue->size == 0)
        return false;
    if (queue->size > VIRTQUEUE_MAX)
        queue->size = VIRTQUEUE_MAX;
    write16(common, COMMON_QUEUE_SIZE, queue->size);
    write64(common, COMMON_QUEUE_DESCRIPTORS, queue->descriptors);
    write64(common, COMMON_QUEUE_DRIVER, &queue->available);
    write64(common, COMMON_QUEUE_DEVICE, &queue->used);
    write16(common, COMMON_QUEUE_VECTOR, 0);
    queue->notify = (volatile uint16_t *)(device->notify +
                                          (uint64_t)read16(common, COMMON_QUEUE_NOTIFY_OFFSET) *
                                              device->notify_multiplier);
    write16(common, COMMON_QUEUE_ENABLE, 1);
    return true;
}

void virtio_watch_config(struct virtio_device *device)
{
    write16(device->common, COMMON_CONFIG_VECTOR, 0);
}

void virtio_start(struct virtio_device *device)
{
    device->common[COMMON_STATUS] |= STATUS_DRIVER_OK;
}

void virtqueue_notify(struct virtqueue *queue)
{
    uint16_t now = queue->available.index, before = queue->announced;

    memory_barrier();
    queue->announced = now;
    if (!queue->events || (uint16_t)(now - *(volatile uint16_t *)&queue->used.available_event - 1) <
                              (uint16_t)(now - before))
        *queue->notify = queue->number;
}

void virtqueue_submit(struct virtqueue *queue, uint16_t head, bool notify)
{
    uint16_t index = queue->available.index;

    queue->available.ring[index % queue->size] = head;
    memory_barrier();
    *(volatile uint16_t *)&queue->available.index = (uint16_t)(index + 1);
    if (notify)
        virtqueue_notify(queue);
}

bool virtqueue_take(struct virtqueue *queue, struct virtqueue_used_element *ret_element)
{
    if (*(volatile uint16_t *)&queue->used.index == queue->used_seen)
        return false;
    memory_barrier();
    *ret_element = queue->used.ring[queue->used_seen++ % queue->size];
    if (queue->events) {
        *(volatile uint16_t *)&queue->available.used_event = queue->used_seen;
        memory_barrier(); /* before the next look, after which we may sleep */
    }
    return true;
}

bool virtqueue_wait(struct virtqueue *queue, uint64_t timeout_ns,
                    struct virtqueue_used_element *ret_element)
{
    uint64_t deadline;

    for (int i = 0; i < SPIN_TURNS && !queue->events; i++) {
        if (virtqueue_take(queue, ret_element))
            return true;
        cpu_pause();
    }
    deadline = clock_ns() + timeout_ns;
    while (!virtqueue_take(queue, ret_element)) {
        if (!queue->events && clock_ns() > deadline)
            return false;
        apic_wait(queue->events ? WAIT_FOREVER : RECHECK_NS);
    }
    return true;
}
