/* metrics_vms.c - the VMs' part of GET /metrics: one sample of each, taken once, printed family by
 * family.  No message to any VMM: counters come from the shared pages, CPU time and memory from the
 * kernel, for a guest may have taken over who writes the page.  The cost per VM is constant: two
 * reads of open files, a clock. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent/jail.h"
#include "agent/metrics.h"
#include "agent/node_internal.h"
#include "agent/vm_memory.h"
#include "base/cleanup.h"

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

        metrics_head(out, family->name, family->type, family->help);
        for (size_t i = 0; i < count; i++)
            fprintf(out, "%s{vm=\"%s\"} %" PRIu64 "\n", family->name, samples[i].id,
                    field(&samples[i], family->offset));
    }
}

static void print_vms(FILE *out, const struct vm_sample *samples, size_t count)
{
    print_families(out, vm_families, ARRAY_LENGTH(vm_families), samples, count);
    metrics_head(out, "warren_vm_exits_total", "counter",
                 "Exits of its vCPUs to the VMM since start");
    for (size_t i = 0; i < count; i++)
        for (int kind = 0; kind < STATS_EXIT_COUNT; kind++)
            fprintf(out, "warren_vm_exits_total{vm=\"%s\",reason=\"%s\"} %" PRIu64 "\n",
                    samples[i].id, exit_kinds[kind], samples[i].exits[kind]);
    metrics_head(out, "warren_vm_process_memory_bytes", "gauge",
                 "Memory of the VM's process by kind");
    for (size_t i = 0; i < count; i++)
        for (int kind = 0; kind < MEMORY_KIND_COUNT; kind++)
            fprintf(out, "warren_vm_process_memory_bytes{vm=\"%s\",kind=\"%s\"} %" PRIu64 "\n",
                    samples[i].id, memory_kinds[kind].name, samples[i].memory[kind]);
    metrics_head(out, "warren_vm_cpu_seconds_total", "counter", "CPU time of the VM's process");
    for (size_t i = 0; i < count; i++)
        fprintf(out, "warren_vm_cpu_seconds_total{vm=\"%s\"} %.2f\n", samples[i].id,
                samples[i].cpu_seconds);
    metrics_head(out, "warren_vm_cpu_throttled_seconds_total", "counter",
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

        metrics_head(out, family->name, family->type, family->help);
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

        metrics_head(out, family->name, family->type, family->help);
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

        metrics_head(out, family->name, family->type, family->help);
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

        metrics_head(out, family->name, family->type, family->help);
        for (size_t i = 0; i < count; i++)
            if (samples[i].spec->vsock.cid)
                fprintf(out, "%s{vm=\"%s\"} %" PRIu64 "\n", family->name, samples[i].id,
                        field(&samples[i], family->offset));
    }
}

int metrics_print_vms(FILE *out, const struct node *node)
{
    auto_free struct vm_sample *samples =
        calloc(node->tables[RESOURCE_VM].count + 1, sizeof *samples);
    const struct vm *vm;
    size_t count = 0;

    if (!samples)
        return -ENOMEM;
    for (size_t i = 0; (vm = node_vm_at(node, i)); i++)
        if (!vm->head.hidden)
            sample_vm(node, vm, &samples[count++]);
    print_vms(out, samples, count);
    if (node_memory_is_balanced(node))
        print_families(out, plan_families, ARRAY_LENGTH(plan_families), samples, count);
    print_guests(out, samples, count);
    print_disks(out, samples, count);
    print_nics(out, samples, count);
    print_vsocks(out, samples, count);
    return 0;
}
