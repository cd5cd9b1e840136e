/* platform.h - the machine a guest sees, in numbers: the guest-physical map, the I/O ports and the
 * interrupt pins.  Pure constants; the ACPI tables tell the guest the same (acpi.c).
 *
 * Guest-physical:
 *   0x0000'0000  RAM (GUEST_HOLE_START in guest_memory.h ends it)
 *                  boot structures below 640 KiB (boot_linux.h), ACPI tables from 0xe'0000, the
 *                  generation id at 0xe'1000,
 *                  1 MiB and up: the kernel; the initrd at the top of low RAM
 *   0xc000'0000  32-bit PCI window       0xe000'0000  ECAM, one bus
 *   0xfec0'0000  IOAPIC                  0xfee0'0000  LAPIC
 *   0xfffb'c000  identity map and TSS pages that KVM needs on old Intel hosts
 *   4 GiB        the rest of RAM */
#pragma once

#define PLATFORM_GENERATION_ID 0xe1000ull /* a page, reserved as the ACPI tables' are */
#define PLATFORM_PCI32_START   0xc0000000ull
#define PLATFORM_PCI32_SIZE    0x20000000ull
#define PLATFORM_PCI32_LAST    0xdfffffffull
#define PLATFORM_ECAM_START    0xe0000000ull
#define PLATFORM_ECAM_BUSES    1
#define PLATFORM_ECAM_LAST_BUS 0
#define PLATFORM_ECAM_SIZE     0x100000ull
#define PLATFORM_IOAPIC_START  0xfec00000ull
#define PLATFORM_LAPIC_START   0xfee00000ull
#define PLATFORM_IDENTITY_MAP  0xfffbc000ull
#define PLATFORM_TSS_START     0xfffbd000ull /* three pages */

/* I/O ports */
#define PLATFORM_PORT_I8042_COMMAND  0x64 /* of a keyboard controller that can only reset */
#define PLATFORM_PORT_COM1           0x3f8
#define PLATFORM_PORT_COM1_SIZE      8
#define PLATFORM_PORT_PVPANIC        0x505
#define PLATFORM_PORT_GED            0x600 /* 32 bit, read and clear: GED_EVENT_* */
#define PLATFORM_PORT_SLEEP_CONTROL  0x604 /* byte, ACPI 6.4 section 4.8.3.7 */
#define PLATFORM_PORT_SLEEP_STATUS   0x605
#define PLATFORM_PORT_RESET          0x606 /* byte */
#define PLATFORM_PORT_POWER_SIZE     8     /* GED to RESET, one range */
#define PLATFORM_PORT_HOTPLUG        0x608 /* 32 bit each, a bit for each PCI slot */
#define PLATFORM_PORT_HOTPLUG_FILLED 0x608 /* read and clear, as the next */
#define PLATFORM_PORT_HOTPLUG_EMPTY  0x60c /* to be emptied */
#define PLATFORM_PORT_HOTPLUG_EJECT  0x610 /* write: the guest has let these go */
#define PLATFORM_PORT_HOTPLUG_SIZE   12
#define PLATFORM_PORT_PCI_ADDRESS    0xcf8
#define PLATFORM_PORT_PCI_SIZE       8

/* PCI slots of disks and nics follow from their places (VMM_SLOT_DISKS, VMM_SLOT_NICS); the others
 * are the first free ones. */
#define PLATFORM_SLOTS_LAST 23 /* of those that can be plugged */

#define PLATFORM_RESET_VALUE   1
#define PLATFORM_SLEEP_TYPE_S5 5 /* SLP_TYP in \_S5 */

#define GED_EVENT_POWER_BUTTON  (1u << 0)
#define GED_EVENT_PCI_HOTPLUG   (1u << 1) /* a slot was filled, or is to be emptied */
#define GED_EVENT_GENERATION_ID (1u << 2) /* there is another one */

/* IOAPIC pins (GSIs); MSI vectors follow from PLATFORM_PINS */
#define PLATFORM_PIN_COM1 4
#define PLATFORM_PIN_GED  5
#define PLATFORM_PINS     24
