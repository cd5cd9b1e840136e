/* virtio_harness.h - the guest's side for unit tests of virtio devices: a machine of fake RAM, the
 * two buses, a PCI root and an event loop, and a driver that writes raw registers and raw rings.
 * Where /dev/kvm exists there is a real VM for interrupts and ioeventfds; else vm_fd is -1.
 *
 * Interrupts are seen by leaving the MSI-X vectors masked and reading the pending bits. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "tests/unit/memory_harness.h"
#include "base/error.h"
#include "base/loop.h"
#include "vmm/irq.h"
#include "vmm/mmio_bus.h"
#include "vmm/pci.h"
#include "vmm/pci_msix.h"
#include "vmm/platform.h"
#include "vmm/virtio_device.h"
#include "vmm/virtio_pci.h"

#ifndef HARNESS_MEMORY
#define HARNESS_MEMORY (4ull << 20)
#endif
#ifndef HARNESS_HOTPLUG
#define HARNESS_HOTPLUG 0
#endif
#define RING_BASE(queue) (0x10000ull + (queue)*0x4000ull)
#define DATA_BASE        0x100000ull

#define RING_NEXT     1
#define RING_WRITE    2
#define RING_INDIRECT 4

/* Common configuration */
enum {
    REG_OFFERED_SELECT = 0,
    REG_OFFERED = 4,
    REG_ACCEPTED_SELECT = 8,
    REG_ACCEPTED = 12,
    REG_CONFIG_VECTOR = 16,
    REG_QUEUE_COUNT = 18,
    REG_STATUS = 20,
    REG_GENERATION = 21,
    REG_QUEUE_SELECT = 22,
    REG_QUEUE_SIZE = 24,
    REG_QUEUE_VECTOR = 26,
    REG_QUEUE_ENABLE = 28,
    REG_QUEUE_NOTIFY_OFFSET = 30,
    REG_QUEUE_DESCRIPTORS = 32,
    REG_QUEUE_AVAIL = 40,
    REG_QUEUE_USED = 48,
    REG_QUEUE_RESET = 58,
};

struct harness {
    int kvm_fd, vm_fd;
    struct guest_memory *memory;
    struct bus ports, mmio;
    struct irq_router *router;
    struct loop *loop;
    struct pci_root *root;
    struct error err;
    unsigned slot; /* of the device under test */
    struct harness_ring {
        uint16_t size, avail, used; /* indices as the driver counts them */
        uint16_t next_descriptor;
    } rings[VIRTIO_DEVICE_QUEUES_MAX];
};

struct ring_descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

/* One buffer of a chain, for ring_offer. */
struct ring_buffer {
    uint64_t address;
    uint32_t length;
    uint16_t flags; /* RING_WRITE or 0 */
};

static inline void not_here(void **state)
{
    (void)state;
    skip();
}

/* For the `main` of a program none of whose tests can run here. */
static inline int skip_all(void)
{
    const struct CMUnitTest none[] = { cmocka_unit_test(not_here) };

    return cmocka_run_group_tests(none, NULL, NULL);
}

/* Takes kvm_fd and vm_fd; both -1 = without a VM. */
static inline void harness_open_with(struct harness *h, int kvm_fd, int vm_fd,
                                     const struct guest_memory_spec *memory)
{
    *h = (struct harness){ .slot = 1, .kvm_fd = kvm_fd, .vm_fd = vm_fd };
    assert_int_equal(guest_memory_make(memory, &h->memory, &h->err), 0);
    assert_int_equal(irq_router_new(h->vm_fd, &h->router, &h->err), 0);
    assert_int_equal(loop_new(&h->loop, &h->err), 0);
    assert_int_equal(pci_root_new(&(struct pci_host){ h->memory, &h->ports, &h->mmio, h->router,
                                                      h->loop, h->vm_fd },
                                  &h->root, &h->err),
                     0);
}

static inline void harness_open_on(struct harness *h, int kvm_fd, int vm_fd)
{
    const struct guest_memory_spec memory = { .bytes = HARNESS_MEMORY,
                                              .hotplug_bytes = HARNESS_HOTPLUG };

    harness_open_with(h, kvm_fd, vm_fd, &memory);
}

static inline void harness_open(struct harness *h)
{
    int kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm_fd = -1;

    if (kvm_fd >= 0) {
        do /* a ring that an earlier test closed may interrupt it */
            vm_fd = ioctl(kvm_fd, KVM_CREATE_VM, 0);
        while (vm_fd < 0 && errno == EINTR);
        assert_true(vm_fd >= 0);
        assert_int_equal(ioctl(vm_fd, KVM_CREATE_IRQCHIP, 0), 0);
    }
    harness_open_on(h, kvm_fd, vm_fd);
}

static inline void harness_close(struct harness *h)
{
    pci_root_free(h->root);
    loop_free(h->loop);
    irq_router_free(h->router);
    guest_memory_free(h->memory);
    if (h->kvm_fd >= 0) {
        close(h->vm_fd);
        close(h->kvm_fd);
    }
}

/* cmocka's, of an allocated fixture that begins with the harness. */
static inline int harness_tear_down(void **state)
{
    harness_close(*state);
    free(*state);
    return 0;
}

/* Lets the loop work off what is ready. */
static inline void harness_run(struct harness *h)
{
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(loop_turn(h->loop, 0, &h->err), 0);
}

/* --- raw accesses --- */

static inline uint64_t mmio_get(struct harness *h, uint64_t address, unsigned width)
{
    uint64_t value = 0;

    bus_read(&h->mmio, address, &value, width);
    return value;
}

static inline void mmio_put(struct harness *h, uint64_t address, unsigned width, uint64_t value)
{
    bus_write(&h->mmio, address, &value, width);
}

static inline uint64_t ecam_address(const struct harness *h, unsigned offset)
{
    return PLATFORM_ECAM_START + (h->slot << 15) + offset;
}

static inline uint32_t config_get(struct harness *h, unsigned offset, unsigned width)
{
    return (uint32_t)mmio_get(h, ecam_address(h, offset), width);
}

static inline void config_put(struct harness *h, unsigned offset, unsigned width, uint32_t value)
{
    mmio_put(h, ecam_address(h, offset), width, value);
}

static inline uint64_t bar_address(struct harness *h, unsigned bar)
{
    return config_get(h, 0x10 + 4 * bar, 4) & ~0xfu;
}

static inline uint64_t reg_get(struct harness *h, unsigned reg, unsigned width)
{
    return mmio_get(h, bar_address(h, 0) + VIRTIO_PCI_COMMON_OFFSET + reg, width);
}

static inline void reg_put(struct harness *h, unsigned reg, unsigned width, uint64_t value)
{
    mmio_put(h, bar_address(h, 0) + VIRTIO_PCI_COMMON_OFFSET + reg, width, value);
}

static inline uint8_t status_get(struct harness *h)
{
    return (uint8_t)reg_get(h, REG_STATUS, 1);
}

static inline void status_put(struct harness *h, uint8_t status)
{
    reg_put(h, REG_STATUS, 1, status);
}

static inline uint64_t device_config_get(struct harness *h, unsigned offset, unsigned width)
{
    return mmio_get(h, bar_address(h, 0) + VIRTIO_PCI_DEVICE_OFFSET + offset, width);
}

static inline void device_config_put(struct harness *h, unsigned offset, unsigned width,
                                     uint64_t value)
{
    mmio_put(h, bar_address(h, 0) + VIRTIO_PCI_DEVICE_OFFSET + offset, width, value);
}

static inline void guest_put(struct harness *h, uint64_t address, const void *bytes, size_t size)
{
    assert_true(guest_memory_write(h->memory, address, bytes, size));
}

static inline void guest_get(struct harness *h, uint64_t address, void *bytes, size_t size)
{
    assert_true(guest_memory_read(h->memory, address, bytes, size));
}

static inline uint16_t guest_get16(struct harness *h, uint64_t address)
{
    uint16_t value;

    guest_get(h, address, &value, sizeof(value));
    return value;
}

static inline void guest_put16(struct harness *h, uint64_t address, uint16_t value)
{
    guest_put(h, address, &value, sizeof(value));
}

static inline uint8_t guest_get8(struct harness *h, uint64_t address)
{
    uint8_t value;

    guest_get(h, address, &value, 1);
    return value;
}

/* --- a driver --- */

static inline uint64_t ring_avail(unsigned queue)
{
    return RING_BASE(queue) + 0x1000;
}

static inline uint64_t ring_used(unsigned queue)
{
    return RING_BASE(queue) + 0x2000;
}

static inline uint64_t features_offered(struct harness *h)
{
    uint64_t features;

    reg_put(h, REG_OFFERED_SELECT, 4, 0);
    features = reg_get(h, REG_OFFERED, 4);
    reg_put(h, REG_OFFERED_SELECT, 4, 1);
    return features | reg_get(h, REG_OFFERED, 4) << 32;
}

static inline void features_accept(struct harness *h, uint64_t features)
{
    for (unsigned i = 0; i < 2; i++) {
        reg_put(h, REG_ACCEPTED_SELECT, 4, i);
        reg_put(h, REG_ACCEPTED, 4, (uint32_t)(features >> (32 * i)));
    }
}

/* Memory decoding on, MSI-X on with every vector masked, so that interrupts stay pending. */
static inline void driver_attach(struct harness *h)
{
    config_put(h, 0x04, 2, 0x6);
    for (unsigned at = config_get(h, 0x34, 1); at != 0; at = config_get(h, at + 1, 1)) {
        if (config_get(h, at, 1) == 0x11)
            config_put(h, at + 2, 2, 0x8000);
    }
}

/* Pending interrupts, bit 0 = configuration, bit 1+n = queue n; taking them by masking MSI-X off.
 */
static inline uint64_t interrupts_take(struct harness *h)
{
    uint64_t pending = mmio_get(h, bar_address(h, 1) + PCI_MSIX_PENDING_OFFSET, 8);

    for (unsigned at = config_get(h, 0x34, 1); at != 0; at = config_get(h, at + 1, 1)) {
        if (config_get(h, at, 1) == 0x11) {
            config_put(h, at + 2, 2, 0);
            config_put(h, at + 2, 2, 0x8000);
        }
    }
    return pending;
}

/* Gives queue 0's vector a message, so that its interrupts are sent, where there is a VM. */
static inline void interrupts_let_go(struct harness *h)
{
    uint64_t entry = bar_address(h, 1) + 16;

    mmio_put(h, entry, 8, 0xfee00000);
    mmio_put(h, entry + 8, 4, 0x41);
    mmio_put(h, entry + 12, 4, 0);
}

/* Up to FEATURES_OK; whether the device took them. */
static inline bool driver_negotiate(struct harness *h, uint64_t features)
{
    status_put(h, 0);
    status_put(h, 1);
    status_put(h, 3);
    features_accept(h, features);
    status_put(h, 11);
    return status_get(h) == 11;
}

static inline void driver_set_ring(struct harness *h, unsigned queue, uint16_t size)
{
    static const uint8_t zeroes[0x3000];

    guest_put(h, RING_BASE(queue), zeroes, sizeof(zeroes));
    h->rings[queue] = (struct harness_ring){ .size = size };
    reg_put(h, REG_QUEUE_SELECT, 2, queue);
    reg_put(h, REG_QUEUE_SIZE, 2, size);
    reg_put(h, REG_QUEUE_VECTOR, 2, 1 + queue);
    reg_put(h, REG_QUEUE_DESCRIPTORS, 4, RING_BASE(queue));
    reg_put(h, REG_QUEUE_DESCRIPTORS + 4, 4, 0);
    reg_put(h, REG_QUEUE_AVAIL, 8, ring_avail(queue));
    reg_put(h, REG_QUEUE_USED, 8, ring_used(queue));
    reg_put(h, REG_QUEUE_ENABLE, 2, 1);
    assert_int_equal(reg_get(h, REG_QUEUE_ENABLE, 2), 1);
}

/* Everything up to DRIVER_OK, all queues of `size`. */
static inline void driver_start(struct harness *h, uint64_t features, uint16_t size)
{
    unsigned queues;

    driver_attach(h);
    assert_true(driver_negotiate(h, features | VIRTIO_FEATURE_VERSION_1));
    reg_put(h, REG_CONFIG_VECTOR, 2, 0);
    queues = (unsigned)reg_get(h, REG_QUEUE_COUNT, 2);
    for (unsigned i = 0; i < queues; i++)
        driver_set_ring(h, i, size);
    status_put(h, 15);
    assert_int_equal(status_get(h), 15);
    harness_run(h);
}

static inline void ring_put_descriptor(struct harness *h, unsigned queue, unsigned index,
                                       uint64_t address, uint32_t length, uint16_t flags,
                                       uint16_t next)
{
    struct ring_descriptor descriptor = { address, length, flags, next };

    guest_put(h, RING_BASE(queue) + index * sizeof(descriptor), &descriptor, sizeof(descriptor));
}

static inline void ring_offer_head(struct harness *h, unsigned queue, uint16_t head)
{
    struct harness_ring *ring = &h->rings[queue];

    guest_put16(h, ring_avail(queue) + 4 + 2 * (ring->avail % ring->size), head);
    guest_put16(h, ring_avail(queue) + 2, ++ring->avail);
}

/* Offers a chain of direct descriptors and returns its head. */
static inline uint16_t ring_offer(struct harness *h, unsigned queue,
                                  const struct ring_buffer *buffers, unsigned count)
{
    struct harness_ring *ring = &h->rings[queue];
    uint16_t head = ring->next_descriptor;

    for (unsigned i = 0; i < count; i++) {
        uint16_t index = ring->next_descriptor;

        ring->next_descriptor = (uint16_t)((index + 1) % ring->size);
        ring_put_descriptor(h, queue, index, buffers[i].address, buffers[i].length,
                            buffers[i].flags | (i + 1 < count ? RING_NEXT : 0),
                            ring->next_descriptor);
    }
    ring_offer_head(h, queue, head);
    return head;
}

static inline void ring_notify(struct harness *h, unsigned queue)
{
    mmio_put(h, bar_address(h, 0) + VIRTIO_PCI_NOTIFY_OFFSET + queue * VIRTIO_PCI_NOTIFY_STRIDE, 2,
             queue);
}

static inline void ring_kick(struct harness *h, unsigned queue)
{
    ring_notify(h, queue);
    harness_run(h);
}

/* So many buffers of 2 KiB for the device to write, each descriptor's own, from `base` on. */
static inline void ring_offer_space(struct harness *h, unsigned queue, uint64_t base,
                                    unsigned count)
{
    while (count-- > 0) {
        const struct ring_buffer buffer = { base + h->rings[queue].next_descriptor * 2048u, 2048,
                                            RING_WRITE };

        ring_offer(h, queue, &buffer, 1);
    }
    ring_kick(h, queue);
}

/* The next used entry; false if there is none. */
static inline bool ring_take(struct harness *h, unsigned queue, uint32_t *ret_head,
                             uint32_t *ret_length)
{
    struct harness_ring *ring = &h->rings[queue];
    uint64_t entry = ring_used(queue) + 4 + 8 * (ring->used % ring->size);

    if (guest_get16(h, ring_used(queue) + 2) == ring->used)
        return false;
    guest_get(h, entry, ret_head, 4);
    guest_get(h, entry + 4, ret_length, 4);
    ring->used++;
    return true;
}

/* The same, as long as it takes; false if none comes, or the device breaks. */
static inline bool ring_await(struct harness *h, unsigned queue, uint32_t *ret_head,
                              uint32_t *ret_length)
{
    int64_t end_ms = loop_now_ms() + 20000;

    while (!ring_take(h, queue, ret_head, ret_length)) {
        if (loop_now_ms() > end_ms || (status_get(h) & VIRTIO_STATUS_NEEDS_RESET))
            return false;
        assert_int_equal(loop_turn(h->loop, 10, &h->err), 0);
    }
    return true;
}

static inline void assert_needs_reset(struct harness *h)
{
    assert_int_equal(status_get(h) & VIRTIO_STATUS_NEEDS_RESET, VIRTIO_STATUS_NEEDS_RESET);
}
