/* request.c - see request.h. */
#include "api/request.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "agent/label_selector.h"
#include "agent/resource.h"
#include "api/idempotency.h"
#include "api/problem.h"
#include "api/request_table.h"
#include "api/router.h"
#include "api/wire.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "base/log.h"
#include "base/loop.h"

struct request *request_free(struct request *request)
{
    if (!request)
        return NULL;
    free(request->method);
    free(request->path);
    free(request->if_match);
    free(request->if_none_match);
    free(request->content_type);
    free(request->upgrade);
    free(request->idempotency_key);
    free(request->accept);
    free(request->last_event_id);
    free(request->allow);
    caller_clear(&request->caller);
    free(request->body);
    free(request);
    return NULL;
}

/* false if memory is short. */
static bool copy_string(const char *from, char **ret_copy)
{
    *ret_copy = from ? strdup(from) : NULL;
    return !from || *ret_copy;
}

int request_new(struct wire_message *message, struct caller *caller,
                const struct request_sink *sink, struct node *node, struct api_metrics *metrics,
                struct request **ret_request, struct error *err)
{
    struct request *request = calloc(1, sizeof(*request));

    if (!request)
        return error_set(err, ENOMEM, "no memory for a request");
    request->id = message->id;
    request->sink = *sink;
    request->node = node;
    request->metrics = metrics;
    request->started_ns = loop_now_ns();
    request->step.wait_ms = -1;
    if (!copy_string(message->strings[WIRE_METHOD], &request->method) ||
        !copy_string(message->strings[WIRE_TARGET], &request->path) ||
        !copy_string(message->strings[WIRE_IF_MATCH], &request->if_match) ||
        !copy_string(message->strings[WIRE_IF_NONE_MATCH], &request->if_none_match) ||
        !copy_string(message->strings[WIRE_CONTENT_TYPE], &request->content_type) ||
        !copy_string(message->strings[WIRE_UPGRADE], &request->upgrade) ||
        !copy_string(message->strings[WIRE_IDEMPOTENCY_KEY], &request->idempotency_key) ||
        !copy_string(message->strings[WIRE_ACCEPT], &request->accept) ||
        !copy_string(message->strings[WIRE_LAST_EVENT_ID], &request->last_event_id)) {
        request_free(request);
        return error_set(err, ENOMEM, "no memory for a request");
    }
    uid_generate(request->uuid);
    request->caller = *caller;
    caller->limits = NULL;
    request->body = take_pointer(message->body);
    request->body_size = message->body_size;
    *ret_request = request;
    return 0;
}

static bool is_get(const struct request *request)
{
    return strcmp(request->method, "GET") == 0 || strcmp(request->method, "HEAD") == 0;
}

bool request_is_change(const struct request *request)
{
    return request->route ? request->route->scope > SCOPE_READ : !is_get(request);
}

bool request_only_reads(const struct request *request)
{
    return request->route && request->route->scope != SCOPE_OPERATE && is_get(request);
}

int request_parse_target(struct request *request, struct error *err)
{
    return query_parse(request->path, &request->query, err);
}

static void waited(void *context, bool reached)
{
    struct request *request = context;

    request->step.waiter = NULL;
    request->step.waited(request, reached);
}

void request_wait(struct request *request, enum resource_kind kind, const char *id,
                  enum node_wait_for what, int64_t generation, int64_t timeout_ms,
                  request_waited_fn *then)
{
    request->step.waited = then;
    if (!request->abandoned)
        request->step.waiter =
            node_wait(request->node, kind, id, what, generation, timeout_ms, waited, request);
    if (!request->step.waiter)
        then(request, false);
}

void request_abandon(struct request *request)
{
    request->abandoned = true;
    if (!request->step.waiter)
        return;
    node_wait_cancel(request->step.waiter);
    waited(request, false);
}

int request_see(const struct request *request, enum resource_kind kind, const char *id,
                json_t **ret_resource, struct error *err)
{
    json_t *resource = NULL;
    int r = node_get(request->node, kind, id, &resource, err);

    if (r < 0)
        return r;
    if (kind == RESOURCE_VM && !caller_sees_vm(&request->caller, resource)) {
        json_decref(resource);
        return resource_not_found(kind, id, err);
    }
    *ret_resource = resource;
    return 0;
}

/* Compares up to the parameters: "application/json; charset=utf-8" is application/json. */
static bool media_type_is(const char *value, const char *type)
{
    size_t length = strcspn(value, "; ");

    return strlen(type) == length && strncasecmp(value, type, length) == 0;
}

static int check_media_type(const struct request *request, const char *const *types,
                            struct error *err)
{
    const char *const *type = types;

    while (*type && !(request->content_type && media_type_is(request->content_type, *type)))
        type++;
    return *type ? 0
                 : error_field(err, PROBLEM_MEDIA_TYPE, "Content-Type",
                               "the body's content type must be %s", types[0]);
}

int request_check_bytes(const struct request *request, const char *const *types, size_t max,
                        struct error *err)
{
    int r = check_media_type(request, types, err);

    if (r < 0)
        return r;
    if (request->body_size == 0)
        return error_field(err, EINVAL, "body", "the body must have 1 to %zu bytes", max);
    if (request->body_size > max)
        return error_field(err, PROBLEM_TOO_LARGE, "body",
                           "the body has %zu bytes, the most is %zu", request->body_size, max);
    return 0;
}

int request_labels(const struct request *request, struct label_selector *ret_selector,
                   struct error *err)
{
    const char *text = query_get(&request->query, "labels");

    ret_selector->count = 0;
    if (!text || label_selector_parse(text, ret_selector, err) == 0)
        return 0;
    snprintf(err->field, sizeof(err->field), "labels");
    return -EINVAL;
}

int request_check_upgrade(const struct request *request, const char *protocol, struct error *err)
{
    if (request->upgrade && strcasecmp(request->upgrade, protocol) == 0)
        return 0;
    return error_field(err, PROBLEM_UPGRADE, "Upgrade",
                       "send the headers \"Connection: Upgrade\" and \"Upgrade: %s\"", protocol);
}

int request_admit_stream(struct request *request, const struct stream_share *share,
                         struct error *err)
{
    const struct request_table *others = request->sink.others;
    int r = others ? request_table_check_share(others, request, share, err) : 0;

    request->is_stream = r == 0;
    return r;
}

int request_json(struct request *request, const char *const *types, json_t **ret_json,
                 struct error *err)
{
    json_t *json = NULL;
    int r = check_media_type(request, types, err);

    if (r < 0)
        return r;
    if (request->body_size == 0)
        return error_field(err, EINVAL, "body", "the request needs a JSON object as its body");
    r = json_parse(request->body, request->body_size, &json, err);
    free(take_pointer(request->body)); /* not kept through a wait */
    if (r < 0) {
        if (err && !err->field[0])
            snprintf(err->field, sizeof err->field, "body");
        return r;
    }
    if (!json_is_object(json)) {
        json_decref(json);
        return error_field(err, EINVAL, "body", "the body must be a JSON object");
    }
    *ret_json = json;
    return 0;
}

void etag_of(const json_t *resource, char ret_etag[ETAG_TEXT])
{
    const char *uid = json_string_value(json_object_get(resource, "uid"));

    snprintf(ret_etag, ETAG_TEXT, "\"%lld%s%.*s\"",
             (long long)json_integer_value(json_object_get(resource, "generation")), uid ? "." : "",
             TAG_UID, uid ? uid : "");
}

/* In quotes; who does not care whose generation it is names that alone.  False if it is some other
 * tag, which nothing has. */
static bool read_etag(const char *tag, struct node_condition *condition)
{
    size_t length = strlen(tag), digits = strspn(tag + (length > 0), "0123456789");
    const char *uid = tag + 1 + digits;

    if (length < 3 || tag[0] != '"' || tag[length - 1] != '"' ||
        !digits_parse(tag + 1, digits, &condition->if_generation))
        return false;
    length -= digits + 2;
    if (length > 0 && (length != TAG_UID + 1 || uid[0] != '.'))
        return false;
    if (length > 0)
        memcpy(condition->if_uid, uid + 1, TAG_UID);
    return condition->if_generation > 0;
}

/* exists: what it is about. */
static int read_condition(const struct request *request, bool exists, bool may_create,
                          struct node_condition *ret_condition, struct error *err)
{
    struct node_condition condition = { .key = request->key, .limits = request->caller.limits };

    if (request->if_none_match) {
        if (!may_create || strcmp(request->if_none_match, "*") != 0 || request->if_match)
            return error_field(err, EINVAL, "If-None-Match",
                               "If-None-Match may only be * , in a PUT, and without If-Match");
        condition.if_absent = true;
    }
    if (request->if_match) {
        if (strchr(request->if_match, ','))
            return error_field(err, EINVAL, "If-Match", "If-Match may hold one entity tag or *");
        if (strcmp(request->if_match, "*") != 0) {
            exists = exists && read_etag(request->if_match, &condition);
        }
        if (!exists)
            return error_field(err, ESTALE, "If-Match", "nothing here has the entity tag %.64s",
                               request->if_match);
    }
    *ret_condition = condition;
    return 0;
}

int request_condition(struct request *request, enum resource_kind kind, bool may_create,
                      struct node_condition *ret_condition, struct error *err)
{
    static const struct node_condition none = { 0 };
    bool exists = node_check_condition(request->node, kind, request->parameter, &none, NULL) == 0;

    return read_condition(request, exists, may_create, ret_condition, err);
}

int request_check_match(struct request *request, bool may_create,
                        struct node_condition *ret_condition, struct error *err)
{
    struct node_condition condition;
    int result = request_condition(request, RESOURCE_VM, may_create, &condition, err);

    if (result == 0 && request->if_match)
        result =
            node_check_condition(request->node, RESOURCE_VM, request->parameter, &condition, err);
    if (result == 0)
        *ret_condition =
            (struct node_condition){ .if_absent = condition.if_absent, .key = condition.key };
    return result;
}

int request_node_condition(struct request *request, struct node_condition *ret_condition,
                           struct error *err)
{
    return read_condition(request, /* exists= */ true, /* may_create= */ false, ret_condition, err);
}

bool request_etag_is_known(const struct request *request, const char *etag)
{
    const char *list = request->if_none_match;

    while (list && *list) {
        size_t length;

        list += strspn(list, ", ");
        if (strncmp(list, "W/", 2) == 0) /* the comparison is the weak one */
            list += 2;
        length = strcspn(list, ", ");
        if ((length == strlen(etag) && strncmp(list, etag, length) == 0) ||
            (length == 1 && *list == '*'))
            return true;
        list += length;
    }
    return false;
}

void request_send(struct request *request, struct wire_message *reply)
{
    reply->strings[WIRE_REQUEST_ID] = request->uuid;
    request->sink.reply(request->sink.context, request, reply);
    if (!request->is_open)
        request_free(request);
}

static void request_reply(struct request *request, struct wire_message *reply,
                          const struct reply_headers *headers)
{
    if (headers) {
        reply->strings[WIRE_ETAG] = headers->etag;
        reply->strings[WIRE_LOCATION] = headers->location;
        reply->strings[WIRE_ALLOW] = headers->allow;
        reply->strings[WIRE_RETRY_AFTER] = headers->retry_after;
        reply->strings[WIRE_UPGRADE] = headers->upgrade;
        reply->strings[WIRE_WWW_AUTHENTICATE] = headers->www_authenticate;
    }
    if (!idempotency_reply(request, reply))
        request_send(request, reply);
}

static void request_reply_document(struct request *request, int status, const char *content_type,
                                   const json_t *body, const struct reply_headers *headers)
{
    char *text = json_compact(body);
    struct wire_message reply = { .status = (uint16_t)status };

    if (text) {
        size_t size = strlen(text);

        text[size] = '\n'; /* in place of the NUL: kind to whoever reads it in a terminal */
        reply.strings[WIRE_CONTENT_TYPE] = content_type;
        reply.body = text;
        reply.body_size = size + 1;
    } else {
        reply.status = 503;
        headers = NULL;
    }
    request_reply(request, &reply, headers);
    free(text);
}

void request_reply_json(struct request *request, int status, json_t *body,
                        const struct reply_headers *headers)
{
    request_reply_document(request, status, "application/json", body, headers);
    json_decref(body);
}

void request_reply_text(struct request *request, const char *content_type, const char *bytes,
                        size_t size)
{
    struct wire_message reply = { .status = 200, .body = (char *)bytes, .body_size = size };

    reply.strings[WIRE_CONTENT_TYPE] = content_type;
    request_reply(request, &reply, NULL);
}

void request_reply_empty(struct request *request)
{
    struct wire_message reply = { .status = 204 };

    request_reply(request, &reply, NULL);
}

void request_reply_stream(struct request *request, const char *content_type, int fd)
{
    auto_close int owned = fd;
    struct wire_message reply = { .status = 200, .has_stream = true, .stream_fd = owned };

    reply.strings[WIRE_CONTENT_TYPE] = content_type;
    request_reply(request, &reply, NULL);
}

void request_reply_upgrade(struct request *request, const char *protocol, int fd)
{
    auto_close int owned = fd;
    struct wire_message reply = { .status = 101, .has_stream = true, .stream_fd = owned };
    struct reply_headers headers = { .upgrade = protocol };

    request_reply(request, &reply, &headers);
}

void request_reply_error(struct request *request, const struct error *err)
{
    const struct problem *problem = problem_of(err->code);
    char challenge[96];
    struct reply_headers headers = {
        .allow = request->allow,
        .retry_after = problem->retry_after,
        .upgrade = problem->upgrade,
        .www_authenticate = access_challenge(request, err->code, challenge, sizeof(challenge)),
    };
    json_t *document = problem_document(err);

    if (problem->status == 500) /* of which the answer says that more is there */
        log_error(request->sink.log, "%s %.256s (%s): %s", request->method, request->path,
                  request->uuid, err->message);
    request_reply_document(request, problem->status, "application/problem+json", document,
                           &headers);
    json_decref(document);
}
