/* test_virtio_mem.c - memory that is plugged and unplugged: what a driver may have, what it gives
 * back, and what it may say. */
#define HARNESS_HOTPLUG (16ull << 20)
#include "tests/unit/virtio_harness.h"
#include <sys/mman.h>
#include "base/cleanup.h"
#include "vmm/control_protocol.h"
#include "vmm/stats_page.h"
#include "vmm/transfer.h"
#include "vmm/virtio_mem.h"

#define BLOCK  VMM_MEMORY_BLOCK
#define BLOCKS (HARNESS_HOTPLUG / BLOCK)
#define START  GUEST_HOLE_END
#define ANSWER (DATA_BASE + 0x1000)

enum { PLUG, UNPLUG, UNPLUG_ALL, STATE };
enum { ACK, NACK, BUSY, ERROR, NO_ANSWER = 99 };
enum { PLUGGED, UNPLUGGED, MIXED };

struct fixture {
    struct harness h;
    struct stats_memory stats;
    struct virtio_mem *mem;
};

struct request {
    uint16_t type, padding[3];
    uint64_t address;
    uint16_t count, padding2[3];
};

static void add(struct fixture *f, uint64_t requested)
{
    assert_int_equal(virtio_mem_add(f->h.root, requested, &f->stats, &f->mem, &f->h.err), 0);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    harness_open(&f->h);
    add(f, 4 * BLOCK);
    driver_start(&f->h, VIRTIO_FEATURE_EVENT_INDEX, 8);
    *state = f;
    return 0;
}

/* The answer's type, and its state if that is asked for. */
static unsigned ask(struct fixture *f, uint16_t type, uint64_t address, uint16_t count)
{
    const struct request request = { .type = type, .address = address, .count = count };
    const struct ring_buffer buffers[] = { { DATA_BASE, sizeof(request), 0 },
                                           { ANSWER, 10, RING_WRITE } };
    uint32_t head, length;

    guest_put(&f->h, DATA_BASE, &request, sizeof(request));
    guest_put16(&f->h, ANSWER, NO_ANSWER);
    ring_offer(&f->h, 0, buffers, 2);
    ring_kick(&f->h, 0);
    assert_true(ring_take(&f->h, 0, &head, &length));
    assert_int_equal(length, 10);
    return guest_get16(&f->h, ANSWER);
}

static unsigned state_of(struct fixture *f, uint64_t address, uint16_t count)
{
    assert_int_equal(ask(f, STATE, address, count), ACK);
    return guest_get16(&f->h, ANSWER + 8);
}

/* 4 KiB pages of a block that are in RAM. */
static unsigned resident(struct fixture *f, unsigned block)
{
    unsigned char pages[BLOCK / 4096];
    unsigned count = 0;

    assert_int_equal(
        mincore(guest_memory_map(f->h.memory, START + block * BLOCK, BLOCK), BLOCK, pages), 0);
    for (unsigned i = 0; i < sizeof(pages); i++)
        count += pages[i] & 1;
    return count;
}

static void the_region_is_told(void **state)
{
    struct fixture *f = *state;
    struct harness *h = &f->h;

    assert_int_equal(config_get(h, 2, 2), 0x1040 + 24);
    assert_int_equal(device_config_get(h, 0, 8), BLOCK);
    assert_int_equal(device_config_get(h, 16, 8), START);
    assert_int_equal(device_config_get(h, 24, 8), HARNESS_HOTPLUG);
    assert_int_equal(device_config_get(h, 32, 8), HARNESS_HOTPLUG);
    assert_int_equal(device_config_get(h, 40, 8), 0);
    assert_int_equal(device_config_get(h, 48, 8), 4 * BLOCK);
    assert_int_equal(f->stats.requested_bytes, 4 * BLOCK);
}

static void a_driver_gets_what_is_asked_for_it(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(state_of(f, START, BLOCKS), UNPLUGGED);
    assert_int_equal(ask(f, PLUG, START + BLOCK, 3), ACK);
    assert_int_equal(state_of(f, START + BLOCK, 3), PLUGGED);
    assert_int_equal(state_of(f, START, 2), MIXED);
    assert_int_equal(device_config_get(&f->h, 40, 8), 3 * BLOCK);
    assert_int_equal(f->stats.plugged_bytes, 3 * BLOCK);
    assert_int_equal(ask(f, PLUG, START + 4 * BLOCK, 2), NACK); /* five are too many */
    assert_int_equal(ask(f, PLUG, START, 2), ERROR);            /* one is there */
    assert_int_equal(ask(f, PLUG, START, 1), ACK);
    assert_int_equal(ask(f, PLUG, START + 7 * BLOCK, 1), NACK);
    assert_int_equal(f->stats.plugged_bytes, 4 * BLOCK);
    assert_true(interrupts_take(&f->h) & 2);
}

static void what_is_unplugged_is_the_hosts(void **state)
{
    struct fixture *f = *state;
    uint8_t *host = guest_memory_map(f->h.memory, START, 4 * BLOCK);

    assert_int_equal(ask(f, PLUG, START, 4), ACK);
    memset(host, 'x', 4 * BLOCK);
    assert_int_equal(ask(f, UNPLUG, START + 3 * BLOCK, 2), ERROR); /* one is not there */
    assert_int_equal(resident(f, 3), BLOCK / 4096);
    assert_int_equal(ask(f, UNPLUG, START + BLOCK, 2), ACK);
    assert_int_equal(resident(f, 0), BLOCK / 4096);
    assert_int_equal(resident(f, 1) + resident(f, 2), 0);
    assert_int_equal(host[BLOCK] | host[3 * BLOCK - 1], 0);
    assert_int_equal(host[BLOCK - 1], 'x');
    assert_int_equal(host[3 * BLOCK], 'x');
    assert_int_equal(f->stats.plugged_bytes, 2 * BLOCK);
    memset(host + BLOCK, 'y', BLOCK); /* not plugged, but used */
    assert_int_equal(ask(f, UNPLUG_ALL, UINT64_MAX, 0), ACK);
    assert_int_equal(resident(f, 0) + resident(f, 1) + resident(f, 3), 0);
    assert_int_equal(f->stats.plugged_bytes, 0);
    assert_int_equal(state_of(f, START, BLOCKS), UNPLUGGED);
}

static void ranges_are_checked(void **state)
{
    static const struct {
        uint64_t address;
        uint16_t count;
    } bad[] = {
        { START, 0 },
        { START - BLOCK, 1 },
        { START - BLOCK, 2 },
        { START + 1, 1 },
        { START + BLOCK / 2, 1 },
        { START, BLOCKS + 1 },
        { START, 65535 },
        { START + (BLOCKS - 1) * BLOCK, 2 },
        { START + BLOCKS * BLOCK, 1 },
        { 0, 1 },
        { DATA_BASE, 1 },
        { UINT64_MAX, 1 },
        { UINT64_MAX - BLOCK + 1, 2 },
        { START | 1ull << 63, 1 },
    };
    struct fixture *f = *state;

    assert_int_equal(ask(f, PLUG, START, 4), ACK);
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++)
        for (uint16_t type = 0; type < 6; type++)
            if (type != UNPLUG_ALL && ask(f, type, bad[i].address, bad[i].count) != ERROR)
                fail_msg("case %zu, type %u", i, type);
    assert_int_equal(ask(f, 4, START, 1), ERROR);
    assert_int_equal(ask(f, 65535, START, 1), ERROR);
    assert_int_equal(state_of(f, START, 4), PLUGGED);
    assert_int_equal(f->stats.plugged_bytes, 4 * BLOCK);
}

static void short_chains_stop_the_device(void **state)
{
    static const struct ring_buffer bad[][2] = {
        { { DATA_BASE, 23, 0 }, { ANSWER, 10, RING_WRITE } },
        { { DATA_BASE, 24, 0 }, { ANSWER, 9, RING_WRITE } },
        { { DATA_BASE, 24, RING_WRITE }, { ANSWER, 10, RING_WRITE } },
        { { DATA_BASE, 24, 0 }, { ANSWER, 10, 0 } },
    };
    struct fixture *f = *state;
    const struct request request = { .type = PLUG, .address = START, .count = 1 };

    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        driver_start(&f->h, 0, 8);
        guest_put(&f->h, DATA_BASE, &request, sizeof(request));
        ring_offer(&f->h, 0, bad[i], 2);
        ring_kick(&f->h, 0);
        assert_needs_reset(&f->h);
        assert_int_equal(f->stats.plugged_bytes, 0);
    }
    driver_start(&f->h, 0, 8);
    assert_int_equal(ask(f, PLUG, START, 1), ACK);
}

static void another_size_is_told(void **state)
{
    struct fixture *f = *state;

    (void)interrupts_take(&f->h);
    virtio_mem_change(f->mem, 4 * BLOCK); /* the same */
    assert_int_equal(interrupts_take(&f->h), 0);
    virtio_mem_change(f->mem, 6 * BLOCK);
    assert_int_equal(interrupts_take(&f->h), 1);
    assert_int_equal(device_config_get(&f->h, 48, 8), 6 * BLOCK);
    assert_int_equal(ask(f, PLUG, START + 2 * BLOCK, 6), ACK);
    virtio_mem_change(f->mem, BLOCK); /* nothing is taken: the driver gives */
    assert_int_equal(f->stats.plugged_bytes, 6 * BLOCK);
    assert_int_equal(f->stats.requested_bytes, BLOCK);
    assert_int_equal(ask(f, PLUG, START, 1), NACK);
    assert_int_equal(ask(f, UNPLUG, START + 3 * BLOCK, 5), ACK);
    assert_int_equal(f->stats.plugged_bytes, BLOCK);
}

/* 5.15.5.2 */
static void a_reset_unplugs_nothing(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(ask(f, PLUG, START, 2), ACK);
    status_put(&f->h, 0);
    driver_start(&f->h, 0, 8);
    assert_int_equal(device_config_get(&f->h, 40, 8), 2 * BLOCK);
    assert_int_equal(state_of(f, START, 2), PLUGGED);
}

static void what_is_plugged_is_in_a_snapshot(void **state)
{
    struct fixture *f = *state, g = { 0 };
    struct error err = { 0 };
    struct transfer out = { .err = &err }, in;

    assert_int_equal(ask(f, PLUG, START + BLOCK, 1), ACK);
    assert_int_equal(ask(f, PLUG, START + 6 * BLOCK, 2), ACK);
    pci_root_transfer(f->h.root, &out);
    assert_int_equal(out.result, 0);
    harness_open(&g.h);
    add(&g, 2 * BLOCK);
    assert_true(guest_memory_write(g.h.memory, 0, guest_memory_map(f->h.memory, 0, HARNESS_MEMORY),
                                   HARNESS_MEMORY));
    in = (struct transfer){ .loading = true, .bytes = out.bytes, .size = out.size, .err = &err };
    pci_root_transfer(g.h.root, &in);
    assert_int_equal(in.result, 0);
    g.h.rings[0] = f->h.rings[0];
    assert_int_equal(g.stats.plugged_bytes, 3 * BLOCK);
    assert_int_equal(state_of(&g, START + 6 * BLOCK, 2), PLUGGED);
    assert_int_equal(state_of(&g, START + 2 * BLOCK, 4), UNPLUGGED);
    /* Its driver was told of four, and knows nothing of what is asked for here. */
    assert_int_equal(interrupts_take(&g.h) & 1, 1);
    assert_int_equal(device_config_get(&g.h, 48, 8), 2 * BLOCK);
    virtio_mem_change(g.mem, 2 * BLOCK);
    assert_int_equal(interrupts_take(&g.h) & 1, 0);
    harness_close(&g.h);
    /* A block that is neither: refused. */
    for (size_t i = 0; i + 8 <= out.size; i++)
        if (memcmp(out.bytes + i, "\0\1\0\0\0\0\1\1", 8) == 0)
            out.bytes[i + 3] = 2;
    harness_open(&g.h);
    add(&g, 4 * BLOCK);
    in = (struct transfer){ .loading = true, .bytes = out.bytes, .size = out.size, .err = &err };
    pci_root_transfer(g.h.root, &in);
    assert_int_equal(in.result, -EINVAL);
    harness_close(&g.h);
    free(out.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, harness_tear_down)
        TEST(the_region_is_told),
        TEST(a_driver_gets_what_is_asked_for_it),
        TEST(what_is_unplugged_is_the_hosts),
        TEST(ranges_are_checked),
        TEST(short_chains_stop_the_device),
        TEST(another_size_is_told),
        TEST(a_reset_unplugs_nothing),
        TEST(what_is_plugged_is_in_a_snapshot),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
