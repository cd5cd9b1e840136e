/* test_virtio_balloon_restore.c - a balloon whose VM is another one since its driver settled what
 * it has: changed while it ran, or restored with other memory. */
#include "tests/unit/virtio_harness.h"
#include <sys/mman.h>
#include "base/cleanup.h"
#include "vmm/control_protocol.h"
#include "vmm/stats_page.h"
#include "vmm/transfer.h"
#include "vmm/virtio_balloon.h"

#define AREA        0x200000ull
#define AREA_BYTES  0x200000u
#define STATS_QUEUE (1ull << 1)
#define DEFLATE     (1ull << 2)
#define HINTS       (1ull << 3) /* never offered */
#define REPORTING   (1ull << 5)
#define ALL         (STATS_QUEUE | DEFLATE | REPORTING)

enum { STATISTICS = 2, REPORTS };

static struct stats_balloon stats;

static void balloon_open(struct harness *h, enum vmm_memory_backing backing, int memory_fd,
                         uint8_t deflate_on_oom)
{
    const struct guest_memory_spec memory = { .bytes = HARNESS_MEMORY,
                                              .backing = backing,
                                              .fd = memory_fd };
    const struct vmm_balloon config = { .target_mib = 1, .deflate_on_oom = deflate_on_oom };
    struct virtio_balloon *balloon;

    harness_open_with(h, -1, -1, &memory);
    assert_int_equal(virtio_balloon_add(h->root, &config, &stats, &balloon, &h->err), 0);
}

/* Of a driver that took all that there was. */
static struct transfer balloon_save(void)
{
    struct harness from;
    struct transfer transfer = { .err = &from.err };

    balloon_open(&from, VMM_MEMORY_ANONYMOUS, -1, 1);
    driver_start(&from, ALL, 8);
    pci_root_transfer(from.root, &transfer);
    assert_true(transfer_is_good(&transfer));
    harness_close(&from);
    return transfer;
}

static int balloon_load(struct harness *h, struct transfer *transfer)
{
    transfer->loading = true;
    transfer->at = 0;
    transfer->err = &h->err;
    pci_root_transfer(h->root, transfer);
    return transfer->result;
}

/* deflate_on_oom can be changed while a VM runs, and counts from its next start on: the snapshot's
 * driver has what was offered at the one before. */
static void what_was_changed_meanwhile_is_no_hindrance(void **state)
{
    struct transfer transfer = balloon_save();
    struct harness to;

    (void)state;
    balloon_open(&to, VMM_MEMORY_ANONYMOUS, -1, 0);
    assert_int_equal(balloon_load(&to, &transfer), 0);
    assert_int_equal(status_get(&to), 15);
    reg_put(&to, REG_ACCEPTED_SELECT, 4, 0);
    assert_int_equal(reg_get(&to, REG_ACCEPTED, 4), ALL);
    assert_true(driver_negotiate(&to, ALL | VIRTIO_FEATURE_VERSION_1)); /* also once more */
    free(transfer.bytes);
    harness_close(&to);
}

/* Its reports are answered, and taken for nothing: this host's huge pages might not come back. */
static void memory_of_huge_pages_is_kept_from_a_driver_that_reports(void **state)
{
    auto_close int fd = memfd_create("memory", MFD_CLOEXEC);
    const struct ring_buffer range = { AREA, AREA_BYTES, RING_WRITE };
    struct transfer transfer = balloon_save();
    struct harness to;
    uint32_t head, length;

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, HARNESS_MEMORY), 0);
    balloon_open(&to, VMM_MEMORY_HUGE_2M, fd, 1);
    driver_attach(&to);
    assert_int_equal(features_offered(&to) & REPORTING, 0);
    assert_int_equal(balloon_load(&to, &transfer), 0);
    to.rings[REPORTS].size = 8;
    memset(guest_memory_map(to.memory, AREA, AREA_BYTES), 'x', AREA_BYTES);
    ring_offer(&to, REPORTS, &range, 1);
    ring_kick(&to, REPORTS);
    assert_true(ring_take(&to, REPORTS, &head, &length));
    assert_int_equal(status_get(&to), 15);
    assert_int_equal(*(char *)guest_memory_map(to.memory, AREA, 1), 'x');
    free(transfer.bytes);
    harness_close(&to);
}

static void what_nobody_offers_is_refused(void **state)
{
    const uint64_t had = ALL | VIRTIO_FEATURE_VERSION_1, wanted = had | HINTS;
    struct transfer transfer = balloon_save();
    uint8_t *features = memmem(transfer.bytes, transfer.size, &had, sizeof had);
    struct harness to;

    (void)state;
    assert_non_null(features);
    memcpy(features, &wanted, sizeof wanted);
    balloon_open(&to, VMM_MEMORY_ANONYMOUS, -1, 1);
    assert_int_equal(balloon_load(&to, &transfer), -ENOTSUP);
    assert_non_null(strstr(to.err.message, "features"));
    free(transfer.bytes);
    harness_close(&to);
}

/* An interval of 0 is none: the buffer stays where it is. */
static void statistics_that_nobody_wants_are_not_asked_for(void **state)
{
    const struct ring_buffer buffer = { DATA_BASE, 10, 0 };
    struct harness h;
    uint32_t head, length;

    (void)state;
    balloon_open(&h, VMM_MEMORY_ANONYMOUS, -1, 0);
    driver_start(&h, STATS_QUEUE, 8);
    ring_offer(&h, STATISTICS, &buffer, 1);
    ring_kick(&h, STATISTICS);
    harness_run(&h);
    assert_false(ring_take(&h, STATISTICS, &head, &length));
    harness_close(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statistics_that_nobody_wants_are_not_asked_for),
        cmocka_unit_test(what_was_changed_meanwhile_is_no_hindrance),
        cmocka_unit_test(memory_of_huge_pages_is_kept_from_a_driver_that_reports),
        cmocka_unit_test(what_nobody_offers_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
