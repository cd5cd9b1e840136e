/* test_boot_linux.c - kernels that lie: each is refused with the reason, and what is loaded is
 * where the protocols want it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <asm/bootparam.h>
#include <cmocka.h>
#include <elf.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "tests/unit/memory_harness.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "vmm/boot_bzimage.h"
#include "vmm/boot_elf.h"
#include "vmm/boot_linux.h"
#include "vmm/vcpu.h"

#define MIB          (1ull << 20)
#define MEMORY_BYTES (64 * MIB)
#define TEXT_OFFSET  4096
#define TEXT_BYTES   8000
#define NOTE_OFFSET  1024

/* A small but whole kernel: text with a partial last page, bss, a PVH note. */
struct elf_file {
    Elf64_Ehdr header;
    Elf64_Phdr programs[3];
    struct {
        Elf64_Nhdr header;
        char name[4];
        uint32_t entry;
    } note;
};

static struct elf_file valid_elf(void)
{
    struct elf_file elf = {
        .header = { .e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
                    .e_type = ET_EXEC,
                    .e_machine = EM_X86_64,
                    .e_phoff = offsetof(struct elf_file, programs),
                    .e_phentsize = sizeof(Elf64_Phdr),
                    .e_phnum = 3 },
        .programs = {
            { .p_type = PT_LOAD, .p_offset = TEXT_OFFSET, .p_paddr = MIB, .p_filesz = TEXT_BYTES,
              .p_memsz = TEXT_BYTES },
            { .p_type = PT_LOAD, .p_offset = TEXT_OFFSET + 8192, .p_paddr = 2 * MIB + 16,
              .p_filesz = 100, .p_memsz = MIB },
            { .p_type = PT_NOTE, .p_offset = NOTE_OFFSET, .p_filesz = sizeof elf.note },
        },
        .note = { .header = { .n_namesz = 4, .n_descsz = 4, .n_type = 18 }, .name = "Xen",
                  .entry = (uint32_t)MIB + 0x10 },
    };

    return elf;
}

static int elf_fd(const struct elf_file *elf)
{
    int fd = memfd_create("kernel", MFD_CLOEXEC);
    char text[16384 - TEXT_OFFSET];

    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)('a' + i % 26);
    assert_int_equal(pwrite(fd, elf, offsetof(struct elf_file, note), 0),
                     offsetof(struct elf_file, note));
    assert_int_equal(pwrite(fd, &elf->note, sizeof elf->note, NOTE_OFFSET), sizeof elf->note);
    assert_int_equal(pwrite(fd, text, sizeof text, TEXT_OFFSET), sizeof text);
    return fd;
}

static void a_valid_elf_is_read(void **state)
{
    struct elf_file elf = valid_elf();
    auto_close int fd = elf_fd(&elf);
    struct boot_elf read;

    (void)state;
    assert_int_equal(boot_elf_read(fd, MEMORY_BYTES, &read, NULL), 0);
    assert_int_equal(read.entry, MIB + 0x10);
    assert_int_equal(read.segment_count, 2);
    assert_int_equal(read.end, 3 * MIB + 16);
}

static void segments_may_follow_each_other(void **state)
{
    struct elf_file elf = valid_elf();
    struct boot_elf read;

    (void)state;
    elf.programs[1].p_paddr = MIB + TEXT_BYTES;
    for (unsigned order = 0; order < 2; order++) {
        auto_close int fd = elf_fd(&elf);
        Elf64_Phdr first = elf.programs[0];

        assert_int_equal(boot_elf_read(fd, MEMORY_BYTES, &read, NULL), 0);
        assert_int_equal(read.end, 2 * MIB + TEXT_BYTES);
        elf.programs[0] = elf.programs[1];
        elf.programs[1] = first;
    }
}

/* As Linux has them: the one that counts is not the first. */
static void a_note_is_found_behind_others(void **state)
{
    static const struct {
        Elf64_Nhdr header;
        char name[8], value[12];
    } other = { { .n_namesz = 5, .n_descsz = 9, .n_type = 18 }, "Xeno", "whatever" };
    struct elf_file elf = valid_elf();
    struct boot_elf read;

    (void)state;
    elf.programs[2].p_offset = NOTE_OFFSET - sizeof other;
    elf.programs[2].p_filesz += sizeof other;
    auto_close int fd = elf_fd(&elf);

    assert_int_equal(pwrite(fd, &other, sizeof other, NOTE_OFFSET - sizeof other), sizeof other);
    assert_int_equal(boot_elf_read(fd, MEMORY_BYTES, &read, NULL), 0);
    assert_int_equal(read.entry, MIB + 0x10);
}

#define FAULT(function, statement)           \
    static void function(struct elf_file *e) \
    {                                        \
        statement;                           \
    }
FAULT(no_magic, e->header.e_ident[0] = 0)
FAULT(class_32, e->header.e_ident[EI_CLASS] = ELFCLASS32)
FAULT(big_endian, e->header.e_ident[EI_DATA] = ELFDATA2MSB)
FAULT(other_machine, e->header.e_machine = EM_AARCH64)
FAULT(many_headers, e->header.e_phnum = 65535)
FAULT(no_headers, e->header.e_phnum = 0)
FAULT(headers_behind, e->header.e_phoff = 1 << 20)
FAULT(headers_wrap, e->header.e_phoff = UINT64_MAX - 8)
FAULT(odd_headers, e->header.e_phentsize = 55)
FAULT(file_lies, e->programs[0].p_filesz = e->programs[0].p_memsz = 1 << 20)
FAULT(offset_wraps, e->programs[0].p_offset = UINT64_MAX - 100)
FAULT(file_over_memory, e->programs[0].p_memsz = 1)
FAULT(huge_memory, e->programs[1].p_memsz = 1ull << 63)
FAULT(memory_wraps, e->programs[1].p_memsz = UINT64_MAX)
FAULT(out_of_memory, e->programs[1].p_paddr = MEMORY_BYTES - 4096)
FAULT(far_away, e->programs[1].p_paddr = UINT64_MAX - 4095)
FAULT(over_boot_data,
      (e->programs[0].p_paddr = BOOT_CMDLINE_START, e->note.entry = BOOT_CMDLINE_START + 0x10))
FAULT(overlapping, e->programs[1].p_paddr = MIB + TEXT_BYTES - 1)
FAULT(inside, e->programs[1].p_paddr = MIB - 1 + 16)
FAULT(no_note, e->programs[2].p_type = PT_NULL)
FAULT(other_note, e->note.header.n_type = 17)
FAULT(other_name, e->note.name[0] = 'Y')
FAULT(note_name_lies, e->note.header.n_namesz = UINT32_MAX)
FAULT(note_value_lies, e->note.header.n_descsz = UINT32_MAX)
FAULT(note_short, e->note.header.n_descsz = 3)
FAULT(note_behind, e->programs[2].p_offset = 1 << 20)
FAULT(note_wraps, e->programs[2].p_offset = UINT64_MAX - 8)
FAULT(note_huge, (e->programs[2].p_offset = 0, e->programs[2].p_filesz = 16000))
FAULT(entry_low, e->note.entry = 0x1000)
FAULT(entry_in_bss, e->note.entry = (uint32_t)(2 * MIB + 16 + 100))

static void (*const elf_faults[])(struct elf_file *) = {
    no_magic,       class_32,     big_endian,    other_machine, many_headers,   no_headers,
    headers_behind, headers_wrap, odd_headers,   file_lies,     offset_wraps,   file_over_memory,
    huge_memory,    memory_wraps, out_of_memory, far_away,      over_boot_data, overlapping,
    inside,         no_note,      other_note,    other_name,    note_name_lies, note_value_lies,
    note_short,     note_behind,  note_wraps,    note_huge,     entry_low,      entry_in_bss,
};

static void lying_elfs_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(elf_faults); i++) {
        struct elf_file elf = valid_elf();
        struct boot_elf read = { .end = 7 };
        struct error err = { 0 };

        elf_faults[i](&elf);
        auto_close int fd = elf_fd(&elf);

        if (boot_elf_read(fd, MEMORY_BYTES, &read, &err) != -EINVAL)
            fail_msg("fault %zu was taken", i);
        assert_string_equal(err.field, "kernel");
        assert_int_equal(read.end, 7); /* outputs untouched */
    }
}

static void short_files_are_refused(void **state)
{
    struct elf_file elf = valid_elf();
    auto_close int fd = elf_fd(&elf);
    struct boot_bzimage image;
    struct boot_elf read;

    (void)state;
    for (off_t size = TEXT_OFFSET + 8192 + 99; size >= 0; size -= size > 700 ? 499 : 1) {
        assert_int_equal(ftruncate(fd, size), 0);
        assert_int_equal(boot_elf_read(fd, MEMORY_BYTES, &read, NULL), -EINVAL);
        assert_int_equal(boot_bzimage_read(fd, MEMORY_BYTES, &image, NULL), -EINVAL);
    }
}

/* --- bzImage --- */

#define SETUP_SECTORS 3
#define CODE_BYTES    5000

static struct setup_header valid_bzimage(void)
{
    return (struct setup_header){
        .setup_sects = SETUP_SECTORS,
        .syssize = (CODE_BYTES + 15) / 16,
        .boot_flag = 0xaa55,
        .jump = 0x6aeb, /* the header ends at 0x26c */
        .header = 0x53726448,
        .version = 0x020f,
        .loadflags = LOADED_HIGH,
        .initrd_addr_max = 0x7fffffff,
        .kernel_alignment = 2 * MIB,
        .relocatable_kernel = 1,
        .xloadflags = 1,
        .cmdline_size = 2047,
        .pref_address = 16 * MIB,
        .init_size = 8 * MIB,
    };
}

static int bzimage_fd(const struct setup_header *header)
{
    int fd = memfd_create("kernel", MFD_CLOEXEC);
    off_t code = (SETUP_SECTORS + 1) * 512;

    assert_int_equal(ftruncate(fd, code + CODE_BYTES), 0);
    assert_int_equal(pwrite(fd, header, sizeof *header, 0x1f1), sizeof *header);
    assert_int_equal(pwrite(fd, "CODE", 4, code), 4);
    return fd;
}

static void a_valid_bzimage_is_read(void **state)
{
    struct setup_header header = valid_bzimage();
    auto_close int fd = bzimage_fd(&header);
    struct boot_bzimage image;

    (void)state;
    assert_int_equal(boot_bzimage_read(fd, MEMORY_BYTES, &image, NULL), 0);
    assert_int_equal(image.payload_offset, 2048);
    assert_int_equal(image.payload_bytes, CODE_BYTES);
    assert_int_equal(image.load, 16 * MIB);
    assert_int_equal(image.end, 24 * MIB);
    assert_int_equal(image.entry, 16 * MIB + 0x200);
    /* where it would rather be does not fit: it moves, if it can */
    for (uint64_t memory = 12 * MIB; memory < 24 * MIB; memory += 8 * MIB) {
        assert_int_equal(boot_bzimage_read(fd, memory, &image, NULL), 0);
        assert_int_equal(image.load, 2 * MIB);
    }
    assert_int_equal(boot_bzimage_read(fd, 24 * MIB, &image, NULL), 0);
    assert_int_equal(image.load, 16 * MIB);
    assert_int_equal(boot_bzimage_read(fd, 9 * MIB, &image, NULL), -EINVAL);
    assert_int_equal(ftruncate(fd, (SETUP_SECTORS + 1) * 512 + 6000), 0); /* signed */
    assert_int_equal(boot_bzimage_read(fd, MEMORY_BYTES, &image, NULL), 0);
    assert_int_equal(image.payload_bytes, header.syssize * 16);
}

#define HEADER_FAULT(function, statement)        \
    static void function(struct setup_header *h) \
    {                                            \
        statement;                               \
    }
HEADER_FAULT(no_boot_flag, h->boot_flag = 0)
HEADER_FAULT(no_header, h->header = 0)
HEADER_FAULT(old_version, h->version = 0x020b)
HEADER_FAULT(only_32, h->xloadflags = 0)
HEADER_FAULT(loaded_low, h->loadflags = 0)
HEADER_FAULT(many_sectors, h->setup_sects = 255)
HEADER_FAULT(no_code, h->syssize = 0)
HEADER_FAULT(tiny_code, h->syssize = 0x20)
HEADER_FAULT(much_code, h->syssize = UINT32_MAX)
HEADER_FAULT(more_code, h->syssize += 1)
HEADER_FAULT(odd_alignment, h->kernel_alignment = 3 * (uint32_t)MIB)
HEADER_FAULT(no_alignment, h->kernel_alignment = 0)
HEADER_FAULT(huge_alignment, h->kernel_alignment = 1u << 31)
HEADER_FAULT(small_init, h->init_size = CODE_BYTES - 1)
HEADER_FAULT(large_init, h->init_size = UINT32_MAX)
HEADER_FAULT(fixed_high, (h->relocatable_kernel = 0, h->pref_address = UINT64_MAX - 4095))
HEADER_FAULT(fixed_low, (h->relocatable_kernel = 0, h->pref_address = 0x10000))
HEADER_FAULT(fixed_odd, (h->relocatable_kernel = 0, h->pref_address = MIB + 1))
HEADER_FAULT(short_header, h->jump = 0x10eb)

static void (*const header_faults[])(struct setup_header *) = {
    no_boot_flag, no_header,  old_version, only_32,       loaded_low,   many_sectors,   no_code,
    tiny_code,    much_code,  more_code,   odd_alignment, no_alignment, huge_alignment, small_init,
    large_init,   fixed_high, fixed_low,   fixed_odd,     short_header,
};

static void lying_bzimages_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(header_faults); i++) {
        struct setup_header header = valid_bzimage();
        struct boot_bzimage image;
        struct error err = { 0 };

        header_faults[i](&header);
        auto_close int fd = bzimage_fd(&header);

        if (boot_bzimage_read(fd, MEMORY_BYTES, &image, &err) != -EINVAL)
            fail_msg("fault %zu was taken", i);
        assert_string_equal(err.field, "kernel");
    }
}

/* --- loading --- */

struct fixture {
    struct guest_memory *memory;
    int kernel, initrd;
};

static int load(struct fixture *f, enum vmm_kernel_format format, off_t initrd_bytes,
                struct vcpu_entry *entry, struct error *err)
{
    struct boot_spec spec = {
        .format = format,
        .kernel_fd = f->kernel,
        .initrd_fd = f->initrd,
        .cmdline = "console=ttyS0",
    };

    if (f->initrd >= 0)
        assert_int_equal(ftruncate(f->initrd, initrd_bytes), 0);
    return boot_linux_load(f->memory, &spec, entry, err);
}

static uint64_t guest_number(struct fixture *f, uint64_t guest, size_t bytes)
{
    uint64_t value = 0;

    assert_true(guest_memory_read(f->memory, guest, &value, bytes));
    return value;
}

static void set_up(struct fixture *f, int kernel)
{
    *f = (struct fixture){ .kernel = kernel, .initrd = memfd_create("initrd", MFD_CLOEXEC) };
    assert_int_equal(guest_memory_new(MEMORY_BYTES, &f->memory, NULL), 0);
}

static void tear_down(struct fixture *f)
{
    guest_memory_free(f->memory);
    close(f->kernel);
    close(f->initrd);
}

static void an_elf_starts_by_pvh(void **state)
{
    struct elf_file elf = valid_elf();
    struct vcpu_entry entry;
    struct fixture f;
    char text[16];

    (void)state;
    set_up(&f, elf_fd(&elf));
    assert_int_equal(load(&f, VMM_KERNEL_ELF, 5000, &entry, NULL), 0);
    assert_int_equal(entry.mode, VCPU_MODE_PROTECTED_32);
    assert_int_equal(entry.rip, MIB + 0x10);
    assert_int_equal(guest_number(&f, entry.rbx, 4), 0x336ec578);
    assert_int_equal(guest_number(&f, entry.rbx + 4, 4), 1);  /* version */
    assert_int_equal(guest_number(&f, entry.rbx + 12, 4), 1); /* modules */
    assert_int_equal(guest_number(&f, entry.rbx + 32, 8), BOOT_ACPI_START);
    uint64_t module = guest_number(&f, entry.rbx + 16, 8);

    assert_int_equal(guest_number(&f, module, 8), MEMORY_BYTES - 8192);
    assert_int_equal(guest_number(&f, module + 8, 8), 5000);
    assert_true(guest_memory_read(f.memory, guest_number(&f, entry.rbx + 24, 8), text, 14));
    assert_string_equal(text, "console=ttyS0");
    /* whole pages mapped, the rest read, what is behind it zero */
    assert_int_equal(guest_number(&f, MIB, 1), 'a');
    assert_int_equal(guest_number(&f, MIB + TEXT_BYTES - 1, 1), 'a' + (TEXT_BYTES - 1) % 26);
    assert_int_equal(guest_number(&f, MIB + TEXT_BYTES, 8), 0);
    assert_int_equal(guest_number(&f, 2 * MIB + 16, 1), 'a' + 8192 % 26);
    assert_int_equal(guest_number(&f, 2 * MIB + 116, 8), 0);
    /* a restart by the firmware's vector: mov $1, %al; mov $0x606, %dx; out %al, %dx */
    assert_int_equal(guest_number(&f, BOOT_RESET_VECTOR, 6), 0xee0606ba01b0);
    tear_down(&f);
}

static void a_bzimage_starts_in_long_mode(void **state)
{
    struct setup_header header = valid_bzimage();
    struct boot_params params;
    struct vcpu_entry entry;
    struct fixture f;

    (void)state;
    set_up(&f, bzimage_fd(&header));
    assert_int_equal(load(&f, VMM_KERNEL_BZIMAGE, 4096, &entry, NULL), 0);
    assert_int_equal(entry.mode, VCPU_MODE_LONG_64);
    assert_int_equal(entry.rip, 16 * MIB + 0x200);
    assert_int_equal(guest_number(&f, 16 * MIB, 4), 0x45444f43);
    assert_true(guest_memory_read(f.memory, entry.rsi, &params, sizeof params));
    assert_int_equal(params.hdr.ramdisk_image, MEMORY_BYTES - 4096);
    assert_int_equal(params.hdr.ramdisk_size, 4096);
    assert_int_equal(params.hdr.cmd_line_ptr, BOOT_CMDLINE_START);
    assert_int_equal(params.acpi_rsdp_addr, BOOT_ACPI_START);
    assert_true(params.e820_entries >= 3);
    /* the page tables map every 2 MiB of the first 4 GiB to itself */
    for (uint64_t address = 0; address < 1ull << 32; address += 2 * MIB) {
        uint64_t table = guest_number(&f, entry.cr3 + (address >> 39) * 8, 8) & ~0xfffull;

        table = guest_number(&f, table + (address >> 30 & 511) * 8, 8) & ~0xfffull;
        assert_int_equal(guest_number(&f, table + (address >> 21 & 511) * 8, 8), address | 0x83);
    }
    tear_down(&f);
}

static void a_bzimage_has_its_limits(void **state)
{
    struct setup_header header = valid_bzimage();
    struct error err = { 0 };
    struct vcpu_entry entry;
    struct fixture f;

    (void)state;
    header.initrd_addr_max = 32 * MIB - 1;
    header.cmdline_size = 13; /* "console=ttyS0" */
    set_up(&f, bzimage_fd(&header));
    assert_int_equal(load(&f, VMM_KERNEL_BZIMAGE, 5000, &entry, NULL), 0);
    assert_int_equal(
        guest_number(&f, entry.rsi + offsetof(struct boot_params, hdr.ramdisk_image), 4),
        32 * MIB - 8192);
    assert_int_equal(load(&f, VMM_KERNEL_BZIMAGE, (off_t)(8 * MIB), &entry, NULL), 0);
    assert_int_equal(load(&f, VMM_KERNEL_BZIMAGE, (off_t)(8 * MIB + 1), &entry, &err), -EINVAL);
    assert_string_equal(err.field, "initrd");
    header.cmdline_size = 12;
    assert_int_equal(pwrite(f.kernel, &header, sizeof header, 0x1f1), sizeof header);
    assert_int_equal(load(&f, VMM_KERNEL_BZIMAGE, 5000, &entry, &err), -EINVAL);
    assert_string_equal(err.field, "cmdline");
    tear_down(&f);
}

/* The same for both ways, with RAM above 4 GiB or not; what can be plugged is none. */
static void a_kernel_is_told_of_its_memory(void **state)
{
    static const struct {
        uint64_t start, size;
        uint32_t type;
    } want[] = {
        { 0, 0xa0000, 1 },      { BOOT_ACPI_START, 0x20000, 2 }, { 0xe0000000, MIB, 2 },
        { MIB, 3071 * MIB, 1 }, { 4096 * MIB, 1024 * MIB, 1 },
    };
    struct setup_header header = valid_bzimage();
    struct elf_file elf = valid_elf();
    const struct guest_memory_spec spec = { .bytes = 4096 * MIB, .hotplug_bytes = 8 * MIB };

    (void)state;
    for (int format = VMM_KERNEL_ELF; format <= VMM_KERNEL_BZIMAGE; format++) {
        bool is_elf = format == VMM_KERNEL_ELF;
        struct fixture f = { .kernel = is_elf ? elf_fd(&elf) : bzimage_fd(&header), .initrd = -1 };
        struct vcpu_entry entry;
        uint64_t map;

        assert_int_equal(guest_memory_make(&spec, &f.memory, NULL), 0);
        assert_int_equal(load(&f, (enum vmm_kernel_format)format, 0, &entry, NULL), 0);
        if (is_elf) {
            assert_int_equal(guest_number(&f, entry.rbx + 12, 4), 0); /* modules */
            assert_int_equal(guest_number(&f, entry.rbx + 48, 4), ARRAY_LENGTH(want));
            map = guest_number(&f, entry.rbx + 40, 8);
        } else {
            map = entry.rsi + offsetof(struct boot_params, e820_table);
            assert_int_equal(guest_number(&f, entry.rsi + 0x1e8, 1), ARRAY_LENGTH(want));
        }
        for (size_t i = 0; i < ARRAY_LENGTH(want); i++, map += is_elf ? 24 : 20) {
            assert_int_equal(guest_number(&f, map, 8), want[i].start);
            assert_int_equal(guest_number(&f, map + 8, 8), want[i].size);
            assert_int_equal(guest_number(&f, map + 16, 4), want[i].type);
        }
        guest_memory_free(f.memory);
        close(f.kernel);
    }
}

static void an_initrd_has_to_fit(void **state)
{
    struct elf_file elf = valid_elf();
    struct error err = { 0 };
    struct vcpu_entry entry;
    struct fixture f;

    (void)state;
    set_up(&f, elf_fd(&elf));
    assert_int_equal(load(&f, VMM_KERNEL_ELF, 0, &entry, &err), -EINVAL);
    assert_string_equal(err.field, "initrd");
    assert_int_equal(load(&f, VMM_KERNEL_ELF, (off_t)MEMORY_BYTES, &entry, &err), -EINVAL);
    assert_int_equal(load(&f, VMM_KERNEL_ELF, 1ll << 40, &entry, &err), -EINVAL);
    /* the kernel ends 16 bytes into a page */
    assert_int_equal(load(&f, VMM_KERNEL_ELF, (off_t)(MEMORY_BYTES - 3 * MIB), &entry, &err),
                     -EINVAL);
    assert_int_equal(load(&f, VMM_KERNEL_ELF, (off_t)(MEMORY_BYTES - 3 * MIB - 16), &entry, &err),
                     -EINVAL);
    assert_int_equal(load(&f, VMM_KERNEL_ELF, (off_t)(MEMORY_BYTES - 3 * MIB - 4096), &entry, NULL),
                     0);
    tear_down(&f);
}

static void descriptors_are_the_known_ones(void **state)
{
    uint64_t gdt[VCPU_GDT_ENTRIES];

    (void)state;
    vcpu_gdt(VCPU_MODE_PROTECTED_32, gdt);
    assert_true(gdt[2] == 0x00cf9b000000ffff && gdt[3] == 0x00cf93000000ffff);
    vcpu_gdt(VCPU_MODE_LONG_64, gdt);
    assert_true(gdt[2] == 0x00af9b000000ffff && gdt[4] == 0x00008b0000000067);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_valid_elf_is_read),
        cmocka_unit_test(segments_may_follow_each_other),
        cmocka_unit_test(a_note_is_found_behind_others),
        cmocka_unit_test(lying_elfs_are_refused),
        cmocka_unit_test(short_files_are_refused),
        cmocka_unit_test(a_valid_bzimage_is_read),
        cmocka_unit_test(lying_bzimages_are_refused),
        cmocka_unit_test(an_elf_starts_by_pvh),
        cmocka_unit_test(a_bzimage_starts_in_long_mode),
        cmocka_unit_test(a_bzimage_has_its_limits),
        cmocka_unit_test(a_kernel_is_told_of_its_memory),
        cmocka_unit_test(an_initrd_has_to_fit),
        cmocka_unit_test(descriptors_are_the_known_ones),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
