/* acpi.h - the few fixed ACPI fields the guest needs.  ACPI 6.5, 5.2. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct acpi_address { /* generic address structure */
    uint8_t space;    /* 0 memory, 1 port */
    uint8_t bit_width;
    uint8_t bit_offset;
    uint8_t access_size;
    uint64_t address;
} __attribute__((packed));

#define ACPI_PROCESSORS_MAX 256

/* rsdp is a physical address.  Returns a table of at least min_bytes whose checksum holds, or NULL.
 */
const void *acpi_find_table(uint64_t rsdp, const char signature[4], uint32_t min_bytes);
/* Enabled processors in the MADT, boot processor included.  Returns the count. */
unsigned acpi_processors(uint64_t rsdp, uint32_t ret_apic_ids[ACPI_PROCESSORS_MAX]);
/* ECAM base of segment 0, or 0. */
uint64_t acpi_pci_config_base(uint64_t rsdp);
/* Each returns only when it did not work; prints why when the tables lack it. */
void acpi_power_off(uint64_t rsdp);
void acpi_reset(uint64_t rsdp);
