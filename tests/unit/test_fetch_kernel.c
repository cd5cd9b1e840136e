/* Kernels that strangers wrote: good ones are recognised, each lie of a header is refused, and no
 * byte past the end is read (the bytes lie before an unmapped page). */
#include <elf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "storage/fetch_kernel.h"

#define PAGE   4096u
#define LOADED 0x1000000ull
#define ENTRY  (LOADED + 0x10)

/* An ELF kernel of one file page: headers, a note, one segment's bytes. */
struct elf_kernel {
    Elf64_Ehdr header;
    Elf64_Phdr segments[3]; /* load, load without file bytes, note */
    struct note {
        Elf64_Nhdr header;
        char name[4];
        uint64_t entry;
    } notes[2];
    uint8_t text[64];
};

static struct elf_kernel good_elf(void)
{
    struct elf_kernel kernel = {
        .header = { .e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB },
                    .e_type = ET_EXEC,
                    .e_machine = EM_X86_64,
                    .e_phoff = offsetof(struct elf_kernel, segments),
                    .e_phentsize = sizeof(Elf64_Phdr),
                    .e_phnum = 3 },
        .segments = { { .p_type = PT_LOAD,
                        .p_offset = offsetof(struct elf_kernel, text),
                        .p_paddr = LOADED,
                        .p_filesz = 64,
                        .p_memsz = 4096 },
                      { .p_type = PT_LOAD, .p_paddr = LOADED + 4096, .p_memsz = 4096 },
                      { .p_type = PT_NOTE,
                        .p_offset = offsetof(struct elf_kernel, notes),
                        .p_filesz = 2 * sizeof(struct note),
                        .p_align = 4 } },
        .notes = { { { 4, 8, 6 }, "Xen", 0 }, { { 4, 8, 18 }, "Xen", ENTRY } },
    };

    return kernel;
}

/* So that the last byte is the last that can be read. */
static int inspect(const void *bytes, size_t size, struct kernel_image *ret_image,
                   struct error *err)
{
    size_t room = (size / PAGE + 2) * PAGE;
    uint8_t *map = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint8_t *at;
    int result;

    assert_true(map != MAP_FAILED);
    at = map + room - PAGE - size;
    memcpy(at, bytes, size);
    assert_int_equal(mprotect(map + room - PAGE, PAGE, PROT_NONE), 0);
    result = kernel_inspect(at, size, ret_image, err);
    munmap(map, room);
    return result;
}

static void assert_refused(const void *bytes, size_t size, const char *why)
{
    struct kernel_image image = { .payload_size = 77 };
    struct error err = { 0 };

    assert_int_equal(inspect(bytes, size, &image, &err), -EINVAL);
    assert_string_equal(err.field, "spec.source");
    if (!strstr(err.message, why))
        fail_msg("'%s' does not say '%s'", err.message, why);
    assert_int_equal(image.payload_size, 77);
}

static void an_elf_with_a_pvh_note_is_taken(void **state)
{
    struct elf_kernel kernel = good_elf();
    struct kernel_image image;

    (void)state;
    assert_int_equal(inspect(&kernel, sizeof kernel, &image, NULL), 0);
    assert_int_equal(image.shape, KERNEL_SHAPE_ELF);
    assert_true(image.has_pvh);
    assert_int_equal(image.pvh_entry, ENTRY);
}

static void a_note_that_lies_is_no_note(void **state)
{
    struct elf_kernel kernels[7];
    struct kernel_image image;

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(kernels); i++)
        kernels[i] = good_elf();
    kernels[0].notes[1].header.n_type = 17;
    kernels[1].notes[1].name[0] = 'Y';
    kernels[2].notes[0].header.n_namesz = 0xffffffff;
    kernels[3].notes[0].header.n_descsz = 0xfffffff0;
    kernels[4].notes[1].header.n_descsz = 9;
    kernels[5].segments[2].p_filesz = sizeof(struct note) + 8;
    kernels[6].notes[1].header.n_type = 17; /* its padding reaches past the segment */
    kernels[6].notes[1].header.n_descsz = 7;
    kernels[6].segments[2].p_filesz = 2 * sizeof(struct note) - 1;
    for (size_t i = 0; i < ARRAY_LENGTH(kernels); i++) {
        assert_int_equal(inspect(&kernels[i], sizeof kernels[i], &image, NULL), 0);
        if (image.has_pvh)
            fail_msg("kernel %zu has no PVH note", i);
    }
}

static void an_entry_outside_of_the_segments_is_refused(void **state)
{
    static const uint64_t entries[] = { 0, LOADED - 1, LOADED + 64, LOADED + 4096, 0xffffffff };
    struct elf_kernel kernel = good_elf();

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(entries); i++) {
        kernel.notes[1].entry = entries[i];
        assert_refused(&kernel, sizeof kernel, "PVH entry");
    }
}

struct lie {
    const char *why;
    void (*tell)(struct elf_kernel *kernel);
};

static void class_32(struct elf_kernel *kernel)
{
    kernel->header.e_ident[EI_CLASS] = ELFCLASS32;
}
static void big_endian(struct elf_kernel *kernel)
{
    kernel->header.e_ident[EI_DATA] = ELFDATA2MSB;
}
static void other_machine(struct elf_kernel *kernel)
{
    kernel->header.e_machine = EM_AARCH64;
}
static void relocatable(struct elf_kernel *kernel)
{
    kernel->header.e_type = ET_REL;
}
static void no_segments(struct elf_kernel *kernel)
{
    kernel->header.e_phnum = 0;
}
static void many_segments(struct elf_kernel *kernel)
{
    kernel->header.e_phnum = 65535;
}
static void small_segment_headers(struct elf_kernel *kernel)
{
    kernel->header.e_phentsize = 32;
}
static void headers_past_the_end(struct elf_kernel *kernel)
{
    kernel->header.e_phoff = sizeof *kernel - 100;
}
static void headers_that_wrap(struct elf_kernel *kernel)
{
    kernel->header.e_phoff = UINT64_MAX - 100;
}
static void file_bytes_past_the_end(struct elf_kernel *kernel)
{
    kernel->segments[0].p_filesz = kernel->segments[0].p_memsz = sizeof *kernel;
}
static void offset_that_wraps(struct elf_kernel *kernel)
{
    kernel->segments[0].p_offset = UINT64_MAX - 10;
}
static void note_past_the_end(struct elf_kernel *kernel)
{
    kernel->segments[2].p_filesz = UINT64_MAX;
}
static void less_memory_than_file(struct elf_kernel *kernel)
{
    kernel->segments[0].p_memsz = 63;
}
static void memory_of_2_63(struct elf_kernel *kernel)
{
    kernel->segments[0].p_memsz = 1ull << 63;
}
static void address_that_wraps(struct elf_kernel *kernel)
{
    kernel->segments[0].p_paddr = UINT64_MAX - 100;
}
static void address_above_4_gib(struct elf_kernel *kernel)
{
    kernel->segments[1].p_paddr = (1ull << 32) - 4095;
}
static void overlap(struct elf_kernel *kernel)
{
    kernel->segments[1].p_paddr = LOADED + 4095;
}
static void overlap_from_below(struct elf_kernel *kernel)
{
    kernel->segments[1].p_paddr = LOADED - 4095;
}
static void nothing_to_load(struct elf_kernel *kernel)
{
    kernel->segments[0].p_type = kernel->segments[1].p_type = PT_NULL;
}

static const struct lie lies[] = {
    { "not for x86-64", class_32 },
    { "not for x86-64", big_endian },
    { "not for x86-64", other_machine },
    { "not a program", relocatable },
    { "program headers", no_segments },
    { "65535 program headers", many_segments },
    { "of 32 bytes", small_segment_headers },
    { "headers are truncated", headers_past_the_end },
    { "headers are truncated", headers_that_wrap },
    { "segment 0 reaches past the end", file_bytes_past_the_end },
    { "segment 0 reaches past the end", offset_that_wraps },
    { "segment 2 reaches past the end", note_past_the_end },
    { "segment 0 is larger in the file", less_memory_than_file },
    { "segment 0 does not lie below 4 GiB", memory_of_2_63 },
    { "segment 0 does not lie below 4 GiB", address_that_wraps },
    { "segment 1 does not lie below 4 GiB", address_above_4_gib },
    { "segments 0 and 1 overlap", overlap },
    { "segments 0 and 1 overlap", overlap_from_below },
    { "nothing to load", nothing_to_load },
};

static void every_lie_of_an_elf_header_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(lies); i++) {
        struct elf_kernel kernel = good_elf();

        lies[i].tell(&kernel);
        assert_refused(&kernel, sizeof kernel, lies[i].why);
    }
}

static void every_truncation_of_an_elf_is_survived(void **state)
{
    struct elf_kernel kernel = good_elf();

    (void)state;
    for (size_t size = 0; size < sizeof kernel; size++)
        assert_refused(&kernel, size, "");
}

/* --- bzImages --- */

#define SETUP   (5 * 512)
#define SYSTEM  4096
#define PAYLOAD 1024

static void put_16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

static void put_32(uint8_t *at, uint32_t value)
{
    put_16(at, value & 0xffff);
    put_16(at + 2, value >> 16);
}

static void good_bzimage(uint8_t bytes[SETUP + SYSTEM])
{
    memset(bytes, 0, SETUP + SYSTEM);
    bytes[0x1f1] = 4;
    put_32(bytes + 0x1f4, SYSTEM / 16);
    put_16(bytes + 0x1fe, 0xaa55);
    memcpy(bytes + 0x202, "HdrS", 4);
    put_16(bytes + 0x206, 0x20f);
    bytes[0x211] = 1;
    put_16(bytes + 0x236, 1);
    put_32(bytes + 0x248, PAYLOAD);
    put_32(bytes + 0x24c, SYSTEM - PAYLOAD);
}

static void a_bzimage_is_taken(void **state)
{
    uint8_t bytes[SETUP + SYSTEM];
    struct kernel_image image;

    (void)state;
    good_bzimage(bytes);
    assert_int_equal(inspect(bytes, sizeof bytes, &image, NULL), 0);
    assert_int_equal(image.shape, KERNEL_SHAPE_BZIMAGE);
    assert_true(image.has_entry_64);
    assert_int_equal(image.payload_offset, SETUP + PAYLOAD);
    assert_int_equal(image.payload_size, SYSTEM - PAYLOAD);

    bytes[0x1f1] = 0; /* means 4 */
    assert_int_equal(inspect(bytes, sizeof bytes, &image, NULL), 0);
    assert_int_equal(image.payload_offset, SETUP + PAYLOAD);
}

static void what_a_bzimage_lacks_for_its_64_bit_entry(void **state)
{
    uint8_t bytes[SETUP + SYSTEM];
    struct kernel_image image;

    (void)state;
    good_bzimage(bytes);
    put_16(bytes + 0x236, 0);
    assert_int_equal(inspect(bytes, sizeof bytes, &image, NULL), 0);
    assert_false(image.has_entry_64);

    good_bzimage(bytes);
    put_16(bytes + 0x206, 0x20b);
    assert_int_equal(inspect(bytes, sizeof bytes, &image, NULL), 0);
    assert_false(image.has_entry_64);

    good_bzimage(bytes);
    put_32(bytes + 0x1f4, SYSTEM / 16 + 1);
    assert_int_equal(inspect(bytes, sizeof bytes, &image, NULL), 0);
    assert_false(image.has_entry_64);
}

static void every_lie_of_a_bzimage_header_is_refused(void **state)
{
    uint8_t bytes[SETUP + SYSTEM];

    (void)state;
    good_bzimage(bytes);
    put_16(bytes + 0x206, 0x207);
    assert_refused(bytes, sizeof bytes, "too old");
    good_bzimage(bytes);
    bytes[0x211] = 0;
    assert_refused(bytes, sizeof bytes, "too old");
    good_bzimage(bytes);
    bytes[0x1f1] = 255;
    assert_refused(bytes, sizeof bytes, "set-up part");
    good_bzimage(bytes);
    bytes[0x1f1] = 12;
    assert_refused(bytes, sizeof bytes, "set-up part");
    good_bzimage(bytes);
    put_32(bytes + 0x248, SYSTEM - 4);
    assert_refused(bytes, sizeof bytes, "payload");
    good_bzimage(bytes);
    put_32(bytes + 0x24c, SYSTEM - PAYLOAD + 1);
    assert_refused(bytes, sizeof bytes, "payload");
    good_bzimage(bytes);
    put_32(bytes + 0x24c, 7);
    assert_refused(bytes, sizeof bytes, "payload");
    good_bzimage(bytes);
    put_32(bytes + 0x248, 0xffffffff);
    put_32(bytes + 0x24c, 0xffffffff);
    assert_refused(bytes, sizeof bytes, "payload");
    good_bzimage(bytes);
    bytes[0x1fe] = 0;
    assert_refused(bytes, sizeof bytes, "not a kernel");
    good_bzimage(bytes);
    bytes[0x202] = 'h';
    assert_refused(bytes, sizeof bytes, "not a kernel");
}

static void every_truncation_of_a_bzimage_is_survived(void **state)
{
    uint8_t bytes[SETUP + SYSTEM];

    (void)state;
    good_bzimage(bytes);
    for (size_t size = 0; size < sizeof bytes; size += size < 1024 ? 1 : 61)
        assert_refused(bytes, size, "");
}

/* Any 300 random changes: no verdict is wrong, reading past the end would crash. */
static void random_damage_is_survived(void **state)
{
    struct elf_kernel kernel;
    uint8_t bytes[SETUP + SYSTEM];
    struct kernel_image image;

    (void)state;
    srand(20);
    for (int round = 0; round < 20000; round++) {
        uint8_t *at = (uint8_t *)&kernel;

        kernel = good_elf();
        good_bzimage(bytes);
        for (int i = 0; i < 3; i++) {
            at[(size_t)rand() % sizeof kernel] = (uint8_t)rand();
            bytes[0x1f1 + (size_t)rand() % 0x70] = (uint8_t)rand();
        }
        (void)inspect(&kernel, sizeof kernel, &image, NULL);
        if (inspect(bytes, sizeof bytes, &image, NULL) == 0 && image.shape == KERNEL_SHAPE_BZIMAGE)
            assert_true(image.payload_offset + image.payload_size <= sizeof bytes);
    }
}

static void packings_are_told_by_their_magic(void **state)
{
    (void)state;
    assert_int_equal(kernel_payload_packing((const uint8_t *)"\x1f\x8b\x08\0\0", 5),
                     KERNEL_PACKING_GZIP);
    assert_int_equal(kernel_payload_packing((const uint8_t *)"\x02\x21\x4c\x18\0", 5),
                     KERNEL_PACKING_LZ4);
    assert_int_equal(kernel_payload_packing((const uint8_t *)"\x28\xb5\x2f\xfd\0", 5),
                     KERNEL_PACKING_ZSTD);
    assert_int_equal(kernel_payload_packing((const uint8_t *)"\xfd\x37zXZ\0\0", 7),
                     KERNEL_PACKING_XZ);
    assert_int_equal(kernel_payload_packing((const uint8_t *)"\x89LZO\0", 5),
                     KERNEL_PACKING_UNKNOWN);
    assert_int_equal(kernel_payload_packing((const uint8_t *)"\x1f", 1), KERNEL_PACKING_UNKNOWN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_elf_with_a_pvh_note_is_taken),
        cmocka_unit_test(a_note_that_lies_is_no_note),
        cmocka_unit_test(an_entry_outside_of_the_segments_is_refused),
        cmocka_unit_test(every_lie_of_an_elf_header_is_refused),
        cmocka_unit_test(every_truncation_of_an_elf_is_survived),
        cmocka_unit_test(a_bzimage_is_taken),
        cmocka_unit_test(what_a_bzimage_lacks_for_its_64_bit_entry),
        cmocka_unit_test(every_lie_of_a_bzimage_header_is_refused),
        cmocka_unit_test(every_truncation_of_a_bzimage_is_survived),
        cmocka_unit_test(random_damage_is_survived),
        cmocka_unit_test(packings_are_told_by_their_magic),
    };

    return cmocka_run_group_tests_name("fetch_kernel", tests, NULL, NULL);
}
