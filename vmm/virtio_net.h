/* virtio_net.h - virtio network device (virtio 1.2, 5.1) over a tap: checksum and TCP
 * segmentation offload both ways, mergeable receive buffers; pairs of a receive and a transmit
 * queue, as many as the tap has queues, and if that is more than one a control queue, by which the
 * driver says how many pairs it uses.
 *
 * The tap is IFF_TAP | IFF_NO_PI | IFF_VNET_HDR with a header of VIRTIO_NET_HEADER_BYTES, so that
 * host and guest speak the same header.  The guest's is checked and rebuilt before the host's
 * kernel sees it.  When the guest has no buffer for a frame, the frame is held and the tap is not
 * watched until the guest offers some; the tap's own queue bounds what waits.  What the tap does
 * not take when transmitting is dropped and counted.
 *
 * Rate limits hold frames where they are, none is dropped for them: those to the guest in the tap,
 * whose own queue bounds what waits, the guest's in its ring.  A frame that is to be segmented is
 * one. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "vmm/control_protocol.h"

struct error;
struct pci_root;
struct stats_nic;
struct virtio_net;

#define VIRTIO_NET_HEADER_BYTES 12

struct virtio_net_spec {
    unsigned slot;      /* PCI */
    unsigned queues;    /* 1 to VMM_QUEUES_MAX */
    const int *tap_fds; /* so many; they outlive the device; made non-blocking */
    bool vhost;         /* as many fds for it follow (vhost_net.h): it serves, if it can */
    uint8_t mac[6];
    uint16_t mtu;            /* told to the guest; 0 = not told */
    struct stats_nic *stats; /* borrowed */
    struct vmm_rate_limit rx_rate_limit, tx_rate_limit;
    struct virtio_net **ret_net; /* borrowed from the root; NULL = not wanted */
};

/* Main thread, while no vCPU runs; the root owns the device. */
int virtio_net_add(struct pci_root *root, const struct virtio_net_spec *spec, struct error *err);

/* The rest is for the loop's thread.  Other limits from now on. */
void virtio_net_change(struct virtio_net *net, const struct vmm_rate_limit *rx,
                       const struct vmm_rate_limit *tx);
/* The host's kernel serves no queue afterwards, until the loop runs again; vCPUs are held. */
void virtio_net_finish(struct virtio_net *net);
