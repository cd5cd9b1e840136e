/* slots.c - see slots.h.  ACPI 6.4, 5.6.6: a device check, an eject request and _EJ0, without AML.
 */
#include "tests/guest/slots.h"
#include <stddef.h>
#include "tests/guest/apic.h"
#include "tests/guest/block.h"
#include "tests/guest/console.h"
#include "tests/guest/cpu.h"
#include "tests/guest/guest.h"
#include "tests/guest/pci.h"
#include "tests/guest/power.h"
#include "tests/guest/text.h"
#include "tests/guest/virtio.h"

#define FILLED_PORT 0x608
#define EMPTY_PORT  0x60c
#define EJECT_PORT  0x610
#define LOOK_AGAIN  (200 * MILLISECOND)
#define PAGE_BYTES  4096

enum mode { LET_GO, IGNORE };

static struct {
    enum mode mode;
    bool probe; /* a disk is written and read at once */
    uint64_t filled;
    struct virtio_device nic;
} slots;

static void filled(unsigned slot)
{
    uint32_t id = pci_read(slot, PCI_ID);

    slots.filled++;
    console_print("slot %u filled %b%b:%b%b\n", (uint64_t)slot, id >> 8, id, id >> 24, id >> 16);
    if (slots.probe && id == VIRTIO_ID(VIRTIO_BLOCK)) {
        block_probe(slot);
    } else if (slots.probe && id == VIRTIO_ID(VIRTIO_NET) &&
               virtio_open_slot(&slots.nic, "net", slot, UINT64_C(1) << 5)) {
        console_print("slot %u mac", (uint64_t)slot);
        for (int i = 0; i < 6; i++)
            console_print("%c%b", i == 0 ? ' ' : ':', slots.nic.config[i]);
        console_print("\n");
    }
}

/* As a driver does: the device is reset first. */
static void empty(unsigned slot)
{
    struct virtio_device device;

    if (slots.mode == IGNORE) {
        console_print("slot %u asked\n", (uint64_t)slot);
        return;
    }
    (void)virtio_open_slot(&device, "slot", slot, 0);
    port_write32(EJECT_PORT, 1u << slot);
    console_print("slot %u let go\n", (uint64_t)slot);
}

static void each(uint32_t mask, void (*call)(unsigned slot))
{
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++)
        if ((mask >> slot & 1) != 0)
            call(slot);
}

void slots_changed(struct guest *guest)
{
    (void)guest;
    each(port_read32(FILLED_PORT), filled);
    each(port_read32(EMPTY_PORT), empty);
}

/* Ejects what nobody asked for, writes at any width everywhere, reads what is there still. */
static void rogue(void)
{
    for (unsigned port = FILLED_PORT; port < EJECT_PORT + 4; port++) {
        port_write8((uint16_t)port, 0xff);
        (void)port_read8((uint16_t)port);
    }
    port_write32(EJECT_PORT, UINT32_MAX);
    port_write32(EJECT_PORT, 0);
    console_print("slots rogue done\n");
    pci_print_bus();
}

void slots_run(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    uint64_t wanted = 0;
    const char *verb = count > 0 ? arguments[0] : "";

    (void)index;
    if (text_equal(verb, "rogue")) {
        rogue();
        return;
    }
    if (text_equal(verb, "await") ? count != 2 || !text_number(arguments[1], &wanted)
                                  : !text_equal(verb, "serve") && !text_equal(verb, "ignore")) {
        console_print("slots usage\n");
        return;
    }
    slots.mode = text_equal(verb, "ignore") ? IGNORE : LET_GO;
    slots.probe = text_equal(verb, "serve");
    console_print("slots %s\n", verb);
    power_watch(guest);
    while (wanted == 0 || slots.filled < wanted)
        guest_wait(guest, LOOK_AGAIN);
}
