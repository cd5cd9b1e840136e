/* node_schedule.h - does the node take VMs, and does it get rid of those that it runs?  Loop thread
 * only.
 *
 * Cordoned, it creates and starts none (EHOSTDOWN); what runs goes on, policies and autostart as
 * ever.  Draining, it is cordoned and stops all, as POST .../stop does, the last to be started
 * first, some at a time.  Both are kept in the node's row (node_spec.h) and go on after a
 * restart. */
#pragma once
#include <jansson.h>
#include <stdbool.h>

struct error;
struct node;
struct vm;

/* -EHOSTDOWN if it is cordoned. */
int node_check_schedulable(const struct node *node, struct error *err);
/* No VM runs, or is about to. */
bool node_is_drained(const struct node *node);
/* The next ones are stopped, if the node drains. */
void node_drain_go_on(struct node *node);
/* Would a be started before b? */
bool vm_starts_before(const struct vm *a, const struct vm *b);

/* Members of GET /v1/node.  < 0: memory is short. */
int node_schedule_status(const struct node *node, json_t *info);
