/* test_virtio_rng.c - the entropy device. */
#include "tests/unit/rng_harness.h"

static void entropy_is_capped_and_counted(void **state)
{
    struct fixture *f = *state;
    struct harness *h = &f->h;
    struct ring_buffer buffers[2] = { { DATA_BASE, 1000, RING_WRITE },
                                      { DATA_BASE + 0x1000, 0x100000, RING_WRITE } };
    uint32_t head, length;
    uint8_t bytes[1000], zeroes[1000] = { 0 };

    driver_start(h, VIRTIO_FEATURE_EVENT_INDEX, 8);
    ring_offer(h, 0, buffers, 2);
    ring_kick(h, 0);
    assert_true(ring_take(h, 0, &head, &length));
    assert_int_equal(length, VIRTIO_RNG_REQUEST_BYTES);
    assert_int_equal(f->rng_bytes, VIRTIO_RNG_REQUEST_BYTES);
    guest_get(h, DATA_BASE, bytes, sizeof(bytes));
    assert_memory_not_equal(bytes, zeroes, sizeof(bytes));
    guest_get(h, DATA_BASE + 0x1000 + VIRTIO_RNG_REQUEST_BYTES - 1000, bytes, sizeof(bytes));
    assert_memory_equal(bytes, zeroes, sizeof(bytes)); /* nothing behind the cap */
}

static void many_entropy_requests_take_several_turns(void **state)
{
    const struct ring_buffer buffer = { DATA_BASE, 8, RING_WRITE };
    struct harness *h = &((struct fixture *)*state)->h;
    uint32_t head, length, answered = 0;

    driver_start(h, 0, 64);
    for (unsigned i = 0; i < 64; i++)
        ring_offer(h, 0, &buffer, 1);
    ring_notify(h, 0);
    assert_int_equal(loop_turn(h->loop, 0, &h->err), 0);
    while (ring_take(h, 0, &head, &length))
        answered++;
    assert_in_range(answered, 1, 32);
    harness_run(h);
    while (ring_take(h, 0, &head, &length))
        answered++;
    assert_int_equal(answered, 64);
}

static void entropy_from_the_guest_is_refused(void **state)
{
    const struct ring_buffer buffer = { DATA_BASE, 8, 0 };
    struct harness *h = &((struct fixture *)*state)->h;

    driver_start(h, 0, 8);
    ring_offer(h, 0, &buffer, 1);
    ring_kick(h, 0);
    assert_needs_reset(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, harness_tear_down)
        TEST(entropy_is_capped_and_counted),
        TEST(many_entropy_requests_take_several_turns),
        TEST(entropy_from_the_guest_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
