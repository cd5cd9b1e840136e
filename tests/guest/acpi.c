/* acpi.c - see acpi.h. */
#include "tests/guest/acpi.h"
#include "tests/guest/console.h"
#include "tests/guest/cpu.h"
#include "tests/guest/memory.h"
#include "tests/guest/text.h"

struct acpi_header {
    char signature[4];
    uint32_t bytes;
    uint8_t revision;
    uint8_t checksum;
    char oem[22];
    uint32_t creator_revision;
} __attribute__((packed));

struct acpi_rsdp {
    char signature[8];
    uint8_t checksum;
    char oem[6];
    uint8_t revision;
    uint32_t rsdt;
    uint32_t bytes;
    uint64_t xsdt;
} __attribute__((packed));

struct acpi_fadt { /* 5.2.9; only what is read is named */
    struct acpi_header header;
    uint32_t facs;
    uint32_t dsdt;
    uint8_t skipped1[20];
    uint32_t pm1a_control; /* offset 64 */
    uint8_t skipped2[44];
    uint32_t flags; /* 112 */
    struct acpi_address reset;
    uint8_t reset_value; /* 128 */
    uint8_t skipped3[11];
    uint64_t x_dsdt; /* 140 */
    uint8_t skipped4[96];
    struct acpi_address sleep_control; /* 244 */
} __attribute__((packed));

_Static_assert(__builtin_offsetof(struct acpi_fadt, pm1a_control) == 64, "FADT layout");
_Static_assert(__builtin_offsetof(struct acpi_fadt, flags) == 112, "FADT layout");
_Static_assert(__builtin_offsetof(struct acpi_fadt, x_dsdt) == 140, "FADT layout");
_Static_assert(__builtin_offsetof(struct acpi_fadt, sleep_control) == 244, "FADT layout");

#define FADT_MIN_BYTES   129
#define FLAG_RESET       (1u << 10)
#define FLAG_REDUCED     (1u << 20)
#define SPACE_PORT       1
#define SLEEP_ENABLE     0x20 /* SLEEP_CONTROL_REG */
#define PM1_SLEEP_ENABLE 0x2000
#define TABLE_MAX_BYTES  (1u << 20)

static bool checksum_holds(const void *bytes, uint32_t count)
{
    const uint8_t *byte = bytes;
    uint8_t sum = 0;

    for (uint32_t i = 0; i < count; i++)
        sum = (uint8_t)(sum + byte[i]);
    return sum == 0;
}

static const struct acpi_header *table_at(uint64_t address)
{
    const struct acpi_header *table = memory_map(address, sizeof(*table));

    if (address == 0 || table == NULL || table->bytes < sizeof(*table) ||
        table->bytes > TABLE_MAX_BYTES)
        return NULL;
    return memory_map(address, table->bytes);
}

const void *acpi_find_table(uint64_t rsdp_address, const char signature[4], uint32_t min_bytes)
{
    const struct acpi_rsdp *rsdp = memory_map(rsdp_address, sizeof(*rsdp));
    const struct acpi_header *root;
    unsigned width;

    if (rsdp_address == 0 || rsdp == NULL || memcmp(rsdp->signature, "RSD PTR ", 8) != 0)
        return NULL;
    width = rsdp->revision >= 2 && rsdp->xsdt != 0 ? 8 : 4;
    root = table_at(width == 8 ? rsdp->xsdt : rsdp->rsdt);
    if (root == NULL)
        return NULL;
    for (uint32_t at = sizeof(*root); at + width <= root->bytes; at += width) {
        uint64_t address = 0;
        const struct acpi_header *table;

        memcpy(&address, (const uint8_t *)root + at, width);
        table = table_at(address);
        if (table != NULL && memcmp(table->signature, signature, 4) == 0 &&
            table->bytes >= min_bytes && checksum_holds(table, table->bytes))
            return table;
    }
    return NULL;
}

unsigned acpi_processors(uint64_t rsdp, uint32_t ret_apic_ids[ACPI_PROCESSORS_MAX])
{
    const struct acpi_header *madt = acpi_find_table(rsdp, "APIC", 44);
    const uint8_t *bytes = (const uint8_t *)madt;
    unsigned count = 0;

    if (madt == NULL)
        return 0;
    for (uint32_t at = 44; at + 2 <= madt->bytes && bytes[at + 1] >= 2; at += bytes[at + 1]) {
        uint32_t flags = 0;
        uint32_t id = 0;

        if (bytes[at] == 0 && at + 8 <= madt->bytes) { /* local APIC */
            id = bytes[at + 3];
            memcpy(&flags, &bytes[at + 4], 4);
        } else if (bytes[at] == 9 && at + 16 <= madt->bytes) { /* local x2APIC */
            memcpy(&id, &bytes[at + 4], 4);
            memcpy(&flags, &bytes[at + 8], 4);
        }
        if ((flags & 1) != 0 && count < ACPI_PROCESSORS_MAX)
            ret_apic_ids[count++] = id;
    }
    return count;
}

uint64_t acpi_pci_config_base(uint64_t rsdp)
{
    const uint8_t *mcfg = acpi_find_table(rsdp, "MCFG", 60);
    uint64_t base = 0;

    if (mcfg != NULL)
        memcpy(&base, mcfg + 44, 8);
    return base;
}

static void address_write(const struct acpi_address *to, uint8_t value)
{
    if (to->space == SPACE_PORT)
        port_write8((uint16_t)to->address, value);
    else
        *(volatile uint8_t *)memory_map(to->address, 1) = value;
}

/* SLP_TYPa: the first element of \_S5's package, found by its name in the DSDT's bytes. */
static uint8_t sleep_type(const struct acpi_fadt *fadt, uint8_t fallback)
{
    uint64_t address = fadt->dsdt;
    const struct acpi_header *dsdt;
    const uint8_t *byte;

    if (fadt->header.bytes >= 148 && fadt->x_dsdt != 0)
        address = fadt->x_dsdt;
    dsdt = table_at(address);
    byte = (const uint8_t *)dsdt;
    for (uint32_t i = sizeof(*dsdt); dsdt != NULL && i + 9 <= dsdt->bytes; i++) {
        if (memcmp(&byte[i], "_S5_\x12", 5) != 0)
            continue;
        i += 5 + (byte[i + 5] >> 6) + 2; /* PkgLength is 1 to 4 bytes; then the element count */
        if (i + 2 > dsdt->bytes)
            break;
        return byte[i] == 0x0a ? byte[i + 1] : byte[i]; /* BytePrefix, or ZeroOp and OneOp */
    }
    return fallback;
}

void acpi_power_off(uint64_t rsdp)
{
    const struct acpi_fadt *fadt = acpi_find_table(rsdp, "FACP", FADT_MIN_BYTES);

    if (fadt == NULL) {
        console_print("poweroff failed no-fadt\n");
        return;
    }
    if ((fadt->flags & FLAG_REDUCED) == 0) {
        uint16_t type = (uint16_t)(sleep_type(fadt, 0) << 10);

        port_write16((uint16_t)fadt->pm1a_control, type | PM1_SLEEP_ENABLE);
    } else if (fadt->header.bytes < sizeof(*fadt) || fadt->sleep_control.address == 0) {
        console_print("poweroff failed no-sleep-control\n");
    } else {
        uint8_t type = (uint8_t)(sleep_type(fadt, 5) << 2);

        address_write(&fadt->sleep_control, type | SLEEP_ENABLE);
    }
}

void acpi_reset(uint64_t rsdp)
{
    const struct acpi_fadt *fadt = acpi_find_table(rsdp, "FACP", FADT_MIN_BYTES);

    if (fadt == NULL || (fadt->flags & FLAG_RESET) == 0) {
        console_print("reboot failed no-reset-register\n");
        return;
    }
    address_write(&fadt->reset, fadt->reset_value);
}
