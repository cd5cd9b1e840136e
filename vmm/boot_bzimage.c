#include "vmm/boot_bzimage.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>
#include "base/error.h"
#include "vmm/boot_file.h"
#include "vmm/boot_linux.h"

#define FIELD "kernel"

#define SECTOR_BYTES      512u
#define HEADER_OFFSET     offsetof(struct boot_params, hdr) /* 0x1f1 */
#define SETUP_SECTORS_OLD 4                                 /* what 0 means */
#define BOOT_FLAG         0xaa55
#define HEADER_MAGIC      0x53726448 /* "HdrS" */
#define VERSION_MIN       0x020c     /* xloadflags; Linux 3.8 */
#define ENTRY_64          0x200
#define ALIGNMENT_MAX     (1ull << 30)
#define SYSTEM_SIZE_UNIT  16u

/* The header's own length stands in the jump over it, at 0x200: byte 0x201 counts from 0x202. */
static size_t header_bytes(const struct setup_header *header)
{
    size_t bytes = 0x202 - HEADER_OFFSET + (header->jump >> 8);

    return bytes < sizeof *header ? bytes : sizeof *header;
}

static int read_header(int fd, uint64_t file_bytes, struct setup_header *header, struct error *err)
{
    size_t used;
    int result;

    if (file_bytes < HEADER_OFFSET + sizeof *header)
        return error_field(err, EINVAL, FIELD, "is shorter than a bzImage's header");
    result = boot_file_read(fd, HEADER_OFFSET, header, sizeof *header, FIELD, err);
    if (result < 0)
        return result;
    if (header->boot_flag != BOOT_FLAG || header->header != HEADER_MAGIC)
        return error_field(err, EINVAL, FIELD, "is no bzImage");
    if (header->version < VERSION_MIN || !(header->xloadflags & XLF_KERNEL_64) ||
        !(header->loadflags & LOADED_HIGH))
        return error_field(err, EINVAL, FIELD,
                           "has no 64-bit entry: it must be a 64-bit Linux of 3.8 or newer");
    used = header_bytes(header); /* one that ends too early needs 0 bytes, which is refused */
    memset((uint8_t *)header + used, 0, sizeof *header - used);
    return 0;
}

static int find_payload(struct boot_bzimage *image, uint64_t file_bytes, struct error *err)
{
    const struct setup_header *header = &image->header;
    uint64_t sectors = header->setup_sects ? header->setup_sects : SETUP_SECTORS_OLD;
    uint64_t bytes = (uint64_t)header->syssize * SYSTEM_SIZE_UNIT;

    image->payload_offset = (sectors + 1) * SECTOR_BYTES;
    if (image->payload_offset >= file_bytes)
        return error_field(err, EINVAL, FIELD, "has %" PRIu64 " setup sectors, more than it has",
                           sectors);
    image->payload_bytes = file_bytes - image->payload_offset;
    if (bytes <= ENTRY_64 || bytes >= image->payload_bytes + SYSTEM_SIZE_UNIT)
        return error_field(err, EINVAL, FIELD, "has %" PRIu64 " bytes of code, not %" PRIu64,
                           image->payload_bytes, bytes);
    if (image->payload_bytes > bytes)
        image->payload_bytes = bytes; /* what follows is a signature */
    return 0;
}

/* Where it wants to be; a relocatable one where it fits. */
static int find_place(struct boot_bzimage *image, uint64_t memory_end, struct error *err)
{
    const struct setup_header *header = &image->header;
    uint64_t alignment = header->kernel_alignment, bytes = header->init_size;

    if (alignment < BOOT_PAGE_BYTES || alignment > ALIGNMENT_MAX ||
        (alignment & (alignment - 1)) != 0)
        return error_field(err, EINVAL, FIELD, "wants an alignment of %#" PRIx64, alignment);
    if (bytes < image->payload_bytes)
        return error_field(err, EINVAL, FIELD, "needs %" PRIu64 " bytes, less than it has", bytes);
    image->load = header->pref_address;
    if (header->relocatable_kernel && (image->load < BOOT_KERNEL_MIN || image->load > memory_end ||
                                       bytes > memory_end - image->load))
        image->load = alignment > BOOT_KERNEL_MIN ? alignment : BOOT_KERNEL_MIN;
    if (image->load < BOOT_KERNEL_MIN || image->load % BOOT_PAGE_BYTES != 0 ||
        image->load > memory_end || bytes > memory_end - image->load)
        return error_field(err, EINVAL, FIELD,
                           "needs %" PRIu64 " MiB at %#" PRIx64 ": give the guest more memory",
                           bytes >> 20, image->load);
    image->entry = image->load + ENTRY_64;
    image->end = image->load + bytes;
    return 0;
}

int boot_bzimage_read(int fd, uint64_t memory_end, struct boot_bzimage *ret_image,
                      struct error *err)
{
    struct boot_bzimage image = { 0 };
    uint64_t file_bytes = 0;
    int result = boot_file_size(fd, FIELD, &file_bytes, err);

    if (result == 0)
        result = read_header(fd, file_bytes, &image.header, err);
    if (result == 0)
        result = find_payload(&image, file_bytes, err);
    if (result == 0)
        result = find_place(&image, memory_end, err);
    if (result == 0)
        *ret_image = image;
    return result;
}
