/* file_io.c - see file_io.h. */
#include "base/file_io.h"
#include <errno.h>
#include <sys/uio.h>

typedef ssize_t transfer_fn(int fd, const struct iovec *parts, int count, off_t offset);

static int transfer_all(transfer_fn *transfer, int fd, char *bytes, size_t size, uint64_t offset)
{
    while (size > 0) {
        struct iovec part = { bytes, size };
        ssize_t done = transfer(fd, &part, 1, (off_t)offset);

        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done == 0 ? -EIO : -errno;
        bytes += done;
        offset += (uint64_t)done;
        size -= (size_t)done;
    }
    return 0;
}

int file_read_all(int fd, void *ret_bytes, size_t size, uint64_t offset)
{
    return transfer_all(preadv, fd, ret_bytes, size, offset);
}

int file_write_all(int fd, const void *bytes, size_t size, uint64_t offset)
{
    return transfer_all(pwritev, fd, (char *)bytes, size, offset);
}
