/* apic.h - the local APIC of the boot processor in xAPIC mode (MMIO), written from ring 3: waiting,
 * time, IPIs. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#define WAIT_FOREVER UINT64_MAX
#define MILLISECOND  UINT64_C(1000000)
#define SECOND       (1000 * MILLISECOND)

#define MSI_ADDRESS UINT64_C(0xfee00000) /* to APIC id 0, physical, fixed */

/* Sleeps in HLT until a device's interrupt, or at most about timeout_ns.  May return early. */
void apic_wait(uint64_t timeout_ns);
/* Sends the I/O APIC's pin, edge-triggered, to the vector. */
void apic_route_pin(unsigned pin, unsigned vector);
/* Starts (INIT, SIPI, SIPI) the processor apic_id at the page-aligned address below 1 MiB. */
void apic_start_processor(uint32_t apic_id, uint32_t address);

/* Time from the TSC, measured once against the APIC timer (1 GHz in KVM and QEMU). */
uint64_t clock_ns(void);
uint64_t clock_cycles_to_ns(uint64_t cycles);
