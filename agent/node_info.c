/* GET /v1/node, and readiness. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "agent/host_memory.h"
#include "agent/jail.h"
#include "agent/node_internal.h"
#include "agent/node_schedule.h"
#include "agent/version.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"
#include "storage/database.h"
#include "storage/space.h"

static int add_finding(json_t *findings, const char *name, bool problem, const char *message)
{
    return json_array_append_new(findings, json_pack("{s:s, s:b, s:o}", "name", name, "problem",
                                                     problem, "message", json_message(message)));
}

/* Could what VMs have in memory be found on a disk when they are gone?  Not by zswap, which is kept
 * from writing it there. */
static bool swap_is_open(const struct node *node, const struct host_memory *memory)
{
    return memory->disk[0] && !(memory->zswap && jail_cgroup_keeps_zswap(jail_cgroups(node->jail)));
}

static int add_memory_findings(const struct node *node, const struct host_memory *memory,
                               json_t *findings)
{
    const char *ratio = node_memory_ratio_finding(node);
    char message[320];
    int result = 0;

    if (memory->ksm_runs)
        result |= add_finding(
            findings, "ksm", true,
            "KSM runs: VMs have no part in it, but how long a write takes tells others what "
            "the rest of the host has in memory; echo 2 > /sys/kernel/mm/ksm/run ends it");
    if (swap_is_open(node, memory)) {
        snprintf(
            message, sizeof message,
            "%s is swap that is not encrypted: what VMs had in memory stays there when they are "
            "gone; use zswap (Linux 6.8), zram, or dm-crypt with a random key",
            memory->disk);
        result |= add_finding(findings, "swap", true, message);
    }
    if (ratio) {
        snprintf(message, sizeof message, "no more than there is can be promised: %s", ratio);
        result |= add_finding(findings, "memory-ratio", true, message);
    }
    return result;
}

/* What kinds of swap there are, and whether zswap is before it. */
static json_t *swap_json(const struct node *node, const struct host_memory *memory)
{
    json_t *kinds = json_array();
    int result = 0;

    for (int kind = 0; kind < SWAP_KIND_COUNT; kind++)
        if (memory->swap_mib[kind] > 0)
            result |= json_array_append_new(kinds, json_string(swap_kind_names[kind]));
    return json_pack("{s:I, s:o, s:s}", "total_mib", (json_int_t)(node->swap_bytes >> 20), "kinds",
                     json_whole(kinds, result), "zswap",
                     !memory->zswap                                      ? "off"
                     : jail_cgroup_keeps_zswap(jail_cgroups(node->jail)) ? "no-writeback"
                                                                         : "writeback");
}

/* Opened, as each VM will: the file is there without its module, too. */
static int check_kvm(struct error *err)
{
    auto_close int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    return fd >= 0 ? 0
                   : error_set(err, EAGAIN,
                               "/dev/kvm cannot be opened (%s): VMs cannot start; modprobe "
                               "kvm_intel or kvm_amd, and see warren-host-check",
                               strerror(errno));
}

static json_t *findings_json(const struct node *node, const struct host_memory *memory)
{
    json_t *findings = json_array();
    struct error err;
    int result = 0;

    if (check_kvm(&err) < 0)
        result |= add_finding(findings, "kvm", true, err.message);
    if (jail_check_cgroup(node->jail, &err) < 0)
        result |= add_finding(findings, "cgroup", true, err.message);
    else if (jail_cgroup_finding(node->jail)[0])
        result |= add_finding(findings, "cgroup", true, jail_cgroup_finding(node->jail));
    result |= add_memory_findings(node, memory, findings);
    if (node->network_trouble[0])
        result |= add_finding(findings, "networks", true, node->network_trouble);
    for (size_t i = 0; i < node->finding_count; i++)
        result |= add_finding(findings, node->findings[i].name, node->findings[i].problem,
                              node->findings[i].message);
    return json_whole(findings, result);
}

json_t *node_findings(const struct node *node)
{
    const struct host_memory memory = host_memory_read("");

    return findings_json(node, &memory);
}

/* Names that a VM's spec may have here. */
static json_t *cpus_json(const struct node *node)
{
    json_t *names = json_array();
    int result = 0;

    for (int i = 0; i < CPU_BASELINE_COUNT; i++)
        if (cpu_baseline_check((enum cpu_baseline)i, jail_cpuid(node->jail), NULL) == 0)
            result |= json_array_append_new(names, json_string(cpu_baseline_names[i]));
    return json_whole(names, result);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* As admission would say now, also that none may come: memory, the disk's share, and a user each.
 * CPUs are shared, so no number of them is used up; but none runs a VM with more than
 * VMM_VCPUS_MAX. */
static uint64_t count_fitting(const struct node *node, const struct node_shape *shape,
                              uint64_t disk_allocatable)
{
    struct memory_capacity capacity = node_memory_capacity(node);
    struct memory_promise in_all = node_promised(node, NULL);
    struct memory_promise each = { shape->memory_mib, shape->memory_min_mib };
    uint64_t users = (uint64_t)node->config->uid_count - JAIL_USER_VMS;
    uint64_t vms = node->tables[RESOURCE_VM].count;
    uint64_t promised = node_promised_disk(node);
    uint64_t fits = users > vms ? users - vms : 0;

    fits = least(fits, admission_fits(&capacity, &in_all, &each));
    if (shape->disk_mib > 0)
        fits = least(fits, promised >= disk_allocatable
                               ? 0
                               : (disk_allocatable - promised) / (shape->disk_mib << 20));
    return shape->vcpus > VMM_VCPUS_MAX || node_check_schedulable(node, NULL) < 0 ? 0 : fits;
}

static int add_vcpus(const struct node *node, json_t *info)
{
    const struct vm *vm;
    uint64_t vcpus = 0;

    for (size_t i = 0; (vm = node_vm_at(node, i)); i++)
        if (vm_state_is_live(vm->state))
            vcpus += vm->spec.vcpus;
    return json_object_set_new(info, "vcpus_allocated", json_integer((json_int_t)vcpus));
}

json_t *node_info(struct node *node, const struct node_shape *shape)
{
    const struct memory_capacity capacity = node_memory_capacity(node);
    const struct host_memory memory = host_memory_read("");
    struct utsname uts;
    uint64_t disk_bytes = 0;
    uint64_t disk_free = 0;
    uint64_t disk_allocatable;
    json_t *info;
    int result;

    uname(&uts);
    space_filesystem(node->volumes_dir_fd, &disk_bytes, &disk_free, NULL);
    disk_allocatable = disk_bytes / 100 * (uint64_t)node->config->disk_ratio_percent;
    info = json_pack(
        "{s:s, s:s, s:s, s:i, s:{s:I, s:I, s:I, s:I}, s:{s:I, s:I, s:I, s:I}, s:{s:i, s:i, s:i, "
        "s:i, s:i}, s:I, s:o, s:o}",
        "version", WARREN_VERSION, "kernel", uts.release, "hostname", uts.nodename, "cpus",
        get_nprocs(), "memory", "total_mib", (json_int_t)capacity.host_mib, "reserved_mib",
        (json_int_t)capacity.reserve_mib, "allocatable_mib",
        (json_int_t)admission_allocatable_mib(&capacity), "allocated_mib",
        (json_int_t)node_promised(node, NULL).max_mib, "disk", "total_bytes",
        (json_int_t)disk_bytes, "free_bytes", (json_int_t)disk_free, "allocatable_bytes",
        (json_int_t)disk_allocatable, "allocated_bytes", (json_int_t)node_promised_disk(node),
        "counts", "vms", (int)node->tables[RESOURCE_VM].count, "images",
        (int)node->tables[RESOURCE_IMAGE].count, "volumes",
        (int)node->tables[RESOURCE_VOLUME].count, "networks",
        (int)node->tables[RESOURCE_NETWORK].count, "snapshots",
        (int)node->tables[RESOURCE_SNAPSHOT].count, "revision", (json_int_t)node->revision,
        "findings", findings_json(node, &memory), "cpu_baselines", cpus_json(node));
    result = add_vcpus(node, info) | node_spec_show(node, info) | node_schedule_status(node, info) |
             json_object_set_new(json_object_get(info, "memory"), "swap", swap_json(node, &memory));
    if (shape)
        result |= json_object_set_new(
            info, "fits", json_integer((json_int_t)count_fitting(node, shape, disk_allocatable)));
    return json_whole(info, result);
}

void node_backup(struct node *node, node_backup_fn *done, void *context)
{
    struct error err = { 0 };

    if (database_backup(node->database, done, context, &err) < 0)
        done(context, NULL, 0, &err);
}

int node_ready(struct node *node, struct error *err)
{
    if (node_check_damage(node, err) < 0)
        return -EUCLEAN;
    if (node->database_error != 0)
        return error_set(err, EAGAIN,
                         "the last change could not be recorded; is the state directory's disk "
                         "full or broken?");
    if (jail_check_cgroup(node->jail, err) < 0)
        return -EAGAIN;
    return check_kvm(err);
}
