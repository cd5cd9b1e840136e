/* GET /metrics: one sample per VM, taken once, printed family by family.  No message to any VMM:
 * counters come from the shared pages, CPU time and memory from the kernel, for a guest may have
 * taken over who writes the page.  The cost per VM is constant: two reads of open files, a clock.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent/jail.h"
#include "agent/node_events.h"
#include "agent/operation.h"
#include "agent/node_internal.h"
#include "agent/node_snapshot.h"
#include "agent/version.h"
#include "agent/vm_memory.h"
#include "base/cleanup.h"
#include "base/histogram.h"
#include "base/log.h"
#include "base/json.h"
#include "base/text.h"
#include "storage/database.h"
#include "storage/space.h"

enum memory_kind {
    MEMORY_ANONYMOUS,
    MEMORY_FILE,
    MEMORY_SHARED,
    MEMORY_SWAPPED,
    MEMORY_PAGE_TABLES,
    MEMORY_KIND_COUNT
};

/* In /proc/PID/status, KiB. */
static const struct {
    const char *name;
    const char *line;
} memory_kinds[MEMORY_KIND_COUNT] = {
    [MEMORY_ANONYMOUS] = { "anonymous", "\nRssAnon:" },
    [MEMORY_FILE] = { "file", "\nRssFile:" },
    [MEMORY_SHARED] = { "shared", "\nRssShmem:" },
    [MEMORY_SWAPPED] = { "swapped", "\nVmSwap:" },
    [MEMORY_PAGE_TABLES] = { "page_tables", "\nVmPTE:" },
};

static const char *const exit_kinds[STATS_EXIT_COUNT] = {
    [STATS_EXIT_IO] = "io",
    [STATS_EXIT_MMIO] = "mmio",
    [STATS_EXIT_SIGNAL] = "signal",
    [STATS_EXIT_OTHER] = "other",
};

struct vm_sample {
    const char *id;
    uint64_t running, vcpus, memory_bytes, resident_bytes, restarts, console_bytes, rng_bytes;
    uint64_t demand_bytes, entitled_bytes, high_bytes, wanted_bytes;
    uint64_t memory[MEMORY_KIND_COUNT], exits[STATS_EXIT_COUNT];
    double cpu_seconds;
    uint64_t throttled_us;
    struct stats_balloon balloon;
    unsigned disk_count, nic_count;
    const struct vm_spec *spec;
    struct stats_disk disks[STATS_DISKS_MAX]; /* by place, as the next */
    struct stats_nic nics[STATS_NICS_MAX];
    struct stats_vsock vsock;
    uint64_t vsock_open;
};

struct family {
    const char *name;
    const char *type;
    const char *help;
    size_t offset; /* of a uint64_t */
};

static const struct family vm_families[] = {
    { "warren_vm_running", "gauge", "1 while the VM runs", offsetof(struct vm_sample, running) },
    { "warren_vm_vcpus", "gauge", "Virtual CPUs", offsetof(struct vm_sample, vcpus) },
    { "warren_vm_memory_bytes", "gauge", "Memory the guest was given",
      offsetof(struct vm_sample, memory_bytes) },
    { "warren_vm_memory_resident_bytes", "gauge", "Memory of the VM's process in RAM",
      offsetof(struct vm_sample, resident_bytes) },
    { "warren_vm_restarts_total", "counter", "Starts by restart policy or reboot",
      offsetof(struct vm_sample, restarts) },
    { "warren_vm_console_bytes_total", "counter", "Bytes written to the serial console",
      offsetof(struct vm_sample, console_bytes) },
    { "warren_vm_rng_bytes_total", "counter", "Random bytes given to the guest",
      offsetof(struct vm_sample, rng_bytes) },
    { "warren_vm_balloon_target_bytes", "gauge", "Memory that the guest is asked to give back",
      offsetof(struct vm_sample, balloon.target_bytes) },
    { "warren_vm_balloon_bytes", "gauge", "Memory that the guest says it has given back",
      offsetof(struct vm_sample, balloon.actual_bytes) },
    { "warren_vm_balloon_inflated_bytes_total", "counter", "Memory given back by the balloon",
      offsetof(struct vm_sample, balloon.inflated_bytes) },
    { "warren_vm_balloon_reported_bytes_total", "counter", "Memory reported as free, and taken",
      offsetof(struct vm_sample, balloon.reported_bytes) },
};

/* What the balancer decides, where it does. */
static const struct family plan_families[] = {
    { "warren_vm_memory_working_set_bytes", "gauge", "Memory that the VM is thought to need",
      offsetof(struct vm_sample, demand_bytes) },
    { "warren_vm_memory_entitled_bytes", "gauge", "Memory it may have while the host is short",
      offsetof(struct vm_sample, entitled_bytes) },
    { "warren_vm_memory_target_bytes", "gauge", "Memory that its balloon is to leave it",
      offsetof(struct vm_sample, wanted_bytes) },
    { "warren_vm_memory_high_bytes", "gauge", "memory.high of its cgroup; 0 = none",
      offsetof(struct vm_sample, high_bytes) },
};

/* What guests say of their memory; the tags of virtio 1.2, 5.5.6.4. */
static const struct guest_family {
    const char *name;
    const char *type;
    const char *help;
    unsigned tag;
} guest_families[] = {
    { "warren_vm_memory_total_bytes", "gauge", "Memory that the guest sees", 5 },
    { "warren_vm_memory_free_bytes", "gauge", "Memory that the guest does not use", 4 },
    { "warren_vm_memory_available_bytes", "gauge", "Memory free or easily freed in the guest", 6 },
    { "warren_vm_memory_cached_bytes", "gauge", "Memory that caches files in the guest", 7 },
    { "warren_vm_memory_swap_in_bytes_total", "counter", "Memory swapped in by the guest", 0 },
    { "warren_vm_memory_swap_out_bytes_total", "counter", "Memory swapped out by the guest", 1 },
    { "warren_vm_memory_major_faults_total", "counter", "Page faults in the guest that waited", 2 },
    { "warren_vm_memory_minor_faults_total", "counter", "Other page faults in the guest", 3 },
};

static const struct family disk_families[] = {
    { "warren_vm_block_reads_total", "counter", "Read requests",
      offsetof(struct stats_disk, read_ops) },
    { "warren_vm_block_writes_total", "counter", "Write requests",
      offsetof(struct stats_disk, write_ops) },
    { "warren_vm_block_flushes_total", "counter", "Flush requests",
      offsetof(struct stats_disk, flush_ops) },
    { "warren_vm_block_discards_total", "counter", "Discard and write-zeroes requests",
      offsetof(struct stats_disk, discard_ops) },
    { "warren_vm_block_read_bytes_total", "counter", "Bytes read",
      offsetof(struct stats_disk, read_bytes) },
    { "warren_vm_block_written_bytes_total", "counter", "Bytes written",
      offsetof(struct stats_disk, write_bytes) },
    { "warren_vm_block_errors_total", "counter", "Requests answered with an error",
      offsetof(struct stats_disk, errors) },
};

static const struct family nic_families[] = {
    { "warren_vm_network_receive_packets_total", "counter", "Frames to the guest",
      offsetof(struct stats_nic, rx_frames) },
    { "warren_vm_network_receive_bytes_total", "counter", "Bytes to the guest",
      offsetof(struct stats_nic, rx_bytes) },
    { "warren_vm_network_receive_drop_total", "counter", "Frames to the guest dropped",
      offsetof(struct stats_nic, rx_dropped) },
    { "warren_vm_network_transmit_packets_total", "counter", "Frames from the guest",
      offsetof(struct stats_nic, tx_frames) },
    { "warren_vm_network_transmit_bytes_total", "counter", "Bytes from the guest",
      offsetof(struct stats_nic, tx_bytes) },
    { "warren_vm_network_transmit_drop_total", "counter", "Frames from the guest dropped",
      offsetof(struct stats_nic, tx_dropped) },
};

/* Of the VMs that have one. */
static const struct family vsock_families[] = {
    { "warren_vm_vsock_connections_total", "counter", "Connections made, either way",
      offsetof(struct vm_sample, vsock.connections) },
    { "warren_vm_vsock_connections", "gauge", "Connections that are open",
      offsetof(struct vm_sample, vsock_open) },
    { "warren_vm_vsock_receive_bytes_total", "counter", "Bytes to the guest",
      offsetof(struct vm_sample, vsock.rx_bytes) },
    { "warren_vm_vsock_transmit_bytes_total", "counter", "Bytes from the guest",
      offsetof(struct vm_sample, vsock.tx_bytes) },
};

/* --- sampling --- */

/* By its clock: /proc/PID/stat has the same number, for eight times the work. */
static double cpu_seconds(pid_t pid)
{
    struct timespec used;
    clockid_t clock;

    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &used) < 0)
        return 0;
    return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

static void sample_process(const struct vm *vm, struct vm_sample *sample)
{
    char text[4096];
    ssize_t got = pread(vm->status_fd, text, sizeof text - 1, 0);
    const char *at;

    sample->cpu_seconds = cpu_seconds(vm->pid);
    text[got > 0 ? got : 0] = '\0';
    for (int kind = 0; kind < MEMORY_KIND_COUNT; kind++) {
        at = strstr(text, memory_kinds[kind].line);
        if (at)
            sample->memory[kind] = strtoull(at + strlen(memory_kinds[kind].line), NULL, 10) << 10;
    }
    sample->resident_bytes = sample->memory[MEMORY_ANONYMOUS] + sample->memory[MEMORY_FILE] +
                             sample->memory[MEMORY_SHARED];
}

static void sample_vm(const struct node *node, const struct vm *vm, struct vm_sample *sample)
{
    struct stats_page page;
    uint32_t current_mib;

    *sample = (struct vm_sample){
        .id = vm->head.id,
        .running = vm->state == VM_RUNNING,
        .vcpus = vm->spec.vcpus,
        .restarts = vm->restarts,
        .demand_bytes = (uint64_t)vm->plan.demand_mib << 20,
        .entitled_bytes = (uint64_t)vm->plan.entitled_mib << 20,
        .high_bytes = (uint64_t)vm->plan.high_mib << 20,
        .disk_count = vm->spec.disk_count,
        .nic_count = vm->spec.nic_count,
        .spec = &vm->spec,
    };
    if (vm->pid > 0) {
        sample_process(vm, sample);
        if (vm->spec.share.cpu_limit_percent > 0)
            sample->throttled_us =
                jail_cgroup_throttled_us(jail_cgroups(node->jail), vm->head.instance);
    }
    vm_read_page(node, vm, &page);
    sample->console_bytes = page.console_bytes;
    sample->rng_bytes = page.rng_bytes;
    sample->balloon = page.balloon;
    current_mib = vm_memory_current_mib(vm, &page);
    sample->memory_bytes = (uint64_t)current_mib << 20;
    if (current_mib > vm->plan.balloon_mib) /* it may have been unplugged since that was planned */
        sample->wanted_bytes = (uint64_t)(current_mib - vm->plan.balloon_mib) << 20;
    for (unsigned i = 0; i < vm->spec.vcpus && i < STATS_VCPUS_MAX; i++)
        for (int kind = 0; kind < STATS_EXIT_COUNT; kind++)
            sample->exits[kind] += page.vcpu_exits[i][kind];
    memcpy(sample->disks, page.disks, sizeof sample->disks);
    memcpy(sample->nics, page.nics, sizeof sample->nics);
    sample->vsock = page.vsock;
    sample->vsock_open =
        page.vsock.connections > page.vsock.closed ? page.vsock.connections - page.vsock.closed : 0;
}

/* --- printing --- */

static void head(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP %s %s.\n# TYPE %s %s\n", name, help, name, type);
}

static uint64_t field(const void *object, size_t offset)
{
    uint64_t value;

    memcpy(&value, (const char *)object + offset, sizeof value);
    return value;
}

static void print_families(FILE *out, const struct family *families, size_t family_count,
                           const struct vm_sample *samples, size_t count)
{
    for (size_t f = 0; f < family_count; f++) {
        const struct family *family = &families[f];

        head(out, family->name, family->type, family->help);
        for (size_t i = 0; i < count; i++)
            fprintf(out, "%s{vm=\"%s\"} %" PRIu64 "\n", family->name, samples[i].id,
                    field(&samples[i], family->offset));
    }
}

static void print_vms(FILE *out, const struct vm_sample *samples, size_t count)
{
    print_families(out, vm_families, ARRAY_LENGTH(vm_families), samples, count);
    head(out, "warren_vm_exits_total", "counter", "Exits of its vCPUs to the VMM since start");
    for (size_t i = 0; i < count; i++)
        for (int kind = 0; kind < STATS_EXIT_COUNT; kind++)
            fprintf(out, "warren_vm_exits_total{vm=\"%s\",reason=\"%s\"} %" PRIu64 "\n",
                    samples[i].id, exit_kinds[kind], samples[i].exits[kind]);
    head(out, "warren_vm_process_memory_bytes", "gauge", "Memory of the VM's process by kind");
    for (size_t i = 0; i < count; i++)
        for (int kind = 0; kind < MEMORY_KIND_COUNT; kind++)
            fprintf(out, "warren_vm_process_memory_bytes{vm=\"%s\",kind=\"%s\"} %" PRIu64 "\n",
                    samples[i].id, memory_kinds[kind].name, samples[i].memory[kind]);
    head(out, "warren_vm_cpu_seconds_total", "counter", "CPU time of the VM's process");
    for (size_t i = 0; i < count; i++)
        fprintf(out, "warren_vm_cpu_seconds_total{vm=\"%s\"} %.2f\n", samples[i].id,
                samples[i].cpu_seconds);
    head(out, "warren_vm_cpu_throttled_seconds_total", "counter",
         "Time for which cpu_limit_percent held the VM back");
    for (size_t i = 0; i < count; i++)
        if (samples[i].spec->share.cpu_limit_percent > 0)
            fprintf(out, "warren_vm_cpu_throttled_seconds_total{vm=\"%s\"} %.3f\n", samples[i].id,
                    (double)samples[i].throttled_us / 1e6);
}

/* A guest that has not said it has no line. */
static void print_guests(FILE *out, const struct vm_sample *samples, size_t count)
{
    for (size_t f = 0; f < ARRAY_LENGTH(guest_families); f++) {
        const struct guest_family *family = &guest_families[f];

        head(out, family->name, family->type, family->help);
        for (size_t i = 0; i < count; i++)
            if (samples[i].balloon.guest_known >> family->tag & 1)
                fprintf(out, "%s{vm=\"%s\"} %" PRIu64 "\n", family->name, samples[i].id,
                        samples[i].balloon.guest[family->tag]);
    }
}

static void print_disks(FILE *out, const struct vm_sample *samples, size_t count)
{
    for (size_t f = 0; f < ARRAY_LENGTH(disk_families); f++) {
        const struct family *family = &disk_families[f];

        head(out, family->name, family->type, family->help);
        for (size_t i = 0; i < count; i++)
            for (unsigned d = 0; d < samples[i].disk_count; d++)
                fprintf(out, "%s{vm=\"%s\",disk=\"%s\"} %" PRIu64 "\n", family->name, samples[i].id,
                        samples[i].spec->disks[d].name,
                        field(&samples[i].disks[samples[i].spec->disks[d].place], family->offset));
    }
}

/* One that the host's kernel serves has no line: nobody here counts its frames. */
static void print_nics(FILE *out, const struct vm_sample *samples, size_t count)
{
    for (size_t f = 0; f < ARRAY_LENGTH(nic_families); f++) {
        const struct family *family = &nic_families[f];

        head(out, family->name, family->type, family->help);
        for (size_t i = 0; i < count; i++)
            for (unsigned n = 0; n < samples[i].nic_count; n++)
                if (!samples[i].nics[samples[i].spec->nics[n].place].vhost)
                    fprintf(
                        out, "%s{vm=\"%s\",nic=\"%s\"} %" PRIu64 "\n", family->name, samples[i].id,
                        samples[i].spec->nics[n].name,
                        field(&samples[i].nics[samples[i].spec->nics[n].place], family->offset));
    }
}

static void print_vsocks(FILE *out, const struct vm_sample *samples, size_t count)
{
    for (size_t f = 0; f < ARRAY_LENGTH(vsock_families); f++) {
        const struct family *family = &vsock_families[f];

        head(out, family->name, family->type, family->help);
        for (size_t i = 0; i < count; i++)
            if (samples[i].spec->vsock.cid)
                fprintf(out, "%s{vm=\"%s\"} %" PRIu64 "\n", family->name, samples[i].id,
                        field(&samples[i], family->offset));
    }
}

static void print_gauge(FILE *out, const char *name, const char *help, uint64_t value)
{
    head(out, name, "gauge", help);
    fprintf(out, "%s %" PRIu64 "\n", name, value);
}

static void print_counts(FILE *out, const struct node *node)
{
    uint64_t states[VM_STATE_COUNT] = { 0 };
    uint64_t full = 0, unkillable = 0, cut_off = 0;
    const struct vm *vm;

    for (size_t i = 0; (vm = node_vm_at(node, i)); i++) {
        states[vm->state]++;
        full += vm->full[0] != '\0';
        unkillable += vm->kill_sent && vm->pidfd >= 0;
        cut_off += vm->silent || vm_is_cut_off(vm);
    }
    head(out, "warren_vms", "gauge", "VMs by state");
    for (int state = VM_NONE + 1; state < VM_STATE_COUNT; state++)
        fprintf(out, "warren_vms{state=\"%s\"} %" PRIu64 "\n", vm_state_name(state), states[state]);
    print_gauge(out, "warren_vms_disk_full", "VMs paused until the host's disk has space", full);
    print_gauge(out, "warren_vms_kill_pending", "VMs that were killed, and have not ended yet",
                unkillable);
    print_gauge(out, "warren_vms_cut_off", "VMs whose VMM does not answer, or is not connected",
                cut_off);
    head(out, "warren_vm_ends_total", "counter", "Ends of VMs by reason, since the agent started");
    for (int cause = 0; cause < VM_CAUSE_COUNT; cause++)
        fprintf(out, "warren_vm_ends_total{reason=\"%s\"} %" PRIu64 "\n", vm_cause_name(cause),
                node->exits[cause]);
}

static void print_snapshots(FILE *out, const struct node *node)
{
    const struct snapshot *snapshot;
    uint64_t states[PROGRESS_STATE_COUNT] = { 0 };
    uint64_t bytes = 0;

    for (size_t i = 0; (snapshot = node_snapshot_at(node, i)); i++) {
        states[snapshot->state]++;
        bytes += snapshot->state == PROGRESS_READY ? snapshot->size_bytes : 0;
    }
    head(out, "warren_snapshots", "gauge", "Snapshots by state");
    for (int state = 0; state < PROGRESS_STATE_COUNT; state++)
        fprintf(out, "warren_snapshots{state=\"%s\"} %" PRIu64 "\n",
                progress_state_name((enum progress_state)state, "creating"), states[state]);
    print_gauge(out, "warren_snapshot_bytes", "What the snapshots take on disk", bytes);
}

static void print_networks(FILE *out, const struct node *node)
{
    const struct network *network;

    head(out, "warren_network_restarts_total", "counter",
         "Times that the network's dnsmasq, or its bridge, taps or rules, had to be restored");
    for (size_t i = 0; (network = node_network_at(node, i)); i++)
        if (!network->head.hidden)
            fprintf(out, "warren_network_restarts_total{network=\"%s\"} %u\n", network->head.id,
                    network->restarts);
}

static void print_memory(FILE *out, const struct node *node)
{
    struct node_memory_figures figures = node_memory_figures(node);

    head(out, "warren_memory_level", "gauge", "1 for how the host's memory stands");
    for (unsigned level = 0; level < BALANCER_LEVEL_COUNT; level++)
        fprintf(out, "warren_memory_level{level=\"%s\"} %d\n", balancer_level_names[level],
                figures.level == level);
    print_gauge(out, "warren_memory_free_bytes",
                "Memory for VMs that is free, where it is balanced", figures.free_mib << 20);
    print_gauge(out, "warren_memory_capacity_bytes", "Memory for VMs, where it is balanced",
                figures.capacity_mib << 20);
    print_gauge(out, "warren_memory_swapped_bytes", "What the host has swapped out, of whomever",
                figures.swapped_mib << 20);
    print_gauge(out, "warren_memory_price",
                "Of memory: the 2^-26ths of its size that a VM of weight 1 can buy; 0 = not known",
                figures.price);
    head(out, "warren_memory_rung", "gauge", "1 for what is done to get memory back");
    for (unsigned rung = 0; rung < BALANCER_RUNG_COUNT; rung++)
        fprintf(out, "warren_memory_rung{rung=\"%s\"} %d\n", balancer_rung_names[rung],
                figures.rung == rung);
    head(out, "warren_memory_actions_total", "counter",
         "What was done to get memory back, by rung; in dry-run, what would have been done");
    for (int rung = BALANCER_BALLOON; rung < BALANCER_RUNG_COUNT; rung++)
        fprintf(out, "warren_memory_actions_total{rung=\"%s\"} %" PRIu64 "\n",
                balancer_rung_names[rung], figures.actions[rung]);
    head(out, "warren_memory_pressure_wakeups_total", "counter",
         "How often tasks that waited for memory woke the balancer (PSI)");
    fprintf(out, "warren_memory_pressure_wakeups_total %" PRIu64 "\n", figures.wakeups);
}

static void print_histogram(FILE *out, const char *name, const char *help,
                            const struct histogram *histogram)
{
    head(out, name, "histogram", help);
    histogram_print(histogram, out, name, "");
}

/* What goes on behind requests: operations, and what reconciles the rows with the host. */
static void print_work(FILE *out, const struct node *node)
{
    const struct operation *operation;
    uint64_t states[OPERATION_STATE_COUNT] = { 0 };
    uint64_t stuck[RESOURCE_OPERATION] = { 0 };

    for (size_t i = 0; (operation = node_operation_at(node, i)); i++)
        states[operation->state]++;
    head(out, "warren_operations", "gauge", "Operations by state");
    for (int state = 0; state < OPERATION_STATE_COUNT; state++)
        fprintf(out, "warren_operations{state=\"%s\"} %" PRIu64 "\n",
                operation_state_name((enum operation_state)state), states[state]);
    head(out, "warren_reconciler_retries_total", "counter", "Work that failed and is tried again");
    for (int kind = 0; kind < RESOURCE_OPERATION; kind++) {
        for (size_t i = 0; i < node->tables[kind].count; i++)
            stuck[kind] += node->tables[kind].items[i]->stuck;
        fprintf(out, "warren_reconciler_retries_total{kind=\"%s\"} %" PRIu64 "\n",
                resource_kind_name(kind), node->retries[kind]);
    }
    head(out, "warren_reconciler_pending", "gauge", "Resources whose work is to be tried again");
    for (int kind = 0; kind < RESOURCE_OPERATION; kind++)
        fprintf(out, "warren_reconciler_pending{kind=\"%s\"} %" PRIu64 "\n",
                resource_kind_name(kind), stuck[kind]);
    head(out, "warren_reconciler_start_seconds", "gauge",
         "What reconciling rows and host took at the agent's start");
    fprintf(out, "warren_reconciler_start_seconds %.6f\n", (double)node->reconcile_us / 1e6);
    print_gauge(out, "warren_reconciler_adopted_vms", "VMs that ran at the agent's start",
                node->adopted);
}

/* By name, how many problems GET /v1/node tells.  NULL if memory is short. */
static json_t *count_problems(const struct node *node)
{
    json_t *findings = node_findings(node), *counts = json_object();
    int result = findings ? 0 : -1;
    const json_t *item;
    const char *name;
    size_t index;

    json_array_foreach(findings, index, item)
    {
        if (!json_is_true(json_object_get(item, "problem")))
            continue;
        name = json_text(item, "name");
        result |= json_object_set_new(
            counts, name, json_integer(json_integer_value(json_object_get(counts, name)) + 1));
    }
    json_decref(findings);
    return json_whole(counts, result);
}

static void print_problems(FILE *out, json_t *counts)
{
    const char *name;
    json_t *count;

    head(out, "warren_node_findings", "gauge", "Problems that GET /v1/node tells, by name");
    json_object_foreach(counts, name, count)
    {
        fprintf(out, "warren_node_findings{name=\"%s\"} %lld\n", name, json_integer_value(count));
    }
}

static void print_disk(FILE *out, const struct node *node)
{
    uint64_t size = 0, available = 0;

    space_filesystem(node->volumes_dir_fd, &size, &available, NULL);
    print_gauge(out, "warren_disk_size_bytes", "Of the file system that holds the volumes", size);
    print_gauge(out, "warren_disk_available_bytes", "What is free there", available);
    print_gauge(out, "warren_disk_promised_bytes", "Promised to volumes and snapshots",
                node_promised_disk(node));
}

static void print_node(FILE *out, const struct node *node, json_t *problems)
{
    static const struct histogram none; /* while the database cannot even be opened */
    struct memory_capacity capacity = node_memory_capacity(node);

    print_counts(out, node);
    print_problems(out, problems);
    print_disk(out, node);
    print_snapshots(out, node);
    print_networks(out, node);
    print_histogram(out, "warren_vm_start_seconds", "From the decision to start to running",
                    &node->starts);
    print_histogram(out, "warren_vm_restore_seconds",
                    "From the decision to start from a snapshot to running", &node->restores);
    print_histogram(out, "warren_vm_hold_seconds",
                    "How long running VMs were held for a snapshot or fork", &node->holds);
    head(out, "warren_build_info", "gauge", "What this agent is");
    fprintf(out, "warren_build_info{version=\"%s\"} 1\n", WARREN_VERSION);
    print_gauge(out, "warren_memory_allocatable_bytes", "Memory that can be promised to VMs",
                admission_allocatable_mib(&capacity) << 20);
    print_gauge(out, "warren_memory_promised_bytes", "Memory promised to VMs, with overhead",
                node_promised(node, NULL).max_mib << 20);
    print_memory(out, node);
    print_gauge(out, "warren_database_healthy", "0 after a commit failed, and while it is damaged",
                node->database_error == 0 && !node->damage[0]);
    head(out, "warren_log_lines_lost_total", "counter", "Of the agent's log, as nobody read it");
    fprintf(out, "warren_log_lines_lost_total %lu\n", atomic_load(&node->log->losses->total));
    print_gauge(out, "warren_console_followers", "Streams of GET /v1/vms/{id}/console?follow=1",
                node_console_followers(node));
    print_gauge(out, "warren_event_streams", "Streams of GET /v1/events", node_event_streams(node));
    head(out, "warren_event_streams_cut_total", "counter", "Those that took nothing for too long");
    fprintf(out, "warren_event_streams_cut_total %" PRIu64 "\n", node->event_listeners_cut);
    print_histogram(out, "warren_database_commit_seconds", "Commits of the state database",
                    node->database ? database_commits(node->database) : &none);
    print_work(out, node);
}

char *node_metrics(struct node *node, size_t *ret_size)
{
    struct vm_sample *samples = calloc(node->tables[RESOURCE_VM].count + 1, sizeof *samples);
    const struct vm *vm;
    json_t *problems = count_problems(node);
    size_t count = 0;
    struct text text;
    FILE *out;

    if (!samples || !problems || !text_open(&text)) {
        free(samples);
        json_decref(problems);
        return NULL;
    }
    out = text.out;
    for (size_t i = 0; (vm = node_vm_at(node, i)); i++)
        if (!vm->head.hidden)
            sample_vm(node, vm, &samples[count++]);
    print_node(out, node, problems);
    print_vms(out, samples, count);
    if (node_memory_is_balanced(node))
        print_families(out, plan_families, ARRAY_LENGTH(plan_families), samples, count);
    print_guests(out, samples, count);
    print_disks(out, samples, count);
    print_nics(out, samples, count);
    print_vsocks(out, samples, count);
    free(samples);
    json_decref(problems);
    return text_close(&text, ret_size);
}
