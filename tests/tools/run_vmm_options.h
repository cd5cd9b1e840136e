/* run_vmm_options.h - what run_vmm.c is told, and has.  In one file of a program. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "vmm/control_protocol.h"

#define EXIT_NOT_STARTED 125
#define FORKS_MAX        16
#define FDS_MAX          (4 + VMM_LAYERS_MAX + VMM_DISKS_MAX + VMM_NICS_MAX)

struct run {
    const char *vmm, *kernel;
    const char *disks[VMM_DISKS_MAX];
    const char *taps[VMM_NICS_MAX];
    bool measure, quiet, unjailed;
    int power_after_s, timeout_s;   /* -1 = never */
    const char *snapshot, *restore; /* path prefixes of the files .state and .memory */
    const char *when, *until;       /* on its console: times count from there; it is killed */
    int snapshot_after_ms, cpu;     /* cpu: enum cpu_baseline */
    const char *fork;               /* path prefix of the forks' consoles */
    int fork_after_ms[FORKS_MAX];
    unsigned fork_count, forked;
    struct vmm_configure configure;

    char directory[32], jail[40];
    int directory_fd, listener, connection, pidfd, signals;
    pid_t pid;
    int fds[FDS_MAX];
    size_t fd_count;
    struct stats_page *page;
    uint64_t console_shown, spawn_ns, configure_ns, begin_ns; /* 0: not yet said */
};

static void usage(void)
{
    fputs(
        "usage: run_vmm --kernel FILE [--vmm FILE] [--cmdline TEXT]\n"
        "         [--memory MIB] [--vcpus N] [--disk FILE]... [--tap NAME]...\n"
        "         [--hotplug MIB [--plug MIB]] [--memory-backing N]   enum vmm_memory_backing of "
        "control_protocol.h\n"
        "         [--vsock CID] [--cpu N]   enum cpu_baseline of cpu_baseline.h\n"
        "         [--power-after S] [--timeout S] [--measure] [--quiet]\n"
        "         [--unjailed]    with this environment, for a VMM that needs a dynamic loader\n"
        "         [--when TEXT]   on the console: what is done after some time counts from there\n"
        "         [--until TEXT]  and ends then, as after --timeout\n"
        "         [--snapshot PREFIX [--snapshot-after MS]]   and ends then\n"
        "       run_vmm --restore PREFIX ...              instead of --kernel\n"
        "         [--fork PREFIX --fork-after MS...]   a fork each time, its console to PREFIX.0, "
        "...\n",
        stderr);
    exit(EXIT_NOT_STARTED);
}

static void add_disk(struct run *run, const char *path)
{
    struct vmm_disk *disk = &run->configure.disks[run->configure.disk_count];

    if (run->configure.disk_count == VMM_DISKS_MAX)
        usage();
    disk->format = VMM_DISK_RAW, disk->queues = 1, disk->place = run->configure.disk_count;
    run->disks[run->configure.disk_count++] = path;
}

static void add_tap(struct run *run, const char *name)
{
    struct vmm_nic *nic = &run->configure.nics[run->configure.nic_count];

    if (run->configure.nic_count == VMM_NICS_MAX)
        usage();
    memcpy(nic->mac, (uint8_t[]){ 2, 0, 0, 0, 0, (uint8_t)(1 + run->configure.nic_count) }, 6);
    nic->queues = 1, nic->place = run->configure.nic_count;
    run->taps[run->configure.nic_count++] = name;
}

/* Options that are nothing but a text, a number or a switch of struct run; how many words it took.
 */
static int set_field(struct run *run, const char *name, const char *value)
{
    const struct {
        const char *name, **text;
        int *number;
        bool *on;
        uint64_t *mib;
    } fields[] = {
        { "--vmm", .text = &run->vmm },
        { "--kernel", .text = &run->kernel },
        { "--snapshot", .text = &run->snapshot },
        { "--restore", .text = &run->restore },
        { "--fork", .text = &run->fork },
        { "--when", .text = &run->when },
        { "--until", .text = &run->until },
        { "--cpu", .number = &run->cpu },
        { "--power-after", .number = &run->power_after_s },
        { "--timeout", .number = &run->timeout_s },
        { "--snapshot-after", .number = &run->snapshot_after_ms },
        { "--memory", .mib = &run->configure.memory_bytes },
        { "--hotplug", .mib = &run->configure.hotplug_bytes },
        { "--plug", .mib = &run->configure.requested_bytes },
        { "--measure", .on = &run->measure },
        { "--quiet", .on = &run->quiet },
        { "--unjailed", .on = &run->unjailed },
    };

    for (size_t i = 0; i < ARRAY_LENGTH(fields); i++) {
        if (strcmp(name, fields[i].name) != 0)
            continue;
        if (fields[i].on)
            *fields[i].on = true;
        else if (!value)
            usage();
        else if (fields[i].text)
            *fields[i].text = value;
        else if (fields[i].mib)
            *fields[i].mib = strtoull(value, NULL, 10) << 20;
        else
            *fields[i].number = atoi(value);
        return fields[i].on ? 1 : 2;
    }
    return 0;
}

static void add_field(struct run *run, const char *name, const char *value)
{
    struct vmm_configure *configure = &run->configure;

    if (!value)
        usage();
    else if (strcmp(name, "--cmdline") == 0)
        snprintf(configure->cmdline, sizeof configure->cmdline, "%s", value);
    else if (strcmp(name, "--memory-backing") == 0)
        configure->memory_backing = (uint8_t)atoi(value);
    else if (strcmp(name, "--vsock") == 0)
        configure->vsock_cid = strtoull(value, NULL, 10);
    else if (strcmp(name, "--vcpus") == 0)
        configure->vcpus = (uint32_t)atoi(value);
    else if (strcmp(name, "--disk") == 0)
        add_disk(run, value);
    else if (strcmp(name, "--tap") == 0)
        add_tap(run, value);
    else if (strcmp(name, "--fork-after") == 0 && run->fork_count < FORKS_MAX)
        run->fork_after_ms[run->fork_count++] = atoi(value);
    else
        usage();
}

static void read_options(struct run *run, int argc, char **argv)
{
    for (int i = 1, taken; i < argc; i += taken) { /* argv ends with a NULL */
        taken = set_field(run, argv[i], argv[i + 1]);
        if (taken == 0) {
            add_field(run, argv[i], argv[i + 1]);
            taken = 2;
        }
    }
    if (!run->kernel && !run->restore)
        usage();
}
