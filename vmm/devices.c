#include "vmm/devices.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "base/write_marks.h"
#include "vmm/config.h"
#include "vmm/hotplug.h"
#include "vmm/platform.h"
#include "vmm/transfer.h"
#include "vmm/virtio_balloon.h"
#include "vmm/virtio_block.h"
#include "vmm/virtio_mem.h"
#include "vmm/virtio_net.h"
#include "vmm/virtio_rng.h"
#include "vmm/virtio_vsock.h"

_Static_assert(VMM_DISKS_MAX <= DEVICES_OF_A_KIND_MAX && VMM_NICS_MAX <= DEVICES_OF_A_KIND_MAX,
               "places for all");
_Static_assert(VMM_SLOT_NICS >= VMM_SLOT_DISKS + VMM_DISKS_MAX &&
                   PLATFORM_SLOTS_LAST == VMM_SLOT_NICS + VMM_NICS_MAX - 1,
               "a slot for each place");

/* Of place 0. */
static const unsigned slots[VMM_DEVICE_KIND_COUNT] = {
    [VMM_DEVICE_DISK] = VMM_SLOT_DISKS,
    [VMM_DEVICE_NIC] = VMM_SLOT_NICS,
};

/* --- making them --- */

static void fill(struct devices_place *place, const int *fds, size_t fd_count)
{
    place->fd_count = fd_count;
    memcpy(place->fds, fds, fd_count * sizeof fds[0]);
}

static void on_full(void *context, unsigned place, bool full)
{
    struct devices *devices = context;

    __atomic_store_n(&devices->spec.page->disk_full[place], full, __ATOMIC_RELAXED);
    if (full)
        devices->spec.tell_device(devices->spec.control, VMM_DEVICE_DISK, place, VMM_DEVICE_FULL,
                                  0);
}

/* Mapped when it is first wanted: that takes 25 us.  NULL = none. */
static struct uring *ring_of(struct devices *devices, unsigned place)
{
    struct uring *ring = &devices->rings[place];

    if (place < devices->inherited.count &&
        (ring->entries ||
         uring_map(ring, VMM_RING_FD(place), VMM_RING_EVENT_FD(place), &devices->inherited.layout)))
        return ring;
    return NULL;
}

/* fds: the base of a delta, then the file. */
static int add_disk(struct devices *devices, const struct vmm_disk *disk, const int *fds,
                    struct error *err)
{
    struct devices_place *place = &devices->places[VMM_DEVICE_DISK][disk->place];
    bool is_delta = disk->format == VMM_DISK_DELTA;
    struct virtio_block_spec spec = {
        .slot = VMM_SLOT_DISKS + disk->place,
        .fd = fds[is_delta],
        .base_fd = is_delta ? fds[0] : -1,
        .is_delta = is_delta,
        .read_only = disk->read_only,
        .queues = disk->queues,
        .size_bytes = disk->size_bytes,
        .stats = &devices->spec.page->disks[disk->place],
        .ring = ring_of(devices, disk->place),
        .tell_full = disk->pause_when_full ? on_full : NULL,
        .context = devices,
        .place = disk->place,
        .ret_block = &place->block,
        .rate_limit = disk->rate_limit,
    };

    memcpy(spec.serial, disk->serial, sizeof spec.serial);
    fill(place, fds, config_disk_fds(disk));
    return virtio_block_add(devices->pci, &spec, err);
}

static int add_nic(struct devices *devices, const struct vmm_nic *nic, const int *fds,
                   struct error *err)
{
    struct devices_place *place = &devices->places[VMM_DEVICE_NIC][nic->place];
    struct virtio_net_spec spec = {
        .slot = VMM_SLOT_NICS + nic->place,
        .queues = nic->queues,
        .tap_fds = place->fds, /* the caller's array does not last as long as its vhost */
        .vhost = nic->vhost,
        .mtu = nic->mtu,
        .stats = &devices->spec.page->nics[nic->place],
        .rx_rate_limit = nic->rx_rate_limit,
        .tx_rate_limit = nic->tx_rate_limit,
        .ret_net = &place->net,
    };

    memcpy(spec.mac, nic->mac, sizeof spec.mac);
    fill(place, fds, config_nic_fds(nic));
    return virtio_net_add(devices->pci, &spec, err);
}

static int add_vsock(struct devices *devices, uint64_t cid, struct error *err)
{
    const struct virtio_vsock_spec spec = { cid, &devices->spec.page->vsock,
                                            devices->spec.tell_vsock, devices->spec.control };

    return cid ? virtio_vsock_add(devices->pci, &spec, &devices->vsock, err) : 0;
}

/* Those that stay have the first slots, so that they are where they were, whatever else is there.
 */
static int add_all(struct devices *devices, const struct vmm_configure *configure,
                   const struct config_fds *fds, struct error *err)
{
    struct stats_page *page = devices->spec.page;
    int result = virtio_rng_add(devices->pci, &page->rng_bytes, err);

    if (result == 0)
        result = virtio_balloon_add(devices->pci, &configure->balloon, &page->balloon,
                                    &devices->balloon, err);
    if (result == 0)
        result = add_vsock(devices, configure->vsock_cid, err);
    if (result == 0 && configure->hotplug_bytes > 0)
        result = virtio_mem_add(devices->pci, configure->requested_bytes, &page->memory,
                                &devices->mem, err);
    for (int i = 0; i < configure->disk_count && result == 0; i++)
        result = add_disk(devices, &configure->disks[i], fds->disks[i], err);
    for (int i = 0; i < configure->nic_count && result == 0; i++)
        result = add_nic(devices, &configure->nics[i], fds->nics[i], err);
    return result;
}

/* --- coming and going --- */

int devices_attach(struct devices *devices, const struct vmm_attach *attach, const int *fds,
                   struct error *err)
{
    struct stats_page *page = devices->spec.page;
    unsigned index = vmm_attach_place(attach);
    struct devices_place *place = &devices->places[attach->kind][index];
    int result;

    if (place->fd_count > 0)
        return error_set(err, EEXIST, "place %u is taken", index);
    devices->spec.hold(devices->spec.machine);
    if (attach->kind == VMM_DEVICE_DISK) {
        memset(&page->disks[index], 0, sizeof page->disks[index]);
        result = add_disk(devices, &attach->disk, fds, err);
    } else {
        memset(&page->nics[index], 0, sizeof page->nics[index]);
        result = add_nic(devices, &attach->nic, fds, err);
    }
    devices->spec.release(devices->spec.machine);
    if (result == 0)
        hotplug_filled(devices->hotplug, slots[attach->kind] + index);
    else
        *place = (struct devices_place){ 0 }; /* the fds stay the caller's */
    return result;
}

void devices_change(struct devices *devices, const struct vmm_attach *change)
{
    const struct devices_place *place = &devices->places[change->kind][vmm_attach_place(change)];

    if (place->block)
        virtio_block_change(place->block, change->disk.size_bytes, &change->disk.rate_limit);
    if (place->net)
        virtio_net_change(place->net, &change->nic.rx_rate_limit, &change->nic.tx_rate_limit);
}

int devices_detach(struct devices *devices, enum vmm_device_kind kind, unsigned place, bool ask,
                   struct error *err)
{
    if (place >= DEVICES_OF_A_KIND_MAX || devices->places[kind][place].fd_count == 0)
        return error_set(err, ENOENT, "nothing is at place %u", place);
    if (ask)
        hotplug_ask(devices->hotplug, slots[kind] + place);
    return 0;
}

static void on_ejected(void *context, unsigned slot)
{
    struct devices *devices = context;
    enum vmm_device_kind kind = slot < VMM_SLOT_NICS ? VMM_DEVICE_DISK : VMM_DEVICE_NIC;
    unsigned index = slot - slots[kind];
    struct devices_place *place = &devices->places[kind][index];

    if (place->fd_count == 0)
        return;       /* asked twice, it answered twice */
    if (place->block) /* what may take time, while the guest runs */
        virtio_block_finish(place->block, DISK_CANCEL);
    devices->spec.hold(devices->spec.machine);
    pci_root_remove(devices->pci, slot);
    for (unsigned i = 0; i < place->fd_count; i++)
        cleanup_close(&place->fds[i]);
    *place = (struct devices_place){ 0 };
    devices->spec.release(devices->spec.machine); /* it may end the machine (devices_finish) */
    devices->spec.tell_device(devices->spec.control, kind, index, VMM_DEVICE_ABSENT, 0);
}

/* --- the whole --- */

int devices_init(struct devices *devices, const struct devices_spec *spec,
                 const struct vmm_configure *configure, const struct config_fds *fds,
                 struct error *err)
{
    int result;

    devices->spec = *spec;
    devices->inherited = configure->rings;
    result = pci_root_new(&spec->host, &devices->pci, err);
    if (result == 0)
        result = hotplug_new(spec->host.ports, spec->power, spec->host.loop, on_ejected, devices,
                             &devices->hotplug, err);
    return result < 0 ? result : add_all(devices, configure, fds, err);
}

int devices_mark_writes(struct devices *devices, int fd, const uint8_t *shifts, struct error *err)
{
    const size_t bytes = (size_t)VMM_DISKS_MAX * WRITE_MARKS_OF_DISK;
    uint8_t *marks = NULL;

    if (fd >= 0 && lseek(fd, 0, SEEK_END) != (off_t)bytes)
        return error_set(err, EINVAL, "marks of writes: not a file of %zu bytes", bytes);
    if (fd >= 0)
        marks = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (marks == MAP_FAILED)
        return error_set(err, errno, "marks of writes: %s", strerror(errno));
    for (unsigned i = 0; i < VMM_DISKS_MAX; i++)
        if (devices->places[VMM_DEVICE_DISK][i].block)
            virtio_block_mark_writes(devices->places[VMM_DEVICE_DISK][i].block,
                                     marks ? marks + i * WRITE_MARKS_OF_DISK : NULL,
                                     marks ? shifts[i] : 0);
    if (devices->marks)
        (void)munmap(devices->marks, bytes);
    devices->marks = marks;
    return 0;
}

void devices_finish(struct devices *devices, enum disk_drain how)
{
    for (int i = 0; i < VMM_DISKS_MAX; i++)
        if (devices->places[VMM_DEVICE_DISK][i].block)
            virtio_block_finish(devices->places[VMM_DEVICE_DISK][i].block, how);
    for (int i = 0; i < VMM_NICS_MAX; i++)
        if (devices->places[VMM_DEVICE_NIC][i].net)
            virtio_net_finish(devices->places[VMM_DEVICE_NIC][i].net);
}

void devices_retry(struct devices *devices)
{
    for (int i = 0; i < VMM_DISKS_MAX; i++)
        if (devices->places[VMM_DEVICE_DISK][i].block)
            virtio_block_retry(devices->places[VMM_DEVICE_DISK][i].block);
}

void devices_transfer(struct devices *devices, struct transfer *transfer)
{
    hotplug_transfer(devices->hotplug, transfer);
    pci_root_transfer(devices->pci, transfer);
}
