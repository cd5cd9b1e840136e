/* test_access.c - which route needs which scope, and what labels limit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "tests/unit/fake_node.h"
#include "api/request.h"
#include "api/router.h"
#include "api/wire.h"
#include "base/cleanup.h"

struct fixture {
    struct loop *loop;
    struct node *node;
    struct request_sink sink;
    const struct caller *caller;
    int replies, status; /* the last one's */
    char challenge[128];
    json_t *body;
};

static void take_reply(void *context, struct request *request, struct wire_message *reply)
{
    struct fixture *f = context;
    const char *challenge = reply->strings[WIRE_WWW_AUTHENTICATE];

    (void)request;
    f->replies++;
    f->status = reply->status;
    snprintf(f->challenge, sizeof(f->challenge), "%s", challenge ? challenge : "");
    json_decref(f->body);
    f->body = reply->body ? json_loadb(reply->body, reply->body_size, 0, NULL) : NULL;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_int_equal(loop_new(&f->loop, NULL), 0);
    f->node = fake_node_new(f->loop);
    f->sink = (struct request_sink){ .reply = take_reply, .context = f };
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    json_decref(f->body);
    fake_node_free(f->node);
    loop_free(f->loop);
    free(f);
    return 0;
}

/* As who, NULL being one who may do everything. */
static int ask(struct fixture *f, const struct caller *who, const char *method, const char *target,
               const char *body)
{
    struct wire_message message = { .kind = WIRE_REQUEST, .id = 1 };
    struct caller caller =
        who ? *who : (struct caller){ .kind = CALLER_SOCKET, .scope = SCOPE_ADMIN };
    struct request *request;
    int before = f->replies;

    if (caller.limits) {
        caller.limits = malloc(sizeof(*caller.limits));
        *caller.limits = *who->limits;
    }
    message.strings[WIRE_METHOD] = method;
    message.strings[WIRE_TARGET] = target;
    message.strings[WIRE_CONTENT_TYPE] = "application/json";
    message.body = body ? strdup(body) : NULL;
    message.body_size = body ? strlen(body) : 0;
    assert_int_equal(request_new(&message, &caller, &f->sink, f->node, NULL, &request, NULL), 0);
    router_dispatch(request);
    for (int turns = 0; f->replies == before && turns < 1000; turns++)
        assert_int_equal(loop_turn(f->loop, 100, NULL), 0);
    assert_int_equal(f->replies, before + 1);
    return f->status;
}

static void each_route_needs_its_scope(void **state)
{
    struct fixture *f = *state;
    struct caller caller = { .listener = LISTENER_TLS };
    size_t count;
    const struct route *routes = router_routes(&count);

    for (size_t i = 0; i < count; i++) {
        bool is_open = routes[i].scope == SCOPE_OPEN;

        caller.kind = CALLER_NOBODY;
        caller.scope = SCOPE_OPEN;
        assert_int_equal(ask(f, &caller, routes[i].method, routes[i].path, NULL) == 401, !is_open);
        assert_int_equal(f->challenge[0] == 0, is_open);
        for (int scope = SCOPE_METRICS; scope < (int)routes[i].scope; scope++) {
            caller.kind = CALLER_TOKEN;
            caller.scope = (enum scope)scope;
            assert_int_equal(ask(f, &caller, routes[i].method, routes[i].path, NULL), 403);
            assert_non_null(strstr(f->challenge, scope_name(routes[i].scope)));
        }
        assert_true(strcmp(routes[i].method, "GET") == 0 || routes[i].scope >= SCOPE_OPERATE);
    }
    assert_int_equal(f->node->revision, 0);
}

static void labels_limit_what_is_seen_and_made(void **state)
{
    static const char test_vm[] = "{\"labels\":{\"env\":\"test\"}}";
    static const char prod_vm[] = "{\"labels\":{\"env\":\"prod\"}}";
    static const char of_prod[] = "{\"labels\":{\"env\":\"test\"},\"boot\":{\"snapshot\":\"s\"}}";
    struct fixture *f = *state;
    struct label_selector limits;
    struct caller caller = {
        .listener = LISTENER_TLS, .kind = CALLER_TOKEN, .scope = SCOPE_ADMIN, .limits = &limits
    };

    assert_int_equal(label_selector_parse("env=test", &limits, NULL), 0);
    assert_int_equal(ask(f, NULL, "PUT", "/v1/vms/prod", prod_vm), 201);
    assert_int_equal(ask(f, NULL, "PUT", "/v1/snapshots/s", "{}"), 405);
    assert_int_equal(ask(f, NULL, "POST", "/v1/vms/prod/snapshot", "{\"id\":\"s\"}"), 202);
    assert_int_equal(ask(f, &caller, "PUT", "/v1/vms/test", test_vm), 201);
    assert_int_equal(ask(f, &caller, "PUT", "/v1/vms/other", "{}"), 403);
    assert_int_equal(ask(f, &caller, "PUT", "/v1/vms/other", prod_vm), 403);
    assert_int_equal(ask(f, &caller, "PUT", "/v1/vms/other", of_prod), 403);
    assert_int_equal(ask(f, &caller, "PUT", "/v1/vms/prod", test_vm), 403);
    assert_int_equal(ask(f, &caller, "GET", "/v1/vms/prod", NULL), 404);
    assert_int_equal(ask(f, &caller, "GET", "/v1/vms/prod/wait?for=running", NULL), 404);
    assert_int_equal(ask(f, &caller, "DELETE", "/v1/vms/prod", NULL), 404);
    assert_int_equal(ask(f, &caller, "PUT", "/v1/vms/prod/disks/there", "{}"), 404);
    assert_int_equal(ask(f, &caller, "PATCH", "/v1/vms/test", prod_vm), 403);
    assert_int_equal(ask(f, &caller, "PATCH", "/v1/vms/test", "{\"labels\":{\"env\":null}}"), 403);
    assert_int_equal(ask(f, &caller, "PATCH", "/v1/vms/test", "{\"restart\":\"always\"}"), 200);
    assert_int_equal(ask(f, &caller, "GET", "/v1/vms?limit=1", NULL), 200);
    assert_int_equal(json_array_size(json_object_get(f->body, "items")), 1);
    assert_true(json_is_null(json_object_get(f->body, "next")));
    assert_int_equal(ask(f, &caller, "GET", "/v1/snapshots", NULL), 200);
    assert_int_equal(ask(f, &caller, "GET", "/v1/node", NULL), 200);
    assert_int_equal(ask(f, &caller, "GET", "/metrics", NULL), 403);
    assert_int_equal(ask(f, &caller, "DELETE", "/v1/snapshots/s", NULL), 403);
    assert_int_equal(ask(f, &caller, "PUT", "/v1/volumes/v", "{}"), 403);
    assert_int_equal(ask(f, &caller, "GET", "/healthz", NULL), 200);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(each_route_needs_its_scope),
        CASE(labels_limit_what_is_seen_and_made),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
