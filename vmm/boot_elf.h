/* boot_elf.h - ELF kernels with a PVH entry (note "Xen", type 18).  Pure but for reading the file.
 */
#pragma once
#include <elf.h>
#include <stddef.h>
#include <stdint.h>

struct error;
struct guest_memory;

#define BOOT_ELF_SEGMENTS_MAX 16 /* PT_LOAD; Linux has four */

struct boot_elf {
    uint32_t entry;
    uint64_t end; /* first address behind all segments */
    size_t segment_count;
    Elf64_Phdr segments[BOOT_ELF_SEGMENTS_MAX]; /* what has no bytes in the file is zero */
};

/* Reads and validates the headers: every segment lies in the file and in [BOOT_KERNEL_MIN,
 * memory_end), none overlaps another, and the entry lies in one.  -EINVAL with field "kernel". */
int boot_elf_read(int fd, uint64_t memory_end, struct boot_elf *ret_elf, struct error *err);
int boot_elf_load(const struct boot_elf *elf, int fd, struct guest_memory *memory,
                  struct error *err);
