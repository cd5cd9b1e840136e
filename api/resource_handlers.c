/* resource_handlers.c - GET, list, PUT, PATCH, DELETE of every kind of resource. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "agent/label_selector.h"
#include "agent/resource.h"
#include "api/handlers.h"
#include "api/request.h"
#include "api/router.h"
#include "base/cleanup.h"
#include "base/json.h"

#define LIST_LIMIT_DEFAULT 100
#define LIST_LIMIT_MAX     1000

const char *const resource_json_types[] = { "application/json", NULL };
const char *const resource_patch_types[] = { "application/merge-patch+json", "application/json",
                                             NULL };

/* VM actions have the action as argument, and parts the kind of part; they and everything below
 * /v1/vms are about VMs. */
static enum resource_kind kind_of(const struct request *request)
{
    route_handler_fn *handler = request->route->handler;

    return handler == vm_action || handler == vm_part_put || handler == vm_part_patch ||
                   handler == vm_part_delete
               ? RESOURCE_VM
               : (enum resource_kind)request->route->argument;
}

int resource_read_wait(struct request *request, struct error *err)
{
    int64_t seconds = -1;
    int r = query_integer(&request->query, "wait", 0, WAIT_SECONDS_MAX, -1, &seconds, err);

    if (r < 0)
        return r;
    request->step.wait_ms = seconds < 0 ? -1 : seconds * 1000;
    return 0;
}

void resource_get(struct request *request)
{
    char etag[ETAG_TEXT];
    struct reply_headers headers = { .etag = etag };
    struct error err = { 0 };
    json_t *resource;

    if (node_get(request->node, kind_of(request), request->parameter, &resource, &err) < 0) {
        request_reply_error(request, &err);
        return;
    }
    etag_of(resource, etag);
    /* The body of a 304 is not sent, but its length is told (RFC 9110, 8.6). */
    request_reply_json(request, request_etag_is_known(request, etag) ? 304 : 200, resource,
                       &headers);
}

/* The cursor is the last id that the page before showed (or, if none, looked at), so what comes and
 * goes meanwhile neither repeats nor hides others; clients are told to treat it as opaque. */
static int list_read_query(struct request *request, struct node_list_query *query,
                           struct label_selector *selector, struct error *err)
{
    const char *cursor = query_get(&request->query, "cursor");
    int64_t limit = 0;
    int r =
        query_integer(&request->query, "limit", 1, LIST_LIMIT_MAX, LIST_LIMIT_DEFAULT, &limit, err);

    if (r < 0)
        return r;
    if (cursor && !id_is_valid(cursor))
        return error_field(err, EINVAL, "cursor", "cursor must be the `next` of an earlier page");
    if (request_labels(request, selector, err) < 0)
        return -EINVAL;
    query->after = cursor ? cursor : "";
    query->limit = (size_t)limit;
    query->labels = selector;
    query->limits = kind_of(request) == RESOURCE_VM ? request->caller.limits : NULL;
    query->state = query_get(&request->query, "state");
    return query->state ? node_check_state(kind_of(request), query->state, err) : 0;
}

void resource_list(struct request *request)
{
    struct error err = { 0 };
    struct label_selector selector;
    struct node_list_query query;
    char next[ID_MAX + 1];
    json_t *items;

    if (list_read_query(request, &query, &selector, &err) < 0) {
        request_reply_error(request, &err);
        return;
    }
    items = node_list(request->node, kind_of(request), &query, next);
    /* "o" takes what it is given, also when packing fails */
    request_reply_json(request, 200,
                       json_pack("{s:o, s:s?, s:I}", "items", items, "next", next[0] ? next : NULL,
                                 "revision", (json_int_t)node_revision(request->node)),
                       NULL);
}

/* Where the resource, or the work on it, can be looked at. */
static char *location_of(const struct request *request, const json_t *resource, int status)
{
    bool is_put = request->route->handler == resource_put;
    const char *operation =
        json_string_value(json_object_get(json_object_get(resource, "status"), "operation"));
    char *location = NULL;

    if (!is_put && request->route->handler != vm_snapshot)
        return NULL;
    if (operation && asprintf(&location, "/v1/operations/%s", operation) < 0)
        return NULL;
    if (!operation && !is_put && asprintf(&location, "/v1/snapshots/%s", request->parameter) < 0)
        return NULL;
    if (!operation && is_put && status == 201 && asprintf(&location, "%s", request->path) < 0)
        return NULL;
    return location;
}

/* That the answer is about this one and no other, unless a DELETE has noted it already. */
static void remember_uid(struct request *request, const json_t *resource)
{
    const char *uid = json_string_value(json_object_get(resource, "uid"));

    if (!request->step.uid[0])
        snprintf(request->step.uid, sizeof request->step.uid, "%s", uid ? uid : "");
}

/* After a while the same id may already be somebody's new resource. */
static bool is_another(const struct request *request, const json_t *resource)
{
    const char *uid = json_string_value(json_object_get(resource, "uid"));

    return request->step.uid[0] && uid && strcmp(request->step.uid, uid) != 0;
}

/* DELETE's aim; for who waits for anything else, what somebody else did in the meantime. */
static void reply_gone(struct request *request)
{
    struct error err;

    if (request->route->handler == resource_delete) {
        request_reply_json(request, 200,
                           json_pack("{s:s, s:s?, s:b}", "id", request->parameter, "uid",
                                     request->step.uid[0] ? request->step.uid : NULL, "deleted", 1),
                           NULL);
        return;
    }
    error_set(&err, ENOENT, "there is no %s %s any more", resource_kind_name(kind_of(request)),
              request->parameter);
    request_reply_error(request, &err);
}

void resource_finish(struct request *request)
{
    struct error err = { 0 };
    json_t *resource = NULL;
    int r = request_see(request, kind_of(request), request->parameter, &resource, &err);
    auto_free char *location = NULL;
    char etag[ETAG_TEXT];
    struct reply_headers headers = { .etag = etag };

    if (r == -EAGAIN) {
        request_reply_error(request, &err);
        return;
    }
    if (r < 0 || is_another(request, resource)) {
        json_decref(resource);
        reply_gone(request);
        return;
    }
    location = location_of(request, resource, request->step.status);
    headers.location = location;
    etag_of(resource, etag);
    request_reply_json(request, request->step.status, resource, &headers);
}

/* What was asked for was made, and failed for want of space before the answer: that is the answer
 * of one that is refused for it at once. */
static bool refuse_for_space(struct request *request)
{
    bool makes = request->step.status == 201 || request->route->handler == vm_snapshot;
    int code = makes ? node_failure(request->node, kind_of(request), request->parameter) : 0;
    json_t *resource;
    struct error err = { 0 };
    bool refused;

    if ((code != ENOSPC && code != EDQUOT) ||
        node_get(request->node, kind_of(request), request->parameter, &resource, NULL) < 0)
        return false;
    error_set(&err, ENOSPC, "%.150s; %s %s stays as failed: delete it before the next try",
              json_text(json_object_get(resource, "status"), "reason"),
              resource_kind_name(kind_of(request)), request->parameter);
    refused = !is_another(request, resource);
    json_decref(resource);
    if (refused)
        request_reply_error(request, &err);
    return refused;
}

static void waited(struct request *request, bool reached)
{
    if (reached && refuse_for_space(request))
        return;
    /* A PUT or PATCH has succeeded whether or not what it asked for came about in time. */
    if (!reached && (strcmp(request->route->method, "POST") == 0 ||
                     strcmp(request->route->method, "DELETE") == 0))
        request->step.status = 202;
    resource_finish(request);
}

/* After the change was committed: answers, or waits first. */
static void changed(struct request *request)
{
    enum resource_kind kind = kind_of(request);
    json_t *resource;
    int64_t generation;

    if (request->step.wait_ms < 0 || request->abandoned ||
        node_get(request->node, kind, request->parameter, &resource, NULL) < 0) {
        resource_finish(request);
        return;
    }
    remember_uid(request, resource);
    /* A deleted one never observes its last generation; a paused one has devices that come or go
     * only when it goes on. */
    generation =
        request->step.wait_for == NODE_WAIT_DELETED || request->step.wait_for == NODE_WAIT_PAUSED
            ? 0
            : json_integer_value(json_object_get(resource, "generation"));
    json_decref(resource);
    request_wait(request, kind, request->parameter, request->step.wait_for, generation,
                 request->step.wait_ms, waited);
}

void resource_change_done(void *context, int result, const struct error *err)
{
    struct request *request = context;

    if (result < 0) {
        struct error refused = { .code = -result };

        if (err && err->code)
            refused = *err;
        /* what a spec names and is not there makes the spec wrong, not the path */
        if (refused.code == ENOENT && request->route->handler == resource_put)
            refused.code = EINVAL;
        /* fields are named as in the resource, and the body is its spec alone */
        if (strncmp(refused.field, "spec.", 5) == 0)
            memmove(refused.field, refused.field + 5, strlen(refused.field + 5) + 1);
        request_reply_error(request, &refused);
        return;
    }
    if (request->step.status == 0)
        request->step.status = result == 1 ? 201 : 200;
    changed(request);
}

int resource_read_spec(struct request *request, struct node_change *change, struct error *err)
{
    return request_json(request, resource_json_types, &change->body, err);
}

int resource_read_patch(struct request *request, struct node_change *change, struct error *err)
{
    return request_json(request, resource_patch_types, &change->body, err);
}

static int read_force(struct request *request, struct node_change *change, struct error *err)
{
    return query_bool(&request->query, "force", &change->force, err);
}

bool resource_read_change(struct request *request, resource_read_fn *read,
                          struct node_change *change)
{
    struct error err = { 0 };

    if (resource_read_wait(request, &err) < 0 || (read && read(request, change, &err) < 0) ||
        request_condition(request, kind_of(request), change->verb == CHANGE_PUT, &change->condition,
                          &err) < 0) {
        json_decref(change->body);
        request_reply_error(request, &err);
        return false;
    }
    change->kind = kind_of(request);
    change->id = request->parameter;
    change->context = request;
    return true;
}

void resource_go_on_to(struct request *request, enum node_wait_for what)
{
    request->step.wait_for = what;
    request->step.status = request->step.wait_ms < 0 ? 202 : 200;
}

void resource_put(struct request *request)
{
    struct node_change change = { .verb = CHANGE_PUT, .done = resource_change_done };

    if (!resource_read_change(request, resource_read_spec, &change))
        return;
    request->step.wait_for = NODE_WAIT_SETTLED;
    node_submit(request->node, &change);
    json_decref(change.body);
}

void resource_patch(struct request *request)
{
    struct node_change change = { .verb = CHANGE_PATCH, .done = resource_change_done };

    if (!resource_read_change(request, resource_read_patch, &change))
        return;
    request->step.wait_for = NODE_WAIT_SETTLED;
    request->step.status = 200;
    node_submit(request->node, &change);
    json_decref(change.body);
}

void resource_delete(struct request *request)
{
    struct node_change change = { .verb = CHANGE_DELETE, .done = resource_change_done };
    json_t *resource = NULL;

    if (!resource_read_change(request, read_force, &change))
        return;
    (void)node_get(request->node, change.kind, change.id, &resource, NULL);
    remember_uid(request, resource);
    json_decref(resource);
    resource_go_on_to(request, NODE_WAIT_DELETED);
    node_submit(request->node, &change);
}
