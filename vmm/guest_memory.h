/* guest_memory.h - the guest's RAM, and the only place where a guest address becomes a pointer.
 *
 * Layout: RAM from 0 up to the 32-bit hole (GUEST_HOLE_START), the rest from 4 GiB up.  Set up by
 * the main thread before any vCPU runs; after that read-only and used by any thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;
struct guest_memory; /* opaque; see guest_memory.c */

#define GUEST_HOLE_START 0xc0000000ull /* 3 GiB: PCI windows, ECAM, IOAPIC, LAPIC above */
#define GUEST_HOLE_END   0x100000000ull

struct guest_memory_region {
    uint64_t guest_start;
    uint64_t size; /* bytes */
    uint8_t *host; /* borrowed */
};

/* Anonymous, unpopulated memory. */
int guest_memory_new(uint64_t bytes, struct guest_memory **ret_memory, struct error *err);
struct guest_memory *guest_memory_free(struct guest_memory *memory);

size_t guest_memory_region_count(const struct guest_memory *memory);
struct guest_memory_region guest_memory_region(const struct guest_memory *memory, size_t index);

/* The host address of [guest, guest+size), which must lie wholly in one region; else NULL.  Safe
 * for every value of both; size 0 gives NULL. */
void *guest_memory_map(const struct guest_memory *memory, uint64_t guest, uint64_t size);

/* Copies; false (nothing copied) unless the whole range is RAM. */
bool guest_memory_read(const struct guest_memory *memory, uint64_t guest, void *to, uint64_t size);
bool guest_memory_write(const struct guest_memory *memory, uint64_t guest, const void *from,
                        uint64_t size);

/* Puts file content there, copy-on-write: pages that the guest only reads stay shared with every
 * other VM through the page cache.  All three are multiples of a page; the file has the range and
 * is never shortened.  Before the vCPUs run only. */
int guest_memory_map_file(struct guest_memory *memory, uint64_t guest, uint64_t size, int fd,
                          uint64_t offset, struct error *err);

/* Gives the host back the whole pages inside [host, host+size), which guest_memory_map gave: they
 * read as zeroes, or, where the kernel refuses, stay as they are.  Loop thread. */
void guest_memory_discard_mapped(const struct guest_memory *memory, void *host, uint64_t size);
/* The same for a range that is wholly RAM; for any other, nothing. */
void guest_memory_discard(const struct guest_memory *memory, uint64_t guest, uint64_t size);
