/* test_mmio_bus.c - who answers which access, and what nobody answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>
#include "vmm/mmio_bus.h"

struct device {
    uint64_t offset, value;
    unsigned width, reads, writes;
};

static uint64_t device_access(void *context, uint64_t offset, unsigned width,
                              const uint64_t *written)
{
    struct device *device = context;

    device->offset = offset;
    device->width = width;
    if (written) {
        device->value = *written;
        device->writes++;
    } else {
        device->reads++;
    }
    return 0x1122334455667788;
}

static uint64_t read_at(struct bus *bus, uint64_t address, unsigned length)
{
    uint64_t value = 0;

    bus_read(bus, address, &value, length);
    return value;
}

static void accesses_reach_their_device(void **state)
{
    struct device low = { 0 }, high = { 0 };
    struct bus bus = { 0 };

    (void)state;
    bus_add(&bus, 0x200, 8, device_access, &high);
    bus_add(&bus, 0x100, 8, device_access, &low);
    assert_int_equal(read_at(&bus, 0x104, 4), 0x55667788);
    assert_int_equal(low.offset, 4);
    assert_int_equal(low.width, 4);
    bus_write(&bus, 0x207, "\xab", 1);
    assert_int_equal(high.offset, 7);
    assert_int_equal(high.value, 0xab);
    assert_int_equal(low.reads + low.writes + high.reads + high.writes, 2);
}

static void nobody_answers_all_ones(void **state)
{
    struct device device = { 0 };
    struct bus bus = { 0 };

    (void)state;
    assert_int_equal(read_at(&bus, 0x100, 8), UINT64_MAX);
    bus_add(&bus, 0x100, 8, device_access, &device);
    assert_int_equal(read_at(&bus, 0x105, 4), 0xffffffff); /* crosses the end */
    assert_int_equal(read_at(&bus, 0xff, 2), 0xffff);      /* crosses the start */
    assert_int_equal(read_at(&bus, 0x108, 1), 0xff);
    assert_int_equal(read_at(&bus, 0x100, 3), 0xffffff); /* no width of any register */
    assert_int_equal(read_at(&bus, 0x100, 5), 0xffffffffff);
    assert_int_equal(read_at(&bus, 0x100, 0), 0);
    assert_int_equal(read_at(&bus, UINT64_MAX, 8), UINT64_MAX);
    bus_write(&bus, 0x105, "1234", 4);
    bus_write(&bus, 0x100, "123", 3);
    bus_write(&bus, 0x99, "1", 1);
    assert_int_equal(device.reads + device.writes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accesses_reach_their_device),
        cmocka_unit_test(nobody_answers_all_ones),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
