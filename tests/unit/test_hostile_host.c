/* test_hostile_host.c - hostile guests, cases 20 and 23 to 26 of tests/HOSTILE.md: what reaches the
 * host beside the rings: kernels, the run directory, descriptors, the serial port, numbers of the
 * API. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "agent/node_internal.h"
#include "agent/vm_spec.h"
#include "tests/unit/memory_harness.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"
#include "vmm/boot_linux.h"
#include "vmm/config.h"
#include "vmm/mmio_bus.h"
#include "vmm/platform.h"
#include "vmm/serial.h"
#include "vmm/vcpu.h"

#define FLOOD_BYTES (8u << 20)

/* --- case 20: kernels --- */

#define KERNEL_BYTES 8192

/* A small kernel that loads: ELF with a PVH note, or bzImage. */
static void put(uint8_t *file, size_t offset, uint64_t value, unsigned width)
{
    memcpy(file + offset, &value, width);
}

static void valid_elf(uint8_t *file)
{
    const Elf64_Ehdr header = {
        .e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
        .e_machine = EM_X86_64,
        .e_phoff = 64,
        .e_phentsize = sizeof(Elf64_Phdr),
        .e_phnum = 3,
    };
    const Elf64_Phdr programs[] = {
        { .p_type = PT_LOAD,
          .p_offset = 4096,
          .p_paddr = 1 << 20,
          .p_filesz = 4000,
          .p_memsz = 4000 },
        { .p_type = PT_LOAD,
          .p_offset = 8096,
          .p_paddr = 2 << 20,
          .p_filesz = 96,
          .p_memsz = 4096 },
        { .p_type = PT_NOTE, .p_offset = 1024, .p_filesz = 20 },
    };
    const uint32_t note[] = { 4, 4, 18, 0x006e6558, (1 << 20) + 16 }; /* "Xen" */

    memset(file, 0, KERNEL_BYTES);
    memcpy(file, &header, sizeof(header));
    memcpy(file + 64, programs, sizeof(programs));
    memcpy(file + 1024, note, sizeof(note));
}

static void valid_bzimage(uint8_t *file)
{
    memset(file, 0, KERNEL_BYTES);
    put(file, 0x1f1, 1, 1);                          /* setup_sects */
    put(file, 0x1f4, (KERNEL_BYTES - 1024) / 16, 4); /* syssize */
    put(file, 0x1fe, 0xaa55, 2);                     /* boot_flag */
    put(file, 0x200, 0x6aeb, 2);                     /* jump: the header's length */
    put(file, 0x202, 0x53726448, 4);                 /* HdrS */
    put(file, 0x206, 0x20f, 2);                      /* version */
    put(file, 0x211, 1, 1);                          /* LOADED_HIGH */
    put(file, 0x22c, 0x7fffffff, 4);                 /* initrd_addr_max */
    put(file, 0x230, 0x200000, 4);                   /* kernel_alignment */
    put(file, 0x236, 1, 2);                          /* XLF_KERNEL_64 */
    put(file, 0x238, 255, 4);                        /* cmdline_size */
    put(file, 0x258, 0x100000, 8);                   /* pref_address */
    put(file, 0x260, 0x100000, 4);                   /* init_size */
}

/* 0 or the loader's error; guest memory below the kernel's is as before if it failed. */
static int load(enum vmm_kernel_format format, const uint8_t *file, size_t size,
                const char *cmdline, size_t initrd_bytes)
{
    auto_close int fd = memfd_create("kernel", MFD_CLOEXEC);
    auto_close int initrd = memfd_create("initrd", MFD_CLOEXEC);
    struct boot_spec spec = {
        .format = format, .kernel_fd = fd, .initrd_fd = -1, .cmdline = cmdline
    };
    struct vcpu_entry entry = { .rip = 77 };
    struct guest_memory *memory;
    struct error err = { 0 };
    int result;

    assert_int_equal(write(fd, file, size), size);
    if (initrd_bytes > 0) {
        assert_int_equal(ftruncate(initrd, (off_t)initrd_bytes), 0);
        spec.initrd_fd = initrd;
    }
    assert_int_equal(guest_memory_new(8 << 20, &memory, NULL), 0);
    result = boot_linux_load(memory, &spec, &entry, &err);
    if (result < 0)
        assert_int_equal(entry.rip, 77);
    assert_true(result == 0 || err.field[0] != '\0'); /* says what is wrong */
    guest_memory_free(memory);
    return result;
}

#define PROGRAM(n, member) (64 + (n) * sizeof(Elf64_Phdr) + offsetof(Elf64_Phdr, member))

static const struct lie {
    size_t offset;
    uint64_t value;
    unsigned width;
} elf_lies[] = {
    { offsetof(Elf64_Ehdr, e_phnum), 65535, 2 },
    { offsetof(Elf64_Ehdr, e_phnum), 0, 2 },
    { offsetof(Elf64_Ehdr, e_phoff), KERNEL_BYTES - 8, 8 },
    { offsetof(Elf64_Ehdr, e_phoff), UINT64_MAX - 100, 8 },
    { offsetof(Elf64_Ehdr, e_phentsize), 1, 2 },
    { PROGRAM(0, p_filesz), KERNEL_BYTES, 8 },
    { PROGRAM(0, p_filesz), UINT64_MAX, 8 },
    { PROGRAM(0, p_offset), UINT64_MAX - 4095, 8 },
    { PROGRAM(1, p_memsz), 1ull << 63, 8 },
    { PROGRAM(1, p_memsz), UINT64_MAX - (2 << 20) + 1, 8 },
    { PROGRAM(1, p_memsz), 8 << 20, 8 },
    { PROGRAM(1, p_memsz), 95, 8 },
    { PROGRAM(1, p_paddr), (1 << 20) + 3999, 8 }, /* over the first */
    { PROGRAM(1, p_paddr), 1 << 20, 8 },
    { PROGRAM(1, p_paddr), 0x7000, 8 }, /* over the boot data */
    { PROGRAM(1, p_paddr), (8 << 20) - 1, 8 },
    { PROGRAM(1, p_paddr), GUEST_HOLE_START, 8 },
    { PROGRAM(1, p_paddr), UINT64_MAX, 8 },
    { PROGRAM(2, p_filesz), UINT64_MAX, 8 },
    { PROGRAM(2, p_offset), UINT64_MAX, 8 },
    { 1024, UINT32_MAX, 4 }, /* the note's name */
    { 1028, UINT32_MAX, 4 }, /* and value */
    { 1040, 0, 4 },          /* the entry */
    { 1040, 2 << 20 | 100, 4 },
};

static const struct lie bzimage_lies[] = {
    { 0x1f1, 255, 1 },
    { 0x1f1, 15, 1 },
    { 0x1f4, 0, 4 },
    { 0x1f4, UINT32_MAX, 4 },
    { 0x201, 0, 1 },
    { 0x230, 0, 4 },
    { 0x230, 3, 4 },
    { 0x230, 0x80000000, 4 },
    { 0x258, 0, 8 },
    { 0x258, 0x100001, 8 },
    { 0x258, 7 << 20 | 0x80000, 8 },
    { 0x258, UINT64_MAX - 4095, 8 },
    { 0x260, 0, 4 },
    { 0x260, UINT32_MAX, 4 },
    { 0x238, 2, 4 }, /* a shorter command line than ours */
};

static void case_20_kernels_that_lie(void **state)
{
    static char longest[VMM_CMDLINE_MAX + 1];
    uint8_t file[KERNEL_BYTES];

    (void)state;
    memset(longest, 'a', VMM_CMDLINE_MAX);
    valid_elf(file);
    assert_int_equal(load(VMM_KERNEL_ELF, file, sizeof(file), "idle", 4096), 0);
    assert_true(load(VMM_KERNEL_BZIMAGE, file, sizeof(file), "idle", 0) < 0);
    assert_true(load(VMM_KERNEL_ELF, file, sizeof(file), "idle", 8 << 20) < 0);
    assert_true(load(VMM_KERNEL_ELF, file, sizeof(file), "idle", 1ull << 40) < 0);
    for (size_t size = 1; size < sizeof(file); size += 41)
        assert_true(load(VMM_KERNEL_ELF, file, size, "idle", 0) < 0);
    for (size_t i = 0; i < ARRAY_LENGTH(elf_lies); i++) {
        valid_elf(file);
        put(file, elf_lies[i].offset, elf_lies[i].value, elf_lies[i].width);
        if (load(VMM_KERNEL_ELF, file, sizeof(file), "idle", 0) == 0)
            fail_msg("lie %zu of an ELF file was believed", i);
    }
    valid_bzimage(file);
    assert_int_equal(load(VMM_KERNEL_BZIMAGE, file, sizeof(file), "idle", 4096), 0);
    assert_true(load(VMM_KERNEL_ELF, file, sizeof(file), "idle", 0) < 0);
    assert_true(load(VMM_KERNEL_BZIMAGE, file, sizeof(file), longest, 0) < 0);
    assert_true(load(VMM_KERNEL_BZIMAGE, file, sizeof(file), "idle", 8 << 20) < 0);
    for (size_t i = 0; i < ARRAY_LENGTH(bzimage_lies); i++) {
        valid_bzimage(file);
        put(file, bzimage_lies[i].offset, bzimage_lies[i].value, bzimage_lies[i].width);
        if (load(VMM_KERNEL_BZIMAGE, file, sizeof(file), "idle", 0) == 0)
            fail_msg("lie %zu of a bzImage was believed", i);
    }
}

/* --- case 25: the serial port --- */

static void case_25_serial_flood(void **state)
{
    struct bus ports = { 0 };
    struct serial *serial;
    int fd = memfd_create("page", MFD_CLOEXEC), interrupt = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct stats_page *page;
    struct stat status;

    (void)state;
    assert_int_equal(ftruncate(fd, VMM_PAGE_BYTES), 0);
    page = mmap(NULL, VMM_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(page != MAP_FAILED);
    assert_int_equal(serial_new(&ports, interrupt, page, &serial, NULL), 0);
    bus_write(&ports, PLATFORM_PORT_COM1 + 1, "\x0f", 1); /* with every interrupt on */
    for (unsigned i = 0; i < FLOOD_BYTES; i++) {
        uint8_t byte = (uint8_t)('a' + i % 26);

        bus_write(&ports, PLATFORM_PORT_COM1, &byte, 1);
        if (i % 65536 == 0) /* from the host's side, too */
            (void)serial_input(serial, "aaaaaaaaaaaaaaaaaaaaaaaa", 24);
    }
    assert_int_equal(page->console_bytes, FLOOD_BYTES);
    assert_int_equal(fstat(fd, &status), 0);
    assert_int_equal(status.st_size, VMM_PAGE_BYTES);
    assert_true(status.st_blocks * 512 <= VMM_PAGE_BYTES);
    assert_int_equal(page->magic, 0); /* the counters before the ring */
    assert_int_equal(page->vcpu_exits[31][STATS_EXIT_OTHER], 0);
    free(serial);
    munmap(page, VMM_PAGE_BYTES);
    close(interrupt);
    close(fd);
}

/* --- case 26: MiB to bytes --- */

static int parse(const struct resource_ops *ops, const char *format, const char *number,
                 struct error *err)
{
    struct resource *resource = NULL;
    char text[256];
    json_t *json = NULL;
    int result;

    snprintf(text, sizeof text, format, number);
    result = json_parse(text, strlen(text), &json, err);
    if (result == 0)
        result = ops->parse(json, &resource, err);
    if (result == 0)
        ops->free(resource);
    json_decref(json);
    return result;
}

#define VM(more) "{\"vcpus\":1,\"memory_mib\":64," more "\"boot\":{\"kernel\":\"k\"}}"

static const struct {
    const struct resource_ops *ops;
    const char *format, *good;
    unsigned spared; /* of the last of too_much: what may be none */
} mib_fields[] = {
    { &vm_ops, "{\"memory_mib\":%s,\"boot\":{\"kernel\":\"k\"}}", "64", 0 },
    { &vm_ops, VM("\"memory_max_mib\":%s,"), "128", 1 },
    { &vm_ops, VM("\"memory_max_mib\":128,\"memory_target_mib\":%s,"), "66", 1 },
    { &vm_ops, VM("\"memory_min_mib\":%s,"), "32", 1 },
    { &vm_ops, VM("\"balloon\":{\"amount_mib\":%s},"), "32", 2 },
    { &volume_ops, "{\"size_mib\":%s}", "64", 0 },
};

static void case_26_mebibytes_that_overflow(void **state)
{
    static const char *const too_much[] = {
        "17592186044416", /* 2^44: 2^64 bytes */
        "17592186044417",
        "8796093022208",
        "8796093022207",
        "4398046511104",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551616",
        "-1",
        "-17592186044415",
        "1e300",
        "4294967297",
        "1.5",
        "\"64\"",
        "true",
        "0",
        "null",
    };
    static const uint64_t bytes[] = { 0,
                                      1,
                                      (1 << 20) - 1,
                                      (1 << 20) + 1,
                                      VMM_MEMORY_MAX + (1 << 20),
                                      1ull << 63,
                                      UINT64_MAX,
                                      UINT64_MAX - (1 << 20) + 1 };
    struct vmm_configure configure = {
        .header = { VMM_MESSAGE_CONFIGURE, VMM_PROTOCOL_VERSION, sizeof configure, 0 },
        .id = "vm",
        .vcpus = 1,
        .kernel_format = VMM_KERNEL_ELF,
        .memory_bytes = 64 << 20,
    };
    struct error err = { 0 };

    (void)state;
    for (size_t f = 0; f < ARRAY_LENGTH(mib_fields); f++) {
        assert_int_equal(parse(mib_fields[f].ops, mib_fields[f].format, mib_fields[f].good, &err),
                         0);
        for (size_t i = 0; i < ARRAY_LENGTH(too_much) - mib_fields[f].spared; i++)
            if (parse(mib_fields[f].ops, mib_fields[f].format, too_much[i], &err) == 0)
                fail_msg("%s of %s", mib_fields[f].format, too_much[i]);
    }
    assert_int_equal(config_validate(&configure, 3, &err), 0);
    for (size_t i = 0; i < ARRAY_LENGTH(bytes); i++) { /* and should the agent be mistaken */
        configure.memory_bytes = bytes[i];
        assert_int_equal(config_validate(&configure, 3, &err), -EINVAL);
        assert_string_equal(err.field, "memory_bytes");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(case_20_kernels_that_lie),
        cmocka_unit_test(case_25_serial_flood),
        cmocka_unit_test(case_26_mebibytes_that_overflow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
