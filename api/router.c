/* router.c - see router.h. */
#include "api/router.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
static const char *const console_queries[] = { "tail", "follow", NULL };

/* The order is the one of openapi.yaml.  HEAD is answered wherever GET is. */
static const struct route routes[] = {
    /* method, path, operation, handler, argument, has_body, queries */
    { "GET", "/v1/images", "listImages", resource_list, RESOURCE_IMAGE, false, list_queries },
    { "GET", "/v1/images/{id}", "getImage", resource_get, RESOURCE_IMAGE, false, NULL },
    { "PUT", "/v1/images/{id}", "putImage", resource_put, RESOURCE_IMAGE, true, wait_queries },
    { "PATCH", "/v1/images/{id}", "patchImage", resource_patch, RESOURCE_IMAGE, true,
      wait_queries },
    { "DELETE", "/v1/images/{id}", "deleteImage", resource_delete, RESOURCE_IMAGE, false,
      delete_queries },
    { "GET", "/v1/volumes", "listVolumes", resource_list, RESOURCE_VOLUME, false, list_queries },
    { "GET", "/v1/volumes/{id}", "getVolume", resource_get, RESOURCE_VOLUME, false, NULL },
    { "PUT", "/v1/volumes/{id}", "putVolume", resource_put, RESOURCE_VOLUME, true, wait_queries },
    { "PATCH", "/v1/volumes/{id}", "patchVolume", resource_patch, RESOURCE_VOLUME, true,
      wait_queries },
    { "DELETE", "/v1/volumes/{id}", "deleteVolume", resource_delete, RESOURCE_VOLUME, false,
      delete_queries },
    { "GET", "/v1/networks", "listNetworks", resource_list, RESOURCE_NETWORK, false, list_queries },
    { "GET", "/v1/networks/{id}", "getNetwork", resource_get, RESOURCE_NETWORK, false, NULL },
    { "PUT", "/v1/networks/{id}", "putNetwork", resource_put, RESOURCE_NETWORK, true,
      wait_queries },
    { "PATCH", "/v1/networks/{id}", "patchNetwork", resource_patch, RESOURCE_NETWORK, true,
      wait_queries },
    { "DELETE", "/v1/networks/{id}", "deleteNetwork", resource_delete, RESOURCE_NETWORK, false,
      delete_queries },
    { "GET", "/v1/vms", "listVms", resource_list, RESOURCE_VM, false, list_queries },
    { "GET", "/v1/vms/{id}", "getVm", resource_get, RESOURCE_VM, false, NULL },
    { "PUT", "/v1/vms/{id}", "putVm", resource_put, RESOURCE_VM, true, wait_queries },
    { "PATCH", "/v1/vms/{id}", "patchVm", resource_patch, RESOURCE_VM, true, wait_queries },
    { "DELETE", "/v1/vms/{id}", "deleteVm", resource_delete, RESOURCE_VM, false, delete_queries },
    { "POST", "/v1/vms/{id}/start", "startVm", vm_action, VM_ACTION_START, false, wait_queries },
    { "POST", "/v1/vms/{id}/stop", "stopVm", vm_action, VM_ACTION_STOP, false, wait_queries },
    { "POST", "/v1/vms/{id}/kill", "killVm", vm_action, VM_ACTION_KILL, false, wait_queries },
    { "POST", "/v1/vms/{id}/reboot", "rebootVm", vm_action, VM_ACTION_REBOOT, false, wait_queries },
    { "POST", "/v1/vms/{id}/pause", "pauseVm", vm_action, VM_ACTION_PAUSE, false, wait_queries },
    { "POST", "/v1/vms/{id}/resume", "resumeVm", vm_action, VM_ACTION_RESUME, false, wait_queries },
    { "POST", "/v1/vms/{id}/snapshot", "snapshotVm", vm_snapshot, RESOURCE_SNAPSHOT, true,
      wait_queries },
    { "POST", "/v1/vms/{id}/fork", "forkVm", vm_fork, RESOURCE_VM, true, wait_queries },
    { "PUT", "/v1/vms/{id}/disks/{name}", "putVmDisk", vm_part_put, VM_PART_DISK, true,
      wait_queries },
    { "PATCH", "/v1/vms/{id}/disks/{name}", "patchVmDisk", vm_part_patch, VM_PART_DISK, true,
      wait_queries },
    { "DELETE", "/v1/vms/{id}/disks/{name}", "deleteVmDisk", vm_part_delete, VM_PART_DISK, false,
      wait_queries },
    { "PUT", "/v1/vms/{id}/nics/{name}", "putVmNic", vm_part_put, VM_PART_NIC, true, wait_queries },
    { "PATCH", "/v1/vms/{id}/nics/{name}", "patchVmNic", vm_part_patch, VM_PART_NIC, true,
      wait_queries },
    { "DELETE", "/v1/vms/{id}/nics/{name}", "deleteVmNic", vm_part_delete, VM_PART_NIC, false,
      wait_queries },
    { "GET", "/v1/vms/{id}/wait", "waitVm", vm_wait, RESOURCE_VM, false, vm_wait_queries },
    { "GET", "/v1/vms/{id}/console", "getVmConsole", vm_console, RESOURCE_VM, false,
      console_queries },
    { "POST", "/v1/vms/{id}/console/input", "typeOnVmConsole", vm_console_input, RESOURCE_VM, true,
      NULL },
    { "GET", "/v1/vms/{id}/vsock/{port}", "connectVmVsock", vm_vsock, RESOURCE_VM, false, NULL },
    { "GET", "/v1/snapshots", "listSnapshots", resource_list, RESOURCE_SNAPSHOT, false,
      list_queries },
    { "GET", "/v1/snapshots/{id}", "getSnapshot", resource_get, RESOURCE_SNAPSHOT, false, NULL },
    { "PATCH", "/v1/snapshots/{id}", "patchSnapshot", resource_patch, RESOURCE_SNAPSHOT, true,
      wait_queries },
    { "DELETE", "/v1/snapshots/{id}", "deleteSnapshot", resource_delete, RESOURCE_SNAPSHOT, false,
      delete_queries },
    { "GET", "/v1/operations", "listOperations", resource_list, RESOURCE_OPERATION, false,
      page_queries },
    { "GET", "/v1/operations/{id}", "getOperation", resource_get, RESOURCE_OPERATION, false, NULL },
    { "GET", "/v1/node", "getNode", node_show, 0, false, NULL },
    { "GET", "/v1/node/memory", "getNodeMemory", node_show_memory, 0, false, NULL },
    { "PATCH", "/v1/node", "patchNode", node_patch_spec, 0, true, NULL },
    { "POST", "/v1/node/drain", "drainNode", node_start_drain, 0, false, wait_queries },
    { "POST", "/v1/node/uncordon", "uncordonNode", node_uncordon, 0, false, NULL },
    { "GET", "/metrics", "getMetrics", node_show_metrics, 0, false, NULL },
    { "GET", "/healthz", "getHealth", node_show_health, 0, false, NULL },
    { "GET", "/readyz", "getReadiness", node_show_readiness, 0, false, NULL },
    { "GET", "/openapi.yaml", "getOpenapi", node_show_openapi, 0, false, NULL },
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
        return error_field(err, EINVAL, field,
                           "an id is 1 to %d of a-z, 0-9 and -, and does not begin with -", ID_MAX);
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
        return error_set(err, ENOENT, "no such path; see /openapi.yaml");
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

void router_dispatch(struct request *request)
{
    struct error err = { 0 };

    if (request_parse_target(request, &err) < 0 || router_match(request, &err) < 0)
        request_reply_error(request, &err);
    else if (!idempotency_begin(request))
        request->route->handler(request);
}
