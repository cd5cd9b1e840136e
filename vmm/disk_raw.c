/* disk_raw.c - see disk_raw.h. */
#include "vmm/disk_raw.h"
#include <errno.h>
#include <linux/falloc.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/error.h"
#include "vmm/disk.h"
#include "vmm/io_vector.h"

#define ZERO_CHUNK_BYTES 4096

struct disk_raw {
    struct disk disk;
    int fd; /* borrowed */
};

int disk_raw_transfer(int fd, enum disk_operation operation, struct iovec *vectors, unsigned count,
                      uint64_t offset)
{
    while (count > 0) {
        ssize_t done = operation == DISK_READ ? preadv(fd, vectors, (int)count, (off_t)offset)
                                              : pwritev(fd, vectors, (int)count, (off_t)offset);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -errno;
        if (done == 0)
            return -EIO;
        offset += (uint64_t)done;
        count = io_vector_slice(vectors, count, (uint64_t)done, UINT64_MAX);
    }
    return 0;
}

int disk_raw_allocate(int fd, int mode, uint64_t offset, uint64_t size)
{
    int result;

    do
        result = fallocate(fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size);
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : 0;
}

static int raw_write_zeroes_by_hand(const struct disk_raw *raw, const struct disk_request *request)
{
    static const uint8_t zeroes[ZERO_CHUNK_BYTES];

    for (uint64_t done = 0; done < request->size;) {
        uint64_t left = request->size - done;
        ssize_t part = pwrite(raw->fd, zeroes, left < sizeof(zeroes) ? left : sizeof(zeroes),
                              (off_t)(request->offset + done));

        if (part < 0 && errno != EINTR)
            return -errno;
        if (part > 0)
            done += (uint64_t)part;
    }
    return 0;
}

/* Freed space reads as zero; if the driver wants the space kept, or the file system cannot free it,
 * the next way down is taken. */
static int raw_write_zeroes(const struct disk_raw *raw, const struct disk_request *request)
{
    int result = -EOPNOTSUPP;

    if (request->may_unmap)
        result = disk_raw_allocate(raw->fd, FALLOC_FL_PUNCH_HOLE, request->offset, request->size);
    if (result == -EOPNOTSUPP)
        result = disk_raw_allocate(raw->fd, FALLOC_FL_ZERO_RANGE, request->offset, request->size);
    if (result == -EOPNOTSUPP)
        result = raw_write_zeroes_by_hand(raw, request);
    return result;
}

static void raw_submit(struct disk *disk, struct disk_request *request)
{
    const struct disk_raw *raw = (const struct disk_raw *)disk;
    int result = -EINVAL;

    switch (request->operation) {
    case DISK_READ:
    case DISK_WRITE:
        result = disk_raw_transfer(raw->fd, request->operation, request->vectors,
                                   request->vector_count, request->offset);
        break;
    case DISK_FLUSH:
        result = fdatasync(raw->fd) < 0 ? -errno : 0;
        break;
    case DISK_DISCARD:
        result = disk_raw_allocate(raw->fd, FALLOC_FL_PUNCH_HOLE, request->offset, request->size);
        break;
    case DISK_WRITE_ZEROES:
        result = raw_write_zeroes(raw, request);
        break;
    }
    request->done(request, result);
}

static void raw_free(struct disk *disk)
{
    free(disk);
}

static const struct disk_ops raw_ops = { .submit = raw_submit, .free = raw_free };

int disk_raw_new(int fd, struct disk **ret_disk, struct error *err)
{
    struct disk_raw *raw = calloc(1, sizeof(*raw));

    if (!raw)
        return error_set(err, ENOMEM, "raw disk");
    raw->disk.ops = &raw_ops;
    raw->fd = fd;
    *ret_disk = &raw->disk;
    return 0;
}
