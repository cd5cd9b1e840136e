/* rng_harness.h - a machine with the entropy device, for unit tests of what needs any device. */
#pragma once
#include "tests/unit/virtio_harness.h"
#include "vmm/virtio_rng.h"

struct fixture {
    struct harness h;
    uint64_t rng_bytes;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    harness_open(&f->h);
    assert_int_equal(virtio_rng_add(f->h.root, &f->rng_bytes, &f->h.err), 0);
    *state = f;
    return 0;
}
