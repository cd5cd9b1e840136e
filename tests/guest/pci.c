/* pci.c - see pci.h.  PCI Local Bus 3.0, 3.2.2.3 and 6.1; only bus 0, function 0. */
#include <stddef.h>
#include "tests/guest/console.h"
#include "tests/guest/acpi.h"
#include "tests/guest/cpu.h"
#include "tests/guest/memory.h"
#include "tests/guest/pci.h"

#define CONFIG_ADDRESS   0xcf8
#define CONFIG_DATA      0xcfc
#define COMMAND_DECODING 0x3 /* ports and memory */
#define COMMAND_MEMORY   0x2
#define COMMAND_MASTER   0x4
#define STATUS_HAS_CAPS  (1u << 20)
#define CAPS_POINTER     0x34
#define CAPS_MAX         48
#define BAR_PORT         0x1
#define BAR_64           0x4

static struct {
    bool chosen;
    uint64_t rsdp;
    uint64_t window; /* 0: by ports */
} config;

void pci_use_tables(uint64_t rsdp)
{
    config.rsdp = rsdp;
}

static uint32_t read_by_port(unsigned slot, unsigned offset)
{
    port_write32(CONFIG_ADDRESS, 0x80000000 | slot << 11 | (offset & 0xfc));
    return port_read32(CONFIG_DATA);
}

static volatile uint32_t *config_register(unsigned slot, unsigned offset)
{
    if (!config.chosen) {
        config.chosen = true;
        if (read_by_port(0, PCI_ID) == PCI_ABSENT)
            config.window = acpi_pci_config_base(config.rsdp);
        if (config.window != 0 && memory_map(config.window, 1 << 20) == NULL)
            config.window = 0;
    }
    if (config.window == 0)
        return NULL;
    return (volatile uint32_t *)(uintptr_t)(config.window + (slot << 15) + (offset & 0xfc));
}

uint32_t pci_read(unsigned slot, unsigned offset)
{
    volatile uint32_t *mapped = config_register(slot, offset);

    return mapped != NULL ? *mapped : read_by_port(slot, offset);
}

void pci_write(unsigned slot, unsigned offset, uint32_t value)
{
    volatile uint32_t *mapped = config_register(slot, offset);

    if (mapped != NULL) {
        *mapped = value;
        return;
    }
    port_write32(CONFIG_ADDRESS, 0x80000000 | slot << 11 | (offset & 0xfc));
    port_write32(CONFIG_DATA, value);
}

unsigned pci_capability(unsigned slot, uint8_t id, unsigned previous)
{
    unsigned at;

    if ((pci_read(slot, PCI_COMMAND) & STATUS_HAS_CAPS) == 0)
        return 0;
    at = previous != 0 ? pci_read(slot, previous) >> 8 : pci_read(slot, CAPS_POINTER);
    for (int i = 0; i < CAPS_MAX && (at & 0xfc) != 0; i++) {
        uint32_t header = pci_read(slot, at & 0xfc);

        if ((header & 0xff) == id)
            return at & 0xfc;
        at = header >> 8;
    }
    return 0;
}

uint64_t pci_bar_address(unsigned slot, unsigned bar)
{
    uint32_t low;
    uint64_t address;

    if (bar >= PCI_BAR_COUNT)
        return 0;
    low = pci_read(slot, PCI_BAR0 + 4 * bar);
    if ((low & BAR_PORT) != 0)
        return 0;
    address = low & ~0xfu;
    if ((low & BAR_64) != 0 && bar + 1 < PCI_BAR_COUNT)
        address |= (uint64_t)pci_read(slot, PCI_BAR0 + 4 * (bar + 1)) << 32;
    return address;
}

void pci_enable(unsigned slot)
{
    uint32_t command = pci_read(slot, PCI_COMMAND) & 0xffff;

    pci_write(slot, PCI_COMMAND, command | COMMAND_MEMORY | COMMAND_MASTER);
}

int pci_find(uint32_t id, unsigned index)
{
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        if (pci_read(slot, PCI_ID) == id && index-- == 0)
            return (int)slot;
    }
    return -1;
}

/* Writes ones and reads back what sticks; decoding is off meanwhile, and the BAR is put back. */
static uint64_t bar_size(unsigned slot, unsigned bar, bool wide)
{
    uint32_t command = pci_read(slot, PCI_COMMAND) & 0xffff;
    unsigned at = PCI_BAR0 + 4 * bar;
    uint32_t low = pci_read(slot, at);
    uint32_t high = wide ? pci_read(slot, at + 4) : 0;
    uint64_t mask;

    pci_write(slot, PCI_COMMAND, command & ~(uint32_t)COMMAND_DECODING);
    pci_write(slot, at, UINT32_MAX);
    mask = pci_read(slot, at) & ((low & BAR_PORT) != 0 ? ~0x3u : ~0xfu);
    if (wide) {
        pci_write(slot, at + 4, UINT32_MAX);
        mask |= (uint64_t)pci_read(slot, at + 4) << 32;
        pci_write(slot, at + 4, high);
    } else if (mask != 0) {
        mask |= UINT64_C(0xffffffff00000000);
    }
    pci_write(slot, at, low);
    pci_write(slot, PCI_COMMAND, command);
    return ~mask + 1;
}

static void print_bars(unsigned slot)
{
    for (unsigned bar = 0; bar < PCI_BAR_COUNT; bar++) {
        uint32_t low = pci_read(slot, PCI_BAR0 + 4 * bar);
        bool port = (low & BAR_PORT) != 0;
        bool wide = !port && (low & BAR_64) != 0 && bar + 1 < PCI_BAR_COUNT;
        uint64_t size = bar_size(slot, bar, wide);
        uint64_t address = port ? low & ~0x3u : pci_bar_address(slot, bar);

        if (size != 0)
            console_print("pci %u bar %u %s 0x%x size 0x%x\n", (uint64_t)slot, (uint64_t)bar,
                          port   ? "port"
                          : wide ? "mem64"
                                 : "mem32",
                          address, size);
        bar += wide ? 1 : 0;
    }
}

void pci_print_bus(void)
{
    uint64_t count = 0;

    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        uint32_t id = pci_read(slot, PCI_ID);
        uint32_t class = pci_read(slot, PCI_CLASS);

        if (id == PCI_ABSENT)
            continue;
        count++;
        console_print("pci %u %b%b:%b%b class %b%b\n", (uint64_t)slot, id >> 8, id, id >> 24,
                      id >> 16, class >> 24, class >> 16);
        if ((pci_read(slot, PCI_HEADER) >> 16 & 0x7f) == 0)
            print_bars(slot);
    }
    console_print("pci %u functions\n", count);
}
