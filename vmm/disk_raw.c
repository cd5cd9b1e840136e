/* disk_raw.c - see disk_raw.h. */
#include "vmm/disk_raw.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "base/error.h"
#include "vmm/disk.h"
#include "vmm/io_vector.h"
#include "vmm/uring.h"

#define DIRECT_ALIGNMENT 4096 /* no file system asks for more */
#define QUICK_BYTES      (64u << 10)

/* So many go out while the turn's others are still prepared: what waits for the last of them leaves
 * the host's disk idle, and each by itself costs a system call. */
#define SUBMIT_TOGETHER 2

struct disk_raw {
    struct disk disk;
    int fd;             /* borrowed */
    bool direct;        /* O_DIRECT */
    bool lost;          /* see disk_raw_sync */
    struct uring *ring; /* borrowed; NULL = none */
};

_Static_assert(DISK_RING_ENTRIES >= DISK_IN_FLIGHT_MAX, "a ring takes all of a disk's requests");

/* --- by system calls --- */

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

int disk_raw_sync(struct disk *disk)
{
    struct disk_raw *raw = (struct disk_raw *)disk;

    raw->lost |= fdatasync(raw->fd) < 0;
    return raw->lost ? -EIO : 0;
}

/* Freed space reads as zero; if the driver wants it kept, or the file system cannot free it, the
 * range is zeroed in place, or the driver told to write zeroes itself. */
static int raw_do(struct disk_raw *raw, struct disk_request *request)
{
    int result = -EOPNOTSUPP;

    if (request->operation == DISK_FLUSH)
        return disk_raw_sync(&raw->disk);
    if (request->operation == DISK_READ || request->operation == DISK_WRITE)
        return disk_raw_transfer(raw->fd, request->operation, request->vectors,
                                 request->vector_count, request->offset);
    if (request->operation == DISK_DISCARD || request->may_unmap)
        result = disk_raw_allocate(raw->fd, FALLOC_FL_PUNCH_HOLE, request->offset, request->size);
    if (request->operation == DISK_WRITE_ZEROES && result == -EOPNOTSUPP)
        result = disk_raw_allocate(raw->fd, FALLOC_FL_ZERO_RANGE, request->offset, request->size);
    return result;
}

/* --- by the ring --- */

static void raw_queue(struct disk_raw *raw, struct disk_request *request)
{
    struct io_uring_sqe *entry = uring_queue(raw->ring);

    request->engine = &raw->disk;
    entry->user_data = (uintptr_t)request;
    entry->fd = raw->fd;
    entry->off = request->offset;
    if (request->operation == DISK_FLUSH) {
        entry->opcode = IORING_OP_FSYNC;
        entry->fsync_flags = IORING_FSYNC_DATASYNC;
    } else if (request->operation == DISK_READ || request->operation == DISK_WRITE) {
        bool read = request->operation == DISK_READ;

        if (request->vector_count == 1) {
            entry->opcode = read ? IORING_OP_READ : IORING_OP_WRITE;
            entry->addr = (uintptr_t)request->vectors->iov_base;
            entry->len = (uint32_t)request->vectors->iov_len;
        } else {
            entry->opcode = read ? IORING_OP_READV : IORING_OP_WRITEV;
            entry->addr = (uintptr_t)request->vectors;
            entry->len = request->vector_count;
        }
    } else { /* has its size in addr and its mode in len */
        bool punch = request->operation == DISK_DISCARD || request->may_unmap;

        entry->opcode = IORING_OP_FALLOCATE;
        entry->addr = request->size;
        entry->len = FALLOC_FL_KEEP_SIZE | (punch ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
    }
    if (raw->ring->queued >= SUBMIT_TOGETHER)
        uring_submit(raw->ring);
}

/* What the ring left undone, though it may be possible, is done by system calls. */
static int raw_finish(struct disk_request *request, int result, bool cancelling)
{
    struct disk_raw *raw = (struct disk_raw *)request->engine;
    bool transfer = request->operation == DISK_READ || request->operation == DISK_WRITE;

    if (transfer && result >= 0) {
        request->offset += (uint64_t)result;
        request->vector_count =
            io_vector_slice(request->vectors, request->vector_count, (uint64_t)result, UINT64_MAX);
        if (request->vector_count == 0)
            return 0;
    } else if (result != -EAGAIN && result != -EINTR && result != -ECANCELED &&
               result != -EOPNOTSUPP) {
        if (request->operation != DISK_FLUSH)
            return result;
        raw->lost |= result < 0;
        return raw->lost ? -EIO : 0;
    }
    return cancelling ? -ECANCELED : raw_do(raw, request);
}

static void raw_run(struct disk *disk)
{
    struct disk_raw *raw = (struct disk_raw *)disk;
    struct disk_request *request;
    int result;

    if (!raw->ring)
        return;
    do { /* again for what `done` submits */
        uring_submit(raw->ring);
        while ((request = uring_take(raw->ring, &result)))
            request->done(request, raw_finish(request, result, disk->cancelling));
    } while (raw->ring->queued > 0);
}

/* While cancelling nothing is queued, and so nothing but read(2) is called. */
static void raw_drain(struct disk *disk)
{
    struct disk_raw *raw = (struct disk_raw *)disk;
    eventfd_t count;

    for (raw_run(disk); raw->ring && raw->ring->in_flight > 0; raw_run(disk))
        (void)eventfd_read(raw->ring->event_fd, &count); /* a signal: look, and wait again */
}

/* --- the disk --- */

static bool raw_is_aligned(const struct disk_request *request)
{
    uint64_t bits = request->offset;

    for (unsigned i = 0; i < request->vector_count; i++)
        bits |= (uintptr_t)request->vectors[i].iov_base | request->vectors[i].iov_len;
    return bits % DIRECT_ALIGNMENT == 0;
}

/* Through the page cache, and alone: it handles whole pages, parts of which others may write. */
static int raw_do_unaligned(struct disk_raw *raw, struct disk_request *request)
{
    int result;

    raw_drain(&raw->disk);
    if (fcntl(raw->fd, F_SETFL, 0) < 0)
        return -errno;
    result = raw_do(raw, request);
    raw->direct = fcntl(raw->fd, F_SETFL, O_DIRECT) == 0;
    return result;
}

/* A write that the page cache takes without a read: where the file system cannot promise that, as
 * ext4, a ring hands it to a kernel thread, which takes ten times as long as the copy. */
static bool raw_is_quick(const struct disk_raw *raw, const struct disk_request *request)
{
    return request->operation == DISK_WRITE && !raw->direct && request->size <= QUICK_BYTES &&
           (request->offset | request->size) % DIRECT_ALIGNMENT == 0;
}

static void raw_submit(struct disk *disk, struct disk_request *request)
{
    struct disk_raw *raw = (struct disk_raw *)disk;

    if (raw->direct && request->vector_count > 0 && !raw_is_aligned(request))
        request->done(request, raw_do_unaligned(raw, request));
    else if (raw->ring && !raw_is_quick(raw, request))
        raw_queue(raw, request);
    else
        request->done(request, raw_do(raw, request));
}

static void raw_free(struct disk *disk)
{
    free(disk);
}

static const struct disk_ops raw_ops = {
    .submit = raw_submit,
    .free = raw_free,
    .run = raw_run,
    .drain = raw_drain,
};

int disk_raw_new(int fd, struct uring *ring, struct disk **ret_disk, struct error *err)
{
    struct disk_raw *raw = calloc(1, sizeof(*raw));

    if (!raw)
        return error_set(err, ENOMEM, "raw disk");
    raw->disk = (struct disk){ .ops = &raw_ops,
                               .event_fd = ring ? ring->event_fd : -1,
                               .bytes_max = INT64_MAX };
    raw->fd = fd;
    raw->direct = fcntl(fd, F_GETFL) & O_DIRECT;
    raw->ring = ring;
    *ret_disk = &raw->disk;
    return 0;
}
