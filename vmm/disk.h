/* disk.h - what a virtual disk does with its blocks, whatever file format or engine is behind it.
 * virtio_block.c gives requests that are inside the disk and aligned to 512 bytes; an engine does
 * them and calls `done` from inside disk_submit, disk_run or disk_drain; `done` may submit the
 * request anew.  All calls come with the device's lock held, on the loop's thread but for
 * DISK_CANCEL. */
#pragma once
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct disk;

/* Requests that may be submitted and not done. */
#define DISK_IN_FLIGHT_MAX 64

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
    struct disk *engine;   /* that has it in flight; the engine's own */
    /* 0, -EOPNOTSUPP, or -errno.  -ENOSPC and -EDQUOT: the same request may be made again once
     * there is space; so never of a sync that failed, as what that lost nobody knows. */
    void (*done)(struct disk_request *request, int result);
};

enum disk_drain {
    DISK_FINISH, /* all that was submitted is done */
    /* Only what is under way; nobody wants the results, but what was done is in the files, should
     * the process end.  On any thread. */
    DISK_CANCEL,
};

struct disk_ops {
    void (*submit)(struct disk *disk, struct disk_request *request);
    void (*free)(struct disk *disk);
    void (*run)(struct disk *disk);
    void (*drain)(struct disk *disk);
};

struct disk { /* first member of every kind */
    const struct disk_ops *ops;
    int event_fd;       /* borrowed; EPOLLIN | EPOLLET calls for disk_run; -1 = no need */
    bool cancelling;    /* a drain is on, and nothing begins */
    uint64_t bytes_max; /* how large it may become while it is open */
};

static inline void disk_submit(struct disk *disk, struct disk_request *request)
{
    if (disk->cancelling)
        request->done(request, -ECANCELED);
    else
        disk->ops->submit(disk, request);
}

/* Begins what was submitted, calls `done` of what has ended. */
static inline void disk_run(struct disk *disk)
{
    disk->ops->run(disk);
}

/* Every `done` is called, and nothing is in flight any more. */
static inline void disk_drain(struct disk *disk, enum disk_drain how)
{
    disk->cancelling = how == DISK_CANCEL;
    disk->ops->drain(disk);
    disk->cancelling = false;
}

static inline void disk_free(struct disk *disk) /* accepts NULL; nothing may be in flight */
{
    if (disk)
        disk->ops->free(disk);
}
