/* config.h - checks the one message a VMM is configured by (control_protocol.h) before anything is
 * built from it, and names the fds that came with it.  Main thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "vmm/control_protocol.h"

struct error;

/* kvm, page, RAM, state, memory's layers (or kernel, initrd), disks with their bases, nics */
#define CONFIG_FDS_MAX (4 + VMM_LAYERS_MAX + 2 * VMM_DISKS_MAX + VMM_NICS_MAX * 2 * VMM_QUEUES_MAX)

struct config_fds {
    int kvm, page, ram, kernel, initrd, state; /* -1 = none; all borrowed */
    int layers[VMM_LAYERS_MAX];                /* as many as `restore` says */
    const int *disks[VMM_DISKS_MAX];           /* as many as config_disk_fds says */
    const int *nics[VMM_NICS_MAX];             /* as many as config_nic_fds says */
};

/* 0, or -EINVAL with the field to blame.  Of a message that has the type and the size
 * (control_wait_configure). */
int config_validate(const struct vmm_configure *configure, size_t fd_count, struct error *err);
static inline bool config_balloon_is_valid(const struct vmm_balloon *balloon, uint64_t memory_bytes)
{
    return (uint64_t)balloon->target_mib << 20 < memory_bytes && balloon->deflate_on_oom <= 1;
}
static inline bool config_memory_is_valid(uint64_t requested, uint64_t hotplug)
{
    return requested <= hotplug && requested % VMM_MEMORY_BLOCK == 0;
}
/* One of them; index: for the field's name. */
int config_validate_disk(const struct vmm_disk *disk, unsigned index, struct error *err);
int config_validate_nic(const struct vmm_nic *nic, unsigned index, struct error *err);
static inline size_t config_disk_fds(const struct vmm_disk *disk)
{
    return 1u + (disk->format == VMM_DISK_DELTA);
}
static inline size_t config_nic_fds(const struct vmm_nic *nic)
{
    return nic->queues * (nic->vhost ? 2u : 1u);
}
/* Of a valid message: which fd is what; ret_fds points into fds. */
void config_name_fds(const struct vmm_configure *configure, const int *fds,
                     struct config_fds *ret_fds);
