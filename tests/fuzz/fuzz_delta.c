/* fuzz_delta.c - a delta file of which anything may be other than Warren wrote it, and its base: it
 * is refused, or it is a disk, if not the one that it was: what is written is read again, also
 * after a flush by who opens it next, and no byte of the base or behind the file's end changes. */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "tests/fuzz/fuzz.h"
#include "base/delta_format.h"
#include "base/error.h"
#include "storage/delta_file.h"
#include "vmm/disk.h"
#include "vmm/disk_delta.h"

#define BLOCK          ((uint64_t)DELTA_BLOCK_BYTES)
#define DISK_BLOCKS    40u
#define BASE_BYTES     (21 * BLOCK + 1000)
#define BASE_UID       "01234567-89ab-4cde-8f01-23456789abcd"
#define WINDOW_BYTES   (16 * BLOCK)
#define PATCHES_MAX    8
#define OPERATIONS_MAX 40

struct delta_fuzz {
    struct fuzz_input input;
    int base_fd, delta_fd;
    uint64_t start, size; /* of the disk: the part that is used */
    uint8_t content[WINDOW_BYTES];
};

struct request {
    struct disk_request disk; /* first */
    int result;
};

static void on_done(struct disk_request *disk, int result)
{
    ((struct request *)disk)->result = result;
}

static int perform(struct disk *disk, enum disk_operation operation, uint64_t offset,
                   uint8_t *bytes, uint64_t size)
{
    uint64_t part = bytes ? size / 3 : 0;
    struct iovec vectors[2] = { { bytes, part }, { bytes ? bytes + part : NULL, size - part } };
    struct request request = { { .operation = operation,
                                 .may_unmap = true,
                                 .offset = offset,
                                 .size = size,
                                 .vectors = vectors,
                                 .vector_count = bytes ? 2 : 0,
                                 .done = on_done },
                               1 };

    disk_submit(disk, &request.disk);
    disk_drain(disk, DISK_FINISH);
    FUZZ_REQUIRE(request.result <= 0); /* and done */
    return request.result;
}

static void fill(uint8_t *bytes, uint64_t size, unsigned seed)
{
    for (uint64_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(seed + i / 61);
}

static void open_files(struct delta_fuzz *f)
{
    static uint8_t bytes[BASE_BYTES];

    fill(bytes, sizeof(bytes), 0x80);
    f->base_fd = memfd_create("base", MFD_CLOEXEC);
    f->delta_fd = memfd_create("delta", MFD_CLOEXEC);
    FUZZ_REQUIRE(write(f->base_fd, bytes, sizeof(bytes)) == (ssize_t)sizeof(bytes));
    FUZZ_REQUIRE(delta_file_init(f->delta_fd, DISK_BLOCKS * BLOCK, BASE_BYTES, BASE_UID, NULL) ==
                 0);
}

static void check_base(const struct delta_fuzz *f)
{
    static uint8_t bytes[BASE_BYTES], wanted[BASE_BYTES];

    fill(wanted, sizeof(wanted), 0x80);
    FUZZ_REQUIRE(pread(f->base_fd, bytes, sizeof(bytes), 0) == (ssize_t)sizeof(bytes));
    FUZZ_REQUIRE(memcmp(bytes, wanted, sizeof(bytes)) == 0);
}

/* Of the header's bytes, the bitmap's, or the blocks'. */
static void patch(struct delta_fuzz *f, struct delta_header *header)
{
    uint8_t how = (uint8_t)fuzz_take(&f->input, 1);
    uint64_t offset = fuzz_take(&f->input, 1), value = fuzz_take(&f->input, 1 + (how >> 2 & 7));
    size_t room = offset < sizeof(*header) ? sizeof(*header) - offset : 0;

    switch (how & 3) {
    case 0:
        memcpy((uint8_t *)header + offset, &value, room < 8 ? room : 8);
        break;
    case 1:
        header->virtual_bytes = value * BLOCK;
        break;
    case 2:
        FUZZ_REQUIRE(pwrite(f->delta_fd, &value, 8, (off_t)(DELTA_BITMAP_OFFSET + offset % 8)) ==
                     8);
        break;
    default:
        header->bitmap_bytes = value * BLOCK;
        break;
    }
}

/* The checksum is no secret: mostly it fits again. */
static void change_file(struct delta_fuzz *f)
{
    struct delta_header header;
    uint8_t how = (uint8_t)fuzz_take(&f->input, 1);

    FUZZ_REQUIRE(pread(f->delta_fd, &header, sizeof(header), 0) == (ssize_t)sizeof(header));
    for (unsigned patches = how % PATCHES_MAX; patches > 0; patches--)
        patch(f, &header);
    if (!(how & 0x80))
        header.checksum = delta_checksum(&header);
    FUZZ_REQUIRE(pwrite(f->delta_fd, &header, sizeof(header), 0) == (ssize_t)sizeof(header));
    if (how & 0x40) /* as long as the header says, if that can be */
        (void)!ftruncate(f->delta_fd,
                         (off_t)((delta_data_offset(&header) + header.virtual_bytes) & INT64_MAX));
    else if (how & 0x20)
        FUZZ_REQUIRE(ftruncate(f->delta_fd, (off_t)fuzz_take(&f->input, 4)) == 0);
}

static void grow(const struct delta_fuzz *f, uint64_t size_bytes)
{
    struct delta_header before, after;

    if (delta_header_read(f->delta_fd, f->base_fd, &before, NULL) < 0 ||
        delta_file_grow(f->delta_fd, size_bytes, NULL) < 0)
        return;
    FUZZ_REQUIRE(delta_header_read(f->delta_fd, f->base_fd, &after, NULL) == 0);
    FUZZ_REQUIRE(after.virtual_bytes == size_bytes && size_bytes >= before.virtual_bytes);
    FUZZ_REQUIRE(after.bitmap_bytes == before.bitmap_bytes);
}

static void operate(struct delta_fuzz *f, struct disk *disk)
{
    static uint8_t bytes[WINDOW_BYTES];
    uint8_t how = (uint8_t)fuzz_take(&f->input, 1);
    uint64_t sectors = f->size / 512, at = fuzz_take(&f->input, 1) % sectors * 512;
    uint64_t size = (1 + fuzz_take(&f->input, 1) % (sectors - at / 512)) * 512;
    enum disk_operation operation = how % 5;
    int result;

    if (operation == DISK_FLUSH) {
        FUZZ_REQUIRE(perform(disk, DISK_FLUSH, 0, NULL, 0) == 0);
        return;
    }
    fill(bytes, size, how);
    result = perform(disk, operation, f->start + at,
                     operation == DISK_READ || operation == DISK_WRITE ? bytes : NULL, size);
    FUZZ_REQUIRE(result == 0);
    if (operation == DISK_READ)
        FUZZ_REQUIRE(memcmp(bytes, f->content + at, size) == 0);
    else if (operation == DISK_WRITE)
        memcpy(f->content + at, bytes, size);
    else if (operation == DISK_WRITE_ZEROES)
        memset(f->content + at, 0, size);
    else /* what a discarded block holds is open, but it must not change again */
        FUZZ_REQUIRE(perform(disk, DISK_READ, f->start + at, f->content + at, size) == 0);
}

static void check_content(const struct delta_fuzz *f, struct disk *disk)
{
    static uint8_t bytes[WINDOW_BYTES];

    FUZZ_REQUIRE(perform(disk, DISK_READ, f->start, bytes, f->size) == 0);
    FUZZ_REQUIRE(memcmp(bytes, f->content, f->size) == 0);
}

static void use(struct delta_fuzz *f, uint64_t disk_bytes)
{
    struct disk *disk;
    struct stat before, after;

    if (disk_delta_new(f->base_fd, f->delta_fd, NULL, disk_bytes, &disk, NULL) < 0)
        return;
    FUZZ_REQUIRE(fstat(f->delta_fd, &before) == 0);
    f->size = disk_bytes < WINDOW_BYTES ? disk_bytes : WINDOW_BYTES;
    f->start = (disk_bytes - f->size) / 16 * (fuzz_take(&f->input, 1) % 17) / BLOCK * BLOCK;
    FUZZ_REQUIRE(perform(disk, DISK_READ, f->start, f->content, f->size) == 0);
    for (unsigned i = 0; i < OPERATIONS_MAX && f->input.size > 0; i++)
        operate(f, disk);
    check_content(f, disk);
    FUZZ_REQUIRE(perform(disk, DISK_FLUSH, 0, NULL, 0) == 0);
    disk_free(disk);

    FUZZ_REQUIRE(fstat(f->delta_fd, &after) == 0 && after.st_size == before.st_size);
    FUZZ_REQUIRE(disk_delta_new(f->base_fd, f->delta_fd, NULL, disk_bytes, &disk, NULL) == 0);
    check_content(f, disk);
    disk_free(disk);
}

FUZZ_TARGET(delta)
{
    static struct delta_fuzz f;
    struct delta_header header;
    uint8_t how;

    f = (struct delta_fuzz){ .input = { bytes, size } };
    open_files(&f);
    change_file(&f);
    how = (uint8_t)fuzz_take(&f.input, 1);
    if (how & 1)
        grow(&f, fuzz_take(&f.input, 1 + (how >> 1 & 7)) << (how & 16 ? 12 : 0));
    if (delta_header_read(f.delta_fd, f.base_fd, &header, NULL) == 0) {
        FUZZ_REQUIRE(delta_file_check(f.delta_fd, f.base_fd, header.base_uid, NULL) == 0);
        use(&f, header.virtual_bytes);
    }
    check_base(&f);
    close(f.delta_fd);
    close(f.base_fd);
    return 0;
}
