#include "vmm/acpi.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include "base/error.h"
#include "vmm/aml.h"
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

/* --- DSDT --- */

static void describe_serial(struct aml *aml)
{
    aml_device(aml, "COM1");
    aml_name(aml, "_HID");
    aml_eisa_id(aml, "PNP0501");
    aml_name(aml, "_UID");
    aml_integer(aml, 1);
    aml_name(aml, "_CRS");
    aml_resources(aml);
    aml_resource_io(aml, PLATFORM_PORT_COM1, PLATFORM_PORT_COM1_SIZE);
    aml_resource_interrupt(aml, PLATFORM_PIN_COM1);
    aml_end(aml);
    aml_end(aml);
}

/* The host bridge, and ECAM as somebody else's resource: Linux uses ECAM only if it is reserved. */
static void describe_pci(struct aml *aml)
{
    aml_device(aml, "PCI0");
    aml_name(aml, "_HID");
    aml_eisa_id(aml, "PNP0A08");
    aml_name(aml, "_CID");
    aml_eisa_id(aml, "PNP0A03");
    aml_name(aml, "_SEG");
    aml_integer(aml, 0);
    aml_name(aml, "_BBN");
    aml_integer(aml, 0);
    aml_name(aml, "_UID");
    aml_integer(aml, 0);
    aml_name(aml, "_CRS");
    aml_resources(aml);
    aml_resource_bus_numbers(aml, 0, PLATFORM_ECAM_BUSES);
    aml_resource_io(aml, PLATFORM_PORT_PCI_ADDRESS, PLATFORM_PORT_PCI_SIZE);
    aml_resource_memory_window(aml, (uint32_t)PLATFORM_PCI32_START, (uint32_t)PLATFORM_PCI32_SIZE);
    aml_end(aml);
    aml_end(aml);
    aml_device(aml, "MBRD");
    aml_name(aml, "_HID");
    aml_eisa_id(aml, "PNP0C02");
    aml_name(aml, "_UID");
    aml_integer(aml, 0);
    aml_name(aml, "_CRS");
    aml_resources(aml);
    aml_resource_memory_fixed(aml, (uint32_t)PLATFORM_ECAM_START, (uint32_t)PLATFORM_ECAM_SIZE);
    aml_end(aml);
    aml_end(aml);
}

/* The generic event device (5.6.9): its interrupt runs _EVT, which reads what happened. */
static void describe_events(struct aml *aml)
{
    aml_device(aml, "PWRB");
    aml_name(aml, "_HID");
    aml_eisa_id(aml, "PNP0C0C");
    aml_name(aml, "_UID");
    aml_integer(aml, 0);
    aml_end(aml);
    aml_device(aml, "GED_");
    aml_name(aml, "_HID");
    aml_string(aml, "ACPI0013");
    aml_name(aml, "_UID");
    aml_integer(aml, 0);
    aml_name(aml, "_CRS");
    aml_resources(aml);
    aml_resource_interrupt(aml, PLATFORM_PIN_GED);
    aml_end(aml);
    aml_io_register(aml, "GEDR", "GEVT", PLATFORM_PORT_GED, 4);
    aml_method(aml, "_EVT", 1, true);
    aml_store_to_local(aml, "GEVT", 0);
    aml_if_local_and(aml, 0, GED_EVENT_POWER_BUTTON);
    aml_notify(aml, "\\_SB_.PWRB", 0x80);
    aml_end(aml);
    aml_end(aml);
    aml_end(aml);
}

static void describe_pvpanic(struct aml *aml)
{
    aml_device(aml, "PEVT");
    aml_name(aml, "_HID");
    aml_string(aml, "QEMU0001");
    aml_name(aml, "_STA");
    aml_integer(aml, 0xf);
    aml_name(aml, "_CRS");
    aml_resources(aml);
    aml_resource_io(aml, PLATFORM_PORT_PVPANIC, 1);
    aml_end(aml);
    aml_end(aml);
}

static uint64_t build_dsdt(struct builder *builder)
{
    uint8_t bytes[1024];
    struct acpi_header header = header_of("DSDT", 2);
    struct aml aml;

    memcpy(bytes, &header, sizeof header);
    aml_init(&aml, bytes + sizeof header, sizeof bytes - sizeof header);
    aml_scope(&aml, "\\_SB_");
    describe_serial(&aml);
    describe_pci(&aml);
    describe_events(&aml);
    describe_pvpanic(&aml);
    aml_end(&aml);
    aml_name(&aml, "_S5_");
    aml_package(&aml, 4);
    aml_integer(&aml, PLATFORM_SLEEP_TYPE_S5);
    for (int i = 0; i < 3; i++)
        aml_integer(&aml, 0);
    aml_end(&aml);
    builder->failed |= aml.failed || aml.depth > 0;
    return builder_add_table(builder, bytes, sizeof header + aml.size);
}

/* --- the others --- */

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
    xsdt.tables[0] = build_fadt(&builder, build_dsdt(&builder));
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
