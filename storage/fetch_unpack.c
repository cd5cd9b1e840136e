#include "storage/fetch_unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/sparse_file.h"
#include "storage/fetch_kernel.h"

#define FIELD "spec.source"

static void cleanup_archive(struct archive **archive)
{
    archive_read_free(*archive);
}
#define auto_archive __attribute__((cleanup(cleanup_archive)))

struct mapping {
    uint8_t *bytes;
    size_t size;
};

static void cleanup_mapping(struct mapping *mapping)
{
    if (mapping->bytes)
        munmap(mapping->bytes, mapping->size);
}
#define auto_mapping __attribute__((cleanup(cleanup_mapping)))

static int map_output(int fd, uint64_t size, struct mapping *ret_mapping, struct error *err)
{
    void *bytes = mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, fd, 0);

    if (bytes == MAP_FAILED)
        return error_set(err, errno, "map the kernel: %s", strerror(errno));
    *ret_mapping = (struct mapping){ bytes, (size_t)size };
    return 0;
}

/* Replaces what the file holds. */
static int rewrite_output(int fd, const uint8_t *bytes, size_t size, struct error *err)
{
    int result = ftruncate(fd, 0) < 0 ? -errno : sparse_write(fd, bytes, size, 0);

    if (result == 0 && ftruncate(fd, (off_t)size) < 0)
        result = -errno;
    return result < 0 ? error_set(err, result, "write the kernel: %s", strerror(-result)) : 0;
}

/* A reader that knows this one kind of packing and nothing else of libarchive. */
static struct archive *open_payload(const uint8_t *payload, size_t size,
                                    enum kernel_packing packing)
{
    static int (*const support[KERNEL_PACKING_COUNT])(struct archive *) = {
        [KERNEL_PACKING_GZIP] = archive_read_support_filter_gzip,
        [KERNEL_PACKING_XZ] = archive_read_support_filter_xz,
        [KERNEL_PACKING_LZMA] = archive_read_support_filter_lzma,
        [KERNEL_PACKING_BZIP2] = archive_read_support_filter_bzip2,
        [KERNEL_PACKING_LZ4] = archive_read_support_filter_lz4,
        [KERNEL_PACKING_ZSTD] = archive_read_support_filter_zstd,
    };
    auto_archive struct archive *archive = archive_read_new();
    struct archive_entry *entry;

    if (!archive || archive_read_support_format_raw(archive) != ARCHIVE_OK ||
        support[packing](archive) != ARCHIVE_OK)
        return NULL;
    if (archive_read_open_memory(archive, payload, size) != ARCHIVE_OK ||
        archive_read_next_header(archive, &entry) != ARCHIVE_OK)
        return NULL;
    return take_pointer(archive);
}

static int read_payload(struct archive *archive, int fd, uint64_t expected, struct error *err)
{
    uint64_t done = 0;

    while (done < expected) {
        const void *bytes;
        size_t size;
        la_int64_t offset;
        int status = archive_read_data_block(archive, &bytes, &size, &offset);
        int result;

        if (status == ARCHIVE_EOF)
            break;
        if (status != ARCHIVE_OK && status != ARCHIVE_WARN)
            return error_field(err, EINVAL, FIELD,
                               "the kernel's payload is damaged: it does not unpack");
        if (size > expected - done)
            return error_field(err, EINVAL, FIELD,
                               "the kernel's payload unpacks to more than the %" PRIu64
                               " bytes it promises",
                               expected);
        result = sparse_write(fd, bytes, size, done);
        if (result < 0)
            return error_set(err, result, "write the kernel: %s", strerror(-result));
        done += size;
    }
    if (done < expected)
        return error_field(err, EINVAL, FIELD,
                           "the kernel's payload unpacks to %" PRIu64 " of %" PRIu64
                           " bytes: it is truncated",
                           done, expected);
    return 0;
}

/* Behind every payload but gzip's own trailer stand four bytes: its length unpacked. */
static int unpack_payload(int fd, const uint8_t *payload, size_t size, enum kernel_packing packing,
                          uint64_t *ret_size, struct error *err)
{
    const uint8_t *trailer = payload + size - 4;
    uint64_t expected = (uint64_t)trailer[0] | (uint64_t)trailer[1] << 8 |
                        (uint64_t)trailer[2] << 16 | (uint64_t)trailer[3] << 24;
    auto_archive struct archive *archive = NULL;
    int result;

    if (expected == 0 || expected > KERNEL_UNPACKED_MAX)
        return error_field(err, EINVAL, FIELD,
                           "the kernel's payload promises %" PRIu64 " bytes; at most %llu are "
                           "possible",
                           expected, KERNEL_UNPACKED_MAX);
    archive = open_payload(payload, packing == KERNEL_PACKING_GZIP ? size : size - 4, packing);
    if (!archive)
        return error_field(err, EINVAL, FIELD,
                           "the kernel's payload is damaged: it does not unpack");
    if (ftruncate(fd, 0) < 0)
        return error_set(err, errno, "write the kernel: %s", strerror(errno));
    result = read_payload(archive, fd, expected, err);
    if (result < 0)
        return result;
    if (ftruncate(fd, (off_t)expected) < 0)
        return error_set(err, errno, "write the kernel: %s", strerror(errno));
    *ret_size = expected;
    return 0;
}

/* 1 if the output is now a vmlinux with a PVH entry, 0 if it is a kernel without. */
static int unpack_to_pvh(int fd, const uint8_t *file, const struct kernel_image *image,
                         enum kernel_packing packing, uint64_t *ret_size, struct error *err)
{
    auto_mapping struct mapping unpacked = { NULL, 0 };
    struct kernel_image inner;
    uint64_t size = 0;
    int result =
        unpack_payload(fd, file + image->payload_offset, image->payload_size, packing, &size, err);

    if (result == 0)
        result = map_output(fd, size, &unpacked, err);
    if (result == 0)
        result = kernel_inspect(unpacked.bytes, unpacked.size, &inner, err);
    if (result < 0)
        return result;
    *ret_size = size;
    return inner.shape == KERNEL_SHAPE_ELF && inner.has_pvh;
}

static int unpack_bzimage(int fd, const struct mapping *source, const struct kernel_image *image,
                          uint64_t *ret_size, enum kernel_format *ret_format, struct error *err)
{
    enum kernel_packing packing =
        kernel_payload_packing(source->bytes + image->payload_offset, image->payload_size);
    auto_free uint8_t *file = NULL;
    int result = 0;

    if (packing != KERNEL_PACKING_UNKNOWN) {
        file = malloc(source->size);
        if (!file)
            return error_set(err, ENOMEM, "no memory to unpack the kernel");
        memcpy(file, source->bytes, source->size);
        result = unpack_to_pvh(fd, file, image, packing, ret_size, err);
        if (result < 0)
            return result;
    }
    if (result == 1) {
        *ret_format = KERNEL_FORMAT_ELF;
        return 0;
    }
    if (!image->has_entry_64)
        return error_field(err, EINVAL, FIELD,
                           "the kernel has neither a PVH entry (CONFIG_PVH) nor a complete image "
                           "with a 64-bit entry; use a 64-bit kernel");
    *ret_size = source->size;
    *ret_format = KERNEL_FORMAT_BZIMAGE;
    return file ? rewrite_output(fd, file, source->size, err) : 0;
}

int fetch_unpack_kernel(int output, uint64_t size, uint64_t *ret_size,
                        enum kernel_format *ret_format, struct error *err)
{
    auto_mapping struct mapping source = { NULL, 0 };
    struct kernel_image image;
    int result = map_output(output, size, &source, err);

    if (result == 0)
        result = kernel_inspect(source.bytes, source.size, &image, err);
    if (result < 0)
        return result;
    if (image.shape == KERNEL_SHAPE_BZIMAGE && size > KERNEL_BZIMAGE_MAX)
        return error_field(err, EFBIG, FIELD,
                           "the kernel image is larger than the limit of %llu bytes",
                           KERNEL_BZIMAGE_MAX);
    if (image.shape == KERNEL_SHAPE_BZIMAGE)
        return unpack_bzimage(output, &source, &image, ret_size, ret_format, err);
    if (!image.has_pvh)
        return error_field(err, EINVAL, FIELD,
                           "the kernel is an ELF file without a PVH entry (CONFIG_PVH); use its "
                           "bzImage");
    *ret_size = size;
    *ret_format = KERNEL_FORMAT_ELF;
    return 0;
}
