/* fuzz_devices.c - disks that come and go under a hostile driver (fuzz_machine.h), which also has
 * the hotplug registers; between its steps an agent attaches, asks, and asks again. */
#include "tests/fuzz/fuzz_machine.h"
#include "tests/unit/devices_harness.h"

static void agent_step(struct devices_harness *f, uint8_t how, unsigned place)
{
    struct vmm_attach disk = a_disk;
    int fd, result;

    if (how & 1) {
        (void)devices_detach(&f->devices, VMM_DEVICE_DISK, place, true, NULL);
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
        bus_write(m->h.ports, PLATFORM_PORT_HOTPLUG + which % 16, &value, 1 + how % 8);
        break;
    case 4:
        bus_read(m->h.ports, PLATFORM_PORT_GED + which % 32, &value, 1 + how % 4);
        break;
    default:
        mmio_put(&m->h, bar_address(&m->h, 0) + VIRTIO_PCI_NOTIFY_OFFSET, 2, 0);
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
    FUZZ_REQUIRE(f->holds == f->releases);
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
