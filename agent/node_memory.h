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
struct node_memory_spec;
struct stats_page;
struct vm;

int node_memory_new(struct node *node, struct node_memory **ret_memory, struct error *err);
/* Waits for what is being reclaimed.  Accepts NULL. */
struct node_memory *node_memory_free(struct node_memory *memory);

/* A VM was found that an earlier agent balanced: its balloon stays until the first plan. */
void node_memory_adopt(const struct node *node, struct vm *vm, const struct stats_page *page);

/* Once a second; more often by itself while the host is short, or becomes it. */
void node_memory_tick(struct node *node);

/* The settings, or what VMs may claim, may have changed: puts that into effect, and undoes what
 * other settings did. */
void node_memory_follow(struct node *node);
/* May that be set on this host?  -EBUSY naming the field, with the reason. */
int node_memory_check(struct node *node, const struct node_memory_spec *wanted, struct error *err);
/* Why less is promised than the settings say; NULL = it is not. */
const char *node_memory_ratio_finding(const struct node *node);

uint64_t node_memory_reserve_mib(const struct node *node);
/* What may be promised, as set, but not beyond the host's memory where VMs cannot be limited
 * (no memory controller). */
int64_t node_memory_ratio(const struct node *node);
/* VMs are, or would be, made to give memory back. */
bool node_memory_is_balanced(const struct node *node);
/* The VM is paused because the host is short. */
bool node_memory_paused(const struct vm *vm);
/* How large the VM's balloon is to be for others; 0 where it is only told what would be done. */
uint32_t node_memory_balloon_mib(const struct node *node, const struct vm *vm);
/* So that nothing more should be started. */
bool node_memory_is_short(const struct node *node);

struct node_memory_figures {
    enum balancer_level level;
    enum balancer_rung rung;
    uint32_t price;
    uint64_t capacity_mib, free_mib, swapped_mib;
    /* plans that asked more than those before, ever */
    uint64_t actions[BALANCER_RUNG_COUNT];
    uint64_t wakeups; /* by tasks that waited for memory, ever */
};
struct node_memory_figures node_memory_figures(const struct node *node);
