/* test_guest_memory.c - which guest addresses become pointers, and which never do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
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
    assert_int_equal(guest_memory_save(memory, out), 0);
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

static int sealed_file(void)
{
    int fd = memfd_create("layer", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 8 * MIB), 0);
    return fd;
}

static struct guest_memory *copy_of(const int *layers, size_t count)
{
    struct guest_memory *memory;

    assert_int_equal(guest_memory_new(8 * MIB, &memory, NULL), 0);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(guest_memory_lay(memory, layers[i], NULL), 0);
    return memory;
}

static int value_at(const struct guest_memory *memory, uint64_t guest)
{
    uint8_t byte;

    assert_true(guest_memory_read(memory, guest, &byte, 1));
    return byte;
}

static void fill(const struct guest_memory *memory, uint64_t guest, int value, uint64_t size)
{
    void *to = guest_memory_map(memory, guest, size);

    assert_non_null(to);
    memset(to, value, size);
}

static uint64_t allocated(int fd)
{
    struct stat status;

    assert_int_equal(fstat(fd, &status), 0);
    return (uint64_t)status.st_blocks * 512;
}

/* Parent, its child, a sister made later, and the child's child: each sees what was at its birth,
 * and no other's later changes.  Small changes are copied into a copy, large ones mapped. */
static void forks_see_what_was_and_their_own_changes(void **state)
{
    auto_close int file = sealed_file();
    auto_close int unused = sealed_file();
    auto_close int later = sealed_file();
    auto_close int childs = sealed_file();
    auto_close int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    const struct guest_memory_spec spec = { .bytes = 8 * MIB,
                                            .backing = VMM_MEMORY_SHARED,
                                            .fd = file };
    struct guest_memory *parent, *child, *sister, *grandchild;
    int layers[VMM_LAYERS_MAX];
    size_t count;

    (void)state;
    assert_int_equal(guest_memory_make(&spec, &parent, NULL), 0);
    fill(parent, 0, 1, 2 * MIB);
    fill(parent, 4 * MIB, 2, 4096);
    assert_int_equal(guest_memory_fork(parent, pagemap, unused, layers, &count, NULL), 0);
    assert_int_equal(count, 1);
    assert_int_equal(allocated(unused), 0);
    child = copy_of(layers, count);
    assert_int_equal(guest_memory_part(parent, NULL), 0);
    assert_true(guest_memory_unmap_aside(parent) && !guest_memory_unmap_aside(parent));
    fill(parent, 0, 3, MIB);           /* large: mapped in the sister */
    fill(parent, 4 * MIB + 7, 4, 1);   /* small: copied */
    fill(parent, 7 * MIB, 5, 8192);    /* was a hole */
    fill(parent, MIB + 4096, 0, 4096); /* zeroes count */
    fill(child, 0, 6, 4096);
    assert_int_equal(value_at(child, 4096), 1);
    assert_int_equal(value_at(child, 4 * MIB + 7), 2);
    assert_int_equal(value_at(child, 7 * MIB), 0);
    assert_int_equal(value_at(parent, 0), 3);

    assert_int_equal(guest_memory_fork(parent, pagemap, later, layers, &count, NULL), 0);
    assert_int_equal(guest_memory_part(parent, NULL), 0); /* again */
    assert_int_equal(count, 2);
    assert_in_range(allocated(later), MIB + 4096 * 4, MIB + 4096 * 16);
    sister = copy_of(layers, count);
    fill(parent, 0, 7, MIB);
    assert_int_equal(value_at(sister, 0), 3);
    assert_int_equal(value_at(sister, MIB), 1);
    assert_int_equal(value_at(sister, MIB + 4096), 0);
    assert_int_equal(value_at(sister, MIB + 8192), 1);
    assert_int_equal(value_at(sister, 4 * MIB), 2);
    assert_int_equal(value_at(sister, 4 * MIB + 7), 4);
    assert_int_equal(value_at(sister, 7 * MIB + 4096), 5);

    assert_int_equal(guest_memory_fork(child, pagemap, childs, layers, &count, NULL), 0);
    assert_int_equal(count, 2);
    grandchild = copy_of(layers, count);
    assert_int_equal(value_at(grandchild, 0), 6);
    assert_int_equal(value_at(grandchild, 4096), 1);
    guest_memory_discard(grandchild, 0, MIB); /* nothing of the files comes back */
    assert_int_equal(value_at(grandchild, 4096), 0);
    assert_int_equal(value_at(child, 4096), 1);
    guest_memory_free(parent);
    guest_memory_free(child);
    guest_memory_free(sister);
    guest_memory_free(grandchild);
}

/* Memory that was booted becomes changes of a file, and of the next one in its place. */
static void a_new_base_is_the_only_layer(void **state)
{
    auto_close int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    struct guest_memory *memory, *copy;
    int layers[VMM_LAYERS_MAX];
    size_t count;
    int before = -1;

    (void)state;
    assert_int_equal(guest_memory_new(8 * MIB, &memory, NULL), 0);
    fill(memory, 0, 1, 4 * MIB);
    for (int round = 2; round < 4; round++) {
        auto_close int base = sealed_file();
        auto_close int changes = sealed_file();

        assert_int_equal(guest_memory_save(memory, base), 0);
        assert_int_equal(guest_memory_rebase(memory, dup(base), NULL), 0);
        assert_true(before < 0 || fcntl(before, F_GETFD) < 0);
        assert_int_equal(value_at(memory, MIB), round - 1);
        fill(memory, MIB, round, MIB);
        guest_memory_discard(memory, 3 * MIB, 8192);
        assert_int_equal(guest_memory_fork(memory, pagemap, changes, layers, &count, NULL), 0);
        assert_int_equal(count, 2);
        before = layers[0];
        assert_in_range(allocated(changes), MIB + 8192, MIB + 4096 * 16);
        copy = copy_of(layers, count);
        assert_int_equal(value_at(copy, 0), 1);
        assert_int_equal(value_at(copy, MIB), round);
        assert_int_equal(value_at(copy, 3 * MIB), 0);
        assert_int_equal(value_at(copy, 3 * MIB + 8192), 1);
        guest_memory_free(copy);
    }
    guest_memory_free(memory);
}

/* Of a fork these are others' memory, which stays for as long as anybody has it open. */
static void a_new_base_lets_go_of_what_was_before(void **state)
{
    const int layers[] = { sealed_file(), sealed_file() };
    auto_close int base = sealed_file();
    struct guest_memory *memory = copy_of(layers, 2);

    (void)state;
    assert_int_equal(guest_memory_rebase(memory, dup(base), NULL), 0);
    assert_true(fcntl(layers[0], F_GETFD) < 0 && fcntl(layers[1], F_GETFD) < 0);
    guest_memory_free(memory);
}

/* As a memfd is where the host's shmem_enabled says so: what is beside a page that was written is
 * zeroes, not a hole, and would hide what the other layers have. */
static void changes_do_not_go_into_huge_pages(void **state)
{
    char path[] = "/tmp/memory.XXXXXX";
    auto_close int base = sealed_file();
    auto_close int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    auto_close int huge = -1;
    struct guest_memory *memory;
    int layers[VMM_LAYERS_MAX];
    size_t count;

    (void)state;
    assert_non_null(mkdtemp(path));
    if (mount("warren-test", path, "tmpfs", 0, "mode=700,huge=always") == 0) {
        huge = open(path, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
        assert_int_equal(umount2(path, MNT_DETACH), 0);
    }
    assert_int_equal(rmdir(path), 0);
    if (huge < 0)
        skip();
    assert_int_equal(ftruncate(huge, 8 * MIB), 0);
    memory = copy_of(&base, 1);
    fill(memory, 0, 1, 1);
    assert_int_equal(guest_memory_fork(memory, pagemap, huge, layers, &count, NULL), -EOPNOTSUPP);
    guest_memory_free(memory);
}

static unsigned mappings(void)
{
    auto_close int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    char bytes[4096];
    unsigned lines = 0;

    for (ssize_t size; (size = read(fd, bytes, sizeof bytes)) > 0;)
        for (ssize_t i = 0; i < size; i++)
            lines += bytes[i] == '\n';
    return lines;
}

/* Each of them would be two mappings more, of which a process has 65,530. */
static void many_changes_do_not_use_up_the_mappings(void **state)
{
    const unsigned parts = 8192 + 64, step = 128 << 10;
    const struct guest_memory_spec spec = { .bytes = 2 * GIB };
    static uint8_t part[64 << 10];
    auto_close int base = memfd_create("base", MFD_CLOEXEC);
    auto_close int changes = memfd_create("changes", MFD_CLOEXEC);
    struct guest_memory *memory;
    unsigned before;

    (void)state;
    memset(part, 1, sizeof part);
    assert_int_equal(ftruncate(base, 2 * GIB) | ftruncate(changes, 2 * GIB), 0);
    for (unsigned i = 0; i < parts; i++)
        assert_int_equal(pwrite(changes, part, sizeof part, (off_t)i * step), sizeof part);
    assert_int_equal(guest_memory_make(&spec, &memory, NULL), 0);
    assert_int_equal(guest_memory_lay(memory, base, NULL), 0);
    before = mappings();
    assert_int_equal(guest_memory_lay(memory, changes, NULL), 0);
    assert_in_range(mappings(), before + 8192, before + 2 * 8192 + 2);
    for (unsigned i = 0; i < parts; i++) {
        assert_int_equal(value_at(memory, (uint64_t)i * step), 1);
        assert_int_equal(value_at(memory, (uint64_t)i * step + sizeof part), 0);
    }
    guest_memory_free(memory);
}

static void forks_have_bounds(void **state)
{
    auto_close int file = sealed_file();
    auto_close int shorter = memfd_create("short", MFD_CLOEXEC);
    auto_close int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    const struct guest_memory_spec shared = { .bytes = 8 * MIB,
                                              .backing = VMM_MEMORY_SHARED,
                                              .fd = file };
    struct guest_memory *memory;
    int layers[VMM_LAYERS_MAX];
    size_t count = 77;

    (void)state;
    assert_int_equal(guest_memory_new(8 * MIB, &memory, NULL), 0);
    assert_int_equal(guest_memory_fork(memory, pagemap, file, layers, &count, NULL), -ENOTSUP);
    assert_int_equal(ftruncate(shorter, 8 * MIB - 4096), 0);
    assert_int_equal(guest_memory_lay(memory, shorter, NULL), -EINVAL);
    for (int i = 0; i < VMM_LAYERS_MAX; i++)
        assert_int_equal(guest_memory_lay(memory, file, NULL), 0);
    assert_int_equal(guest_memory_lay(memory, file, NULL), -E2BIG);
    assert_int_equal(guest_memory_fork(memory, pagemap, file, layers, &count, NULL), -E2BIG);
    assert_int_equal(count, 77);
    guest_memory_free(memory);
    assert_int_equal(guest_memory_make(&shared, &memory, NULL), 0);
    assert_int_equal(guest_memory_rebase(memory, file, NULL), -ENOTSUP);
    guest_memory_free(memory);
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
        cmocka_unit_test(forks_see_what_was_and_their_own_changes),
        cmocka_unit_test(a_new_base_is_the_only_layer),
        cmocka_unit_test(a_new_base_lets_go_of_what_was_before),
        cmocka_unit_test(changes_do_not_go_into_huge_pages),
        cmocka_unit_test(many_changes_do_not_use_up_the_mappings),
        cmocka_unit_test(forks_have_bounds),
        cmocka_unit_test(sizes_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
