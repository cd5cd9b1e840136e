/* node_handlers.c - the node itself: /v1/node, /v1/prometheus/targets, /metrics, /healthz, /readyz,
 * /openapi.yaml. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "api/api_metrics.h"
#include "api/audit.h"
#include "api/handlers.h"
#include "api/openapi.h"
#include "api/request.h"
#include "api/router.h"
#include "api/wire.h"
#include "base/cleanup.h"
#include "base/json.h"

static void reply_node(struct request *request, int status, json_t *info)
{
    char etag[ETAG_TEXT];
    struct reply_headers headers = { .etag = etag };

    etag_of(info, etag);
    if (strcmp(request->route->method, "GET") == 0 && request_etag_is_known(request, etag))
        status = 304;
    request_reply_json(request, status, info, &headers);
}

void node_show(struct request *request)
{
    const struct query *query = &request->query;
    struct error err = { 0 };
    int64_t vcpus, memory_mib, memory_min_mib, disk_mib;
    struct node_shape shape;

    if (query_integer(query, "vcpus", 1, 1024, 1, &vcpus, &err) < 0 ||
        query_integer(query, "memory_mib", 1, INT32_MAX, 1, &memory_mib, &err) < 0 ||
        query_integer(query, "memory_min_mib", 1, memory_mib, memory_mib, &memory_min_mib, &err) <
            0 ||
        query_integer(query, "disk_mib", 0, INT32_MAX, 0, &disk_mib, &err) < 0) {
        request_reply_error(request, &err);
        return;
    }
    shape = (struct node_shape){ .vcpus = (uint64_t)vcpus,
                                 .memory_mib = (uint64_t)memory_mib,
                                 .memory_min_mib = (uint64_t)memory_min_mib,
                                 .disk_mib = (uint64_t)disk_mib };
    reply_node(request, 200, node_info(request->node, query->count ? &shape : NULL));
}

void node_show_targets(struct request *request)
{
    request_reply_json(request, 200, node_targets(request->node), NULL);
}

void node_show_memory(struct request *request)
{
    request_reply_json(request, 200, node_memory_json(request->node), NULL);
}

/* --- whether it takes VMs --- */

static void node_changed(void *context, int result, const struct error *err)
{
    struct request *request = context;

    if (result < 0)
        request_reply_error(request, err);
    else
        node_show(request);
}

/* What the patch says of them is checked once it is merged. */
static int check_names(const json_t *patch, struct error *err)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)patch, key, value)
    {
        if (strcmp(key, "schedulable") != 0 && strcmp(key, "memory") != 0)
            return error_field(err, EINVAL, key,
                               "%s: cannot be changed; of the node only schedulable and memory can",
                               key);
    }
    return json_object_size(patch) > 0
               ? 0
               : error_field(err, EINVAL, "body",
                             "what can be changed is schedulable and memory: name one");
}

void node_change(struct request *request)
{
    struct node_condition condition = { 0 };
    struct error err = { 0 };
    json_t *patch = NULL;
    int r = request_json(request, resource_patch_types, &patch, &err);

    if (r == 0)
        r = check_names(patch, &err);
    if (r == 0)
        r = request_node_condition(request, &condition, &err);
    if (r < 0)
        request_reply_error(request, &err);
    else
        node_patch_spec(request->node, patch, condition, node_changed, request);
    json_decref(patch);
}

void node_uncordon(struct request *request)
{
    struct node_condition condition = { 0 };
    struct error err = { 0 };

    if (request_node_condition(request, &condition, &err) < 0)
        request_reply_error(request, &err);
    else
        node_set_schedulable(request->node, condition, node_changed, request);
}

static void drain_reply(struct request *request, bool reached)
{
    reply_node(request, reached ? 200 : 202, node_info(request->node, NULL));
}

static void drain_begun(void *context, int result, const struct error *err)
{
    struct request *request = context;

    if (result < 0)
        request_reply_error(request, err);
    else if (request->step.wait_ms < 0)
        drain_reply(request, false);
    else
        request_wait(request, RESOURCE_VM, "", NODE_WAIT_DRAINED, 0, request->step.wait_ms,
                     drain_reply);
}

void node_start_drain(struct request *request)
{
    struct node_condition condition = { 0 };
    struct error err = { 0 };

    if (resource_read_wait(request, &err) < 0 ||
        request_node_condition(request, &condition, &err) < 0)
        request_reply_error(request, &err);
    else
        node_drain(request->node, condition, drain_begun, request);
}

static void backed_up(void *context, const void *bytes, size_t size, const struct error *err)
{
    struct request *request = context;
    struct error too_large;

    if (!bytes) {
        request_reply_error(request, err);
    } else if (size > WIRE_REPLY_BODY_MAX) {
        error_set(&too_large, EFBIG, "the database has %zu MiB: stop warrend and copy warren.db",
                  size >> 20);
        request_reply_error(request, &too_large);
    } else {
        request_reply_text(request, "application/vnd.sqlite3", bytes, size);
    }
}

void node_back_up(struct request *request)
{
    node_backup(request->node, backed_up, request);
}

void node_show_metrics(struct request *request)
{
    size_t node_size = 0, api_size = 0;
    auto_free char *of_node = node_metrics(request->node, &node_size);
    bool audit_is_good = audit_check(request->sink.audit, NULL) == 0;
    auto_free char *of_api = api_metrics_text(request->metrics, audit_is_good, &api_size);
    auto_free char *all = of_node && of_api ? malloc(node_size + api_size + 1) : NULL;
    struct error err;

    if (!all) {
        error_set(&err, EAGAIN, "memory is short");
        request_reply_error(request, &err);
        return;
    }
    memcpy(all, of_node, node_size);
    memcpy(all + node_size, of_api, api_size);
    request_reply_text(request, "text/plain; version=0.0.4; charset=utf-8", all,
                       node_size + api_size);
}

void node_show_health(struct request *request)
{
    request_reply_text(request, "text/plain; charset=utf-8", "ok\n", strlen("ok\n"));
}

/* Also where changes are refused, though nothing of the node is amiss. */
static int check_ready(const struct request *request, struct error *err)
{
    int result = node_ready(request->node, err);

    if (result == 0 && audit_check(request->sink.audit, err) < 0) {
        err->code = EAGAIN;
        result = -EAGAIN;
    }
    return result;
}

void node_show_readiness(struct request *request)
{
    struct error err = { 0 };

    if (check_ready(request, &err) < 0)
        request_reply_error(request, &err);
    else
        request_reply_text(request, "text/plain; charset=utf-8", "ready\n", strlen("ready\n"));
}

void node_show_openapi(struct request *request)
{
    size_t size;
    const char *text = openapi_text(&size);

    request_reply_text(request, "application/yaml", text, size);
}
