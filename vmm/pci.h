/* pci.h - PCI root bus 0: configuration space by ECAM and by ports 0xcf8/0xcfc, memory BARs, and
 * the functions on it (PCI Local Bus 3.0 chapter 6; PCI Express base, 7.2.2 for ECAM).
 *
 * Slot 0 is the host bridge; functions get slots 1 to 31, function 0 each.  BARs are 32 bit, not
 * prefetchable, and placed in the PCI window by their slot; a guest may move them.  pci.c
 * answers the whole window and looks the BAR up itself, so a move touches no other bus.
 *
 * Locks: each function has one mutex, held around every access to its registers and around its
 * ops.  Where BARs are is read without it, atomically.  Functions are added and removed by the main
 * thread while no vCPU runs. */
#pragma once
#include <linux/pci_regs.h>
#include <pthread.h>
#include <stdint.h>

struct bus;
struct error;
struct guest_memory;
struct irq_router;
struct loop;
struct pci_msix;
struct pci_root; /* opaque; see pci.c */
struct transfer;

#define PCI_SLOTS        32
#define PCI_CONFIG_BYTES 256
#define PCI_SLOT_ANY     0 /* the first free one */

struct pci_function_ops {
    /* One aligned access of 1, 2, 4 or 8 bytes inside a BAR of the function (not that of MSI-X).
     * Reads that make no sense answer all ones. */
    uint64_t (*bar_access)(void *owner, unsigned bar, uint64_t offset, unsigned width,
                           const uint64_t *written);
    /* Before a read and after a write of configuration space that touches [offset, offset+width).
     * May be NULL. */
    void (*config_read)(void *owner, unsigned offset, unsigned width);
    void (*config_written)(void *owner, unsigned offset, unsigned width);
    /* The BAR now answers at this guest address.  Called when it differs from the last one that was
     * told (the first is what pci_function_bar says).  May be NULL. */
    void (*bar_moved)(void *owner, unsigned bar, uint64_t address);
    /* Registers of the owner, after those of the function; may be NULL. */
    void (*transfer)(void *owner, struct transfer *transfer);
    void (*free)(void *owner);
};

struct pci_function_spec {
    uint16_t vendor, device, subsystem_vendor, subsystem;
    uint8_t revision;
    uint32_t class_code;                 /* 24 bits */
    uint32_t bar_size[PCI_STD_NUM_BARS]; /* 0 = absent, else a power of two of at least 4096 */
    uint16_t msix_vectors;               /* 0 = no MSI-X; at most PCI_MSIX_VECTORS_MAX */
    uint8_t msix_bar;                    /* a BAR with only the MSI-X table and PBA in it */
};

struct pci_function {
    pthread_mutex_t lock;
    struct pci_root *root; /* borrowed */
    const struct pci_function_ops *ops;
    void *owner; /* owned once added: ops->free */
    unsigned slot;
    uint8_t config[PCI_CONFIG_BYTES];
    uint8_t writable[PCI_CONFIG_BYTES]; /* mask of the bits a guest may change */
    uint8_t capability_last;            /* offset of the last one's header; 0 = none */
    uint16_t capability_end;            /* first free byte behind the last one */
    uint8_t msix_offset;                /* of its capability */
    struct pci_msix *msix;              /* NULL = none; pci_msix.h */
    uint8_t msix_bar;
    struct {
        uint32_t size;
        uint64_t address; /* where it answers, 0 = nowhere; atomic */
        uint64_t told;    /* last address given to bar_moved */
    } bars[PCI_STD_NUM_BARS];
};

/* What a machine's devices work with; all is borrowed. */
struct pci_host {
    struct guest_memory *memory;
    struct bus *ports, *mmio;
    struct irq_router *router;
    struct loop *loop; /* serves them */
    int vm_fd;         /* -1 in tests without KVM: then there are no ioeventfds */
};

int pci_root_new(const struct pci_host *host, struct pci_root **ret_root, struct error *err);
/* Frees every function and its device; before the loop, the router and the memory, and after the
 * vCPU threads and buses stopped.  Accepts NULL. */
struct pci_root *pci_root_free(struct pci_root *root);

/* All functions, into a snapshot or out of one of a machine with the same functions. */
void pci_root_transfer(struct pci_root *root, struct transfer *transfer);

const struct pci_host *pci_root_host(const struct pci_root *root); /* borrowed */

/* Initialises `function` (embedded in its owner) and gives it a slot (PCI_SLOT_ANY, or -EEXIST) and
 * BAR addresses, not yet visible to the guest.  On failure nothing is owned. */
int pci_function_init(struct pci_function *function, struct pci_root *root, unsigned slot,
                      const struct pci_function_spec *spec, const struct pci_function_ops *ops,
                      void *owner, struct error *err);
/* Appends a capability: `size` bytes whose second (the link) is filled in here; `writable` are the
 * bits a guest may change (NULL = none).  Returns its offset, or -ENOSPC. */
int pci_function_add_capability(struct pci_function *function, const uint8_t *bytes,
                                const uint8_t *writable, unsigned size, struct error *err);
/* Puts it into its slot; from now on the root owns its owner. */
void pci_function_add(struct pci_function *function);
/* Frees what is in the slot. */
void pci_root_remove(struct pci_root *root, unsigned slot);
/* Undoes pci_function_init; does not free the owner. */
void pci_function_destroy(struct pci_function *function);

/* The address in the BAR register, decoded or not. */
uint64_t pci_function_bar(const struct pci_function *function, unsigned bar);
