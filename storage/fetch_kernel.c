#include "storage/fetch_kernel.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"

#define FIELD               "spec.source"
#define NOTE_NAME_XEN       "Xen"
#define NOTE_PVH_ENTRY      18 /* XEN_ELFNOTE_PHYS32_ENTRY */
#define SETUP_SECTOR_BYTES  512u
#define SETUP_SECTORS_MAX   64u
#define BZIMAGE_HEADER_END  0x268u
#define BZIMAGE_PROTOCOL    0x0208u /* the first with payload_offset */
#define BZIMAGE_PROTOCOL_64 0x020cu /* the first with xloadflags */
#define LOADED_HIGH         0x01
#define XLF_KERNEL_64       0x01

struct reader {
    const uint8_t *bytes;
    size_t size;
};

/* Is [offset, offset + length) inside? */
static bool holds(const struct reader *reader, uint64_t offset, uint64_t length)
{
    return offset <= reader->size && length <= reader->size - offset;
}

static uint16_t read_16(const uint8_t *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

static uint32_t read_32(const uint8_t *at)
{
    return (uint32_t)read_16(at) | (uint32_t)read_16(at + 2) << 16;
}

static uint64_t round_up(uint64_t value, uint64_t align)
{
    return (value + align - 1) / align * align;
}

/* Looks for the PVH entry in one PT_NOTE segment, which was checked to lie in the file.  A note
 * that does not fit ends the search: what was found before counts. */
static bool find_pvh_note(const struct reader *reader, const Elf64_Phdr *segment,
                          uint32_t *ret_entry)
{
    const uint8_t *notes = reader->bytes + segment->p_offset;
    uint64_t align = segment->p_align == 8 ? 8 : 4;
    uint64_t left = segment->p_filesz;

    while (left >= sizeof(Elf64_Nhdr)) {
        uint64_t name_size = read_32(notes);
        uint64_t value_size = read_32(notes + 4);
        uint32_t type = read_32(notes + 8);
        uint64_t value_at = round_up(sizeof(Elf64_Nhdr) + name_size, align);
        uint64_t next_at = round_up(value_at + value_size, align);

        if (value_at > left || value_size > left - value_at)
            return false;
        if (type == NOTE_PVH_ENTRY && name_size == sizeof NOTE_NAME_XEN && value_size >= 4 &&
            memcmp(notes + sizeof(Elf64_Nhdr), NOTE_NAME_XEN, sizeof NOTE_NAME_XEN) == 0) {
            *ret_entry = read_32(notes + value_at);
            return true;
        }
        if (next_at >= left)
            return false;
        notes += next_at;
        left -= next_at;
    }
    return false;
}

static int check_elf_header(const struct reader *reader, Elf64_Ehdr *ret_header, struct error *err)
{
    if (!holds(reader, 0, sizeof *ret_header))
        return error_field(err, EINVAL, FIELD, "the kernel's ELF header is truncated");
    memcpy(ret_header, reader->bytes, sizeof *ret_header);
    if (ret_header->e_ident[EI_CLASS] != ELFCLASS64 ||
        ret_header->e_ident[EI_DATA] != ELFDATA2LSB || ret_header->e_machine != EM_X86_64)
        return error_field(err, EINVAL, FIELD, "the kernel is an ELF file, but not for x86-64");
    if (ret_header->e_type != ET_EXEC && ret_header->e_type != ET_DYN)
        return error_field(err, EINVAL, FIELD, "the kernel is an ELF file, but not a program");
    if (ret_header->e_phentsize != sizeof(Elf64_Phdr) || ret_header->e_phnum == 0 ||
        ret_header->e_phnum > KERNEL_SEGMENTS_MAX)
        return error_field(err, EINVAL, FIELD,
                           "the kernel's ELF file has %u program headers of %u bytes; 1 to %d of "
                           "%zu are possible",
                           ret_header->e_phnum, ret_header->e_phentsize, KERNEL_SEGMENTS_MAX,
                           sizeof(Elf64_Phdr));
    if (!holds(reader, ret_header->e_phoff, (uint64_t)ret_header->e_phnum * sizeof(Elf64_Phdr)))
        return error_field(err, EINVAL, FIELD, "the kernel's ELF program headers are truncated");
    return 0;
}

static int check_segment(const struct reader *reader, const Elf64_Phdr *segment, unsigned index,
                         struct error *err)
{
    if (!holds(reader, segment->p_offset, segment->p_filesz))
        return error_field(err, EINVAL, FIELD,
                           "the kernel's ELF segment %u reaches past the end of the file", index);
    if (segment->p_type != PT_LOAD)
        return 0;
    if (segment->p_memsz < segment->p_filesz)
        return error_field(err, EINVAL, FIELD,
                           "the kernel's ELF segment %u is larger in the file than in memory",
                           index);
    if (segment->p_paddr >= KERNEL_ADDRESS_MAX ||
        segment->p_memsz > KERNEL_ADDRESS_MAX - segment->p_paddr)
        return error_field(err, EINVAL, FIELD,
                           "the kernel's ELF segment %u does not lie below 4 GiB", index);
    return 0;
}

/* Two loaded segments must not share a byte of memory. */
static int check_overlap(const Elf64_Phdr *segments, unsigned count, struct error *err)
{
    for (unsigned i = 0; i < count; i++)
        for (unsigned j = i + 1; j < count; j++) {
            const Elf64_Phdr *a = &segments[i];
            const Elf64_Phdr *b = &segments[j];

            if (a->p_type != PT_LOAD || b->p_type != PT_LOAD || !a->p_memsz || !b->p_memsz)
                continue;
            if (a->p_paddr < b->p_paddr + b->p_memsz && b->p_paddr < a->p_paddr + a->p_memsz)
                return error_field(err, EINVAL, FIELD,
                                   "the kernel's ELF segments %u and %u overlap", i, j);
        }
    return 0;
}

/* The entry must be a byte of the file that is loaded. */
static bool entry_is_loaded(const Elf64_Phdr *segments, unsigned count, uint64_t entry)
{
    for (unsigned i = 0; i < count; i++)
        if (segments[i].p_type == PT_LOAD && entry >= segments[i].p_paddr &&
            entry - segments[i].p_paddr < segments[i].p_filesz)
            return true;
    return false;
}

static int inspect_elf(const struct reader *reader, struct kernel_image *ret_image,
                       struct error *err)
{
    struct kernel_image image = { .shape = KERNEL_SHAPE_ELF };
    Elf64_Phdr segments[KERNEL_SEGMENTS_MAX];
    Elf64_Ehdr header;
    int result = check_elf_header(reader, &header, err);
    unsigned loaded = 0;

    if (result < 0)
        return result;
    memcpy(segments, reader->bytes + header.e_phoff, header.e_phnum * sizeof segments[0]);
    for (unsigned i = 0; i < header.e_phnum; i++) {
        result = check_segment(reader, &segments[i], i, err);
        if (result < 0)
            return result;
        loaded += segments[i].p_type == PT_LOAD && segments[i].p_filesz > 0;
        if (segments[i].p_type == PT_NOTE && !image.has_pvh)
            image.has_pvh = find_pvh_note(reader, &segments[i], &image.pvh_entry);
    }
    if (loaded == 0)
        return error_field(err, EINVAL, FIELD, "the kernel's ELF file has nothing to load");
    result = check_overlap(segments, header.e_phnum, err);
    if (result < 0)
        return result;
    if (image.has_pvh && !entry_is_loaded(segments, header.e_phnum, image.pvh_entry))
        return error_field(err, EINVAL, FIELD,
                           "the kernel's PVH entry 0x%x is not in a loaded segment",
                           image.pvh_entry);
    *ret_image = image;
    return 0;
}

/* Where the protected-mode part starts; 0 if setup_sects lies. */
static size_t setup_size(const struct reader *reader)
{
    unsigned sectors = reader->bytes[0x1f1] ? reader->bytes[0x1f1] : 4;
    size_t size = (sectors + 1) * (size_t)SETUP_SECTOR_BYTES;

    return sectors <= SETUP_SECTORS_MAX && holds(reader, size, 1) ? size : 0;
}

static int inspect_bzimage(const struct reader *reader, struct kernel_image *ret_image,
                           struct error *err)
{
    struct kernel_image image = { .shape = KERNEL_SHAPE_BZIMAGE };
    const uint8_t *header = reader->bytes;
    unsigned protocol = read_16(header + 0x206);
    uint64_t payload_offset = read_32(header + 0x248);
    uint64_t payload_size = read_32(header + 0x24c);
    uint64_t system_size = (uint64_t)read_32(header + 0x1f4) * 16;
    size_t setup = setup_size(reader);

    if (protocol < BZIMAGE_PROTOCOL || !(header[0x211] & LOADED_HIGH))
        return error_field(err, EINVAL, FIELD,
                           "the kernel's boot protocol %u.%02u is too old; 2.08 and newer are "
                           "possible",
                           protocol >> 8, protocol & 0xff);
    if (setup == 0)
        return error_field(err, EINVAL, FIELD,
                           "the kernel image ends within its set-up part: it is truncated");
    if (payload_size < 8 || !holds(reader, setup + payload_offset, payload_size))
        return error_field(err, EINVAL, FIELD,
                           "the kernel image ends within its payload: it is truncated");
    image.payload_offset = (size_t)(setup + payload_offset);
    image.payload_size = (size_t)payload_size;
    /* The last paragraph may be padding that is not there. */
    image.has_entry_64 = protocol >= BZIMAGE_PROTOCOL_64 &&
                         (read_16(header + 0x236) & XLF_KERNEL_64) && system_size >= 1024 &&
                         system_size <= reader->size - setup + 15;
    *ret_image = image;
    return 0;
}

int kernel_inspect(const uint8_t *bytes, size_t size, struct kernel_image *ret_image,
                   struct error *err)
{
    struct reader reader = { bytes, size };

    if (holds(&reader, 0, SELFMAG) && memcmp(bytes, ELFMAG, SELFMAG) == 0)
        return inspect_elf(&reader, ret_image, err);
    if (holds(&reader, 0, BZIMAGE_HEADER_END) && read_16(bytes + 0x1fe) == 0xaa55 &&
        memcmp(bytes + 0x202, "HdrS", 4) == 0)
        return inspect_bzimage(&reader, ret_image, err);
    return error_field(err, EINVAL, FIELD,
                       "the source is not a kernel: neither an ELF file nor a bzImage");
}

enum kernel_packing kernel_payload_packing(const uint8_t *payload, size_t size)
{
    static const struct {
        const char *magic;
        size_t length;
    } packings[KERNEL_PACKING_COUNT] = {
        [KERNEL_PACKING_GZIP] = { "\x1f\x8b\x08", 3 },
        [KERNEL_PACKING_XZ] = { "\xfd\x37zXZ\0", 6 },
        [KERNEL_PACKING_LZMA] = { "\x5d\0\0", 3 },
        [KERNEL_PACKING_BZIP2] = { "BZh", 3 },
        [KERNEL_PACKING_LZ4] = { "\x02\x21\x4c\x18", 4 },
        [KERNEL_PACKING_ZSTD] = { "\x28\xb5\x2f\xfd", 4 },
    };

    for (int i = 0; i < KERNEL_PACKING_COUNT; i++)
        if (size > packings[i].length &&
            memcmp(payload, packings[i].magic, packings[i].length) == 0)
            return (enum kernel_packing)i;
    return KERNEL_PACKING_UNKNOWN;
}
