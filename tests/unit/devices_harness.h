/* devices_harness.h - the devices of a machine without vCPUs, over virtio_harness.h: a guest's
 * accesses to ports and memory, and an agent that attaches disks and asks for them. */
#pragma once
#include "tests/unit/virtio_harness.h"
#include <sys/eventfd.h>
#include <sys/mman.h>
#include "vmm/config.h"
#include "vmm/devices.h"
#include "vmm/exit_record.h"
#include "vmm/hotplug.h"
#include "vmm/power.h"

#define DISK_BYTES (1u << 20)
#define DISK_SLOT  (VMM_SLOT_DISKS + 3)

/* Who holds the vCPUs, and who tells the agent. */
struct machine {
    int holds, releases;
};
struct control {
    int gone_kind, gone_place, gone;
    struct vmm_vsock asked; /* by the guest */
};

struct devices_harness {
    struct harness h;
    struct stats_page page;
    struct exit_record record;
    struct power *power;
    struct devices devices;
    int ged; /* eventfd of the event device's pin */
    struct machine machine;
    struct control control;
};

static inline void hold(struct machine *machine)
{
    machine->holds++;
}

static inline void release(struct machine *machine)
{
    machine->releases++;
}

static inline void tell_device(struct control *control, enum vmm_device_kind kind, unsigned place,
                               enum vmm_device_state state, int result)
{
    (void)result;
    assert_int_equal(state, VMM_DEVICE_ABSENT);
    control->gone++;
    control->gone_kind = (int)kind;
    control->gone_place = (int)place;
}

/* `spec` has what is called; the rest is filled in here. */
static inline struct devices_harness *
devices_harness_make(bool with_kvm, const struct vmm_configure *configure, struct devices_spec spec)
{
    struct devices_harness *f = calloc(1, sizeof *f);
    const struct config_fds fds = { 0 };

    assert_non_null(f);
    if (with_kvm)
        harness_open(&f->h);
    else
        harness_open_on(&f->h, -1, -1);
    spec.host = *pci_root_host(f->h.root);
    f->h.root = pci_root_free(f->h.root); /* the devices bring their own, on buses of their own */
    f->h.ports = f->h.mmio = (struct bus){ 0 };
    f->ged = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    f->record.page = &f->page;
    assert_int_equal(power_new(&f->h.ports, f->ged, f->h.loop, &f->record, &f->power, NULL), 0);
    spec.power = f->power;
    spec.page = &f->page;
    spec.machine = &f->machine;
    spec.control = &f->control;
    assert_int_equal(devices_init(&f->devices, &spec, configure, &fds, &f->h.err), 0);
    f->h.slot = DISK_SLOT;
    return f;
}

static inline struct devices_harness *devices_harness_new(bool with_kvm)
{
    const struct vmm_configure configure = { .memory_bytes = HARNESS_MEMORY };

    return devices_harness_make(
        with_kvm, &configure,
        (struct devices_spec){ .hold = hold, .release = release, .tell_device = tell_device });
}

/* The VMM leaves it to its process' end. */
static inline void devices_harness_free(struct devices_harness *f)
{
    pci_root_free(f->devices.pci);
    free(f->devices.hotplug);
    for (int kind = 0; kind < VMM_DEVICE_KIND_COUNT; kind++) {
        for (int i = 0; i < DEVICES_OF_A_KIND_MAX; i++) {
            const struct devices_place *place = &f->devices.places[kind][i];

            for (unsigned n = 0; n < place->fd_count; n++)
                close(place->fds[n]);
        }
    }
    free(f->power);
    close(f->ged);
    harness_close(&f->h);
    free(f);
}

static inline uint32_t port_get(struct devices_harness *f, uint16_t port)
{
    uint32_t value = 0;

    bus_read(&f->h.ports, port, &value, sizeof value);
    return value;
}

static inline void eject(struct devices_harness *f, uint32_t slots)
{
    bus_write(&f->h.ports, PLATFORM_PORT_HOTPLUG_EJECT, &slots, sizeof slots);
    harness_run(&f->h);
}

static inline int file_new(void)
{
    int fd = memfd_create("disk", MFD_CLOEXEC);

    assert_true(fd >= 0 && ftruncate(fd, DISK_BYTES) == 0);
    return fd;
}

static const struct vmm_attach a_disk = {
    .kind = VMM_DEVICE_DISK,
    .disk = { .format = VMM_DISK_RAW, .queues = 1, .place = 3, .size_bytes = DISK_BYTES },
};

static inline int attach(struct devices_harness *f)
{
    int fd = file_new();
    int result = devices_attach(&f->devices, &a_disk, &fd, &f->h.err);

    if (result < 0)
        close(fd);
    return result < 0 ? result : fd;
}
