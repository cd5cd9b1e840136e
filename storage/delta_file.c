#include "storage/delta_file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/delta_format.h"
#include "base/error.h"
#include "base/file_io.h"
#include "storage/space.h"

/* The bitmap's area is a hole at first, so room to grow costs nothing. */
#define GROW_FACTOR   4
#define GROW_AT_LEAST (1ull << 40)
/* The disk's bytes begin at a multiple of this, unless the bitmap is as large as one may be: pages
 * of the page cache are as large as a write only where that is aligned. */
#define DATA_ALIGNMENT (2ull << 20)

static uint64_t bitmap_room(uint64_t size_bytes)
{
    uint64_t largest = size_bytes * GROW_FACTOR;
    struct delta_header header = { .version = DELTA_VERSION };
    uint64_t bytes;

    if (largest < GROW_AT_LEAST)
        largest = GROW_AT_LEAST;
    if (largest > DELTA_VIRTUAL_MAX)
        largest = DELTA_VIRTUAL_MAX;
    header.virtual_bytes = largest;
    bytes = delta_bitmap_used(&header);
    bytes += -(DELTA_BITMAP_OFFSET + bytes) % DATA_ALIGNMENT;
    return bytes < DELTA_BITMAP_MAX ? bytes : DELTA_BITMAP_MAX;
}

static int write_header(int fd, struct delta_header *header, struct error *err)
{
    int result;

    header->checksum = delta_checksum(header);
    result = file_write_all(fd, header, sizeof *header, 0);
    return result < 0 ? error_set(err, result, "write the delta's header: %s", strerror(-result))
                      : 0;
}

static uint64_t file_bytes(const struct delta_header *header)
{
    return delta_data_offset(header) + header->virtual_bytes;
}

int delta_file_init(int fd, uint64_t size_bytes, uint64_t base_bytes, const char *base_uid,
                    struct error *err)
{
    struct delta_header header = {
        .version = DELTA_VERSION,
        .block_bytes = DELTA_BLOCK_BYTES,
        .virtual_bytes = size_bytes,
        .base_bytes = base_bytes,
    };

    if (size_bytes == 0 || size_bytes % DELTA_BLOCK_BYTES != 0 || size_bytes > DELTA_VIRTUAL_MAX ||
        base_bytes > size_bytes || strlen(base_uid) >= sizeof header.base_uid)
        return error_set(err, EINVAL, "a delta of %llu bytes over %llu cannot be",
                         (unsigned long long)size_bytes, (unsigned long long)base_bytes);
    memcpy(header.magic, DELTA_MAGIC, sizeof header.magic);
    header.bitmap_bytes = bitmap_room(size_bytes);
    snprintf(header.base_uid, sizeof header.base_uid, "%s", base_uid);
    if (ftruncate(fd, (off_t)file_bytes(&header)) < 0)
        return error_set(err, errno, "set the delta's length: %s", strerror(errno));
    return write_header(fd, &header, err);
}

/* A larger disk never gets a smaller bitmap. */
uint64_t delta_file_bytes_max(uint64_t size_bytes)
{
    return DELTA_BITMAP_OFFSET + bitmap_room(size_bytes) + size_bytes;
}

int delta_file_check(int fd, int base_fd, const char *base_uid, struct error *err)
{
    struct delta_header header;
    int result = delta_header_read(fd, base_fd, &header, err);

    if (result == 0 && strcmp(header.base_uid, base_uid) != 0)
        result = error_set(err, EINVAL, "the delta file: it was made over another image");
    return result;
}

/* Whatever its base is. */
static int read_header(int fd, struct delta_header *ret_header, uint64_t *ret_file_bytes,
                       struct error *err)
{
    uint8_t bytes[sizeof(struct delta_header)];
    struct stat status;
    ssize_t got = pread(fd, bytes, sizeof bytes, 0);

    if (got < 0 || fstat(fd, &status) < 0)
        return error_set(err, errno, "the delta file: read it: %s", strerror(errno));
    *ret_file_bytes = (uint64_t)status.st_size;
    return delta_header_parse(bytes, (size_t)got, *ret_file_bytes, ret_header, err);
}

int delta_file_start(int fd, uint64_t *ret_start, struct error *err)
{
    struct delta_header header;
    uint64_t has_bytes;
    int result = read_header(fd, &header, &has_bytes, err);

    if (result == 0)
        *ret_start = delta_data_offset(&header);
    return result;
}

static int read_to_grow(int fd, uint64_t size_bytes, struct delta_header *ret_header,
                        uint64_t *ret_file_bytes, struct error *err)
{
    int result = read_header(fd, ret_header, ret_file_bytes, err);

    if (result < 0)
        return result;
    if (size_bytes % DELTA_BLOCK_BYTES != 0 || size_bytes < ret_header->virtual_bytes)
        return error_field(err, EINVAL, "spec.size_mib", "a delta can only grow, by whole blocks");
    if (size_bytes / DELTA_BLOCK_BYTES > ret_header->bitmap_bytes * 8)
        return error_field(
            err, EFBIG, "spec.size_mib", "the delta was made with room for at most %llu MiB",
            (unsigned long long)(ret_header->bitmap_bytes * 8 * DELTA_BLOCK_BYTES >> 20));
    return space_check_length(fd, delta_data_offset(ret_header), size_bytes, err);
}

int delta_file_check_growth(int fd, uint64_t size_bytes, struct error *err)
{
    struct delta_header header;
    uint64_t has_bytes;

    return read_to_grow(fd, size_bytes, &header, &has_bytes, err);
}

int delta_file_grow(int fd, uint64_t size_bytes, struct error *err)
{
    struct delta_header header;
    uint64_t has_bytes;
    int result = read_to_grow(fd, size_bytes, &header, &has_bytes, err);

    if (result < 0)
        return result;
    header.virtual_bytes = size_bytes;
    /* The header is smaller than a sector, so it is the old one or the new one. */
    if (has_bytes < file_bytes(&header) &&
        (ftruncate(fd, (off_t)file_bytes(&header)) < 0 || fsync(fd) < 0))
        return error_set(err, errno, "grow the delta: %s", strerror(errno));
    result = write_header(fd, &header, err);
    if (result == 0 && fsync(fd) < 0)
        result = error_set(err, errno, "grow the delta: %s", strerror(errno));
    return result;
}
