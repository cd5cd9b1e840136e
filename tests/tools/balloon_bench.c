/* balloon_bench.c - how fast memory comes back through the balloon: `name GiB/s` a line, the median
 * of ROUNDS.  The device's own code in-process, driven through its registers and rings by the unit
 * tests' driver; the guest's memory is touched anew before each round, which is not measured. */
#define HARNESS_MEMORY (600ull << 20)
#include "tests/unit/virtio_harness.h"
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
#include "vmm/control_protocol.h"
#include "vmm/virtio_balloon.h"

#define PAGE        4096ull
#define HUGE        (2ull << 20)
#define AREA        (32ull << 20) /* on a huge page's border */
#define AREA_BYTES  (512ull << 20)
#define LINUX_PAGES 256 /* that Linux names in one list */
#define MOST_PAGES  4096
#define ROUNDS      5
#define INFLATE     0
#define REPORTS     3

struct fixture {
    struct harness h;
    struct stats_balloon stats;
    uint32_t pages[AREA_BYTES / PAGE];
};

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* One chain there and back. */
static void give(struct harness *h, unsigned queue, const struct ring_buffer *buffers,
                 unsigned count)
{
    uint32_t head, length;

    h->rings[queue].next_descriptor = 0;
    ring_offer(h, queue, buffers, count);
    mmio_put(h, bar_address(h, 0) + VIRTIO_PCI_NOTIFY_OFFSET + queue * VIRTIO_PCI_NOTIFY_STRIDE, 2,
             queue);
    while (!ring_take(h, queue, &head, &length))
        assert_int_equal(loop_turn(h->loop, 100, &h->err), 0);
}

static void give_lists(struct fixture *f, unsigned list)
{
    const struct ring_buffer buffer = { DATA_BASE, list * 4, 0 };

    for (size_t i = 0; i < AREA_BYTES / PAGE; i += list) {
        guest_put(&f->h, DATA_BASE, f->pages + i, list * sizeof(f->pages[0]));
        give(&f->h, INFLATE, &buffer, 1);
    }
}

/* As Linux: 32 ranges of a huge page at a time. */
static void give_reports(struct fixture *f, unsigned count)
{
    struct ring_buffer ranges[32];

    for (uint64_t done = 0; done < AREA_BYTES; done += count * HUGE) {
        for (unsigned i = 0; i < count; i++)
            ranges[i] = (struct ring_buffer){ AREA + done + i * HUGE, HUGE, RING_WRITE };
        give(&f->h, REPORTS, ranges, count);
    }
}

static int compare(const void *a, const void *b)
{
    const double *one = a, *other = b;

    return (*one > *other) - (*one < *other);
}

static void measure(struct fixture *f, const char *name, int advice,
                    void (*work)(struct fixture *, unsigned), unsigned argument)
{
    uint8_t *area = guest_memory_map(f->h.memory, AREA, AREA_BYTES);
    double took[ROUNDS];

    assert_int_equal(madvise(area, AREA_BYTES, advice), 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        double begun;

        for (uint64_t at = 0; at < AREA_BYTES; at += PAGE)
            area[at] = 1;
        begun = now();
        work(f, argument);
        took[round] = now() - begun;
        for (uint64_t at = 0; at < AREA_BYTES; at += 99 * PAGE)
            assert_int_equal(area[at], 0);
        assert_int_equal(madvise(area, AREA_BYTES, MADV_DONTNEED), 0);
    }
    qsort(took, ROUNDS, sizeof(took[0]), compare);
    printf("%s %.3f\n", name, (double)(AREA_BYTES >> 20) / 1024 / took[ROUNDS / 2]);
}

/* In Linux's order, and in none. */
static void list_pages(struct fixture *f, bool shuffled)
{
    uint32_t random = 1;

    for (size_t i = 0; i < AREA_BYTES / PAGE; i++)
        f->pages[i] = (uint32_t)(AREA / PAGE + i);
    for (size_t i = AREA_BYTES / PAGE - 1; shuffled && i > 0; i--) {
        size_t other = (random = random * 1664525 + 1013904223) % (i + 1);
        uint32_t page = f->pages[i];

        f->pages[i] = f->pages[other];
        f->pages[other] = page;
    }
}

static void run(void **state)
{
    const struct vmm_balloon config = { .target_mib = 0 };
    struct fixture *f = calloc(1, sizeof(*f));
    struct virtio_balloon *balloon;

    (void)state;
    assert_non_null(f);
    harness_open(&f->h);
    assert_int_equal(virtio_balloon_add(f->h.root, &config, &f->stats, &balloon, &f->h.err), 0);
    driver_start(&f->h, 1 << 1 | 1 << 5 | VIRTIO_FEATURE_EVENT_INDEX, 128);
    list_pages(f, false);
    measure(f, "reclaim_balloon_4k_lists", MADV_NOHUGEPAGE, give_lists, LINUX_PAGES);
    measure(f, "reclaim_balloon_2m_pages", MADV_HUGEPAGE, give_lists, MOST_PAGES);
    list_pages(f, true);
    measure(f, "reclaim_balloon_4k_scattered", MADV_NOHUGEPAGE, give_lists, LINUX_PAGES);
    measure(f, "reclaim_reporting_4k_pages", MADV_NOHUGEPAGE, give_reports, 32);
    measure(f, "reclaim_reporting_2m_pages", MADV_HUGEPAGE, give_reports, 32);
    harness_close(&f->h);
    free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(run) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
