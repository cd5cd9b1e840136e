/* fake_node.h - agent/node.h for tests of api/ alone: resources in memory, changes answered one
 * turn of the loop later.  What a spec means is the real node's business; here any object is a spec
 * ("refuse": N makes its PUT fail with errno N).  Included by one .c file of a test program. */
#pragma once
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "agent/event_filter.h"
#include "agent/key_table.h"
#include "agent/label_selector.h"
#include "agent/node.h"
#include "agent/resource.h"
#include "base/error.h"
#include "base/loop.h"
#include "storage/keyed_digest.h"

#define FAKE_RESOURCES 64

struct node {
    struct loop *loop;
    struct fake_resource {
        bool used;
        enum resource_kind kind;
        char id[64];
        int generation, uid;
        json_t *spec;
    } resources[FAKE_RESOURCES];
    int64_t revision;
    int uids;
    int outstanding; /* changes and waits not yet answered */
    bool not_ready, is_damaged;
    bool is_short; /* of memory, for what it has */
    int patched;   /* changes of its own spec */
    struct key_table keys;
    int followed;    /* the node's end of the last stream; 0 = none */
    char typed[128]; /* the last console input */
    char part[96];   /* the last change of a disk or nic */
};

struct fake_change {
    struct node *node;
    node_done_fn *done;
    void *context;
    int result;
    struct error err;
};

struct node_waiter {
    struct node *node;
    node_wait_fn *done;
    void *context;
    struct loop_timer *timer;
    bool reached;
};

static struct fake_resource *fake_find(struct node *node, enum resource_kind kind, const char *id)
{
    for (int i = 0; i < FAKE_RESOURCES; i++) {
        struct fake_resource *r = &node->resources[i];

        if (r->used && r->kind == kind && strcmp(r->id, id) == 0)
            return r;
    }
    return NULL;
}

static struct fake_resource *fake_add(struct node *node, enum resource_kind kind, const char *id,
                                      json_t *spec)
{
    for (int i = 0; i < FAKE_RESOURCES; i++) {
        struct fake_resource *r = &node->resources[i];

        if (r->used)
            continue;
        *r = (struct fake_resource){
            .used = true, .kind = kind, .generation = 1, .uid = ++node->uids, .spec = spec
        };
        snprintf(r->id, sizeof(r->id), "%s", id);
        node->revision++;
        return r;
    }
    abort();
}

static void fake_uid(const struct fake_resource *r, char ret_uid[37])
{
    snprintf(ret_uid, 37, "00000000-0000-4000-8000-%012d", r->uid);
}

static json_t *fake_json(const struct fake_resource *r)
{
    char uid[37];

    fake_uid(r, uid);
    return json_pack("{s:s, s:s, s:i, s:i, s:O, s:{s:s, s:s?, s:i}}", "id", r->id, "uid", uid,
                     "generation", r->generation, "revision", 1, "spec", r->spec, "status", "state",
                     "ready", "operation", r->kind == RESOURCE_IMAGE ? "op-1" : NULL,
                     "observed_generation", 1);
}

static void fake_deliver(void *context)
{
    struct fake_change *change = context;

    change->node->outstanding--;
    change->done(change->context, change->result, change->result < 0 ? &change->err : NULL);
    free(change);
}

static struct fake_change *fake_change(struct node *node, node_done_fn *done, void *context)
{
    struct fake_change *change = calloc(1, sizeof(*change));

    change->node = node;
    change->done = done;
    change->context = context;
    node->outstanding++;
    loop_after(node->loop, 1, fake_deliver, change);
    return change;
}

int node_get(struct node *node, enum resource_kind kind, const char *id, json_t **ret_json,
             struct error *err)
{
    struct fake_resource *r = fake_find(node, kind, id);

    if (!r)
        return resource_not_found(kind, id, err);
    if (node->is_short)
        return error_no_memory(err);
    *ret_json = fake_json(r);
    return 0;
}

int node_check_condition(const struct node *node, enum resource_kind kind, const char *id,
                         const struct node_condition *condition, struct error *err)
{
    struct fake_resource *r = fake_find((struct node *)node, kind, id);
    char uid[37];

    if (!r)
        return resource_not_found(kind, id, err);
    fake_uid(r, uid);
    return resource_check_condition(condition, r->generation, uid, err);
}

static int fake_compare(const void *a, const void *b)
{
    return strcmp((*(struct fake_resource *const *)a)->id, (*(struct fake_resource *const *)b)->id);
}

json_t *node_list(struct node *node, enum resource_kind kind, const struct node_list_query *query,
                  char ret_next[ID_MAX + 1])
{
    struct fake_resource *found[FAKE_RESOURCES];
    json_t *items = json_array();
    size_t count = 0;

    for (int i = 0; i < FAKE_RESOURCES; i++) {
        struct fake_resource *r = &node->resources[i];

        if (r->used && r->kind == kind && strcmp(r->id, query->after) > 0 &&
            (!query->labels ||
             label_selector_matches(query->labels, json_object_get(r->spec, "labels"))) &&
            (!query->limits ||
             label_selector_matches(query->limits, json_object_get(r->spec, "labels"))))
            found[count++] = r;
    }
    qsort(found, count, sizeof(found[0]), fake_compare);
    for (size_t i = 0; i < count && i < query->limit; i++)
        json_array_append_new(items, fake_json(found[i]));
    snprintf(ret_next, ID_MAX + 1, "%s", count > query->limit ? found[query->limit - 1]->id : "");
    return items;
}

int node_key_begin(struct node *node, const char *scope, const char *text, const void *body,
                   size_t size, struct key **ret_key, struct error *err)
{
    char digest[DIGEST_TEXT];

    if (!key_is_valid(text))
        return error_field(err, EINVAL, "Idempotency-Key", "bad key");
    digest_of(body, size, digest);
    return key_begin(&node->keys, scope, text, digest, 1, ret_key, err);
}

bool node_key_is_known(struct node *node, const char *scope, const char *text)
{
    return key_is_known(&node->keys, scope, text, 1);
}

int node_key_keep(struct node *node, struct key *key, const struct key_answer *answer,
                  node_done_fn *done, void *context)
{
    key_answer(&node->keys, key, answer);
    key_end(&node->keys, key);
    fake_change(node, done, context);
    return 0;
}

void node_key_end(struct node *node, struct key *key)
{
    key_end(&node->keys, key);
}

/* Its generation is 1 to begin with. */
static struct fake_change *fake_node_change(struct node *node, struct node_condition condition,
                                            node_done_fn *done, void *context)
{
    struct fake_change *change = fake_change(node, done, context);

    if (condition.if_generation > 0 && condition.if_generation != 1 + node->patched)
        change->result = error_set(&change->err, ESTALE, "the generation is %d", 1 + node->patched);
    return change;
}

void node_set_schedulable(struct node *node, struct node_condition condition, node_done_fn *done,
                          void *context)
{
    fake_node_change(node, condition, done, context);
}

/* "refuse" as in fake_put. */
void node_patch_spec(struct node *node, const json_t *patch, struct node_condition condition,
                     node_done_fn *done, void *context)
{
    struct fake_change *change = fake_node_change(node, condition, done, context);
    json_int_t refuse =
        json_integer_value(json_object_get(json_object_get(patch, "memory"), "refuse"));

    if (change->result == 0 && refuse)
        change->result = error_field(&change->err, (int)refuse, "memory.refuse", "refused");
    if (change->result == 0)
        node->patched++;
}

void node_drain(struct node *node, struct node_condition condition, node_done_fn *done,
                void *context)
{
    fake_node_change(node, condition, done, context);
}

int node_check_state(enum resource_kind kind, const char *name, struct error *err)
{
    (void)kind;
    return strcmp(name, "ready") == 0 ? 0 : error_field(err, EINVAL, "state", "never %s", name);
}

int node_check_damage(struct node *node, struct error *err)
{
    return node->is_damaged ? error_set(err, EUCLEAN, "warren.db is damaged") : 0;
}

int node_failure(const struct node *node, enum resource_kind kind, const char *id)
{
    (void)node;
    (void)kind;
    (void)id;
    return 0;
}

int64_t node_revision(const struct node *node)
{
    return node->revision;
}

/* The preconditions, and what the real node says of them. */
static int fake_check(const struct fake_resource *r, struct node_condition condition,
                      struct error *err)
{
    if (condition.if_absent && r)
        return error_field(err, ESTALE, "If-None-Match", "it exists");
    if (condition.if_generation > 0 && (!r || r->generation != condition.if_generation))
        return error_field(err, ESTALE, "If-Match", "it has another generation");
    return 0;
}

static void fake_put(struct node *node, const struct node_change *asked, struct fake_resource *r,
                     struct fake_change *change)
{
    int refuse = (int)json_integer_value(json_object_get(asked->body, "refuse"));

    if (refuse) {
        change->result = error_field(&change->err, refuse, "refuse", "refused with %d", refuse);
    } else if (!r) {
        fake_add(node, asked->kind, asked->id, json_deep_copy(asked->body));
        change->result = 1;
    } else if (!json_equal(r->spec, asked->body)) {
        change->result =
            error_field(&change->err, EEXIST, "vcpus", "%s has another vcpus", asked->id);
    }
}

static void fake_delete(const struct node_change *asked, struct fake_resource *r,
                        struct fake_change *change)
{
    if (!asked->force && json_is_true(json_object_get(r->spec, "busy"))) {
        change->result = error_set(&change->err, EBUSY, "%s is running", asked->id);
        return;
    }
    json_decref(r->spec);
    memset(r, 0, sizeof(*r));
}

/* By name: "new" is not there yet, "going" not gone yet, "absent" not there, "other" another's. */
static void fake_part(const struct node_change *asked, struct fake_resource *r,
                      struct fake_change *change)
{
    const char *name = asked->part_name;

    if (strcmp(name, "absent") == 0)
        change->result = error_set(&change->err, ENOENT, "vm %s has no disk %s", asked->id, name);
    if (strcmp(name, "other") == 0)
        change->result = error_field(&change->err, EEXIST, "volume", "another volume");
    if (strcmp(name, "new") == 0 || strcmp(name, "going") == 0) {
        r->generation += 100; /* what the status observes is 1 */
        change->result = strcmp(name, "new") == 0;
    }
}

void node_submit(struct node *node, const struct node_change *asked)
{
    struct fake_change *change = fake_change(node, asked->done, asked->context);
    struct fake_resource *r = fake_find(node, asked->kind, asked->id);

    if (asked->verb == CHANGE_PART)
        snprintf(node->part, sizeof(node->part), "%s %s %s",
                 asked->merge  ? "patch"
                 : asked->body ? "put"
                               : "delete",
                 asked->part == VM_PART_DISK ? "disk" : "nic", asked->part_name);
    change->result = r || asked->verb == CHANGE_PUT
                         ? fake_check(r, asked->condition, &change->err)
                         : error_set(&change->err, ENOENT, "vms has no %s", asked->id);
    if (change->result < 0)
        return;
    if (asked->verb == CHANGE_PUT) {
        fake_put(node, asked, r, change);
    } else if (asked->verb == CHANGE_PATCH) {
        json_object_update(r->spec, asked->body);
        r->generation++;
    } else if (asked->verb == CHANGE_DELETE) {
        fake_delete(asked, r, change);
    } else if (asked->verb == CHANGE_PART) {
        fake_part(asked, r, change);
    }
}

static void fake_waited(void *context)
{
    struct node_waiter *waiter = context;

    waiter->node->outstanding--;
    waiter->done(waiter->context, waiter->reached);
    free(waiter);
}

/* SETTLED and RUNNING are reached at once, the others after their time-out never. */
struct node_waiter *node_wait(struct node *node, enum resource_kind kind, const char *id,
                              enum node_wait_for what, int64_t generation, int64_t timeout_ms,
                              node_wait_fn *done, void *context)
{
    struct node_waiter *waiter = calloc(1, sizeof(*waiter));

    (void)kind;
    (void)id;
    (void)generation;
    waiter->node = node;
    waiter->done = done;
    waiter->context = context;
    waiter->reached = what == NODE_WAIT_SETTLED || what == NODE_WAIT_RUNNING;
    waiter->timer = loop_after(node->loop, waiter->reached ? 1 : timeout_ms, fake_waited, waiter);
    node->outstanding++;
    return waiter;
}

void node_wait_cancel(struct node_waiter *waiter)
{
    waiter->node->outstanding--;
    loop_cancel(waiter->timer);
    free(waiter);
}

int node_console(struct node *node, const char *id, size_t tail, char **ret_bytes, size_t *ret_size,
                 struct error *err)
{
    char *bytes;

    if (!fake_find(node, RESOURCE_VM, id))
        return error_set(err, ENOENT, "vms has no %s", id);
    bytes = malloc(tail + 1);
    memset(bytes, 'x', tail);
    *ret_bytes = bytes;
    *ret_size = tail;
    return 0;
}

/* Its other end is node->followed; the last one's. */
int node_console_follow(struct node *node, const char *id, size_t tail, int *ret_fd,
                        struct error *err)
{
    int pair[2];

    (void)tail;
    if (!fake_find(node, RESOURCE_VM, id))
        return error_set(err, ENOENT, "vms has no %s", id);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return error_set(err, errno, "make a stream");
    if (node->followed > 0)
        close(node->followed);
    node->followed = pair[0];
    *ret_fd = pair[1];
    return 0;
}

void node_console_input(struct node *node, const char *id, const void *bytes, size_t size,
                        node_done_fn *done, void *context)
{
    struct error err = { 0 };

    if (fake_find(node, RESOURCE_VM, id)) {
        snprintf(node->typed, sizeof(node->typed), "%.*s", (int)size, (const char *)bytes);
        done(context, 0, &err);
    } else {
        done(context, error_set(&err, ENOENT, "vms has no %s", id), &err);
    }
}

/* Port 7 accepts; its other end is node->followed.  8 refuses, 9 does not answer. */
void node_vsock_connect(struct node *node, const char *id, uint32_t port, node_vsock_fn *done,
                        void *context)
{
    struct error err = { 0 };
    int fd = -1;

    if (!fake_find(node, RESOURCE_VM, id))
        fd = error_set(&err, ENOENT, "vms has no %s", id);
    else if (port != 7)
        fd = error_set(&err, port == 8 ? ECONNREFUSED : ETIMEDOUT, "no");
    else
        (void)node_console_follow(node, id, 0, &fd, &err);
    done(context, fd, &err);
}

/* Ids up to 5 are gone, and 9 is the newest. */
static int fake_place(int64_t after, struct error *err)
{
    if (after >= 0 && (after < 5 || after > 9))
        return error_set(err, EIDRM, "events up to 5 are gone");
    return 0;
}

void node_events_page(struct node *node, int64_t after, size_t limit,
                      const struct event_filter *filter, node_events_fn *done, void *context)
{
    struct error err = { 0 };
    json_t *page = NULL;

    (void)node;
    if (fake_place(after, &err) == 0)
        page = json_pack("{s:[], s:I, s:I, s:s, s:s, s:s}", "items", "next", (json_int_t)after,
                         "revision", (json_int_t)limit, "kind", filter->kind, "id", filter->id,
                         "type", filter->type);
    done(context, page, &err);
}

void node_events_follow(struct node *node, int64_t after, const struct event_filter *filter,
                        node_stream_fn *done, void *context)
{
    struct error err = { 0 };
    int pair[2];
    int fd = fake_place(after, &err);

    (void)node;
    (void)filter;
    if (fd == 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0) {
        close(pair[0]);
        fd = pair[1];
    }
    done(context, fd, &err);
}

json_t *node_memory_json(const struct node *node)
{
    (void)node;
    return json_pack("{s:s}", "level", "high");
}

json_t *node_info(struct node *node, const struct node_shape *shape)
{
    return json_pack("{s:s, s:I, s:i}", "version", "test", "memory_mib",
                     (json_int_t)(shape ? shape->memory_mib : 0), "generation", 1 + node->patched);
}

json_t *node_targets(struct node *node)
{
    (void)node;
    return json_array();
}

void node_backup(struct node *node, node_backup_fn *done, void *context)
{
    (void)node;
    done(context, "backup", 6, NULL);
}

int node_ready(struct node *node, struct error *err)
{
    return node->not_ready ? error_set(err, EAGAIN, "still starting") : 0;
}

char *node_metrics(struct node *node, size_t *ret_size)
{
    char *text = strdup("warren_test 1\n");

    (void)node;
    *ret_size = text ? strlen(text) : 0;
    return text;
}

static struct node *fake_node_new(struct loop *loop)
{
    struct node *node = calloc(1, sizeof(*node));

    node->loop = loop;
    return node;
}

static void fake_node_free(struct node *node)
{
    for (int i = 0; i < FAKE_RESOURCES; i++)
        json_decref(node->resources[i].spec);
    if (node->followed > 0)
        close(node->followed);
    key_table_clear(&node->keys);
    free(node);
}
