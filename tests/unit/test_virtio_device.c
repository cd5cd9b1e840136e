/* test_virtio_device.c - what is the same for every device: that a queue is served a bounded time.
 */
#include "tests/unit/virtio_harness.h"

static unsigned toggle_calls;
static struct virtio_device *toggle_device;

/* As if each chain were gone again when it is looked at, and there when kicks are enabled. */
static int toggle_serve(void *owner, unsigned queue)
{
    (void)owner;
    (void)queue;
    toggle_calls++;
    return 0;
}

static void toggle_process(void *owner, unsigned queue)
{
    (void)owner;
    virtio_device_serve(toggle_device, queue, toggle_serve, 8);
}

static void toggle_free(void *owner)
{
    (void)owner;
}

static void a_driver_that_toggles_its_index_is_served_a_bounded_time(void **state)
{
    static const struct virtio_device_ops ops = {
        .name = "toggle",
        .device_id = 4,
        .pci_class = 0x00ff00,
        .queue_count = 1,
        .queue_size = 16,
        .process_queue = toggle_process,
        .free = toggle_free,
    };
    struct harness harness, *h = &harness;
    unsigned before;

    (void)state;
    harness_open(h);
    assert_int_equal(virtio_pci_add(h->root, PCI_SLOT_ANY, &ops, NULL, &toggle_device, &h->err), 0);
    driver_start(h, 0, 16);
    guest_put16(h, ring_avail(0) + 2, 1);
    ring_kick(h, 0);
    before = toggle_calls;
    assert_int_equal(loop_turn(h->loop, 0, &h->err), 0);
    assert_in_range(toggle_calls - before, 1, 64);
    before = toggle_calls;
    assert_int_equal(loop_turn(h->loop, 0, &h->err), 0); /* and looked at again */
    assert_true(toggle_calls > before);
    assert_int_equal(status_get(h), 15);
    harness_close(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_driver_that_toggles_its_index_is_served_a_bounded_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
