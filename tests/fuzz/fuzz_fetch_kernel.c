/* fuzz_fetch_kernel.c - kernels as warren-fetch looks at and unpacks them. */
#include <sys/mman.h>
#include <unistd.h>
#include "tests/fuzz/fuzz.h"
#include "storage/fetch_kernel.h"
#include "storage/fetch_unpack.h"

FUZZ_TARGET(fetch_kernel)
{
    struct kernel_image image = { 0 };
    enum kernel_format format = 0;
    uint64_t unpacked = 0;
    uint8_t *copy =
        malloc(size ? size : 1); /* exactly as long: a sanitizer sees each byte too far */
    int fd = memfd_create("kernel", MFD_CLOEXEC);

    FUZZ_REQUIRE(copy);
    memcpy(copy, bytes, size);
    if (kernel_inspect(copy, size, &image, NULL) == 0 && image.shape == KERNEL_SHAPE_BZIMAGE) {
        FUZZ_REQUIRE(image.payload_offset <= size);
        FUZZ_REQUIRE(image.payload_size <= size - image.payload_offset);
    }
    (void)kernel_payload_packing(copy, size);
    FUZZ_REQUIRE(size == 0 || write(fd, bytes, size) == (ssize_t)size);
    if (size > 0)
        (void)fetch_unpack_kernel(fd, size, &unpacked, &format, NULL);
    close(fd);
    free(copy);
    return 0;
}
