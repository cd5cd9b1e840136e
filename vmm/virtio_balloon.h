/* virtio_balloon.h - virtio memory balloon (virtio 1.2, 5.5): gives the host back what the guest
 * gives up (inflate) or reports as free (offered always, but for reserved huge pages), and takes
 * the guest's memory statistics.
 *
 * Nothing the driver says is trusted: the pages it names, inside RAM or not, are its own loss;
 * `actual` and the statistics are only passed on.  A deflated page comes back by a fault.
 *
 * Free page hinting is not offered: unlike a reported page, a hinted one may be in use again before
 * the hint is read, so it can only spare a copy that is being made, and none is. */
#pragma once

struct error;
struct pci_root;
struct stats_balloon;
struct virtio_balloon; /* opaque; see virtio_balloon.c */
struct vmm_balloon;

/* Main thread, before the vCPUs run; the root owns the device, *ret_balloon is borrowed from it.
 * `config` is valid and copied; `stats` is borrowed. */
int virtio_balloon_add(struct pci_root *root, const struct vmm_balloon *config,
                       struct stats_balloon *stats, struct virtio_balloon **ret_balloon,
                       struct error *err);
/* Another target and interval; the driver is told.  Loop's thread. */
void virtio_balloon_change(struct virtio_balloon *balloon, const struct vmm_balloon *config);
