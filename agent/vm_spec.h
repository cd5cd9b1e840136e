/* vm_spec.h - what a user asks a VM to be: read from JSON, checked, and given back.  Pure. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "agent/jail_share.h"
#include "agent/cpu_baseline.h"
#include "agent/vm_lifecycle.h"
#include "base/id.h"
#include "vmm/control_protocol.h"

struct error;

#define VM_MEMORY_MIB_MIN           2
#define VM_MEMORY_MIB_MAX           (512 * 1024)
#define VM_AUTOSTART_ORDER_MAX      1000000
#define VM_STOP_TIMEOUT_DEFAULT_S   60
#define VM_STOP_TIMEOUT_MAX_S       3600
#define VM_STATS_INTERVAL_DEFAULT_S 5
#define VM_STATS_INTERVAL_MAX_S     3600
#define VM_VSOCK_PORTS_MAX          16
#define VM_VSOCK_SOCKET_MAX         255

/* A disk or nic has a place among the VM's own as long as it is in the spec: its PCI slot, its tap
 * and its counters follow from it.  Not part of the JSON: a spec that is read has places in order.
 */

/* Of the host, for a disk. */
enum vm_cache { VM_CACHE_BUFFERED, VM_CACHE_NONE, VM_CACHE_COUNT };

/* What becomes of a request for which the host has no space. */
enum vm_on_enospc { VM_ENOSPC_ERROR, VM_ENOSPC_PAUSE, VM_ENOSPC_COUNT };

struct vm_disk_spec {
    char name[ID_MAX + 1];
    char volume[ID_MAX + 1];
    uint8_t place; /* below VMM_DISKS_MAX */
    bool read_only;
    enum vm_cache cache;
    enum vm_on_enospc on_enospc;
    unsigned queues;
    bool has_rate_limit;
    struct vmm_rate_limit rate_limit;
};

struct vm_nic_spec {
    char name[ID_MAX + 1];
    char network[ID_MAX + 1];
    uint8_t place; /* below VMM_NICS_MAX */
    bool has_mac;
    uint8_t mac[6];
    bool has_ipv4;
    uint32_t ipv4; /* host order */
    unsigned queues;
    bool vhost; /* where the host has it; without rate limits */
    bool has_rx_rate_limit, has_tx_rate_limit;
    struct vmm_rate_limit rx_rate_limit, tx_rate_limit; /* rx: to the guest */
};

struct vm_balloon_spec {
    unsigned amount_mib;       /* below the VM's memory */
    unsigned stats_interval_s; /* 0 = the guest is not asked */
    bool deflate_on_oom;
};

/* Labels that mean something: where the guest has metrics (agent/node_targets.c). */
#define VM_LABEL_METRICS_PORT "prometheus.io/port"
#define VM_LABEL_METRICS_PATH "prometheus.io/path"

struct vm_vsock_spec {
    uint32_t cid; /* 0 = the VM has no vsock */
    unsigned port_count;
    struct vm_vsock_port {
        uint32_t port;
        char socket[VM_VSOCK_SOCKET_MAX + 1]; /* absolute path */
    } ports[VM_VSOCK_PORTS_MAX];
};

struct vm_spec {
    unsigned vcpus;
    unsigned memory_mib;        /* from the start on */
    unsigned memory_max_mib;    /* what it may have; the same = nothing can be plugged */
    unsigned memory_target_mib; /* what it is to have, between the two */
    unsigned memory_min_mib;    /* what it keeps when the host is short; memory_max_mib = all */
    unsigned memory_weight;     /* of its claim to the rest beside others, 1 to 10,000 */
    unsigned priority;          /* the lower, the sooner it is paused or killed for memory */
    struct jail_share share;    /* of CPUs and disks */
    enum vmm_memory_backing memory_backing;
    enum cpu_baseline cpu;
    char snapshot[ID_MAX + 1]; /* "" = none; else what follows is "", and the snapshot's counts */
    char fork[ID_MAX + 1]; /* the VM that it begins as a copy of; "" = none.  The rest of boot is
                            * that one's: what its later starts boot */
    char kernel[ID_MAX + 1];
    char initrd[ID_MAX + 1]; /* "" = none */
    char cmdline[VMM_CMDLINE_MAX + 1];
    unsigned disk_count;
    unsigned nic_count;
    struct vm_disk_spec disks[VMM_DISKS_MAX];
    struct vm_nic_spec nics[VMM_NICS_MAX];
    struct vm_balloon_spec balloon;
    struct vm_vsock_spec vsock;
    json_t *labels; /* owned; object of strings */
    enum vm_restart restart;
    enum vm_on_reboot on_reboot;
    bool autostart;
    unsigned autostart_order; /* after a host's reboot: the lower first, then by id */
    bool delete_protection;
    bool desired_running;
    unsigned stop_timeout_s;
};

/* All that it may have; and what is to be plugged of it. */
static inline uint64_t vm_spec_memory_bytes(const struct vm_spec *spec)
{
    return (uint64_t)spec->memory_max_mib << 20;
}
static inline uint64_t vm_spec_requested_bytes(const struct vm_spec *spec)
{
    return (uint64_t)(spec->memory_target_mib - spec->memory_mib) << 20;
}

/* Fills *ret_spec (owned: vm_spec_clear), or -EINVAL naming the field, relative to the spec. */
int vm_spec_parse(const json_t *json, struct vm_spec *ret_spec, struct error *err);
void vm_spec_clear(struct vm_spec *spec);

/* What has a name that is in `from` too gets the place that it has there. */
void vm_spec_keep_places(struct vm_spec *spec, const struct vm_spec *from);
/* The first gets the first's place, and so on: the same machine. */
void vm_spec_copy_places(struct vm_spec *spec, const struct vm_spec *from);

/* Into a row's status, as "disk_places" and "nic_places" (< 0: memory is short), and back; without
 * them they stay. */
int vm_spec_store_places(const struct vm_spec *spec, json_t *status);
void vm_spec_restore_places(struct vm_spec *spec, const json_t *status);

/* The canonical form: every default filled in, "desired_state" included.  New reference. */
json_t *vm_spec_json(const struct vm_spec *spec);
