/* virtio_pci.c - see virtio_pci.h. */
#include "vmm/virtio_pci.h"
#include <errno.h>
#include <linux/kvm.h>
#include <linux/virtio_pci.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "base/loop.h"
#include "vmm/pci_msix.h"
#include "vmm/transfer.h"
#include "vmm/virtio_device.h"

#define VIRTIO_PCI_VENDOR      0x1af4
#define VIRTIO_PCI_DEVICE_BASE 0x1040
#define VIRTIO_PCI_REVISION    1
#define BAR_REGISTERS          0
#define BAR_MSIX               1
#define NO_VECTOR              0xffff
/* Each write to the eventfd wakes the loop once, so that nobody has to read it back to 0. */
#define EACH_KICK (EPOLLIN | EPOLLET)

/* ISR status, 4.1.4.5 */
#define ISR_QUEUE  1
#define ISR_CONFIG 2

/* Vendor capabilities, 4.1.4 */
#define CAPABILITY_VENDOR 0x09

struct virtio_pci_capability {
    uint8_t id, next, length, type;
    uint8_t bar, number;
    uint16_t padding;
    uint32_t offset;
    uint32_t size;
    uint32_t extra; /* notify_off_multiplier, or pci_cfg_data */
};

struct virtio_pci {
    struct pci_function function;
    struct virtio_device device;
    uint64_t notify_address; /* where the ioeventfds are; 0 = nowhere */
    unsigned config_access;  /* offset of the PCI configuration access capability */
    uint32_t offered_select, accepted_select;
    uint16_t queue_select;
    uint16_t config_vector;
    uint8_t isr;
    struct virtio_pci_queue {
        struct virtio_pci *pci;
        int kick_fd; /* owned */
        struct loop_source *source;
        uint16_t vector;
    } queues[VIRTIO_DEVICE_QUEUES_MAX];
};

/* --- interrupts and kicks --- */

static void virtio_pci_interrupt(void *transport, int queue)
{
    struct virtio_pci *pci = transport;
    uint16_t vector =
        queue == VIRTIO_CONFIG_INTERRUPT ? pci->config_vector : pci->queues[queue].vector;

    pci->isr |= queue == VIRTIO_CONFIG_INTERRUPT ? ISR_CONFIG : ISR_QUEUE;
    pci_msix_raise(pci->function.msix, vector); /* NO_VECTOR is none that exists */
}

static void virtio_pci_kick(void *transport, unsigned queue)
{
    struct virtio_pci *pci = transport;

    /* Can only fail when the counter is full, and then a kick is waiting already. */
    (void)eventfd_write(pci->queues[queue].kick_fd, 1);
}

static int virtio_pci_lend(void *transport, unsigned queue, int *ret_interrupt_fd)
{
    struct virtio_pci *pci = transport;
    uint64_t count;

    if (!ret_interrupt_fd) /* else those of before would be heard of once more, and so on */
        (void)!read(pci->queues[queue].kick_fd, &count, sizeof(count));
    (void)loop_change(pci->queues[queue].source, ret_interrupt_fd ? 0 : EACH_KICK, NULL);
    if (ret_interrupt_fd)
        *ret_interrupt_fd = pci_msix_lend(pci->function.msix, pci->queues[queue].vector);
    return pci->queues[queue].kick_fd;
}

static const struct virtio_transport_ops transport_ops = {
    .interrupt = virtio_pci_interrupt,
    .kick = virtio_pci_kick,
    .lend = virtio_pci_lend,
};

static void queue_kicked(void *context, uint32_t events)
{
    struct virtio_pci_queue *queue = context;
    struct virtio_pci *pci = queue->pci;

    (void)events;
    virtio_device_lock(&pci->device);
    virtio_device_process(&pci->device, (unsigned)(queue - pci->queues));
    virtio_device_unlock(&pci->device);
}

/* --- common configuration, 4.1.4.3 --- */

/* The registers; from queue_size on they are those of the selected queue. */
struct common_config {
    uint32_t offered_select, offered, accepted_select, accepted;
    uint16_t config_vector, queue_count;
    uint8_t status, generation;
    uint16_t queue_select, queue_size, queue_vector, queue_enable, queue_notify_offset;
    uint64_t queue_addresses[3]; /* descriptors, avail, used */
    uint16_t queue_notify_data, queue_reset;
};
#define AT(field) offsetof(struct common_config, field)

_Static_assert(AT(queue_reset) == VIRTIO_PCI_COMMON_Q_RESET, "as in the specification");

/* Is that a whole register, or one half of 64 bits (4.1.3.1)? */
static bool common_has(uint64_t offset, unsigned width)
{
    if (offset >= AT(queue_addresses) && offset < AT(queue_notify_data))
        return (width == 4 || width == 8) && offset % width == 0;
    if (offset == AT(status) || offset == AT(generation))
        return width == 1;
    return offset <= AT(queue_reset) && width == (offset < AT(config_vector) ? 4 : 2) &&
           offset % width == 0;
}

static uint32_t feature_word(uint64_t features, uint32_t index)
{
    return index < 2 ? (uint32_t)(features >> (index * 32)) : 0;
}

/* A queue that does not exist reads as zero: size 0 says so. */
static uint64_t common_read(const struct virtio_pci *pci, uint64_t offset, unsigned width)
{
    struct common_config config = {
        .offered_select = pci->offered_select,
        .offered = feature_word(pci->device.offered_features, pci->offered_select),
        .accepted_select = pci->accepted_select,
        .accepted = feature_word(pci->device.driver_features, pci->accepted_select),
        .config_vector = pci->config_vector,
        .queue_count = pci->device.ops->queue_count,
        .status = pci->device.status,
        .generation = pci->device.config_generation,
        .queue_select = pci->queue_select,
    };
    uint64_t value = 0;

    if (!common_has(offset, width))
        return ~0ull;
    if (pci->queue_select < config.queue_count) {
        const struct virtqueue *queue = &pci->device.queues[pci->queue_select];

        config.queue_size = queue->size;
        config.queue_vector = pci->queues[pci->queue_select].vector;
        config.queue_enable = queue->enabled;
        config.queue_notify_offset = config.queue_notify_data = pci->queue_select;
        config.queue_addresses[0] = queue->descriptor_address;
        config.queue_addresses[1] = queue->avail_address;
        config.queue_addresses[2] = queue->used_address;
    } /* a reset is done before its write returns */
    memcpy(&value, (const uint8_t *)&config + offset, width);
    return value;
}

/* A vector that does not exist becomes NO_VECTOR, which the driver reads back (4.1.5.1.2). */
static uint16_t vector_checked(const struct virtio_pci *pci, uint64_t value)
{
    return value <= pci->device.ops->queue_count ? (uint16_t)value : NO_VECTOR;
}

static void common_write_queue(struct virtio_pci *pci, uint64_t offset, unsigned width,
                               uint64_t value)
{
    unsigned index = pci->queue_select;
    struct virtqueue *queue = virtio_device_configurable(&pci->device, index);

    if (offset == AT(queue_reset) && value == 1) {
        virtio_device_reset_queue(&pci->device, index);
    } else if (offset == AT(queue_vector) && index < pci->device.ops->queue_count) {
        pci->queues[index].vector = vector_checked(pci, value);
    } else if (!queue) { /* enabled, absent, or not the time for it: frozen */
        return;
    } else if (offset == AT(queue_size)) {
        queue->size = (uint16_t)value; /* judged by virtqueue_enable */
    } else if (offset == AT(queue_enable) && value == 1) {
        virtio_device_enable_queue(&pci->device, index);
    } else if (offset >= AT(queue_addresses) && offset < AT(queue_notify_data)) {
        uint64_t *addresses[] = { &queue->descriptor_address, &queue->avail_address,
                                  &queue->used_address };

        memcpy((uint8_t *)addresses[(offset - AT(queue_addresses)) / 8] + offset % 8, &value,
               width);
    }
}

static void write_status(struct virtio_pci *pci, uint8_t status)
{
    virtio_device_set_status(&pci->device, status);
    if (status != 0)
        return;
    pci->offered_select = pci->accepted_select = pci->queue_select = pci->isr = 0;
    pci->config_vector = NO_VECTOR;
    for (unsigned i = 0; i < VIRTIO_DEVICE_QUEUES_MAX; i++)
        pci->queues[i].vector = NO_VECTOR;
}

static void common_write(struct virtio_pci *pci, uint64_t offset, unsigned width, uint64_t value)
{
    if (!common_has(offset, width))
        return;
    switch (offset) {
    case AT(offered_select):
        pci->offered_select = (uint32_t)value;
        break;
    case AT(accepted_select):
        pci->accepted_select = (uint32_t)value;
        break;
    case AT(accepted):
        virtio_device_accept(&pci->device, pci->accepted_select, (uint32_t)value);
        break;
    case AT(config_vector):
        pci->config_vector = vector_checked(pci, value);
        break;
    case AT(status):
        write_status(pci, (uint8_t)value);
        break;
    case AT(queue_select):
        pci->queue_select = (uint16_t)value;
        break;
    default: /* or read only */
        common_write_queue(pci, offset, width, value);
        break;
    }
}

static uint64_t registers_access(void *owner, unsigned bar, uint64_t offset, unsigned width,
                                 const uint64_t *written)
{
    struct virtio_pci *pci = owner;
    uint64_t in_page = offset % VIRTIO_PCI_PAGE_BYTES, value = ~0ull;

    (void)bar;
    switch (offset - in_page) {
    case VIRTIO_PCI_COMMON_OFFSET:
        if (!written)
            return common_read(pci, in_page, width);
        common_write(pci, in_page, width, *written);
        break;
    case VIRTIO_PCI_NOTIFY_OFFSET: /* the address says which queue; the value is not needed */
        if (written && in_page % VIRTIO_PCI_NOTIFY_STRIDE == 0 &&
            in_page / VIRTIO_PCI_NOTIFY_STRIDE < pci->device.ops->queue_count)
            virtio_pci_kick(pci, (unsigned)(in_page / VIRTIO_PCI_NOTIFY_STRIDE));
        break;
    case VIRTIO_PCI_ISR_OFFSET:
        if (!written && in_page == 0 && width == 1) {
            value = pci->isr; /* reading clears */
            pci->isr = 0;
        }
        break;
    case VIRTIO_PCI_DEVICE_OFFSET:
        if (!written)
            value = virtio_device_read_config(&pci->device, in_page, width);
        else if (pci->device.ops->write_config)
            pci->device.ops->write_config(pci->device.owner, in_page, width, *written);
        break;
    }
    return value;
}

/* --- the window into BAR 0 through configuration space, 4.1.4.9 --- */

/* True if the guest's access touches pci_cfg_data and the window's fields name an access. */
static bool config_window(const struct virtio_pci *pci, unsigned offset, unsigned width,
                          struct virtio_pci_capability *ret_window)
{
    unsigned data = pci->config_access + offsetof(struct virtio_pci_capability, extra);

    if (offset >= data + 4 || offset + width <= data)
        return false;
    memcpy(ret_window, pci->function.config + pci->config_access, sizeof(*ret_window));
    return ret_window->bar == BAR_REGISTERS &&
           (ret_window->size == 1 || ret_window->size == 2 || ret_window->size == 4) &&
           ret_window->offset % ret_window->size == 0 && ret_window->offset < VIRTIO_PCI_BAR_BYTES;
}

static void config_window_read(void *owner, unsigned offset, unsigned width)
{
    struct virtio_pci *pci = owner;
    struct virtio_pci_capability window;

    if (!config_window(pci, offset, width, &window))
        return;
    window.extra = (uint32_t)registers_access(pci, BAR_REGISTERS, window.offset, window.size, NULL);
    memcpy(pci->function.config + pci->config_access +
               offsetof(struct virtio_pci_capability, extra),
           &window.extra, sizeof(window.extra));
}

/* PCI 3.0, 6.2.2: a function that is no bus master writes nothing.  A kernel that another one
 * replaces (kexec) leaves its devices so, with its buffers in their rings. */
static void config_written(void *owner, unsigned offset, unsigned width)
{
    struct virtio_pci *pci = owner;
    struct virtio_pci_capability window;
    uint64_t value;

    if (offset == PCI_COMMAND && !(pci->function.config[PCI_COMMAND] & PCI_COMMAND_MASTER))
        virtio_device_halt(&pci->device);
    if (!config_window(pci, offset, width, &window))
        return;
    value = window.size == 4 ? window.extra : window.extra & ((1u << 8 * window.size) - 1);
    (void)registers_access(pci, BAR_REGISTERS, window.offset, window.size, &value);
}

/* Any width of write to one queue's notify register.  A failure is not one of the device: the kick
 * then comes as an MMIO exit. */
static void ioeventfd_set(struct virtio_pci *pci, unsigned queue, uint64_t notify_address,
                          uint32_t flags)
{
    struct kvm_ioeventfd request = {
        .addr = notify_address + queue * VIRTIO_PCI_NOTIFY_STRIDE,
        .fd = pci->queues[queue].kick_fd,
        .flags = flags,
    };

    (void)ioctl(pci_root_host(pci->function.root)->vm_fd, KVM_IOEVENTFD, &request);
}

static void registers_moved(void *owner, unsigned bar, uint64_t address)
{
    struct virtio_pci *pci = owner;
    uint64_t notify_address = address + VIRTIO_PCI_NOTIFY_OFFSET;

    if (bar != BAR_REGISTERS || pci_root_host(pci->function.root)->vm_fd < 0)
        return;
    for (unsigned i = 0; i < pci->device.ops->queue_count; i++) {
        if (pci->notify_address != 0)
            ioeventfd_set(pci, i, pci->notify_address, KVM_IOEVENTFD_FLAG_DEASSIGN);
        ioeventfd_set(pci, i, notify_address, 0);
    }
    pci->notify_address = notify_address;
}

/* --- snapshots --- */

static void virtio_pci_transfer(void *owner, struct transfer *transfer)
{
    struct virtio_pci *pci = owner;

    transfer_value(transfer, "offered select", pci->offered_select);
    transfer_value(transfer, "accepted select", pci->accepted_select);
    transfer_value(transfer, "queue select", pci->queue_select);
    transfer_value(transfer, "ISR", pci->isr);
    transfer_value(transfer, "vector", pci->config_vector);
    pci->config_vector = vector_checked(pci, pci->config_vector);
    for (unsigned i = 0; i < pci->device.ops->queue_count; i++) {
        transfer_value(transfer, "vector", pci->queues[i].vector);
        pci->queues[i].vector = vector_checked(pci, pci->queues[i].vector);
    }
    virtio_device_transfer(&pci->device, transfer);
}

static void virtio_pci_free(void *owner)
{
    struct virtio_pci *pci = owner;

    pci->device.ops->free(pci->device.owner);
    for (unsigned i = 0; i < VIRTIO_DEVICE_QUEUES_MAX && pci->queues[i].kick_fd >= 0; i++) {
        if (pci->notify_address != 0)
            ioeventfd_set(pci, i, pci->notify_address, KVM_IOEVENTFD_FLAG_DEASSIGN);
        loop_remove(pci->queues[i].source);
        close(pci->queues[i].kick_fd);
    }
    pci_function_destroy(&pci->function);
    free(pci);
}

static const struct pci_function_ops function_ops = {
    .bar_access = registers_access,
    .config_read = config_window_read,
    .config_written = config_written,
    .bar_moved = registers_moved,
    .transfer = virtio_pci_transfer,
    .free = virtio_pci_free,
};

/* In BAR 0; `next` is the list's. */
#define IN_BAR(type, length) CAPABILITY_VENDOR, 0, length, type, BAR_REGISTERS, 0, 0

static const struct virtio_pci_capability capabilities[] = {
    { IN_BAR(VIRTIO_PCI_CAP_COMMON_CFG, 16), VIRTIO_PCI_COMMON_OFFSET, VIRTIO_PCI_PAGE_BYTES, 0 },
    { IN_BAR(VIRTIO_PCI_CAP_NOTIFY_CFG, 20), VIRTIO_PCI_NOTIFY_OFFSET, VIRTIO_PCI_PAGE_BYTES,
      VIRTIO_PCI_NOTIFY_STRIDE },
    { IN_BAR(VIRTIO_PCI_CAP_ISR_CFG, 16), VIRTIO_PCI_ISR_OFFSET, VIRTIO_PCI_PAGE_BYTES, 0 },
    { IN_BAR(VIRTIO_PCI_CAP_DEVICE_CFG, 16), VIRTIO_PCI_DEVICE_OFFSET, VIRTIO_PCI_PAGE_BYTES, 0 },
    { IN_BAR(VIRTIO_PCI_CAP_PCI_CFG, 20), 0, 0, 0 }, /* the last: config_access */
};

static int add_capabilities(struct virtio_pci *pci, struct error *err)
{
    /* Of the last one, bar, offset, length and data are the driver's. */
    static const struct virtio_pci_capability drivers = {
        .bar = 0xff, .offset = ~0u, .size = ~0u, .extra = ~0u
    };

    for (size_t i = 0; i < ARRAY_LENGTH(capabilities); i++) {
        const struct virtio_pci_capability *one = &capabilities[i];
        const void *writable = one->type == VIRTIO_PCI_CAP_PCI_CFG ? &drivers : NULL;
        int result;

        if (one->type == VIRTIO_PCI_CAP_DEVICE_CFG && pci->device.ops->config_bytes == 0)
            continue;
        result = pci_function_add_capability(&pci->function, (const uint8_t *)one, writable,
                                             one->length, err);
        if (result < 0)
            return result;
        pci->config_access = (unsigned)result;
    }
    return 0;
}

static int add_queues(struct virtio_pci *pci, struct error *err)
{
    int result = 0;

    for (unsigned i = 0; i < pci->device.ops->queue_count && result == 0; i++) {
        struct virtio_pci_queue *queue = &pci->queues[i];

        queue->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (queue->kick_fd < 0)
            return error_set(err, errno, "eventfd of a virtqueue");
        result = loop_add(pci->device.loop, queue->kick_fd, EACH_KICK, queue_kicked, queue,
                          &queue->source, err);
    }
    if (result == 0)
        registers_moved(pci, BAR_REGISTERS, pci_function_bar(&pci->function, BAR_REGISTERS));
    return result;
}

int virtio_pci_add(struct pci_root *root, unsigned slot, const struct virtio_device_ops *ops,
                   void *owner, struct virtio_device **ret_device, struct error *err)
{
    const struct pci_function_spec spec = {
        .vendor = VIRTIO_PCI_VENDOR,
        .device = (uint16_t)(VIRTIO_PCI_DEVICE_BASE + ops->device_id),
        .subsystem_vendor = VIRTIO_PCI_VENDOR,
        .subsystem = (uint16_t)(VIRTIO_PCI_DEVICE_BASE + ops->device_id),
        .revision = VIRTIO_PCI_REVISION,
        .class_code = ops->pci_class,
        .bar_size = { [BAR_REGISTERS] = VIRTIO_PCI_BAR_BYTES, [BAR_MSIX] = PCI_MSIX_BAR_BYTES },
        .msix_vectors = (uint16_t)(1 + ops->queue_count),
        .msix_bar = BAR_MSIX,
    };
    struct virtio_pci *pci = calloc(1, sizeof(*pci));
    int result = pci ? pci_function_init(&pci->function, root, slot, &spec, &function_ops, pci, err)
                     : error_set(err, ENOMEM, "no memory");

    if (result < 0) {
        (void)error_wrap(err, "virtio %s", ops->name);
        free(pci);
        ops->free(owner); /* and perhaps `ops` with it */
        return result;
    }
    pci->config_vector = NO_VECTOR;
    for (unsigned i = 0; i < VIRTIO_DEVICE_QUEUES_MAX; i++)
        pci->queues[i] = (struct virtio_pci_queue){ pci, -1, NULL, NO_VECTOR };
    pci->device.transport_ops = &transport_ops;
    pci->device.transport = pci;
    pci->device.lock = &pci->function.lock;
    pci->device.loop = pci_root_host(root)->loop;
    virtio_device_init(&pci->device, ops, owner, pci_root_host(root)->memory);

    result = add_capabilities(pci, err);
    if (result == 0)
        result = add_queues(pci, err);
    if (result < 0) {
        (void)error_wrap(err, "virtio %s", ops->name);
        virtio_pci_free(pci);
        return result;
    }
    pci_function_add(&pci->function);
    *ret_device = &pci->device;
    return 0;
}
