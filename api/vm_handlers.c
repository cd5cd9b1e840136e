/* vm_handlers.c - what only VMs have: start, stop, kill, reboot, pause, resume, disks and nics,
 * snapshot, wait, console, vsock. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "api/handlers.h"
#include "api/idempotency.h"
#include "api/problem.h"
#include "api/request.h"
#include "api/request_table.h"
#include "api/router.h"
#include "base/cleanup.h"

#define CONSOLE_TYPE         "text/plain; charset=utf-8"
#define CONSOLE_TAIL_DEFAULT (64 * 1024)
#define CONSOLE_TAIL_MAX     (1024 * 1024)
#define WAIT_SECONDS_DEFAULT 60

/* What ?wait= waits for. */
static const enum node_wait_for action_waits[] = {
    [VM_ACTION_START] = NODE_WAIT_RUNNING, [VM_ACTION_STOP] = NODE_WAIT_STOPPED,
    [VM_ACTION_KILL] = NODE_WAIT_STOPPED,  [VM_ACTION_REBOOT] = NODE_WAIT_RUNNING,
    [VM_ACTION_PAUSE] = NODE_WAIT_PAUSED,  [VM_ACTION_RESUME] = NODE_WAIT_RUNNING,
};

void vm_action(struct request *request)
{
    struct node_change change = { .verb = CHANGE_ACTION,
                                  .action = (enum vm_action)request->route->argument,
                                  .done = resource_change_done };

    if (!resource_read_change(request, NULL, &change))
        return;
    resource_go_on_to(request, action_waits[change.action]);
    node_submit(request->node, &change);
}

/* What was changed may go on: then 202, if nobody waits for it. */
static void part_changed(void *context, int result, const struct error *err)
{
    struct request *request = context;
    json_t *vm = NULL;
    int64_t generation, observed;

    (void)node_get(request->node, RESOURCE_VM, request->parameter, &vm, NULL);
    generation = json_integer_value(json_object_get(vm, "generation"));
    observed =
        json_integer_value(json_object_get(json_object_get(vm, "status"), "observed_generation"));
    json_decref(vm);
    if (request->step.wait_ms < 0 && observed < generation &&
        (result > 0 || request->route->handler == vm_part_delete))
        request->step.status = 202;
    resource_change_done(context, result, err);
}

static void change_part(struct request *request, resource_read_fn *read, bool merge)
{
    struct node_change change = { .verb = CHANGE_PART,
                                  .part = (enum vm_part)request->route->argument,
                                  .part_name = request->name,
                                  .merge = merge,
                                  .done = part_changed };

    if (!resource_read_change(request, read, &change))
        return;
    request->step.wait_for = NODE_WAIT_SETTLED;
    node_submit(request->node, &change);
    json_decref(change.body);
}

void vm_part_put(struct request *request)
{
    change_part(request, resource_read_spec, /* merge= */ false);
}

void vm_part_patch(struct request *request)
{
    request->step.status = 200;
    change_part(request, resource_read_patch, /* merge= */ true);
}

void vm_part_delete(struct request *request)
{
    change_part(request, NULL, /* merge= */ false);
}

/* {"id", and what else the snapshot is to be}: the resource's spec has the VM in the id's place,
 * and from here on the request is about the snapshot. */
static int snapshot_read(struct request *request, struct node_change *change, struct error *err)
{
    const char *id;
    int r = resource_read_spec(request, change, err);

    if (r < 0)
        return r;
    id = json_string_value(json_object_get(change->body, "id"));
    if (!id || !id_is_valid(id))
        return error_field(err, EINVAL, "id", "id: the snapshot's: " ID_RULE);
    if (json_object_get(change->body, "vm"))
        return error_field(err, EINVAL, "vm", "vm: is not a field here: the path names it");
    if (json_object_set_new(change->body, "vm", json_string(request->parameter)) < 0)
        return error_no_memory(err);
    snprintf(request->parameter, sizeof request->parameter, "%s", id);
    json_object_del(change->body, "id");
    return 0;
}

void vm_snapshot(struct request *request)
{
    struct error err = { 0 };
    struct node_change change = { .verb = CHANGE_PUT,
                                  .kind = RESOURCE_SNAPSHOT,
                                  .id = request->parameter, /* which snapshot_read fills in */
                                  .done = resource_change_done,
                                  .context = request };

    if (resource_read_wait(request, &err) < 0 ||
        request_check_match(request, /* may_create= */ true, &change.condition, &err) < 0 ||
        snapshot_read(request, &change, &err) < 0) {
        json_decref(change.body);
        request_reply_error(request, &err);
        return;
    }
    if (idempotency_is_done(request)) {
        request->step.status = 202;
        resource_finish(request);
    } else {
        resource_go_on_to(request, NODE_WAIT_SETTLED);
        node_submit(request->node, &change);
    }
    json_decref(change.body);
}

static const char *const wait_names[NODE_WAIT_COUNT] = {
    [NODE_WAIT_RUNNING] = "running", [NODE_WAIT_STOPPED] = "stopped", [NODE_WAIT_PAUSED] = "paused",
    [NODE_WAIT_SETTLED] = "settled", [NODE_WAIT_DELETED] = "deleted",
};

static int wait_read_for(struct request *request, struct error *err)
{
    const char *name = query_get(&request->query, "for");

    for (int i = 0; name && i < NODE_WAIT_COUNT; i++) {
        if (strcmp(name, wait_names[i]) == 0) {
            request->step.wait_for = (enum node_wait_for)i;
            return 0;
        }
    }
    return error_field(err, EINVAL, "for",
                       "for must be running, stopped, paused, settled or deleted");
}

static void wait_reply(struct request *request, bool reached)
{
    struct error err = { 0 };
    json_t *vm = NULL;

    if (request_see(request, RESOURCE_VM, request->parameter, &vm, &err) == -EAGAIN) {
        request_reply_error(request, &err);
        return;
    }
    request_reply_json(request, 200,
                       json_pack("{s:b, s:o}", "reached", reached, "vm", vm ? vm : json_null()),
                       NULL);
}

void vm_wait(struct request *request)
{
    struct error err = { 0 };
    int64_t generation = 0, seconds = 0;
    json_t *vm = NULL;

    if (wait_read_for(request, &err) < 0 ||
        query_integer(&request->query, "generation", 1, INT64_MAX, 0, &generation, &err) < 0 ||
        query_integer(&request->query, "timeout", 0, WAIT_SECONDS_MAX, WAIT_SECONDS_DEFAULT,
                      &seconds, &err) < 0) {
        request_reply_error(request, &err);
        return;
    }
    if (request_see(request, RESOURCE_VM, request->parameter, &vm, &err) == -ENOENT) {
        /* an unknown id is "deleted", and can be nothing else */
        wait_reply(request, request->step.wait_for == NODE_WAIT_DELETED);
        return;
    }
    json_decref(vm);
    request_wait(request, RESOURCE_VM, request->parameter, request->step.wait_for, generation,
                 seconds * 1000, wait_reply);
}

/* Of 256, and 32. */
static const struct stream_share follower_share = { "console followers", 64, 8 };

static void console_follow(struct request *request, size_t tail)
{
    struct error err = { 0 };
    int fd;

    if (request_admit_stream(request, &follower_share, &err) < 0 ||
        node_console_follow(request->node, request->parameter, tail, &fd, &err) < 0)
        request_reply_error(request, &err);
    else
        request_reply_stream(request, CONSOLE_TYPE, fd);
}

static void console_show(struct request *request, size_t tail)
{
    struct error err = { 0 };
    auto_free char *bytes = NULL;
    size_t size = 0;

    if (node_console(request->node, request->parameter, tail, &bytes, &size, &err) < 0)
        request_reply_error(request, &err);
    else
        request_reply_text(request, CONSOLE_TYPE, bytes, size);
}

void vm_console(struct request *request)
{
    struct error err = { 0 };
    int64_t tail = 0, follow = 0;

    if (query_integer(&request->query, "tail", 0, CONSOLE_TAIL_MAX, CONSOLE_TAIL_DEFAULT, &tail,
                      &err) < 0 ||
        query_integer(&request->query, "follow", 0, 1, 0, &follow, &err) < 0)
        request_reply_error(request, &err);
    else if (follow)
        console_follow(request, (size_t)tail);
    else
        console_show(request, (size_t)tail);
}

static void console_typed(void *context, int result, const struct error *err)
{
    struct request *request = context;

    if (result < 0)
        request_reply_error(request, err);
    else
        request_reply_empty(request);
}

void vm_console_input(struct request *request)
{
    static const char *const types[] = { "text/plain", "application/octet-stream", NULL };
    struct node_condition condition = { 0 };
    struct error err = { 0 };

    if (request_check_bytes(request, types, NODE_INPUT_MAX, &err) < 0 ||
        request_check_match(request, false, &condition, &err) < 0)
        request_reply_error(request, &err);
    else
        node_console_input(request->node, request->parameter, request->body, request->body_size,
                           console_typed, request);
}

static void vsock_connected(void *context, int fd, const struct error *err)
{
    struct request *request = context;

    if (fd < 0)
        request_reply_error(request, err);
    else
        request_reply_upgrade(request, STREAM_PROTOCOL, fd);
}

/* Of the 64 that a VM has.  All together are bounded by the files of warren-api, two for each: one
 * caller's leave most of those to others. */
static const struct stream_share vsock_share = { "vsock connections", 256, 16 };

void vm_vsock(struct request *request)
{
    struct error err = { 0 };

    if (request_check_upgrade(request, STREAM_PROTOCOL, &err) < 0 ||
        request_admit_stream(request, &vsock_share, &err) < 0)
        request_reply_error(request, &err);
    else
        node_vsock_connect(request->node, request->parameter, request->number, vsock_connected,
                           request);
}
