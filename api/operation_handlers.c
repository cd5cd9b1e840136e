/* operation_handlers.c - what only operations have: waiting for their end, cancelling. */
#include <errno.h>
#include <string.h>
#include "api/handlers.h"
#include "api/problem.h"
#include "api/request.h"
#include "base/json.h"

static void waited(struct request *request, bool reached)
{
    (void)reached; /* the answer says how far it is */
    resource_get(request);
}

void operation_get(struct request *request)
{
    struct error err = { 0 };

    if (resource_read_wait(request, &err) < 0)
        request_reply_error(request, &err);
    else if (request->step.wait_ms > 0)
        request_wait(request, RESOURCE_OPERATION, request->parameter, NODE_WAIT_SETTLED, 0,
                     request->step.wait_ms, waited);
    else
        resource_get(request);
}

/* Images are admin's, and so are their imports. */
static int read_cancel(struct request *request, struct node_change *change, struct error *err)
{
    json_t *operation;
    bool is_import;

    if (node_get(request->node, RESOURCE_OPERATION, request->parameter, &operation, err) < 0)
        return -err->code;
    is_import =
        strcmp(json_text(json_object_get(json_object_get(operation, "spec"), "target"), "kind"),
               "image") == 0;
    json_decref(operation);
    if (is_import && request->caller.scope < SCOPE_ADMIN)
        return error_set(err, PROBLEM_FORBIDDEN, "to cancel an import needs the scope %s",
                         scope_name(SCOPE_ADMIN));
    change->body = json_pack("{s:b}", "cancel", 1);
    return change->body ? 0 : error_no_memory(err);
}

void operation_cancel_one(struct request *request)
{
    struct node_change change = { .verb = CHANGE_PATCH, .done = resource_change_done };

    if (!resource_read_change(request, read_cancel, &change))
        return;
    resource_go_on_to(request, NODE_WAIT_SETTLED);
    node_submit(request->node, &change);
    json_decref(change.body);
}
