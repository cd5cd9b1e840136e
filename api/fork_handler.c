/* fork_handler.c - POST /v1/vms/{id}/fork: N VMs like this one, whose boot says that they begin as
 * its copies.  All or none of them are made. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "agent/resource.h"
#include "api/handlers.h"
#include "api/request.h"
#include "api/router.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "base/loop.h"

#define FORKS_MAX 64

struct forks {
    struct request *request;
    size_t count, left; /* of items; not yet answered */
    size_t waited;
    int64_t deadline_ms;
    struct error err; /* of the first that could not be made */
    struct fork {
        struct forks *forks;
        char id[ID_MAX + 1];
        bool is_new;
    } items[];
};

static json_t *forks_json(const struct forks *forks)
{
    json_t *items = json_array(), *vm;
    int result = 0;

    for (size_t i = 0; i < forks->count; i++) {
        int r = request_see(forks->request, RESOURCE_VM, forks->items[i].id, &vm, NULL);

        if (r != -ENOENT)
            result |= r < 0 ? r : json_array_append_new(items, vm);
    }
    return json_pack("{s:o}", "items", json_whole(items, result));
}

/* Of the one that there is; NULL where there are several, each of which says its own. */
static char *forks_location(const struct forks *forks, const json_t *body)
{
    const json_t *vm = json_array_get(json_object_get(body, "items"), 0);
    const char *operation =
        json_string_value(json_object_get(json_object_get(vm, "status"), "operation"));
    char *location = NULL;

    if (forks->count != 1 || !operation || asprintf(&location, "/v1/operations/%s", operation) < 0)
        return NULL;
    return location;
}

static void forks_reply(struct forks *forks, int status)
{
    json_t *body = forks->err.code ? NULL : forks_json(forks);
    auto_free char *location = body ? forks_location(forks, body) : NULL;
    struct reply_headers headers = { .location = location };

    if (forks->err.code)
        request_reply_error(forks->request, &forks->err);
    else
        request_reply_json(forks->request, status, body, &headers);
    free(forks);
}

/* --- waiting, one after the other: they come up together --- */

static void forks_wait(struct forks *forks);

static void fork_waited(struct request *request, bool reached)
{
    (void)reached;
    request->step.forks->waited++;
    forks_wait(request->step.forks);
}

static void forks_wait(struct forks *forks)
{
    struct request *request = forks->request;
    int64_t left = forks->deadline_ms - loop_now_ms();

    if (forks->waited == forks->count || request->abandoned) {
        forks_reply(forks, request->abandoned ? 202 : 200);
        return;
    }
    request->step.forks = forks;
    request_wait(request, RESOURCE_VM, forks->items[forks->waited].id, NODE_WAIT_RUNNING, 0,
                 left > 0 ? left : 0, fork_waited);
}

/* --- making --- */

static void fork_undone(void *context, int result, const struct error *err)
{
    struct fork *fork = context;

    (void)result;
    (void)err;
    if (--fork->forks->left == 0)
        forks_reply(fork->forks, 0);
}

/* Those that were made go again. */
static void forks_undo(struct forks *forks)
{
    forks->left = 1;
    for (size_t i = 0; i < forks->count; i++)
        if (forks->items[i].is_new) {
            forks->left++;
            node_submit(forks->request->node, &(struct node_change){ .verb = CHANGE_DELETE,
                                                                     .kind = RESOURCE_VM,
                                                                     .id = forks->items[i].id,
                                                                     .force = true,
                                                                     .done = fork_undone,
                                                                     .context = &forks->items[i] });
        }
    if (--forks->left == 0)
        forks_reply(forks, 0);
}

/* As it was asked: by a parent and ids, of which PUTs were made with fields that nobody sent. */
static void fork_refused(const struct fork *fork, const struct error *err, struct error *ret_err)
{
    size_t length = strlen(err->field);
    const char *message = err->message;

    if (length > 0 && strncmp(message, err->field, length) == 0 && message[length] == ':')
        message += length + 1 + strspn(message + length + 1, " ");
    /* The parent, by its name; but a VM that is there, and no fork of it, was named by its id. */
    if (length == 0 || (strcmp(err->field, "boot.fork") == 0 && err->code != EEXIST))
        error_set(ret_err, err->code, "%.255s", message);
    else
        error_field(ret_err, err->code, "ids", "ids: %s: %.180s", fork->id, message);
}

static void fork_made(void *context, int result, const struct error *err)
{
    struct fork *fork = context;
    struct forks *forks = fork->forks;

    if (result < 0 && !forks->err.code)
        fork_refused(fork, err, &forks->err);
    fork->is_new = result > 0;
    if (--forks->left > 0)
        return;
    if (forks->err.code)
        forks_undo(forks);
    else if (forks->request->step.wait_ms < 0)
        forks_reply(forks, 202);
    else
        forks_wait(forks);
}

/* Its own volumes, for the disks that it may write to: <its id>-<the disk's name>. */
static int fork_volumes(json_t *spec, const char *id, struct error *err)
{
    json_t *disk;
    size_t index;

    json_array_foreach(json_object_get(spec, "disks"), index, disk)
    {
        const char *name = json_string_value(json_object_get(disk, "name"));
        char volume[2 * ID_MAX + 2];

        if (json_is_true(json_object_get(disk, "read_only")))
            continue;
        snprintf(volume, sizeof volume, "%s-%s", id, name);
        if (!id_is_valid(volume))
            return error_field(err, EINVAL, "ids",
                               "ids: %s is too long: %s, the volume of its disk, would have more "
                               "than %d characters",
                               id, volume, ID_MAX);
        if (json_object_set_new(disk, "volume", json_string(volume)) < 0)
            return error_no_memory(err);
    }
    return 0;
}

/* The parent's spec, but for what each VM has for itself.  NULL if memory is short. */
static json_t *fork_spec(const json_t *parent, const char *parent_id)
{
    json_t *spec = json_whole_copy(json_object_get(parent, "spec"));
    json_t *nic;
    size_t index;
    int result = json_set_text(json_object_get(spec, "boot"), "fork", parent_id) |
                 json_set_text(spec, "desired_state", "running") |
                 json_object_set_new(spec, "delete_protection", json_false());

    json_array_foreach(json_object_get(spec, "nics"), index, nic)
    {
        json_object_del(nic, "mac");
        json_object_del(nic, "ipv4");
    }
    return json_whole(spec, result);
}

static bool is_among_first(const json_t *ids, size_t count, const json_t *id)
{
    bool found = false;

    for (size_t i = 0; i < count && !found; i++)
        found = json_equal(json_array_get(ids, i), id);
    return found;
}

static int forks_read(struct request *request, struct forks **ret_forks, struct error *err)
{
    json_t *body = NULL, *id;
    const json_t *ids;
    struct forks *forks = NULL;
    size_t index;
    int result = request_json(request, resource_json_types, &body, err);

    if (result < 0)
        return result;
    ids = json_object_get(body, "ids");
    if (!json_is_array(ids) || json_array_size(ids) < 1 || json_array_size(ids) > FORKS_MAX ||
        json_object_size(body) != 1)
        result = error_field(err, EINVAL, "ids", "ids: must be 1 to %d ids, and is the only field",
                             FORKS_MAX);
    json_array_foreach((json_t *)ids, index, id)
    {
        if (result == 0 && (!json_is_string(id) || !id_is_valid(json_string_value(id))))
            result = error_field(err, EINVAL, "ids", "ids[%zu]: " ID_RULE, index);
        if (result == 0 && is_among_first(ids, index, id))
            result = error_field(err, EINVAL, "ids", "ids[%zu]: %s is there already", index,
                                 json_string_value(id));
    }
    if (result == 0)
        forks = calloc(1, sizeof *forks + json_array_size(ids) * sizeof forks->items[0]);
    if (result == 0 && !forks)
        result = error_no_memory(err);
    if (forks) {
        forks->request = request;
        forks->count = json_array_size(ids);
        for (size_t i = 0; i < forks->count; i++) {
            forks->items[i].forks = forks;
            snprintf(forks->items[i].id, sizeof forks->items[i].id, "%s",
                     json_string_value(json_array_get(ids, i)));
        }
        *ret_forks = forks;
    }
    json_decref(body);
    return result;
}

/* All that can be refused before the first is put. */
static int forks_check(const struct forks *forks, const json_t *spec, struct error *err)
{
    json_t *copy = json_whole_copy(spec);
    int result = copy ? 0 : error_no_memory(err);

    for (size_t i = 0; result == 0 && i < forks->count; i++)
        result = fork_volumes(copy, forks->items[i].id, err);
    json_decref(copy);
    return result;
}

static void forks_put(struct forks *forks, json_t *spec)
{
    for (size_t i = 0; i < forks->count; i++) {
        struct fork *fork = &forks->items[i];
        json_t *own = json_whole_copy(spec);

        own = json_whole(own, fork_volumes(own, fork->id, NULL));
        /* NULL is refused like any other that is no object. */
        node_submit(forks->request->node, &(struct node_change){ .verb = CHANGE_PUT,
                                                                 .kind = RESOURCE_VM,
                                                                 .id = fork->id,
                                                                 .body = own,
                                                                 .done = fork_made,
                                                                 .context = fork });
        json_decref(own);
    }
}

void vm_fork(struct request *request)
{
    struct node_condition condition = { 0 };
    struct error err = { 0 };
    struct forks *forks = NULL;
    json_t *parent, *spec;

    if (resource_read_wait(request, &err) < 0 ||
        request_check_match(request, false, &condition, &err) < 0 ||
        forks_read(request, &forks, &err) < 0) {
        request_reply_error(request, &err);
        return;
    }
    if (node_get(request->node, RESOURCE_VM, request->parameter, &parent, &err) < 0) {
        request_reply_error(request, &err);
        free(forks);
        return;
    }
    spec = fork_spec(parent, request->parameter);
    json_decref(parent);
    if (forks_check(forks, spec, &err) < 0) {
        request_reply_error(request, &err);
        json_decref(spec);
        free(forks);
        return;
    }
    forks->deadline_ms = loop_now_ms() + request->step.wait_ms;
    forks->left = forks->count + 1;
    forks_put(forks, spec);
    json_decref(spec);
    /* None has been answered yet but for want of memory. */
    fork_made(&(struct fork){ .forks = forks }, 0, NULL);
}
