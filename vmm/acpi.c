#include "vmm/acpi.h"

#include <string.h>
#include "base/cleanup.h"
#include "vmm/control_protocol.h"
#include "vmm/platform.h"

#define OEM_REVISION 1
/* Without their NUL, as all text in tables.  The id of 6 characters, and that of the tables. */
static const char oem[14] = "WARRENWARRENVM";
static const char root_signature[8] = "RSD PTR ";

#define RSDP_BYTES       36
#define RSDP_BYTES_ACPI1 20 /* of them, what its first checksum covers */
#define XSDT_BYTES       60
#define FADT_BYTES       276
#define MADT_BYTES       44 /* without its entries */
#define MCFG_BYTES       60
#define OTHERS_BYTES     1024 /* all but the DSDT, with VMM_VCPUS_MAX CPUs, fit in it */

#define FADT_MINOR          4
#define BOOT_NO_VGA         (1u << 2)
#define BOOT_NO_CMOS_RTC    (1u << 5)
#define FLAG_WBINVD         (1u << 0)
#define FLAG_NO_BUTTONS     (3u << 4) /* of fixed hardware: power's is in the DSDT */
#define FLAG_RESET_REGISTER (1u << 10)
#define FLAG_HW_REDUCED     (1u << 20)
/* Before a register's address, 5.2.3.2: a port, 8 bits from bit 0, accessed as a byte. */
#define PORT_BYTE 0x01000801u

/* An entry of the MADT starts with its type and length. */
#define MADT_ENTRY(type, bytes) ((type) | (bytes) << 8)
#define MADT_LOCAL_APIC         MADT_ENTRY(0, 8)
#define MADT_IO_APIC            MADT_ENTRY(1, 12) /* its id is 0: not in the space of the CPUs' */
#define MADT_LOCAL_APIC_NMI     MADT_ENTRY(4, 6)
#define MADT_ENABLED            (1ull << 32)
#define MADT_ALL_CPUS           (0xffull << 16)
#define MADT_PIN_1              (1ull << 40)

/* vmm/dsdt.asl, as compiled. */
static const
#include "vmm/dsdt.inc"

    /* The compiler of the DSDT cannot compute them. */
    _Static_assert(PLATFORM_PCI32_LAST == PLATFORM_PCI32_START + PLATFORM_PCI32_SIZE - 1,
                   "PCI window");
_Static_assert(PLATFORM_ECAM_LAST_BUS == PLATFORM_ECAM_BUSES - 1 &&
                   PLATFORM_ECAM_SIZE == PLATFORM_ECAM_BUSES * 0x100000ull,
               "1 MiB a bus");
_Static_assert(sizeof dsdt_aml_code <= ACPI_BYTES_MAX - OTHERS_BYTES, "room for all");

/* What of a table is not zero: little-endian numbers. */
struct field {
    size_t offset, bytes;
    uint64_t value;
};

/* Tables are appended, each 16-byte aligned. */
struct builder {
    uint8_t *bytes;
    size_t size;
    uint64_t base;
};

static uint8_t checksum(const uint8_t *bytes, size_t size)
{
    uint8_t sum = 0;

    for (size_t i = 0; i < size; i++)
        sum = (uint8_t)(sum + bytes[i]);
    return (uint8_t)-sum;
}

static void put(uint8_t *table, const struct field *fields, size_t count)
{
    for (size_t i = 0; i < count; i++)
        memcpy(table + fields[i].offset, &fields[i].value, fields[i].bytes);
}

static uint8_t *append(struct builder *builder, size_t bytes)
{
    size_t at = (builder->size + 15) & ~(size_t)15;

    builder->size = at + bytes;
    return builder->bytes + at;
}

/* Where the guest sees it. */
static uint64_t append_table(struct builder *builder, const char *signature, uint8_t revision,
                             size_t bytes, const struct field *fields, size_t count)
{
    const struct field header[] = {
        { 4, 4, bytes }, { 8, 1, revision }, { 24, 4, OEM_REVISION }, { 32, 4, OEM_REVISION }
    };
    uint8_t *table = append(builder, bytes);

    put(table, header, ARRAY_LENGTH(header));
    put(table, fields, count);
    memcpy(table, signature, 4);
    memcpy(table + 10, oem, sizeof oem);
    memcpy(table + 28, oem, 4);
    table[9] = checksum(table, bytes);
    return builder->base + (uint64_t)(table - builder->bytes);
}

/* --- the tables --- */

static uint64_t append_dsdt(struct builder *builder)
{
    uint8_t *table = append(builder, sizeof dsdt_aml_code);

    memcpy(table, dsdt_aml_code, sizeof dsdt_aml_code);
    return builder->base + (uint64_t)(table - builder->bytes);
}

static uint64_t append_fadt(struct builder *builder, uint64_t dsdt)
{
    const struct field fields[] = {
        { 40, 4, dsdt },
        { 109, 2, BOOT_NO_VGA | BOOT_NO_CMOS_RTC },
        { 112, 4, FLAG_WBINVD | FLAG_NO_BUTTONS | FLAG_RESET_REGISTER | FLAG_HW_REDUCED },
        { 116, 4, PORT_BYTE },
        { 120, 8, PLATFORM_PORT_RESET },
        { 128, 1, PLATFORM_RESET_VALUE },
        { 131, 1, FADT_MINOR },
        { 140, 8, dsdt },
        { 244, 4, PORT_BYTE },
        { 248, 8, PLATFORM_PORT_SLEEP_CONTROL },
        { 256, 4, PORT_BYTE },
        { 260, 8, PLATFORM_PORT_SLEEP_STATUS },
    };

    return append_table(builder, "FACP", 6, FADT_BYTES, fields, ARRAY_LENGTH(fields));
}

static uint64_t append_madt(struct builder *builder, unsigned vcpus)
{
    struct field fields[VMM_VCPUS_MAX + 4] = { { 36, 4, PLATFORM_LAPIC_START } };
    size_t count = 1, at = MADT_BYTES;

    for (uint64_t i = 0; i < vcpus; i++, at += 8)
        fields[count++] =
            (struct field){ at, 8, MADT_LOCAL_APIC | i << 16 | i << 24 | MADT_ENABLED };
    fields[count++] = (struct field){ at, 4, MADT_IO_APIC };
    fields[count++] = (struct field){ at + 4, 4, PLATFORM_IOAPIC_START };
    fields[count++] =
        (struct field){ at + 12, 6, MADT_LOCAL_APIC_NMI | MADT_ALL_CPUS | MADT_PIN_1 };
    return append_table(builder, "APIC", 5, at + 18, fields, count);
}

static uint64_t append_mcfg(struct builder *builder)
{
    const struct field fields[] = { { 44, 8, PLATFORM_ECAM_START },
                                    { 55, 1, PLATFORM_ECAM_LAST_BUS } };

    return append_table(builder, "MCFG", 1, MCFG_BYTES, fields, ARRAY_LENGTH(fields));
}

size_t acpi_build(unsigned vcpus, uint64_t base, uint8_t ret_bytes[ACPI_BYTES_MAX])
{
    struct builder builder = { .bytes = ret_bytes, .size = RSDP_BYTES, .base = base };
    uint64_t fadt, madt, mcfg, xsdt;

    memset(ret_bytes, 0, ACPI_BYTES_MAX);
    fadt = append_fadt(&builder, append_dsdt(&builder));
    madt = append_madt(&builder, vcpus);
    mcfg = append_mcfg(&builder);

    const struct field entries[] = { { 36, 8, fadt }, { 44, 8, madt }, { 52, 8, mcfg } };

    xsdt = append_table(&builder, "XSDT", 1, XSDT_BYTES, entries, ARRAY_LENGTH(entries));

    const struct field root[] = { { 15, 1, 2 }, { 20, 4, RSDP_BYTES }, { 24, 8, xsdt } };

    put(ret_bytes, root, ARRAY_LENGTH(root));
    memcpy(ret_bytes, root_signature, sizeof root_signature);
    memcpy(ret_bytes + 9, oem, 6);
    ret_bytes[8] = checksum(ret_bytes, RSDP_BYTES_ACPI1);
    ret_bytes[32] = checksum(ret_bytes, RSDP_BYTES);
    return builder.size;
}
