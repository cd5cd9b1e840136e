/* delta_format.h - the file of a `delta` disk: what was written since, over a read-only base file
 * that many disks may share.  storage/delta_file.c makes it, vmm/disk_delta.c works on it.
 *
 *   0               struct delta_header
 *   BITMAP_OFFSET   one bit per block, bit b % 8 of byte b / 8; room for bitmap_bytes
 *   data_offset     the disk's bytes, each block at its own offset; holes read as zeroes
 *
 * A block whose bit is set is here; else it is the base's, and zero behind the base's end.  A bit
 * goes to the disk after its block, and never back: the part of a bitmap that a power cut lets
 * through is right, so it needs no checksum.  The file may be longer than the header says (a power
 * cut while it grew).  Integers are little-endian.  Which disk is a delta is told, never guessed
 * from what its file begins with. */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct error;

#define DELTA_MAGIC         "WRNDELTA" /* without its NUL */
#define DELTA_VERSION       1
#define DELTA_BLOCK_BYTES   4096u
#define DELTA_BITMAP_OFFSET DELTA_BLOCK_BYTES
#define DELTA_VIRTUAL_MAX   (64ull << 40)
#define DELTA_BITMAP_MAX    (DELTA_VIRTUAL_MAX / DELTA_BLOCK_BYTES / 8)

struct delta_header {
    char magic[8];
    uint32_t version, block_bytes;
    uint64_t virtual_bytes; /* of the disk; whole blocks */
    uint64_t base_bytes;    /* of the base's file, at most virtual_bytes */
    uint64_t bitmap_bytes;  /* whole blocks; may have room for a disk that grows */
    char base_uid[40];      /* of the image that is the base; NUL padded */
    uint64_t checksum;      /* of what stands before it: delta_checksum */
};

static inline uint64_t delta_data_offset(const struct delta_header *header)
{
    return DELTA_BITMAP_OFFSET + header->bitmap_bytes;
}

/* The part of the bitmap that the disk needs, in whole blocks. */
static inline uint64_t delta_bitmap_used(const struct delta_header *header)
{
    uint64_t bytes = (header->virtual_bytes / DELTA_BLOCK_BYTES + 7) / 8;

    return (bytes + DELTA_BLOCK_BYTES - 1) / DELTA_BLOCK_BYTES * DELTA_BLOCK_BYTES;
}

/* FNV-1a, 64 bits. */
uint64_t delta_checksum(const struct delta_header *header);

/* Pure: judges the first `size` bytes of a file of file_bytes.  0, or -EINVAL with the reason;
 * every sum and product of a header that was taken fits into an off_t. */
int delta_header_parse(const void *bytes, size_t size, uint64_t file_bytes,
                       struct delta_header *ret_header, struct error *err);

/* The header of a file over the base that is open as base_fd; both are only read, and nothing is
 * locked.  -EINVAL with the reason if they are no delta and its base. */
int delta_header_read(int delta_fd, int base_fd, struct delta_header *ret_header,
                      struct error *err);

/* Into delta_bitmap_used() bytes, which are zero before: those where the file has holes are not
 * touched, so that a disk of which little was written costs little memory. */
int delta_bitmap_read(int delta_fd, const struct delta_header *header, uint8_t *ret_bits,
                      struct error *err);
