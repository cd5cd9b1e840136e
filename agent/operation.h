/* operation.h - work with progress, as resources: imports, copies, snapshots, forks.  Loop thread
 * only.
 *
 * An operation does nothing itself: its target does, and says how far it is whenever it is saved;
 * the operation is brought in line with that, in its own row.  So one that was lost with the agent
 * is found again by its target, and none can be stuck: it ends as its target does, or goes.  It
 * stays when its target goes, as long as OPERATIONS_KEPT and OPERATION_KEPT_MS let it.
 *
 * To cancel one is to have its target stop, which has failed then; a fork's target is deleted. */
#pragma once
#include "agent/node_internal.h"

#define OPERATIONS_KEPT     1000 /* that have ended */
#define OPERATION_KEPT_MS   (24ll * 3600 * 1000)
#define OPERATION_STEPS_MAX 12

enum operation_verb {
    OPERATION_IMPORT,
    OPERATION_COPY,
    OPERATION_SNAPSHOT,
    OPERATION_FORK,
    OPERATION_VERB_COUNT
};

enum operation_state {
    OPERATION_PENDING, /* waits for its turn, or for something else */
    OPERATION_RUNNING,
    OPERATION_SUCCEEDED,
    OPERATION_FAILED,
    OPERATION_CANCELLED,
    OPERATION_STATE_COUNT
};

enum operation_step {
    STEP_WAIT,
    STEP_FETCH,
    STEP_STORE,
    STEP_COPY,
    STEP_PREPARE,
    STEP_HOLD,
    STEP_WRITE,
    STEP_SEAL,
    STEP_UNDO,
    STEP_START,
    STEP_FIND, /* what an earlier agent left */
    OPERATION_STEP_COUNT
};

enum step_state {
    STEP_RUNNING,
    STEP_DONE,
    STEP_FAILED,
    STEP_CANCELLED,
    STEP_INTERRUPTED, /* by the agent's end */
    STEP_STATE_COUNT
};

struct operation {
    struct resource head;
    enum operation_verb verb;
    enum resource_kind target_kind;
    char target_id[ID_MAX + 1];
    char target_uid[UID_TEXT];
    bool cancel; /* is asked for; durable */
    enum operation_state state;
    char reason[160]; /* why it failed, or was cancelled */
    uint64_t done_bytes, total_bytes;
    int64_t started_ms, ended_ms; /* 0 = not yet */
    size_t step_count;
    struct {
        enum operation_step name;
        enum step_state state;
    } steps[OPERATION_STEPS_MAX]; /* in the order in which they began; the newest ones */
};

static inline bool operation_has_ended(const struct operation *operation)
{
    return operation->state >= OPERATION_SUCCEEDED;
}

const char *operation_verb_name(enum operation_verb verb);
const char *operation_state_name(enum operation_state state);

/* The target's creation is committed: begins its operation, if it is one with work to do. */
void operation_begin(struct node *node, const struct resource *target);
/* The target may be further by now. */
void operation_look(struct node *node, const struct resource *target);
/* It is gone. */
void operation_target_gone(struct node *node, const struct resource *target);
/* The step it was in ended before its time; another begins. */
void operation_interrupted(struct node *node, const struct resource *target);
/* At the start: what ran was interrupted; and once all work that was found goes on: what is left
 * without a target, or has none yet. */
void operations_interrupted(struct node *node);
void operations_reconcile(struct node *node);
/* Once a second: the oldest that have ended go; a deletion that was refused is asked for again. */
void operations_tend(struct node *node);
/* "operation" in a status: its id, or null. */
json_t *operation_link(const struct node *node, const struct resource *target);

/* operation_view.c: how far a target is.  Pure. */
struct operation_view {
    enum operation_state state;
    enum operation_step step; /* of PENDING and RUNNING */
    const char *reason;       /* borrowed; "" = none */
    uint64_t done_bytes, total_bytes;
};
/* False if there is no work, so no operation. */
bool operation_verb_of(const struct resource *target, enum operation_verb *ret_verb);
struct operation_view operation_view(const struct resource *target);

/* operation_resource.c: makes an unlinked one; NULL if memory is short. */
void operation_make_id(enum operation_verb verb, const struct resource *target,
                       char ret_id[ID_MAX + 1]);
struct operation *operation_new(enum operation_verb verb, const struct resource *target);
/* operation.c: asks the target to stop; what cannot be stopped goes on. */
void operation_cancel(struct node *node, struct operation *operation);
