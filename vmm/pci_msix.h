/* pci_msix.h - the MSI-X table, pending bits and masks of one function (PCI 3.0, 6.8.2).
 *
 * Vectors are raised by pci_msix_raise only, with the function's lock held, so a masked vector is
 * kept back here and its route in KVM stays as it is: the guest's many masks and unmasks cost no
 * system call, and a route is written only when address or data changed.  One that is lent is
 * raised by others, too, and bound to nothing while it is masked. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct error;
struct irq_router;
struct pci_msix; /* opaque; see pci_msix.c */
struct transfer;

#define PCI_MSIX_VECTORS_MAX    64
#define PCI_MSIX_PENDING_OFFSET 0x800 /* in its BAR; the table is at 0 */
#define PCI_MSIX_BAR_BYTES      0x1000

int pci_msix_new(struct irq_router *router, unsigned vectors, struct pci_msix **ret_msix,
                 struct error *err);
struct pci_msix *pci_msix_free(struct pci_msix *msix);

/* The two bits of Message Control; unmasking sends what is pending. */
void pci_msix_control(struct pci_msix *msix, bool enabled, bool masked);
/* BAR accesses: only aligned ones of 4 and 8 bytes exist (6.8.2). */
uint64_t pci_msix_access(struct pci_msix *msix, uint64_t offset, unsigned width,
                         const uint64_t *written);
/* Table and pending bits; what is loaded is routed by the next pci_msix_control. */
void pci_msix_transfer(struct pci_msix *msix, struct transfer *transfer);
/* Sends it, or keeps it pending while masked; nothing if it does not exist or MSI-X is off. */
void pci_msix_raise(struct pci_msix *msix, unsigned vector);
/* The eventfd (borrowed) by which others raise it; -1 if it does not exist. */
int pci_msix_lend(struct pci_msix *msix, unsigned vector);
