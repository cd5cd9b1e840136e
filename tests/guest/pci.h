/* pci.h - configuration space of bus 0 and the parts of a function the guest uses. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#define PCI_SLOTS      32
#define PCI_BAR_COUNT  6
#define PCI_ID         0x00
#define PCI_COMMAND    0x04
#define PCI_CLASS      0x08
#define PCI_HEADER     0x0c
#define PCI_BAR0       0x10
#define PCI_ABSENT     0xffffffff
#define PCI_CAP_VENDOR 0x09
#define PCI_CAP_MSIX   0x11

/* Ports 0xcf8/0xcfc where they answer, else the ECAM window of the MCFG. */
uint32_t pci_read(unsigned slot, unsigned offset);
void pci_write(unsigned slot, unsigned offset, uint32_t value);
void pci_use_tables(uint64_t rsdp); /* before the first access */

/* Offset of the next capability with this id after previous (0 to begin), or 0. */
unsigned pci_capability(unsigned slot, uint8_t id, unsigned previous);
/* Base address, 64-bit BARs joined; 0 if it is a port, unset or out of range. */
uint64_t pci_bar_address(unsigned slot, unsigned bar);
/* Memory decoding and bus mastering on. */
void pci_enable(unsigned slot);
/* Slot of the index-th function 0 with this id (device << 16 | vendor), or -1. */
int pci_find(uint32_t id, unsigned index);
/* Prints a line for each function and each BAR with its size. */
void pci_print_bus(void);
