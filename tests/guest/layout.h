/* layout.h - numbers shared by the assembly and the C of the test guest. */
#pragma once

#define GUEST_BASE 0x100000 /* where guest.ld puts the boot page */

#define SELECTOR_CODE0 0x08 /* 64-bit code, ring 0 */
#define SELECTOR_CODE3 0x1b /* 64-bit code, ring 3 */
#define SELECTOR_DATA3 0x23
#define SELECTOR_TSS   0x28

#define VECTOR_DEVICE   0x28 /* every MSI-X message and the APIC timer */
#define VECTOR_POWER    0x29 /* the power button's pin */
#define VECTOR_SPURIOUS 0x2f
#define VECTOR_COUNT    0x30

#define GUEST_STACK_BYTES 8192
#define COM1_PORT         0x3f8
#define COM1_PIN          4
