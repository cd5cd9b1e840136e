/* guest_memory.h - the guest's RAM, and the only place where a guest address becomes a pointer.
 *
 * Layout: RAM from 0 up to the 32-bit hole (GUEST_HOLE_START), the rest from 4 GiB up, and behind
 * it, from a multiple of GUEST_HOTPLUG_ALIGN up, what can be plugged (virtio_mem.h).  Set up by the
 * main thread before any vCPU runs; after that read-only and used by any thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "vmm/control_protocol.h"

struct error;
struct guest_memory; /* opaque; see guest_memory.c */

#define GUEST_HOLE_START    0xc0000000ull /* 3 GiB: PCI windows, ECAM, IOAPIC, LAPIC above */
#define GUEST_HOLE_END      0x100000000ull
#define GUEST_HOTPLUG_ALIGN 0x80000000ull /* the most that Linux takes for one block of memory */

#define GUEST_REGIONS_MAX 3
struct guest_memory_region {
    uint64_t guest_start;
    uint64_t size;  /* bytes */
    uint8_t *host;  /* borrowed */
    bool hotplug;   /* not RAM until it is plugged; the last, if there is one */
    uint64_t reach; /* bytes to the end of the last region that follows without a gap */
};

struct guest_memory_spec {
    uint64_t bytes;                  /* whole pages of the backing */
    uint64_t hotplug_bytes;          /* the same, behind them, and part of the file */
    enum vmm_memory_backing backing; /* control_protocol.h */
    int fd; /* borrowed for as long as the memory lives: of a file of that size, where
             * vmm_memory_has_file; else not looked at */
};

/* Unpopulated memory. */
int guest_memory_make(const struct guest_memory_spec *spec, struct guest_memory **ret_memory,
                      struct error *err);
struct guest_memory *guest_memory_free(struct guest_memory *memory);

uint64_t guest_memory_bytes(const struct guest_memory *memory); /* of all regions */
size_t guest_memory_region_count(const struct guest_memory *memory);
struct guest_memory_region guest_memory_region(const struct guest_memory *memory, size_t index);

/* The host address of [guest, guest+size), which must lie wholly in RAM, with no hole in between;
 * else NULL.  Safe for every value of both; size 0 gives NULL. */
void *guest_memory_map(const struct guest_memory *memory, uint64_t guest, uint64_t size);

/* Copies; false (nothing copied) unless the whole range is RAM. */
bool guest_memory_write(const struct guest_memory *memory, uint64_t guest, const void *from,
                        uint64_t size);

/* Only anonymous memory may have files mapped into it.  Into other memory they are read: a shared
 * one is one file of its own, huge pages are not a file system's. */
bool guest_memory_maps_files(const struct guest_memory *memory);

/* Puts file content there, copy-on-write: pages that the guest only reads stay shared with every
 * other VM through the page cache.  All three are multiples of a page; the file has the range and
 * is never shortened.  Before the vCPUs run only, and where guest_memory_maps_files. */
int guest_memory_map_file(struct guest_memory *memory, uint64_t guest, uint64_t size, int fd,
                          uint64_t offset, struct error *err);

/* --- memory of layers: the guest's own changes (private pages) over files of the RAM's size, each
 * of which counts where it has data, over those before.  Restored memory is, and a fork's. --- */

/* Lays one more over what is there; fd: borrowed for as long as the memory lives, and closed by
 * guest_memory_rebase.  Before the vCPUs run only, and where guest_memory_maps_files. */
int guest_memory_lay(struct guest_memory *memory, int fd, struct error *err);
/* For a fork, with the guest paused: all that the guest has is in files afterwards, for its copies
 * to be laid over.  Shared memory's own file becomes the first, never written to again, once
 * guest_memory_part has returned; else what changed since the layers is written to `changes_fd`
 * (empty, of the RAM's size), as pagemap_fd (our own /proc/self/pagemap) tells it: what was
 * discarded is written as zeroes.  The files are put into ret_layers, borrowed.  -EOPNOTSUPP:
 * changes_fd has pages that are larger. */
int guest_memory_fork(struct guest_memory *memory, int pagemap_fd, int changes_fd,
                      int ret_layers[VMM_LAYERS_MAX], size_t *ret_count, struct error *err);
/* After guest_memory_fork, before anything writes to the memory: what it writes is its own from
 * then on, and not its copies'.  If it fails, the guest must not go on. */
int guest_memory_part(struct guest_memory *memory, struct error *err);
/* The kernel takes a mapping down page by page, 35 ms a GiB: what shared memory was mapped by goes
 * aside in one piece when it parts, and this unmaps some of it; true if there is more.  Loop
 * thread. */
bool guest_memory_unmap_aside(struct guest_memory *memory);
/* With the guest paused and all of it just written to that file: lays the memory over it alone, so
 * that changes are known from then on, once it is on the disk.  fd: for reading; owned if it
 * succeeds.  Anonymous memory only. */
int guest_memory_rebase(struct guest_memory *memory, int fd, struct error *err);

/* Gives the host back the whole pages (of 2 MiB, where the backing has such) inside
 * [host, host+size), which guest_memory_map gave: they read as zeroes; false if the kernel refused,
 * and some stay as they are: of a file's, those that were never discarded, once there are too many
 * holes in it.  Loop thread. */
bool guest_memory_discard_mapped(struct guest_memory *memory, void *host, uint64_t size);
/* The same for a range that is wholly RAM; for any other, nothing, and false. */
bool guest_memory_discard(struct guest_memory *memory, uint64_t guest, uint64_t size);

/* Can it take pages back that it discarded?  Not surely where others may have reserved them
 * meanwhile; so a guest's own reports of free memory are not asked for there. */
bool guest_memory_refills(const struct guest_memory *memory);

/* Writes all of it to `fd`, the regions one behind the other; pages of zeroes become holes.  Memory
 * that the guest never used stays unused, and is not looked at, as pagemap_fd (as above) tells it:
 * reading it through its mapping would give a file's hole a page.  pagemap_fd -1: it is, of memory
 * that is no file. */
int guest_memory_save(const struct guest_memory *memory, int pagemap_fd, int fd);
