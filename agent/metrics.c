/* metrics.c - GET /metrics: what is told of the node; of the VMs: metrics_vms.c. */
#include "agent/metrics.h"
#include <inttypes.h>
#include <stdlib.h>

#include "agent/node_events.h"
#include "agent/node_internal.h"
#include "agent/node_snapshot.h"
#include "agent/operation.h"
#include "agent/version.h"
#include "base/cleanup.h"
#include "base/histogram.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "storage/database.h"
#include "storage/space.h"

void metrics_head(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP %s %s.\n# TYPE %s %s\n", name, help, name, type);
}

static void print_gauge(FILE *out, const char *name, const char *help, uint64_t value)
{
    metrics_head(out, name, "gauge", help);
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
    metrics_head(out, "warren_vms", "gauge", "VMs by state");
    for (int state = VM_NONE + 1; state < VM_STATE_COUNT; state++)
        fprintf(out, "warren_vms{state=\"%s\"} %" PRIu64 "\n", vm_state_name(state), states[state]);
    print_gauge(out, "warren_vms_disk_full", "VMs paused until the host's disk has space", full);
    print_gauge(out, "warren_vms_kill_pending", "VMs that were killed, and have not ended yet",
                unkillable);
    print_gauge(out, "warren_vms_cut_off", "VMs whose VMM does not answer, or is not connected",
                cut_off);
    metrics_head(out, "warren_vm_ends_total", "counter",
                 "Ends of VMs by reason, since the agent started");
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
    metrics_head(out, "warren_snapshots", "gauge", "Snapshots by state");
    for (int state = 0; state < PROGRESS_STATE_COUNT; state++)
        fprintf(out, "warren_snapshots{state=\"%s\"} %" PRIu64 "\n",
                progress_state_name((enum progress_state)state, "creating"), states[state]);
    print_gauge(out, "warren_snapshot_bytes", "What the snapshots take on disk", bytes);
}

static void print_networks(FILE *out, const struct node *node)
{
    const struct network *network;

    metrics_head(
        out, "warren_network_restarts_total", "counter",
        "Times that the network's dnsmasq, or its bridge, taps or rules, had to be restored");
    for (size_t i = 0; (network = node_network_at(node, i)); i++)
        if (!network->head.hidden)
            fprintf(out, "warren_network_restarts_total{network=\"%s\"} %u\n", network->head.id,
                    network->restarts);
}

static void print_memory(FILE *out, const struct node *node)
{
    struct node_memory_figures figures = node_memory_figures(node);

    metrics_head(out, "warren_memory_level", "gauge", "1 for how the host's memory stands");
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
    metrics_head(out, "warren_memory_rung", "gauge", "1 for what is done to get memory back");
    for (unsigned rung = 0; rung < BALANCER_RUNG_COUNT; rung++)
        fprintf(out, "warren_memory_rung{rung=\"%s\"} %d\n", balancer_rung_names[rung],
                figures.rung == rung);
    metrics_head(
        out, "warren_memory_actions_total", "counter",
        "What was done to get memory back, by rung; in dry-run, what would have been done");
    for (int rung = BALANCER_BALLOON; rung < BALANCER_RUNG_COUNT; rung++)
        fprintf(out, "warren_memory_actions_total{rung=\"%s\"} %" PRIu64 "\n",
                balancer_rung_names[rung], figures.actions[rung]);
    metrics_head(out, "warren_memory_pressure_wakeups_total", "counter",
                 "How often tasks that waited for memory woke the balancer (PSI)");
    fprintf(out, "warren_memory_pressure_wakeups_total %" PRIu64 "\n", figures.wakeups);
}

static void print_histogram(FILE *out, const char *name, const char *help,
                            const struct histogram *histogram)
{
    metrics_head(out, name, "histogram", help);
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
    metrics_head(out, "warren_operations", "gauge", "Operations by state");
    for (int state = 0; state < OPERATION_STATE_COUNT; state++)
        fprintf(out, "warren_operations{state=\"%s\"} %" PRIu64 "\n",
                operation_state_name((enum operation_state)state), states[state]);
    metrics_head(out, "warren_reconciler_retries_total", "counter",
                 "Work that failed and is tried again");
    for (int kind = 0; kind < RESOURCE_OPERATION; kind++) {
        for (size_t i = 0; i < node->tables[kind].count; i++)
            stuck[kind] += node->tables[kind].items[i]->stuck;
        fprintf(out, "warren_reconciler_retries_total{kind=\"%s\"} %" PRIu64 "\n",
                resource_kind_name(kind), node->retries[kind]);
    }
    metrics_head(out, "warren_reconciler_pending", "gauge",
                 "Resources whose work is to be tried again");
    for (int kind = 0; kind < RESOURCE_OPERATION; kind++)
        fprintf(out, "warren_reconciler_pending{kind=\"%s\"} %" PRIu64 "\n",
                resource_kind_name(kind), stuck[kind]);
    metrics_head(out, "warren_reconciler_start_seconds", "gauge",
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

    metrics_head(out, "warren_node_findings", "gauge", "Problems that GET /v1/node tells, by name");
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
    metrics_head(out, "warren_build_info", "gauge", "What this agent is");
    fprintf(out, "warren_build_info{version=\"%s\"} 1\n", WARREN_VERSION);
    print_gauge(out, "warren_memory_allocatable_bytes", "Memory that can be promised to VMs",
                admission_allocatable_mib(&capacity) << 20);
    print_gauge(out, "warren_memory_promised_bytes", "Memory promised to VMs, with overhead",
                node_promised(node, NULL).max_mib << 20);
    print_memory(out, node);
    print_gauge(out, "warren_database_healthy", "0 after a commit failed, and while it is damaged",
                node->database_error == 0 && !node->damage[0]);
    metrics_head(out, "warren_log_lines_lost_total", "counter",
                 "Of the agent's log, as nobody read it");
    fprintf(out, "warren_log_lines_lost_total %lu\n", atomic_load(&node->log->losses->total));
    print_gauge(out, "warren_console_followers", "Streams of GET /v1/vms/{id}/console?follow=1",
                node_console_followers(node));
    print_gauge(out, "warren_event_streams", "Streams of GET /v1/events", node_event_streams(node));
    metrics_head(out, "warren_event_streams_cut_total", "counter",
                 "Those that took nothing for too long");
    fprintf(out, "warren_event_streams_cut_total %" PRIu64 "\n", node->event_listeners_cut);
    print_histogram(out, "warren_database_commit_seconds", "Commits of the state database",
                    node->database ? database_commits(node->database) : &none);
    print_work(out, node);
}

char *node_metrics(struct node *node, size_t *ret_size)
{
    json_t *problems = count_problems(node);
    struct text text;
    char *all;
    int result;

    if (!problems || !text_open(&text)) {
        json_decref(problems);
        return NULL;
    }
    print_node(text.out, node, problems);
    json_decref(problems);
    result = metrics_print_vms(text.out, node);
    all = text_close(&text, ret_size);
    if (result < 0)
        free(take_pointer(all));
    return all;
}
