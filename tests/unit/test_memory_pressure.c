/* test_memory_pressure.c - how the host's memory stands, by texts of the kernel's and by this host.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "scheduler/memory_pressure.h"

static void stalls_of_ten_seconds_are_told_in_permille(void **state)
{
    static const struct {
        const char *text;
        uint32_t permille;
    } cases[] = {
        { "some avg10=0.00 avg60=9.00 avg300=9.00 total=1\nfull avg10=9.00", 0 },
        { "some avg10=1.23 avg60=0.00 avg300=0.00 total=0\n", 12 },
        { "some avg10=99.99 avg60=0.00 avg300=0.00 total=0\n", 999 },
        { "some avg10=100.00 avg60=0.00 avg300=0.00 total=0\n", 1000 },
        { "full avg10=50.00 avg60=0.00 avg300=0.00 total=0\n", 0 },
        { "some avg10=-1.00 avg60=0.00\n", 0 },
        { "some avg10=\n", 0 },
        { "some", 0 },
        { "", 0 },
    };

    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(memory_pressure_permille(cases[i].text), cases[i].permille);
}

static void this_host_has_memory(void **state)
{
    struct memory_pressure pressure = { 0 };
    struct error err = { 0 };

    (void)state;
    assert_int_equal(memory_pressure_read(&pressure, &err), 0);
    assert_true(pressure.available_mib > 0);
    assert_true(pressure.swap_free_mib <= pressure.swap_mib);
    assert_true(pressure.psi_permille <= 1000);
}

/* The kernel takes it, where it takes any. */
static void a_trigger_is_set_where_there_is_pressure_to_tell_of(void **state)
{
    auto_close int fd = memory_pressure_trigger();

    (void)state;
    if (access("/proc/pressure/memory", F_OK) < 0)
        assert_int_equal(fd, -ENOENT);
    else
        assert_true(fd >= 0);
}

static void of_a_process_what_is_in_memory_counts(void **state)
{
    (void)state;
    assert_true(memory_resident_mib(getpid(), true) > 0);
    for (int with_files = 0; with_files < 2; with_files++) {
        assert_int_equal(memory_resident_mib(0, with_files), 0);
        assert_int_equal(memory_resident_mib(-1, with_files), 0);
        assert_int_equal(memory_resident_mib(INT32_MAX, with_files), 0);
    }
}

#define FILE_MIB 64
#define SOME_MIB 16 /* of this process, that comes and goes */

static uint8_t *map_of(int fd, int flags)
{
    uint8_t *bytes = mmap(NULL, FILE_MIB << 20, PROT_READ | PROT_WRITE, flags, fd, 0);

    assert_true(bytes != MAP_FAILED);
    return bytes;
}

static void read_all(const volatile uint8_t *bytes)
{
    for (size_t at = 0; at < FILE_MIB << 20; at += 4096)
        (void)bytes[at];
}

/* As a VM's memory, and as that of its fork, which reads it and then writes to it. */
static void what_others_map_too_is_counted_where_it_is_wanted(void **state)
{
    auto_close int fd = memfd_create("memory", MFD_CLOEXEC);
    uint32_t own = memory_resident_mib(getpid(), false), all = memory_resident_mib(getpid(), true);
    uint8_t *bytes;

    (void)state;
    assert_int_equal(ftruncate(fd, FILE_MIB << 20), 0);
    bytes = map_of(fd, MAP_SHARED);
    memset(bytes, 1, FILE_MIB << 20);
    assert_in_range(memory_resident_mib(getpid(), false), 0, own + SOME_MIB);
    assert_in_range(memory_resident_mib(getpid(), true), all + FILE_MIB - SOME_MIB,
                    all + FILE_MIB + SOME_MIB);
    munmap(bytes, FILE_MIB << 20);
    bytes = map_of(fd, MAP_PRIVATE);
    read_all(bytes);
    assert_in_range(memory_resident_mib(getpid(), false), 0, own + SOME_MIB);
    memset(bytes, 2, FILE_MIB << 20);
    assert_in_range(memory_resident_mib(getpid(), false), own + FILE_MIB - SOME_MIB,
                    own + FILE_MIB + SOME_MIB);
    munmap(bytes, FILE_MIB << 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stalls_of_ten_seconds_are_told_in_permille),
        cmocka_unit_test(this_host_has_memory),
        cmocka_unit_test(a_trigger_is_set_where_there_is_pressure_to_tell_of),
        cmocka_unit_test(of_a_process_what_is_in_memory_counts),
        cmocka_unit_test(what_others_map_too_is_counted_where_it_is_wanted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
