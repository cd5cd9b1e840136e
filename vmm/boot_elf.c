#include "vmm/boot_elf.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include "base/error.h"
#include "vmm/boot_file.h"
#include "vmm/boot_linux.h"

#define FIELD "kernel"

#define HEADERS_MAX     64   /* program headers looked at */
#define NOTES_BYTES_MAX 4096 /* of one segment; Linux has half a KiB */

#define XEN_NOTE_NAME         "Xen"
#define XEN_NOTE_PHYS32_ENTRY 18

static int read_header(int fd, uint64_t file_bytes, Elf64_Ehdr *ret_header, struct error *err)
{
    int result;

    if (file_bytes < sizeof *ret_header)
        return error_field(err, EINVAL, FIELD, "is shorter than an ELF header");
    result = boot_file_read(fd, 0, ret_header, sizeof *ret_header, FIELD, err);
    if (result < 0)
        return result;
    if (memcmp(ret_header->e_ident, ELFMAG, SELFMAG) != 0)
        return error_field(err, EINVAL, FIELD, "is no ELF file");
    if (ret_header->e_ident[EI_CLASS] != ELFCLASS64 ||
        ret_header->e_ident[EI_DATA] != ELFDATA2LSB || ret_header->e_machine != EM_X86_64)
        return error_field(err, EINVAL, FIELD, "is no 64-bit x86 ELF file");
    if (ret_header->e_phentsize != sizeof(Elf64_Phdr))
        return error_field(err, EINVAL, FIELD, "has program headers of %u bytes",
                           ret_header->e_phentsize);
    if (ret_header->e_phnum == 0 || ret_header->e_phnum > HEADERS_MAX)
        return error_field(err, EINVAL, FIELD, "has %u program headers, not 1 to %d",
                           ret_header->e_phnum, HEADERS_MAX);
    if (ret_header->e_phoff > file_bytes ||
        ret_header->e_phnum * sizeof(Elf64_Phdr) > file_bytes - ret_header->e_phoff)
        return error_field(err, EINVAL, FIELD, "has program headers behind its end");
    return 0;
}

static int check_segment(const Elf64_Phdr *header, uint64_t file_bytes, uint64_t memory_end,
                         struct error *err)
{
    if (header->p_filesz > header->p_memsz)
        return error_field(err, EINVAL, FIELD, "has a segment larger in the file than in memory");
    if (header->p_offset > file_bytes || header->p_filesz > file_bytes - header->p_offset)
        return error_field(err, EINVAL, FIELD, "has a segment behind its end");
    if (header->p_paddr < BOOT_KERNEL_MIN)
        return error_field(err, EINVAL, FIELD, "has a segment below 1 MiB");
    if (header->p_paddr > memory_end || header->p_memsz > memory_end - header->p_paddr)
        return error_field(err, EINVAL, FIELD,
                           "has a segment at %#" PRIx64 " outside of the guest's memory",
                           header->p_paddr);
    return 0;
}

static int add_segment(struct boot_elf *elf, const Elf64_Phdr *header, struct error *err)
{
    for (size_t i = 0; i < elf->segment_count; i++) {
        const Elf64_Phdr *other = &elf->segments[i];

        if (header->p_paddr < other->p_paddr + other->p_memsz &&
            other->p_paddr < header->p_paddr + header->p_memsz)
            return error_field(err, EINVAL, FIELD, "has segments that overlap");
    }
    if (elf->segment_count == BOOT_ELF_SEGMENTS_MAX)
        return error_field(err, EINVAL, FIELD, "has more than %d segments", BOOT_ELF_SEGMENTS_MAX);
    elf->segments[elf->segment_count++] = *header;
    if (elf->end < header->p_paddr + header->p_memsz)
        elf->end = header->p_paddr + header->p_memsz;
    return 0;
}

static size_t align4(size_t size)
{
    return (size + 3) & ~(size_t)3;
}

/* Looks for the PVH entry among `size` bytes of notes; true if it was found. */
static bool find_entry(const uint8_t *notes, size_t size, uint32_t *ret_entry)
{
    Elf64_Nhdr note;

    for (size_t at = 0; size - at >= sizeof note;) {
        size_t room, name_bytes, value_bytes;

        memcpy(&note, notes + at, sizeof note);
        at += sizeof note;
        room = size - at;
        name_bytes = align4(note.n_namesz);
        value_bytes = align4(note.n_descsz);
        if (name_bytes > room || note.n_descsz > room - name_bytes)
            return false;
        if (note.n_type == XEN_NOTE_PHYS32_ENTRY && note.n_namesz == sizeof XEN_NOTE_NAME &&
            memcmp(notes + at, XEN_NOTE_NAME, sizeof XEN_NOTE_NAME) == 0 &&
            note.n_descsz >= sizeof *ret_entry) {
            memcpy(ret_entry, notes + at + name_bytes, sizeof *ret_entry);
            return true;
        }
        if (value_bytes > room - name_bytes)
            return false;
        at += name_bytes + value_bytes;
    }
    return false;
}

/* 1 if the entry was found, 0 if not. */
static int read_notes(int fd, const Elf64_Phdr *header, uint64_t file_bytes, uint32_t *ret_entry,
                      struct error *err)
{
    uint64_t size = header->p_filesz;
    uint8_t notes[NOTES_BYTES_MAX];
    int result;

    if (header->p_offset > file_bytes || header->p_filesz > file_bytes - header->p_offset)
        return error_field(err, EINVAL, FIELD, "has notes behind its end");
    if (size > NOTES_BYTES_MAX)
        return error_field(err, EINVAL, FIELD, "has more than %d bytes of notes", NOTES_BYTES_MAX);
    result = boot_file_read(fd, header->p_offset, notes, size, FIELD, err);
    if (result < 0)
        return result;
    return find_entry(notes, size, ret_entry);
}

static int check_entry(const struct boot_elf *elf, struct error *err)
{
    for (size_t i = 0; i < elf->segment_count; i++) {
        const Elf64_Phdr *segment = &elf->segments[i];

        if (elf->entry >= segment->p_paddr && elf->entry - segment->p_paddr < segment->p_filesz)
            return 0;
    }
    return error_field(err, EINVAL, FIELD, "has a PVH entry %#x outside of its segments",
                       elf->entry);
}

int boot_elf_read(int fd, uint64_t memory_end, struct boot_elf *ret_elf, struct error *err)
{
    struct boot_elf elf = { 0 };
    bool has_entry = false;
    Elf64_Ehdr header = { 0 };
    uint64_t file_bytes = 0;
    int result = boot_file_size(fd, FIELD, &file_bytes, err);

    if (result == 0)
        result = read_header(fd, file_bytes, &header, err);
    if (result < 0)
        return result;
    for (unsigned i = 0; i < header.e_phnum && result >= 0; i++) {
        Elf64_Phdr program;

        result = boot_file_read(fd, header.e_phoff + i * sizeof program, &program, sizeof program,
                                FIELD, err);
        if (result < 0)
            return result;
        if (program.p_type == PT_LOAD && program.p_memsz > 0) {
            result = check_segment(&program, file_bytes, memory_end, err);
            if (result == 0)
                result = add_segment(&elf, &program, err);
        } else if (program.p_type == PT_NOTE && !has_entry) {
            result = read_notes(fd, &program, file_bytes, &elf.entry, err);
            has_entry = result == 1;
        }
    }
    if (result < 0)
        return result;
    if (!has_entry)
        return error_field(err, EINVAL, FIELD,
                           "has no PVH entry: a Linux kernel needs CONFIG_PVH=y");
    result = check_entry(&elf, err);
    if (result == 0)
        *ret_elf = elf;
    return result;
}

/* Guest memory is fresh and zero, so what a segment has no bytes for is zero already. */
int boot_elf_load(const struct boot_elf *elf, int fd, struct guest_memory *memory,
                  struct error *err)
{
    int result = 0;

    for (size_t i = 0; i < elf->segment_count && result == 0; i++) {
        const Elf64_Phdr *segment = &elf->segments[i];

        result = boot_file_load(fd, segment->p_offset, segment->p_filesz, memory, segment->p_paddr,
                                FIELD, err);
    }
    return result;
}
