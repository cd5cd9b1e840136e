/* fuzz_http.c - a request from its header lines to the route, condition and body that warrend
 * reads.  What libmicrohttpd splits is split here as it does: METHOD TARGET VERSION, `Name: value`
 * lines, an empty line, the body. */
#include "tests/fuzz/fuzz.h"
#include "agent/node_internal.h"
#include "api/request.h"
#include "api/router.h"
#include "api/server_headers.h"
#include "api/wire.h"

struct lines {
    char *rest;
};

static char *next_line(struct lines *lines)
{
    char *line = strsep(&lines->rest, "\n");

    if (line && *line && line[strlen(line) - 1] == '\r')
        line[strlen(line) - 1] = '\0';
    return line;
}

static void reply_none(void *context, struct request *request, struct wire_message *reply)
{
    (void)context, (void)request, (void)reply;
}

static void read_request(struct wire_message *message)
{
    static const char *const types[] = { "application/json", "application/merge-patch+json", NULL };
    const struct request_sink sink = { .reply = reply_none };
    struct request *request = NULL;
    const struct tokens tokens = { 0 };
    struct node node = { 0 }; /* without a resource */
    struct caller caller;
    struct node_condition condition;
    struct error err = { 0 };
    json_t *json = NULL;

    if (caller_identify(LISTENER_TLS, &tokens, message, &caller, &err) < 0)
        return;
    FUZZ_REQUIRE(caller.kind == CALLER_NOBODY);
    if (request_new(message, &caller, &sink, &node, NULL, &request, &err) < 0)
        return;
    if (request_parse_target(request, &err) == 0 && router_match(request, &err) == 0) {
        FUZZ_REQUIRE(request->route);
        (void)request_condition(request, RESOURCE_VM, true, &condition, &err);
        if (request->route->has_body && request_json(request, types, &json, &err) == 0)
            json_decref(json);
    }
    if (request->route && request->route->scope != SCOPE_OPEN)
        FUZZ_REQUIRE(access_check(request, &err) < 0);
    request_free(request);
}

/* What warren-api packs, warrend unpacks to the same. */
static void pass_over(const struct wire_message *message)
{
    static uint8_t buffer[65536];
    struct wire_message received = { 0 };
    size_t size = 0;
    int fd = -1;

    if (wire_pack(message, buffer, sizeof(buffer), &size, &fd, NULL) < 0)
        return;
    FUZZ_REQUIRE(size <= sizeof(buffer));
    FUZZ_REQUIRE(wire_unpack(buffer, size, fd, &received, NULL) == 0);
    FUZZ_REQUIRE(received.body_size == message->body_size);
    for (unsigned i = 0; i < WIRE_STRING_COUNT; i++)
        FUZZ_REQUIRE(
            !message->strings[i] == !received.strings[i] &&
            (!message->strings[i] || strcmp(message->strings[i], received.strings[i]) == 0));
    read_request(&received);
    wire_message_clear(&received);
}

FUZZ_TARGET(http)
{
    char *text = malloc(size + 1), *line, *method, *target, *version;
    struct server_headers headers = { 0 };
    struct lines lines = { text };

    FUZZ_REQUIRE(text);
    memcpy(text, bytes, size);
    text[size] = '\0';
    line = next_line(&lines);
    method = strsep(&line, " ");
    target = strsep(&line, " ");
    version = line;
    while ((line = next_line(&lines)) && *line) {
        char *name = strsep(&line, ":");

        while (line && *line == ' ')
            line++;
        server_headers_add(&headers, name, strlen(name), line ? line : "", line ? strlen(line) : 0);
    }
    if (server_headers_check(&headers, method, target ? target : "", version ? version : "") ==
        SERVER_ACCEPTED) {
        struct wire_message message = { .kind = WIRE_REQUEST, .id = 1 };

        FUZZ_REQUIRE(headers.content_length <= WIRE_REQUEST_BODY_MAX);
        message.strings[WIRE_METHOD] = method;
        message.strings[WIRE_TARGET] = target;
        message.strings[WIRE_IF_MATCH] = headers.values[HEADER_IF_MATCH];
        message.strings[WIRE_IF_NONE_MATCH] = headers.values[HEADER_IF_NONE_MATCH];
        message.strings[WIRE_AUTHORIZATION] = headers.values[HEADER_AUTHORIZATION];
        message.strings[WIRE_ACCEPT] = headers.values[HEADER_ACCEPT];
        message.strings[WIRE_LAST_EVENT_ID] = headers.values[HEADER_LAST_EVENT_ID];
        message.strings[WIRE_CONTENT_TYPE] = headers.values[HEADER_CONTENT_TYPE];
        message.body = lines.rest && *lines.rest ? lines.rest : NULL;
        message.body_size = message.body ? strlen(message.body) : 0;
        pass_over(&message);
    }
    free(text);
    return 0;
}
