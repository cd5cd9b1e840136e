/* node_memory.h - who gives memory back when the host is short: what is known goes to
 * scheduler/balancer.h, its plans to balloons, cgroups and processes.  Loop thread.
 *
 * Nothing of it is stored: plans are made anew each second, and say how everything is to stand. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "scheduler/balancer.h"

struct error;
struct node;
struct node_memory;
struct vm;

int node_memory_new(struct node *node, struct node_memory **ret_memory, struct error *err);
/* Waits for what is being reclaimed.  Accepts NULL. */
struct node_memory *node_memory_free(struct node_memory *memory);

/* Once a second; more often by itself while the host is short. */
void node_memory_tick(struct node *node);

/* What may be promised, as configured, but not beyond the host's memory where VMs cannot be limited
 * (no memory controller). */
int64_t node_memory_ratio(const struct node *node);
/* VMs are, or would be, made to give memory back. */
bool node_memory_is_balanced(const struct node *node);
/* So that nothing more should be started. */
bool node_memory_is_short(const struct node *node);

struct node_memory_figures {
    enum balancer_level level;
    uint64_t capacity_mib, free_mib, swapped_mib;
    /* plans that asked more than those before, ever */
    uint64_t actions[BALANCER_RUNG_COUNT];
};
struct node_memory_figures node_memory_figures(const struct node *node);
