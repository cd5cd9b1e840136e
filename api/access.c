/* access.c - see access.h. */
#include "api/access.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "agent/resource.h"
#include "api/handlers.h"
#include "api/idempotency.h"
#include "api/problem.h"
#include "api/request.h"
#include "api/router.h"
#include "api/wire.h"
#include "base/cleanup.h"
#include "base/json.h"

/* --- who --- */

/* What shows a token is judged by that alone. */
static const struct token *find_token(const struct tokens *tokens,
                                      const struct wire_message *message, bool *ret_shown)
{
    static const char scheme[] = "Bearer ";
    const char *authorization = message->strings[WIRE_AUTHORIZATION];
    const char *certificate = message->strings[WIRE_CERTIFICATE];

    *ret_shown = authorization || certificate;
    if (authorization)
        return strncasecmp(authorization, scheme, strlen(scheme)) == 0
                   ? tokens_find_secret(tokens, authorization + strlen(scheme))
                   : NULL;
    return certificate ? tokens_find_certificate(tokens, certificate) : NULL;
}

int caller_identify(enum listener listener, const struct tokens *tokens,
                    const struct wire_message *message, struct caller *ret_caller,
                    struct error *err)
{
    struct caller caller = { .listener = listener };
    const struct token *token = NULL;
    bool shown = false;

    if (message->strings[WIRE_PEER])
        snprintf(caller.peer, sizeof(caller.peer), "%s", message->strings[WIRE_PEER]);
    if (listener == LISTENER_UNIX) {
        caller.kind = CALLER_SOCKET;
        caller.scope = SCOPE_ADMIN;
    } else if (tokens) {
        token = find_token(tokens, message, &shown);
    }
    caller.refused = shown && !token;
    if (token) {
        caller.kind = token->is_certificate ? CALLER_CERTIFICATE : CALLER_TOKEN;
        caller.scope = token->scope;
        memcpy(caller.name, token->name, sizeof(caller.name));
        memcpy(caller.digest, token->digest, sizeof(caller.digest));
    }
    if (token && token->limits) {
        caller.limits = malloc(sizeof(*caller.limits));
        if (!caller.limits)
            return error_set(err, ENOMEM, "no memory for a request");
        *caller.limits = *token->limits;
    }
    *ret_caller = caller;
    return 0;
}

void caller_clear(struct caller *caller)
{
    free(caller->limits);
    caller->limits = NULL;
}

/* "pid=7,uid=0,gid=0", or not known. */
static bool same_user(const char *a, const char *b)
{
    const char *of_a = strstr(a, "uid="), *of_b = strstr(b, "uid=");

    if (!of_a || !of_b)
        return of_a == of_b;
    return strcspn(of_a, ",") == strcspn(of_b, ",") && strncmp(of_a, of_b, strcspn(of_a, ",")) == 0;
}

bool caller_is_same(const struct caller *a, const struct caller *b)
{
    return a->kind == b->kind && strcmp(a->name, b->name) == 0 &&
           (a->kind != CALLER_SOCKET || same_user(a->peer, b->peer));
}

/* --- by route --- */

int access_check(const struct request *request, struct error *err)
{
    const struct caller *caller = &request->caller;
    const struct route *route = request->route;

    if (route && route->scope == SCOPE_OPEN)
        return 0;
    if (caller->kind == CALLER_NOBODY)
        return error_set(
            err, PROBLEM_UNAUTHENTICATED,
            caller->refused ? "this token or certificate is not, or no longer, known here"
                            : "send a token (Authorization: Bearer ...), or a client certificate "
                              "that an authority of tls-client-ca signed for clients (clientAuth)");
    if (caller->listener == LISTENER_METRICS && (!route || route->scope > SCOPE_METRICS))
        return error_set(err, PROBLEM_FORBIDDEN, "this listener has nothing but /metrics");
    if (route && caller->scope < route->scope)
        return error_set(err, PROBLEM_FORBIDDEN, "%s needs the scope %s", route->operation_id,
                         scope_name(route->scope));
    return 0;
}

bool access_still_holds(const struct request *request, const struct tokens *tokens)
{
    const struct caller *caller = &request->caller;
    const struct token *token;

    if (caller->kind != CALLER_TOKEN && caller->kind != CALLER_CERTIFICATE)
        return true;
    token = caller->kind == CALLER_TOKEN ? tokens_find_digest(tokens, caller->digest)
                                         : tokens_find_certificate(tokens, caller->name);
    if (!token || token->scope < request->route->scope || !token->limits != !caller->limits)
        return false;
    if (token->limits && !label_selector_equal(token->limits, caller->limits))
        return false;
    return !request->is_stream || access_check_labels(request, NULL) == 0;
}

const char *access_challenge(const struct request *request, int code, char *buffer, size_t size)
{
    if (code == PROBLEM_UNAUTHENTICATED)
        return request->caller.refused ? "Bearer realm=\"warren\", error=\"invalid_token\""
                                       : "Bearer realm=\"warren\"";
    if (code != PROBLEM_FORBIDDEN || !request->route)
        return NULL;
    snprintf(buffer, size, "Bearer realm=\"warren\", error=\"insufficient_scope\", scope=\"%s\"",
             scope_name(request->route->scope));
    return buffer;
}

/* --- by labels --- */

bool caller_sees_vm(const struct caller *caller, const json_t *vm)
{
    const json_t *labels = json_object_get(json_object_get(vm, "spec"), "labels");

    return !caller->limits || label_selector_matches(caller->limits, labels);
}

static int refuse_labels(const char *what, struct error *err)
{
    return error_field(err, PROBLEM_FORBIDDEN, "labels",
                       "this token is limited to labels that %s does not have", what);
}

/* A VM of which a new one would be made: its memory is read by that.  uid: its own, whoever has its
 * id by now; NULL = whoever has it. */
static int check_origin(const struct request *request, const char *id, const char *uid,
                        struct error *err)
{
    json_t *vm = NULL;
    bool allowed;

    if (id && node_get(request->node, RESOURCE_VM, id, &vm, err) == -EAGAIN)
        return -EAGAIN;
    allowed = vm && (!uid || strcmp(uid, json_text(vm, "uid")) == 0) &&
              caller_sees_vm(&request->caller, vm);
    json_decref(vm);
    return allowed ? 0 : refuse_labels("what it is to be made of", err);
}

static int check_boot(const struct request *request, const json_t *boot, struct error *err)
{
    const char *snapshot_id = json_string_value(json_object_get(boot, "snapshot"));
    const char *fork = json_string_value(json_object_get(boot, "fork"));
    json_t *snapshot = NULL;
    int r = fork ? check_origin(request, fork, NULL, err) : 0;

    if (r < 0)
        return r;
    if (snapshot_id &&
        node_get(request->node, RESOURCE_SNAPSHOT, snapshot_id, &snapshot, err) == -EAGAIN)
        return -EAGAIN;
    if (snapshot_id) /* one that is not there may be another's when the VM is made */
        r = check_origin(
            request, json_string_value(json_object_get(json_object_get(snapshot, "spec"), "vm")),
            json_string_value(json_object_get(json_object_get(snapshot, "status"), "vm_uid")), err);
    json_decref(snapshot);
    return r;
}

/* The labels after a merge patch, which may take all of them away: then NULL. */
static json_t *merged_labels(const json_t *vm, const json_t *patch)
{
    json_t *spec = json_patched(json_object_get(vm, "spec"), patch);
    json_t *labels = json_incref(json_object_get(spec, "labels"));

    json_decref(spec);
    return labels;
}

/* What cannot be read is refused by the handler. */
static int check_body(const struct request *request, const json_t *vm, struct error *err)
{
    bool is_put = request->route->handler == resource_put;
    json_t *body = NULL, *labels = NULL;
    int r = 0;

    if (!request->body)
        return 0;
    r = json_parse(request->body, request->body_size, &body, err);
    if (r < 0)
        return r == -EINVAL ? 0 : r;
    if (is_put) {
        if (!label_selector_matches(request->caller.limits, json_object_get(body, "labels")))
            r = refuse_labels("the new VM", err);
        if (r == 0)
            r = check_boot(request, json_object_get(body, "boot"), err);
    } else if (json_object_get(body, "labels")) {
        labels = merged_labels(vm, body);
        if (!label_selector_matches(request->caller.limits, labels))
            r = refuse_labels("the VM then", err);
    }
    json_decref(labels);
    json_decref(body);
    return r;
}

static int check_repeated(const struct request *request, struct error *err)
{
    int r = idempotency_is_repeated(request, err);

    if (r == 0)
        return resource_not_found(RESOURCE_VM, request->parameter, err);
    return r < 0 ? r : 0;
}

/* A VM that is not there is answered as one that must not be seen, whatever else is wrong with the
 * request; but what is repeated with its Idempotency-Key was done while it was there, and vm_wait
 * does so itself. */
static int check_vm(const struct request *request, struct error *err)
{
    bool is_put = request->route->handler == resource_put;
    bool is_wait = request->route->handler == vm_wait;
    json_t *vm = NULL;
    bool is_hidden;
    int r = 0;

    if (node_get(request->node, RESOURCE_VM, request->parameter, &vm, err) == -EAGAIN)
        return -EAGAIN;
    is_hidden = vm && !caller_sees_vm(&request->caller, vm);
    if (is_put && is_hidden)
        r = refuse_labels("the VM", err);
    else if (!is_put && !is_wait && is_hidden)
        r = resource_not_found(RESOURCE_VM, request->parameter, err);
    else if (!is_put && !is_wait && !vm)
        r = check_repeated(request, err);
    if (r == 0 && (is_put || request->route->handler == resource_patch))
        r = check_body(request, vm, err);
    json_decref(vm);
    return r;
}

int access_check_labels(const struct request *request, struct error *err)
{
    static const char vm_path[] = "/v1/vms/{id}";
    static const char *const readable[] = { "/v1/vms",      "/v1/images",    "/v1/volumes",
                                            "/v1/networks", "/v1/snapshots", "/v1/operations",
                                            "/v1/events",   "/v1/node" };
    const struct route *route = request->route;

    if (!request->caller.limits || route->scope == SCOPE_OPEN)
        return 0;
    if (strncmp(route->path, vm_path, strlen(vm_path)) == 0)
        return check_vm(request, err);
    for (size_t i = 0; i < ARRAY_LENGTH(readable); i++) {
        size_t length = strlen(readable[i]);

        if (route->scope == SCOPE_READ && strncmp(route->path, readable[i], length) == 0 &&
            (route->path[length] == '\0' || route->path[length] == '/'))
            return 0;
    }
    return error_set(err, PROBLEM_FORBIDDEN, "%s is not for tokens that are limited to labels",
                     route->operation_id);
}
