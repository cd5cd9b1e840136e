/* router.h - which handler answers which method and path.  The table is const; a unit test compares
 * it with openapi.yaml.  Loop thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "api/tokens.h"

struct error;
struct request;

/* Leads to exactly one reply, at once or later (see request.h). */
typedef void route_handler_fn(struct request *request);

struct route {
    const char *method;
    const char *path;         /* "{id}" and "{name}" match one segment that is a valid id, any other
                               * a number */
    enum scope scope;         /* that a caller needs for it */
    const char *operation_id; /* in openapi.yaml */
    route_handler_fn *handler;
    int argument;               /* enum resource_kind, vm_action or vm_part, as the handler wants */
    bool has_body;              /* else a body is refused */
    const char *const *queries; /* NULL ended names of the parameters allowed; NULL = none */
};

#define ROUTE_COUNT_MAX 64

const struct route *router_routes(size_t *ret_count);

/* Sets request->route and ->parameter.  -ENOENT, -EOPNOTSUPP (405; request->allow is set), -EINVAL
 * (a bad id, an unknown query parameter, a body where none belongs). */
int router_match(struct request *request, struct error *err);
/* May a change (request_is_change) be begun now?  -errno: its refusal. */
typedef int router_admit_fn(void *context, struct request *request, struct error *err);
/* Parses the target, matches, asks whether the caller may do that, and whether it is admitted; then
 * runs the handler, unless the request's key says that this was done before.  Or answers the error.
 * admit: NULL = all are. */
void router_dispatch(struct request *request, router_admit_fn *admit, void *context);
