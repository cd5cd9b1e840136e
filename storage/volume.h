/* volume.h - sparse disks, one file each: <state-dir>/volumes/<instance>.raw, or .delta, which has
 * only what was written since, over an image (base/delta_format.h) that must stay as long as it
 * does.
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

#define VOLUME_BLOCK_BYTES  4096
#define VOLUME_SIZE_MIB_MAX ((int64_t)64 << 20)

/* volumes_dir_fd is borrowed. */
int volume_store_new(int volumes_dir_fd, struct volume_store **ret_store, struct error *err);
struct volume_store *volume_store_free(struct volume_store *store); /* NULL in, NULL out */

enum volume_format { VOLUME_RAW, VOLUME_DELTA, VOLUME_FORMAT_COUNT };

/* "raw", "delta": what files end in, too; and back, where anything else is raw. */
const char *volume_format_name(enum volume_format format);
enum volume_format volume_format_parse(const char *name);

enum volume_clone {
    VOLUME_CLONE_BEST,    /* reflink where the file system can, else delta: never a copy */
    VOLUME_CLONE_COPY,    /* needs nothing of the image; shares blocks where the file system can */
    VOLUME_CLONE_REFLINK, /* shares blocks; -EOPNOTSUPP with field "spec.clone" if that cannot be */
    VOLUME_CLONE_DELTA,
    VOLUME_CLONE_COUNT
};

struct volume_source {     /* what a volume begins with */
    int image_fd;          /* borrowed */
    const char *image_uid; /* borrowed; noted in a delta */
    bool is_delta; /* image_fd is a delta's file: the volume is a copy of it over the same base */
    enum volume_clone clone;
    sparse_progress_fn *progress; /* of a copy; may be NULL */
    void *context;
};

/* size_bytes: a multiple of VOLUME_BLOCK_BYTES.  source: NULL = empty.  -EINVAL with field
 * "spec.size_mib" if the image is larger.  -EEXIST if the instance has a volume.  Blocks. */
int volume_create(const struct volume_store *store, uint32_t instance, uint64_t size_bytes,
                  const struct volume_source *source, enum volume_format *ret_format,
                  struct error *err);
/* The format it was made in, by its file's name; -ENOENT. */
int volume_find(const struct volume_store *store, uint32_t instance, enum volume_format *ret_format,
                struct error *err);
/* 0 too if it is not there.  Blocks. */
int volume_remove(const struct volume_store *store, uint32_t instance, struct error *err);
/* Removes every volume but those in keep[], and what unfinished creations left.  Blocks; no
 * creation may be under way. */
int volume_sweep(const struct volume_store *store, const uint32_t *keep, size_t count,
                 struct error *err);
/* 0 if it may grow so far, else as the next says, or -EFBIG with that field.  It is short: the
 * loop's thread may ask. */
int volume_check_resize(const struct volume_store *store, uint32_t instance, uint64_t size_bytes,
                        struct error *err);
/* Only grows, durably; -EINVAL with field "spec.size_mib" for less than it has.  Blocks. */
int volume_resize(const struct volume_store *store, uint32_t instance, uint64_t size_bytes,
                  struct error *err);

struct volume_base {       /* of a delta */
    int image_fd;          /* borrowed */
    const char *image_uid; /* borrowed */
};

/* base: NULL for a raw volume; else it is a delta, and -EINVAL with the reason if its file is none
 * over that image.  An owned fd, locked: one writer, or any number of readers, may have the volume
 * open at a time, however the fd travels; -EBUSY.  The lock goes with the last copy of the fd.
 * direct: past the host's page cache; -EINVAL where the file system cannot, and for a delta. */
int volume_open(const struct volume_store *store, uint32_t instance, bool read_only, bool direct,
                const struct volume_base *base, int *ret_fd, struct error *err);

/* An owned fd to copy it by, read-only and without the lock: of a volume whose VM is held. */
int volume_open_held(const struct volume_store *store, uint32_t instance, enum volume_format format,
                     int *ret_fd, struct error *err);

/* No file of a volume of that size and format is longer. */
uint64_t volume_file_bytes(uint64_t size_bytes, enum volume_format format);
/* What it occupies on disk, blocks shared with an image by reflink included. */
int volume_allocated_bytes(const struct volume_store *store, uint32_t instance, uint64_t *ret_bytes,
                           struct error *err);
