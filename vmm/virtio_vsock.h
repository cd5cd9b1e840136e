/* virtio_vsock.h - virtio socket device (virtio 1.2, 5.10): stream connections between the guest
 * and sockets of the host, each of which the agent passes (control_protocol.h); nothing is opened
 * here.
 *
 * What comes from a socket is read straight into the guest's buffers, as much as its credit allows.
 * What the guest sends is written straight to the socket; what that does not take is kept, at most
 * VIRTIO_VSOCK_WINDOW bytes of a connection, which is the credit that the guest is given: one that
 * sends more is reset, as is whatever breaks the protocol.  Half-closed connections are kept as
 * such.
 *
 * A restored guest is told by an event that its connections are gone; those of the machine that the
 * snapshot was taken of go on. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct control;
struct error;
struct pci_root;
struct stats_vsock;
struct virtio_vsock;
struct vmm_vsock;

#define VIRTIO_VSOCK_CONNECTIONS 64 /* open or being made; a power of two */
#define VIRTIO_VSOCK_ASKED_MAX   16 /* of them, those that wait for the agent's answer */
#define VIRTIO_VSOCK_WINDOW      65536

struct virtio_vsock_spec {
    uint64_t cid;              /* the guest's address */
    struct stats_vsock *stats; /* borrowed */
    /* Tells the agent, at once or not at all (false); called with the device's lock held. */
    bool (*tell)(struct control *control, const struct vmm_vsock *message);
    struct control *control; /* borrowed */
};

/* Main thread, before the vCPUs run; the root owns the device. */
int virtio_vsock_add(struct pci_root *root, const struct virtio_vsock_spec *spec,
                     struct virtio_vsock **ret_vsock, struct error *err);

/* All on the loop's thread, also while the guest is paused: its memory is not touched.
 *
 * A VSOCK_CONNECT or VSOCK_ANSWER.  Takes fd, a stream socket, or -1 if none came. */
void virtio_vsock_message(struct virtio_vsock *vsock, const struct vmm_vsock *message, int fd);
/* The agent that was asked, or asked, has gone: what waits for it is reset. */
void virtio_vsock_forget(struct virtio_vsock *vsock);
