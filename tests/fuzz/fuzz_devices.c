/* fuzz_devices.c - disks that come and go, and nics that cannot come, under a hostile driver
 * (fuzz_machine.h), which also has the hotplug registers; between its steps an agent attaches,
 * asks, and asks again. */
#include "tests/fuzz/fuzz_machine.h"
#include "tests/unit/devices_harness.h"

/* What is no tap, nor /dev/vhost-net, is none: the place stays free, the files the caller's. */
static void attach_no_nic(struct devices_harness *f, unsigned place, bool vhost)
{
    const struct vmm_attach nic = {
        .kind = VMM_DEVICE_NIC,
        .nic = { .queues = 1, .place = (uint8_t)(place % VMM_NICS_MAX), .vhost = vhost },
    };
    const int fds[2] = { file_new(), file_new() };

    FUZZ_REQUIRE(devices_attach(&f->devices, &nic, fds, NULL) < 0);
    FUZZ_REQUIRE(devices_detach(&f->devices, VMM_DEVICE_NIC, place, true, NULL) == -ENOENT);
    FUZZ_REQUIRE(close(fds[0]) == 0 && close(fds[1]) == 0);
}

static void agent_step(struct devices_harness *f, uint8_t how, unsigned place)
{
    struct vmm_attach disk = a_disk;
    int fd, result;

    if (how & 1) {
        (void)devices_detach(&f->devices, VMM_DEVICE_DISK, place, true, NULL);
        return;
    }
    if (how & 4) {
        attach_no_nic(f, place, how & 8);
        return;
    }
    disk.disk.place = (uint8_t)(place % VMM_DISKS_MAX);
    disk.disk.queues = how & 2 ? 4 : 1;
    fd = file_new();
    result = devices_attach(&f->devices, &disk, &fd, NULL);
    FUZZ_REQUIRE(result == 0 || result == -EEXIST);
    if (result < 0)
        close(fd);
}

static void devices_step(struct fuzz_machine *m)
{
    struct devices_harness *f = m->device;
    uint8_t how = (uint8_t)fuzz_take(&m->input, 1);
    unsigned which = (unsigned)fuzz_take(&m->input, 1);
    uint64_t value = 0;

    switch (how >> 5) {
    case 0:
    case 1:
        agent_step(f, how, which % 10);
        break;
    case 2:
        eject(f, 1u << which % 32);
        break;
    case 3:
        value = fuzz_take(&m->input, 8);
        bus_write(&m->h.ports, PLATFORM_PORT_HOTPLUG + which % 16, &value, 1 + how % 8);
        break;
    case 4:
        bus_read(&m->h.ports, PLATFORM_PORT_GED + which % 32, &value, 1 + how % 4);
        break;
    default:
        ring_notify(&m->h, 0);
    }
    fuzz_turns(m);
}

/* Whatever is there lets go, and comes again, and serves. */
static void devices_probe(struct devices_harness *f)
{
    int fd = file_new();

    (void)devices_detach(&f->devices, VMM_DEVICE_DISK, a_disk.disk.place, true, NULL);
    eject(f, 1u << DISK_SLOT);
    f->h.slot = DISK_SLOT;
    FUZZ_REQUIRE(config_get(&f->h, 0, 4) == UINT32_MAX);
    FUZZ_REQUIRE(devices_attach(&f->devices, &a_disk, &fd, NULL) == 0);
    FUZZ_REQUIRE(port_get(f, PLATFORM_PORT_HOTPLUG_FILLED) & 1u << DISK_SLOT);
    driver_start(&f->h, 0, 8);
    FUZZ_REQUIRE(device_config_get(&f->h, 0, 8) == DISK_BYTES / 512);
    FUZZ_REQUIRE(f->machine.holds == f->machine.releases);
}

FUZZ_TARGET(devices)
{
    struct devices_harness *f = devices_harness_new(/* with_kvm= */ false);
    struct fuzz_machine m = { .h = f->h, .step = devices_step, .device = f };

    FUZZ_REQUIRE(attach(f) >= 0);
    fuzz_begin(&m, bytes, size);
    fuzz_steps(&m);
    devices_probe(f);
    devices_harness_free(f);
    return 0;
}
