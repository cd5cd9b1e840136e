/* test_snapshot_faults.c - snapshots and forks on a host whose calls fail: they are refused with
 * what the host said, the guest's memory is as it was, and the next one is good.  What KVM is asked
 * for: test_kvm_state.c; disks: test_block_faults.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <unistd.h>
#define FAULT_BYTES 8 /* of a page map */
#include "tests/unit/fault_harness.h"
#include "tests/unit/memory_harness.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "vmm/snapshot.h"
#include "vmm/transfer.h"

#define MIB            (1u << 20)
#define BYTES          (4 * MIB)
#define MAP_OF_LAYERS  (MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE)
#define MAP_TO_RESERVE (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)

struct fixture {
    struct guest_memory *memory;
    int file;    /* what it is made of, if it is shared */
    int pagemap; /* of this process */
    int base;    /* the snapshot on which it stands, or is to */
    int state, out;
    struct transfer transfer;
};

static int file_new(void)
{
    int fd = memfd_create("snapshot", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, BYTES), 0);
    return fd;
}

static void fill(const struct guest_memory *memory, uint64_t guest, int value, uint64_t size)
{
    memset(guest_memory_map(memory, guest, size), value, size);
}

static int set_up(void **state, enum vmm_memory_backing backing)
{
    struct fixture *f = calloc(1, sizeof *f);
    uint32_t one = 1;

    assert_non_null(f);
    f->file = file_new();
    f->base = file_new();
    f->out = file_new();
    f->state = memfd_create("state", MFD_CLOEXEC);
    f->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    const struct guest_memory_spec spec = { .bytes = BYTES, .backing = backing, .fd = f->file };

    assert_int_equal(guest_memory_make(&spec, &f->memory, NULL), 0);
    fill(f->memory, 0, 1, MIB); /* three parts, with holes between them */
    fill(f->memory, 2 * MIB, 2, 8192);
    fill(f->memory, BYTES - 4096, 3, 4096);
    transfer_item(&f->transfer, "one", &one, sizeof one);
    *state = f;
    return 0;
}

static int set_up_anonymous(void **state)
{
    return set_up(state, VMM_MEMORY_ANONYMOUS);
}

static int set_up_shared(void **state)
{
    return set_up(state, VMM_MEMORY_SHARED);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    (void)fault_end();
    guest_memory_free(f->memory);
    free(f->transfer.bytes);
    close(f->file);
    close(f->base);
    close(f->out);
    close(f->state);
    close(f->pagemap);
    free(f);
    return 0;
}

/* What the files have, one over the other, is what the guest has. */
static void assert_layers(const struct fixture *f, const int *layers, size_t count)
{
    struct guest_memory *copy;

    assert_int_equal(guest_memory_new(BYTES, &copy, NULL), 0);
    assert_int_equal(snapshot_map(layers, count, copy, NULL), 0);
    assert_memory_equal(guest_memory_map(f->memory, 0, BYTES), guest_memory_map(copy, 0, BYTES),
                        BYTES);
    guest_memory_free(copy);
}

/* Tries with the first such call failing, the second, and so on, until there is none more to fail;
 * how many did. */
static unsigned refused_by(struct fixture *f, int (*attempt)(struct fixture *f),
                           enum fault_call call, int code, unsigned long what)
{
    for (unsigned refused = 0;; refused++) {
        int result;

        fault_set(call, code, what, refused, 1);
        result = attempt(f);
        if (fault_end() == 0) {
            assert_int_equal(result, 0);
            return refused;
        }
        if (result != -code)
            fail_msg("call %d, number %u failed with %d, and it ended with %d", (int)call, refused,
                     code, result);
    }
}

struct sweep {
    enum fault_call call;
    int code;
    unsigned long what;
    unsigned at_least; /* such calls there are; 0 = none */
};

static void sweep(struct fixture *f, int (*attempt)(struct fixture *f), const struct sweep *calls,
                  size_t count)
{
    for (size_t i = 0; i < count; i++) {
        unsigned refused = refused_by(f, attempt, calls[i].call, calls[i].code, calls[i].what);

        if (refused < calls[i].at_least || (refused > 0) != (calls[i].at_least > 0))
            fail_msg("case %zu: %u calls", i, refused);
    }
}

/* --- a snapshot's files --- */

static int write_files(struct fixture *f)
{
    assert_int_equal(ftruncate(f->out, 0) | ftruncate(f->out, BYTES), 0);
    return snapshot_write(&(const struct snapshot_files){ f->state, f->out, f->pagemap }, f->memory,
                          &f->transfer, NULL);
}

static void a_snapshot_that_cannot_be_written_is_refused(void **state)
{
    struct fixture *f = *state;
    bool shared = !guest_memory_maps_files(f->memory);
    const struct sweep calls[] = {
        { PWRITEV, ENOSPC, FAULT_ANY, 4 }, /* three parts and the state */
        { PWRITEV, EIO, FAULT_ANY, 4 },
        { PREADV, EIO, FAULT_ANY, shared ? 6 : 1 }, /* 256 KiB at a time; which pages are used */
        { ALLOCATE, ENOMEM, FAULT_ANY, 1 },
    };

    sweep(f, write_files, calls, ARRAY_LENGTH(calls));
    assert_layers(f, &f->out, 1);
}

/* The rest of what was done in part is done by the next call. */
static void a_snapshot_is_whole_by_short_calls(void **state)
{
    static const int codes[] = { FAULT_SHORT, EINTR };
    static const enum fault_call calls[] = { PWRITEV, PREADV };
    struct fixture *f = *state;

    for (unsigned i = 0; i < 4; i++) {
        fault_set(calls[i / 2], codes[i % 2], FAULT_ANY, 0, 5);
        assert_int_equal(write_files(f), 0);
        assert_int_equal(fault_end(), 5);
        assert_layers(f, &f->out, 1);
    }
}

/* Where a stretch of data ends takes time by its length: of each it is asked once, however many
 * others lie before it. */
static void no_layer_is_gone_through_again_and_again(void **state)
{
    struct fixture *f = *state;
    auto_close int far = file_new(), near = file_new();
    const struct snapshot_files files = { f->state, f->out, f->pagemap };
    const unsigned stretches = 50;
    unsigned calls;

    assert_int_equal(pwrite(far, "x", 1, BYTES - 4096), 1);
    for (unsigned i = 0; i < stretches; i++)
        assert_int_equal(pwrite(near, "y", 1, i * 8192), 1);
    guest_memory_free(f->memory);
    assert_int_equal(guest_memory_new(BYTES, &f->memory, NULL), 0);
    assert_int_equal(guest_memory_lay(f->memory, far, NULL), 0);
    assert_int_equal(guest_memory_lay(f->memory, near, NULL), 0);
    fault_set(LSEEK, EIO, (unsigned long)near, 1, 1);
    assert_int_equal(snapshot_write(&files, f->memory, &f->transfer, NULL), -EIO);
    assert_int_equal(fault_end(), 1);
    fault_set(LSEEK, EIO, (unsigned long)far, UINT_MAX, 0);
    assert_int_equal(snapshot_write(&files, f->memory, &f->transfer, NULL), 0);
    calls = fault.seen;
    (void)fault_end();
    assert_in_range(calls, stretches, stretches + 5);
    assert_layers(f, &f->out, 1);
}

/* --- memory that comes to stand on its snapshot --- */

static int rebase(struct fixture *f)
{
    int fd = dup(f->base), result = guest_memory_rebase(f->memory, fd, NULL);

    if (result < 0)
        close(fd);
    return result;
}

static void a_new_base_is_mapped_or_not(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(guest_memory_save(f->memory, f->pagemap, f->base), 0);
    fill(f->memory, 0, 7, 4096); /* is lost by the mapping, and only by that */
    fault_set(MMAP, ENOMEM, MAP_OF_LAYERS, 0, 1);
    assert_int_equal(rebase(f), -ENOMEM);
    assert_int_equal(fault_end(), 1);
    fault_set(FDATASYNC, EIO, FAULT_ANY, 0, 1);
    assert_int_equal(rebase(f), -EIO);
    assert_int_equal(fault_end(), 1);
    assert_int_equal(*(uint8_t *)guest_memory_map(f->memory, 0, 1), 7);
    assert_int_equal(rebase(f), 0);
    assert_layers(f, &f->base, 1);
}

/* --- a fork --- */

/* Of what changed since the memory's layers, into a file of its own. */
static int fork_changes(struct fixture *f)
{
    int layers[VMM_LAYERS_MAX];
    size_t count = 77;
    int result;

    close(f->out);
    f->out = file_new();
    result = guest_memory_fork(f->memory, f->pagemap, f->out, layers, &count, NULL);
    assert_int_equal(count, result < 0 ? 77 : 2);
    return result;
}

static void changes_that_cannot_be_told_are_refused(void **state)
{
    static const struct sweep calls[] = {
        { PREADV, EIO, FAULT_ANY, 1 },     /* which pages they are */
        { PWRITEV, ENOSPC, FAULT_ANY, 3 }, /* two parts; whether the file can tell pages apart */
        { PWRITEV, EIO, FAULT_ANY, 3 },      { LSEEK, EIO, FAULT_ANY, 2 },
        { FALLOCATE, ENOSPC, FAULT_ANY, 1 }, { ALLOCATE, ENOMEM, FAULT_ANY, 1 },
    };
    struct fixture *f = *state;
    int layers[2] = { f->base };

    assert_int_equal(guest_memory_save(f->memory, f->pagemap, f->base), 0);
    assert_int_equal(rebase(f), 0);
    fill(f->memory, 4096, 4, 8192);
    fill(f->memory, 3 * MIB, 5, MIB / 2);
    sweep(f, fork_changes, calls, ARRAY_LENGTH(calls));
    layers[1] = f->out;
    assert_layers(f, layers, 2);
    for (unsigned i = 0; i < 2; i++) {
        fault_set(i ? PREADV : PWRITEV, FAULT_SHORT, FAULT_ANY, 0, 3);
        assert_int_equal(fork_changes(f), 0);
        assert_int_equal(fault_end(), 3);
        layers[1] = f->out;
        assert_layers(f, layers, 2);
    }
}

/* Its forks have the file by then, so that it must not go on as it is; machine.c ends it. */
static void who_cannot_part_says_so(void **state)
{
    struct fixture *f = *state;
    uint8_t byte = 0;

    fault_set(MMAP, ENOMEM, MAP_OF_LAYERS, 0, 1);
    assert_int_equal(guest_memory_part(f->memory, NULL), -ENOMEM);
    assert_int_equal(fault_end(), 1);
    assert_int_equal(pread(f->file, &byte, 1, 0), 1);
    assert_int_equal(byte, 1);
}

/* What it was mapped by is taken down at once then, or never: that costs time, or address space. */
static void parting_needs_nothing_beside(void **state)
{
    static const struct sweep faults[] = {
        { MREMAP, EINVAL, FAULT_ANY, 1 },    /* Linux before 5.13 */
        { MMAP, ENOMEM, MAP_TO_RESERVE, 1 }, /* no room for it */
        { MUNMAP, ENOMEM, FAULT_ANY, 1 },    /* too many mappings */
    };

    for (size_t i = 0; i < ARRAY_LENGTH(faults); i++) {
        struct fixture *f;
        uint8_t byte = 0;

        set_up_shared(state);
        f = *state;
        fault_set(faults[i].call, faults[i].code, faults[i].what, 0, UINT_MAX);
        assert_int_equal(guest_memory_part(f->memory, NULL), 0);
        assert_int_equal(guest_memory_unmap_aside(f->memory), faults[i].call == MREMAP);
        assert_true(fault_end() >= faults[i].at_least);
        assert_false(guest_memory_unmap_aside(f->memory));
        assert_layers(f, &f->file, 1);
        fill(f->memory, 0, 9, 4096); /* its own */
        assert_int_equal(pread(f->file, &byte, 1, 0), 1);
        assert_int_equal(byte, 1);
        tear_down(state);
    }
}

int main(void)
{
#define TEST(name, how) cmocka_unit_test_setup_teardown(name, how, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_snapshot_that_cannot_be_written_is_refused, set_up_anonymous),
        TEST(a_snapshot_that_cannot_be_written_is_refused, set_up_shared),
        TEST(a_snapshot_is_whole_by_short_calls, set_up_anonymous),
        TEST(a_snapshot_is_whole_by_short_calls, set_up_shared),
        TEST(no_layer_is_gone_through_again_and_again, set_up_anonymous),
        TEST(a_new_base_is_mapped_or_not, set_up_anonymous),
        TEST(changes_that_cannot_be_told_are_refused, set_up_anonymous),
        TEST(who_cannot_part_says_so, set_up_shared),
        cmocka_unit_test(parting_needs_nothing_beside),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
