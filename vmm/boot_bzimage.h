/* boot_bzimage.h - Linux kernels as packaged: a bzImage with the 64-bit entry (XLF_KERNEL_64),
 * which unpacks and relocates itself.  Linux's Documentation/x86/boot.rst.  Pure but for reading.
 */
#pragma once
#include <asm/bootparam.h>
#include <stdint.h>

struct error;

struct boot_bzimage {
    struct setup_header header; /* as in the file; fields beyond its own length are zero */
    uint64_t payload_offset, payload_bytes;
    uint64_t load;  /* guest-physical, as the two below: the payload's place */
    uint64_t entry; /* to jump to in long mode */
    uint64_t end;   /* behind what it uses while it unpacks itself */
};

int boot_bzimage_read(int fd, uint64_t memory_end, struct boot_bzimage *ret_image,
                      struct error *err);
