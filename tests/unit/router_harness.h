/* router_harness.h - requests to the router, with a fake node behind it, and what they are
 * answered. Included by one .c file of a test program. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "tests/unit/fake_node.h"
#include "api/api_metrics.h"
#include "api/openapi.h"
#include "api/problem.h"
#include "api/request.h"
#include "api/router.h"
#include "api/wire.h"
#include "base/cleanup.h"

struct fixture {
    struct loop *loop;
    struct node *node;
    struct api_metrics *metrics;
    struct request_sink sink;
    int replies;
    int status; /* of the last reply, with its headers and body */
    char etag[64], location[256], allow[64], content_type[128], retry_after[16], replayed[8];
    char challenge[128];
    json_t *body;
};

static void keep(char *to, size_t size, const char *from)
{
    size_t length = from ? strnlen(from, size - 1) : 0;

    if (length > 0)
        memcpy(to, from, length);
    to[length] = '\0';
}

static void take_reply(void *context, struct request *request, struct wire_message *reply)
{
    struct fixture *f = context;

    (void)request;
    f->replies++;
    f->status = reply->status;
    keep(f->etag, sizeof(f->etag), reply->strings[WIRE_ETAG]);
    keep(f->location, sizeof(f->location), reply->strings[WIRE_LOCATION]);
    keep(f->allow, sizeof(f->allow), reply->strings[WIRE_ALLOW]);
    keep(f->content_type, sizeof(f->content_type), reply->strings[WIRE_CONTENT_TYPE]);
    keep(f->retry_after, sizeof(f->retry_after), reply->strings[WIRE_RETRY_AFTER]);
    keep(f->challenge, sizeof(f->challenge), reply->strings[WIRE_WWW_AUTHENTICATE]);
    keep(f->replayed, sizeof(f->replayed), reply->strings[WIRE_IDEMPOTENCY_REPLAYED]);
    json_decref(f->body);
    f->body = reply->body ? json_loadb(reply->body, reply->body_size, 0, NULL) : NULL;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_int_equal(loop_new(&f->loop, NULL), 0);
    f->node = fake_node_new(f->loop);
    f->metrics = api_metrics_new();
    f->sink = (struct request_sink){ .reply = take_reply, .context = f };
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(f->node->outstanding, 0);
    json_decref(f->body);
    fake_node_free(f->node);
    api_metrics_free(f->metrics);
    loop_free(f->loop);
    free(f);
    return 0;
}

struct asked {
    const char *method, *target, *body, *if_match, *if_none_match, *content_type, *upgrade, *key,
        *accept, *last_event_id;
    const struct caller *caller; /* NULL: one who may do everything */
};

static struct request *ask_without_waiting(struct fixture *f, struct asked asked)
{
    struct wire_message message = { .kind = WIRE_REQUEST, .id = 1 };
    struct caller caller = { .kind = CALLER_SOCKET, .scope = SCOPE_ADMIN };
    struct request *request;

    if (asked.caller)
        caller = *asked.caller;
    if (caller.limits) {
        caller.limits = malloc(sizeof(*caller.limits));
        *caller.limits = *asked.caller->limits;
    }
    message.strings[WIRE_METHOD] = asked.method;
    message.strings[WIRE_TARGET] = asked.target;
    message.strings[WIRE_IF_MATCH] = asked.if_match;
    message.strings[WIRE_IF_NONE_MATCH] = asked.if_none_match;
    message.strings[WIRE_CONTENT_TYPE] = asked.content_type ? asked.content_type
                                         : asked.body       ? "application/json"
                                                            : NULL;
    message.strings[WIRE_UPGRADE] = asked.upgrade;
    message.strings[WIRE_IDEMPOTENCY_KEY] = asked.key;
    message.strings[WIRE_ACCEPT] = asked.accept;
    message.strings[WIRE_LAST_EVENT_ID] = asked.last_event_id;
    message.body = asked.body ? strdup(asked.body) : NULL;
    message.body_size = asked.body ? strlen(asked.body) : 0;
    assert_int_equal(request_new(&message, &caller, &f->sink, f->node, f->metrics, &request, NULL),
                     0);
    router_dispatch(request, NULL, NULL);
    return request;
}

static int ask(struct fixture *f, struct asked asked)
{
    int before = f->replies;

    ask_without_waiting(f, asked);
    for (int turns = 0; f->replies == before && turns < 1000; turns++)
        assert_int_equal(loop_turn(f->loop, 100, NULL), 0);
    assert_int_equal(f->replies, before + 1);
    return f->status;
}

#define ASK(f, verb, where, ...) \
    ask((f), (struct asked){ .method = (verb), .target = (where), ##__VA_ARGS__ })

static inline const char *member(const struct fixture *f, const char *name)
{
    const char *text = json_string_value(json_object_get(f->body, name));

    return text ? text : "";
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
