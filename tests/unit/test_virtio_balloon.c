/* test_virtio_balloon.c - the balloon: what it gives back to the host, what it believes. */
#include "tests/unit/virtio_harness.h"
#include "tests/unit/passing_time.h"
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include "base/cleanup.h"
#include "vmm/control_protocol.h"
#include "vmm/transfer.h"
#include "vmm/virtio_balloon.h"

#define PAGE          4096u
#define PAGES         256u /* of the area that tests give away, from AREA up */
#define AREA          0x200000ull
#define STATS_QUEUE   (1ull << 1)
#define DEFLATE       (1ull << 2)
#define REPORTING     (1ull << 5)
#define ALL           (STATS_QUEUE | DEFLATE | REPORTING)
#define CHAIN_PAGES   4096 /* what one list is heard of */
#define REG_NUM_PAGES 0
#define REG_ACTUAL    4

enum { INFLATE, DEFLATED, STATS, REPORTS };

struct fixture {
    struct harness h;
    struct stats_balloon stats;
    struct virtio_balloon *balloon;
};

/* In place of libc's: how many calls the VMM makes. */
static unsigned discards;

int madvise(void *start, size_t bytes, int advice) /* NOLINT(*-parameter-name): libc's differ */
{
    discards += advice == MADV_DONTNEED;
    return (int)syscall(SYS_madvise, start, bytes, advice);
}

static int set_up(void **state)
{
    const struct vmm_balloon config = { .target_mib = 2,
                                        .stats_interval_s = 1,
                                        .deflate_on_oom = 1 };
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    harness_open(&f->h);
    assert_int_equal(virtio_balloon_add(f->h.root, &config, &f->stats, &f->balloon, &f->h.err), 0);
    *state = f;
    return 0;
}

/* --- the guest's memory --- */

static void fill_area(struct harness *h)
{
    for (unsigned i = 0; i < PAGES; i++)
        memset(guest_memory_map(h->memory, AREA + i * PAGE, PAGE), 'x', PAGE);
}

/* Pages of the area that are in RAM.  MADV_NOHUGEPAGE is not needed: a huge page that is cut
 * counts page by page. */
static unsigned resident(struct harness *h)
{
    unsigned char pages[PAGES];
    unsigned count = 0;

    assert_int_equal(mincore(guest_memory_map(h->memory, AREA, PAGES * PAGE), PAGES * PAGE, pages),
                     0);
    for (unsigned i = 0; i < PAGES; i++)
        count += pages[i] & 1;
    return count;
}

static bool page_is_zero(struct harness *h, unsigned index)
{
    return guest_get8(h, AREA + index * PAGE) == 0 &&
           guest_get8(h, AREA + index * PAGE + PAGE - 1) == 0;
}

static void send_pages(struct harness *h, unsigned queue, const uint32_t *pages, unsigned count)
{
    const struct ring_buffer buffer = { DATA_BASE, count * 4, 0 };
    uint32_t head, length;

    guest_put(h, DATA_BASE, pages, count * 4);
    ring_offer(h, queue, &buffer, 1);
    ring_kick(h, queue);
    assert_true(ring_take(h, queue, &head, &length));
    assert_int_equal(length, 0);
}

static void inflated_pages_leave_the_host(void **state)
{
    struct fixture *f = *state;
    struct harness *h = &f->h;
    uint32_t pages[PAGES];

    driver_start(h, ALL | VIRTIO_FEATURE_EVENT_INDEX, 8);
    fill_area(h);
    assert_int_equal(resident(h), PAGES);
    for (unsigned i = 0; i < PAGES; i++) /* every second one first, then the rest, downwards */
        pages[i] = (uint32_t)(AREA / PAGE) + (i < PAGES / 2 ? 2 * i : 2 * (PAGES - 1 - i) + 1);
    discards = 0;
    send_pages(h, INFLATE, pages, PAGES);
    assert_int_equal(discards, 1);
    assert_int_equal(resident(h), 0);
    assert_int_equal(f->stats.inflated_bytes, PAGES * PAGE);
    assert_true(page_is_zero(h, 0) && page_is_zero(h, PAGES - 1));
    send_pages(h, DEFLATED, pages, PAGES);
    fill_area(h);
    assert_int_equal(resident(h), PAGES);
}

/* What lies between two of them stays. */
static void only_what_is_named_goes(void **state)
{
    struct harness *h = &((struct fixture *)*state)->h;
    const uint32_t first = AREA / PAGE;
    const uint32_t pages[] = { first + 9, first + 3, first + 3, first + 4, first + 9, first + 1 };

    driver_start(h, ALL, 8);
    fill_area(h);
    send_pages(h, INFLATE, pages, ARRAY_LENGTH(pages));
    for (unsigned i = 0; i < 16; i++)
        if (page_is_zero(h, i) != (i == 1 || i == 3 || i == 4 || i == 9))
            fail_msg("page %u", i);
}

/* Case 12 and 16: addresses outside RAM, and those of the device's own rings. */
static void foreign_pages_are_harmless(void **state)
{
    struct harness *h = &((struct fixture *)*state)->h;
    const uint32_t ram_end = HARNESS_MEMORY / PAGE;
    const uint32_t outside[] = { ram_end, ram_end + 1, 0xffffffff,  0xfffffffe, 0xc0000,
                                 0xfee00, 0x100000,    ram_end - 1, AREA / PAGE };
    const uint32_t rings[] = { RING_BASE(INFLATE) / PAGE, ring_avail(INFLATE) / PAGE,
                               ring_used(INFLATE) / PAGE };
    const struct ring_buffer buffer = { DATA_BASE, sizeof(rings), 0 };

    driver_start(h, ALL, 8);
    fill_area(h);
    send_pages(h, INFLATE, outside, ARRAY_LENGTH(outside));
    assert_true(page_is_zero(h, 0));
    assert_false(page_is_zero(h, 1));
    guest_put(h, DATA_BASE, rings, sizeof(rings));
    ring_offer(h, INFLATE, &buffer, 1);
    ring_kick(h, INFLATE);
    driver_start(h, ALL, 8); /* whatever it was, a reset heals it */
    fill_area(h);
    send_pages(h, INFLATE, outside, ARRAY_LENGTH(outside));
    assert_true(page_is_zero(h, 0));
}

/* Where a file is mapped, its content must not come back. */
static void file_pages_read_as_zeroes(void **state)
{
    struct harness *h = &((struct fixture *)*state)->h;
    auto_close int fd = memfd_create("file", MFD_CLOEXEC);
    uint32_t pages[12];
    char bytes[8 * PAGE];

    memset(bytes, 'f', sizeof(bytes));
    assert_int_equal(write(fd, bytes, sizeof(bytes)), sizeof(bytes));
    driver_start(h, ALL, 8);
    fill_area(h);
    assert_int_equal(guest_memory_map_file(h->memory, AREA + 4 * PAGE, 8 * PAGE, fd, 0, &h->err),
                     0);
    for (unsigned i = 0; i < 12; i++) /* two before, all but the last two, and one more */
        pages[i] = (uint32_t)(AREA / PAGE) + 2 + (i < 8 ? i : 100);
    send_pages(h, INFLATE, pages, 12);
    for (unsigned i = 0; i < 16; i++)
        if (guest_get8(h, AREA + i * PAGE) != (i < 2 || i > 11 ? 'x' : i < 10 ? 0 : 'f'))
            fail_msg("page %u", i);
    guest_put(h, AREA + 5 * PAGE, "again", 5);
    send_pages(h, INFLATE, pages, 12);
    assert_true(page_is_zero(h, 5));
    assert_int_equal(pread(fd, bytes, 1, 0), 1);
    assert_int_equal(bytes[0], 'f');
}

static void reported_ranges_leave_the_host(void **state)
{
    struct fixture *f = *state;
    struct harness *h = &f->h;
    const struct ring_buffer ranges[] = {
        { AREA, 16 * PAGE, RING_WRITE },
        { AREA + 32 * PAGE + 100, 2 * PAGE, RING_WRITE }, /* one whole page in it */
        { AREA + 64 * PAGE + 1, PAGE, RING_WRITE },       /* none */
    };
    uint32_t head, length;

    driver_start(h, ALL, 8);
    fill_area(h);
    ring_offer(h, REPORTS, ranges, ARRAY_LENGTH(ranges));
    ring_kick(h, REPORTS);
    assert_true(ring_take(h, REPORTS, &head, &length));
    for (unsigned i = 0; i < PAGES; i++)
        if (page_is_zero(h, i) != (i < 16 || i == 33))
            fail_msg("page %u", i);
    assert_int_equal(f->stats.reported_bytes, 19 * PAGE);
    assert_false(status_get(h) & VIRTIO_STATUS_NEEDS_RESET);
}

/* A driver without the statistics' queue numbers the reports' queue 2. */
static void reports_come_where_the_driver_puts_them(void **state)
{
    struct harness *h = &((struct fixture *)*state)->h;
    const struct ring_buffer range = { AREA, 16 * PAGE, RING_WRITE };
    uint32_t head, length;

    driver_start(h, REPORTING, 8);
    fill_area(h);
    ring_offer(h, STATS, &range, 1);
    ring_kick(h, STATS);
    assert_true(ring_take(h, STATS, &head, &length));
    assert_true(page_is_zero(h, 15));
    assert_false(page_is_zero(h, 16));
}

/* --- statistics --- */

static void put_stat(struct harness *h, unsigned index, uint16_t tag, uint64_t value)
{
    guest_put(h, DATA_BASE + index * 10, &tag, sizeof(tag));
    guest_put(h, DATA_BASE + index * 10 + 2, &value, sizeof(value));
}

static void offer_stats(struct harness *h, uint32_t bytes)
{
    const struct ring_buffer buffer = { DATA_BASE, bytes, 0 };

    ring_offer(h, STATS, &buffer, 1);
    ring_kick(h, STATS);
}

static void statistics_are_asked_for_by_giving_the_buffer_back(void **state)
{
    struct fixture *f = *state;
    struct harness *h = &f->h;
    uint32_t head, length;

    driver_start(h, ALL, 8);
    put_stat(h, 0, 4, 111); /* free */
    put_stat(h, 1, 77, 1);
    put_stat(h, 2, 6, 222); /* available */
    put_stat(h, 3, 0xffff, 1);
    put_stat(h, 4, 9, UINT64_MAX);
    offer_stats(h, 55); /* and half of one more */
    assert_int_equal(f->stats.guest[4], 111);
    assert_int_equal(f->stats.guest[6], 222);
    assert_true(f->stats.guest[9] == UINT64_MAX);
    assert_int_equal(f->stats.guest_known, 1 << 4 | 1 << 6 | 1 << 9);
    assert_true(f->stats.guest_ms > 0);
    assert_false(ring_take(h, STATS, &head, &length));
    passed_s += 1;
    harness_run(h);
    assert_true(ring_take(h, STATS, &head, &length));
    put_stat(h, 0, 4, 333);
    offer_stats(h, 10);
    assert_int_equal(f->stats.guest[4], 333);
    assert_int_equal(f->stats.guest_known, 1 << 4);
    assert_false(ring_take(h, STATS, &head, &length));
}

/* As when the agent begins to look at the VM: not once an hour has passed. */
static void another_interval_counts_at_once(void **state)
{
    struct vmm_balloon config = { .target_mib = 2, .stats_interval_s = 3600 };
    struct fixture *f = *state;
    struct harness *h = &f->h;
    uint32_t head, length;

    virtio_balloon_change(f->balloon, &config);
    driver_start(h, ALL, 8);
    offer_stats(h, 10);
    config.stats_interval_s = 2;
    virtio_balloon_change(f->balloon, &config);
    passed_s += 1;
    harness_run(h);
    assert_false(ring_take(h, STATS, &head, &length));
    config.target_mib = 1; /* changes nothing about it */
    virtio_balloon_change(f->balloon, &config);
    passed_s += 1;
    harness_run(h);
    assert_true(ring_take(h, STATS, &head, &length));
}

static void a_driver_that_does_not_deflate_when_memory_runs_out_is_told_of(void **state)
{
    struct fixture *f = *state;
    struct harness *h = &f->h;

    driver_start(h, ALL & ~DEFLATE, 8);
    put_stat(h, 0, 4, 111);
    offer_stats(h, 10);
    assert_true(f->stats.guest_known == (STATS_GUEST_KEEPS | 1 << 4));
}

/* Case 12 and 13: more than there can be, and more buffers than one. */
static void strange_statistics_are_bounded(void **state)
{
    struct fixture *f = *state;
    struct harness *h = &f->h;
    uint32_t head, length;

    driver_start(h, ALL, 8);
    for (unsigned i = 0; i < 1000; i++)
        put_stat(h, i, i < 64 ? 4 : 5, i);
    offer_stats(h, 0x200000);
    assert_int_equal(f->stats.guest[4], 63);
    assert_int_equal(f->stats.guest[5], 0);
    offer_stats(h, 0x200000); /* the one before goes back */
    assert_true(ring_take(h, STATS, &head, &length));
    assert_int_equal(head, 0);
    assert_false(ring_take(h, STATS, &head, &length));
    offer_stats(h, 3);
    assert_int_equal(f->stats.guest_known, 0);
    assert_false(status_get(h) & VIRTIO_STATUS_NEEDS_RESET);
}

/* Case 15: the buffer that we hold is gone with its queue. */
static void a_reset_forgets_the_held_buffer(void **state)
{
    struct fixture *f = *state;
    struct harness *h = &f->h;
    uint32_t head, length;

    driver_start(h, ALL | VIRTIO_FEATURE_RING_RESET, 8);
    put_stat(h, 0, 4, 1);
    offer_stats(h, 10);
    reg_put(h, REG_QUEUE_SELECT, 2, STATS);
    reg_put(h, REG_QUEUE_RESET, 2, 1);
    driver_set_ring(h, STATS, 8);
    passed_s += 1;
    harness_run(h); /* the timer of before */
    assert_int_equal(guest_get16(h, ring_used(STATS) + 2), 0);
    offer_stats(h, 10);
    assert_false(ring_take(h, STATS, &head, &length));
    driver_start(h, ALL, 8);
    passed_s += 1;
    harness_run(h);
    assert_int_equal(guest_get16(h, ring_used(STATS) + 2), 0);
    offer_stats(h, 10);
    offer_stats(h, 10);
    assert_true(ring_take(h, STATS, &head, &length));
}

/* --- configuration --- */

static void the_target_reaches_the_driver(void **state)
{
    const struct vmm_balloon more = { .target_mib = 3 };
    struct fixture *f = *state;
    struct harness *h = &f->h;
    uint8_t generation;

    virtio_balloon_change(f->balloon, &more); /* before there is a driver */
    driver_start(h, ALL, 8);
    assert_int_equal(device_config_get(h, REG_NUM_PAGES, 4), 768);
    generation = (uint8_t)reg_get(h, REG_GENERATION, 1);
    assert_int_equal(interrupts_take(h), 0);
    virtio_balloon_change(f->balloon, &(struct vmm_balloon){ .target_mib = 1 });
    assert_int_equal(interrupts_take(h), 1);
    assert_int_not_equal(reg_get(h, REG_GENERATION, 1), generation);
    assert_int_equal(device_config_get(h, REG_NUM_PAGES, 4), 256);
    assert_int_equal(f->stats.target_bytes, 1 << 20);
}

static void actual_is_only_what_the_driver_says(void **state)
{
    struct fixture *f = *state;
    struct harness *h = &f->h;

    driver_start(h, ALL, 8);
    device_config_put(h, REG_ACTUAL, 4, 256);
    assert_int_equal(f->stats.actual_bytes, 1 << 20);
    device_config_put(h, REG_ACTUAL, 4, 0xffffffff);
    assert_true(f->stats.actual_bytes == 0xffffffffull * PAGE);
    assert_int_equal(device_config_get(h, REG_ACTUAL, 4), 0xffffffff);
    device_config_put(h, REG_ACTUAL, 2, 1); /* case 9 */
    device_config_put(h, REG_ACTUAL + 1, 4, 1);
    device_config_put(h, REG_NUM_PAGES, 8, 1);
    device_config_put(h, REG_NUM_PAGES, 4, 1);
    device_config_put(h, 8, 4, 1);
    device_config_put(h, 4092, 4, 1);
    assert_int_equal(device_config_get(h, REG_ACTUAL, 4), 0xffffffff);
    assert_int_equal(device_config_get(h, REG_NUM_PAGES, 4), 512);
    status_put(h, 0);
    assert_int_equal(f->stats.actual_bytes, 0);
}

static void features_follow_the_configuration(void **state)
{
    const struct vmm_balloon config = { .target_mib = 0 };
    struct fixture *f = *state;
    struct harness *h = &f->h;
    struct virtio_balloon *second;

    driver_attach(h);
    assert_int_equal(features_offered(h) & 0xff, ALL);
    assert_int_equal(virtio_balloon_add(h->root, &config, &f->stats, &second, &h->err), 0);
    h->slot = 2;
    driver_attach(h);
    assert_int_equal(features_offered(h) & 0xff, STATS_QUEUE | REPORTING);
}

/* Also the buffer that the device holds: the guest would wait for it for ever. */
static void a_snapshot_has_all_of_it(void **state)
{
    struct fixture *from = *state, *to;
    struct transfer out = { .err = &from->h.err };
    uint32_t head, length;

    driver_start(&from->h, ALL, 8);
    device_config_put(&from->h, REG_ACTUAL, 4, 77);
    put_stat(&from->h, 0, 4, 1);
    from->h.rings[STATS].next_descriptor = 3;
    offer_stats(&from->h, 10);
    pci_root_transfer(from->h.root, &out);

    assert_int_equal(set_up((void **)&to), 0);
    struct transfer in = {
        .loading = true, .bytes = out.bytes, .size = out.size, .err = &to->h.err
    };

    memcpy(guest_memory_map(to->h.memory, 0, HARNESS_MEMORY),
           guest_memory_map(from->h.memory, 0, HARNESS_MEMORY), HARNESS_MEMORY);
    memcpy(to->h.rings, from->h.rings, sizeof(to->h.rings));
    pci_root_transfer(to->h.root, &in);
    assert_true(transfer_is_good(&in));
    harness_run(&to->h);
    assert_int_equal(device_config_get(&to->h, REG_ACTUAL, 4), 77);
    assert_int_equal(to->stats.actual_bytes, 77 * PAGE);
    while (!ring_take(&to->h, STATS, &head, &length))
        assert_int_equal(loop_turn(to->h.loop, 2000, &to->h.err), 0);
    assert_int_equal(head, 3);
    offer_stats(&to->h, 10);
    assert_int_equal(to->stats.guest[4], 1);
    assert_false(status_get(&to->h) & VIRTIO_STATUS_NEEDS_RESET);
    free(out.bytes);
    assert_int_equal(harness_tear_down((void **)&to), 0);
}

/* Its size is another than the guest has read, and the agent has nothing new to say. */
static void a_restored_guest_learns_of_its_size(void **state)
{
    const struct vmm_balloon config = { .target_mib = 1, .stats_interval_s = 1 };
    struct fixture *from = *state, *to = calloc(1, sizeof(*to));
    struct transfer transfer = { .err = &from->h.err };

    assert_non_null(to);
    driver_start(&from->h, STATS_QUEUE, 8);
    pci_root_transfer(from->h.root, &transfer);
    harness_open(&to->h);
    assert_int_equal(virtio_balloon_add(to->h.root, &config, &to->stats, &to->balloon, &to->h.err),
                     0);
    transfer.loading = true;
    pci_root_transfer(to->h.root, &transfer);
    assert_true(transfer_is_good(&transfer));
    harness_run(&to->h);
    virtio_balloon_change(to->balloon, &config);
    assert_int_equal(interrupts_take(&to->h) & 1, 1);
    assert_int_equal(device_config_get(&to->h, REG_NUM_PAGES, 4), 256);
    virtio_balloon_change(to->balloon, &config);
    harness_run(&to->h);
    assert_int_equal(interrupts_take(&to->h) & 1, 0);
    free(transfer.bytes);
    assert_int_equal(harness_tear_down((void **)&to), 0);
}

/* --- hostile rings --- */

static void broken_chains_stop_the_device(void **state)
{
    static const struct {
        uint64_t address;
        uint32_t length;
        uint16_t flags, next;
    } cases[] = {
        { HARNESS_MEMORY - 8, 16, 0, 0 },               /* 3: over the end of RAM */
        { UINT64_MAX - 8, 16, 0, 0 },                   /* 3: wraps */
        { PLATFORM_ECAM_START, 16, 0, 0 },              /* 3: in the hole */
        { DATA_BASE, 4, RING_NEXT, 0 },                 /* 4: itself */
        { DATA_BASE, 4, RING_NEXT, 200 },               /* out of the table */
        { DATA_BASE, 15, RING_INDIRECT, 0 },            /* 5 */
        { DATA_BASE, 16, RING_INDIRECT | RING_NEXT, 0 } /* 5 */
    };
    struct harness *h = &((struct fixture *)*state)->h;

    for (unsigned queue = INFLATE; queue <= REPORTS; queue++) {
        for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
            driver_start(h, ALL | VIRTIO_FEATURE_INDIRECT, 8);
            ring_put_descriptor(h, queue, 0, cases[i].address, cases[i].length, cases[i].flags,
                                cases[i].next);
            ring_offer_head(h, queue, 0);
            ring_kick(h, queue);
            if (!(status_get(h) & VIRTIO_STATUS_NEEDS_RESET))
                fail_msg("queue %u, case %zu", queue, i);
        }
    }
}

/* Case 10. */
static void impossible_queues_are_refused(void **state)
{
    static const uint16_t sizes[] = { 0, 3, 256, 65535 };
    struct harness *h = &((struct fixture *)*state)->h;

    for (size_t i = 0; i < ARRAY_LENGTH(sizes); i++) {
        driver_attach(h);
        assert_true(driver_negotiate(h, ALL | VIRTIO_FEATURE_VERSION_1));
        reg_put(h, REG_QUEUE_SELECT, 2, REPORTS);
        reg_put(h, REG_QUEUE_SIZE, 2, sizes[i]);
        reg_put(h, REG_QUEUE_DESCRIPTORS, 8, RING_BASE(0));
        reg_put(h, REG_QUEUE_AVAIL, 8, ring_avail(0));
        reg_put(h, REG_QUEUE_USED, 8, ring_used(0));
        reg_put(h, REG_QUEUE_ENABLE, 2, 1);
        assert_int_equal(reg_get(h, REG_QUEUE_ENABLE, 2), 0);
        assert_needs_reset(h);
    }
}

static void wrong_directions_do_nothing(void **state)
{
    const struct ring_buffer writable = { AREA, 16 * PAGE, RING_WRITE };
    const struct ring_buffer readable = { AREA, 16 * PAGE, 0 };
    struct fixture *f = *state;
    struct harness *h = &f->h;
    uint32_t head, length;

    driver_start(h, ALL, 8);
    fill_area(h);
    ring_offer(h, INFLATE, &writable, 1);
    ring_offer(h, DEFLATED, &writable, 1);
    ring_offer(h, REPORTS, &readable, 1);
    for (unsigned queue = INFLATE; queue <= REPORTS; queue++)
        ring_kick(h, queue);
    assert_true(ring_take(h, INFLATE, &head, &length));
    assert_true(ring_take(h, DEFLATED, &head, &length));
    assert_true(ring_take(h, REPORTS, &head, &length));
    assert_int_equal(f->stats.inflated_bytes + f->stats.reported_bytes, 0);
    assert_false(page_is_zero(h, 0));
}

/* One list of a million numbers, and 100 lists at once. */
static void work_is_bounded(void **state)
{
    const struct ring_buffer list = { DATA_BASE, 0x200000, 0 }, empty = { DATA_BASE, 4, 0 };
    struct fixture *f = *state;
    struct harness *h = &f->h;
    uint32_t head, length, answered = 0;

    driver_start(h, ALL, 128);
    ring_offer(h, INFLATE, &list, 1);
    ring_kick(h, INFLATE);
    assert_true(ring_take(h, INFLATE, &head, &length));
    assert_int_equal(f->stats.inflated_bytes, CHAIN_PAGES * PAGE);
    for (unsigned i = 0; i < 100; i++)
        ring_offer(h, INFLATE, &empty, 1);
    ring_notify(h, 0);
    assert_int_equal(loop_turn(h->loop, 0, &h->err), 0);
    while (ring_take(h, INFLATE, &head, &length))
        answered++;
    assert_in_range(answered, 1, 32);
    harness_run(h);
    while (ring_take(h, INFLATE, &head, &length))
        answered++;
    assert_int_equal(answered, 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, harness_tear_down)
        TEST(inflated_pages_leave_the_host),
        TEST(only_what_is_named_goes),
        TEST(foreign_pages_are_harmless),
        TEST(file_pages_read_as_zeroes),
        TEST(reported_ranges_leave_the_host),
        TEST(reports_come_where_the_driver_puts_them),
        TEST(statistics_are_asked_for_by_giving_the_buffer_back),
        TEST(another_interval_counts_at_once),
        TEST(a_driver_that_does_not_deflate_when_memory_runs_out_is_told_of),
        TEST(strange_statistics_are_bounded),
        TEST(a_reset_forgets_the_held_buffer),
        TEST(the_target_reaches_the_driver),
        TEST(actual_is_only_what_the_driver_says),
        TEST(features_follow_the_configuration),
        TEST(a_snapshot_has_all_of_it),
        TEST(a_restored_guest_learns_of_its_size),
        TEST(broken_chains_stop_the_device),
        TEST(impossible_queues_are_refused),
        TEST(wrong_directions_do_nothing),
        TEST(work_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
