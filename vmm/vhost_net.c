#include "vmm/vhost_net.h"

#include <linux/vhost.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include "base/cleanup.h"
#include "base/loop.h"
#include "vmm/guest_memory.h"
#include "vmm/virtio_device.h"
#include "vmm/virtio_net_header.h"

/* What the kernel must know of; the rest is between guest and tap. */
#define FEATURES                                                                       \
    (VIRTIO_FEATURE_VERSION_1 | VIRTIO_FEATURE_INDIRECT | VIRTIO_FEATURE_EVENT_INDEX | \
     NET_FEATURE_MERGE)

struct vhost_net {
    struct virtio_device *device; /* borrowed, as the fds */
    const int *fds;
    unsigned pairs;
    int wake_fd; /* owned: a ring is broken, or the loop has something to do after a stop */
    struct loop_source *source;
    bool stopped;
    bool lent[2 * VMM_QUEUES_MAX];
};

static void woken(void *context, uint32_t events)
{
    struct vhost_net *vhost = context;
    struct virtio_device *device = vhost->device;
    eventfd_t count;

    (void)events;
    virtio_device_lock(device);
    (void)eventfd_read(vhost->wake_fd, &count);
    if (!vhost->stopped) {
        virtio_device_fault(device);
        vhost_net_stop(vhost);
    } else {
        vhost->stopped = false;
        for (unsigned i = 0; i < 2 * vhost->pairs; i++) {
            if (vhost->lent[i])
                continue;
            (void)device->transport_ops->lend(device->transport, i, NULL);
            virtio_device_kick(device, i);
        }
    }
    virtio_device_unlock(device);
}

static bool lend(struct vhost_net *vhost, unsigned number)
{
    struct virtio_device *device = vhost->device;
    const struct virtqueue *ring = virtio_device_queue(device, number);
    uint64_t features = virtio_device_features(device) & FEATURES;
    int fd = vhost->fds[vhost->pairs + number / 2], interrupt_fd;
    int kick_fd = device->transport_ops->lend(device->transport, number, &interrupt_fd);
    unsigned index = number % 2;
    struct vhost_vring_addr rings = {
        index, 0, (uintptr_t)ring->descriptors, (uintptr_t)ring->used, (uintptr_t)ring->avail, 0
    };

#define STATE(value) (&(struct vhost_vring_state){ index, value })
#define FILE(value)  (&(struct vhost_vring_file){ index, value })
    return ioctl(fd, VHOST_SET_FEATURES, &features) == 0 &&
           ioctl(fd, VHOST_SET_VRING_NUM, STATE(ring->size)) == 0 &&
           ioctl(fd, VHOST_SET_VRING_BASE, STATE(ring->next_avail)) == 0 &&
           ioctl(fd, VHOST_SET_VRING_ADDR, &rings) == 0 &&
           ioctl(fd, VHOST_SET_VRING_CALL, FILE(interrupt_fd)) == 0 &&
           ioctl(fd, VHOST_SET_VRING_ERR, FILE(vhost->wake_fd)) == 0 &&
           ioctl(fd, VHOST_SET_VRING_KICK, FILE(kick_fd)) == 0 &&
           ioctl(fd, VHOST_NET_SET_BACKEND, FILE(vhost->fds[number / 2])) == 0;
}

bool vhost_net_serves(struct vhost_net *vhost, unsigned number)
{
    struct virtio_device *device = vhost->device;

    if (!vhost->lent[number] && !(vhost->lent[number] = lend(vhost, number)))
        (void)device->transport_ops->lend(device->transport, number, NULL);
    return vhost->lent[number];
}

void vhost_net_stop(struct vhost_net *vhost)
{
    for (unsigned i = 0; vhost && i < 2 * vhost->pairs; i++) {
        struct vhost_vring_file none = { i % 2, -1 };
        struct vhost_vring_state base = { i % 2, 0 };
        int fd = vhost->fds[vhost->pairs + i / 2];

        if (!vhost->lent[i])
            continue;
        if (ioctl(fd, VHOST_NET_SET_BACKEND, &none) < 0 ||
            ioctl(fd, VHOST_GET_VRING_BASE, &base) < 0)
            virtio_device_fault(vhost->device);
        virtqueue_resume(virtio_device_queue(vhost->device, i), (uint16_t)base.num);
        vhost->lent[i] = false;
        vhost->stopped = true;
        (void)eventfd_write(vhost->wake_fd, 1);
    }
}

static int set_up(int fd, const struct guest_memory *memory)
{
    struct {
        uint32_t count, padding; /* laid out as struct vhost_memory */
        struct vhost_memory_region regions[GUEST_REGIONS_MAX];
    } table = { .count = (uint32_t)guest_memory_region_count(memory) };

    for (uint32_t i = 0; i < table.count; i++) {
        struct guest_memory_region region = guest_memory_region(memory, i);

        table.regions[i] = (struct vhost_memory_region){ region.guest_start, region.size,
                                                         (uintptr_t)region.host, 0 };
    }
    return ioctl(fd, VHOST_SET_OWNER) < 0 ? -1 : ioctl(fd, VHOST_SET_MEM_TABLE, &table);
}

struct vhost_net *vhost_net_new(struct virtio_device *device, const int *fds, unsigned pairs)
{
    struct vhost_net *vhost = calloc(1, sizeof *vhost);
    int result;

    if (!vhost)
        return NULL;
    *vhost = (struct vhost_net){ .device = device, .fds = fds, .pairs = pairs };
    vhost->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    result = loop_add(device->loop, vhost->wake_fd, EPOLLIN, woken, vhost, &vhost->source, NULL);
    for (unsigned i = 0; i < pairs && result == 0; i++)
        result = set_up(fds[pairs + i], device->queues[0].memory);
    return result == 0 ? vhost : vhost_net_free(vhost);
}

struct vhost_net *vhost_net_free(struct vhost_net *vhost)
{
    if (vhost) {
        vhost_net_stop(vhost);
        loop_remove(vhost->source);
        cleanup_close(&vhost->wake_fd);
        free(vhost);
    }
    return NULL;
}
