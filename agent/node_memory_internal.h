/* node_memory_internal.h - shared by agent/node_memory*.c. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/node_internal.h"
#include "scheduler/balancer.h"

struct node_memory {
    struct node *node;
    struct worker *worker; /* writes to memory.reclaim, which takes its time */
    struct loop_timer *timer;
    int trigger_fd; /* of PSI; -1 = none */
    struct loop_source *trigger;
    struct balancer_state state;
    struct balancer_host host;
    struct node_memory_figures figures;
    struct balancer_vm *vms; /* of the last call, those of node's VMs that run */
    struct vm **owners;      /* whose they are; valid within a call only */
    size_t count, size;
    int64_t last_ms;
    bool reclaiming; /* a job is under way */
};

/* Nothing is done, only told. */
bool node_memory_is_dry(const struct node *node);
