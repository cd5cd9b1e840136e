#include "agent/vm_spec.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/labels.h"
#include "agent/vm_memory.h"
#include "agent/vm_share.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"
#include "net/cidr.h"
#include "net/mac.h"
#include "scheduler/balancer.h"

static const char *const desired_names[] = { "stopped", "running" };
static const char *const enospc_names[VM_ENOSPC_COUNT] = { "error", "pause" };
static const char *const cache_names[VM_CACHE_COUNT] = { "buffered", "none" };

static void copy_id(char to[ID_MAX + 1], const char *from)
{
    snprintf(to, ID_MAX + 1, "%s", from ? from : "");
}

static int parse_boot(const json_t *json, struct vm_spec *spec, struct error *err)
{
    struct json_reader reader;

    json_reader_init(&reader, json, "boot", err);
    copy_id(spec->fork, json_read_id(&reader, "fork", JSON_OPTIONAL));
    copy_id(spec->snapshot, json_read_id(&reader, "snapshot", JSON_OPTIONAL));
    copy_id(spec->kernel,
            json_read_id(&reader, "kernel", spec->snapshot[0] ? JSON_OPTIONAL : JSON_REQUIRED));
    copy_id(spec->initrd, json_read_id(&reader, "initrd", JSON_OPTIONAL));
    snprintf(spec->cmdline, sizeof spec->cmdline, "%s",
             json_read_string(&reader, "cmdline", VMM_CMDLINE_MAX, JSON_OPTIONAL, ""));
    for (const char *c = spec->cmdline; *c; c++)
        if ((unsigned char)*c < ' ')
            json_reader_fail(&reader, "cmdline", "must not contain control characters");
    if (spec->snapshot[0] && (spec->kernel[0] || spec->initrd[0] || spec->cmdline[0]))
        json_reader_fail(&reader, "snapshot", "is instead of kernel, initrd and cmdline");
    return json_reader_end(&reader);
}

static uint64_t read_rate(struct json_reader *reader, const char *key)
{
    return (uint64_t)json_read_integer(reader, key, 0, VMM_RATE_MAX, JSON_OPTIONAL, 0);
}

/* `name` of `item`, the path of what is limited; absent limits are none. */
static int parse_rate_limit(const json_t *json, const char *item, const char *name,
                            struct vmm_rate_limit *ret_limit, struct error *err)
{
    struct json_reader reader;
    char path[64];

    *ret_limit = (struct vmm_rate_limit){ 0 };
    if (!json)
        return 0;
    snprintf(path, sizeof path, "%s.%s", item, name);
    json_reader_init(&reader, json, path, err);
    ret_limit->bytes_per_second = read_rate(&reader, "bytes_per_second");
    ret_limit->bytes_burst = read_rate(&reader, "bytes_burst");
    ret_limit->operations_per_second = read_rate(&reader, "ops_per_second");
    ret_limit->operations_burst = read_rate(&reader, "ops_burst");
    if (ret_limit->bytes_burst > 0 && ret_limit->bytes_per_second == 0)
        json_reader_fail(&reader, "bytes_burst", "needs bytes_per_second");
    if (ret_limit->operations_burst > 0 && ret_limit->operations_per_second == 0)
        json_reader_fail(&reader, "ops_burst", "needs ops_per_second");
    return json_reader_end(&reader);
}

/* A queue that no vCPU could have for its own would gain nothing. */
static unsigned read_queues(struct json_reader *reader, const struct vm_spec *spec)
{
    unsigned queues =
        (unsigned)json_read_integer(reader, "queues", 1, VMM_QUEUES_MAX, JSON_OPTIONAL, 1);

    if (queues > spec->vcpus)
        json_reader_fail(reader, "queues", "must be at most vcpus, %u", spec->vcpus);
    return queues;
}

static int parse_disk(const json_t *json, const char *path, struct vm_spec *spec, struct error *err)
{
    struct vm_disk_spec *disk = &spec->disks[spec->disk_count];
    struct json_reader reader;
    const json_t *rate_limit;
    int result;

    disk->place = (uint8_t)spec->disk_count;
    json_reader_init(&reader, json, path, err);
    copy_id(disk->name, json_read_id(&reader, "name", JSON_REQUIRED));
    copy_id(disk->volume, json_read_id(&reader, "volume", JSON_REQUIRED));
    disk->read_only = json_read_bool(&reader, "read_only", false);
    disk->cache = (enum vm_cache)json_read_enum(&reader, "cache", cache_names, VM_CACHE_COUNT,
                                                JSON_OPTIONAL, VM_CACHE_BUFFERED);
    disk->on_enospc = (enum vm_on_enospc)json_read_enum(
        &reader, "on_enospc", enospc_names, VM_ENOSPC_COUNT, JSON_OPTIONAL, VM_ENOSPC_ERROR);
    disk->queues = read_queues(&reader, spec);
    rate_limit = json_read_object(&reader, "rate_limit", JSON_OPTIONAL);
    disk->has_rate_limit = rate_limit != NULL;
    for (unsigned i = 0; i < spec->disk_count; i++) {
        if (strcmp(spec->disks[i].name, disk->name) == 0)
            json_reader_fail(&reader, "name", "is the name of an earlier disk too");
        if (strcmp(spec->disks[i].volume, disk->volume) == 0)
            json_reader_fail(&reader, "volume", "is the volume of an earlier disk too");
    }
    spec->disk_count++;
    result = json_reader_end(&reader);
    return result < 0 ? result
                      : parse_rate_limit(rate_limit, path, "rate_limit", &disk->rate_limit, err);
}

static int parse_nic(const json_t *json, const char *path, struct vm_spec *spec, struct error *err)
{
    struct vm_nic_spec *nic = &spec->nics[spec->nic_count];
    struct json_reader reader;
    const json_t *rx;
    const json_t *tx;
    const char *mac;
    const char *ipv4;
    int result;

    nic->place = (uint8_t)spec->nic_count;
    json_reader_init(&reader, json, path, err);
    copy_id(nic->name, json_read_id(&reader, "name", JSON_REQUIRED));
    copy_id(nic->network, json_read_id(&reader, "network", JSON_REQUIRED));
    mac = json_read_string(&reader, "mac", 17, JSON_OPTIONAL, NULL);
    ipv4 = json_read_string(&reader, "ipv4", 15, JSON_OPTIONAL, NULL);
    nic->queues = read_queues(&reader, spec);
    nic->vhost = json_read_bool(&reader, "vhost", false);
    rx = json_read_object(&reader, "rx_rate_limit", JSON_OPTIONAL);
    tx = json_read_object(&reader, "tx_rate_limit", JSON_OPTIONAL);
    nic->has_rx_rate_limit = rx != NULL;
    nic->has_tx_rate_limit = tx != NULL;
    if (nic->vhost && (rx || tx))
        json_reader_fail(&reader, "vhost", "takes no rate limits: leave out %s",
                         rx ? "rx_rate_limit" : "tx_rate_limit");
    nic->has_mac = mac != NULL;
    nic->has_ipv4 = ipv4 != NULL;
    if (mac && mac_parse(mac, nic->mac, NULL) < 0)
        json_reader_fail(&reader, "mac", "must be a unicast address like 02:00:00:00:00:01");
    if (ipv4 && ipv4_parse(ipv4, &nic->ipv4, NULL) < 0)
        json_reader_fail(&reader, "ipv4", "must be an address like 10.77.0.12");
    for (unsigned i = 0; i < spec->nic_count; i++)
        if (strcmp(spec->nics[i].name, nic->name) == 0)
            json_reader_fail(&reader, "name", "is the name of an earlier nic too");
    spec->nic_count++;
    result = json_reader_end(&reader);
    if (result == 0)
        result = parse_rate_limit(rx, path, "rx_rate_limit", &nic->rx_rate_limit, err);
    if (result == 0)
        result = parse_rate_limit(tx, path, "tx_rate_limit", &nic->tx_rate_limit, err);
    return result;
}

/* NULL: every default. */
static int parse_balloon(const json_t *json, struct vm_spec *spec, struct error *err)
{
    struct vm_balloon_spec *balloon = &spec->balloon;
    struct json_reader reader;

    *balloon = (struct vm_balloon_spec){ 0, VM_STATS_INTERVAL_DEFAULT_S, true };
    if (!json)
        return 0;
    json_reader_init(&reader, json, "balloon", err);
    balloon->amount_mib = (unsigned)json_read_integer(&reader, "amount_mib", 0,
                                                      VM_MEMORY_MIB_MAX - 1, JSON_OPTIONAL, 0);
    balloon->deflate_on_oom = json_read_bool(&reader, "deflate_on_oom", true);
    balloon->stats_interval_s =
        (unsigned)json_read_integer(&reader, "stats_interval_seconds", 0, VM_STATS_INTERVAL_MAX_S,
                                    JSON_OPTIONAL, VM_STATS_INTERVAL_DEFAULT_S);
    if (balloon->amount_mib >= spec->memory_mib)
        json_reader_fail(&reader, "amount_mib", "must be below memory_mib, %u", spec->memory_mib);
    return json_reader_end(&reader);
}

static int parse_vsock_port(const json_t *json, const char *path, struct vm_spec *spec,
                            struct error *err)
{
    struct vm_vsock_spec *vsock = &spec->vsock;
    struct vm_vsock_port *port = &vsock->ports[vsock->port_count];
    struct json_reader reader;
    const char *socket;

    json_reader_init(&reader, json, path, err);
    port->port = (uint32_t)json_read_integer(&reader, "port", 0, UINT32_MAX - 1, JSON_REQUIRED, 0);
    socket = json_read_string(&reader, "socket", VM_VSOCK_SOCKET_MAX, JSON_REQUIRED, "");
    snprintf(port->socket, sizeof port->socket, "%s", socket ? socket : "");
    if (port->socket[0] != '/')
        json_reader_fail(&reader, "socket", "must be an absolute path");
    for (const char *c = port->socket; *c; c++)
        if ((unsigned char)*c < ' ')
            json_reader_fail(&reader, "socket", "must not contain control characters");
    for (unsigned i = 0; i < vsock->port_count; i++)
        if (vsock->ports[i].port == port->port)
            json_reader_fail(&reader, "port", "is an earlier port too");
    vsock->port_count++;
    return json_reader_end(&reader);
}

/* Each item of an array by its own function, with its path. */
static int parse_items(const json_t *array, const char *name,
                       int (*parse)(const json_t *, const char *, struct vm_spec *, struct error *),
                       struct vm_spec *spec, struct error *err)
{
    for (size_t i = 0; array && i < json_array_size(array); i++) {
        char path[48];
        int result;

        snprintf(path, sizeof path, "%s[%zu]", name, i);
        result = parse(json_array_get(array, i), path, spec, err);
        if (result < 0)
            return result;
    }
    return 0;
}

/* NULL: none. */
static int parse_vsock(const json_t *json, struct vm_spec *spec, struct error *err)
{
    struct json_reader reader;
    const json_t *ports;
    int result;

    if (!json)
        return 0;
    json_reader_init(&reader, json, "vsock", err);
    spec->vsock.cid = (uint32_t)json_read_integer(&reader, "cid", VMM_CID_MIN, VMM_CID_MAX,
                                                  JSON_OPTIONAL, VMM_CID_MIN);
    ports = json_read_array(&reader, "ports", VM_VSOCK_PORTS_MAX, JSON_OPTIONAL);
    result = json_reader_end(&reader);
    return result < 0 ? result : parse_items(ports, "vsock.ports", parse_vsock_port, spec, err);
}

static int parse_parts(const json_t *boot, const json_t *disks, const json_t *nics,
                       const json_t *balloon, const json_t *vsock, struct vm_spec *spec,
                       struct error *err)
{
    int result = parse_boot(boot, spec, err);

    if (result == 0)
        result = parse_items(disks, "disks", parse_disk, spec, err);
    if (result == 0)
        result = parse_items(nics, "nics", parse_nic, spec, err);
    if (result == 0)
        result = parse_balloon(balloon, spec, err);
    if (result == 0)
        result = parse_vsock(vsock, spec, err);
    return result;
}

/* After memory_mib and memory_backing.  Memory is plugged in blocks of 2 MiB. */
static void read_memory_sizes(struct json_reader *reader, struct vm_spec *spec)
{
    spec->memory_max_mib =
        (unsigned)json_read_integer(reader, "memory_max_mib", VM_MEMORY_MIB_MIN, VM_MEMORY_MIB_MAX,
                                    JSON_OPTIONAL, spec->memory_mib);
    spec->memory_target_mib =
        (unsigned)json_read_integer(reader, "memory_target_mib", VM_MEMORY_MIB_MIN,
                                    VM_MEMORY_MIB_MAX, JSON_OPTIONAL, spec->memory_mib);
    if (spec->memory_max_mib < spec->memory_mib || spec->memory_max_mib % 2 != spec->memory_mib % 2)
        json_reader_fail(reader, "memory_max_mib", "must be memory_mib, %u, or above it and even",
                         spec->memory_mib);
    if (spec->memory_target_mib < spec->memory_mib ||
        spec->memory_target_mib > spec->memory_max_mib ||
        spec->memory_target_mib % 2 != spec->memory_mib % 2)
        json_reader_fail(reader, "memory_target_mib",
                         "must be from memory_mib, %u, to memory_max_mib, %u, and even",
                         spec->memory_mib, spec->memory_max_mib);
    spec->memory_min_mib = (unsigned)json_read_integer(
        reader, "memory_min_mib", 1, VM_MEMORY_MIB_MAX, JSON_OPTIONAL, spec->memory_max_mib);
    if (spec->memory_min_mib > spec->memory_max_mib)
        json_reader_fail(reader, "memory_min_mib", "must be at most memory_max_mib, %u",
                         spec->memory_max_mib);
    spec->memory_weight = (unsigned)json_read_integer(reader, "memory_weight", 1,
                                                      BALANCER_WEIGHT_MAX, JSON_OPTIONAL, 100);
    spec->priority = (unsigned)json_read_integer(reader, "priority", 0, 1000, JSON_OPTIONAL, 100);
    if (spec->memory_mib % 2 != 0 &&
        (spec->memory_backing == VMM_MEMORY_HUGE_2M || spec->memory_max_mib != spec->memory_mib))
        json_reader_fail(reader, "memory_mib", "must be even with huge-2m or memory_max_mib");
}

int vm_spec_parse(const json_t *json, struct vm_spec *ret_spec, struct error *err)
{
    struct vm_spec spec = { 0 };
    struct json_reader reader;
    const json_t *boot;
    const json_t *disks;
    const json_t *nics;
    const json_t *balloon;
    const json_t *vsock;
    const json_t *labels;
    int result;

    json_reader_init(&reader, json, "", err);
    spec.vcpus = (unsigned)json_read_integer(&reader, "vcpus", 1, VMM_VCPUS_MAX, JSON_OPTIONAL, 1);
    spec.cpu = (enum cpu_baseline)json_read_enum(&reader, "cpu", cpu_baseline_names,
                                                 CPU_BASELINE_COUNT, JSON_OPTIONAL, CPU_HOST);
    spec.memory_mib = (unsigned)json_read_integer(&reader, "memory_mib", VM_MEMORY_MIB_MIN,
                                                  VM_MEMORY_MIB_MAX, JSON_REQUIRED, 0);
    spec.memory_backing = (enum vmm_memory_backing)json_read_enum(
        &reader, "memory_backing", vm_memory_names, VMM_MEMORY_COUNT, JSON_OPTIONAL, 0);
    read_memory_sizes(&reader, &spec);
    vm_share_read(&reader, &spec.share);
    boot = json_read_object(&reader, "boot", JSON_REQUIRED);
    disks = json_read_array(&reader, "disks", VMM_DISKS_MAX, JSON_OPTIONAL);
    nics = json_read_array(&reader, "nics", VMM_NICS_MAX, JSON_OPTIONAL);
    balloon = json_read_object(&reader, "balloon", JSON_OPTIONAL);
    vsock = json_read_object(&reader, "vsock", JSON_OPTIONAL);
    labels = labels_read(&reader);
    spec.restart = (enum vm_restart)json_read_enum(&reader, "restart", vm_restart_names,
                                                   VM_RESTART_COUNT, JSON_OPTIONAL, 0);
    spec.on_reboot = (enum vm_on_reboot)json_read_enum(&reader, "on_reboot", vm_on_reboot_names,
                                                       VM_ON_REBOOT_COUNT, JSON_OPTIONAL, 0);
    spec.autostart = json_read_bool(&reader, "autostart", false);
    spec.autostart_order = (unsigned)json_read_integer(&reader, "autostart_order", 0,
                                                       VM_AUTOSTART_ORDER_MAX, JSON_OPTIONAL, 0);
    spec.delete_protection = json_read_bool(&reader, "delete_protection", false);
    spec.desired_running =
        json_read_enum(&reader, "desired_state", desired_names, 2, JSON_OPTIONAL, 1) == 1;
    spec.stop_timeout_s =
        (unsigned)json_read_integer(&reader, "stop_timeout_seconds", 1, VM_STOP_TIMEOUT_MAX_S,
                                    JSON_OPTIONAL, VM_STOP_TIMEOUT_DEFAULT_S);
    result = json_reader_end(&reader);
    if (result < 0)
        return result;
    spec.labels = labels_copy(labels);
    if (!spec.labels)
        return error_set(err, ENOMEM, "read a VM's spec");
    result = parse_parts(boot, disks, nics, balloon, vsock, &spec, err);
    if (result < 0) {
        vm_spec_clear(&spec);
        return result;
    }
    *ret_spec = spec;
    return 0;
}

void vm_spec_clear(struct vm_spec *spec)
{
    json_decref(spec->labels);
    *spec = (struct vm_spec){ 0 };
}

/* --- places --- */

void vm_spec_keep_places(struct vm_spec *spec, const struct vm_spec *from)
{
    for (unsigned i = 0; i < spec->disk_count; i++)
        for (unsigned k = 0; k < from->disk_count; k++)
            if (strcmp(spec->disks[i].name, from->disks[k].name) == 0)
                spec->disks[i].place = from->disks[k].place;
    for (unsigned i = 0; i < spec->nic_count; i++)
        for (unsigned k = 0; k < from->nic_count; k++)
            if (strcmp(spec->nics[i].name, from->nics[k].name) == 0)
                spec->nics[i].place = from->nics[k].place;
}

void vm_spec_copy_places(struct vm_spec *spec, const struct vm_spec *from)
{
    for (unsigned i = 0; i < spec->disk_count && i < from->disk_count; i++)
        spec->disks[i].place = from->disks[i].place;
    for (unsigned i = 0; i < spec->nic_count && i < from->nic_count; i++)
        spec->nics[i].place = from->nics[i].place;
}

int vm_spec_store_places(const struct vm_spec *spec, json_t *status)
{
    json_t *disks = json_array();
    json_t *nics = json_array();
    int result = 0;

    for (unsigned i = 0; i < spec->disk_count; i++)
        result |= json_array_append_new(disks, json_integer(spec->disks[i].place));
    for (unsigned i = 0; i < spec->nic_count; i++)
        result |= json_array_append_new(nics, json_integer(spec->nics[i].place));
    result |= json_object_set_new(status, "disk_places", disks);
    result |= json_object_set_new(status, "nic_places", nics);
    return result;
}

static uint8_t restored_place(const json_t *status, const char *key, unsigned index, uint8_t place)
{
    const json_t *stored = json_array_get(json_object_get(status, key), index);

    return stored ? (uint8_t)json_integer_value(stored) : place;
}

void vm_spec_restore_places(struct vm_spec *spec, const json_t *status)
{
    for (unsigned i = 0; i < spec->disk_count; i++)
        spec->disks[i].place =
            restored_place(status, "disk_places", i, spec->disks[i].place) % VMM_DISKS_MAX;
    for (unsigned i = 0; i < spec->nic_count; i++)
        spec->nics[i].place =
            restored_place(status, "nic_places", i, spec->nics[i].place) % VMM_NICS_MAX;
}

/* --- and back --- */

static json_t *rate_limit_json(const struct vmm_rate_limit *limit)
{
    return json_pack(
        "{s:I, s:I, s:I, s:I}", "bytes_per_second", (json_int_t)limit->bytes_per_second,
        "bytes_burst", (json_int_t)limit->bytes_burst, "ops_per_second",
        (json_int_t)limit->operations_per_second, "ops_burst", (json_int_t)limit->operations_burst);
}

static json_t *disks_json(const struct vm_spec *spec)
{
    json_t *array = json_array();
    int result = 0;

    for (unsigned i = 0; i < spec->disk_count; i++) {
        const struct vm_disk_spec *disk = &spec->disks[i];
        json_t *item =
            json_pack("{s:s, s:s, s:b, s:s, s:s, s:i}", "name", disk->name, "volume", disk->volume,
                      "read_only", disk->read_only, "cache", cache_names[disk->cache], "on_enospc",
                      enospc_names[disk->on_enospc], "queues", (int)disk->queues);

        if (disk->has_rate_limit)
            result |= json_object_set_new(item, "rate_limit", rate_limit_json(&disk->rate_limit));
        result |= json_array_append_new(array, item);
    }
    return json_whole(array, result);
}

static json_t *nics_json(const struct vm_spec *spec)
{
    json_t *array = json_array();
    int result = 0;

    for (unsigned i = 0; i < spec->nic_count; i++) {
        const struct vm_nic_spec *nic = &spec->nics[i];
        json_t *item = json_pack("{s:s, s:s, s:i, s:b}", "name", nic->name, "network", nic->network,
                                 "queues", (int)nic->queues, "vhost", nic->vhost);
        char text[32];

        if (nic->has_mac) {
            mac_format(nic->mac, text);
            result |= json_object_set_new(item, "mac", json_string(text));
        }
        if (nic->has_ipv4) {
            ipv4_format(nic->ipv4, text);
            result |= json_object_set_new(item, "ipv4", json_string(text));
        }
        if (nic->has_rx_rate_limit)
            result |=
                json_object_set_new(item, "rx_rate_limit", rate_limit_json(&nic->rx_rate_limit));
        if (nic->has_tx_rate_limit)
            result |=
                json_object_set_new(item, "tx_rate_limit", rate_limit_json(&nic->tx_rate_limit));
        result |= json_array_append_new(array, item);
    }
    return json_whole(array, result);
}

static json_t *vsock_json(const struct vm_vsock_spec *vsock)
{
    json_t *ports = json_array();
    int result = 0;

    for (unsigned i = 0; i < vsock->port_count; i++)
        result |= json_array_append_new(ports, json_pack("{s:I, s:s}", "port",
                                                         (json_int_t)vsock->ports[i].port, "socket",
                                                         vsock->ports[i].socket));
    return json_pack("{s:I, s:o}", "cid", (json_int_t)vsock->cid, "ports",
                     json_whole(ports, result));
}

json_t *vm_spec_json(const struct vm_spec *spec)
{
    json_t *json;
    json_t *boot = spec->snapshot[0]
                       ? json_pack("{s:s}", "snapshot", spec->snapshot)
                       : json_pack("{s:s, s:s}", "kernel", spec->kernel, "cmdline", spec->cmdline);

    json_t *balloon = json_pack("{s:i, s:b, s:i}", "amount_mib", (int)spec->balloon.amount_mib,
                                "deflate_on_oom", spec->balloon.deflate_on_oom,
                                "stats_interval_seconds", (int)spec->balloon.stats_interval_s);
    int result = 0;

    if (spec->fork[0])
        result |= json_object_set_new(boot, "fork", json_string(spec->fork));
    if (spec->initrd[0])
        result |= json_object_set_new(boot, "initrd", json_string(spec->initrd));
    json = json_pack(
        "{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:o, s:o, s:o, s:o, s:O, s:s, s:b, s:i, "
        "s:b, s:s, s:s, s:i}",
        "cpu", cpu_baseline_names[spec->cpu], "vcpus", (int)spec->vcpus, "memory_mib",
        (int)spec->memory_mib, "memory_max_mib", (int)spec->memory_max_mib, "memory_target_mib",
        (int)spec->memory_target_mib, "memory_min_mib", (int)spec->memory_min_mib, "memory_weight",
        (int)spec->memory_weight, "priority", (int)spec->priority, "memory_backing",
        vm_memory_names[spec->memory_backing], "boot", boot, "disks", disks_json(spec), "nics",
        nics_json(spec), "balloon", balloon, "labels", spec->labels, "restart",
        vm_restart_names[spec->restart], "autostart", spec->autostart, "autostart_order",
        (int)spec->autostart_order, "delete_protection", spec->delete_protection, "on_reboot",
        vm_on_reboot_names[spec->on_reboot], "desired_state", desired_names[spec->desired_running],
        "stop_timeout_seconds", (int)spec->stop_timeout_s);
    result |= vm_share_put(json, &spec->share);
    if (spec->vsock.cid)
        result |= json_object_set_new(json, "vsock", vsock_json(&spec->vsock));
    return json_whole(json, result);
}
