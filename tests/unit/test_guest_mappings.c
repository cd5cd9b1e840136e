/* test_guest_mappings.c - a guest whose memory is a file's gives back every other page of it, and
 * each is a mapping more of the process (vm.max_map_count), which needs some for itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/unit/memory_harness.h"
#include "vmm/filter.h"

#define PAGE      4096u
#define MIB       (1ull << 20)
#define COUNT_MAX 1000000 /* mappings, for which the test makes enough pages */
#define OWN       64      /* mappings that a process wants for itself */

/* 0 where it cannot be read. */
static unsigned mappings_max(void)
{
    FILE *file = fopen("/proc/sys/vm/max_map_count", "re");
    unsigned count = 0;

    if (file && fscanf(file, "%u", &count) != 1)
        count = 0;
    if (file)
        fclose(file);
    return count;
}

static int set_up(void **state)
{
    /* A page with a hole beside it is two mappings. */
    uint64_t bytes = (mappings_max() * (uint64_t)PAGE / MIB + 64) * MIB;
    int fd = memfd_create("memory", MFD_CLOEXEC); /* to the end: the memory borrows it */
    struct guest_memory *memory = NULL;

    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0 || guest_memory_new(bytes, &memory, NULL) < 0 ||
        guest_memory_lay(memory, fd, NULL) < 0)
        return -1;
    *state = memory;
    return 0;
}

static int tear_down(void **state)
{
    guest_memory_free(*state);
    return 0;
}

/* Until one is refused; how many were not. */
static unsigned discard_every_other(struct guest_memory *memory)
{
    unsigned count = 0;

    while (2ull * count * PAGE < guest_memory_bytes(memory) &&
           guest_memory_discard(memory, 2ull * count * PAGE, PAGE))
        count++;
    return count;
}

static char first_byte(struct guest_memory *memory, uint64_t page)
{
    char byte = 'x';

    assert_true(guest_memory_read(memory, page * PAGE, &byte, 1));
    return byte;
}

static void what_a_guest_gives_back_leaves_the_process_mappings(void **state)
{
    struct guest_memory *memory = *state;
    void *own[OWN];
    unsigned count, mapped = 0;

    if (mappings_max() == 0 || mappings_max() > COUNT_MAX) {
        print_message("vm.max_map_count is %u here: too many to be used up\n", mappings_max());
        skip();
    }
    count = discard_every_other(memory);
    assert_in_range(2ull * count * PAGE, PAGE, guest_memory_bytes(memory) - PAGE);
    /* Of files of their own: no two are one mapping. */
    while (mapped < OWN && (own[mapped] = mmap(NULL, PAGE, PROT_READ, MAP_SHARED | MAP_ANONYMOUS,
                                               -1, 0)) != MAP_FAILED)
        mapped++;
    assert_int_equal(mapped, OWN);
    for (unsigned i = 0; i < OWN; i++)
        munmap(own[i], PAGE);

    /* One that was refused stays, also now; one that was given back can be again. */
    assert_true(guest_memory_write(memory, 2ull * count * PAGE, "k", 1));
    assert_false(guest_memory_discard(memory, 2ull * count * PAGE, PAGE));
    assert_int_equal(first_byte(memory, 2 * count), 'k');
    assert_true(guest_memory_write(memory, 2 * PAGE, "g", 1));
    assert_true(guest_memory_discard(memory, 2 * PAGE, PAGE));
    assert_int_equal(first_byte(memory, 2), 0);
}

/* The filter ends a VMM that maps what it does not know. */
static void the_filter_lets_it(void **state)
{
    struct guest_memory *memory = *state;
    int status = -1;
    pid_t pid;

    if (!FILTERS_ARE_BUILT)
        skip(); /* a sanitizer needs calls that it forbids */
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || filter_load(FILTER_DEVICES, NULL) < 0)
            _exit(1);
        _exit(discard_every_other(memory) > 0 ? 0 : 2);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_a_guest_gives_back_leaves_the_process_mappings, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(the_filter_lets_it, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
