/* idempotency.c - see idempotency.h. */
#include "api/idempotency.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "agent/key_table.h"
#include "api/handlers.h"
#include "api/request.h"
#include "api/router.h"
#include "api/wire.h"
#include "base/cleanup.h"

static void send_answer(struct request *request, const struct key_answer *answer, bool replayed)
{
    struct wire_message reply = { .status = (uint16_t)answer->status,
                                  .body = (char *)answer->body,
                                  .body_size = answer->body ? strlen(answer->body) : 0 };

    if (answer->body)
        reply.strings[WIRE_CONTENT_TYPE] = "application/json";
    reply.strings[WIRE_ETAG] = answer->etag;
    reply.strings[WIRE_LOCATION] = answer->location;
    reply.strings[WIRE_IDEMPOTENCY_REPLAYED] = replayed ? "true" : NULL;
    request_send(request, &reply);
}

static bool has_key(const struct request *request)
{
    return request->idempotency_key && strcmp(request->method, "POST") == 0;
}

/* A key is the caller's own: who else sends the same one means something else.  All who may open
 * the socket are one caller, without a name. */
static int make_scope(const struct request *request, char **ret_scope, struct error *err)
{
    char *scope;

    if (asprintf(&scope, "%d:%s %s %s", (int)request->caller.kind, request->caller.name,
                 request->method, request->path) < 0)
        return error_no_memory(err);
    *ret_scope = scope;
    return 0;
}

int idempotency_is_repeated(const struct request *request, struct error *err)
{
    auto_free char *scope = NULL;
    int r;

    if (!has_key(request))
        return 0;
    r = make_scope(request, &scope, err);
    return r < 0 ? r : node_key_is_known(request->node, scope, request->idempotency_key);
}

bool idempotency_begin(struct request *request)
{
    struct error err = { 0 };
    auto_free char *scope = NULL;
    struct key *key = NULL;
    int r;

    if (!has_key(request))
        return false;
    r = make_scope(request, &scope, &err);
    if (r == 0)
        r = node_key_begin(request->node, scope, request->idempotency_key,
                           request->body ? request->body : "", request->body_size, &key, &err);
    if (r < 0) {
        request_reply_error(request, &err);
        return true;
    }
    if (key->state == KEY_ANSWERED) {
        send_answer(request, &key->answer, /* replayed= */ true);
        return true;
    }
    request->key = key;
    if (request->route->handler != vm_action || !idempotency_is_done(request))
        return false;
    request->step.status = 202;
    resource_finish(request);
    return true;
}

bool idempotency_is_done(const struct request *request)
{
    return request->key && request->key->committed;
}

static void kept(void *context, int result, const struct error *err)
{
    struct request *request = context;

    (void)result; /* logged: what was changed was changed, and the client is to know */
    (void)err;
    send_answer(request, &request->key->answer, /* replayed= */ false);
}

bool idempotency_reply(struct request *request, const struct wire_message *reply)
{
    bool good = request->key && reply->status >= 200 && reply->status < 300;
    auto_free char *body =
        good && reply->body_size > 0 ? strndup(reply->body, reply->body_size) : NULL;
    struct key_answer answer = { .status = reply->status,
                                 .etag = reply->strings[WIRE_ETAG],
                                 .location = reply->strings[WIRE_LOCATION],
                                 .body = body };

    if (!request->key)
        return false;
    if (good && (body || reply->body_size == 0) &&
        node_key_keep(request->node, request->key, &answer, kept, request) == 0)
        return true;
    node_key_end(request->node, take_pointer(request->key));
    return false;
}
