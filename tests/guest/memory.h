/* memory.h - reaching physical addresses, and the memory map of the start info. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The first GiB is always mapped; the rest is added on demand in 2 MiB pages, identity, anywhere in
 * the 48 bits. Ring 3 edits the page tables itself.  Returns NULL when the 64 spare tables (one a
 * GiB) are used up. */
void *memory_map(uint64_t address, uint64_t bytes);

#define MEMORY_RAM       1
#define START_INFO_MAGIC 0x336ec578

struct start_info { /* hvm_start_info, version 1 (Xen's public/arch-x86/hvm/start_info.h) */
    uint32_t magic;
    uint32_t version;
    uint32_t flags;
    uint32_t module_count;
    uint64_t modules;
    uint64_t command_line;
    uint64_t rsdp;
    uint64_t memory_map;
    uint32_t memory_map_count;
    uint32_t reserved;
};

struct memory_range {
    uint64_t base;
    uint64_t bytes;
    uint32_t type;
    uint32_t reserved;
};

/* First byte after the guest's own image. */
extern uint8_t guest_end[];
