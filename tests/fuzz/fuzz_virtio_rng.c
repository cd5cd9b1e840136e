/* fuzz_virtio_rng.c - the entropy device under a hostile driver (fuzz_machine.h). */
#include "tests/fuzz/fuzz_machine.h"
#include "vmm/virtio_rng.h"

static void rng_step(struct fuzz_machine *m)
{
    uint8_t how = (uint8_t)fuzz_take(&m->input, 1);
    struct ring_buffer buffer = { .flags = how & 1 ? 0 : RING_WRITE };

    buffer.address = fuzz_address(m);
    buffer.length = fuzz_length(m);
    ring_offer(&m->h, 0, &buffer, 1);
    if (how & 2)
        ring_notify(&m->h, 0);
    fuzz_turns(m);
}

static void rng_probe(struct fuzz_machine *m)
{
    const struct ring_buffer buffer = { DATA_BASE, 32, RING_WRITE };
    uint32_t head, used;

    ring_offer(&m->h, 0, &buffer, 1);
    ring_kick(&m->h, 0);
    FUZZ_REQUIRE(ring_take(&m->h, 0, &head, &used));
    FUZZ_REQUIRE(used == 32);
}

FUZZ_TARGET(virtio_rng)
{
    struct fuzz_machine m = { .step = rng_step, .probe = rng_probe };
    uint64_t served = 0;

    harness_open_on(&m.h, -1, -1);
    FUZZ_REQUIRE(virtio_rng_add(m.h.root, &served, &m.h.err) == 0);
    fuzz_run(&m, bytes, size);
    harness_close(&m.h);
    return 0;
}
