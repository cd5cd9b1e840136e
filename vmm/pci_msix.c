/* pci_msix.c - see pci_msix.h. */
#include "vmm/pci_msix.h"
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include "base/error.h"
#include "vmm/irq.h"
#include "vmm/transfer.h"

#define ENTRY_WORDS       4
#define ADDRESS_LOW_FIXED 3u /* bits that read as zero */

enum { WORD_ADDRESS_LOW, WORD_ADDRESS_HIGH, WORD_DATA, WORD_CONTROL };

struct msix_vector {
    uint32_t words[ENTRY_WORDS]; /* as the guest sees them */
    int eventfd;                 /* borrowed from the router */
    uint32_t gsi;
    bool routed;
    bool pending;
    bool lent; /* others write the eventfd: KVM must not listen while it is masked */
};

struct pci_msix {
    struct irq_router *router; /* borrowed */
    bool enabled, masked;
    unsigned count;
    struct msix_vector vectors[];
};

int pci_msix_new(struct irq_router *router, unsigned vectors, struct pci_msix **ret_msix,
                 struct error *err)
{
    struct pci_msix *msix;

    if (vectors == 0 || vectors > PCI_MSIX_VECTORS_MAX)
        return error_set(err, EINVAL, "%u MSI-X vectors", vectors);
    msix = calloc(1, sizeof(*msix) + vectors * sizeof(msix->vectors[0]));
    if (!msix)
        return error_set(err, ENOMEM, "MSI-X table");
    msix->router = router;
    msix->count = vectors;
    for (unsigned i = 0; i < vectors; i++) {
        struct msix_vector *vector = &msix->vectors[i];
        int result = irq_msi_new(router, &vector->eventfd, &vector->gsi, err);

        if (result < 0) {
            pci_msix_free(msix);
            return result;
        }
        vector->words[WORD_CONTROL] = PCI_MSIX_ENTRY_CTRL_MASKBIT;
    }
    *ret_msix = msix;
    return 0;
}

struct pci_msix *pci_msix_free(struct pci_msix *msix)
{
    for (unsigned i = 0; msix && i < msix->count; i++)
        irq_msi_free(msix->router, msix->vectors[i].gsi);
    free(msix);
    return NULL;
}

static bool vector_is_open(const struct pci_msix *msix, const struct msix_vector *vector)
{
    return msix->enabled && !msix->masked &&
           !(vector->words[WORD_CONTROL] & PCI_MSIX_ENTRY_CTRL_MASKBIT);
}

static void vector_send(const struct pci_msix *msix, struct msix_vector *vector)
{
    if (!vector->pending || !vector->routed || !vector_is_open(msix, vector))
        return;
    /* An eventfd of 8 bytes: full only after 2^64-2 raises that nobody took. */
    if (eventfd_write(vector->eventfd, 1) == 0)
        vector->pending = false;
}

/* After the guest changed a mask or a message; vCPU threads only, or a snapshot is loaded, so that
 * routing needs no place in the loop thread's system call filter.  A message that KVM refuses stays
 * pending. */
static void vector_update(struct pci_msix *msix, struct msix_vector *vector)
{
    uint64_t high = vector->words[WORD_ADDRESS_HIGH];

    if (!vector_is_open(msix, vector)) {
        if (vector->lent && vector->routed)
            irq_msi_unroute(msix->router, vector->gsi);
        vector->routed &= !vector->lent;
        return;
    }
    vector->routed =
        irq_msi_route(msix->router, vector->gsi, high << 32 | vector->words[WORD_ADDRESS_LOW],
                      vector->words[WORD_DATA]);
    vector_send(msix, vector);
}

void pci_msix_control(struct pci_msix *msix, bool enabled, bool masked)
{
    msix->enabled = enabled;
    msix->masked = masked;
    for (unsigned i = 0; i < msix->count; i++) {
        if (!enabled)
            msix->vectors[i].pending = false;
        vector_update(msix, &msix->vectors[i]);
    }
}

void pci_msix_raise(struct pci_msix *msix, unsigned vector)
{
    if (vector >= msix->count || !msix->enabled)
        return;
    msix->vectors[vector].pending = true;
    vector_send(msix, &msix->vectors[vector]);
}

int pci_msix_lend(struct pci_msix *msix, unsigned vector)
{
    if (vector >= msix->count)
        return -1;
    msix->vectors[vector].lent = true;
    if (!vector_is_open(msix, &msix->vectors[vector]))
        vector_update(msix, &msix->vectors[vector]);
    return msix->vectors[vector].eventfd;
}

static bool vector_is_pending(struct msix_vector *vector)
{
    eventfd_t count;

    if (vector->lent && !vector->routed)
        vector->pending |= eventfd_read(vector->eventfd, &count) == 0;
    return vector->pending;
}

static uint32_t msix_read_word(struct pci_msix *msix, uint64_t offset)
{
    uint32_t bits = 0;

    if (offset < msix->count * PCI_MSIX_ENTRY_SIZE)
        return msix->vectors[offset / PCI_MSIX_ENTRY_SIZE].words[offset % PCI_MSIX_ENTRY_SIZE / 4];
    if (offset < PCI_MSIX_PENDING_OFFSET || (offset - PCI_MSIX_PENDING_OFFSET) * 8 >= msix->count)
        return 0;
    offset -= PCI_MSIX_PENDING_OFFSET;
    for (unsigned i = 0; i < 32 && offset * 8 + i < msix->count; i++)
        bits |= (uint32_t)vector_is_pending(&msix->vectors[offset * 8 + i]) << i;
    return bits;
}

static void msix_write(struct pci_msix *msix, uint64_t offset, unsigned width, uint64_t value)
{
    struct msix_vector *vector = &msix->vectors[offset / PCI_MSIX_ENTRY_SIZE];

    for (unsigned word = offset % PCI_MSIX_ENTRY_SIZE / 4, end = word + width / 4; word < end;
         word++) {
        uint32_t fixed = word == WORD_ADDRESS_LOW ? ADDRESS_LOW_FIXED
                         : word == WORD_CONTROL   ? ~(uint32_t)PCI_MSIX_ENTRY_CTRL_MASKBIT
                                                  : 0;

        vector->words[word] = (uint32_t)value & ~fixed;
        value >>= 32;
    }
    vector_update(msix, vector);
}

uint64_t pci_msix_access(struct pci_msix *msix, uint64_t offset, unsigned width,
                         const uint64_t *written)
{
    uint64_t value;

    if ((width != 4 && width != 8) || offset % width != 0)
        return ~0ull;
    if (written && offset < msix->count * PCI_MSIX_ENTRY_SIZE)
        msix_write(msix, offset, width, *written);
    value = msix_read_word(msix, offset);
    return width == 4 ? value : value | (uint64_t)msix_read_word(msix, offset + 4) << 32;
}

void pci_msix_transfer(struct pci_msix *msix, struct transfer *transfer)
{
    for (unsigned i = 0; i < msix->count; i++) {
        struct msix_vector *vector = &msix->vectors[i];
        uint8_t pending = vector_is_pending(vector);

        transfer_value(transfer, "MSI-X entry", vector->words);
        transfer_value(transfer, "MSI-X pending", pending);
        vector->words[WORD_ADDRESS_LOW] &= ~ADDRESS_LOW_FIXED;
        vector->words[WORD_CONTROL] &= PCI_MSIX_ENTRY_CTRL_MASKBIT;
        vector->pending = pending != 0;
    }
}
