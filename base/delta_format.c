#include "base/delta_format.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file_io.h"
#include "base/sparse_file.h"

uint64_t delta_checksum(const struct delta_header *header)
{
    const uint8_t *bytes = (const uint8_t *)header;
    uint64_t sum = 0xcbf29ce484222325;

    for (size_t i = 0; i < offsetof(struct delta_header, checksum); i++)
        sum = (sum ^ bytes[i]) * 0x100000001b3;
    return sum;
}

static const char *find_fault(const struct delta_header *header, uint64_t file_bytes)
{
    if (memcmp(header->magic, DELTA_MAGIC, sizeof header->magic) != 0)
        return "it does not begin as a delta file";
    if (header->version != DELTA_VERSION)
        return "its version is unknown";
    if (header->checksum != delta_checksum(header))
        return "its header is damaged";
    if (header->block_bytes != DELTA_BLOCK_BYTES)
        return "its blocks have another size";
    if (header->virtual_bytes == 0 || header->virtual_bytes % DELTA_BLOCK_BYTES != 0 ||
        header->virtual_bytes > DELTA_VIRTUAL_MAX)
        return "its disk's size cannot be";
    if (header->base_bytes > header->virtual_bytes)
        return "its base is larger than its disk";
    if (header->bitmap_bytes % DELTA_BLOCK_BYTES != 0 || header->bitmap_bytes > DELTA_BITMAP_MAX ||
        header->bitmap_bytes * 8 < header->virtual_bytes / DELTA_BLOCK_BYTES)
        return "its bitmap's size cannot be";
    if (!memchr(header->base_uid, '\0', sizeof header->base_uid))
        return "its base's name has no end";
    if (file_bytes < delta_data_offset(header) + header->virtual_bytes)
        return "it is truncated";
    return NULL;
}

int delta_header_parse(const void *bytes, size_t size, uint64_t file_bytes,
                       struct delta_header *ret_header, struct error *err)
{
    struct delta_header header;
    const char *fault = "it is truncated";

    if (size >= sizeof header) {
        memcpy(&header, bytes, sizeof header);
        fault = find_fault(&header, file_bytes);
    }
    if (fault)
        return error_set(err, EINVAL, "the delta file: %s", fault);
    *ret_header = header;
    return 0;
}

/* By calls that a VMM may make once it is confined: it may be attached to a machine that runs. */
int delta_header_read(int delta_fd, int base_fd, struct delta_header *ret_header, struct error *err)
{
    uint8_t bytes[sizeof(struct delta_header)];
    struct iovec part = { bytes, sizeof bytes };
    struct delta_header header;
    off_t base_bytes = lseek(base_fd, 0, SEEK_END), file_bytes = lseek(delta_fd, 0, SEEK_END);
    ssize_t got = preadv(delta_fd, &part, 1, 0);
    int result;

    if (got < 0 || base_bytes < 0 || file_bytes < 0)
        return error_set(err, errno, "the delta file: read it: %s", strerror(errno));
    result = delta_header_parse(bytes, (size_t)got, (uint64_t)file_bytes, &header, err);
    if (result < 0)
        return result;
    if (header.base_bytes != (uint64_t)base_bytes)
        return error_set(err, EINVAL, "the delta file: its base has %llu bytes, not %llu",
                         (unsigned long long)base_bytes, (unsigned long long)header.base_bytes);
    *ret_header = header;
    return 0;
}

int delta_bitmap_read(int delta_fd, const struct delta_header *header, uint8_t *ret_bits,
                      struct error *err)
{
    uint64_t used = delta_bitmap_used(header);
    uint64_t at = DELTA_BITMAP_OFFSET;
    uint64_t end = 0;
    int result;

    while ((result = sparse_next_data(delta_fd, at, DELTA_BITMAP_OFFSET + used, &at, &end)) > 0) {
        result = file_read_all(delta_fd, ret_bits + (at - DELTA_BITMAP_OFFSET), end - at, at);
        if (result < 0)
            break;
        at = end;
    }
    if (result < 0)
        return error_set(err, result, "the delta file: read its bitmap: %s", strerror(-result));
    for (uint64_t block = header->virtual_bytes / DELTA_BLOCK_BYTES; block < used * 8; block++)
        if (ret_bits[block / 8] >> block % 8 & 1)
            return error_set(err, EINVAL,
                             "the delta file: its bitmap knows blocks behind the disk's end");
    return 0;
}
