/* disk_delta.c - see disk_delta.h.
 *
 * What was flushed survives a power cut, and each other block is an old or a new one: one that is
 * not here yet is written whole, or punched (it may hold what an earlier write left whose bit was
 * lost); then its bit is set in memory, where reads find it; FLUSH syncs the data, writes the bits,
 * syncs, and so does the end of a driver, or of the machine: that is no power cut. */
#include "vmm/disk_delta.h"
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/delta_format.h"
#include "base/error.h"
#include "base/file_io.h"
#include "vmm/disk.h"
#include "vmm/disk_raw.h"
#include "vmm/io_vector.h"
#include "vmm/virtqueue.h"

#define BLOCK          ((uint64_t)DELTA_BLOCK_BYTES)
#define BLOCKS_OF_PAGE (BLOCK * 8) /* the bitmap is written by pages of BLOCK bytes */

enum source { IN_BASE, IN_DELTA, IN_NEITHER };

struct disk_delta {
    struct disk disk;
    struct delta_file {
        struct disk *disk; /* owned: its engine */
        int fd;            /* borrowed */
        uint64_t offset;   /* where the disk begins in it */
    } files[2];            /* by enum source */
    uint64_t base_bytes, pages;
    uint8_t *bits; /* `pages` pages, mostly never touched, and one more to build a block in */
    bool *dirty;   /* by page: not yet in the file */
    bool unwritten;
};

static bool bit_is_set(const struct disk_delta *delta, uint64_t block)
{
    return delta->bits[block / 8] >> block % 8 & 1;
}

static void set_bits(struct disk_delta *delta, uint64_t first, uint64_t last)
{
    for (uint64_t block = first; block <= last; block++) {
        if (!bit_is_set(delta, block))
            delta->dirty[block / BLOCKS_OF_PAGE] = delta->unwritten = true;
        delta->bits[block / 8] |= (uint8_t)(1u << block % 8);
    }
}

/* Where [at, *ret_end) is; *ret_end is at most `end`. */
static enum source source_of(const struct disk_delta *delta, uint64_t at, uint64_t end,
                             uint64_t *ret_end)
{
    uint64_t block = at / BLOCK;
    bool is_set = bit_is_set(delta, block);

    while (++block * BLOCK < end && bit_is_set(delta, block) == is_set)
        ;
    *ret_end = block * BLOCK < end ? block * BLOCK : end;
    if (is_set)
        return IN_DELTA;
    if (at >= delta->base_bytes)
        return IN_NEITHER;
    if (*ret_end > delta->base_bytes)
        *ret_end = delta->base_bytes;
    return IN_BASE;
}

/* The request's bytes [at, end), by vectors of their own, from or to one of the files. */
static int transfer(const struct disk_delta *delta, const struct disk_request *request,
                    enum source source, uint64_t at, uint64_t end)
{
    struct iovec part[VIRTQUEUE_SIZE_MAX];

    memcpy(part, request->vectors, request->vector_count * sizeof part[0]);
    unsigned count = io_vector_slice(part, request->vector_count, at - request->offset, end - at);
    if (source != IN_NEITHER)
        return disk_raw_transfer(delta->files[source].fd, request->operation, part, count,
                                 delta->files[source].offset + at);
    for (unsigned i = 0; i < count; i++)
        memset(part[i].iov_base, 0, part[i].iov_len);
    return 0;
}

static int delta_read(const struct disk_delta *delta, const struct disk_request *request)
{
    uint64_t stop, end = request->offset + request->size;
    int result = 0;

    for (uint64_t at = request->offset; at < end && result == 0; at = stop) {
        enum source source = source_of(delta, at, end, &stop);

        result = transfer(delta, request, source, at, stop);
    }
    return result;
}

/* A block that is not here yet and of which [at, end) is all that the request changes. */
static int copy_up(const struct disk_delta *delta, const struct disk_request *request,
                   uint64_t block, uint64_t at, uint64_t end)
{
    uint8_t *bytes = delta->bits + delta->pages * BLOCK;
    uint64_t start = block * BLOCK,
             left = delta->base_bytes > start ? delta->base_bytes - start : 0;
    int result;

    memset(bytes, 0, BLOCK);
    result = file_read_all(delta->files[IN_BASE].fd, bytes, left < BLOCK ? left : BLOCK, start);
    if (request->operation == DISK_WRITE)
        io_vector_read(request->vectors, request->vector_count, at - request->offset,
                       bytes + (at - start), end - at);
    else
        memset(bytes + (at - start), 0, end - at);
    if (result == 0)
        result = file_write_all(delta->files[IN_DELTA].fd, bytes, BLOCK,
                                delta->files[IN_DELTA].offset + start);
    return result;
}

/* Writes, write-zeroes and discards of blocks of which some are not here yet. */
static int delta_change(struct disk_delta *delta, const struct disk_request *request)
{
    uint64_t at = request->offset, end = at + request->size;
    uint64_t first = at / BLOCK, last = (end - 1) / BLOCK, first_end = (first + 1) * BLOCK;
    const struct delta_file *file = &delta->files[IN_DELTA];
    int result = 0;

    if ((at % BLOCK != 0 || end < first_end) && !bit_is_set(delta, first)) {
        result = copy_up(delta, request, first, at, end < first_end ? end : first_end);
        at = first_end;
    }
    if (result == 0 && at < end && end % BLOCK != 0 && !bit_is_set(delta, last)) {
        result = copy_up(delta, request, last, last * BLOCK, end);
        end = last * BLOCK;
    }
    if (result == 0 && at < end && request->operation == DISK_WRITE)
        result = transfer(delta, request, IN_DELTA, at, end);
    else if (result == 0 && at < end) /* even to keep the space: what is not here yet has none */
        result = disk_raw_allocate(file->fd, FALLOC_FL_PUNCH_HOLE, file->offset + at, end - at);
    if (result == 0)
        set_bits(delta, first, last);
    return result;
}

static int delta_flush(struct disk_delta *delta)
{
    int result = disk_raw_sync(delta->files[IN_DELTA].disk);

    for (uint64_t page = 0; page < delta->pages && result == 0; page++) {
        if (delta->dirty[page])
            result = file_write_all(delta->files[IN_DELTA].fd, delta->bits + page * BLOCK, BLOCK,
                                    DELTA_BITMAP_OFFSET + page * BLOCK);
        delta->dirty[page] = delta->dirty[page] && result < 0;
    }
    result = result < 0 ? result : disk_raw_sync(delta->files[IN_DELTA].disk);
    delta->unwritten = result < 0;
    return result;
}

static void delta_submit(struct disk *disk, struct disk_request *request)
{
    struct disk_delta *delta = (struct disk_delta *)disk;
    uint64_t stop = 0, end = request->offset + request->size;
    enum source source = request->operation == DISK_FLUSH
                             ? (delta->unwritten ? IN_NEITHER : IN_DELTA)
                             : source_of(delta, request->offset, end, &stop);
    int result = -EINVAL;

    if (stop == end &&
        (source == IN_DELTA || (source == IN_BASE && request->operation == DISK_READ))) {
        request->offset += request->size > 0 ? delta->files[source].offset : 0;
        disk_submit(delta->files[source].disk, request);
        return;
    }
    if (request->vector_count <= VIRTQUEUE_SIZE_MAX)
        result = request->operation == DISK_FLUSH  ? delta_flush(delta)
                 : request->operation == DISK_READ ? delta_read(delta, request)
                                                   : delta_change(delta, request);
    request->done(request, result);
}

static void delta_free(struct disk *disk)
{
    struct disk_delta *delta = (struct disk_delta *)disk;

    disk_free(delta->files[IN_BASE].disk);
    disk_free(delta->files[IN_DELTA].disk);
    munmap(delta->bits, (delta->pages + 1) * BLOCK); /* refuses MAP_FAILED */
    free(delta->dirty);
    free(delta);
}

static void delta_run(struct disk *disk)
{
    struct disk_delta *delta = (struct disk_delta *)disk;

    disk_run(delta->files[IN_DELTA].disk); /* both, by the one ring */
}

static void delta_drain(struct disk *disk)
{
    struct disk_delta *delta = (struct disk_delta *)disk;

    disk_drain(delta->files[IN_DELTA].disk, disk->cancelling ? DISK_CANCEL : DISK_FINISH);
    if (disk->cancelling && delta->unwritten) /* the driver, or all of it, may be ending */
        (void)delta_flush(delta);
}

static const struct disk_ops delta_ops = {
    .submit = delta_submit,
    .free = delta_free,
    .run = delta_run,
    .drain = delta_drain,
};

int disk_delta_new(int base_fd, int delta_fd, struct uring *ring, uint64_t size_bytes,
                   struct disk **ret_disk, struct error *err)
{
    struct disk_delta *delta;
    struct delta_header header;
    int result = delta_header_read(delta_fd, base_fd, &header, err);

    if (result == 0 && header.virtual_bytes < size_bytes) /* one that grows has more already */
        result = error_set(err, EINVAL, "the delta file: it is of a smaller disk");
    if (result < 0)
        return result;
    delta = calloc(1, sizeof *delta);
    if (!delta)
        return error_set(err, ENOMEM, "delta disk");
    delta->disk.ops = &delta_ops;
    delta->files[IN_BASE].fd = base_fd;
    delta->files[IN_DELTA] = (struct delta_file){ NULL, delta_fd, delta_data_offset(&header) };
    delta->base_bytes = header.base_bytes;
    delta->pages = header.bitmap_bytes / BLOCK; /* all: the disk may grow */
    delta->disk.bytes_max = delta->pages * BLOCKS_OF_PAGE * BLOCK;
    delta->dirty = calloc(delta->pages, sizeof *delta->dirty);
    delta->bits = mmap(NULL, (delta->pages + 1) * BLOCK, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!delta->dirty || delta->bits == MAP_FAILED)
        result = error_set(err, ENOMEM, "delta disk");
    if (result == 0)
        result = delta_bitmap_read(delta_fd, &header, delta->bits, err);
    if (result == 0)
        result = disk_raw_new(base_fd, ring, &delta->files[IN_BASE].disk, err);
    if (result == 0)
        result = disk_raw_new(delta_fd, ring, &delta->files[IN_DELTA].disk, err);
    if (result != 0) {
        delta_free(&delta->disk);
        return result;
    }
    delta->disk.event_fd = delta->files[IN_DELTA].disk->event_fd;
    *ret_disk = &delta->disk;
    return 0;
}
