/* disk.h - what a virtual disk does with its blocks, whatever file format or engine is behind it.
 * virtio_block.c gives requests that are inside the disk and aligned to 512 bytes; an engine does
 * them and calls `done` on the loop's thread with the device's lock held: from inside disk_submit
 * (disk_raw.c), or later. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct disk;

enum disk_operation {
    DISK_READ,
    DISK_WRITE,
    DISK_FLUSH,        /* what was done before it survives a power loss */
    DISK_DISCARD,      /* content becomes undefined; space may be freed */
    DISK_WRITE_ZEROES, /* reads as zero afterwards */
};

struct disk_request {
    enum disk_operation operation;
    bool may_unmap;        /* DISK_WRITE_ZEROES: may free the space, too */
    uint64_t offset, size; /* bytes; both 0 for DISK_FLUSH; the engine may change offset */
    struct iovec *vectors; /* `size` bytes in guest RAM; borrowed; the engine may change them */
    unsigned vector_count; /* 0 where nothing is transferred */
    /* 0, -EOPNOTSUPP, or -errno. */
    void (*done)(struct disk_request *request, int result);
};

struct disk_ops {
    void (*submit)(struct disk *disk, struct disk_request *request);
    void (*free)(struct disk *disk);
};

struct disk { /* first member of every kind */
    const struct disk_ops *ops;
};

static inline void disk_submit(struct disk *disk, struct disk_request *request)
{
    disk->ops->submit(disk, request);
}

static inline void disk_free(struct disk *disk) /* accepts NULL */
{
    if (disk)
        disk->ops->free(disk);
}
