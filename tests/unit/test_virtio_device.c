/* test_virtio_device.c - what is the same for every device: that a queue is served a bounded time,
 * and that no interrupt is lost in a snapshot, nor a change while a driver starts. */
#include "tests/unit/virtio_harness.h"
#include <sys/eventfd.h>
#include "vmm/transfer.h"

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

static void ignore_queue(void *owner, unsigned queue)
{
    (void)owner;
    (void)queue;
}

static const struct virtio_device_ops quiet_ops = {
    .name = "quiet",
    .device_id = 4,
    .pci_class = 0x00ff00,
    .queue_count = 3,
    .queue_size = 16,
    .process_queue = ignore_queue,
    .free = toggle_free,
};

static struct virtio_device *quiet_open(struct harness *h)
{
    struct virtio_device *device;

    harness_open(h);
    assert_int_equal(virtio_pci_add(h->root, PCI_SLOT_ANY, &quiet_ops, NULL, &device, &h->err), 0);
    return device;
}

static int answer(void *owner, unsigned queue, const struct virtqueue_chain *chain)
{
    (void)owner;
    (void)queue;
    (void)chain;
    return 0;
}

/* Or the loop would never sleep. */
static void a_served_queue_asks_for_kicks_again(void **state)
{
    static const struct virtio_device_ops ops = {
        .name = "answer",
        .device_id = 4,
        .pci_class = 0x00ff00,
        .queue_count = 1,
        .queue_size = 16,
        .serve = answer,
        .free = toggle_free,
    };
    static const uint64_t features[] = { 0, VIRTIO_FEATURE_EVENT_INDEX };
    const struct ring_buffer buffer = { DATA_BASE, 16, RING_WRITE };
    struct harness harness, *h = &harness;
    struct virtio_device *device;
    uint32_t head, length;

    (void)state;
    harness_open(h);
    assert_int_equal(virtio_pci_add(h->root, PCI_SLOT_ANY, &ops, NULL, &device, &h->err), 0);
    for (unsigned i = 0; i < 2; i++) {
        driver_start(h, features[i], 16);
        for (unsigned j = 0; j < 3; j++)
            ring_offer(h, 0, &buffer, 1);
        ring_kick(h, 0);
        for (unsigned j = 0; j < 3; j++)
            assert_true(ring_take(h, 0, &head, &length));
        assert_int_equal(guest_get16(h, ring_used(0)), 0); /* not NO_NOTIFY */
        assert_int_equal(guest_get16(h, ring_used(0) + 4 + 8 * 16), i == 0 ? 0 : 3);
    }
    harness_close(h);
}

/* KVM has an eventfd there, and so no place for another. */
static bool kicks_without_exit(const struct harness *h, uint64_t address)
{
    struct kvm_ioeventfd request = { .addr = address, .fd = eventfd(0, EFD_CLOEXEC) };
    int result = ioctl(h->vm_fd, KVM_IOEVENTFD, &request), code = errno;

    if (result == 0) {
        request.flags = KVM_IOEVENTFD_FLAG_DEASSIGN;
        assert_int_equal(ioctl(h->vm_fd, KVM_IOEVENTFD, &request), 0);
    }
    close(request.fd);
    return result < 0 && code == EEXIST;
}

/* Nor is one left where another device's registers may come to be. */
static void kicks_cost_no_exit_wherever_the_bar_is(void **state)
{
    const uint64_t places[] = { PLATFORM_PCI32_START + 0x1000000, PLATFORM_PCI32_START + 0x2000000,
                                0 };
    struct harness harness, *h = &harness;
    uint64_t before = 0;

    (void)state;
    (void)quiet_open(h);
    for (size_t i = 0; h->vm_fd >= 0 && i < 3; i++) {
        uint64_t bar = bar_address(h, 0) + VIRTIO_PCI_NOTIFY_OFFSET;

        driver_attach(h);
        for (unsigned queue = 0; queue < quiet_ops.queue_count; queue++) {
            assert_true(kicks_without_exit(h, bar + queue * VIRTIO_PCI_NOTIFY_STRIDE));
            assert_false(kicks_without_exit(h, before + queue * VIRTIO_PCI_NOTIFY_STRIDE));
        }
        before = bar;
        config_put(h, 0x04, 2, 0);
        config_put(h, 0x10, 4, (uint32_t)places[i]);
    }
    pci_root_remove(h->root, h->slot);
    if (h->vm_fd >= 0)
        assert_false(kicks_without_exit(h, before));
    harness_close(h);
}

/* 4.1.5.1.2: none until the driver gives one, and none again after a reset. */
static void a_reset_takes_the_vectors_away(void **state)
{
    struct harness harness, *h = &harness;

    (void)state;
    (void)quiet_open(h);
    driver_attach(h);
    for (unsigned started = 0; started < 2; started++) {
        assert_int_equal(reg_get(h, REG_CONFIG_VECTOR, 2), 0xffff);
        for (unsigned queue = 0; queue < quiet_ops.queue_count; queue++) {
            reg_put(h, REG_QUEUE_SELECT, 2, queue);
            assert_int_equal(reg_get(h, REG_QUEUE_VECTOR, 2), 0xffff);
        }
        driver_start(h, 0, 16);
        assert_int_equal(reg_get(h, REG_QUEUE_VECTOR, 2), quiet_ops.queue_count);
        status_put(h, 0);
    }
    harness_close(h);
}

static void what_a_driver_accepts_last_counts(void **state)
{
    const uint64_t features = VIRTIO_FEATURE_VERSION_1 | VIRTIO_FEATURE_EVENT_INDEX;
    struct harness harness, *h = &harness;
    struct virtio_device *device;

    (void)state;
    device = quiet_open(h);
    driver_attach(h);
    status_put(h, 3);
    features_accept(h, features | VIRTIO_FEATURE_INDIRECT | VIRTIO_FEATURE_RING_RESET);
    features_accept(h, features);
    status_put(h, 11);
    assert_true(virtio_device_features(device) == features);
    harness_close(h);
}

/* --- snapshots --- */

#define OF_QUEUES (1u << 1 | 1u << 3) /* the pending bits of those that are enabled */
#define OF_CONFIG 1u

/* All three queues but the second, each of a driver that wants no interrupt. */
static void quiet_start(struct harness *h)
{
    driver_start(h, VIRTIO_FEATURE_RING_RESET, 16);
    reg_put(h, REG_QUEUE_SELECT, 2, 1);
    reg_put(h, REG_QUEUE_RESET, 2, 1);
    guest_put16(h, ring_avail(0), 1);
    guest_put16(h, ring_avail(2), 1);
    (void)interrupts_take(h);
}

static struct transfer quiet_save(struct harness *h)
{
    struct transfer transfer = { .err = &h->err };

    pci_root_transfer(h->root, &transfer);
    assert_true(transfer_is_good(&transfer));
    return transfer;
}

static void quiet_load(struct harness *h, struct transfer *transfer)
{
    transfer->loading = true;
    transfer->at = 0;
    pci_root_transfer(h->root, transfer);
    assert_true(transfer_is_good(transfer));
}

/* What was on its way to an APIC when that was saved is there in neither machine. */
static void each_queue_is_heard_of_again_after_a_snapshot(void **state)
{
    struct harness from, to;
    struct transfer transfer;

    (void)state;
    quiet_open(&from);
    quiet_start(&from);
    transfer = quiet_save(&from);
    assert_int_equal(interrupts_take(&from), 0); /* not while it is held */
    harness_run(&from);
    assert_int_equal(interrupts_take(&from), OF_QUEUES);
    harness_run(&from);
    ring_kick(&from, 0);
    assert_int_equal(interrupts_take(&from), 0); /* once */

    quiet_open(&to);
    quiet_load(&to, &transfer);
    assert_int_equal(interrupts_take(&to), 0); /* its APICs come after it */
    harness_run(&to);
    assert_int_equal(interrupts_take(&to), OF_QUEUES | OF_CONFIG);
    harness_run(&to);
    ring_kick(&to, 0);
    assert_int_equal(interrupts_take(&to), 0);
    free(transfer.bytes);
    harness_close(&from);
    harness_close(&to);
}

/* Held again before it could say what it had to. */
static void a_snapshot_of_one_just_restored_costs_it_nothing(void **state)
{
    struct harness from, to;
    struct transfer transfer, again;

    (void)state;
    quiet_open(&from);
    quiet_start(&from);
    transfer = quiet_save(&from);
    quiet_open(&to);
    quiet_load(&to, &transfer);
    again = quiet_save(&to);
    harness_run(&to);
    assert_int_equal(interrupts_take(&to), OF_QUEUES | OF_CONFIG);
    free(transfer.bytes);
    free(again.bytes);
    harness_close(&from);
    harness_close(&to);
}

/* It waits for nothing but that it is told to reset the device. */
static void a_fault_is_heard_of_again_after_a_snapshot(void **state)
{
    struct virtio_device *device;
    struct harness from, to;
    struct transfer transfer;

    (void)state;
    device = quiet_open(&from);
    quiet_start(&from);
    virtio_device_fault(device);
    (void)interrupts_take(&from);
    transfer = quiet_save(&from);
    quiet_open(&to);
    quiet_load(&to, &transfer);
    harness_run(&to);
    assert_needs_reset(&to);
    assert_int_equal(interrupts_take(&to) & OF_CONFIG, OF_CONFIG);
    free(transfer.bytes);
    harness_close(&from);
    harness_close(&to);
}

/* There is no driver to tell. */
static void a_device_without_a_driver_is_silent_after_a_snapshot(void **state)
{
    struct harness from, to;
    struct transfer transfer;

    (void)state;
    quiet_open(&from);
    driver_attach(&from);
    transfer = quiet_save(&from);
    quiet_open(&to);
    quiet_load(&to, &transfer);
    harness_run(&to);
    assert_int_equal(interrupts_take(&to), 0);
    free(transfer.bytes);
    harness_close(&from);
    harness_close(&to);
}

/* 4.1.4.3.1: what a driver reads next may be another machine's, and it does not wait for the loop;
 * nor is one told that is only just reading. */
static void a_configuration_read_across_a_snapshot_is_read_again(void **state)
{
    struct harness from, to;
    struct transfer transfer;
    uint64_t before;

    (void)state;
    quiet_open(&from);
    for (unsigned started = 0; started < 2; started++) {
        if (started)
            quiet_start(&from);
        else
            driver_attach(&from);
        before = reg_get(&from, REG_GENERATION, 1);
        transfer = quiet_save(&from);
        assert_int_equal(reg_get(&from, REG_GENERATION, 1), before); /* it has what it had */
        quiet_open(&to);
        quiet_load(&to, &transfer);
        assert_int_not_equal(reg_get(&to, REG_GENERATION, 1), before);
        harness_run(&to);
        assert_int_not_equal(reg_get(&to, REG_GENERATION, 1), before);
        free(transfer.bytes);
        harness_close(&to);
    }
    harness_close(&from);
}

/* DRIVER_OK without FEATURES_OK: no guest can have brought it there. */
static void a_state_that_no_driver_reaches_is_refused(void **state)
{
    struct virtio_device *device;
    struct harness from, to;
    struct transfer one, other;
    size_t at = 0;

    (void)state;
    device = quiet_open(&from);
    quiet_start(&from);
    one = quiet_save(&from);
    device->status ^= VIRTIO_STATUS_FAILED; /* to find where it stands */
    other = quiet_save(&from);
    while (one.bytes[at] == other.bytes[at])
        at++;
    one.bytes[at] &= (uint8_t)~VIRTIO_STATUS_FEATURES_OK;
    quiet_open(&to);
    one.loading = true;
    one.err = &to.err;
    pci_root_transfer(to.root, &one);
    assert_int_equal(one.result, -EINVAL);
    free(one.bytes);
    free(other.bytes);
    harness_close(&from);
    harness_close(&to);
}

/* --- changes of the configuration --- */

/* Linux reads a disk's capacity before it sets DRIVER_OK, and not again until it is told. */
static void what_changes_while_a_driver_starts_is_told_when_it_has(void **state)
{
    struct virtio_device *device;
    struct harness harness, *h = &harness;

    (void)state;
    device = quiet_open(h);
    driver_attach(h);
    assert_true(driver_negotiate(h, VIRTIO_FEATURE_VERSION_1));
    reg_put(h, REG_CONFIG_VECTOR, 2, 0);
    for (unsigned i = 0; i < quiet_ops.queue_count; i++)
        driver_set_ring(h, i, 16);
    virtio_device_config_changed(device);
    harness_run(h);
    assert_int_equal(interrupts_take(h), 0);
    status_put(h, 15);
    harness_run(h);
    assert_int_equal(interrupts_take(h), OF_CONFIG);
    ring_kick(h, 0);
    assert_int_equal(interrupts_take(h), 0); /* once */
    harness_close(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_driver_that_toggles_its_index_is_served_a_bounded_time),
        cmocka_unit_test(a_served_queue_asks_for_kicks_again),
        cmocka_unit_test(kicks_cost_no_exit_wherever_the_bar_is),
        cmocka_unit_test(a_reset_takes_the_vectors_away),
        cmocka_unit_test(what_a_driver_accepts_last_counts),
        cmocka_unit_test(each_queue_is_heard_of_again_after_a_snapshot),
        cmocka_unit_test(a_snapshot_of_one_just_restored_costs_it_nothing),
        cmocka_unit_test(a_fault_is_heard_of_again_after_a_snapshot),
        cmocka_unit_test(a_device_without_a_driver_is_silent_after_a_snapshot),
        cmocka_unit_test(a_configuration_read_across_a_snapshot_is_read_again),
        cmocka_unit_test(a_state_that_no_driver_reaches_is_refused),
        cmocka_unit_test(what_changes_while_a_driver_starts_is_told_when_it_has),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
