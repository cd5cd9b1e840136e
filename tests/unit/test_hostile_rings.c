/* test_hostile_rings.c - hostile guests, cases 1 to 8, 10, 13, 15 and 16 of tests/HOSTILE.md: what
 * a driver can do with status, queues, descriptors and indices. */
#include "tests/unit/hostile.h"
#include <malloc.h>

static void case_01_rings_moved_after_driver_ok(void **state)
{
    static const struct {
        unsigned reg, width;
        uint64_t value;
    } writes[] = {
        { REG_QUEUE_SIZE, 2, 256 },           { REG_QUEUE_SIZE, 2, 0 },
        { REG_QUEUE_DESCRIPTORS, 8, CANARY }, { REG_QUEUE_AVAIL, 8, CANARY },
        { REG_QUEUE_USED, 8, CANARY },        { REG_QUEUE_USED + 4, 4, 0xffffffff },
        { REG_QUEUE_ENABLE, 2, 1 },           { REG_QUEUE_ENABLE, 2, 0 },
    };
    struct hostile *f = *state;
    uint8_t before[0x3000], after[sizeof(before)];

    FOR_EACH_SLOT(slot)
    {
        hostile_start(f, slot, ALL_FEATURES);
        guest_get(&f->h, CANARY, before, sizeof(before));
        for (size_t i = 0; i < ARRAY_LENGTH(writes); i++) {
            uint64_t was = reg_get(&f->h, writes[i].reg, writes[i].width);

            reg_put(&f->h, writes[i].reg, writes[i].width, writes[i].value);
            assert_int_equal(reg_get(&f->h, writes[i].reg, writes[i].width), was);
            assert_serves(f); /* by the rings as they were */
        }
        guest_get(&f->h, CANARY, after, sizeof(after));
        assert_memory_equal(after, before, sizeof(before));
    }
}

static void case_02_status_bits_and_late_features(void **state)
{
    /* Written one after the other from reset; the last column is what must be read back. */
    static const uint8_t scripts[][6] = {
        { 2, 0, 0, 0, 0, 0 },       /* DRIVER without ACKNOWLEDGE */
        { 4, 0, 0, 0, 0, 0 },       /* DRIVER_OK alone */
        { 15, 15, 0, 0, 0, 3 },     /* all at once: no features were agreed to */
        { 1, 3, 7, 0, 0, 3 },       /* DRIVER_OK without FEATURES_OK */
        { 1, 3, 1, 0, 0, 3 },       /* a bit cleared */
        { 1, 3, 0x40, 0, 0, 3 },    /* NEEDS_RESET is the device's */
        { 1, 3, 0x13, 0, 0, 3 },    /* bits that do not exist */
        { 1, 0x83, 7, 0, 0, 0x83 }, /* after FAILED */
    };
    static const struct ring_descriptor table[] = { { HEADER, 16, RING_NEXT, 1 },
                                                    { STATUS, 1, RING_WRITE, 0 } };
    struct hostile *f = *state;
    uint8_t untouched[0x3000] = { 0 }, ring[sizeof(untouched)];

    FOR_EACH_SLOT(slot)
    {
        f->h.slot = slot;
        driver_attach(&f->h);
        for (size_t i = 0; i < ARRAY_LENGTH(scripts); i++) {
            status_put(&f->h, 0);
            for (unsigned k = 0; k < 5 && scripts[i][k]; k++)
                status_put(&f->h, scripts[i][k]);
            if (status_get(&f->h) != scripts[i][5])
                fail_msg("script %zu: status %#x", i, status_get(&f->h));
            guest_put(&f->h, RING_BASE(0), untouched, sizeof(untouched));
            ring_kick(&f->h, 0); /* a kick at any time */
            guest_get(&f->h, RING_BASE(0), ring, sizeof(ring));
            assert_memory_equal(ring, untouched, sizeof(ring));
        }
        hostile_start(f, slot, 0);
        features_accept(&f->h, UINT64_MAX);
        status_put(&f->h, 11); /* DRIVER_OK cleared */
        assert_int_equal(status_get(&f->h), 15);
        reg_put(&f->h, REG_ACCEPTED_SELECT, 4, 0);
        assert_int_equal(reg_get(&f->h, REG_ACCEPTED, 4) & VIRTIO_FEATURE_INDIRECT, 0);
        put_header(f, FLUSH, 0);
        guest_put(&f->h, TABLE, table, sizeof(table)); /* good, but not agreed to */
        offer_descriptor(f, slot == RNG_SLOT ? TABLE + 16 : TABLE, slot == RNG_SLOT ? 16 : 32,
                         RING_INDIRECT, 0);
        assert_breaks_and_recovers(f);
        assert_false(driver_negotiate(&f->h, UINT64_MAX)); /* more than was offered */
        assert_false(driver_negotiate(&f->h, 0));          /* without VERSION_1 */
    }
}

static const struct bad_range {
    uint64_t address;
    uint32_t length;
} bad_ranges[] = {
    { HARNESS_MEMORY - 8, 16 },
    { HARNESS_MEMORY - 1, 2 },
    { HARNESS_MEMORY, 1 },
    { 0, UINT32_MAX },
    { DATA, 0 },
    { UINT64_MAX, 1 },
    { UINT64_MAX, 2 },
    { UINT64_MAX - 15, 16 },
    { UINT64_MAX - 15, 17 },
    { UINT64_MAX - 0xff, 0x200 },
    { 1ull << 63, 16 },
    { GUEST_HOLE_START, 16 },
    { GUEST_HOLE_START - 8, 16 },
    { GUEST_HOLE_END - 8, 16 },
    { GUEST_HOLE_END, 16 },
    { PLATFORM_PCI32_START, 16 },
    { PLATFORM_ECAM_START, 16 },
    { PLATFORM_IOAPIC_START, 4 },
    { PLATFORM_LAPIC_START, 4096 },
    { 1ull << 40, 16 },
};

static void case_03_buffers_that_are_no_ram(void **state)
{
    struct hostile *f = *state;

    FOR_EACH_SLOT(slot)
    {
        for (size_t i = 0; i < ARRAY_LENGTH(bad_ranges); i++) {
            const struct bad_range *bad = &bad_ranges[i];

            hostile_start(f, slot, 0); /* as the first of the chain */
            offer_descriptor(f, bad->address, bad->length, slot == RNG_SLOT ? RING_WRITE : 0, 0);
            assert_breaks_and_recovers(f);
            hostile_start(f, slot, 0); /* in its middle */
            put_header(f, IN, 0);
            ring_put_descriptor(&f->h, 0, 1, bad->address, bad->length, RING_WRITE | RING_NEXT, 2);
            ring_put_descriptor(&f->h, 0, 2, STATUS, 1, RING_WRITE, 0);
            offer_descriptor(f, HEADER, 16, RING_NEXT, 1);
            assert_breaks_and_recovers(f);
        }
    }
    assert_int_equal(f->stats.read_bytes % 512, 0);
}

static void case_04_descriptor_loops(void **state)
{
    struct hostile *f = *state;

    FOR_EACH_SLOT(slot)
    {
        uint16_t flags = RING_NEXT | (slot == RNG_SLOT ? RING_WRITE : 0);

        for (unsigned length = 1; length <= RING_SIZE; length++) { /* 0 -> 1 -> .. -> 0 */
            hostile_start(f, slot, 0);
            for (unsigned i = 0; i < length; i++)
                ring_put_descriptor(&f->h, 0, i, DATA, 16, flags, (uint16_t)((i + 1) % length));
            ring_offer_head(&f->h, 0, 0);
            ring_kick(&f->h, 0);
            assert_breaks_and_recovers(f);
        }
        hostile_start(f, slot, VIRTIO_FEATURE_INDIRECT); /* inside of a table */
        for (unsigned i = 0; i < 4; i++) {
            struct ring_descriptor entry = { DATA, 16, flags, (uint16_t)((i + 1) % 4) };

            guest_put(&f->h, TABLE + i * sizeof(entry), &entry, sizeof(entry));
        }
        offer_descriptor(f, TABLE, 64, RING_INDIRECT, 0);
        assert_breaks_and_recovers(f);
        hostile_start(f, slot, VIRTIO_FEATURE_INDIRECT); /* a table in the ring itself */
        offer_descriptor(f, RING_BASE(0), 16, RING_INDIRECT, 0);
        assert_breaks_and_recovers(f);
        for (unsigned next = RING_SIZE; next <= UINT16_MAX; next = next * 2 + 1) {
            hostile_start(f, slot, 0); /* behind the table's end */
            offer_descriptor(f, DATA, 16, flags, (uint16_t)next);
            assert_breaks_and_recovers(f);
            hostile_start(f, slot, 0);
            ring_offer_head(&f->h, 0, (uint16_t)next);
            ring_kick(&f->h, 0);
            assert_breaks_and_recovers(f);
        }
    }
}

static void case_05_indirect_tables(void **state)
{
    static const struct {
        uint64_t table;
        uint32_t bytes;
        uint16_t flags; /* of the descriptor that names the table */
        struct ring_descriptor entries[3];
    } cases[] = {
        { TABLE, 0, 0, { { DATA, 16, RING_WRITE, 0 } } },
        { TABLE, 15, 0, { { DATA, 16, RING_WRITE, 0 } } },
        { TABLE, 17, 0, { { DATA, 16, RING_WRITE, 0 } } },
        { TABLE, UINT32_MAX, 0, { { DATA, 16, RING_WRITE, 0 } } },
        { HARNESS_MEMORY - 16, 32, 0, { { 0 } } },
        { HARNESS_MEMORY, 16, 0, { { 0 } } },
        { UINT64_MAX - 15, 32, 0, { { 0 } } },
        { PLATFORM_PCI32_START, 16, 0, { { 0 } } },
        { TABLE, 16, RING_NEXT, { { DATA, 16, RING_WRITE, 0 } } },
        { TABLE, 16, 0, { { TABLE, 16, RING_INDIRECT, 0 } } },
        { TABLE, 16, 0, { { DATA, 16, RING_NEXT, 1 } } },
        { TABLE, 32, 0, { { DATA, 16, RING_NEXT, 65535 } } },
        { TABLE,
          48,
          0,
          { { HEADER, 16, RING_NEXT, 1 },
            { DATA, 16, RING_WRITE | RING_NEXT, 2 },
            { DATA, 16, 0, 0 } } }, /* readable behind writable */
        { TABLE,
          32,
          0,
          { { HEADER, 16, RING_NEXT, 1 }, { TABLE, 16, RING_INDIRECT | RING_NEXT, 0 } } },
    };
    struct hostile *f = *state;

    FOR_EACH_SLOT(slot)
    {
        for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
            hostile_start(f, slot, VIRTIO_FEATURE_INDIRECT);
            put_header(f, IN, 0);
            guest_put(&f->h, TABLE, cases[i].entries, sizeof(cases[i].entries));
            offer_descriptor(f, cases[i].table, cases[i].bytes, RING_INDIRECT | cases[i].flags, 1);
            assert_breaks_and_recovers(f);
        }
    }
}

static void case_06_avail_index_jumps(void **state)
{
    static const uint16_t jumps[] = { RING_SIZE + 1, 0x100, 0x7fff, 0x8000, 0xfff0, 0xffff };
    struct hostile *f = *state;

    FOR_EACH_SLOT(slot)
    {
        for (size_t i = 0; i < 2 * ARRAY_LENGTH(jumps); i++) {
            hostile_start(f, slot, i % 2 ? VIRTIO_FEATURE_EVENT_INDEX : 0);
            assert_serves(f);
            guest_put16(&f->h, ring_avail(0) + 2, (uint16_t)(f->h.rings[0].avail + jumps[i / 2]));
            ring_kick(&f->h, 0);
            assert_breaks_and_recovers(f);
        }
    }
}

/* Whatever stands in the indices, a kick ends, and the used index is the device's own. */
static void case_07_stale_indices(void **state)
{
    struct hostile *f = *state;
    struct harness *h = &f->h;

    FOR_EACH_SLOT(slot)
    {
        for (unsigned round = 0; round < 3 * RING_SIZE; round++) {
            uint16_t used;

            hostile_start(f, slot, round % 2 ? VIRTIO_FEATURE_EVENT_INDEX : 0);
            for (unsigned i = 0; i < round % 5; i++)
                assert_serves(f);
            used = h->rings[0].used;
            for (unsigned i = 0; i < 4; i++)
                ring_kick(h, 0); /* nothing is new */
            assert_int_equal(guest_get16(h, ring_used(0) + 2), used);
            guest_put16(h, ring_used(0) + 2, (uint16_t)(0x1234 + round));       /* its index */
            guest_put16(h, ring_used(0), 0xffff);                               /* its flags */
            guest_put16(h, ring_avail(0), (uint16_t)round);                     /* ours */
            guest_put16(h, ring_avail(0) + 4 + 2 * RING_SIZE, (uint16_t)~used); /* used_event */
            guest_put16(h, ring_used(0) + 4 + 8 * RING_SIZE, (uint16_t)(used - round));
            put_header(f, FLUSH, 0);
            ring_put_descriptor(h, 0, 0, slot == RNG_SLOT ? DATA : HEADER, 16,
                                slot == RNG_SLOT ? RING_WRITE : RING_NEXT, 1);
            ring_put_descriptor(h, 0, 1, STATUS, 1, RING_WRITE, 0);
            ring_offer_head(h, 0, 0);
            ring_kick(h, 0);
            assert_int_equal(guest_get16(h, ring_used(0) + 2), (uint16_t)(used + 1));
            /* A driver that takes back what it offered: the index is one behind the device's. */
            guest_put16(h, ring_avail(0) + 2, (uint16_t)(h->rings[0].avail - 1));
            h->rings[0].used = (uint16_t)(used + 1);
            ring_kick(h, 0);
            assert_breaks_and_recovers(f);
        }
    }
}

static void case_08_queue_numbers_out_of_range(void **state)
{
    static const uint16_t numbers[] = { 1, 2, 7, 8, 9, 255, 256, 0x7fff, 0x8000, 0xffff };
    struct hostile *f = *state;

    FOR_EACH_SLOT(slot)
    {
        hostile_start(f, slot, ALL_FEATURES);
        for (size_t i = 0; i < ARRAY_LENGTH(numbers); i++) {
            reg_put(&f->h, REG_QUEUE_SELECT, 2, numbers[i]);
            assert_int_equal(reg_get(&f->h, REG_QUEUE_SIZE, 2), 0);
            for (unsigned reg = REG_QUEUE_SIZE; reg < REG_QUEUE_RESET + 4; reg += 2) {
                reg_put(&f->h, reg, 2, 1);
                (void)reg_get(&f->h, reg, 2);
                reg_put(&f->h, reg & ~7u, 8, UINT64_MAX);
            }
        }
        for (unsigned offset = 0; offset < VIRTIO_PCI_PAGE_BYTES; offset++) {
            for (unsigned width = 1; width <= 8; width *= 2)
                mmio_put(&f->h, bar_address(&f->h, 0) + VIRTIO_PCI_NOTIFY_OFFSET + offset, width,
                         numbers[offset % ARRAY_LENGTH(numbers)]);
        }
        harness_run(&f->h);
        assert_int_equal(status_get(&f->h), 15);
        assert_serves(f);
    }
}

static void case_10_queue_geometry(void **state)
{
    static const struct {
        uint16_t size;
        uint64_t descriptors, avail, used;
    } cases[] = {
        { 0, RING_BASE(0), RING_BASE(0) + 0x1000, RING_BASE(0) + 0x2000 },
        { 3, RING_BASE(0), RING_BASE(0) + 0x1000, RING_BASE(0) + 0x2000 },
        { 24, RING_BASE(0), RING_BASE(0) + 0x1000, RING_BASE(0) + 0x2000 },
        { 512, 0x20000, 0x30000, 0x40000 },
        { 32768, 0x100000, 0x200000, 0x300000 },
        { 65535, 0x100000, 0x200000, 0x300000 },
        { 16, RING_BASE(0) + 8, RING_BASE(0) + 0x1000, RING_BASE(0) + 0x2000 },
        { 16, RING_BASE(0), RING_BASE(0) + 0x1001, RING_BASE(0) + 0x2000 },
        { 16, RING_BASE(0), RING_BASE(0) + 0x1000, RING_BASE(0) + 0x2002 },
        { 16, HARNESS_MEMORY - 16, RING_BASE(0) + 0x1000, RING_BASE(0) + 0x2000 },
        { 16, RING_BASE(0), HARNESS_MEMORY - 4, RING_BASE(0) + 0x2000 },
        { 16, RING_BASE(0), RING_BASE(0) + 0x1000, HARNESS_MEMORY - 8 },
        { 16, PLATFORM_PCI32_START, RING_BASE(0) + 0x1000, RING_BASE(0) + 0x2000 },
        { 16, RING_BASE(0), PLATFORM_ECAM_START, RING_BASE(0) + 0x2000 },
        { 16, RING_BASE(0), RING_BASE(0) + 0x1000, UINT64_MAX - 3 },
        { 16, UINT64_MAX - 15, RING_BASE(0) + 0x1000, RING_BASE(0) + 0x2000 },
        { 16, 1ull << 63, 1ull << 62, 1ull << 61 },
        { 16, RING_BASE(0), RING_BASE(0), RING_BASE(0) + 0x2000 },
        { 16, RING_BASE(0), RING_BASE(0) + 0x1000, RING_BASE(0) + 0x1000 },
        { 16, RING_BASE(0), RING_BASE(0) + 254, RING_BASE(0) + 0x2000 },
        { 16, RING_BASE(0), RING_BASE(0) + 0x1000, RING_BASE(0) + 0x1024 },
    };
    struct hostile *f = *state;

    FOR_EACH_SLOT(slot)
    {
        f->h.slot = slot;
        driver_attach(&f->h);
        for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
            assert_true(driver_negotiate(&f->h, VIRTIO_FEATURE_VERSION_1));
            reg_put(&f->h, REG_QUEUE_SIZE, 2, cases[i].size);
            reg_put(&f->h, REG_QUEUE_DESCRIPTORS, 8, cases[i].descriptors);
            reg_put(&f->h, REG_QUEUE_AVAIL, 8, cases[i].avail);
            reg_put(&f->h, REG_QUEUE_USED, 8, cases[i].used);
            reg_put(&f->h, REG_QUEUE_ENABLE, 2, 1);
            if (reg_get(&f->h, REG_QUEUE_ENABLE, 2) != 0)
                fail_msg("geometry %zu was taken", i);
            status_put(&f->h, 15);
            ring_kick(&f->h, 0);
            assert_needs_reset(&f->h);
        }
        hostile_start(f, slot, 0);
        assert_serves(f);
    }
}

/* Used entries that nobody looks at cost nothing, however many there are. */
static void case_13_submitting_without_reaping(void **state)
{
    struct hostile *f = *state;

    FOR_EACH_SLOT(slot)
    {
        size_t before = 0;

        hostile_start(f, slot, 0);
        put_header(f, FLUSH, 0);
        for (unsigned i = 0; i < RING_SIZE; i++) { /* each descriptor is a chain, or half of one */
            ring_put_descriptor(&f->h, 0, i, slot == RNG_SLOT ? DATA : HEADER, 16,
                                slot == RNG_SLOT ? RING_WRITE : RING_NEXT, 15);
        }
        ring_put_descriptor(&f->h, 0, 15, slot == RNG_SLOT ? DATA : STATUS, 1, RING_WRITE, 0);
        for (unsigned i = 0; i < 4000; i++) {
            for (unsigned k = 0; k < RING_SIZE; k++) /* always full */
                ring_offer_head(&f->h, 0, (uint16_t)(k % 15));
            ring_kick(&f->h, 0);
            assert_int_equal(status_get(&f->h), 15);
            if (i == 10)
                before = mallinfo2().uordblks;
        }
        assert_int_equal(mallinfo2().uordblks, before);
        assert_int_equal(guest_get16(&f->h, ring_used(0) + 2), (uint16_t)(4000 * RING_SIZE));
        /* More than the ring holds is no longer patience but a lie. */
        for (unsigned k = 0; k <= RING_SIZE; k++)
            ring_offer_head(&f->h, 0, 0);
        f->h.rings[0].used = (uint16_t)(4000 * RING_SIZE);
        ring_kick(&f->h, 0);
        assert_breaks_and_recovers(f);
    }
}

static void offer_without_running(struct hostile *f)
{
    const struct ring_buffer random = { DATA, 16, RING_WRITE };
    const struct ring_buffer read[] = { { HEADER, 16, 0 },
                                        { DATA, 512, RING_WRITE },
                                        { STATUS, 1, RING_WRITE } };

    put_header(f, IN, 0);
    if (f->h.slot == DISK_SLOT)
        ring_offer(&f->h, 0, read, 3);
    else
        ring_offer(&f->h, 0, &random, 1);
    ring_notify(&f->h, 0);
}

/* A queue, or the device, is reset with a kick on its way and requests in the ring; the rings'
 * memory then belongs to somebody else. */
static void case_15_reset_with_requests_in_flight(void **state)
{
    uint8_t other[0x3000], after[sizeof(other)];
    struct hostile *f = *state;

    memset(other, 0xcc, sizeof(other));
    FOR_EACH_SLOT(slot)
    {
        for (unsigned round = 0; round < 400; round++) {
            bool queue_only = round % 2;

            hostile_start(f, slot, ALL_FEATURES);
            for (unsigned i = 0; i < round % 5; i++)
                offer_without_running(f);
            if (round % 3 == 0)
                (void)loop_turn(f->h.loop, 0, NULL);
            if (queue_only)
                reg_put(&f->h, REG_QUEUE_RESET, 2, 1);
            else
                status_put(&f->h, 0);
            assert_int_equal(reg_get(&f->h, REG_QUEUE_ENABLE, 2), 0);
            guest_put(&f->h, RING_BASE(0), other, sizeof(other));
            harness_run(&f->h);
            guest_get(&f->h, RING_BASE(0), after, sizeof(after));
            assert_memory_equal(after, other, sizeof(other));
            if (queue_only) { /* the same queue elsewhere, while the others go on */
                driver_set_ring(&f->h, 0, 8);
                assert_serves(f);
            }
        }
    }
}

/* The device is told to write over what drives it. */
static void case_16_dma_into_rings_and_registers(void **state)
{
    const uint64_t targets[] = { RING_BASE(0), ring_avail(0), ring_used(0), ring_used(0) - 256 };
    struct hostile *f = *state;

    FOR_EACH_SLOT(slot)
    {
        for (size_t i = 0; i < 4 * ARRAY_LENGTH(targets); i++) {
            hostile_start(f, slot, i & 4 ? VIRTIO_FEATURE_EVENT_INDEX : 0);
            if (slot == DISK_SLOT) {
                (void)disk_request(f, IN, 0, targets[i % 4], 512);
            } else {
                offer_descriptor(f, targets[i % 4], 512, RING_WRITE, 0);
            }
            ring_kick(&f->h, 0); /* by what stands there now */
            ring_kick(&f->h, 0);
            hostile_start(f, slot, 0);
            assert_serves(f);
        }
        for (unsigned bar = 0; bar < 2; bar++) {
            for (unsigned page = 0; page < 4; page++) {
                hostile_start(f, slot, 0);
                offer_descriptor(f, bar_address(&f->h, bar) + page * 0x1000, 16,
                                 slot == RNG_SLOT ? RING_WRITE : 0, 0);
                assert_breaks_and_recovers(f);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOSTILE_TEST(case_01_rings_moved_after_driver_ok),
        HOSTILE_TEST(case_02_status_bits_and_late_features),
        HOSTILE_TEST(case_03_buffers_that_are_no_ram),
        HOSTILE_TEST(case_04_descriptor_loops),
        HOSTILE_TEST(case_05_indirect_tables),
        HOSTILE_TEST(case_06_avail_index_jumps),
        HOSTILE_TEST(case_07_stale_indices),
        HOSTILE_TEST(case_08_queue_numbers_out_of_range),
        HOSTILE_TEST(case_10_queue_geometry),
        HOSTILE_TEST(case_13_submitting_without_reaping),
        HOSTILE_TEST(case_15_reset_with_requests_in_flight),
        HOSTILE_TEST(case_16_dma_into_rings_and_registers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
