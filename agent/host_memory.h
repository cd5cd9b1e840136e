/* host_memory.h - what the host does with memory that matters to who has VMs on it: whether pages
 * are shared with strangers (KSM), and where they may be written to (swap).  Any thread; reads a
 * few files of /proc and /sys, 50 us. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum swap_kind {
    SWAP_ZRAM,      /* in RAM, compressed: gone with the power */
    SWAP_ENCRYPTED, /* below it is dm-crypt */
    SWAP_DISK,      /* a disk, or a file: what was there stays when its owner is gone */
    SWAP_KIND_COUNT
};
extern const char *const swap_kind_names[SWAP_KIND_COUNT];

struct host_memory {
    bool ksm_runs;
    bool zswap;             /* is on */
    uint64_t zswap_percent; /* of the host's memory, that its pool may take */
    uint64_t swap_mib[SWAP_KIND_COUNT];
    char disk[64]; /* the first of SWAP_DISK; "" = there is none */
};

/* root: "" = this host; else a directory that has its proc and sys.  What cannot be read is not
 * there. */
struct host_memory host_memory_read(const char *root);

/* What swap can hold of VMs' memory, and what it takes of the host's for that. */
struct swap_room {
    uint64_t held_mib, taken_mib;
};
/* Pure.  host_mib, swap_mib: of the host in all.  keeps_zswap: what zswap has of VMs never goes on
 * to the swap behind it, so its pool is all that there is.  What is compressed in memory takes half
 * of its size there, as the kernel's documentation of zram expects. */
struct swap_room host_memory_swap_room(const struct host_memory *memory, uint64_t host_mib,
                                       uint64_t swap_mib, bool keeps_zswap);
