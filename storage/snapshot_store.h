/* snapshot_store.h - the files of snapshots, a directory each: <state-dir>/snapshots/<instance>/
 * with `state` and `memory`, which a VMM wrote (vmm/snapshot.h), and disk<N>.raw or disk<N>.delta,
 * a copy of each disk that was written to; and `holes` where those of the memory say what is a
 * parent's: a digest of where they are, because not all that copies files keeps them.
 *
 * A directory has ".tmp" behind its name until all of it is whole and synced: it is there wholly,
 * or not at all.  Nothing in it is changed after that.  Functions block on the disk: for a worker;
 * different threads may use one store. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/sparse_file.h"
#include "storage/keyed_digest.h"
#include "storage/volume.h"

struct error;
struct snapshot_store;

#define SNAPSHOT_STATE_BYTES_MAX ((4ull << 20) + 4096) /* vmm/snapshot.h's, and its header */
#define SNAPSHOT_PARENTS_MAX     7                     /* with itself: VMM_LAYERS_MAX */

/* Are there any whole ones, whatever the rows say? */
bool snapshot_store_has_any(int snapshots_dir_fd);
/* snapshots_dir_fd is borrowed. */
int snapshot_store_new(int snapshots_dir_fd, const struct keyed_digest_key *key,
                       struct snapshot_store **ret_store, struct error *err);
struct snapshot_store *snapshot_store_free(struct snapshot_store *store); /* accepts NULL */

/* Begins one: an empty state, and memory that is one hole.  Owned fds, for reading and writing. */
int snapshot_store_begin(const struct snapshot_store *store, uint32_t instance,
                         uint64_t memory_bytes, int *ret_state_fd, int *ret_memory_fd,
                         struct error *err);
/* Copies a disk's file into the one that was begun: shared blocks where they can be, else its data
 * only.  progress may be NULL. */
int snapshot_store_add_disk(const struct snapshot_store *store, uint32_t instance, unsigned index,
                            enum volume_format format, int from_fd, sparse_progress_fn *progress,
                            void *context, struct error *err);

/* Bytes of a disk's file that would have to be copied: 0 if blocks can be shared, or if what was
 * copied could not be copied anew. */
uint64_t snapshot_store_weigh_disk(const struct snapshot_store *store, uint32_t instance,
                                   int from_fd);
/* Of one that was added: copies what is marked anew (marks: the disk's; base/write_marks.h), and
 * takes those marks away; so, and after the last write, it equals the disk's file.  Adds the bytes
 * looked at to *bytes. */
int snapshot_store_renew_disk(const struct snapshot_store *store, uint32_t instance, unsigned index,
                              enum volume_format format, int from_fd, uint8_t *marks,
                              unsigned shift, sparse_progress_fn *progress, void *context,
                              uint64_t *bytes, struct error *err);
/* What was added is on the disk: then less is left for when all of it has to be. */
int snapshot_store_sync_disk(const struct snapshot_store *store, uint32_t instance, unsigned index,
                             enum volume_format format, struct error *err);

/* Of the one that was begun, whose memory is changes of that of parents[]: makes holes again of
 * zeroes where all of them have holes, and notes where there are any then. */
int snapshot_store_thin(const struct snapshot_store *store, uint32_t instance,
                        const uint32_t *parents, size_t count, struct error *err);

struct snapshot_seal {
    uint64_t size_bytes;      /* that it takes on disk, shared blocks included */
    char digest[DIGEST_TEXT]; /* of its state */
};

/* Syncs the one that was begun, sums it up and gives it its name.  One that has its name already is
 * only summed up: an agent that ended then could not record it. */
int snapshot_store_seal(const struct snapshot_store *store, uint32_t instance,
                        struct snapshot_seal *ret_seal, struct error *err);
/* 0 if it has its name, -ENOENT if not. */
int snapshot_store_find(const struct snapshot_store *store, uint32_t instance);
/* Finished or not; 0 too if it is not there. */
int snapshot_store_remove(const struct snapshot_store *store, uint32_t instance, struct error *err);
/* Removes every snapshot but those in keep[], and what unfinished ones left. */
int snapshot_store_sweep(const struct snapshot_store *store, const uint32_t *keep, size_t count,
                         struct error *err);

/* Owned fds, O_RDONLY.  -EBADMSG if its state has not this digest, or its memory not the holes that
 * were noted. */
int snapshot_store_open(const struct snapshot_store *store, uint32_t instance,
                        const char digest[DIGEST_TEXT], int *ret_state_fd, int *ret_memory_fd,
                        struct error *err);
/* The memory of one whose state is not asked for: what another's stands on.  -EBADMSG likewise. */
int snapshot_store_open_memory(const struct snapshot_store *store, uint32_t instance, int *ret_fd,
                               struct error *err);
int snapshot_store_open_disk(const struct snapshot_store *store, uint32_t instance, unsigned index,
                             enum volume_format format, int *ret_fd, struct error *err);
