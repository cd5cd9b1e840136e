/* test_vm_memory.c - what the agent passes to a VMM of its memory.  Needs root. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
#include "agent/node_internal.h"
#include "agent/vm_files.h"
#include "agent/vm_memory.h"
#include "base/cleanup.h"
#include "base/error.h"

/* Documentation/admin-guide/mm/pagemap.rst */
#define PAGE_PRESENT (1ull << 63)
#define PAGE_FRAME   ((1ull << 55) - 1)

static char page_of_ours[2 * 4096];

static uint64_t entry_of(int fd, const char *address)
{
    off_t at = (off_t)((uintptr_t)address / (uintptr_t)getpagesize() * sizeof(uint64_t));
    uint64_t entry = 0;

    assert_int_equal(pread(fd, &entry, sizeof entry, at), sizeof entry);
    return entry;
}

static uint64_t capabilities(void)
{
    FILE *file = fopen("/proc/thread-self/status", "re");
    char line[256];
    uint64_t effective = 0;

    assert_non_null(file);
    while (fgets(line, sizeof line, file))
        (void)sscanf(line, "CapEff: %" SCNx64, &effective);
    fclose(file);
    return effective;
}

static void a_pagemap_does_not_tell_where_pages_are(void **state)
{
    const struct vm vm = { .pid = getpid() };
    struct error err = { 0 };
    const uint64_t before = capabilities();
    auto_close int fd = -1;

    (void)state;
    if (geteuid() != 0)
        skip();
    page_of_ours[4096] = 1;
    fd = vm_memory_open_pagemap(&vm, &err);
    assert_true(fd >= 0);
    assert_int_equal(entry_of(fd, page_of_ours + 4096) & (PAGE_PRESENT | PAGE_FRAME), PAGE_PRESENT);
    assert_int_equal(capabilities(), before);
}

/* What forks are to share: whoever has mapped it goes on with that, nobody changes it anew. */
static void what_is_sealed_is_not_written_to(void **state)
{
    enum { BYTES = 2 << 20 };
    struct error err = { 0 };
    auto_close int fd = vm_memory_open(VMM_MEMORY_SHARED, BYTES, &err), file = -1;
    char *before, *private;

    (void)state;
    assert_true(fd >= 0);
    before = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(before, MAP_FAILED);
    for (int i = 0; i < 2; i++) /* again changes nothing */
        assert_int_equal(vm_memory_seal(fd), 0);
    assert_true(pwrite(fd, "x", 1, 0) < 0);
    assert_true(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) < 0);
    assert_true(ftruncate(fd, 4096) < 0);
    assert_ptr_equal(mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    private = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    assert_ptr_not_equal(private, MAP_FAILED);
    before[0] = 'a';
    private[0] = 'b';
    assert_int_equal(before[0], 'a');
    munmap(before, BYTES);
    munmap(private, BYTES);
    file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    assert_int_equal(vm_memory_seal(file), 0); /* a snapshot's is one, too */
}

/* What a snapshot's memory cannot be mapped into it is read into, and a large one takes its time.
 */
static void what_is_read_at_a_start_has_time_for_it(void **state)
{
    struct vm vm = { .spec = { .memory_mib = 20000, .memory_max_mib = 20000 } };

    (void)state;
    vm.spec.memory_backing = VMM_MEMORY_HUGE_2M;
    assert_int_equal(vm_files_limit_ms(&vm), 30000); /* booted */
    vm.restore = VM_RESTORE_UNDER_WAY;
    assert_int_equal(vm_files_limit_ms(&vm), 230000);
    vm.spec.memory_backing = VMM_MEMORY_TRANSPARENT_HUGE;
    assert_int_equal(vm_files_limit_ms(&vm), 230000);
    vm.spec.memory_backing = VMM_MEMORY_SHARED; /* mapped, as anonymous */
    assert_int_equal(vm_files_limit_ms(&vm), 30000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pagemap_does_not_tell_where_pages_are),
        cmocka_unit_test(what_is_sealed_is_not_written_to),
        cmocka_unit_test(what_is_read_at_a_start_has_time_for_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
