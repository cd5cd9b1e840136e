#include "vmm/boot_linux.h"

#include <asm/bootparam.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "base/error.h"
#include "vmm/boot_bzimage.h"
#include "vmm/boot_elf.h"
#include "vmm/boot_file.h"
#include "vmm/guest_memory.h"
#include "vmm/platform.h"
#include "vmm/vcpu.h"

#define MEMORY_RAM      1u /* the same numbers in E820 and PVH */
#define MEMORY_RESERVED 2u
#define MEMORY_MAP_MAX  6

#define LOADER_UNKNOWN 0xff

/* Linux restarts a hardware-reduced machine by EFI or, without it, by a jump to the firmware's
 * reset vector in real mode.  There it finds:  mov $1, %al; mov $0x606, %dx; out %al, %dx; 1: hlt;
 * jmp 1b */
static const uint8_t reset_code[] = {
    0xb0,
    PLATFORM_RESET_VALUE,
    0xba,
    PLATFORM_PORT_RESET & 0xff,
    PLATFORM_PORT_RESET >> 8,
    0xee,
    0xf4,
    0xeb,
    0xfd,
};

_Static_assert(sizeof reset_code <= BOOT_KERNEL_MIN - BOOT_RESET_VECTOR, "fits below 1 MiB");

#define START_INFO_MAGIC 0x336ec578u

#define PAGE_PRESENT 0x1ull
#define PAGE_WRITE   0x2ull
#define PAGE_LARGE   0x80ull
#define PAGE_ENTRIES 512u
#define IDENTITY_GIB 4u

struct memory_map {
    uint32_t count;
    struct memory_map_entry {
        uint64_t start, size;
        uint32_t type, reserved;
    } entries[MEMORY_MAP_MAX];
};

struct initrd {
    uint64_t start, size; /* size 0 = none */
};

/* Xen's public/arch-x86/hvm/start_info.h. */
struct start_info {
    uint32_t magic, version, flags, module_count;
    uint64_t modules, cmdline, rsdp, memory_map;
    uint32_t memory_map_count, reserved;
};

struct start_module {
    uint64_t start, size, cmdline, reserved;
};

struct start_page {
    struct start_info info;
    struct start_module module;
    struct memory_map_entry memory_map[MEMORY_MAP_MAX];
};

_Static_assert(sizeof(struct start_info) == 56, "PVH start info, version 1");
_Static_assert(sizeof(struct memory_map_entry) == 24, "PVH memory map entry");
_Static_assert(sizeof(struct start_page) <= BOOT_PARAMS_BYTES, "fits its page");
_Static_assert(sizeof(struct boot_params) <= BOOT_PARAMS_BYTES, "fits its page");

static void map_add(struct memory_map *map, uint64_t start, uint64_t end, uint32_t type)
{
    if (end > start)
        map->entries[map->count++] = (struct memory_map_entry){ start, end - start, type, 0 };
}

static void map_build(const struct guest_memory *memory, struct memory_map *map)
{
    *map = (struct memory_map){ 0 };
    map_add(map, 0, BOOT_LOW_RAM_END, MEMORY_RAM);
    map_add(map, BOOT_ACPI_START, BOOT_ACPI_START + BOOT_ACPI_BYTES, MEMORY_RESERVED);
    map_add(map, PLATFORM_ECAM_START, PLATFORM_ECAM_START + PLATFORM_ECAM_SIZE, MEMORY_RESERVED);
    for (size_t i = 0; i < guest_memory_region_count(memory); i++) {
        struct guest_memory_region region = guest_memory_region(memory, i);
        uint64_t start = region.guest_start ? region.guest_start : BOOT_KERNEL_MIN;

        if (!region.hotplug) /* Linux asks the device */
            map_add(map, start, region.guest_start + region.size, MEMORY_RAM);
    }
}

static int put(struct guest_memory *memory, uint64_t guest, const void *from, uint64_t size,
               struct error *err)
{
    if (!guest_memory_write(memory, guest, from, size))
        return error_set(err, EINVAL, "no guest memory at %#" PRIx64, guest);
    return 0;
}

/* One PML4, one PDPT and four page directories of 2 MiB pages: the first 4 GiB where they are. */
static int put_paging(struct guest_memory *memory, struct error *err)
{
    uint64_t bytes = (2 + IDENTITY_GIB) * BOOT_PAGE_BYTES;
    uint64_t *tables = guest_memory_map(memory, BOOT_PAGING_START, bytes);
    uint64_t pdpt = BOOT_PAGING_START + BOOT_PAGE_BYTES;
    uint64_t directories = pdpt + BOOT_PAGE_BYTES;

    if (!tables)
        return error_set(err, EINVAL, "no guest memory for page tables");
    tables[0] = pdpt | PAGE_PRESENT | PAGE_WRITE;
    for (uint64_t i = 0; i < IDENTITY_GIB; i++)
        tables[PAGE_ENTRIES + i] = (directories + i * BOOT_PAGE_BYTES) | PAGE_PRESENT | PAGE_WRITE;
    for (uint64_t i = 0; i < IDENTITY_GIB * PAGE_ENTRIES; i++)
        tables[2 * PAGE_ENTRIES + i] = i << 21 | PAGE_PRESENT | PAGE_WRITE | PAGE_LARGE;
    return 0;
}

/* At the top of memory below `end`, above the kernel; none (fd -1) leaves *ret_initrd as it is. */
static int load_initrd(struct guest_memory *memory, int fd, uint64_t kernel_end, uint64_t end,
                       struct initrd *ret_initrd, struct error *err)
{
    struct initrd initrd = { 0 };
    int result;

    if (fd < 0)
        return 0;
    result = boot_file_size(fd, "initrd", &initrd.size, err);
    if (result < 0)
        return result;
    if (initrd.size > end || ((end - initrd.size) & ~(BOOT_PAGE_BYTES - 1)) < kernel_end)
        return error_field(err, EINVAL, "initrd",
                           "of %" PRIu64 " MiB does not fit beside the kernel: give the guest more "
                           "memory",
                           (initrd.size + (1u << 20) - 1) >> 20);
    initrd.start = (end - initrd.size) & ~(BOOT_PAGE_BYTES - 1);
    result = boot_file_load(fd, 0, initrd.size, memory, initrd.start, "initrd", err);
    if (result == 0)
        *ret_initrd = initrd;
    return result;
}

static uint64_t low_memory_end(const struct guest_memory *memory)
{
    return guest_memory_region(memory, 0).size;
}

static int load_elf(struct guest_memory *memory, const struct boot_spec *spec,
                    struct vcpu_entry *entry, struct error *err)
{
    struct start_page page = { 0 };
    struct memory_map map;
    struct initrd initrd = { 0 };
    struct boot_elf elf;
    int result = boot_elf_read(spec->kernel_fd, low_memory_end(memory), &elf, err);

    if (result == 0)
        result = boot_elf_load(&elf, spec->kernel_fd, memory, err);
    if (result == 0)
        result =
            load_initrd(memory, spec->initrd_fd, elf.end, low_memory_end(memory), &initrd, err);
    if (result < 0)
        return result;
    map_build(memory, &map);
    memcpy(page.memory_map, map.entries, sizeof page.memory_map);
    page.module = (struct start_module){ .start = initrd.start, .size = initrd.size };
    page.info = (struct start_info){
        .magic = START_INFO_MAGIC,
        .version = 1,
        .module_count = initrd.size ? 1 : 0,
        .modules = initrd.size ? BOOT_PARAMS_START + offsetof(struct start_page, module) : 0,
        .cmdline = BOOT_CMDLINE_START,
        .rsdp = BOOT_ACPI_START,
        .memory_map = BOOT_PARAMS_START + offsetof(struct start_page, memory_map),
        .memory_map_count = map.count,
    };
    *entry = (struct vcpu_entry){
        .mode = VCPU_MODE_PROTECTED_32,
        .rip = elf.entry,
        .rbx = BOOT_PARAMS_START,
    };
    return put(memory, BOOT_PARAMS_START, &page, sizeof page, err);
}

static int put_zero_page(struct guest_memory *memory, const struct boot_bzimage *image,
                         const struct initrd *initrd, struct error *err)
{
    struct boot_params params = { 0 };
    struct memory_map map;

    map_build(memory, &map);
    params.hdr = image->header;
    params.hdr.type_of_loader = LOADER_UNKNOWN;
    params.hdr.cmd_line_ptr = BOOT_CMDLINE_START;
    params.hdr.code32_start = (uint32_t)image->load;
    params.hdr.ramdisk_image = (uint32_t)initrd->start;
    params.hdr.ramdisk_size = (uint32_t)initrd->size;
    params.acpi_rsdp_addr = BOOT_ACPI_START;
    params.e820_entries = (uint8_t)map.count;
    for (uint32_t i = 0; i < map.count; i++)
        params.e820_table[i] = (struct boot_e820_entry){
            .addr = map.entries[i].start,
            .size = map.entries[i].size,
            .type = map.entries[i].type,
        };
    return put(memory, BOOT_PARAMS_START, &params, sizeof params, err);
}

static int load_bzimage(struct guest_memory *memory, const struct boot_spec *spec,
                        struct vcpu_entry *entry, struct error *err)
{
    struct boot_bzimage image;
    struct initrd initrd = { 0 };
    uint64_t initrd_end;
    int result = boot_bzimage_read(spec->kernel_fd, low_memory_end(memory), &image, err);

    if (result < 0)
        return result;
    if (strlen(spec->cmdline) > image.header.cmdline_size)
        return error_field(err, EINVAL, "cmdline", "is longer than this kernel's %u characters",
                           image.header.cmdline_size);
    initrd_end = (uint64_t)image.header.initrd_addr_max + 1;
    if (initrd_end > low_memory_end(memory))
        initrd_end = low_memory_end(memory);
    result = boot_file_load(spec->kernel_fd, image.payload_offset, image.payload_bytes, memory,
                            image.load, "kernel", err);
    if (result == 0)
        result = load_initrd(memory, spec->initrd_fd, image.end, initrd_end, &initrd, err);
    if (result == 0)
        result = put_zero_page(memory, &image, &initrd, err);
    if (result == 0)
        result = put_paging(memory, err);
    if (result < 0)
        return result;
    *entry = (struct vcpu_entry){
        .mode = VCPU_MODE_LONG_64,
        .rip = image.entry,
        .rsi = BOOT_PARAMS_START,
        .rsp = BOOT_PARAMS_START,
        .cr3 = BOOT_PAGING_START,
    };
    return 0;
}

int boot_linux_load(struct guest_memory *memory, const struct boot_spec *spec,
                    struct vcpu_entry *ret_entry, struct error *err)
{
    uint64_t gdt[VCPU_GDT_ENTRIES];
    struct vcpu_entry entry;
    int result = put(memory, BOOT_CMDLINE_START, spec->cmdline, strlen(spec->cmdline) + 1, err);

    if (result == 0)
        result = put(memory, BOOT_RESET_VECTOR, reset_code, sizeof reset_code, err);
    if (result == 0)
        result = spec->format == VMM_KERNEL_ELF ? load_elf(memory, spec, &entry, err)
                                                : load_bzimage(memory, spec, &entry, err);
    if (result < 0)
        return result;
    vcpu_gdt(entry.mode, gdt);
    entry.gdt = BOOT_GDT_START;
    result = put(memory, BOOT_GDT_START, gdt, sizeof gdt, err);
    if (result == 0)
        *ret_entry = entry;
    return result;
}
