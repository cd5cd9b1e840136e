/* virtio_pci.h - virtio over PCI: the modern interface only (virtio 1.2, 4.1), MSI-X only.
 *
 * A device has two BARs: BAR 0 holds the common configuration, ISR, device configuration and
 * notification pages, 4 KiB each; BAR 1 the MSI-X table.  Vector 0 is meant for configuration
 * changes, one more per queue, but the driver maps them as it likes.  Kicks arrive by ioeventfd:
 * each queue has a notify register of its own (multiplier 4), registered when the device is added,
 * and again only if the guest moves the BAR; a kick that comes as an MMIO exit all the same writes
 * the same eventfd.  There is no INTx: a driver without MSI-X has to poll the used rings.
 *
 * The lock rule stands in virtio_device.h; the mutex is that of the PCI function, which pci.c
 * holds around every register access. */
#pragma once
#include "vmm/pci.h"

struct error;
struct virtio_device;
struct virtio_device_ops;

/* Layout of BAR 0 */
#define VIRTIO_PCI_COMMON_OFFSET 0x0000
#define VIRTIO_PCI_ISR_OFFSET    0x1000
#define VIRTIO_PCI_DEVICE_OFFSET 0x2000
#define VIRTIO_PCI_NOTIFY_OFFSET 0x3000
#define VIRTIO_PCI_PAGE_BYTES    0x1000
#define VIRTIO_PCI_BAR_BYTES     0x4000
#define VIRTIO_PCI_NOTIFY_STRIDE 4

/* Puts a device on the bus, into a slot or PCI_SLOT_ANY; the root's loop serves it.  `owner` is
 * taken over in every case: it is freed by ops->free with the root, or at once on failure.
 * *ret_device is borrowed from the root. */
int virtio_pci_add(struct pci_root *root, unsigned slot, const struct virtio_device_ops *ops,
                   void *owner, struct virtio_device **ret_device, struct error *err);
