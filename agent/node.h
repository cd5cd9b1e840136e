/* node.h - everything warrend knows and can be asked, as resources of six kinds.  Loop thread
 * only.
 *
 * This is what the HTTP handlers (api/) see of the agent.  Reads are answered at once from the
 * model in memory.  Changes are asynchronous: `done` is called exactly once, later, on the loop
 * thread, when the change has been committed or refused; until then nothing was changed that could
 * be observed.  JSON objects given out are new references; those taken in are borrowed.
 *
 * Error codes, and what the API makes of them:
 *   EINVAL invalid (400, field set)    ENOENT not found (404)       EEXIST other spec (409, field)
 *   EBUSY in use or wrong state (409)  EADDRINUSE overlap (409)     ESTALE precondition (412)
 *   ENOSPC, EDQUOT disk-full (507)     ENOMEM memory-committed (507)
 *   EADDRNOTAVAIL network-full (507)   ENOEXEC the host lacks it (507, field)
 *   EBADE can never change (422, field)
 *   EAGAIN, EMFILE, ENFILE unavailable, try again (503)             ENODEV no KVM (503)
 *   EHOSTDOWN cordoned (503)           EUCLEAN the database is damaged (503)
 *   ECONNREFUSED by a guest (502)      ETIMEDOUT waiting for one (504)
 *   EIDRM events are gone (410)
 *   EALREADY key is under way (409)  EKEYREJECTED another body (422)  others internal (500) */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/id.h"

struct error;
struct event_filter;
struct key;
struct key_answer;
struct label_selector;
struct node;

enum resource_kind {
    RESOURCE_IMAGE,
    RESOURCE_VOLUME,
    RESOURCE_NETWORK,
    RESOURCE_VM,
    RESOURCE_SNAPSHOT,
    RESOURCE_OPERATION, /* read only */
    RESOURCE_KIND_COUNT,
};

/* result: 1 = created, 0 = changed or already so, -errno = refused and *err says why. */
typedef void node_done_fn(void *context, int result, const struct error *err);

#define TAG_UID 8 /* of a uid, in an entity tag */

/* Preconditions of a change; {0} = none. */
struct node_condition {
    int64_t if_generation;    /* > 0: only if this is the current generation, else -ESTALE; */
    char if_uid[TAG_UID + 1]; /* and only of what has a uid that begins so */
    bool if_absent;           /* If-None-Match: *: -ESTALE if it exists */
    struct key *key;          /* borrowed until done: recorded with the change; NULL = none */
    const struct label_selector *limits; /* the same; what has not these labels is not there */
};

/* {"id","uid","generation","revision","spec","status"}.  -ENOENT; -EAGAIN: memory is short, which
 * must not look as if there were none. */
int node_get(struct node *node, enum resource_kind kind, const char *id, json_t **ret_json,
             struct error *err);
/* Does the condition hold of what has this id now?  -ENOENT: nothing has; -ESTALE. */
int node_check_condition(const struct node *node, enum resource_kind kind, const char *id,
                         const struct node_condition *condition, struct error *err);
/* The errno for which its making failed, while this agent ran; else 0. */
int node_failure(const struct node *node, enum resource_kind kind, const char *id);
struct node_list_query {
    const char *after;                   /* where the page before ended; "" = from the start */
    size_t limit;                        /* 1-1000 */
    const struct label_selector *labels; /* NULL = any */
    const struct label_selector *limits; /* the same, of what the caller may see */
    const char *state;                   /* of the status; NULL = any */
};
/* Ascending by id, at most limit.  ret_next: what `after` is for the next page, "" if there is
 * none. A page looks at so many resources only, so it may have fewer items than limit, even none,
 * and a next one.  NULL if memory is short. */
json_t *node_list(struct node *node, enum resource_kind kind, const struct node_list_query *query,
                  char ret_next[ID_MAX + 1]);
/* Can one of this kind be in this state?  Else -EINVAL, and those in which it can be. */
int node_check_state(enum resource_kind kind, const char *name, struct error *err);
/* Newest committed change of all that reads show: events after it tell what comes. */
int64_t node_revision(const struct node *node);

/* What a VM has that comes and goes while it runs. */
enum vm_part { VM_PART_DISK, VM_PART_NIC };

enum vm_action {
    VM_ACTION_START,
    VM_ACTION_STOP,
    VM_ACTION_KILL,
    VM_ACTION_REBOOT,
    VM_ACTION_PAUSE,
    VM_ACTION_RESUME,
};

enum change_verb {
    CHANGE_PUT,    /* body: a spec.  Validates, then creates or compares */
    CHANGE_PATCH,  /* body: a merge patch of what may change: labels, more of VMs and volumes, of
                    * operations whether they are cancelled.  Other fields: EBADE, or EBUSY naming
                    * the field (spec_change.h) */
    CHANGE_DELETE, /* force: a running VM is killed first; without it -EBUSY */
    CHANGE_ACTION, /* of VMs: action */
    CHANGE_PART,   /* of VMs: the part called part_name.  body: its PUT, as an item of the VM's spec
                    * has it (its name may be left out), or NULL: its DELETE; both are followed by
                    * observed_generation, once it is attached, or is gone.  With merge, a merge
                    * patch of it, as PATCH */
    CHANGE_VERB_COUNT
};

/* What is asked for; what its verb does not take stays 0.  The texts and the body are borrowed. */
struct node_change {
    enum change_verb verb;
    enum resource_kind kind;
    const char *id;
    json_t *body;
    bool force;
    enum vm_action action;
    enum vm_part part;
    const char *part_name;
    bool merge;
    struct node_condition condition;
    node_done_fn *done;
    void *context;
};
void node_submit(struct node *node, const struct node_change *asked);

/* What can be waited for.  VM: RUNNING, STOPPED (also failed counts as it: nothing runs), PAUSED,
 * SETTLED (observed_generation is current and no transition under way), DELETED.  The other kinds:
 * SETTLED (image, snapshot: ready or failed) and DELETED. */
enum node_wait_for {
    NODE_WAIT_RUNNING,
    NODE_WAIT_STOPPED,
    NODE_WAIT_PAUSED,
    NODE_WAIT_SETTLED,
    NODE_WAIT_DELETED,
    NODE_WAIT_COUNT,
    NODE_WAIT_DRAINED = NODE_WAIT_COUNT, /* of the node, whatever the kind and id: no VM runs */
};
struct node_waiter;
/* reached: false when the time is over or it can no longer be reached (failed).  Called later,
 * once. */
typedef void node_wait_fn(void *context, bool reached);

/* generation 0 = any.  NULL if memory is short. */
struct node_waiter *node_wait(struct node *node, enum resource_kind kind, const char *id,
                              enum node_wait_for what, int64_t generation, int64_t timeout_ms,
                              node_wait_fn *done, void *context);
/* Answers all who wait, and who will, with what there is, and ends streams: the agent is about to
 * end. */
void node_end_waits(struct node *node);
/* Before `done` was called only. */
void node_wait_cancel(struct node_waiter *waiter);

/* --- events: one for each committed change of a resource, or of the node's own spec --- */

/* {"items","next","revision"}, taken; NULL: *err says why. */
typedef void node_events_fn(void *context, json_t *page, const struct error *err);
/* Those with greater ids than `after` (-1: from the oldest), at most limit; a page looks at so many
 * only, so it may have fewer, even none, and a next one.  -EIDRM: some after that are gone, or it
 * was never. */
void node_events_page(struct node *node, int64_t after, size_t limit,
                      const struct event_filter *filter, node_events_fn *done, void *context);
/* An owned stream socket to read from, or -errno. */
typedef void node_stream_fn(void *context, int fd, const struct error *err);
/* The same as text/event-stream, and then what comes (-1: that only), until the node ends or the
 * socket takes nothing for too long.  -EIDRM; -EAGAIN: there are too many. */
void node_events_follow(struct node *node, int64_t after, const struct event_filter *filter,
                        node_stream_fn *done, void *context);

/* changed(context) is called when a VM has other labels than before; NULL = nothing is. */
typedef void node_labels_fn(void *context);
void node_watch_labels(struct node *node, node_labels_fn *changed, void *context);

/* The last `tail` bytes of the VM's console (malloc'ed). */
int node_console(struct node *node, const char *id, size_t tail, char **ret_bytes, size_t *ret_size,
                 struct error *err);
/* The same, and then what comes: an owned stream socket to read from, until the VM is deleted (it
 * goes on over stops and starts) or the node ends.  Closing it ends the following.  Who reads too
 * slowly loses bytes and reads a line that says how many.  -EAGAIN: too many follow already. */
int node_console_follow(struct node *node, const char *id, size_t tail, int *ret_fd,
                        struct error *err);
/* Types on it: all 1 to NODE_INPUT_MAX bytes (-> 0), or none: -EBUSY if the VM does not run,
 * -EAGAIN if its guest has not read what it was sent before.  bytes are borrowed until this
 * returns. */
#define NODE_INPUT_MAX 4096
void node_console_input(struct node *node, const char *id, const void *bytes, size_t size,
                        node_done_fn *done, void *context);

/* Connects to a port of the guest's vsock.  done: with an owned stream socket, or -ENOENT, -EBUSY
 * if the VM does not run or has no vsock, -ECONNREFUSED, -ETIMEDOUT, -EAGAIN. */
typedef void node_vsock_fn(void *context, int fd, const struct error *err);
void node_vsock_connect(struct node *node, const char *id, uint32_t port, node_vsock_fn *done,
                        void *context);

/* Idempotency-Key (key_table.h): begins, as key_begin does; -EINVAL if the key is malformed.  What
 * came of it must be told: by node_key_keep, with the answer, whose `done` is called when that is
 * on the disk (a negative result: it is in memory only); or, if that fails (< 0), or there is
 * nothing to keep, by node_key_end. */
int node_key_begin(struct node *node, const char *scope, const char *text, const void *body,
                   size_t size, struct key **ret_key, struct error *err);
int node_key_keep(struct node *node, struct key *key, const struct key_answer *answer,
                  node_done_fn *done, void *context);
void node_key_end(struct node *node, struct key *key);
/* Begun before, whatever came of it. */
bool node_key_is_known(struct node *node, const char *scope, const char *text);

/* Merge patch of the node's own spec: "schedulable" and "memory".  -EINVAL, -EBUSY naming the
 * field, -ESTALE. */
void node_patch_spec(struct node *node, const json_t *patch, struct node_condition condition,
                     node_done_fn *done, void *context);
/* Ends that the node is cordoned (creates and starts no VMs) or drained. */
void node_set_schedulable(struct node *node, struct node_condition condition, node_done_fn *done,
                          void *context);
/* Cordons it, and begins to stop all that runs. */
void node_drain(struct node *node, struct node_condition condition, node_done_fn *done,
                void *context);

/* GET /v1/node/memory: what is promised, how short the host is, what is done about it. */
json_t *node_memory_json(const struct node *node);
/* What a VM would need; 0 = nothing. */
struct node_shape {
    uint64_t vcpus, memory_mib, memory_min_mib, disk_mib;
};
/* GET /v1/node; shape: how many more such VMs fit is told, too; NULL = not asked. */
json_t *node_info(struct node *node, const struct node_shape *shape);
/* Where guests that run have metrics of their own, for Prometheus' http_sd: an array.  The label
 * "prometheus.io/port" asks for it, "prometheus.io/path" is optional. */
json_t *node_targets(struct node *node);
/* A copy of the database: bytes are borrowed until done returns; NULL: *err says why. */
typedef void node_backup_fn(void *context, const void *bytes, size_t size, const struct error *err);
void node_backup(struct node *node, node_backup_fn *done, void *context);
/* 0, or -EUCLEAN and what to do: the database is damaged, and only VMs can be asked for. */
int node_check_damage(struct node *node, struct error *err);
/* 0 if requests can be served, else -EUCLEAN as that, or -EAGAIN with what is missing. */
int node_ready(struct node *node, struct error *err);
/* Prometheus text exposition; malloc'ed.  The api's own figures are appended by api/. */
char *node_metrics(struct node *node, size_t *ret_size);
