/* handlers.h - what the route table names.  Each leads to one reply; see request.h. */
#pragma once

#include <stdbool.h>
#include "agent/node.h"

struct error;
struct request;

/* Content types, NULL ended: of bodies in general, and of PATCH's. */
extern const char *const resource_json_types[];
extern const char *const resource_patch_types[];

/* resource_handlers.c: route->argument is the enum resource_kind. */
void resource_list(struct request *request);
void resource_get(struct request *request);
void resource_put(struct request *request);
void resource_patch(struct request *request);
void resource_delete(struct request *request);

/* vm_handlers.c */
void vm_action(struct request *request);   /* route->argument is the enum vm_action */
void vm_part_put(struct request *request); /* route->argument is the enum vm_part */
void vm_part_patch(struct request *request);
void vm_part_delete(struct request *request);
void vm_snapshot(struct request *request); /* route->argument is RESOURCE_SNAPSHOT */
void vm_fork(struct request *request);     /* fork_handler.c */
void vm_wait(struct request *request);
void vm_console(struct request *request);
void vm_console_input(struct request *request);
void vm_vsock(struct request *request);

void event_list(struct request *request); /* event_handlers.c */

/* operation_handlers.c */
void operation_get(struct request *request);
void operation_cancel_one(struct request *request);

/* node_handlers.c */
void node_show(struct request *request);
void node_show_memory(struct request *request);
void node_change(struct request *request);
void node_start_drain(struct request *request);
void node_uncordon(struct request *request);
void node_show_targets(struct request *request);
void node_back_up(struct request *request);
void node_show_metrics(struct request *request);
void node_show_health(struct request *request);
void node_show_readiness(struct request *request);
void node_show_openapi(struct request *request);

/* Shared: answers with the resource as it is now, or as deleted; waits first if ?wait= was given
 * (step.wait_ms, step.wait_for) and answers step.status once it was worth waiting for, else 202. */
#define WAIT_SECONDS_MAX 600
void resource_finish(struct request *request);
/* Reads ?wait=SECONDS into step.wait_ms. */
int resource_read_wait(struct request *request, struct error *err);
/* What its body, or its query, says of a change: what is read is the caller's also if it fails. */
typedef int resource_read_fn(struct request *request, struct node_change *change,
                             struct error *err);
int resource_read_spec(struct request *request, struct node_change *change, struct error *err);
int resource_read_patch(struct request *request, struct node_change *change, struct error *err);
/* Completes a change that has its verb and `done`, by ?wait=, `read` (NULL = nothing) and the
 * preconditions; body: the caller's.  Else answers what is wrong: false. */
bool resource_read_change(struct request *request, resource_read_fn *read,
                          struct node_change *change);
/* A committed change goes on to this, which ?wait= waits for: 202 without. */
void resource_go_on_to(struct request *request, enum node_wait_for what);
/* A node_done_fn with the request as context: what each change ends in. */
void resource_change_done(void *context, int result, const struct error *err);
