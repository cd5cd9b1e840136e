/* vhost_net.h - the queues of a nic served by the host's kernel (linux/vhost.h) in place of
 * virtio_net.c: it works on the guest's rings and buffers at our addresses, and on the tap.
 *
 * A queue is lent to it, with its kicks and its interrupts, and taken back to be reset, to be
 * saved, or to be served here; after that it is kicked, so that one which is live by then is lent
 * again. A ring that the kernel calls broken is a fault of the device.
 *
 * With the device's lock held. */
#pragma once
#include <stdbool.h>

struct vhost_net; /* opaque; see vhost_net.c */
struct virtio_device;

/* fds: of the tap's queues, then as many of /dev/vhost-net; all is borrowed.  NULL where the kernel
 * cannot serve this guest. */
struct vhost_net *vhost_net_new(struct virtio_device *device, const int *fds, unsigned pairs);
/* Accepts NULL, returns NULL; needs no lock.  Nothing is lent any more. */
struct vhost_net *vhost_net_free(struct vhost_net *vhost);
/* Lends a pair's queue, enabled and of a live device, if it is not lent yet; false: it cannot be.
 * Loop thread. */
bool vhost_net_serves(struct vhost_net *vhost, unsigned number);
/* Takes all back: the kernel touches guest memory no more, and indices are where it was.  Any
 * thread; accepts NULL. */
void vhost_net_stop(struct vhost_net *vhost);
