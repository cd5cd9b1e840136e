/* fuzz_virtio_mem.c - the memory device under a hostile driver (fuzz_machine.h). */
#define HARNESS_HOTPLUG (16ull << 20)
#include "tests/fuzz/fuzz_machine.h"
#include "vmm/control_protocol.h"
#include "vmm/stats_page.h"
#include "vmm/virtio_mem.h"

#define ANSWER (DATA_BASE + 0x1000)

struct request {
    uint16_t type, padding[3];
    uint64_t address;
    uint16_t count, padding2[3];
};

static void offer(struct fuzz_machine *m, const struct request *request, uint32_t length)
{
    const struct ring_buffer buffers[] = { { DATA_BASE, sizeof(*request), 0 },
                                           { ANSWER, length, RING_WRITE } };

    fuzz_put(m, DATA_BASE, request, sizeof(*request));
    ring_offer(&m->h, 0, buffers, 2);
    ring_notify(&m->h, 0);
    fuzz_turns(m);
}

/* Whatever is asked: the blocks that are there are counted, and never more than were asked for. */
static void mem_step(struct fuzz_machine *m)
{
    const struct stats_memory *stats = m->device;
    uint64_t before = stats->plugged_bytes;
    uint8_t how = (uint8_t)fuzz_take(&m->input, 1);
    struct request request = { .type = how & 7 };

    request.address = how & 8 ? fuzz_take(&m->input, 8)
                              : GUEST_HOLE_END + fuzz_take(&m->input, 1) * (VMM_MEMORY_BLOCK / 2);
    request.count = (uint16_t)fuzz_take(&m->input, how & 16 ? 2 : 1);
    offer(m, &request, how & 32 ? fuzz_length(m) : 10);
    FUZZ_REQUIRE(stats->plugged_bytes % VMM_MEMORY_BLOCK == 0);
    FUZZ_REQUIRE(stats->plugged_bytes <= before || stats->plugged_bytes <= stats->requested_bytes);
}

static void mem_probe(struct fuzz_machine *m)
{
    const struct stats_memory *stats = m->device;
    struct request request = { .type = 2 };
    uint32_t head, used;

    offer(m, &request, 10);
    FUZZ_REQUIRE(ring_take(&m->h, 0, &head, &used));
    FUZZ_REQUIRE(stats->plugged_bytes == 0);
    request = (struct request){ .address = GUEST_HOLE_END, .count = 1 };
    offer(m, &request, 10);
    FUZZ_REQUIRE(ring_take(&m->h, 0, &head, &used));
    FUZZ_REQUIRE(used == 10 && guest_get16(&m->h, ANSWER) == 0);
    FUZZ_REQUIRE(stats->plugged_bytes == VMM_MEMORY_BLOCK);
}

FUZZ_TARGET(virtio_mem)
{
    struct stats_memory stats = { 0 };
    struct fuzz_machine m = { .step = mem_step, .probe = mem_probe, .device = &stats };
    struct virtio_mem *mem;

    harness_open_on(&m.h, -1, -1);
    FUZZ_REQUIRE(virtio_mem_add(m.h.root, 4 * VMM_MEMORY_BLOCK, &stats, &mem, &m.h.err) == 0);
    fuzz_run(&m, bytes, size);
    harness_close(&m.h);
    return 0;
}
