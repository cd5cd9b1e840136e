/* test_devices.c - disks and nics that come and go: what the guest reads of it, what it can do, and
 * what is left. */
#include "tests/unit/devices_harness.h"
#include "tests/unit/block_driver.h"
#include <pthread.h>
#include "tests/unit/passing_time.h"
#include "tests/unit/ring_harness.h"
#include "tests/unit/tap_harness.h"
#include "vmm/serial.h"
#include "vmm/transfer.h"

#define BLOCK_ID 0x10421af4u

static int set_up(void **state)
{
    *state = devices_harness_new(/* with_kvm= */ true);
    return 0;
}

static int tear_down(void **state)
{
    devices_harness_free(*state);
    return 0;
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

/* One sector, by a driver of the guest. */
static void write_a_sector(struct devices_harness *f)
{
    uint32_t head, length;

    driver_start(&f->h, 1ull << 9, 8);
    guest_put(&f->h, DATA_BASE + 0x1000, "plugged", 8);
    block_offer(&f->h, 0, DATA_BASE, OUT, 5, DATA_BASE + 0x1000, 512);
    ring_kick(&f->h, 0);
    assert_true(ring_take(&f->h, 0, &head, &length));
    assert_int_equal(guest_get8(&f->h, DATA_BASE + BLOCK_STATUS), OK);
}

static void an_attached_disk_is_told_and_works(void **state)
{
    struct devices_harness *f = *state;
    char text[8] = "";
    uint64_t pulses = 0;
    int fd;

    assert_int_equal(config_get(&f->h, 0, 4), 0xffffffff);
    fd = attach(f);
    assert_true(fd >= 0);
    assert_int_equal(f->machine.holds, 1);
    assert_int_equal(f->machine.releases, 1);
    assert_int_equal(config_get(&f->h, 0, 4), BLOCK_ID);
    assert_int_equal(read(f->ged, &pulses, sizeof pulses), sizeof pulses);
    assert_int_equal(port_get(f, PLATFORM_PORT_GED), GED_EVENT_PCI_HOTPLUG);
    assert_int_equal(port_get(f, PLATFORM_PORT_HOTPLUG_FILLED), 1u << DISK_SLOT);
    assert_int_equal(port_get(f, PLATFORM_PORT_HOTPLUG_FILLED), 0);
    assert_int_equal(port_get(f, PLATFORM_PORT_HOTPLUG_EMPTY), 0);
    write_a_sector(f);
    assert_int_equal(pread(fd, text, sizeof text, 5 * 512), sizeof text);
    assert_string_equal(text, "plugged");
    assert_int_equal(f->page.disks[3].write_ops, 1);
}

static unsigned pulses_after(struct devices_harness *f, time_t seconds)
{
    uint64_t pulses = 0;

    passed_s += seconds;
    assert_true(loop_turn(f->h.loop, 0, NULL) >= 0);
    return read(f->ged, &pulses, sizeof pulses) < 0 ? 0 : (unsigned)pulses;
}

/* It boots: its interrupt controller has forgotten the first one. */
static void what_the_guest_has_not_read_is_told_again(void **state)
{
    struct devices_harness *f = *state;

    assert_true(attach(f) >= 0);
    assert_int_equal(pulses_after(f, 0), 1);
    assert_int_equal(pulses_after(f, 0), 0);
    assert_int_equal(pulses_after(f, 2), 1);
    assert_int_equal(pulses_after(f, 2), 1);
    assert_int_equal(port_get(f, PLATFORM_PORT_GED), GED_EVENT_PCI_HOTPLUG);
    assert_int_equal(pulses_after(f, 2), 0);
    assert_int_equal(pulses_after(f, 2), 0);
    /* A guest that never reads it is not told for ever. */
    power_notify(f->power, GED_EVENT_POWER_BUTTON);
    assert_int_equal(pulses_after(f, 0), 1);
    for (int i = 0; i < 600; i++)
        assert_int_equal(pulses_after(f, 2), 1);
    assert_int_equal(pulses_after(f, 2), 0);
    power_notify(f->power, GED_EVENT_POWER_BUTTON);
    assert_int_equal(pulses_after(f, 0), 1);
    assert_int_equal(pulses_after(f, 2), 1);
}

static void a_place_is_taken_once(void **state)
{
    struct devices_harness *f = *state;

    assert_true(attach(f) >= 0);
    assert_int_equal(attach(f), -EEXIST);
    assert_int_equal(f->machine.holds, 1);
}

static void what_cannot_be_leaves_the_place_free(void **state)
{
    struct devices_harness *f = *state;
    struct vmm_attach wrong = a_disk;
    int fd = file_new();

    wrong.disk.size_bytes = 100;
    assert_int_equal(devices_attach(&f->devices, &wrong, &fd, &f->h.err), -EINVAL);
    assert_true(is_open(fd)); /* the caller's still */
    assert_int_equal(f->machine.holds, f->machine.releases);
    assert_int_equal(port_get(f, PLATFORM_PORT_HOTPLUG_FILLED), 0);
    assert_int_equal(config_get(&f->h, 0, 4), 0xffffffff);
    assert_int_equal(devices_attach(&f->devices, &a_disk, &fd, &f->h.err), 0);
}

static void a_guest_lets_go_what_it_was_asked_for(void **state)
{
    struct devices_harness *f = *state;
    int fd = attach(f);

    write_a_sector(f);
    assert_int_equal(devices_detach(&f->devices, VMM_DEVICE_DISK, 3, true, NULL), 0);
    assert_int_equal(port_get(f, PLATFORM_PORT_HOTPLUG_EMPTY), 1u << DISK_SLOT);
    assert_int_equal(f->control.gone, 0);
    assert_true(is_open(fd));
    eject(f, 1u << DISK_SLOT); /* without a reset of the device, as a driver would begin with */
    assert_int_equal(f->control.gone, 1);
    assert_int_equal(f->control.gone_kind, VMM_DEVICE_DISK);
    assert_int_equal(f->control.gone_place, 3);
    assert_false(is_open(fd));
    assert_int_equal(f->machine.holds, 2);
    assert_int_equal(f->machine.releases, 2);
    assert_int_equal(config_get(&f->h, 0, 4), 0xffffffff);
    assert_int_equal(devices_detach(&f->devices, VMM_DEVICE_DISK, 3, true, NULL), -ENOENT);
}

static void nothing_goes_unasked(void **state)
{
    struct devices_harness *f = *state;

    assert_true(attach(f) >= 0);
    eject(f, UINT32_MAX);
    assert_int_equal(f->control.gone, 0);
    write_a_sector(f);
    assert_int_equal(devices_detach(&f->devices, VMM_DEVICE_DISK, 3, true, NULL), 0);
    eject(f, ~(1u << DISK_SLOT));
    assert_int_equal(f->control.gone, 0);
    for (unsigned port = PLATFORM_PORT_HOTPLUG;
         port < PLATFORM_PORT_HOTPLUG + PLATFORM_PORT_HOTPLUG_SIZE; port++)
        bus_write(&f->h.ports, port, (uint8_t[]){ 0 }, 1);
    harness_run(&f->h);
    eject(f, 1u << DISK_SLOT);
    eject(f, 1u << DISK_SLOT);
    assert_int_equal(f->control.gone, 1);
}

/* A guest need not answer; and what it was asked for is not what comes later to the same place. */
static void it_is_asked_again_and_only_for_this_one(void **state)
{
    struct devices_harness *f = *state;

    assert_true(attach(f) >= 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(devices_detach(&f->devices, VMM_DEVICE_DISK, 3, true, NULL), 0);
        assert_int_equal(port_get(f, PLATFORM_PORT_GED), GED_EVENT_PCI_HOTPLUG);
        assert_int_equal(port_get(f, PLATFORM_PORT_HOTPLUG_EMPTY), 1u << DISK_SLOT);
    }
    eject(f, 1u << DISK_SLOT);
    assert_int_equal(f->control.gone, 1);
    assert_true(attach(f) >= 0);
    eject(f, 1u << DISK_SLOT);
    assert_int_equal(f->control.gone, 1);
    assert_int_equal(devices_detach(&f->devices, VMM_DEVICE_DISK, 3, true, NULL), 0);
    eject(f, 1u << DISK_SLOT); /* of itself: it has not read yet that it was asked */
    assert_int_equal(f->control.gone, 2);
    assert_true(attach(f) >= 0);
    assert_int_equal(port_get(f, PLATFORM_PORT_HOTPLUG_EMPTY), 0);
}

/* Asked twice, and answering twice before any of it is looked at. */
static void an_answer_counts_once(void **state)
{
    struct devices_harness *f = *state;
    const uint32_t slots = 1u << DISK_SLOT;

    assert_true(attach(f) >= 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(devices_detach(&f->devices, VMM_DEVICE_DISK, 3, true, NULL), 0);
        bus_write(&f->h.ports, PLATFORM_PORT_HOTPLUG_EJECT, &slots, sizeof slots);
        assert_int_equal(loop_turn(f->h.loop, 0, NULL), 0);
        if (i == 0) { /* the same again, now that it is gone */
            assert_int_equal(f->control.gone, 1);
            assert_true(attach(f) >= 0);
        }
    }
    assert_int_equal(f->control.gone, 2);
    assert_true(attach(f) >= 0);
    assert_int_equal(devices_detach(&f->devices, VMM_DEVICE_DISK, 3, true, NULL), 0);
    bus_write(&f->h.ports, PLATFORM_PORT_HOTPLUG_EJECT, &slots, sizeof slots);
    assert_int_equal(devices_detach(&f->devices, VMM_DEVICE_DISK, 3, true, NULL), 0);
    bus_write(&f->h.ports, PLATFORM_PORT_HOTPLUG_EJECT, &slots, sizeof slots);
    harness_run(&f->h);
    assert_int_equal(f->control.gone, 3);
}

/* Interrupts, eventfds, loop sources and files of a device that goes are free for the next one. */
#define TURNS 1100 /* KVM takes 1,000 ioeventfds */

static void coming_and_going_leaves_nothing(void **state)
{
    struct devices_harness *f = *state;
    int before = dup(0);

    close(before);
    for (int i = 0; i < TURNS; i++) {
        assert_true(attach(f) >= 0);
        if (i % 500 == 0)
            write_a_sector(f);
        assert_int_equal(devices_detach(&f->devices, VMM_DEVICE_DISK, 3, true, NULL), 0);
        eject(f, 1u << DISK_SLOT);
    }
    assert_int_equal(f->control.gone, TURNS);
    assert_int_equal(dup(0), before);
    close(before);
}

static void requests_in_flight_end_with_the_device(void **state)
{
    struct devices_harness *f = *state;
    const struct ring_buffer nothing = { DATA_BASE, 16, 0 };

    assert_true(attach(f) >= 0);
    driver_start(&f->h, 0, 8);
    assert_int_equal(devices_detach(&f->devices, VMM_DEVICE_DISK, 3, true, NULL), 0);
    ring_offer(&f->h, 0, &nothing, 1);
    ring_notify(&f->h, 0); /* not yet seen */
    eject(f, 1u << DISK_SLOT);
    assert_int_equal(f->control.gone, 1);
}

static void *feed_later(void *fd)
{
    static const uint8_t bytes[1024] = { [0 ... 1023] = 0x5a };

    usleep(50000);
    assert_int_equal(write(*(int *)fd, bytes, sizeof bytes), sizeof bytes);
    return NULL;
}

/* Reads of a disk that gives nothing yet, by a ring: the device goes once they have ended. */
static void what_a_ring_has_in_flight_ends_first(void **state)
{
    static const uint8_t header[16] = { 0 };
    struct uring *ring = ring_new();
    struct devices_harness *f;
    pthread_t feeder;
    uint32_t head, length;
    int pipe_fds[2];

    (void)state;
    if (!ring)
        skip(); /* this host has no io_uring for us */
    /* Where a VMM inherits them, before there is anything else. */
    assert_int_equal(dup2(ring->fd, VMM_RING_FD(3)), VMM_RING_FD(3));
    assert_int_equal(dup2(ring->event_fd, VMM_RING_EVENT_FD(3)), VMM_RING_EVENT_FD(3));
    f = devices_harness_new(/* with_kvm= */ true);
    f->devices.inherited = (struct vmm_rings){ .count = 4, .layout = ring->layout };
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    assert_int_equal(devices_attach(&f->devices, &a_disk, pipe_fds, &f->h.err), 0);
    driver_start(&f->h, 0, 8);
    guest_put(&f->h, DATA_BASE, header, sizeof header);
    for (unsigned i = 0; i < 2; i++) {
        const struct ring_buffer buffers[] = { { DATA_BASE, sizeof header, 0 },
                                               { DATA_BASE + 0x1000 + i * 512, 512, RING_WRITE },
                                               { DATA_BASE + 0x800, 1, RING_WRITE } };

        ring_offer(&f->h, 0, buffers, 3);
    }
    ring_kick(&f->h, 0);
    assert_false(ring_take(&f->h, 0, &head, &length));
    assert_int_equal(devices_detach(&f->devices, VMM_DEVICE_DISK, 3, true, NULL), 0);
    assert_int_equal(pthread_create(&feeder, NULL, feed_later, &pipe_fds[1]), 0);
    eject(f, 1u << DISK_SLOT);
    assert_int_equal(f->control.gone, 1);
    assert_int_equal(guest_get8(&f->h, DATA_BASE + 0x1000), 0x5a);
    assert_int_equal(guest_get8(&f->h, DATA_BASE + 0x1000 + 1023), 0x5a);
    pthread_join(feeder, NULL);
    close(pipe_fds[1]);
    devices_harness_free(f);
    close(VMM_RING_FD(3));
    close(VMM_RING_EVENT_FD(3));
    ring_free(ring);
}

static void a_nic_comes_and_goes(void **state)
{
    struct devices_harness *f = *state;
    const struct vmm_attach nic = {
        .kind = VMM_DEVICE_NIC, .nic = { .mac = { 2, 0, 0, 0, 0, 9 }, .queues = 1, .place = 7 }
    };
    struct tap_harness tap;
    int fd;

    if (!tap_harness_enter())
        skip();
    assert_true(tap_harness_open(&tap));
    fd = tap.tap_fd;
    assert_int_equal(devices_attach(&f->devices, &nic, &fd, &f->h.err), 0);
    assert_int_equal(devices_attach(&f->devices, &nic, &fd, &f->h.err), -EEXIST);
    f->h.slot = VMM_SLOT_NICS + 7;
    assert_int_equal(port_get(f, PLATFORM_PORT_HOTPLUG_FILLED), 1u << f->h.slot);
    driver_start(&f->h, 1ull << 5, 8);
    assert_int_equal(device_config_get(&f->h, 5, 1), 9);
    assert_int_equal(devices_detach(&f->devices, VMM_DEVICE_NIC, 7, true, NULL), 0);
    eject(f, 1u << f->h.slot);
    assert_int_equal(f->control.gone_kind, VMM_DEVICE_NIC);
    assert_int_equal(f->control.gone_place, 7);
    assert_false(is_open(fd));
    close(tap.host_fd);
}

/* The guest may have missed an event; who asked is another agent's business. */
static void a_snapshot_keeps_what_is_to_be_told(void **state)
{
    struct devices_harness *f = *state;
    struct transfer transfer = { .err = &f->h.err };

    assert_true(attach(f) >= 0);
    assert_int_equal(devices_detach(&f->devices, VMM_DEVICE_DISK, 3, true, NULL), 0);
    devices_transfer(&f->devices, &transfer);
    assert_true(transfer_is_good(&transfer));
    assert_int_equal(port_get(f, PLATFORM_PORT_HOTPLUG_FILLED), 1u << DISK_SLOT);
    transfer.loading = true;
    transfer.at = 0;
    devices_transfer(&f->devices, &transfer);
    assert_true(transfer_is_good(&transfer));
    assert_int_equal(port_get(f, PLATFORM_PORT_HOTPLUG_FILLED), 1u << DISK_SLOT);
    free(transfer.bytes);
}

static void a_look_asks_nothing_of_the_guest(void **state)
{
    struct devices_harness *f = *state;

    assert_true(attach(f) >= 0);
    (void)port_get(f, PLATFORM_PORT_HOTPLUG_FILLED);
    assert_int_equal(devices_detach(&f->devices, VMM_DEVICE_DISK, 3, false, NULL), 0);
    assert_int_equal(port_get(f, PLATFORM_PORT_HOTPLUG_EMPTY), 0);
    eject(f, 1u << DISK_SLOT);
    assert_int_equal(f->control.gone, 0);
    assert_int_equal(devices_detach(&f->devices, VMM_DEVICE_DISK, 4, false, NULL), -ENOENT);
}

static void places_are_bounded(void **state)
{
    struct devices_harness *f = *state;

    assert_int_equal(devices_detach(&f->devices, VMM_DEVICE_DISK, 8, true, NULL), -ENOENT);
    assert_int_equal(devices_detach(&f->devices, VMM_DEVICE_NIC, 255, true, NULL), -ENOENT);
    assert_int_equal(devices_detach(&f->devices, VMM_DEVICE_NIC, 0, true, NULL), -ENOENT);
}

static void expect_apart(const struct bus *bus)
{
    assert_in_range(bus->count, 1, BUS_RANGES_MAX);
    for (size_t i = 0; i < bus->count; i++) {
        for (size_t j = 0; j < i; j++) {
            const struct bus_range *a = &bus->ranges[i], *b = &bus->ranges[j];

            assert_true(a->start + a->size <= b->start || b->start + b->size <= a->start);
        }
    }
}

/* bus_add takes them as they are. */
static void a_boards_ranges_do_not_overlap(void **state)
{
    struct devices_harness *f = *state;
    struct serial *serial;

    assert_int_equal(serial_new(&f->h.ports, f->ged, &f->page, &serial, NULL), 0);
    assert_int_equal(f->h.ports.count, 6);
    expect_apart(&f->h.ports);
    assert_int_equal(f->h.mmio.count, 2);
    expect_apart(&f->h.mmio);
    free(serial);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        cmocka_unit_test(what_a_ring_has_in_flight_ends_first),
        TEST(an_attached_disk_is_told_and_works),
        TEST(what_the_guest_has_not_read_is_told_again),
        TEST(a_place_is_taken_once),
        TEST(what_cannot_be_leaves_the_place_free),
        TEST(a_guest_lets_go_what_it_was_asked_for),
        TEST(nothing_goes_unasked),
        TEST(it_is_asked_again_and_only_for_this_one),
        TEST(an_answer_counts_once),
        TEST(coming_and_going_leaves_nothing),
        TEST(requests_in_flight_end_with_the_device),
        TEST(a_nic_comes_and_goes),
        TEST(a_snapshot_keeps_what_is_to_be_told),
        TEST(a_look_asks_nothing_of_the_guest),
        TEST(places_are_bounded),
        TEST(a_boards_ranges_do_not_overlap),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
