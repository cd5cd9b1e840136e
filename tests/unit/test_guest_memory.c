/* test_guest_memory.c - which guest addresses become pointers, and which never do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "agent/vm_memory.h"
#include "tests/unit/memory_harness.h"
#include "base/cleanup.h"
#include "base/error.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)

/* 3 GiB below the hole, 1 GiB from 4 GiB up. */
static int set_up(void **state)
{
    struct guest_memory *memory = NULL;

    if (guest_memory_new(4 * GIB, &memory, NULL) < 0)
        return -1;
    *state = memory;
    return 0;
}

static int tear_down(void **state)
{
    guest_memory_free(*state);
    return 0;
}

static void memory_is_split_around_the_hole(void **state)
{
    const struct guest_memory *memory = *state;

    assert_int_equal(guest_memory_region_count(memory), 2);
    assert_int_equal(guest_memory_region(memory, 0).guest_start, 0);
    assert_int_equal(guest_memory_region(memory, 0).size, GUEST_HOLE_START);
    assert_int_equal(guest_memory_region(memory, 1).guest_start, GUEST_HOLE_END);
    assert_int_equal(guest_memory_region(memory, 1).size, GIB);
}

static void edges_are_exact(void **state)
{
    static const struct {
        uint64_t guest, size;
        int mapped;
    } cases[] = {
        { 0, 1, 1 },
        { 0, 0, 0 },
        { GUEST_HOLE_START - 1, 1, 1 },
        { GUEST_HOLE_START - 1, 2, 0 },
        { GUEST_HOLE_START, 1, 0 },
        { 0, GUEST_HOLE_START, 1 },
        { 0, GUEST_HOLE_START + 1, 0 },
        { GUEST_HOLE_END - 1, 1, 0 },
        { GUEST_HOLE_END - 1, 2, 0 },
        { GUEST_HOLE_END, 1, 1 },
        { GUEST_HOLE_END, GIB, 1 },
        { GUEST_HOLE_END, GIB + 1, 0 },
        { GUEST_HOLE_END + GIB - 8, 8, 1 },
        { GUEST_HOLE_END + GIB - 7, 8, 0 },
        { GUEST_HOLE_END + GIB, 1, 0 },
        { UINT64_MAX, 1, 0 },
        { UINT64_MAX - 7, 8, 0 },
        { UINT64_MAX, 2, 0 }, /* wraps to 0 */
        { 16, UINT64_MAX, 0 },
        { 16, UINT64_MAX - 15, 0 },
        { GUEST_HOLE_END, UINT64_MAX - GUEST_HOLE_END + 1, 0 },
    };

    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++)
        if ((guest_memory_map(*state, cases[i].guest, cases[i].size) != NULL) != cases[i].mapped)
            fail_msg("case %zu", i);
}

/* Behind all RAM, from an address on that every guest can make blocks of, and not RAM. */
static void what_can_be_plugged_comes_last(void **state)
{
    static const struct {
        uint64_t bytes, guest;
    } cases[] = { { 16 * MIB, 4 * GIB },
                  { 3 * GIB, 4 * GIB },
                  { 4 * GIB, 6 * GIB },
                  { 5 * GIB, 6 * GIB },
                  { 6 * GIB, 8 * GIB } };

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        const struct guest_memory_spec spec = { .bytes = cases[i].bytes, .hotplug_bytes = 8 * MIB };
        struct guest_memory *memory = NULL;
        struct guest_memory_region region;
        size_t last;

        assert_int_equal(guest_memory_make(&spec, &memory, NULL), 0);
        last = guest_memory_region_count(memory) - 1;
        region = guest_memory_region(memory, last);
        assert_true(region.hotplug && !guest_memory_region(memory, last - 1).hotplug);
        assert_int_equal(region.guest_start, cases[i].guest);
        assert_int_equal(region.size, 8 * MIB);
        assert_ptr_equal(guest_memory_map(memory, 0, 1), region.host - cases[i].bytes);
        assert_ptr_equal(guest_memory_map(memory, region.guest_start + 8 * MIB - 1, 1),
                         region.host + 8 * MIB - 1);
        assert_null(guest_memory_map(memory, region.guest_start + 8 * MIB, 1));
        guest_memory_free(memory);
    }
}

/* One buffer may lie in both, as where a driver joins pages that follow each other. */
static void what_can_be_plugged_follows_without_a_seam(void **state)
{
    static const struct {
        uint64_t bytes, end;
        bool joined;
    } cases[] = { { 16 * MIB, 16 * MIB, false },
                  { 4 * GIB, 5 * GIB, false },
                  { 5 * GIB, 6 * GIB, true } };

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        const struct guest_memory_spec spec = { .bytes = cases[i].bytes, .hotplug_bytes = 8 * MIB };
        struct guest_memory *memory = NULL;

        assert_int_equal(guest_memory_make(&spec, &memory, NULL), 0);
        assert_ptr_equal(guest_memory_map(memory, cases[i].end - 4096, 4096 + 8 * MIB),
                         cases[i].joined ? guest_memory_map(memory, cases[i].end - 4096, 1) : NULL);
        assert_null(guest_memory_map(memory, cases[i].end - 4096, 4097 + 8 * MIB));
        assert_null(guest_memory_map(memory, GUEST_HOLE_START - 1, 2));
        guest_memory_free(memory);
    }
}

static void copies_are_whole_or_not_at_all(void **state)
{
    uint8_t bytes[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, back[8] = { 0 };

    assert_true(guest_memory_write(*state, GUEST_HOLE_END, bytes, sizeof bytes));
    assert_true(guest_memory_read(*state, GUEST_HOLE_END, back, sizeof back));
    assert_memory_equal(bytes, back, sizeof back);
    assert_false(guest_memory_write(*state, GUEST_HOLE_START - 4, bytes, sizeof bytes));
    assert_true(guest_memory_read(*state, GUEST_HOLE_START - 4, back, 4));
    assert_memory_equal(back, "\0\0\0\0", 4);
}

static void files_are_mapped_copy_on_write(void **state)
{
    auto_close int fd = memfd_create("file", MFD_CLOEXEC);
    char page[4096], first;

    memset(page, 'x', sizeof page);
    assert_int_equal(write(fd, page, sizeof page), sizeof page);
    assert_int_equal(guest_memory_map_file(*state, MIB, 4096, fd, 0, NULL), 0);
    assert_true(guest_memory_read(*state, MIB + 4095, &first, 1));
    assert_int_equal(first, 'x');
    assert_true(guest_memory_write(*state, MIB, "y", 1));
    assert_int_equal(pread(fd, &first, 1, 0), 1);
    assert_int_equal(first, 'x');
    assert_true(guest_memory_map_file(*state, MIB + 1, 4096, fd, 0, NULL) < 0);
    assert_true(guest_memory_map_file(*state, GUEST_HOLE_START, 4096, fd, 0, NULL) < 0);
}

/* Pages around a file's, over its edges, and of both regions at once. */
static void discarded_pages_read_as_zeroes(void **state)
{
    static const struct {
        uint64_t guest, size, zero_from, zero_to; /* in pages from MIB; what must be zero then */
    } cases[] = {
        { 0, 16, 0, 16 }, { 2, 4, 2, 6 },    { 6, 2, 6, 8 },  { 7, 9, 7, 16 },
        { 0, 5, 0, 5 },   { 11, 5, 11, 16 }, { 4, 8, 4, 12 }, { 5, 0, 0, 0 },
    };
    auto_close int fd = memfd_create("file", MFD_CLOEXEC);
    char page[4096], first;

    memset(page, 'f', sizeof page);
    for (int i = 0; i < 8; i++)
        assert_int_equal(write(fd, page, sizeof page), sizeof page);
    for (size_t c = 0; c < ARRAY_LENGTH(cases); c++) {
        struct guest_memory *memory = NULL;

        assert_int_equal(guest_memory_new(4 * MIB, &memory, NULL), 0);
        assert_int_equal(guest_memory_map_file(memory, MIB + 8 * 4096, 4 * 4096, fd, 0, NULL), 0);
        assert_int_equal(guest_memory_map_file(memory, MIB + 4 * 4096, 4 * 4096, fd, 0, NULL), 0);
        for (int i = 0; i < 16; i++)
            if (i < 4 || i >= 12 || i % 2)
                assert_true(guest_memory_write(memory, MIB + i * 4096u, page, sizeof page));
        guest_memory_discard(memory, MIB + cases[c].guest * 4096, cases[c].size * 4096);
        for (unsigned i = 0; i < 16; i++) {
            assert_true(guest_memory_read(memory, MIB + i * 4096 + 4095, &first, 1));
            if ((first == 0) != (i >= cases[c].zero_from && i < cases[c].zero_to))
                fail_msg("case %zu, page %u", c, i);
        }
        guest_memory_free(memory);
    }
    guest_memory_discard(*state, GUEST_HOLE_START - 4096, 8192); /* none of these is RAM alone */
    guest_memory_discard(*state, GUEST_HOLE_START, 4096);
    guest_memory_discard(*state, UINT64_MAX - 4095, 4096);
    guest_memory_discard(*state, 4096, UINT64_MAX);
}

/* As the agent makes it; NULL: there are no huge pages to be had here. */
static struct guest_memory *memory_of(enum vmm_memory_backing backing, uint64_t bytes, int *ret_fd)
{
    struct guest_memory_spec spec = { .bytes = bytes, .backing = backing, .fd = -1 };
    struct guest_memory *memory = NULL;

    if (vmm_memory_has_file(backing)) {
        spec.fd = vm_memory_open(backing, bytes, NULL);
        if (spec.fd < 0 && backing == VMM_MEMORY_HUGE_2M)
            return NULL;
        assert_true(spec.fd >= 0);
    }
    *ret_fd = spec.fd;
    if (guest_memory_make(&spec, &memory, NULL) < 0)
        assert_int_equal(backing, VMM_MEMORY_HUGE_2M);
    return memory;
}

static uint64_t blocks_of(int fd)
{
    struct stat status;

    assert_int_equal(fstat(fd, &status), 0);
    return (uint64_t)status.st_blocks * 512;
}

static void every_backing_is_memory(void **state)
{
    static const uint64_t bytes = 8 * MIB;

    (void)state;
    for (int backing = 0; backing < VMM_MEMORY_COUNT; backing++) {
        auto_close int fd = -1;
        struct guest_memory *memory = memory_of((enum vmm_memory_backing)backing, bytes, &fd);
        uint64_t page = backing == VMM_MEMORY_HUGE_2M ? 2 * MIB : 4096;
        char back[2] = "";

        if (!memory) {
            print_message("huge-2m: this host has no free huge pages\n");
            continue;
        }
        assert_int_equal((uintptr_t)guest_memory_map(memory, 0, 1) % (2 * MIB), 0);
        assert_int_equal(guest_memory_maps_files(memory), backing == VMM_MEMORY_ANONYMOUS);
        assert_true(guest_memory_write(memory, 2 * MIB, "a", 1));
        assert_true(guest_memory_write(memory, 2 * MIB + page, "b", 1));
        /* Less than a page keeps everything; a page and a half is one page. */
        guest_memory_discard(memory, 2 * MIB, page - 1);
        guest_memory_discard(memory, 2 * MIB - page / 2, 3 * page / 2);
        assert_true(guest_memory_read(memory, 2 * MIB, &back[0], 1));
        assert_true(guest_memory_read(memory, 2 * MIB + page, &back[1], 1));
        assert_memory_equal(back, "\0b", 2);
        guest_memory_free(memory);
    }
}

/* What is discarded is the host's again, and shared memory is seen by who else has the file. */
static void shared_memory_is_the_file(void **state)
{
    auto_close int fd = -1;
    struct guest_memory *memory = memory_of(VMM_MEMORY_SHARED, 8 * MIB, &fd);
    char back = 0;

    (void)state;
    assert_true(guest_memory_write(memory, 3 * MIB, "x", 1));
    assert_int_equal(pread(fd, &back, 1, 3 * MIB), 1);
    assert_int_equal(back, 'x');
    assert_int_equal(blocks_of(fd), 4096);
    guest_memory_discard(memory, 0, 8 * MIB);
    assert_int_equal(blocks_of(fd), 0);
    assert_true(ftruncate(fd, 4 * MIB) < 0 && ftruncate(fd, 16 * MIB) < 0);
    guest_memory_free(memory);
}

static void saving_uses_no_memory(void **state)
{
    auto_close int fd = -1, out = memfd_create("saved", MFD_CLOEXEC);
    struct guest_memory *memory = memory_of(VMM_MEMORY_SHARED, 8 * MIB, &fd);
    char back = 0;

    (void)state;
    assert_int_equal(ftruncate(out, 8 * MIB), 0);
    assert_true(guest_memory_write(memory, 5 * MIB + 7, "x", 1));
    assert_int_equal(guest_memory_save(memory, -1, out), 0);
    assert_int_equal(blocks_of(fd), 4096);
    assert_int_equal(blocks_of(out), 4096);
    assert_int_equal(pread(out, &back, 1, 5 * MIB + 7), 1);
    assert_int_equal(back, 'x');
    guest_memory_free(memory);
}

static void files_of_another_size_are_refused(void **state)
{
    auto_close int fd = memfd_create("short", MFD_CLOEXEC);
    const struct guest_memory_spec spec = { 2 * MIB, 2 * MIB, VMM_MEMORY_SHARED, fd };
    const struct guest_memory_spec odd = { 2 * MIB, MIB, VMM_MEMORY_HUGE_2M, fd };
    struct guest_memory *memory = NULL;

    (void)state;
    assert_int_equal(ftruncate(fd, 3 * MIB), 0);
    assert_int_equal(guest_memory_make(&spec, &memory, NULL), -EINVAL);
    assert_int_equal(guest_memory_make(&odd, &memory, NULL), -EINVAL);
    assert_null(memory);
}

static void sizes_are_checked(void **state)
{
    struct guest_memory *memory = NULL;

    (void)state;
    assert_true(guest_memory_new(0, &memory, NULL) < 0);
    assert_true(guest_memory_new(4097, &memory, NULL) < 0);
    assert_null(memory);
    assert_null(guest_memory_free(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(memory_is_split_around_the_hole, set_up, tear_down),
        cmocka_unit_test_setup_teardown(edges_are_exact, set_up, tear_down),
        cmocka_unit_test_setup_teardown(copies_are_whole_or_not_at_all, set_up, tear_down),
        cmocka_unit_test_setup_teardown(files_are_mapped_copy_on_write, set_up, tear_down),
        cmocka_unit_test_setup_teardown(discarded_pages_read_as_zeroes, set_up, tear_down),
        cmocka_unit_test(what_can_be_plugged_comes_last),
        cmocka_unit_test(what_can_be_plugged_follows_without_a_seam),
        cmocka_unit_test(every_backing_is_memory),
        cmocka_unit_test(shared_memory_is_the_file),
        cmocka_unit_test(saving_uses_no_memory),
        cmocka_unit_test(files_of_another_size_are_refused),
        cmocka_unit_test(sizes_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
