/* server_exchange.c - one request on its way: received, handed to warrend, answered. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include "api/server.h"
#include "api/server_problem.h"
#include "api/server_stream.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/loop.h"

static struct server_connection *connection_of(struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

    return info ? info->socket_context : NULL;
}

static void connection_enter(struct server_connection *connection, enum connection_state state)
{
    static const int64_t limits_ms[CONNECTION_STATE_COUNT] = {
        [CONNECTION_HEADER] = SERVER_IDLE_MS,
        [CONNECTION_BODY] = SERVER_BODY_MS,
        [CONNECTION_WAITING] = 0, /* warrend bounds it */
        [CONNECTION_REPLIED] = SERVER_SEND_MS,
        [CONNECTION_SENDING] = SERVER_SEND_MS,
    };

    connection->state = state;
    connection->deadline_ms = limits_ms[state] ? loop_now_ms() + limits_ms[state] : 0;
    if (state == CONNECTION_HEADER && connection->server->draining)
        connection->deadline_ms = loop_now_ms() + SERVER_DRAIN_MS;
}

/* --- who waits for which reply, or has which stream --- */

static void waiting_add(struct server *server, struct server_connection *connection)
{
    struct server_connection **slot;

    connection->id = ++server->last_id;
    slot = &server->waiting[connection->id & (SERVER_TABLE_SIZE - 1)];
    connection->id_next = *slot;
    *slot = connection;
}

static struct server_connection **waiting_slot(struct server *server, uint64_t id)
{
    struct server_connection **slot = &server->waiting[id & (SERVER_TABLE_SIZE - 1)];

    while (*slot && (*slot)->id != id)
        slot = &(*slot)->id_next;
    return slot;
}

/* NULL if nobody waits for it (any more). */
static struct server_connection *waiting_take(struct server *server, uint64_t id)
{
    struct server_connection **slot = waiting_slot(server, id);
    struct server_connection *connection = *slot;

    if (connection)
        *slot = connection->id_next;
    return connection;
}

/* --- the request's end, whatever it was --- */

static void body_release(struct server_connection *connection)
{
    free(connection->body);
    connection->body = NULL;
    connection->server->body_bytes -= connection->body_room;
    connection->body_size = connection->body_room = 0;
}

static void connection_reset(struct server_connection *connection)
{
    connection->hangup = loop_remove(connection->hangup);
    stream_end(connection);
    body_release(connection);
    free(connection->target);
    connection->target = NULL;
    wire_message_clear(&connection->reply);
    free(connection->reply_text);
    connection->reply_text = NULL;
    memset(&connection->reply, 0, sizeof(connection->reply));
}

/* If warrend does not know it yet. */
static void tell_abandoned(struct server_connection *connection)
{
    struct wire_message message = { .kind = WIRE_ABANDON, .id = connection->id };

    if (waiting_take(connection->server, connection->id) &&
        wire_link_send(connection->server->link, &message, NULL) < 0)
        connection->server->stopping = true;
}

void exchange_completed(void *cls, struct MHD_Connection *mhd, void **request_cls,
                        enum MHD_RequestTerminationCode why)
{
    struct server_connection *connection = *request_cls ? connection_of(mhd) : NULL;

    (void)cls;
    (void)why;
    *request_cls = NULL;
    if (!connection)
        return;
    tell_abandoned(connection);
    connection_reset(connection);
    connection_enter(connection, CONNECTION_HEADER);
}

/* Called when the request line is there, with the target as it was sent. */
void *exchange_note_target(void *cls, const char *target, struct MHD_Connection *mhd)
{
    struct server_connection *connection = connection_of(mhd);

    (void)cls;
    if (connection) {
        connection->target = strdup(target);
        connection->target_place = target;
    }
    return connection;
}

/* --- answering --- */

static enum MHD_Result exchange_refuse(struct server_connection *connection,
                                       enum server_refusal refusal)
{
    unsigned int status = 0;
    struct MHD_Response *response = server_problem(refusal, &status);
    enum MHD_Result result = MHD_NO;

    connection_enter(connection, CONNECTION_SENDING);
    if (response) {
        result = MHD_queue_response(connection->mhd, status, response);
        MHD_destroy_response(response);
    }
    return result;
}

static const struct {
    enum wire_string string;
    const char *header;
} reply_headers[] = {
    { WIRE_CONTENT_TYPE, "Content-Type" },
    { WIRE_ETAG, "ETag" },
    { WIRE_LOCATION, "Location" },
    { WIRE_ALLOW, "Allow" },
    { WIRE_RETRY_AFTER, "Retry-After" },
    { WIRE_UPGRADE, "Upgrade" },
    { WIRE_IDEMPOTENCY_REPLAYED, "Idempotency-Replayed" },
    { WIRE_REQUEST_ID, "X-Request-Id" },
    { WIRE_WWW_AUTHENTICATE, "WWW-Authenticate" },
};

static enum MHD_Result exchange_respond(struct server_connection *connection, const char *method)
{
    struct wire_message *reply = &connection->reply;
    struct MHD_Response *response;
    enum MHD_Result result;

    if (reply->has_stream)
        response = stream_response(connection);
    else if (reply->body)
        response = MHD_create_response_from_buffer(reply->body_size, take_pointer(reply->body),
                                                   MHD_RESPMEM_MUST_FREE);
    else
        response = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    if (!response)
        return MHD_NO;
    /* In chunks it would send the last one, which a client takes for its next answer. */
    if (reply->status == 200 && reply->has_stream && strcmp(method, "HEAD") == 0)
        MHD_set_response_options(response, MHD_RF_HTTP_1_0_COMPATIBLE_STRICT, MHD_RO_END);
    for (size_t i = 0; i < ARRAY_LENGTH(reply_headers); i++) {
        const char *value = reply->strings[reply_headers[i].string];

        if (value)
            MHD_add_response_header(response, reply_headers[i].header, value);
    }
    MHD_add_response_header(response, "Cache-Control", "no-store");
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (reply->status != 101 &&
        (connection->server->draining || connection->server->connection_count > SERVER_KEPT_MAX))
        MHD_add_response_header(response, "Connection", "close");
    connection_enter(connection, CONNECTION_SENDING);
    result = MHD_queue_response(connection->mhd, reply->status, response);
    MHD_destroy_response(response);
    return result;
}

/* The strings of a message live in the link's buffer: keeps copies. */
static bool keep_reply(struct server_connection *connection, struct wire_message *reply)
{
    size_t size = 0;
    char *to;

    for (int i = 0; i < WIRE_STRING_COUNT; i++)
        size += reply->strings[i] ? strlen(reply->strings[i]) + 1 : 0;
    to = malloc(size + 1);
    if (!to)
        return false;
    connection->reply = *reply;
    connection->reply_text = to;
    reply->body = NULL; /* taken, as is the stream */
    reply->has_stream = false;
    for (int i = 0; i < WIRE_STRING_COUNT; i++) {
        size_t length = reply->strings[i] ? strlen(reply->strings[i]) + 1 : 0;

        if (length == 0)
            continue;
        memcpy(to, reply->strings[i], length);
        connection->reply.strings[i] = to;
        to += length;
    }
    return true;
}

/* Who gets a stream stays in the table, until its end is told. */
void exchange_reply(struct server *server, struct wire_message *reply)
{
    struct server_connection *connection = *waiting_slot(server, reply->id);

    if (!connection || connection->state != CONNECTION_WAITING)
        return; /* abandoned while the reply was on its way */
    if (!reply->has_stream)
        waiting_take(server, reply->id);
    (void)keep_reply(connection, reply); /* if not: answered with 503 */
    connection->hangup = loop_remove(connection->hangup);
    connection_enter(connection, CONNECTION_REPLIED);
    MHD_resume_connection(connection->mhd);
}

void exchange_end(const struct server_connection *connection)
{
    shutdown(connection->fd, SHUT_RDWR);
    if (connection->reply.has_stream)
        shutdown(connection->reply.stream_fd, SHUT_RDWR);
}

void exchange_cut(struct server *server, uint64_t id)
{
    struct server_connection *connection = waiting_take(server, id);

    if (connection) /* else it ended while this was on its way */
        exchange_end(connection);
}

/* --- receiving --- */

static void client_left(void *context, uint32_t events)
{
    struct server_connection *connection = context;

    (void)events;
    tell_abandoned(connection);
    connection->hangup = loop_remove(connection->hangup);
    connection_enter(connection, CONNECTION_REPLIED);
    MHD_resume_connection(connection->mhd); /* its socket's end is seen then */
}

static enum MHD_Result collect_header(void *cls, enum MHD_ValueKind kind, const char *name,
                                      size_t name_size, const char *value, size_t value_size)
{
    (void)kind;
    server_headers_add(cls, name, name_size, value ? value : "", value ? value_size : 0);
    return MHD_YES;
}

/* All headers, and whether libmicrohttpd tells what was received: only now, for it writes where
 * they were once there is a body.  Since 1.0 it has another parser, which is strict by itself, and
 * whose places nobody has looked at. */
static void look_at_headers(const struct server_connection *connection, const char *method,
                            const char *version, struct server_headers *headers)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection->mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);

    headers->bytes = strlen(method) + strlen(connection->target);
    if (MHD_VERSION < 0x01000000)
        server_headers_begin(headers, method, connection->target_place, strlen(connection->target),
                             version);
    MHD_get_connection_values_n(connection->mhd, MHD_HEADER_KIND, collect_header, headers);
    if (MHD_VERSION < 0x01000000)
        server_headers_end(headers, info ? method + info->header_size : NULL);
}

/* Hands the complete request to warrend and suspends the connection until its reply. */
static enum MHD_Result exchange_submit(struct server_connection *connection, const char *method,
                                       const char *version, const struct server_headers *headers)
{
    struct server *server = connection->server;
    struct wire_message message = { .kind = WIRE_REQUEST,
                                    .body = connection->body,
                                    .body_size = connection->body_size };
    char certificate[WIRE_CERTIFICATE_MAX + 1];

    connection->has_unread = false;
    message.strings[WIRE_METHOD] = method;
    message.strings[WIRE_TARGET] = connection->target;
    message.strings[WIRE_CONTENT_TYPE] = headers->values[HEADER_CONTENT_TYPE];
    message.strings[WIRE_IF_MATCH] = headers->values[HEADER_IF_MATCH];
    message.strings[WIRE_IF_NONE_MATCH] = headers->values[HEADER_IF_NONE_MATCH];
    message.strings[WIRE_IDEMPOTENCY_KEY] = headers->values[HEADER_IDEMPOTENCY_KEY];
    message.strings[WIRE_UPGRADE] = server_headers_upgrade(headers, version);
    message.strings[WIRE_ACCEPT] = headers->values[HEADER_ACCEPT];
    message.strings[WIRE_LAST_EVENT_ID] = headers->values[HEADER_LAST_EVENT_ID];
    message.strings[WIRE_PEER] = connection->peer;
    message.strings[WIRE_AUTHORIZATION] = headers->values[HEADER_AUTHORIZATION];
    if (connection->tls && server_tls_same_clients(connection->tls, server->tls) &&
        server_tls_client(connection->mhd, certificate, sizeof(certificate),
                          &connection->certificate_until))
        message.strings[WIRE_CERTIFICATE] = certificate;
    if (loop_add(server->loop, connection->fd, server->hangup_events, client_left, connection,
                 &connection->hangup, NULL) < 0)
        return exchange_refuse(connection, SERVER_NO_REPLY);
    waiting_add(server, connection);
    message.id = connection->id;
    if (wire_link_send(server->link, &message, NULL) < 0) {
        waiting_take(server, connection->id);
        connection->hangup = loop_remove(connection->hangup);
        return exchange_refuse(connection, SERVER_NO_REPLY);
    }
    body_release(connection);
    connection_enter(connection, CONNECTION_WAITING);
    MHD_suspend_connection(connection->mhd);
    return MHD_YES;
}

/* The first call for a request: its headers are there, nothing of its body. */
static enum MHD_Result exchange_begin(struct server_connection *connection, const char *method,
                                      const char *version)
{
    struct server *server = connection->server;
    struct server_headers headers = { 0 };
    enum server_refusal refusal;

    if (!connection->target)
        return exchange_refuse(connection, SERVER_BUSY);
    look_at_headers(connection, method, version, &headers);
    refusal = server_headers_check(&headers, method, connection->target, version);
    connection->has_unread = headers.values[HEADER_CONTENT_LENGTH] || refusal != SERVER_ACCEPTED;
    if (refusal != SERVER_ACCEPTED)
        return exchange_refuse(connection, refusal);
    connection_enter(connection, CONNECTION_BODY);
    if (headers.content_length == 0)
        return MHD_YES;
    if (headers.content_length > SERVER_BODY_BYTES_MAX - server->body_bytes)
        return exchange_refuse(connection, SERVER_BUSY);
    connection->body = malloc((size_t)headers.content_length);
    if (!connection->body)
        return exchange_refuse(connection, SERVER_BUSY);
    connection->body_room = (size_t)headers.content_length;
    server->body_bytes += connection->body_room;
    return MHD_YES;
}

/* Further calls: parts of the body, then one with *upload_size 0. */
static enum MHD_Result exchange_receive(struct server_connection *connection, const char *method,
                                        const char *version, const char *upload,
                                        size_t *upload_size)
{
    struct server_headers headers = { 0 };

    if (*upload_size > 0) {
        if (*upload_size > connection->body_room - connection->body_size)
            return MHD_NO;
        memcpy(connection->body + connection->body_size, upload, *upload_size);
        connection->body_size += *upload_size;
        *upload_size = 0;
        return MHD_YES;
    }
    if (connection->body_size != connection->body_room)
        return MHD_NO;
    MHD_get_connection_values_n(connection->mhd, MHD_HEADER_KIND, collect_header, &headers);
    return exchange_submit(connection, method, version, &headers);
}

enum MHD_Result exchange_handle(void *cls, struct MHD_Connection *mhd, const char *url,
                                const char *method, const char *version, const char *upload,
                                size_t *upload_size, void **request_cls)
{
    struct server_connection *connection = *request_cls;

    (void)cls;
    (void)mhd;
    (void)url;
    if (!connection)
        return MHD_NO;
    switch (connection->state) {
    case CONNECTION_HEADER:
        return exchange_begin(connection, method, version);
    case CONNECTION_BODY:
        return exchange_receive(connection, method, version, upload, upload_size);
    case CONNECTION_REPLIED:
        if (connection->reply.kind == WIRE_REPLY)
            return exchange_respond(connection, method);
        return exchange_refuse(connection, SERVER_NO_REPLY);
    case CONNECTION_SENDING: /* what a refused request still sends is dropped */
        *upload_size = 0;
        return MHD_YES;
    case CONNECTION_WAITING:
    case CONNECTION_STATE_COUNT:
        break;
    }
    return MHD_NO;
}
