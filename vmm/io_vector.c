/* io_vector.c - see io_vector.h. */
#include "vmm/io_vector.h"
#include <string.h>

uint64_t io_vector_bytes(const struct iovec *vectors, unsigned count)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < count; i++)
        bytes += vectors[i].iov_len;
    return bytes;
}

enum copy_direction { COPY_OUT, COPY_IN };

static bool io_vector_copy(const struct iovec *vectors, unsigned count, uint64_t offset,
                           uint8_t *buffer, size_t size, enum copy_direction direction)
{
    uint64_t total = io_vector_bytes(vectors, count);

    if (offset > total || size > total - offset)
        return false;

    for (unsigned i = 0; i < count && size > 0; i++) {
        size_t length = vectors[i].iov_len;

        if (offset >= length) {
            offset -= length;
            continue;
        }

        uint8_t *guest = (uint8_t *)vectors[i].iov_base + offset;
        size_t part = length - offset < size ? length - offset : size;

        if (direction == COPY_OUT)
            memcpy(buffer, guest, part);
        else
            memcpy(guest, buffer, part);
        buffer += part;
        size -= part;
        offset = 0;
    }
    return true;
}

bool io_vector_read(const struct iovec *vectors, unsigned count, uint64_t offset, void *to,
                    size_t size)
{
    return io_vector_copy(vectors, count, offset, to, size, COPY_OUT);
}

bool io_vector_write(const struct iovec *vectors, unsigned count, uint64_t offset, const void *from,
                     size_t size)
{
    /* COPY_IN only reads the buffer. */
    return io_vector_copy(vectors, count, offset, (uint8_t *)(uintptr_t)from, size, COPY_IN);
}

unsigned io_vector_slice(struct iovec *vectors, unsigned count, uint64_t offset, uint64_t size)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < count && size > 0; i++) {
        struct iovec vector = vectors[i];

        if (offset >= vector.iov_len) {
            offset -= vector.iov_len;
            continue;
        }
        vector.iov_base = (uint8_t *)vector.iov_base + offset;
        vector.iov_len -= offset;
        offset = 0;
        if (vector.iov_len > size)
            vector.iov_len = size;
        size -= vector.iov_len;
        vectors[kept++] = vector;
    }
    return kept;
}
