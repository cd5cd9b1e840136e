/* node_spec.h - what an operator sets of the node itself (PATCH /v1/node), and how the node stands:
 * its row, of kind "node".  Loop thread only.
 *
 * What is set wins over the command line, until null gives it back to that.  Changes run one after
 * the other, as those of any resource; the row's other part, its status, is written behind, so that
 * GET /v1/events tells how the node stands as it does of VMs. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/node.h"
#include "scheduler/balancer.h"

struct error;
struct record;

#define NODE_UNSET (-1) /* as the command line says, or by default */

struct node_memory_spec {
    int64_t ratio_percent, reserve_mib;
    int64_t balancer; /* enum memory_balancer */
    /* Of BALANCER_SOFT to BALANCER_LOW, in permille of the memory for VMs. */
    struct {
        int64_t enter, leave;
    } thresholds[BALANCER_LEVEL_COUNT];
};

struct node_spec {
    bool cordoned, draining;
    struct node_memory_spec memory;
};

extern const struct node_spec node_spec_default;

/* As it is stored, and merged into by patches (what is null is left out).  -EINVAL naming the
 * field, also if its thresholds have no order. */
int node_spec_parse(const json_t *json, struct node_spec *ret_spec, struct error *err);
/* stored: only what is set, and what only the database needs.  NULL if memory is short. */
json_t *node_spec_json(const struct node_spec *spec, bool stored);
/* With what it sets in place of what `base` has. */
struct balancer_config node_spec_balancer(const struct node_spec *spec,
                                          const struct balancer_config *base);

/* How it stands: the level of its memory, and why. */
struct node_status {
    enum balancer_level level; /* BALANCER_HIGH also if nobody looks */
    enum balancer_rung rung;
    char reason[200]; /* "" = none */
};
json_t *node_status_json(const struct node_status *status);

/* What waits for its turn, or is being written. */
struct node_row {
    struct node_wish *wishes; /* the first is being committed, if `writing` */
    bool writing;
    bool stale;  /* its status is */
    bool failed; /* the last write of that: logged once */
};

/* Its row, at the start.  -EINVAL. */
int node_spec_restore(struct node *node, const struct record *record, const json_t *spec,
                      const json_t *status, struct error *err);
/* A merge patch of the stored form.  patch: taken; NULL = memory is short. */
void node_spec_change(struct node *node, json_t *patch, struct node_condition condition,
                      node_done_fn *done, void *context);
/* It stands otherwise now: written as soon as that can be. */
void node_spec_note(struct node *node, const struct node_status *status);
/* Tries again to write what could not be written. */
void node_spec_save_again(struct node *node);
/* Members of GET /v1/node: generation, spec, status.  < 0: memory is short. */
int node_spec_show(const struct node *node, json_t *info);
