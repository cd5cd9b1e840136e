/* devices.h - the virtio devices of a machine on its PCI root: those of its configuration, and
 * disks and nics that come and go while it runs.  Main thread. */
#pragma once
#include <stddef.h>
#include "vmm/control_protocol.h"
#include "vmm/disk.h"
#include "vmm/pci.h"
#include "vmm/uring.h"

struct config_fds;
struct control;
struct error;
struct hotplug;
struct machine;
struct power;
struct transfer;
struct virtio_balloon;
struct virtio_block;
struct virtio_mem;
struct virtio_net;
struct virtio_vsock;

struct devices_spec {
    struct pci_host host;
    struct power *power; /* borrowed, as all below */
    struct stats_page *page;
    /* Called before and after something changes that running vCPUs use. */
    void (*hold)(struct machine *machine);
    void (*release)(struct machine *machine);
    struct machine *machine;
    /* To the agent; as in control.h. */
    bool (*tell_vsock)(struct control *control, const struct vmm_vsock *message);
    void (*tell_device)(struct control *control, enum vmm_device_kind kind, unsigned place,
                        enum vmm_device_state state, int result);
    struct control *control;
};

#define DEVICES_OF_A_KIND_MAX 8
struct devices {
    struct devices_spec spec;
    struct pci_root *pci;
    struct hotplug *hotplug;
    struct virtio_balloon *balloon; /* borrowed from the root, as the two below */
    struct virtio_vsock *vsock;     /* NULL = none */
    struct virtio_mem *mem;         /* NULL = none */
    struct devices_place {
        struct virtio_block *block;  /* borrowed; NULL = not a disk */
        struct virtio_net *net;      /* the same */
        size_t fd_count;             /* 0 = nothing is there */
        int fds[2 * VMM_QUEUES_MAX]; /* owned */
    } places[VMM_DEVICE_KIND_COUNT][DEVICES_OF_A_KIND_MAX];
    struct vmm_rings inherited;
    struct uring rings[VMM_DISKS_MAX]; /* by the disks' places; each may have several, in turn */
    uint8_t *marks;                    /* of what is written to them; owned, mapped; NULL = none */
};

/* What is configured, vCPUs not yet there.  The fds of disks and nics are taken over, and closed
 * when those go. */
int devices_init(struct devices *devices, const struct devices_spec *spec,
                 const struct vmm_configure *configure, const struct config_fds *fds,
                 struct error *err);

/* Takes fds (as CONFIGURE has them for one) over if it succeeds.  -EEXIST: the place is taken. */
int devices_attach(struct devices *devices, const struct vmm_attach *attach, const int *fds,
                   struct error *err);
/* Of what is there, if anything is: rate limits, and a disk's size if it is larger. */
void devices_change(struct devices *devices, const struct vmm_attach *change);
/* Asks the guest to let it go; the agent is told when it has.  Without `ask` only: -ENOENT. */
int devices_detach(struct devices *devices, enum vmm_device_kind kind, unsigned place, bool ask,
                   struct error *err);

/* Marks what is written to the disks that are there (base/write_marks.h) in the file, which may be
 * closed then; instead of in another.  shifts: by place.  -1 and NULL: no more, and it succeeds. */
int devices_mark_writes(struct devices *devices, int fd, const uint8_t *shifts, struct error *err);

/* No disk has anything in flight afterwards, and no vhost a queue; vCPUs are held, or it is the
 * end: DISK_CANCEL, on any thread. */
void devices_finish(struct devices *devices, enum disk_drain how);
/* What waits for space on a disk is tried again. */
void devices_retry(struct devices *devices);
void devices_transfer(struct devices *devices, struct transfer *transfer);
