/* fuzz_virtio_balloon.c - the balloon under a hostile driver (fuzz_machine.h): lists of pages,
 * reports, statistics; and what the agent asks for meanwhile. */
#include "tests/fuzz/fuzz_machine.h"
#include <sys/mman.h>
#include <sys/syscall.h>
#include "vmm/control_protocol.h"
#include "vmm/virtio_balloon.h"

#define PAGE_BYTES   4096
#define FEATURES     (1u << 1 | 1u << 2 | 1u << 5) /* all that it offers */
#define NUMBERS_MAX  64
#define REPORT_PARTS 4

enum { INFLATE, DEFLATE, STATS, REPORTS };

struct balloon_fuzz {
    struct stats_balloon stats;
    struct virtio_balloon *balloon;
};

/* In place of libc's: whatever the guest names, only its RAM is given back, by whole pages. */
static const struct guest_memory *watched;

int madvise(void *start, size_t bytes, int advice) /* NOLINT(*-parameter-name): libc's differ */
{
    for (size_t i = 0; watched && i < guest_memory_region_count(watched); i++) {
        struct guest_memory_region region = guest_memory_region(watched, i);

        if (advice != MADV_DONTNEED)
            break;
        FUZZ_REQUIRE((uint8_t *)start >= region.host && bytes <= region.size);
        FUZZ_REQUIRE((uint8_t *)start - region.host <= (ptrdiff_t)(region.size - bytes));
        FUZZ_REQUIRE((uintptr_t)start % PAGE_BYTES == 0 && bytes % PAGE_BYTES == 0 && bytes > 0);
    }
    return (int)syscall(SYS_madvise, start, bytes, advice);
}

/* Numbers of pages: in and around RAM, in runs and doubled, or any. */
static void send_numbers(struct fuzz_machine *m, unsigned queue)
{
    uint32_t pages[NUMBERS_MAX], at = (uint32_t)(fuzz_address(m) / PAGE_BYTES);
    unsigned count = fuzz_take(&m->input, 1) % (NUMBERS_MAX + 1);
    struct ring_buffer buffer = { DATA_BASE + fuzz_take(&m->input, 1), count * 4, 0 };

    for (unsigned i = 0; i < count; i++) {
        uint8_t step = (uint8_t)fuzz_take(&m->input, 1);

        at = step >= 0xf8 ? (uint32_t)fuzz_take(&m->input, 4) : at + step % 8 - 2;
        pages[i] = at;
    }
    fuzz_put(m, buffer.address, pages, count * 4);
    ring_offer(&m->h, queue, &buffer, 1);
}

static void send_report(struct fuzz_machine *m)
{
    struct ring_buffer parts[REPORT_PARTS];
    uint8_t how = (uint8_t)fuzz_take(&m->input, 1);
    unsigned count = 1 + how % REPORT_PARTS;

    for (unsigned i = 0; i < count; i++)
        parts[i] = (struct ring_buffer){ fuzz_address(m), fuzz_length(m),
                                         how & 128 && i == 0 ? 0 : RING_WRITE };
    ring_offer(&m->h, how & 64 ? STATS : REPORTS, parts, count);
}

static void send_stats(struct fuzz_machine *m)
{
    struct __attribute__((packed)) {
        uint16_t tag;
        uint64_t value;
    } stats[8];
    unsigned count = fuzz_take(&m->input, 1) % 9;
    struct ring_buffer buffer = { DATA_BASE, count * 10, 0 };

    for (unsigned i = 0; i < count; i++) {
        stats[i].tag = (uint16_t)fuzz_take(&m->input, 2);
        stats[i].value = fuzz_take(&m->input, 1) << 56;
    }
    if (count == 8)
        buffer.length = fuzz_length(m);
    fuzz_put(m, DATA_BASE, stats, count * sizeof(stats[0]));
    ring_offer(&m->h, STATS, &buffer, 1);
}

static void change(struct fuzz_machine *m)
{
    const struct balloon_fuzz *f = m->device;
    struct vmm_balloon config = { .target_mib = (uint32_t)fuzz_take(&m->input, 1) << 12,
                                  .stats_interval_s = (uint32_t)fuzz_take(&m->input, 1) % 2 };

    virtio_balloon_change(f->balloon, &config);
}

static void balloon_step(struct fuzz_machine *m)
{
    uint8_t how = (uint8_t)fuzz_take(&m->input, 1);

    switch (how % 8) {
    case 0:
    case 1:
        send_numbers(m, how & 1);
        break;
    case 2:
    case 3:
        send_report(m);
        break;
    case 4:
    case 5:
        send_stats(m);
        break;
    case 6:
        change(m);
        break;
    default:
        device_config_put(&m->h, (unsigned)fuzz_take(&m->input, 1), 1u << (how >> 4 & 3),
                          fuzz_take(&m->input, 4));
        break;
    }
    for (unsigned i = 0; i < 4 && !(how & 8); i++)
        mmio_put(&m->h,
                 bar_address(&m->h, 0) + VIRTIO_PCI_NOTIFY_OFFSET + i * VIRTIO_PCI_NOTIFY_STRIDE, 2,
                 i);
    fuzz_turns(m);
}

/* A page that is given up comes back as zeroes, and a neighbour is not touched. */
static void balloon_probe(struct fuzz_machine *m)
{
    const struct ring_buffer buffer = { DATA_BASE, 4, 0 };
    const uint64_t page = DATA_BASE + 0x10000;
    const uint32_t number = (uint32_t)(page / PAGE_BYTES);
    uint32_t head, used;

    guest_put(&m->h, page, "gone", 4);
    guest_put(&m->h, page + PAGE_BYTES, "here", 4);
    guest_put(&m->h, DATA_BASE, &number, sizeof(number));
    ring_offer(&m->h, INFLATE, &buffer, 1);
    ring_kick(&m->h, INFLATE);
    FUZZ_REQUIRE(ring_take(&m->h, INFLATE, &head, &used));
    FUZZ_REQUIRE(used == 0 && guest_get8(&m->h, page) == 0);
    FUZZ_REQUIRE(guest_get8(&m->h, page + PAGE_BYTES) == 'h');
}

FUZZ_TARGET(virtio_balloon)
{
    const struct vmm_balloon config = { .target_mib = 1,
                                        .stats_interval_s = 1,
                                        .deflate_on_oom = 1 };
    struct balloon_fuzz f = { 0 };
    struct fuzz_machine m = { .step = balloon_step, .probe = balloon_probe, .device = &f };

    harness_open_on(&m.h, -1, -1);
    FUZZ_REQUIRE(virtio_balloon_add(m.h.root, &config, &f.stats, &f.balloon, &m.h.err) == 0);
    watched = m.h.memory;
    fuzz_begin(&m, bytes, size);
    driver_attach(&m.h);
    (void)fuzz_start(&m, FEATURES);
    fuzz_program(&m);
    watched = NULL;
    harness_close(&m.h);
    return 0;
}
