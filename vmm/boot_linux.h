/* boot_linux.h - puts a kernel, its initrd and what they are told into guest memory.  Main thread,
 * before KVM sees the memory.  Kernel and initrd are hostile input: nothing in them is believed.
 *
 * ELF kernels start by the PVH entry (Xen's docs/misc/pvh.pandoc), bzImages by the 64-bit entry of
 * Linux's boot protocol (Documentation/x86/boot.rst). */
#pragma once
#include <stdint.h>
#include "vmm/control_protocol.h"

struct error;
struct guest_memory;
struct vcpu_entry;

/* Guest-physical places of what the loader writes; below 1 MiB, so no kernel can lie over them. */
#define BOOT_GDT_START     0x6000ull
#define BOOT_PARAMS_START  0x7000ull /* zero page, or hvm_start_info and its lists */
#define BOOT_PARAMS_BYTES  0x1000ull
#define BOOT_PAGING_START  0x9000ull /* six pages: the first 4 GiB, one to one */
#define BOOT_CMDLINE_START 0x20000ull
#define BOOT_LOW_RAM_END   0xa0000ull
#define BOOT_ACPI_START    0xe0000ull /* the tables' root, and what it leads to (acpi.h) */
#define BOOT_ACPI_BYTES    0x20000ull
#define BOOT_RESET_VECTOR  0xffff0ull /* where a PC's firmware is entered in real mode */
#define BOOT_KERNEL_MIN    0x100000ull

struct boot_spec {
    enum vmm_kernel_format format;
    int kernel_fd;       /* borrowed, a regular file */
    int initrd_fd;       /* borrowed; -1 = none */
    const char *cmdline; /* borrowed; at most VMM_CMDLINE_MAX characters */
};

int boot_linux_load(struct guest_memory *memory, const struct boot_spec *spec,
                    struct vcpu_entry *ret_entry, struct error *err);
