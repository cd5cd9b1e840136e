/* volume.h - sparse disks, one raw file each: <state-dir>/volumes/<instance>.raw.
 *
 * Functions that block on the disk are for a worker; different threads may use one store.  A volume
 * is there whole and synced, or not at all. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/sparse_file.h"

struct error;
struct volume_store;

#define VOLUME_BLOCK_BYTES 4096

/* volumes_dir_fd is borrowed. */
int volume_store_new(int volumes_dir_fd, struct volume_store **ret_store, struct error *err);
struct volume_store *volume_store_free(struct volume_store *store); /* NULL in, NULL out */

/* size_bytes: a multiple of VOLUME_BLOCK_BYTES.  image_fd: borrowed, the volume begins with its
 * bytes, by reflink where the file system can, else as a copy that keeps holes; -1 = empty. -EINVAL
 * with field "spec.size_mib" if the image is larger.  progress may be NULL.  -EEXIST if the
 * instance has a volume.  Blocks. */
int volume_create(const struct volume_store *store, uint32_t instance, uint64_t size_bytes,
                  int image_fd, sparse_progress_fn *progress, void *context, struct error *err);
/* 0 too if it is not there.  Blocks. */
int volume_remove(const struct volume_store *store, uint32_t instance, struct error *err);
/* Removes every volume but those in keep[], and what unfinished creations left.  Blocks; no
 * creation may be under way. */
int volume_sweep(const struct volume_store *store, const uint32_t *keep, size_t count,
                 struct error *err);
/* Only grows, durably; -EINVAL with field "spec.size_mib" for less than it has.  Blocks. */
int volume_resize(const struct volume_store *store, uint32_t instance, uint64_t size_bytes,
                  struct error *err);

/* An owned fd, locked: one writer, or any number of readers, may have the volume open at a time,
 * however the fd travels; -EBUSY.  The lock goes with the last copy of the fd. */
int volume_open(const struct volume_store *store, uint32_t instance, bool read_only, int *ret_fd,
                struct error *err);

/* What it occupies on disk, blocks shared with an image included. */
int volume_allocated_bytes(const struct volume_store *store, uint32_t instance, uint64_t *ret_bytes,
                           struct error *err);
