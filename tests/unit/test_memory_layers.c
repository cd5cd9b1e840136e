/* test_memory_layers.c - memory that lies over files: forks and restored guests, and what is
 * written of it into a snapshot. */
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
#include "base/cleanup.h"
#include "base/error.h"
#include "tests/unit/memory_harness.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)

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
    assert_int_equal(allocated(file), 2 * MIB + 4096); /* holes stay that */

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

        assert_int_equal(guest_memory_save(memory, pagemap, base), 0);
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

/* What is saved of memory that nobody holds back. */
static void assert_saved(struct guest_memory *memory, int pagemap, uint64_t data_bytes)
{
    auto_close int out = sealed_file();
    struct guest_memory *copy;

    assert_int_equal(guest_memory_save(memory, pagemap, out), 0);
    assert_int_equal(allocated(out), data_bytes);
    copy = copy_of(&out, 1);
    assert_memory_equal(guest_memory_map(copy, 0, 8 * MIB), guest_memory_map(memory, 0, 8 * MIB),
                        8 * MIB);
    guest_memory_free(copy);
}

/* The kernel is asked of 16 MiB at a time what is a guest's own. */
static void changes_are_found_in_all_of_memory(void **state)
{
    static const uint64_t pages[] = { 0, 1, 4094, 4095, 4096, 8191, 8193, 10239 };
    auto_close int base = memfd_create("base", MFD_CLOEXEC);
    auto_close int changes = memfd_create("changes", MFD_CLOEXEC);
    auto_close int saved = memfd_create("saved", MFD_CLOEXEC);
    auto_close int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    struct guest_memory *memory;
    int layers[VMM_LAYERS_MAX];
    size_t count;
    char byte;

    (void)state;
    assert_int_equal(
        ftruncate(base, 40 * MIB) | ftruncate(changes, 40 * MIB) | ftruncate(saved, 40 * MIB), 0);
    assert_int_equal(pwrite(base, "b", 1, 8192 * 4096), 1); /* the rest of it is a hole */
    assert_int_equal(guest_memory_new(40 * MIB, &memory, NULL), 0);
    assert_int_equal(guest_memory_lay(memory, base, NULL), 0);
    for (size_t i = 0; i < ARRAY_LENGTH(pages); i++)
        fill(memory, pages[i] * 4096 + i, 'c', 1);
    assert_true(guest_memory_discard(memory, 9000 * 4096, 4096));
    assert_int_equal(guest_memory_fork(memory, pagemap, changes, layers, &count, NULL), 0);
    assert_int_equal(guest_memory_save(memory, pagemap, saved), 0);
    assert_int_equal(allocated(changes), (ARRAY_LENGTH(pages) + 1) * 4096);
    assert_int_equal(allocated(saved), (ARRAY_LENGTH(pages) + 1) * 4096);
    for (size_t i = 0; i < ARRAY_LENGTH(pages); i++) {
        assert_int_equal(pread(changes, &byte, 1, (off_t)(pages[i] * 4096 + i)), 1);
        assert_int_equal(byte, 'c');
        assert_int_equal(pread(saved, &byte, 1, (off_t)(pages[i] * 4096 + i)), 1);
        assert_int_equal(byte, 'c');
    }
    guest_memory_free(memory);
}

/* Of a fork's memory what is in the layers, each over the one before, and what is its own; what
 * nobody wrote to stays a hole of theirs. */
static void saving_fills_no_holes(void **state)
{
    int layers[] = { sealed_file(), sealed_file() };
    auto_close int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    auto_close int out = sealed_file();
    struct guest_memory *memory;
    uint64_t before[2];
    char byte = 1;

    (void)state;
    for (unsigned i = 0; i < 32; i++) /* 128 KiB: mapped; the same with the second over it */
        assert_int_equal(pwrite(layers[0], &byte, 1, MIB + i * 4096), 1);
    for (unsigned i = 16; i < 48; i++)
        assert_int_equal(pwrite(layers[1], &byte, 1, MIB + i * 4096 + 1), 1);
    assert_int_equal(pwrite(layers[1], &byte, 1, 4 * MIB), 1); /* copied */
    assert_int_equal(pwrite(layers[0], &byte, 1, 8 * MIB - 1), 1);
    memory = copy_of(layers, 2);
    fill(memory, MIB + 4096, 2, 4096);
    fill(memory, 2 * MIB, 3, 4096);
    fill(memory, 3 * MIB, 0, 4096);
    fill(memory, MIB / 2, 4, 1); /* a hole that is too small to be no file's */
    guest_memory_discard(memory, MIB + 8192, 4096);
    guest_memory_discard(memory, 6 * MIB, 4096);
    before[0] = allocated(layers[0]);
    before[1] = allocated(layers[1]);
    assert_int_equal(guest_memory_save(memory, pagemap, out), 0);
    assert_int_equal(allocated(layers[0]), before[0]);
    assert_int_equal(allocated(layers[1]), before[1]);
    assert_saved(memory, pagemap, (48 - 1 + 4) * 4096);
    assert_saved(memory, -1, (48 - 1 + 4) * 4096);
    guest_memory_free(memory);
    close(layers[0]);
    close(layers[1]);
}

static unsigned resident(const struct guest_memory *memory, int pagemap)
{
    uint64_t entries[8 * MIB / 4096], first = (uintptr_t)guest_memory_map(memory, 0, 1) / 4096;
    unsigned count = 0;

    assert_int_equal(pread(pagemap, entries, sizeof entries, (off_t)(first * 8)), sizeof entries);
    for (unsigned i = 0; i < 8 * MIB / 4096; i++)
        count += entries[i] >> 63;
    return count;
}

/* What was booted: a kernel's pages, of which some were written to or given back, and the rest. */
static void saving_looks_at_nothing_else(void **state)
{
    auto_close int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    auto_close int out = sealed_file(), kernel = sealed_file(), initrd = sealed_file();
    struct guest_memory *memory;
    static uint8_t code[16 * 4096];

    (void)state;
    memset(code, 7, sizeof code);
    assert_int_equal(pwrite(kernel, code, sizeof code, 0), sizeof code);
    assert_int_equal(pwrite(initrd, code, sizeof code, 4096), sizeof code);
    assert_int_equal(guest_memory_new(8 * MIB, &memory, NULL), 0);
    assert_int_equal(guest_memory_map_file(memory, 5 * MIB, sizeof code, initrd, 0, NULL), 0);
    assert_int_equal(guest_memory_map_file(memory, MIB, sizeof code, kernel, 0, NULL), 0);
    fill(memory, MIB, 8, 4096);
    fill(memory, MIB + 4096, 0, 4096);
    guest_memory_discard(memory, MIB + 8192, 4096);
    fill(memory, 3 * MIB, 9, 4096);
    fill(memory, 8 * MIB - 4096, 9, 4096);
    assert_int_equal(guest_memory_save(memory, pagemap, out), 0);
    assert_in_range(resident(memory, pagemap), 4, 34);
    assert_saved(memory, pagemap, (16 - 2 + 15 + 2) * 4096);
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

/* Only what a file would come back to has something mapped over it, or a guest that was booted
 * could give back no more than one that was restored. */
static void what_is_no_files_takes_no_mapping(void **state)
{
    auto_close int kernel = sealed_file();
    struct guest_memory *memory;
    unsigned before;

    (void)state;
    assert_int_equal(guest_memory_new(8 * MIB, &memory, NULL), 0);
    assert_int_equal(guest_memory_map_file(memory, 2 * MIB, MIB, kernel, 0, NULL), 0);
    assert_int_equal(guest_memory_map_file(memory, 5 * MIB, MIB, kernel, 0, NULL), 0);
    before = mappings();
    for (uint64_t at = 0; at < 8 * MIB; at += 65536)
        if ((at < 2 * MIB || at >= 3 * MIB) && (at < 5 * MIB || at >= 6 * MIB)) {
            fill(memory, at, 1, 4096);
            assert_true(guest_memory_discard(memory, at, 4096));
            assert_int_equal(value_at(memory, at), 0);
        }
    assert_int_equal(mappings(), before);
    assert_true(guest_memory_discard(memory, 2 * MIB, 4096));
    assert_true(mappings() > before);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forks_see_what_was_and_their_own_changes),
        cmocka_unit_test(a_new_base_is_the_only_layer),
        cmocka_unit_test(a_new_base_lets_go_of_what_was_before),
        cmocka_unit_test(changes_are_found_in_all_of_memory),
        cmocka_unit_test(saving_fills_no_holes),
        cmocka_unit_test(saving_looks_at_nothing_else),
        cmocka_unit_test(changes_do_not_go_into_huge_pages),
        cmocka_unit_test(many_changes_do_not_use_up_the_mappings),
        cmocka_unit_test(what_is_no_files_takes_no_mapping),
        cmocka_unit_test(forks_have_bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
