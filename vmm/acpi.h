/* acpi.h - the tables that describe the machine of platform.h (ACPI 6.4, hardware-reduced): RSDP,
 * XSDT, FADT, MADT, MCFG and a DSDT.  Pure. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#define ACPI_BYTES_MAX 4096 /* all tables */

/* Writes the tables for `vcpus` CPUs, at most VMM_VCPUS_MAX, as they are at guest-physical `base`,
 * where the RSDP is the first; returns their size. */
size_t acpi_build(unsigned vcpus, uint64_t base, uint8_t ret_bytes[ACPI_BYTES_MAX]);
