#include "vmm/boot_file.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>
#include "base/error.h"
#include "base/file_io.h"
#include "vmm/guest_memory.h"

int boot_file_size(int fd, const char *what, uint64_t *ret_bytes, struct error *err)
{
    struct stat status;

    if (fstat(fd, &status) < 0)
        return error_field(err, errno, what, "cannot be looked at");
    if (!S_ISREG(status.st_mode) || status.st_size <= 0)
        return error_field(err, EINVAL, what, "is empty or no regular file");
    *ret_bytes = (uint64_t)status.st_size;
    return 0;
}

int boot_file_read(int fd, uint64_t offset, void *to, uint64_t size, const char *what,
                   struct error *err)
{
    int result = file_read_all(fd, to, size, offset);

    return result < 0 ? error_field(err, result, what, "cannot be read, or ends too early") : 0;
}

/* Reads where mapping cannot: [offset, offset+size) into guest memory. */
static int read_to_guest(int fd, uint64_t offset, uint64_t size, struct guest_memory *memory,
                         uint64_t guest, const char *what, struct error *err)
{
    void *to;

    if (size == 0)
        return 0;
    to = guest_memory_map(memory, guest, size);
    if (!to)
        return error_field(err, EINVAL, what, "%#" PRIx64 " is outside the guest's memory", guest);
    return boot_file_read(fd, offset, to, size, what, err);
}

int boot_file_load(int fd, uint64_t offset, uint64_t size, struct guest_memory *memory,
                   uint64_t guest, const char *what, struct error *err)
{
    uint64_t head = -guest % BOOT_PAGE_BYTES, pages;
    int result;

    if (!guest_memory_maps_files(memory) || head > size || (guest - offset) % BOOT_PAGE_BYTES != 0)
        return read_to_guest(fd, offset, size, memory, guest, what, err);
    pages = (size - head) / BOOT_PAGE_BYTES * BOOT_PAGE_BYTES;
    result = read_to_guest(fd, offset, head, memory, guest, what, err);
    if (result == 0 && pages > 0)
        result = guest_memory_map_file(memory, guest + head, pages, fd, offset + head, err);
    if (result == 0)
        result = read_to_guest(fd, offset + head + pages, size - head - pages, memory,
                               guest + head + pages, what, err);
    return result;
}
