/* test_virtqueue.c - split rings against drivers that keep the rules and drivers that do not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>
#include "tests/unit/memory_harness.h"
#include "base/error.h"
#include "vmm/transfer.h"
#include "vmm/virtqueue.h"

#define MEMORY_BYTES (2u << 20)
#define SIZE         8
#define DESCRIPTORS  0x1000ull
#define AVAIL        0x2000ull
#define USED         0x3000ull
#define TABLE        0x4000ull /* an indirect table */
#define DATA         0x10000ull

#define NEXT     1
#define WRITE    2
#define INDIRECT 4

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

struct fixture {
    struct guest_memory *memory;
    struct virtqueue queue;
    struct virtqueue_chain chain;
    struct iovec vectors[VIRTQUEUE_SIZE_MAX];
    uint16_t avail_index;
};

static void put16(struct fixture *f, uint64_t address, uint16_t value)
{
    assert_true(guest_memory_write(f->memory, address, &value, sizeof(value)));
}

static uint16_t get16(struct fixture *f, uint64_t address)
{
    uint16_t value = 0;

    assert_true(guest_memory_read(f->memory, address, &value, sizeof(value)));
    return value;
}

static void put_descriptor(struct fixture *f, uint64_t table, unsigned index, uint64_t address,
                           uint32_t length, uint16_t flags, uint16_t next)
{
    struct descriptor descriptor = { address, length, flags, next };

    assert_true(guest_memory_write(f->memory, table + index * sizeof(descriptor), &descriptor,
                                   sizeof(descriptor)));
}

static void offer(struct fixture *f, uint16_t head)
{
    put16(f, AVAIL + 4 + 2 * (f->avail_index % SIZE), head);
    put16(f, AVAIL + 2, ++f->avail_index);
}

static int pop(struct fixture *f)
{
    return virtqueue_pop(&f->queue, f->vectors, VIRTQUEUE_SIZE_MAX, &f->chain);
}

static void configure(struct fixture *f, uint16_t size, uint64_t descriptors, uint64_t avail,
                      uint64_t used)
{
    f->queue.size = size;
    f->queue.descriptor_address = descriptors;
    f->queue.avail_address = avail;
    f->queue.used_address = used;
}

static void start(struct fixture *f, bool indirect, bool event_index)
{
    configure(f, SIZE, DESCRIPTORS, AVAIL, USED);
    assert_int_equal(virtqueue_enable(&f->queue, indirect, event_index), 0);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err;

    assert_non_null(f);
    assert_int_equal(guest_memory_new(MEMORY_BYTES, &f->memory, &err), 0);
    virtqueue_init(&f->queue, f->memory, VIRTQUEUE_SIZE_MAX);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    guest_memory_free(f->memory);
    free(f);
    return 0;
}

static void a_chain_comes_out_as_it_was_put_in(void **state)
{
    struct fixture *f = *state;

    start(f, false, false);
    put_descriptor(f, DESCRIPTORS, 3, DATA, 16, NEXT, 5);
    put_descriptor(f, DESCRIPTORS, 5, DATA + 0x1000, 512, NEXT | WRITE, 0);
    put_descriptor(f, DESCRIPTORS, 0, DATA + 0x2000, 1, WRITE, 7);
    offer(f, 3);
    assert_int_equal(pop(f), 1);
    assert_int_equal(f->chain.head, 3);
    assert_int_equal(f->chain.readable_count, 1);
    assert_int_equal(f->chain.writable_count, 2);
    assert_ptr_equal(f->vectors[1].iov_base, guest_memory_map(f->memory, DATA + 0x1000, 512));
    assert_int_equal(f->vectors[1].iov_len, 512);
    assert_int_equal(f->vectors[2].iov_len, 1);
    assert_int_equal(pop(f), 0);

    virtqueue_put(&f->queue, 3, 513);
    assert_int_equal(get16(f, USED + 2), 0); /* not before publish */
    assert_true(virtqueue_publish(&f->queue));
    assert_int_equal(get16(f, USED + 2), 1);
    assert_int_equal(get16(f, USED + 4), 3);
    assert_int_equal(get16(f, USED + 8), 513);
    assert_false(virtqueue_publish(&f->queue)); /* nothing new */
}

static void indices_wrap(void **state)
{
    struct fixture *f = *state;

    start(f, false, false);
    put_descriptor(f, DESCRIPTORS, 0, DATA, 4, WRITE, 0);
    for (unsigned i = 0; i < 70000; i++) {
        offer(f, 0);
        assert_int_equal(pop(f), 1);
        virtqueue_put(&f->queue, 0, 4);
        assert_true(virtqueue_publish(&f->queue));
    }
    assert_int_equal(get16(f, USED + 2), 70000 % 65536);
    assert_int_equal(f->queue.in_flight, 0);
}

static void rewound_chains_come_again(void **state)
{
    struct fixture *f = *state;

    start(f, false, false);
    put_descriptor(f, DESCRIPTORS, 1, DATA, 4, WRITE, 0);
    put_descriptor(f, DESCRIPTORS, 2, DATA, 4, WRITE, 0);
    offer(f, 1);
    offer(f, 2);
    assert_int_equal(pop(f), 1);
    assert_int_equal(pop(f), 1);
    virtqueue_rewind(&f->queue, 2);
    assert_int_equal(pop(f), 1);
    assert_int_equal(f->chain.head, 1);
    assert_int_equal(f->queue.in_flight, 1);
}

static void an_indirect_chain_follows_direct_ones(void **state)
{
    struct fixture *f = *state;

    start(f, true, false);
    put_descriptor(f, TABLE, 0, DATA, 16, NEXT, 2);
    put_descriptor(f, TABLE, 2, DATA + 64, 32, WRITE, 0);
    put_descriptor(f, DESCRIPTORS, 0, DATA + 128, 8, NEXT, 1);
    put_descriptor(f, DESCRIPTORS, 1, TABLE, 3 * 16, INDIRECT | WRITE, 0); /* WRITE is ignored */
    offer(f, 0);
    assert_int_equal(pop(f), 1);
    assert_int_equal(f->chain.readable_count, 2);
    assert_int_equal(f->chain.writable_count, 1);
}

static void too_few_vectors_leave_the_chain(void **state)
{
    struct fixture *f = *state;

    start(f, false, false);
    put_descriptor(f, DESCRIPTORS, 0, DATA, 4, WRITE | NEXT, 1);
    put_descriptor(f, DESCRIPTORS, 1, DATA, 4, WRITE, 0);
    offer(f, 0);
    assert_int_equal(virtqueue_pop(&f->queue, f->vectors, 1, &f->chain), -E2BIG);
    assert_int_equal(pop(f), 1);
}

static void bad_geometry_is_refused(void **state)
{
    static const struct {
        const char *what;
        uint16_t size;
        uint64_t descriptors, avail, used;
    } cases[] = {
        { "size 0", 0, DESCRIPTORS, AVAIL, USED },
        { "size 3", 3, DESCRIPTORS, AVAIL, USED },
        { "size 65535", 65535, DESCRIPTORS, AVAIL, USED },
        { "size above the maximum", 512, DESCRIPTORS, AVAIL, USED },
        { "descriptors unaligned", SIZE, DESCRIPTORS + 8, AVAIL, USED },
        { "avail unaligned", SIZE, DESCRIPTORS, AVAIL + 1, USED },
        { "used unaligned", SIZE, DESCRIPTORS, AVAIL, USED + 2 },
        { "descriptors past RAM", SIZE, MEMORY_BYTES - 16, AVAIL, USED },
        { "avail in the MMIO hole", SIZE, DESCRIPTORS, GUEST_HOLE_START, USED },
        { "used wraps", SIZE, DESCRIPTORS, AVAIL, UINT64_MAX - 3 },
        { "used event past RAM", SIZE, DESCRIPTORS, MEMORY_BYTES - 4 - 2 * SIZE, USED },
        { "avail event past RAM", SIZE, DESCRIPTORS, AVAIL, MEMORY_BYTES - 4 - 8 * SIZE },
        { "avail on descriptors", SIZE, DESCRIPTORS, DESCRIPTORS + 0x10, USED },
        { "used on avail", SIZE, DESCRIPTORS, AVAIL, AVAIL },
        { "used on descriptors", SIZE, DESCRIPTORS, AVAIL, DESCRIPTORS + 0x70 },
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        configure(f, cases[i].size, cases[i].descriptors, cases[i].avail, cases[i].used);
        if (virtqueue_enable(&f->queue, true, true) != -EPROTO)
            fail_msg("accepted: %s", cases[i].what);
        assert_false(f->queue.enabled);
        assert_int_equal(pop(f), 0);
    }
}

/* One right behind the other, as Linux lays them out, and up to the end of RAM. */
static void rings_may_touch(void **state)
{
    static const struct {
        uint64_t descriptors, avail, used;
    } cases[] = {
        { DESCRIPTORS, DESCRIPTORS + 16 * SIZE, USED },
        { DESCRIPTORS, AVAIL, DESCRIPTORS + 16 * SIZE },
        { DESCRIPTORS, DESCRIPTORS - 6 - 2 * SIZE, USED },
        { DESCRIPTORS, USED + 6 + 8 * SIZE, USED },
        { DESCRIPTORS, USED - 6 - 2 * SIZE, USED },
        { MEMORY_BYTES - 16 * SIZE, AVAIL, USED },
        { DESCRIPTORS, MEMORY_BYTES - 6 - 2 * SIZE, USED },
        { DESCRIPTORS, AVAIL, MEMORY_BYTES - 8 - 8 * SIZE },
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        virtqueue_reset(&f->queue);
        configure(f, SIZE, cases[i].descriptors, cases[i].avail, cases[i].used);
        if (virtqueue_enable(&f->queue, true, true) != 0)
            fail_msg("refused: %zu", i);
    }
}

/* What would be read behind ring and table looks like a descriptor. */
static void put_bait(struct fixture *f)
{
    put_descriptor(f, DESCRIPTORS, SIZE, DATA, 4, 0, 0);
    put_descriptor(f, DESCRIPTORS, 65535, DATA, 4, 0, 0);
    put_descriptor(f, TABLE, 2, DATA, 4, 0, 0);
}

/* Each breaks one rule; the queue answers -EPROTO now and until it is reset. */
static void broken_chains_stop_the_queue(void **state)
{
    static const struct {
        const char *what;
        struct descriptor ring[2], table[2];
        bool no_indirect;
        uint16_t head;
    } cases[] = {
        { "head out of range", .ring = { { DATA, 4, 0, 0 } }, .head = SIZE },
        { "head far out of range", .ring = { { DATA, 4, 0, 0 } }, .head = 65535 },
        { "next out of range", .ring = { { DATA, 4, NEXT, SIZE } } },
        { "loop to itself", .ring = { { DATA, 4, NEXT, 0 } } },
        { "loop of two", .ring = { { DATA, 4, NEXT, 1 }, { DATA, 4, NEXT, 0 } } },
        { "length 0", .ring = { { DATA, 0, 0, 0 } } },
        { "address 0 length 0", .ring = { { 0, 0, WRITE, 0 } } },
        { "across the end of RAM", .ring = { { MEMORY_BYTES - 4, 8, 0, 0 } } },
        { "behind RAM", .ring = { { MEMORY_BYTES, 8, 0, 0 } } },
        { "wraps 2^64", .ring = { { UINT64_MAX - 3, 8, 0, 0 } } },
        { "wraps 2^64 to RAM", .ring = { { UINT64_MAX - 3, 0xffffffff, 0, 0 } } },
        { "in the MMIO hole", .ring = { { 0xe0000000, 8, WRITE, 0 } } },
        { "in a PCI BAR", .ring = { { 0xc0000000, 8, WRITE, 0 } } },
        { "in the IOAPIC", .ring = { { 0xfec00000, 8, WRITE, 0 } } },
        { "readable after writable", .ring = { { DATA, 4, WRITE | NEXT, 1 }, { DATA, 4, 0, 0 } } },
        { "indirect not negotiated", .ring = { { TABLE, 16, INDIRECT, 0 } },
          .table = { { DATA, 4, 0, 0 } }, .no_indirect = true },
        { "indirect of 0 bytes", .ring = { { TABLE, 0, INDIRECT, 0 } },
          .table = { { DATA, 4, 0, 0 } } },
        { "indirect of 17 bytes", .ring = { { TABLE, 17, INDIRECT, 0 } },
          .table = { { DATA, 4, 0, 0 } } },
        { "indirect unmapped", .ring = { { GUEST_HOLE_START, 16, INDIRECT, 0 } } },
        { "indirect past RAM", .ring = { { MEMORY_BYTES - 16, 32, INDIRECT, 0 } } },
        { "indirect and next", .ring = { { TABLE, 16, INDIRECT | NEXT, 1 } },
          .table = { { DATA, 4, 0, 0 } } },
        { "nested", .ring = { { TABLE, 16, INDIRECT, 0 } },
          .table = { { TABLE, 16, INDIRECT, 0 } } },
        { "indirect next out of table", .ring = { { TABLE, 32, INDIRECT, 0 } },
          .table = { { DATA, 4, NEXT, 2 } } },
        { "indirect loop", .ring = { { TABLE, 32, INDIRECT, 0 } },
          .table = { { DATA, 4, NEXT, 0 } } },
        { "indirect order", .ring = { { TABLE, 32, INDIRECT, 0 } },
          .table = { { DATA, 4, NEXT | WRITE, 1 }, { DATA, 4, 0, 0 } } },
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        virtqueue_reset(&f->queue);
        f->avail_index = 0;
        start(f, !cases[i].no_indirect, false);
        for (unsigned j = 0; j < 2; j++) {
            guest_memory_write(f->memory, DESCRIPTORS + 16 * j, &cases[i].ring[j], 16);
            guest_memory_write(f->memory, TABLE + 16 * j, &cases[i].table[j], 16);
        }
        put_bait(f);
        offer(f, cases[i].head);
        if (pop(f) != -EPROTO)
            fail_msg("accepted: %s", cases[i].what);
        /* Repairing it does not help. */
        put_descriptor(f, DESCRIPTORS, 0, DATA, 4, 0, 0);
        assert_int_equal(pop(f), -EPROTO);
    }
}

static void a_chain_longer_than_the_queue_is_refused(void **state)
{
    struct fixture *f = *state;

    start(f, true, false);
    put_descriptor(f, DESCRIPTORS, 0, TABLE, SIZE * 16, INDIRECT, 0);
    for (unsigned i = 0; i < SIZE; i++)
        put_descriptor(f, TABLE, i, DATA, 4, i < SIZE - 1 ? NEXT : 0, (uint16_t)(i + 1));
    offer(f, 0);
    assert_int_equal(pop(f), 1); /* as long as the queue: allowed */
    assert_int_equal(f->chain.readable_count, SIZE);

    for (unsigned i = 0; i < SIZE + 1; i++)
        put_descriptor(f, TABLE, i, DATA, 4, i < SIZE ? NEXT : 0, (uint16_t)(i + 1));
    put_descriptor(f, DESCRIPTORS, 0, TABLE, (SIZE + 1) * 16, INDIRECT, 0);
    offer(f, 0);
    assert_int_equal(pop(f), -EPROTO);
}

static void a_jumping_avail_index_is_refused(void **state)
{
    struct fixture *f = *state;

    start(f, false, false);
    put_descriptor(f, DESCRIPTORS, 0, DATA, 4, 0, 0);
    put16(f, AVAIL + 2, SIZE);
    assert_int_equal(pop(f), 1);
    put16(f, AVAIL + 2, SIZE + 2);
    assert_int_equal(pop(f), -EPROTO);

    virtqueue_reset(&f->queue);
    start(f, false, false);
    put16(f, AVAIL + 2, 65535);
    assert_int_equal(pop(f), -EPROTO);
    assert_true(virtqueue_enable_kicks(&f->queue, 0)); /* so that the device looks and sees it */
}

static void more_than_the_queue_in_flight_is_refused(void **state)
{
    struct fixture *f = *state;

    start(f, false, false);
    put_descriptor(f, DESCRIPTORS, 0, DATA, 4, 0, 0);
    for (unsigned i = 0; i < SIZE; i++) {
        offer(f, 0);
        assert_int_equal(pop(f), 1);
    }
    offer(f, 0);
    assert_int_equal(pop(f), -EPROTO);
}

static void interrupts_follow_the_flag(void **state)
{
    struct fixture *f = *state;

    start(f, false, false);
    put_descriptor(f, DESCRIPTORS, 0, DATA, 4, 0, 0);
    put16(f, AVAIL, 1); /* NO_INTERRUPT */
    offer(f, 0);
    assert_int_equal(pop(f), 1);
    virtqueue_put(&f->queue, 0, 0);
    assert_false(virtqueue_publish(&f->queue));
    virtqueue_disable_kicks(&f->queue);
    assert_int_equal(get16(f, USED), 1);
    assert_false(virtqueue_enable_kicks(&f->queue, 0));
    assert_int_equal(get16(f, USED), 0);
    offer(f, 0);
    assert_true(virtqueue_enable_kicks(&f->queue, 0));
}

static void interrupts_follow_the_event_index(void **state)
{
    struct fixture *f = *state;
    const uint64_t used_event = AVAIL + 4 + 2 * SIZE, avail_event = USED + 4 + 8 * SIZE;

    start(f, false, true);
    put_descriptor(f, DESCRIPTORS, 0, DATA, 4, 0, 0);
    put16(f, used_event, 1); /* tell me when entry 1 is used */
    for (unsigned i = 0; i < 4; i++) {
        offer(f, 0);
        assert_int_equal(pop(f), 1);
        virtqueue_put(&f->queue, 0, 0);
        assert_int_equal(virtqueue_publish(&f->queue), i == 1);
    }
    put16(f, used_event, 5); /* passed in the middle of a batch */
    for (unsigned i = 0; i < 3; i++) {
        offer(f, 0);
        assert_int_equal(pop(f), 1);
        virtqueue_put(&f->queue, 0, 0);
    }
    assert_true(virtqueue_publish(&f->queue));
    assert_false(virtqueue_enable_kicks(&f->queue, 0));
    assert_int_equal(get16(f, avail_event), 7);

    offer(f, 0);
    offer(f, 0);
    assert_true(virtqueue_enable_kicks(&f->queue, 0));
    assert_false(virtqueue_enable_kicks(&f->queue, 2)); /* seen, and not enough */
    assert_int_equal(get16(f, avail_event), 9);
    offer(f, 0);
    assert_true(virtqueue_enable_kicks(&f->queue, 2));
}

/* --- snapshots --- */

/* Its machine is held, and it is loaded into one that a driver has never seen. */
static void move(struct fixture *f, struct transfer *transfer)
{
    virtqueue_transfer(&f->queue, transfer);
    virtqueue_reset(&f->queue);
    transfer->loading = true;
    virtqueue_transfer(&f->queue, transfer);
}

static void a_moved_queue_goes_on_where_it_was(void **state)
{
    struct fixture *f = *state;
    struct transfer transfer = { 0 };

    start(f, true, false);
    put_descriptor(f, DESCRIPTORS, 2, DATA, 4, WRITE, 0);
    put_descriptor(f, DESCRIPTORS, 3, TABLE, 16, INDIRECT, 0);
    put_descriptor(f, TABLE, 0, DATA, 4, WRITE, 0);
    for (unsigned i = 0; i <= SIZE; i++) { /* so that where a ring wraps counts */
        offer(f, 2);
        assert_int_equal(pop(f), 1);
        virtqueue_put(&f->queue, 2, 4);
    }
    assert_true(virtqueue_publish(&f->queue));
    offer(f, 3); /* that it has not seen yet */
    move(f, &transfer);
    assert_int_equal(transfer.result, 0);
    assert_false(virtqueue_publish(&f->queue));
    assert_int_equal(pop(f), 1);
    assert_int_equal(f->chain.head, 3);
    assert_int_equal(f->chain.writable_count, 1);
    virtqueue_put(&f->queue, 3, 5);
    assert_true(virtqueue_publish(&f->queue));
    assert_int_equal(get16(f, USED + 2), SIZE + 2);
    assert_int_equal(get16(f, USED + 4 + 8), 3); /* the second entry */
    assert_int_equal(get16(f, USED + 4 + 8 + 4), 5);
    assert_int_equal(pop(f), 0);
    free(transfer.bytes);
}

static void a_moved_queue_that_is_broken_stays_so(void **state)
{
    struct fixture *f = *state;
    struct transfer transfer = { 0 };

    start(f, false, true);
    offer(f, SIZE);
    assert_int_equal(pop(f), -EPROTO);
    put16(f, AVAIL + 4, 0); /* repaired, which does not help */
    put_descriptor(f, DESCRIPTORS, 0, DATA, 4, 0, 0);
    move(f, &transfer);
    assert_int_equal(transfer.result, 0);
    assert_int_equal(pop(f), -EPROTO);
    free(transfer.bytes);
}

static void rings_of_a_snapshot_are_checked(void **state)
{
    struct fixture *f = *state;
    struct transfer transfer = { 0 };

    start(f, false, false);
    f->queue.used_address = MEMORY_BYTES; /* nothing else could have written that */
    move(f, &transfer);
    assert_int_equal(transfer.result, -EPROTO);
    assert_false(f->queue.enabled);
    free(transfer.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(a_chain_comes_out_as_it_was_put_in),
        TEST(indices_wrap),
        TEST(rewound_chains_come_again),
        TEST(an_indirect_chain_follows_direct_ones),
        TEST(too_few_vectors_leave_the_chain),
        TEST(bad_geometry_is_refused),
        TEST(broken_chains_stop_the_queue),
        TEST(a_chain_longer_than_the_queue_is_refused),
        TEST(a_jumping_avail_index_is_refused),
        TEST(more_than_the_queue_in_flight_is_refused),
        TEST(interrupts_follow_the_flag),
        TEST(interrupts_follow_the_event_index),
        TEST(rings_may_touch),
        TEST(a_moved_queue_goes_on_where_it_was),
        TEST(a_moved_queue_that_is_broken_stays_so),
        TEST(rings_of_a_snapshot_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
