/* node_memory_internal.h - shared by agent/node_memory*.c. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/node_internal.h"
#include "scheduler/balancer.h"

/* What the settings come to. */
enum memory_mode { MEMORY_UNKNOWN, MEMORY_OFF, MEMORY_DRY_RUN, MEMORY_ON };

struct node_memory {
    struct node *node;
    struct worker *worker;    /* writes to memory.reclaim, which takes its time */
    struct loop_timer *timer; /* while VMs are balanced; NULL then = the tick has to do */
    int trigger_fd;           /* of PSI; -1 = none */
    struct loop_source *trigger;
    enum memory_mode mode; /* that is in effect */
    struct balancer_state state;
    struct balancer_host host;
    struct node_memory_figures figures;
    struct balancer_vm *vms; /* of the last call, those of node's VMs that run */
    struct vm **owners;      /* whose they are; valid within a call only */
    size_t count, size;
    int64_t last_ms;        /* when that was; 0 = not yet */
    uint64_t available_mib; /* the host's then */
    bool reclaiming;        /* a job is under way */
    int64_t told_ms;        /* when the node's status was last noted; 0 = not yet */
    char would[80];         /* what dry-run would have done last, of pause and kill; "" = nothing */
    bool would_is_new;
};

/* node_memory_settings.c: what is to be in effect. */
struct balancer_config node_memory_config(const struct node *node);
enum memory_mode node_memory_mode(const struct node *node);
/* Swap may come and go while we run. */
void node_memory_look_at_swap(struct node *node);

/* node_memory_tell.c: events.  Why: "12 of 2000 MiB are free". */
#define MEMORY_WHY 48
void node_memory_why(const struct node_memory *memory, char ret_text[MEMORY_WHY]);
/* That the VM is held to its share, or no more. */
void node_memory_tell_vm(struct node_memory *memory, struct vm *vm,
                         const struct balancer_plan *plan);
/* How the node stands. */
void node_memory_tell(struct node_memory *memory);
