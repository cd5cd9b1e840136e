/* test_acpi.c - the tables' checksums and links, and the DSDT's packages: read back by a small
 * walker that knows nothing of the compiler. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "vmm/acpi.h"
#include "vmm/platform.h"

#define BASE 0xe0000u

struct tables {
    uint8_t bytes[ACPI_BYTES_MAX];
    size_t size;
};

static void build(unsigned vcpus, struct tables *tables)
{
    tables->size = acpi_build(vcpus, BASE, tables->bytes);
    assert_in_range(tables->size, 100, ACPI_BYTES_MAX);
}

static uint64_t number(const void *from, size_t bytes)
{
    uint64_t value = 0;

    memcpy(&value, from, bytes);
    return value;
}

static void assert_sums_to_zero(const uint8_t *bytes, size_t size)
{
    uint8_t sum = 0;

    for (size_t i = 0; i < size; i++)
        sum = (uint8_t)(sum + bytes[i]);
    assert_int_equal(sum, 0);
}

/* The table at a guest address; its signature, length and checksum are right. */
static const uint8_t *table_at(const struct tables *tables, uint64_t address, const char *signature)
{
    const uint8_t *table = tables->bytes + (address - BASE);
    size_t length;

    assert_in_range(address, BASE, BASE + tables->size - 36);
    assert_memory_equal(table, signature, 4);
    length = number(table + 4, 4);
    assert_in_range(length, 36, tables->size - (address - BASE));
    assert_sums_to_zero(table, length);
    return table;
}

static const uint8_t *table_of(const struct tables *tables, unsigned index, const char *signature)
{
    const uint8_t *xsdt = table_at(tables, number(tables->bytes + 24, 8), "XSDT");

    return table_at(tables, number(xsdt + 36 + index * 8, 8), signature);
}

static void the_root_points_to_all(void **state)
{
    struct tables tables;

    (void)state;
    build(1, &tables);
    assert_memory_equal(tables.bytes, "RSD PTR ", 8);
    assert_int_equal(tables.bytes[15], 2);
    assert_sums_to_zero(tables.bytes, 20);
    assert_sums_to_zero(tables.bytes, 36);
    (void)table_of(&tables, 0, "FACP");
    (void)table_of(&tables, 1, "APIC");
    (void)table_of(&tables, 2, "MCFG");
}

static void hardware_is_reduced(void **state)
{
    struct tables tables;
    const uint8_t *fadt;

    (void)state;
    build(1, &tables);
    fadt = table_of(&tables, 0, "FACP");
    assert_int_equal(number(fadt + 4, 4), 276);
    assert_int_equal(number(fadt + 112, 4) & (1u << 20 | 1u << 10), 1u << 20 | 1u << 10);
    assert_int_equal(number(fadt + 112, 4) >> 4 & 3, 3); /* no buttons but the namespace's */
    assert_int_equal(number(fadt + 109, 2) & 2, 0);      /* no 8042 */
    assert_int_equal(fadt[116], 1);                      /* reset register: a port */
    assert_int_equal(number(fadt + 120, 8), PLATFORM_PORT_RESET);
    assert_int_equal(fadt[128], PLATFORM_RESET_VALUE);
    assert_int_equal(number(fadt + 248, 8), PLATFORM_PORT_SLEEP_CONTROL);
    assert_int_equal(number(fadt + 260, 8), PLATFORM_PORT_SLEEP_STATUS);
    assert_int_equal(number(fadt + 40, 4), number(fadt + 140, 8));
    (void)table_at(&tables, number(fadt + 140, 8), "DSDT");
}

static void every_cpu_is_listed(void **state)
{
    struct tables tables;

    (void)state;
    for (unsigned vcpus = 1; vcpus <= 32; vcpus++) {
        unsigned cpus = 0, chips = 0;
        const uint8_t *madt;
        size_t end;

        build(vcpus, &tables);
        madt = table_of(&tables, 1, "APIC");
        end = number(madt + 4, 4);
        for (size_t at = 44; at < end; at += madt[at + 1]) {
            assert_true(madt[at + 1] >= 6 && at + madt[at + 1] <= end);
            if (madt[at] == 0) {
                assert_int_equal(madt[at + 3], cpus++);
                assert_int_equal(number(madt + at + 4, 4), 1);
            } else if (madt[at] == 1) {
                chips++;
                assert_int_equal(number(madt + at + 4, 4), PLATFORM_IOAPIC_START);
                assert_int_equal(number(madt + at + 8, 4), 0);
            }
        }
        assert_int_equal(cpus, vcpus);
        assert_int_equal(chips, 1);
    }
}

static void ecam_is_where_pci_answers(void **state)
{
    struct tables tables;
    const uint8_t *mcfg;

    (void)state;
    build(1, &tables);
    mcfg = table_of(&tables, 2, "MCFG");
    assert_int_equal(number(mcfg + 44, 8), PLATFORM_ECAM_START);
    assert_int_equal(mcfg[54], 0);
    assert_int_equal(mcfg[55], PLATFORM_ECAM_BUSES - 1);
}

/* --- AML --- */

/* A package length at `at`: its value, and how many bytes it takes. */
static size_t package_length(const uint8_t *aml, size_t at, size_t *ret_bytes)
{
    size_t more = aml[at] >> 6, length = more ? aml[at] & 0xf : aml[at] & 0x3f;

    for (size_t i = 0; i < more; i++)
        length |= (size_t)aml[at + 1 + i] << (4 + 8 * i);
    *ret_bytes = 1 + more;
    return length;
}

/* The scope, devices and the package fill the table exactly, one inside the other. */
static void packages_nest(void **state)
{
    static const char *const devices[] = { "COM1", "PCI0", "MBRD", "PWRB", "VGEN", "GED_", "PEVT" };
    size_t at = 36, end, scope_end, bytes, found = 0;
    struct tables tables;
    const uint8_t *dsdt;

    (void)state;
    build(1, &tables);
    dsdt = table_at(&tables, number(table_of(&tables, 0, "FACP") + 140, 8), "DSDT");
    end = number(dsdt + 4, 4);
    assert_int_equal(dsdt[at++], 0x10);
    scope_end = at + package_length(dsdt, at, &bytes);
    assert_true(scope_end < end);
    at += bytes;
    assert_memory_equal(dsdt + at, "_SB_", 4);
    for (at += 4; at < scope_end; found++) {
        assert_int_equal(dsdt[at], 0x5b);
        assert_int_equal(dsdt[at + 1], 0x82);
        size_t device_end = at + 2 + package_length(dsdt, at + 2, &bytes);

        assert_true(device_end <= scope_end);
        assert_true(found < sizeof devices / sizeof devices[0]);
        assert_memory_equal(dsdt + at + 2 + bytes, devices[found], 4);
        at = device_end;
    }
    assert_int_equal(at, scope_end);
    assert_int_equal(found, sizeof devices / sizeof devices[0]);
    assert_memory_equal(dsdt + at, "\x08_S5_\x12", 6);
    assert_int_equal(at + 6 + package_length(dsdt, at + 6, &bytes), end);
    assert_int_equal(dsdt[at + 9], PLATFORM_SLEEP_TYPE_S5); /* length, count, byte prefix */
}

/* Linux and Windows look for a device that is compatible to it, and read ADDR. */
static void the_generation_id_is_found(void **state)
{
    static const char id[] = "\x08_CID\x0dVM_Gen_Counter";
    static const uint8_t address[] = { 0x08, 'A', 'D',  'D',  'R',  0x12, 8,
                                       2,    0xc, 0x00, 0x10, 0x0e, 0x00, 0 };
    struct tables tables;

    (void)state;
    build(1, &tables);
    assert_non_null(memmem(tables.bytes, tables.size, id, sizeof id));
    assert_non_null(memmem(tables.bytes, tables.size, address, sizeof address));
    assert_int_equal(PLATFORM_GENERATION_ID, 0x0e1000);
    assert_true(PLATFORM_GENERATION_ID >= BASE + sizeof tables.bytes);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_root_points_to_all), cmocka_unit_test(hardware_is_reduced),
        cmocka_unit_test(every_cpu_is_listed),    cmocka_unit_test(ecam_is_where_pci_answers),
        cmocka_unit_test(packages_nest),          cmocka_unit_test(the_generation_id_is_found),
    };

    /* --write FILE: the tables, to be looked at by other tools (iasl). */
    if (argc == 3 && strcmp(argv[1], "--write") == 0) {
        struct tables tables;
        FILE *file = fopen(argv[2], "w");

        build(4, &tables);
        return !file || fwrite(tables.bytes, tables.size, 1, file) != 1 || fclose(file) != 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
