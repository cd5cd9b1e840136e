/* router.c - see router.h. */
#include "api/router.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "api/access.h"
#include "api/handlers.h"
#include "api/idempotency.h"
#include "api/problem.h"
#include "api/request.h"
#include "base/cleanup.h"

static const char *const list_queries[] = { "limit", "cursor", "state", "labels", NULL };
static const char *const page_queries[] = { "limit", "cursor", "state", NULL };
static const char *const wait_queries[] = { "wait", NULL };
static const char *const delete_queries[] = { "wait", "force", NULL };
static const char *const vm_wait_queries[] = { "for", "generation", "timeout", NULL };
static const char *const node_queries[] = { "vcpus", "memory_mib", "memory_min_mib", "disk_mib",
                                            NULL };
static const char *const event_queries[] = {
    "after", "kind", "id", "type", "labels", "limit", NULL
};
static const char *const console_queries[] = { "tail", "follow", NULL };

/* The order is the one of openapi.yaml.  HEAD is answered wherever GET is. */
/* Images and networks reach into the host (files, URLs, its routing), so they are admin's; what
 * runs on them is operate's. */
static const struct route routes[] = {
    /* method, path, scope, operation, handler, argument, has_body, queries */
    { "GET", "/v1/images", SCOPE_READ, "listImages", resource_list, RESOURCE_IMAGE, false,
      list_queries },
    { "GET", "/v1/images/{id}", SCOPE_READ, "getImage", resource_get, RESOURCE_IMAGE, false, NULL },
    { "PUT", "/v1/images/{id}", SCOPE_ADMIN, "putImage", resource_put, RESOURCE_IMAGE, true,
      wait_queries },
    { "PATCH", "/v1/images/{id}", SCOPE_ADMIN, "patchImage", resource_patch, RESOURCE_IMAGE, true,
      wait_queries },
    { "DELETE", "/v1/images/{id}", SCOPE_ADMIN, "deleteImage", resource_delete, RESOURCE_IMAGE,
      false, delete_queries },
    { "GET", "/v1/volumes", SCOPE_READ, "listVolumes", resource_list, RESOURCE_VOLUME, false,
      list_queries },
    { "GET", "/v1/volumes/{id}", SCOPE_READ, "getVolume", resource_get, RESOURCE_VOLUME, false,
      NULL },
    { "PUT", "/v1/volumes/{id}", SCOPE_OPERATE, "putVolume", resource_put, RESOURCE_VOLUME, true,
      wait_queries },
    { "PATCH", "/v1/volumes/{id}", SCOPE_OPERATE, "patchVolume", resource_patch, RESOURCE_VOLUME,
      true, wait_queries },
    { "DELETE", "/v1/volumes/{id}", SCOPE_OPERATE, "deleteVolume", resource_delete, RESOURCE_VOLUME,
      false, delete_queries },
    { "GET", "/v1/networks", SCOPE_READ, "listNetworks", resource_list, RESOURCE_NETWORK, false,
      list_queries },
    { "GET", "/v1/networks/{id}", SCOPE_READ, "getNetwork", resource_get, RESOURCE_NETWORK, false,
      NULL },
    { "PUT", "/v1/networks/{id}", SCOPE_ADMIN, "putNetwork", resource_put, RESOURCE_NETWORK, true,
      wait_queries },
    { "PATCH", "/v1/networks/{id}", SCOPE_ADMIN, "patchNetwork", resource_patch, RESOURCE_NETWORK,
      true, wait_queries },
    { "DELETE", "/v1/networks/{id}", SCOPE_ADMIN, "deleteNetwork", resource_delete,
      RESOURCE_NETWORK, false, delete_queries },
    { "GET", "/v1/vms", SCOPE_READ, "listVms", resource_list, RESOURCE_VM, false, list_queries },
    { "GET", "/v1/vms/{id}", SCOPE_READ, "getVm", resource_get, RESOURCE_VM, false, NULL },
    { "PUT", "/v1/vms/{id}", SCOPE_OPERATE, "putVm", resource_put, RESOURCE_VM, true,
      wait_queries },
    { "PATCH", "/v1/vms/{id}", SCOPE_OPERATE, "patchVm", resource_patch, RESOURCE_VM, true,
      wait_queries },
    { "DELETE", "/v1/vms/{id}", SCOPE_OPERATE, "deleteVm", resource_delete, RESOURCE_VM, false,
      delete_queries },
    { "POST", "/v1/vms/{id}/start", SCOPE_OPERATE, "startVm", vm_action, VM_ACTION_START, false,
      wait_queries },
    { "POST", "/v1/vms/{id}/stop", SCOPE_OPERATE, "stopVm", vm_action, VM_ACTION_STOP, false,
      wait_queries },
    { "POST", "/v1/vms/{id}/kill", SCOPE_OPERATE, "killVm", vm_action, VM_ACTION_KILL, false,
      wait_queries },
    { "POST", "/v1/vms/{id}/reboot", SCOPE_OPERATE, "rebootVm", vm_action, VM_ACTION_REBOOT, false,
      wait_queries },
    { "POST", "/v1/vms/{id}/pause", SCOPE_OPERATE, "pauseVm", vm_action, VM_ACTION_PAUSE, false,
      wait_queries },
    { "POST", "/v1/vms/{id}/resume", SCOPE_OPERATE, "resumeVm", vm_action, VM_ACTION_RESUME, false,
      wait_queries },
    { "POST", "/v1/vms/{id}/snapshot", SCOPE_OPERATE, "snapshotVm", vm_snapshot, RESOURCE_SNAPSHOT,
      true, wait_queries },
    { "POST", "/v1/vms/{id}/fork", SCOPE_OPERATE, "forkVm", vm_fork, RESOURCE_VM, true,
      wait_queries },
    { "PUT", "/v1/vms/{id}/disks/{name}", SCOPE_OPERATE, "putVmDisk", vm_part_put, VM_PART_DISK,
      true, wait_queries },
    { "PATCH", "/v1/vms/{id}/disks/{name}", SCOPE_OPERATE, "patchVmDisk", vm_part_patch,
      VM_PART_DISK, true, wait_queries },
    { "DELETE", "/v1/vms/{id}/disks/{name}", SCOPE_OPERATE, "deleteVmDisk", vm_part_delete,
      VM_PART_DISK, false, wait_queries },
    { "PUT", "/v1/vms/{id}/nics/{name}", SCOPE_OPERATE, "putVmNic", vm_part_put, VM_PART_NIC, true,
      wait_queries },
    { "PATCH", "/v1/vms/{id}/nics/{name}", SCOPE_OPERATE, "patchVmNic", vm_part_patch, VM_PART_NIC,
      true, wait_queries },
    { "DELETE", "/v1/vms/{id}/nics/{name}", SCOPE_OPERATE, "deleteVmNic", vm_part_delete,
      VM_PART_NIC, false, wait_queries },
    { "GET", "/v1/vms/{id}/wait", SCOPE_READ, "waitVm", vm_wait, RESOURCE_VM, false,
      vm_wait_queries },
    { "GET", "/v1/vms/{id}/console", SCOPE_READ, "getVmConsole", vm_console, RESOURCE_VM, false,
      console_queries },
    { "POST", "/v1/vms/{id}/console/input", SCOPE_OPERATE, "typeOnVmConsole", vm_console_input,
      RESOURCE_VM, true, NULL },
    { "GET", "/v1/vms/{id}/vsock/{port}", SCOPE_OPERATE, "connectVmVsock", vm_vsock, RESOURCE_VM,
      false, NULL },
    { "GET", "/v1/snapshots", SCOPE_READ, "listSnapshots", resource_list, RESOURCE_SNAPSHOT, false,
      list_queries },
    { "GET", "/v1/snapshots/{id}", SCOPE_READ, "getSnapshot", resource_get, RESOURCE_SNAPSHOT,
      false, NULL },
    { "PATCH", "/v1/snapshots/{id}", SCOPE_OPERATE, "patchSnapshot", resource_patch,
      RESOURCE_SNAPSHOT, true, wait_queries },
    { "DELETE", "/v1/snapshots/{id}", SCOPE_OPERATE, "deleteSnapshot", resource_delete,
      RESOURCE_SNAPSHOT, false, delete_queries },
    { "GET", "/v1/operations", SCOPE_READ, "listOperations", resource_list, RESOURCE_OPERATION,
      false, page_queries },
    { "GET", "/v1/operations/{id}", SCOPE_READ, "getOperation", operation_get, RESOURCE_OPERATION,
      false, wait_queries },
    { "POST", "/v1/operations/{id}/cancel", SCOPE_OPERATE, "cancelOperation", operation_cancel_one,
      RESOURCE_OPERATION, false, wait_queries },
    { "GET", "/v1/events", SCOPE_READ, "listEvents", event_list, 0, false, event_queries },
    { "GET", "/v1/node", SCOPE_READ, "getNode", node_show, 0, false, node_queries },
    { "PATCH", "/v1/node", SCOPE_ADMIN, "patchNode", node_change, 0, true, NULL },
    { "POST", "/v1/node/drain", SCOPE_ADMIN, "drainNode", node_start_drain, 0, false,
      wait_queries },
    { "POST", "/v1/node/uncordon", SCOPE_ADMIN, "uncordonNode", node_uncordon, 0, false, NULL },
    { "GET", "/v1/node/memory", SCOPE_ADMIN, "getNodeMemory", node_show_memory, 0, false, NULL },
    { "GET", "/v1/prometheus/targets", SCOPE_READ, "listPrometheusTargets", node_show_targets, 0,
      false, NULL },
    { "GET", "/v1/node/backup", SCOPE_ADMIN, "getNodeBackup", node_back_up, 0, false, NULL },
    { "GET", "/metrics", SCOPE_METRICS, "getMetrics", node_show_metrics, 0, false, NULL },
    { "GET", "/healthz", SCOPE_OPEN, "getHealth", node_show_health, 0, false, NULL },
    { "GET", "/readyz", SCOPE_OPEN, "getReadiness", node_show_readiness, 0, false, NULL },
    { "GET", "/openapi.yaml", SCOPE_OPEN, "getOpenapi", node_show_openapi, 0, false, NULL },
};
_Static_assert(ARRAY_LENGTH(routes) <= ROUTE_COUNT_MAX, "api_metrics has a row for each route");

const struct route *router_routes(size_t *ret_count)
{
    *ret_count = ARRAY_LENGTH(routes);
    return routes;
}

/* Parts of a path at the pattern's {...}. */
struct path_parts {
    struct {
        const char *text;
        size_t length; /* 0 = there is none */
    } at[2];
};

/* Does path match the pattern?  Each {...} is a segment that is not empty. */
static bool path_matches(const char *pattern, const char *path, struct path_parts *ret_parts)
{
    struct path_parts parts = { 0 };
    size_t count = 0;

    while (*pattern && *path) {
        if (*pattern == '{' && count < ARRAY_LENGTH(parts.at)) {
            size_t length = strcspn(path, "/");

            if (length == 0)
                return false;
            parts.at[count].text = path;
            parts.at[count++].length = length;
            pattern = strchr(pattern, '}') + 1;
            path += length;
        } else if (*pattern++ != *path++) {
            return false;
        }
    }
    *ret_parts = parts;
    return *pattern == *path; /* both at their ends */
}

static bool method_matches(const struct route *route, const char *method)
{
    return strcmp(route->method, method) == 0 ||
           (strcmp(method, "HEAD") == 0 && strcmp(route->method, "GET") == 0);
}

static int set_id(char ret_id[ID_MAX + 1], const char *part, size_t length, const char *field,
                  struct error *err)
{
    char text[ID_MAX + 1] = "";

    if (length == 0)
        return 0;
    if (length <= ID_MAX)
        memcpy(text, part, length);
    if (length > ID_MAX || strlen(text) != length || !id_is_valid(text))
        return error_field(err, EINVAL, field, "%s: " ID_RULE, field);
    memcpy(ret_id, text, sizeof(text));
    return 0;
}

static int set_number(struct request *request, const char *text, size_t length, struct error *err)
{
    int64_t number = 0;

    if (length > 0 && (!digits_parse(text, length, &number) || number > UINT32_MAX - 1))
        return error_field(err, EINVAL, "port", "a port is a number from 0 to %u", UINT32_MAX - 1);
    request->number = (uint32_t)number;
    return 0;
}

/* "GET, HEAD, PUT": every method that the path has; NULL if it has none or memory is short. */
static char *allowed_methods(const char *path)
{
    char allow[64] = "";
    struct path_parts parts;
    size_t used = 0;

    for (size_t i = 0; i < ARRAY_LENGTH(routes); i++) {
        bool get = strcmp(routes[i].method, "GET") == 0;

        if (!path_matches(routes[i].path, path, &parts))
            continue;
        used += (size_t)snprintf(allow + used, sizeof(allow) - used, "%s%s%s", used ? ", " : "",
                                 routes[i].method, get ? ", HEAD" : "");
        if (used >= sizeof(allow))
            return NULL;
    }
    return used ? strdup(allow) : NULL;
}

static bool ends_in_slash(const char *path)
{
    size_t length = strlen(path);

    return length > 1 && path[length - 1] == '/';
}

int router_match(struct request *request, struct error *err)
{
    const struct route *route = NULL;
    struct path_parts parts = { 0 };
    int r;

    for (size_t i = 0; i < ARRAY_LENGTH(routes) && !route; i++) {
        if (method_matches(&routes[i], request->method) &&
            path_matches(routes[i].path, request->path, &parts))
            route = &routes[i];
    }
    if (!route) {
        request->allow = allowed_methods(request->path);
        if (request->allow)
            return error_set(err, PROBLEM_METHOD_NOT_ALLOWED, "only %s work here", request->allow);
        return error_set(err, ENOENT, "no such path%s; see /openapi.yaml",
                         ends_in_slash(request->path) ? " (none ends in a slash)" : "");
    }
    request->route = route;
    r = set_id(request->parameter, parts.at[0].text, parts.at[0].length, "id", err);
    if (r == 0 && strstr(route->path, "{name}"))
        r = set_id(request->name, parts.at[1].text, parts.at[1].length, "name", err);
    else if (r == 0)
        r = set_number(request, parts.at[1].text, parts.at[1].length, err);
    if (r < 0)
        return r;
    if (!route->has_body && request->body_size > 0)
        return error_field(err, EINVAL, "body", "this request takes no body");
    return query_check_names(&request->query, route->queries, err);
}

/* Which handler, and may the caller have it? */
static int route_request(struct request *request, struct error *err)
{
    struct error denied = { 0 };
    int r = request_parse_target(request, err);

    if (r == 0)
        r = router_match(request, err);
    /* Strangers are not even told what there is. */
    if (access_check(request, &denied) < 0) {
        *err = denied;
        return -err->code;
    }
    return r == 0 ? access_check_labels(request, err) : r;
}

/* While the database is damaged only VMs, as far as they are known, can be asked for; and metrics,
 * for the alert. */
static int check_damage(const struct request *request, struct error *err)
{
    const struct route *route = request->route;
    bool is_safe = route->scope == SCOPE_OPEN || route->scope == SCOPE_METRICS ||
                   ((route->handler == resource_list || route->handler == resource_get) &&
                    route->argument == RESOURCE_VM);

    return is_safe ? 0 : node_check_damage(request->node, err);
}

void router_dispatch(struct request *request, router_admit_fn *admit, void *context)
{
    struct error err = { 0 };
    int r = route_request(request, &err);

    if (r == 0)
        r = check_damage(request, &err);
    if (r == 0 && admit && request_is_change(request))
        r = admit(context, request, &err);
    if (r < 0)
        request_reply_error(request, &err);
    else if (!idempotency_begin(request))
        request->route->handler(request);
}
