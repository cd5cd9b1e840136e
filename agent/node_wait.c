#include "agent/node_wait.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/node_console.h"
#include "agent/node_events.h"
#include "agent/node_internal.h"
#include "agent/node_schedule.h"
#include "agent/node_snapshot.h"
#include "agent/node_volume.h"
#include "agent/operation.h"
#include "base/loop.h"

struct node_waiter {
    struct node *node;
    enum resource_kind kind;
    char id[ID_MAX + 1];
    char uid[UID_TEXT]; /* "" = there was none when the wait began */
    enum node_wait_for what;
    int64_t generation;
    struct loop_timer *timer; /* the deadline; once decided, the turn that answers */
    bool decided;
    bool reached;
    node_wait_fn *done;
    void *context;
    struct node_waiter *next;
};

enum outlook { NOT_YET, REACHED, NEVER };

static enum outlook look_at_vm(const struct vm *vm, enum node_wait_for what, int64_t generation)
{
    bool resting = (vm->state == VM_STOPPED || vm->state == VM_FAILED) && !vm->start_due;
    bool quiet = vm->jobs == 0 && !vm->timer;

    if (what == NODE_WAIT_SETTLED)
        return vm->observed_generation >= generation && quiet &&
                       vm->observed_generation == vm->head.generation &&
                       ((resting && !vm->placed) || vm->state == VM_RUNNING ||
                        vm->state == VM_PAUSED)
                   ? REACHED
                   : NOT_YET;
    if (what == NODE_WAIT_PAUSED) {
        if (vm->intent != VM_INTENT_PAUSE)
            return NEVER;
        return vm->state == VM_PAUSED && vm->observed_generation >= generation ? REACHED : NOT_YET;
    }
    if (what == NODE_WAIT_RUNNING) {
        if (vm->state == VM_RUNNING && vm->intent == VM_INTENT_NONE &&
            vm->observed_generation >= generation)
            return REACHED;
        return resting && quiet && vm->observed_generation >= generation ? NEVER : NOT_YET;
    }
    return resting && quiet && !vm->placed && vm->observed_generation >= generation ? REACHED
                                                                                    : NOT_YET;
}

enum progress_state resource_progress(const struct resource *resource)
{
    switch (resource->kind) {
    case RESOURCE_IMAGE:
        return ((const struct image *)resource)->state;
    case RESOURCE_VOLUME:
        return ((const struct volume *)resource)->state;
    case RESOURCE_SNAPSHOT:
        return ((const struct snapshot *)resource)->state;
    case RESOURCE_OPERATION:
        return !operation_has_ended((const struct operation *)resource) ? PROGRESS_WORKING
               : ((const struct operation *)resource)->state == OPERATION_SUCCEEDED
                   ? PROGRESS_READY
                   : PROGRESS_FAILED;
    default:
        return ((const struct network *)resource)->state;
    }
}

static enum outlook look(const struct node_waiter *waiter)
{
    const struct resource *resource = node_find(waiter->node, waiter->kind, waiter->id);
    bool gone;

    if (waiter->what == NODE_WAIT_DRAINED)
        return !waiter->node->spec.draining    ? NEVER
               : node_is_drained(waiter->node) ? REACHED
                                               : NOT_YET;
    gone = !resource || (waiter->uid[0] && strcmp(resource->uid, waiter->uid) != 0);
    if (waiter->what == NODE_WAIT_DELETED)
        return gone ? REACHED : NOT_YET;
    if (gone)
        return NEVER;
    if (resource->deleting)
        return waiter->what == NODE_WAIT_RUNNING ? NEVER : NOT_YET;
    if (resource->kind == RESOURCE_VM)
        return look_at_vm((const struct vm *)resource, waiter->what, waiter->generation);
    if (waiter->what != NODE_WAIT_SETTLED)
        return NEVER;
    if (resource->kind == RESOURCE_VOLUME && volume_is_growing((const struct volume *)resource))
        return NOT_YET;
    return resource_progress(resource) == PROGRESS_WORKING ? NOT_YET : REACHED;
}

static void unlink_waiter(struct node_waiter *waiter)
{
    struct node_waiter **link = &waiter->node->waiters;

    while (*link != waiter)
        link = &(*link)->next;
    *link = waiter->next;
}

static void answer(void *context)
{
    struct node_waiter *waiter = context;

    waiter->timer = NULL;
    unlink_waiter(waiter);
    waiter->done(waiter->context, waiter->reached);
    free(waiter);
}

/* Answers in a later turn, whatever it is. */
static void decide(struct node_waiter *waiter)
{
    enum outlook outlook = waiter->decided ? NOT_YET : look(waiter);
    struct loop_timer *soon;

    if (outlook == NOT_YET)
        return;
    soon = loop_after(waiter->node->loop, 0, answer, waiter);
    if (!soon)
        return; /* the deadline, or the next look, will tell */
    waiter->decided = true;
    waiter->reached = outlook == REACHED;
    loop_cancel(waiter->timer);
    waiter->timer = soon;
}

void node_wait_look(struct node *node, const struct resource *resource)
{
    for (struct node_waiter *waiter = node->waiters; waiter; waiter = waiter->next)
        if (waiter->what == NODE_WAIT_DRAINED ||
            (resource && waiter->kind == resource->kind && strcmp(waiter->id, resource->id) == 0))
            decide(waiter);
}

struct node_waiter *node_wait(struct node *node, enum resource_kind kind, const char *id,
                              enum node_wait_for what, int64_t generation, int64_t timeout_ms,
                              node_wait_fn *done, void *context)
{
    struct node_waiter *waiter = calloc(1, sizeof *waiter);
    const struct resource *resource = node_find(node, kind, id);

    if (!waiter)
        return NULL;
    *waiter = (struct node_waiter){ .node = node,
                                    .kind = kind,
                                    .what = what,
                                    .generation = generation,
                                    .done = done,
                                    .context = context,
                                    .next = node->waiters };
    snprintf(waiter->id, sizeof waiter->id, "%s", id);
    if (resource)
        memcpy(waiter->uid, resource->uid, sizeof waiter->uid);
    waiter->timer = loop_after(node->loop, node->waits_ended ? 0 : timeout_ms, answer, waiter);
    if (!waiter->timer) {
        free(waiter);
        return NULL;
    }
    node->waiters = waiter;
    decide(waiter);
    return waiter;
}

void node_end_waits(struct node *node)
{
    node->waits_ended = true;
    node_console_end(node);
    node_events_end(node);
    while (node->waiters) {
        struct node_waiter *waiter = node->waiters;

        loop_cancel(waiter->timer);
        answer(waiter);
    }
}

void node_wait_cancel(struct node_waiter *waiter)
{
    if (!waiter)
        return;
    loop_cancel(waiter->timer);
    unlink_waiter(waiter);
    free(waiter);
}
