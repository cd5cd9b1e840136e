/* snapshot.h - the two files of a snapshot: `state`, what transfer.h collects behind a header, and
 * `memory`, guest RAM as it is laid out in guest_memory.h, sparse.  Both are opened by the agent,
 * which also vouches for them: it keeps a keyed digest of the state.  What is read is checked all
 * the same.
 *
 * Memory is restored by mapping the file copy-on-write: nothing is read before it is used, and all
 * VMs of one snapshot share its clean pages.  Into memory that is not anonymous it is read, all of
 * it. Main thread. */
#pragma once
#include <stddef.h>

struct error;
struct guest_memory;
struct transfer;

#define SNAPSHOT_STATE_MAX (4u << 20) /* bytes */

/* To be written, all borrowed; -1 = none. */
struct snapshot_files {
    int state, memory; /* empty, the second already of the RAM's size; without it the state alone */
    int pagemap;       /* our own /proc/self/pagemap; without it all of the memory is read */
};

/* Pages of zeroes become holes.  Not synced: a guest is held meanwhile. */
int snapshot_write(const struct snapshot_files *files, const struct guest_memory *memory,
                   const struct transfer *transfer, struct error *err);
/* Reads and checks the state: ret_transfer's bytes are malloc'ed. */
int snapshot_read(int state_fd, const struct guest_memory *memory, struct transfer *ret_transfer,
                  struct error *err);
/* Before KVM sees the memory.  layer_fds: as guest_memory_lay. */
int snapshot_map(const int *layer_fds, size_t count, struct guest_memory *memory,
                 struct error *err);
