#include "vmm/acpi.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include "base/error.h"
#include "vmm/platform.h"

#define OEM_ID       "WARREN"
#define OEM_TABLE_ID "WARRENVM"
#define OEM_REVISION 1

#define SPACE_IO    1 /* generic address structure, 5.2.3.2 */
#define ACCESS_BYTE 1

#define FADT_REVISION       6
#define FADT_MINOR          4
#define BOOT_NO_VGA         (1u << 2)
#define BOOT_NO_CMOS_RTC    (1u << 5)
#define FLAG_WBINVD         (1u << 0)
#define FLAG_RESET_REGISTER (1u << 10)
#define FLAG_HW_REDUCED     (1u << 20)

#define MADT_LOCAL_APIC     0
#define MADT_IO_APIC        1
#define MADT_LOCAL_APIC_NMI 4
#define MADT_ENABLED        1
#define MADT_ALL_CPUS       0xff
#define IOAPIC_ID           0 /* APIC ids of CPUs are another space on x2APIC and KVM */

struct __attribute__((packed)) acpi_rsdp {
    char signature[8];
    uint8_t checksum;
    char oem_id[6];
    uint8_t revision;
    uint32_t rsdt;
    uint32_t length;
    uint64_t xsdt;
    uint8_t extended_checksum;
    uint8_t reserved[3];
};

struct __attribute__((packed)) acpi_header {
    char signature[4];
    uint32_t length;
    uint8_t revision, checksum;
    char oem_id[6], oem_table_id[8];
    uint32_t oem_revision;
    char creator_id[4];
    uint32_t creator_revision;
};

struct __attribute__((packed)) acpi_address {
    uint8_t space, bit_width, bit_offset, access;
    uint64_t address;
};

struct __attribute__((packed)) acpi_fadt {
    struct acpi_header header;
    uint32_t firmware_control, dsdt;
    uint8_t fixed_hardware[65]; /* absent; offsets 44 to 108 */
    uint16_t boot;
    uint8_t reserved;
    uint32_t flags;
    struct acpi_address reset;
    uint8_t reset_value;
    uint16_t arm_boot;
    uint8_t minor;
    uint64_t x_firmware_control, x_dsdt;
    struct acpi_address fixed[8];
    struct acpi_address sleep_control, sleep_status;
    uint64_t hypervisor;
};

_Static_assert(offsetof(struct acpi_fadt, boot) == 109, "IAPC_BOOT_ARCH");
_Static_assert(offsetof(struct acpi_fadt, sleep_control) == 244, "SLEEP_CONTROL_REG");
_Static_assert(sizeof(struct acpi_fadt) == 276, "FADT of ACPI 6");

struct __attribute__((packed)) acpi_madt {
    struct acpi_header header;
    uint32_t local_apic, flags;
};

struct __attribute__((packed)) madt_local_apic {
    uint8_t type, length, processor, apic;
    uint32_t flags;
};

struct __attribute__((packed)) madt_io_apic {
    uint8_t type, length, id, reserved;
    uint32_t address, first_gsi;
};

struct __attribute__((packed)) madt_nmi {
    uint8_t type, length, processor;
    uint16_t flags;
    uint8_t pin;
};

struct __attribute__((packed)) acpi_mcfg {
    struct acpi_header header;
    uint64_t reserved1;
    uint64_t address;
    uint16_t segment;
    uint8_t first_bus, last_bus;
    uint32_t reserved2;
};

/* Tables are appended, each 16-byte aligned. */
struct builder {
    uint8_t *bytes;
    size_t size;
    uint64_t base;
    bool failed;
};

static uint8_t checksum(const void *bytes, size_t size)
{
    const uint8_t *byte = bytes;
    uint8_t sum = 0;

    for (size_t i = 0; i < size; i++)
        sum = (uint8_t)(sum + byte[i]);
    return (uint8_t)-sum;
}

static struct acpi_header header_of(const char *signature, uint8_t revision)
{
    struct acpi_header header = { .revision = revision,
                                  .oem_revision = OEM_REVISION,
                                  .creator_revision = OEM_REVISION };

    memcpy(header.signature, signature, sizeof header.signature);
    memcpy(header.oem_id, OEM_ID, sizeof header.oem_id);
    memcpy(header.oem_table_id, OEM_TABLE_ID, sizeof header.oem_table_id);
    memcpy(header.creator_id, OEM_ID, sizeof header.creator_id);
    return header;
}

/* Room for `size` bytes, or NULL; *ret_address is where the guest sees them. */
static void *builder_add(struct builder *builder, size_t size, uint64_t *ret_address)
{
    size_t at = (builder->size + 15) & ~(size_t)15;

    if (builder->failed || at > ACPI_BYTES_MAX || size > ACPI_BYTES_MAX - at) {
        builder->failed = true;
        *ret_address = 0;
        return NULL;
    }
    memset(builder->bytes + builder->size, 0, at + size - builder->size);
    builder->size = at + size;
    *ret_address = builder->base + at;
    return builder->bytes + at;
}

/* Appends a table whose header's length and checksum are filled in here. */
static uint64_t builder_add_table(struct builder *builder, const void *table, size_t size)
{
    uint64_t address;
    uint8_t *to = builder_add(builder, size, &address);
    struct acpi_header header;

    if (!to)
        return 0;
    memcpy(to, table, size);
    memcpy(&header, to, sizeof header);
    header.length = (uint32_t)size;
    header.checksum = 0;
    memcpy(to, &header, sizeof header);
    header.checksum = checksum(to, size);
    memcpy(to, &header, sizeof header);
    return address;
}

/* --- the tables --- */

/* vmm/dsdt.asl, as compiled. */
static const
#include "vmm/dsdt.inc"

    /* The compiler of the DSDT cannot compute them. */
    _Static_assert(PLATFORM_PCI32_LAST == PLATFORM_PCI32_START + PLATFORM_PCI32_SIZE - 1,
                   "PCI window");
_Static_assert(PLATFORM_ECAM_LAST_BUS == PLATFORM_ECAM_BUSES - 1 &&
                   PLATFORM_ECAM_SIZE == PLATFORM_ECAM_BUSES * 0x100000ull,
               "1 MiB a bus");

static struct acpi_address port_byte(uint16_t port)
{
    return (struct acpi_address){ SPACE_IO, 8, 0, ACCESS_BYTE, port };
}

static uint64_t build_fadt(struct builder *builder, uint64_t dsdt)
{
    struct acpi_fadt fadt = {
        .header = header_of("FACP", FADT_REVISION),
        .dsdt = (uint32_t)dsdt,
        .boot = BOOT_NO_VGA | BOOT_NO_CMOS_RTC,
        .flags = FLAG_WBINVD | FLAG_RESET_REGISTER | FLAG_HW_REDUCED,
        .reset = port_byte(PLATFORM_PORT_RESET),
        .reset_value = PLATFORM_RESET_VALUE,
        .minor = FADT_MINOR,
        .x_dsdt = dsdt,
        .sleep_control = port_byte(PLATFORM_PORT_SLEEP_CONTROL),
        .sleep_status = port_byte(PLATFORM_PORT_SLEEP_STATUS),
    };

    return builder_add_table(builder, &fadt, sizeof fadt);
}

static uint64_t build_madt(struct builder *builder, unsigned vcpus)
{
    uint8_t bytes[sizeof(struct acpi_madt) + 256 * sizeof(struct madt_local_apic)];
    struct acpi_madt madt = { header_of("APIC", 5), (uint32_t)PLATFORM_LAPIC_START, 0 };
    struct madt_io_apic io_apic = {
        MADT_IO_APIC, sizeof io_apic, IOAPIC_ID, 0, (uint32_t)PLATFORM_IOAPIC_START, 0,
    };
    struct madt_nmi nmi = { MADT_LOCAL_APIC_NMI, sizeof nmi, MADT_ALL_CPUS, 0, 1 };
    size_t size = sizeof madt;

    memcpy(bytes, &madt, sizeof madt);
    for (unsigned i = 0; i < vcpus; i++, size += sizeof(struct madt_local_apic)) {
        struct madt_local_apic cpu = {
            MADT_LOCAL_APIC, sizeof cpu, (uint8_t)i, (uint8_t)i, MADT_ENABLED,
        };

        memcpy(bytes + size, &cpu, sizeof cpu);
    }
    memcpy(bytes + size, &io_apic, sizeof io_apic);
    size += sizeof io_apic;
    memcpy(bytes + size, &nmi, sizeof nmi);
    size += sizeof nmi;
    return builder_add_table(builder, bytes, size);
}

static uint64_t build_mcfg(struct builder *builder)
{
    struct acpi_mcfg mcfg = {
        .header = header_of("MCFG", 1),
        .address = PLATFORM_ECAM_START,
        .last_bus = PLATFORM_ECAM_BUSES - 1,
    };

    return builder_add_table(builder, &mcfg, sizeof mcfg);
}

int acpi_build(unsigned vcpus, uint64_t base, uint8_t ret_bytes[ACPI_BYTES_MAX], struct error *err)
{
    struct builder builder = { .bytes = ret_bytes, .base = base };
    struct __attribute__((packed)) {
        struct acpi_header header;
        uint64_t tables[3];
    } xsdt = { .header = header_of("XSDT", 1) };
    struct acpi_rsdp rsdp = { .revision = 2, .length = sizeof rsdp };
    uint64_t rsdp_address;

    (void)builder_add(&builder, sizeof rsdp, &rsdp_address);
    xsdt.tables[0] =
        build_fadt(&builder, builder_add_table(&builder, dsdt_aml_code, sizeof dsdt_aml_code));
    xsdt.tables[1] = build_madt(&builder, vcpus);
    xsdt.tables[2] = build_mcfg(&builder);
    rsdp.xsdt = builder_add_table(&builder, &xsdt, sizeof xsdt);
    if (builder.failed)
        return error_set(err, ENOSPC, "ACPI tables need more than %d bytes", ACPI_BYTES_MAX);
    memcpy(rsdp.signature, "RSD PTR ", sizeof rsdp.signature);
    memcpy(rsdp.oem_id, OEM_ID, sizeof rsdp.oem_id);
    rsdp.checksum = checksum(&rsdp, 20); /* of ACPI 1.0's part */
    rsdp.extended_checksum = checksum(&rsdp, sizeof rsdp);
    memcpy(ret_bytes, &rsdp, sizeof rsdp);
    return (int)builder.size;
}
