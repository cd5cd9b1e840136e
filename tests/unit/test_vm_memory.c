/* test_vm_memory.c - what the agent passes to a VMM of its memory.  Needs root. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>
#include "agent/node_internal.h"
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pagemap_does_not_tell_where_pages_are),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
