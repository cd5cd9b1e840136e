/* test_transfer.c - the container of a machine's state, and what its readers refuse. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include "tests/unit/memory_harness.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "vmm/cpuid.h"
#include "vmm/snapshot.h"
#include "vmm/transfer.h"
#include "vmm/virtqueue.h"

#define MEMORY_BYTES (1u << 20)

/* Two items and a large one. */
static void walk(struct transfer *transfer, uint32_t *one, uint8_t *many, size_t size)
{
    transfer_item(transfer, "one", one, sizeof *one);
    transfer_item(transfer, "many", many, size);
    transfer_item(transfer, "one again", one, sizeof *one);
}

static struct transfer reading(const struct transfer *from, size_t size, struct error *err)
{
    return (struct transfer){ .loading = true, .bytes = from->bytes, .size = size, .err = err };
}

static void comes_back_as_it_was(void **state)
{
    static uint8_t many[200000], back[sizeof many];
    struct error err = { 0 };
    struct transfer out = { .err = &err }, in;
    uint32_t one = 7, got = 0;

    (void)state;
    memset(many, 0x5a, sizeof many);
    walk(&out, &one, many, sizeof many);
    assert_true(transfer_is_good(&out));
    in = reading(&out, out.size, &err);
    walk(&in, &got, back, sizeof back);
    assert_true(transfer_is_good(&in));
    assert_int_equal(got, 7);
    assert_memory_equal(many, back, sizeof many);
    assert_int_equal(in.at, in.size);
    free(out.bytes);
}

/* It grows as it goes. */
static void small_items_come_back_however_many(void **state)
{
    struct error err = { 0 };
    struct transfer out = { .err = &err }, in;
    uint8_t many[1000], back[1000];
    uint32_t got;

    (void)state;
    for (uint32_t i = 0; i < 1000; i++) {
        memset(many, (int)i, sizeof many);
        walk(&out, &i, many, sizeof many);
    }
    assert_true(transfer_is_good(&out));
    assert_in_range(out.room, out.size, 2 * out.size);
    in = reading(&out, out.size, &err);
    for (uint32_t i = 0; i < 1000; i++) {
        memset(many, (int)i, sizeof many);
        walk(&in, &got, back, sizeof back);
        assert_int_equal(got, i);
        assert_memory_equal(many, back, sizeof many);
    }
    assert_true(transfer_is_good(&in));
    free(out.bytes);
}

static void refuses_what_is_cut_off_or_another_thing(void **state)
{
    uint8_t many[40] = { 0 }, back[40] = { 1 };
    struct error err = { 0 };
    struct transfer out = { .err = &err }, in;
    uint32_t one = 7, got = 0;

    (void)state;
    walk(&out, &one, many, sizeof many);
    for (size_t size = 0; size < out.size; size++) {
        /* exactly as large, so that a read behind its end is seen */
        uint8_t *bytes = malloc(size + !size);

        assert_non_null(bytes);
        memcpy(bytes, out.bytes, size);
        in = (struct transfer){ .loading = true, .bytes = bytes, .size = size, .err = &err };
        walk(&in, &got, back, sizeof back);
        assert_int_equal(in.result, -EINVAL);
        free(bytes);
    }
    back[0] = 1;
    got = 0;
    in = reading(&out, out.size, &err);
    transfer_item(&in, "two", &got, sizeof got);
    assert_int_equal(in.result, -EINVAL);
    assert_non_null(strstr(err.message, "two"));
    walk(&in, &got, back, sizeof back); /* nothing more is copied */
    assert_int_equal(got, 0);
    assert_int_equal(back[0], 1);
    in = reading(&out, out.size, &err);
    transfer_item(&in, "one", back, sizeof back);
    assert_int_equal(in.result, -EINVAL);
    free(out.bytes);
}

/* Saved by a VMM of before, or by this one; of no other size, and not cut off. */
static void what_has_grown_is_read_of_older_states(void **state)
{
    static const size_t sizes[] = { 8, 12, 0, 4, 7, 11, 13, 16 };
    struct error err = { 0 };

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(sizes); i++) {
        struct transfer out = { .err = &err }, in;
        uint32_t many[4] = { 1, 2, 3, 4 }, back[4] = { 7, 7, 7, 7 }, one = 5;

        transfer_item(&out, "many", many, sizes[i]);
        transfer_item(&out, "one", &one, sizeof one);
        one = 0;
        in = reading(&out, out.size, &err);
        transfer_grown(&in, "many", back, 12, 8);
        transfer_item(&in, "one", &one, sizeof one);
        assert_int_equal(in.result, i < 2 ? 0 : -EINVAL);
        assert_int_equal(one, i < 2 ? 5 : 0);
        for (size_t k = 0; k < ARRAY_LENGTH(back); k++)
            assert_int_equal(back[k], i < 2 && k < 2 + i ? k + 1 : 7);
        in = reading(&out, 8 + sizes[i] - 1, &err);
        back[0] = 7;
        transfer_grown(&in, "many", back, 12, 8);
        assert_int_equal(in.result, -EINVAL);
        assert_int_equal(back[0], 7);
        free(out.bytes);
    }
}

static void a_queue_whose_rings_are_not_ram_is_refused(void **state)
{
    struct guest_memory *memory = NULL;
    struct error err = { 0 };
    struct virtqueue queue, loaded;
    static const uint64_t places[] = { 0x8000, MEMORY_BYTES - 8, UINT64_MAX - 15, 0xfee00000 };

    (void)state;
    assert_int_equal(guest_memory_new(MEMORY_BYTES, &memory, &err), 0);
    for (size_t i = 0; i < ARRAY_LENGTH(places); i++) {
        struct transfer out = { .err = &err }, in;

        virtqueue_init(&queue, memory, 64);
        queue.descriptor_address = 0x4000;
        queue.avail_address = 0x6000;
        queue.used_address = 0x8000;
        assert_int_equal(virtqueue_enable(&queue, true, false), 0);
        queue.next_avail = queue.next_used = 17;
        queue.used_address = places[i];
        virtqueue_transfer(&queue, &out);
        virtqueue_init(&loaded, memory, 64);
        in = reading(&out, out.size, &err);
        virtqueue_transfer(&loaded, &in);
        assert_int_equal(in.result, i == 0 ? 0 : -EPROTO);
        assert_int_equal(loaded.enabled, i == 0);
        if (i == 0) {
            assert_int_equal(loaded.next_avail, 17);
            assert_int_equal(loaded.next_used, 17);
            assert_true(loaded.indirect);
        }
        free(out.bytes);
    }
    guest_memory_free(memory);
}

static void a_processor_needs_all_features(void **state)
{
    struct cpuid wanted = { .count = 1, .entries[0] = { .function = 7, .ebx = 0x21 } };
    struct cpuid host = { .count = 1, .entries[0] = { .function = 7, .ebx = 0x2f } };
    char what[64];

    (void)state;
    assert_true(cpuid_is_within(&wanted, &host, what, sizeof what));
    assert_false(cpuid_is_within(&host, &wanted, what, sizeof what));
    assert_non_null(strstr(what, "0x7"));
    wanted.entries[0].function = 0x80000001;
    wanted.entries[0].ecx = 1;
    assert_false(cpuid_is_within(&wanted, &host, what, sizeof what));
    wanted.count = UINT32_MAX;
    assert_false(cpuid_is_within(&wanted, &host, what, sizeof what));
}

static int file(size_t size)
{
    int fd = memfd_create("snapshot", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    return fd;
}

static void memory_is_mapped_back_and_shared(void **state)
{
    auto_close int state_fd = file(0), memory_fd = file(MEMORY_BYTES);
    const struct snapshot_files files = { state_fd, memory_fd, -1 };
    struct guest_memory *memory = NULL, *copy = NULL;
    struct error err = { 0 };
    uint32_t one = 7;
    struct transfer out = { .err = &err }, in = { 0 };
    uint8_t page[4096];

    (void)state;
    assert_int_equal(guest_memory_new(MEMORY_BYTES, &memory, &err), 0);
    assert_int_equal(guest_memory_new(MEMORY_BYTES, &copy, &err), 0);
    memset(page, 0xa5, sizeof page);
    assert_true(guest_memory_write(memory, 0x3000, page, sizeof page));
    assert_true(guest_memory_write(memory, MEMORY_BYTES - 4, page, 4));
    transfer_item(&out, "one", &one, sizeof one);
    assert_int_equal(snapshot_write(&files, memory, &out, &err), 0);
    assert_int_equal(lseek(memory_fd, 0, SEEK_DATA), 0x3000); /* the rest are holes */
    assert_int_equal(lseek(memory_fd, 0x3000, SEEK_HOLE), 0x4000);
    assert_int_equal(snapshot_read(state_fd, copy, &in, &err), 0);
    one = 0;
    transfer_item(&in, "one", &one, sizeof one);
    assert_int_equal(one, 7);
    assert_int_equal(snapshot_map(&memory_fd, 1, copy, &err), 0);
    memset(page, 0, sizeof page);
    assert_true(guest_memory_read(copy, 0x3000, page, sizeof page));
    assert_int_equal(page[4095], 0xa5);
    memset(page, 1, sizeof page); /* copy-on-write: the file stays */
    assert_true(guest_memory_write(copy, 0x3000, page, sizeof page));
    assert_int_equal(pread(memory_fd, page, 1, 0x3000), 1);
    assert_int_equal(page[0], 0xa5);
    assert_int_equal(ftruncate(memory_fd, MEMORY_BYTES - 4096), 0);
    assert_int_equal(snapshot_map(&memory_fd, 1, copy, &err), -EINVAL);
    free(in.bytes);
    free(out.bytes);
    guest_memory_free(memory);
    guest_memory_free(copy);
}

static void a_state_file_is_checked(void **state)
{
    auto_close int state_fd = file(0), memory_fd = file(MEMORY_BYTES);
    const struct snapshot_files files = { state_fd, memory_fd, -1 };
    struct guest_memory *memory = NULL, *other = NULL;
    struct error err = { 0 };
    uint32_t one = 7;
    struct transfer out = { .err = &err }, in = { 0 };

    (void)state;
    assert_int_equal(guest_memory_new(MEMORY_BYTES, &memory, &err), 0);
    assert_int_equal(guest_memory_new(2 * MEMORY_BYTES, &other, &err), 0);
    transfer_item(&out, "one", &one, sizeof one);
    assert_int_equal(snapshot_write(&files, memory, &out, &err), 0);
    assert_int_equal(snapshot_read(state_fd, other, &in, &err), -EINVAL);
    assert_int_equal(pwrite(state_fd, "x", 1, 1000), 1); /* longer than it says */
    assert_int_equal(snapshot_read(state_fd, memory, &in, &err), -EINVAL);
    assert_int_equal(ftruncate(state_fd, 33), 0);
    assert_int_equal(snapshot_read(state_fd, memory, &in, &err), -EINVAL);
    assert_int_equal(ftruncate(state_fd, 3), 0);
    assert_int_equal(snapshot_read(state_fd, memory, &in, &err), -EINVAL);
    assert_int_equal(pwrite(state_fd, "WARRENVM\2\0\0\0", 12, 0), 12);
    assert_int_equal(ftruncate(state_fd, 64), 0);
    assert_int_equal(snapshot_read(state_fd, memory, &in, &err), -ENOTSUP);
    free(out.bytes);
    guest_memory_free(memory);
    guest_memory_free(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back_as_it_was),
        cmocka_unit_test(small_items_come_back_however_many),
        cmocka_unit_test(refuses_what_is_cut_off_or_another_thing),
        cmocka_unit_test(what_has_grown_is_read_of_older_states),
        cmocka_unit_test(a_queue_whose_rings_are_not_ram_is_refused),
        cmocka_unit_test(a_processor_needs_all_features),
        cmocka_unit_test(memory_is_mapped_back_and_shared),
        cmocka_unit_test(a_state_file_is_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
