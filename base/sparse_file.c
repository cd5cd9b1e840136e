#include "base/sparse_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/file_io.h"

#define COPY_STEP_BYTES   (16u << 20) /* between two calls of progress */
#define COPY_BUFFER_BYTES (256u << 10)
#define HAND_STEP_BYTES   (2u << 20)

bool sparse_is_zero(const void *bytes, size_t size)
{
    const unsigned char *byte = bytes;

    /* The first byte is zero and each equals its successor. */
    return size == 0 || (byte[0] == 0 && memcmp(byte, byte + 1, size - 1) == 0);
}

/* Bytes until the next block boundary, at most `size`. */
static size_t block_piece(uint64_t offset, size_t size)
{
    size_t left = SPARSE_BLOCK_BYTES - (size_t)(offset % SPARSE_BLOCK_BYTES);

    return left < size ? left : size;
}

int sparse_write(int fd, const void *bytes, size_t size, uint64_t offset)
{
    const unsigned char *from = bytes;
    size_t start = 0; /* of the pending run that has data */
    size_t at = 0;

    while (at < size) {
        size_t piece = block_piece(offset + at, size - at);

        if (piece == SPARSE_BLOCK_BYTES && sparse_is_zero(from + at, piece)) {
            int result = file_write_all(fd, from + start, at - start, offset + start);

            if (result < 0)
                return result;
            start = at + piece;
        }
        at += piece;
    }
    return file_write_all(fd, from + start, at - start, offset + start);
}

int sparse_next_data(int fd, uint64_t offset, uint64_t size, uint64_t *ret_start, uint64_t *ret_end)
{
    off_t start, end;

    if (offset >= size)
        return 0;
    start = lseek(fd, (off_t)offset, SEEK_DATA);
    if (start < 0 && errno == ENXIO)
        return 0;
    if (start < 0 && errno != EINVAL && errno != EOPNOTSUPP)
        return -errno;
    if (start < 0) {
        *ret_start = offset;
        *ret_end = size;
        return 1;
    }
    if ((uint64_t)start >= size)
        return 0;
    end = lseek(fd, start, SEEK_HOLE);
    if (end < 0)
        return errno == ENXIO ? -EIO : -errno;
    *ret_start = (uint64_t)start;
    *ret_end = (uint64_t)end < size ? (uint64_t)end : size;
    return 1;
}

uint64_t sparse_find_data(int fd, uint64_t offset, uint64_t size)
{
    off_t start = lseek(fd, (off_t)offset, SEEK_DATA);

    if (start < 0)
        return errno == ENXIO ? size : offset;
    return (uint64_t)start < size ? (uint64_t)start : size;
}

int sparse_check_exact(int fd)
{
    static const unsigned char block[SPARSE_BLOCK_BYTES] = { 1 };
    uint64_t start = 0, end = 0;
    int result = file_write_all(fd, block, sizeof block, SPARSE_BLOCK_BYTES);

    if (result == 0)
        result = sparse_next_data(fd, 0, 4ull * SPARSE_BLOCK_BYTES, &start, &end);
    if (result < 0)
        return result;
    if (start != SPARSE_BLOCK_BYTES || end != 2ull * SPARSE_BLOCK_BYTES)
        return -EOPNOTSUPP;
    return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, SPARSE_BLOCK_BYTES,
                     SPARSE_BLOCK_BYTES) < 0
               ? -errno
               : 0;
}

int sparse_clone(int from, int to)
{
    if (ioctl(to, FICLONE, from) == 0)
        return 0;
    switch (errno) {
    case EXDEV:
    case EINVAL:
    case ENOTTY:
    case ENOSYS:
    case EOPNOTSUPP:
    case ETXTBSY:
        return -EOPNOTSUPP;
    default:
        return -errno;
    }
}

bool sparse_can_clone(int from, int to)
{
    const struct file_clone_range first = { .src_fd = from, .src_length = SPARSE_BLOCK_BYTES };

    return ioctl(to, FICLONERANGE, &first) == 0 && ftruncate(to, 0) == 0;
}

/* One stretch by reads and writes. */
static int copy_by_hand(int from, int to, uint64_t offset, uint64_t size)
{
    auto_free unsigned char *buffer = malloc(COPY_BUFFER_BYTES);
    int result = buffer ? 0 : -ENOMEM;

    while (result == 0 && size > 0) {
        size_t step = size < COPY_BUFFER_BYTES ? (size_t)size : COPY_BUFFER_BYTES;

        result = file_read_all(from, buffer, step, offset);
        if (result == 0)
            result = sparse_write(to, buffer, step, offset);
        offset += step;
        size -= step;
    }
    return result;
}

int sparse_copy_by_hand(int from, int to, uint64_t size)
{
    int result = 0;

    for (uint64_t at = 0, step; (at = sparse_find_data(from, at, size)) < size; at += step) {
        step = size - at < HAND_STEP_BYTES ? size - at : HAND_STEP_BYTES;
        result = copy_by_hand(from, to, at, step);
        if (result < 0)
            break;
    }
    return result;
}

static int copy_stretch(int from, int to, uint64_t offset, uint64_t size)
{
    while (size > 0) {
        off_t in = (off_t)offset;
        off_t out = (off_t)offset;
        ssize_t copied = copy_file_range(from, &in, to, &out, (size_t)size, 0);

        if (copied < 0 && errno == EINTR)
            continue;
        if (copied < 0 && (errno == EXDEV || errno == EINVAL || errno == EOPNOTSUPP ||
                           errno == ENOSYS || errno == EPERM))
            return copy_by_hand(from, to, offset, size);
        /* Some file systems answer 0 though there is data. */
        if (copied == 0)
            return copy_by_hand(from, to, offset, size);
        if (copied < 0)
            return -errno;
        offset += (uint64_t)copied;
        size -= (uint64_t)copied;
    }
    return 0;
}

struct copy {
    int from;
    int to;
    uint64_t size;
    sparse_progress_fn *progress;
    void *context;
};

static int report(const struct copy *copy, uint64_t done)
{
    return copy->progress ? copy->progress(copy->context, done, copy->size) : 0;
}

/* From `offset` on. */
static int copy_extents(const struct copy *copy, uint64_t offset)
{
    uint64_t start = 0;
    uint64_t end = 0;

    for (;;) {
        int result = sparse_next_data(copy->from, offset, copy->size, &start, &end);

        if (result <= 0)
            return result;
        for (offset = start; offset < end;) {
            uint64_t step = end - offset < COPY_STEP_BYTES ? end - offset : COPY_STEP_BYTES;

            result = copy_stretch(copy->from, copy->to, offset, step);
            if (result == 0)
                result = report(copy, offset + step);
            if (result < 0)
                return result;
            offset += step;
        }
    }
}

int sparse_copy(int from, int to, uint64_t size, sparse_progress_fn *progress, void *context,
                struct error *err)
{
    struct copy copy = { from, to, size, progress, context };
    int result = sparse_clone(from, to);

    if (result == -EOPNOTSUPP)
        result = copy_extents(&copy, 0);
    if (result < 0)
        return error_set(err, result, "copy: %s", strerror(-result));
    if (ftruncate(to, (off_t)size) < 0)
        return error_set(err, errno, "set the length of the copy: %s", strerror(errno));
    result = report(&copy, size);
    return result < 0 ? error_set(err, result, "copy stopped") : 0;
}

int sparse_copy_anew(int from, int to, uint64_t start, uint64_t end, sparse_progress_fn *progress,
                     void *context)
{
    struct copy copy = { from, to, end, progress, context };

    if (fallocate(to, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)start,
                  (off_t)(end - start)) < 0)
        return -errno;
    return copy_extents(&copy, start);
}
