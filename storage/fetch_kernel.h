/* fetch_kernel.h - what kind of kernel an image is, and whether it is one that can be booted. Pure:
 * reads bytes in memory that strangers wrote, never past `size`.
 *
 * ELF: the System V gABI, and xen/include/public/elfnote.h (XEN_ELFNOTE_PHYS32_ENTRY).  bzImage:
 * Documentation/arch/x86/boot.rst of Linux, "The Real-Mode Kernel Header". */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

enum kernel_shape { KERNEL_SHAPE_ELF, KERNEL_SHAPE_BZIMAGE };

struct kernel_image {
    enum kernel_shape shape;
    /* ELF: */
    bool has_pvh;
    uint32_t pvh_entry; /* guest-physical */
    /* bzImage: the compressed kernel in it, in bytes from the file's start; its last four bytes
     * say how long it is unpacked.  64: has the 64-bit entry and is complete. */
    size_t payload_offset;
    size_t payload_size;
    bool has_entry_64;
};

#define KERNEL_SEGMENTS_MAX 64
#define KERNEL_ADDRESS_MAX  (1ull << 32) /* segments end below */
#define KERNEL_UNPACKED_MAX (1ull << 30)
#define KERNEL_BZIMAGE_MAX  (256ull << 20)

/* -EINVAL, field "spec.source", with what is wrong. */
int kernel_inspect(const uint8_t *bytes, size_t size, struct kernel_image *ret_image,
                   struct error *err);

enum kernel_packing {
    KERNEL_PACKING_GZIP,
    KERNEL_PACKING_XZ,
    KERNEL_PACKING_LZMA,
    KERNEL_PACKING_BZIP2,
    KERNEL_PACKING_LZ4,
    KERNEL_PACKING_ZSTD,
    KERNEL_PACKING_COUNT,
    KERNEL_PACKING_UNKNOWN = -1,
};

/* By the payload's first bytes. */
enum kernel_packing kernel_payload_packing(const uint8_t *payload, size_t size);
