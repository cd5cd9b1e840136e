/* test_access.c - which route needs which scope, and what labels limit. */
#include "tests/unit/router_harness.h"

/* NULL: as one who may do everything. */
static int ask_as(struct fixture *f, const struct caller *who, const char *method,
                  const char *target, const char *body)
{
    return ASK(f, method, target, body, .caller = who);
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
        assert_int_equal(ask_as(f, &caller, routes[i].method, routes[i].path, NULL) == 401,
                         !is_open);
        assert_int_equal(f->challenge[0] == 0, is_open);
        for (int scope = SCOPE_METRICS; scope < (int)routes[i].scope; scope++) {
            caller.kind = CALLER_TOKEN;
            caller.scope = (enum scope)scope;
            assert_int_equal(ask_as(f, &caller, routes[i].method, routes[i].path, NULL), 403);
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
    assert_int_equal(ask_as(f, NULL, "PUT", "/v1/vms/prod", prod_vm), 201);
    assert_int_equal(ask_as(f, NULL, "PUT", "/v1/snapshots/s", "{}"), 405);
    assert_int_equal(ask_as(f, NULL, "POST", "/v1/vms/prod/snapshot", "{\"id\":\"s\"}"), 202);
    assert_int_equal(ask_as(f, &caller, "PUT", "/v1/vms/test", test_vm), 201);
    assert_int_equal(ask_as(f, &caller, "PUT", "/v1/vms/other", "{}"), 403);
    assert_int_equal(ask_as(f, &caller, "PUT", "/v1/vms/other", prod_vm), 403);
    assert_int_equal(ask_as(f, &caller, "PUT", "/v1/vms/other", of_prod), 403);
    assert_int_equal(ask_as(f, &caller, "PUT", "/v1/vms/prod", test_vm), 403);
    f->node->is_short = true; /* whose the snapshot is cannot be seen */
    assert_int_equal(ask_as(f, &caller, "PUT", "/v1/vms/other", of_prod), 503);
    assert_int_equal(ask_as(f, &caller, "DELETE", "/v1/vms/prod", NULL), 503); /* nor this VM's */
    f->node->is_short = false;
    assert_int_equal(ask_as(f, &caller, "GET", "/v1/vms/prod", NULL), 404);
    assert_int_equal(ask_as(f, &caller, "DELETE", "/v1/vms/prod", NULL), 404);
    assert_int_equal(ask_as(f, &caller, "PUT", "/v1/vms/prod/disks/there", "{}"), 404);
    assert_int_equal(ask_as(f, &caller, "PATCH", "/v1/vms/test", prod_vm), 403);
    assert_int_equal(ask_as(f, &caller, "PATCH", "/v1/vms/test", "{\"labels\":{\"env\":null}}"),
                     403);
    assert_int_equal(ask_as(f, &caller, "PATCH", "/v1/vms/test", "{\"labels\":null}"), 403);
    assert_int_equal(ask_as(f, &caller, "PATCH", "/v1/vms/test", "{\"restart\":\"always\"}"), 200);
    assert_int_equal(ask_as(f, &caller, "GET", "/v1/vms?limit=1", NULL), 200);
    assert_int_equal(json_array_size(json_object_get(f->body, "items")), 1);
    assert_true(json_is_null(json_object_get(f->body, "next")));
    assert_int_equal(ask_as(f, &caller, "GET", "/v1/snapshots", NULL), 200);
    assert_int_equal(ask_as(f, &caller, "GET", "/v1/node", NULL), 200);
    assert_int_equal(ask_as(f, &caller, "GET", "/v1/node/memory", NULL), 403);
    assert_int_equal(ask_as(f, &caller, "GET", "/v1/node/backup", NULL), 403);
    assert_int_equal(ask_as(f, &caller, "GET", "/v1/events", NULL), 200);
    assert_int_equal(ask_as(f, &caller, "GET", "/metrics", NULL), 403);
    assert_int_equal(ask_as(f, &caller, "DELETE", "/v1/snapshots/s", NULL), 403);
    assert_int_equal(ask_as(f, &caller, "PUT", "/v1/volumes/v", "{}"), 403);
    assert_int_equal(ask_as(f, &caller, "GET", "/healthz", NULL), 200);
}

/* Whatever is asked, well or badly, of one that must not be seen: nobody learns that it is there.
 */
static void a_hidden_vm_is_like_none(void **state)
{
    static const char *const targets[][3] = {
        { "GET", "/v1/vms/%s", NULL },
        { "GET", "/v1/vms/%s/wait?for=deleted", NULL },
        { "GET", "/v1/vms/%s/wait?for=running&timeout=0", NULL },
        { "GET", "/v1/vms/%s/wait?for=nothing", NULL },
        { "GET", "/v1/vms/%s/console", NULL },
        { "GET", "/v1/vms/%s/console?tail=x", NULL },
        { "GET", "/v1/vms/%s/vsock/7", NULL },
        { "PATCH", "/v1/vms/%s", "nonsense" },
        { "PATCH", "/v1/vms/%s", "{\"labels\":{\"env\":\"prod\"}}" },
        { "PUT", "/v1/vms/%s/disks/there", "{}" },
        { "POST", "/v1/vms/%s/snapshot", "nonsense" },
        { "POST", "/v1/vms/%s/fork", "{\"ids\":7}" },
        { "POST", "/v1/vms/%s/stop?wait=x", NULL },
        { "DELETE", "/v1/vms/%s", NULL },
    };
    static const char *const keys[] = { NULL, "new", "with space" };
    struct fixture *f = *state;
    struct label_selector limits;
    struct caller caller = {
        .listener = LISTENER_TLS, .kind = CALLER_TOKEN, .scope = SCOPE_ADMIN, .limits = &limits
    };

    assert_int_equal(label_selector_parse("env=test", &limits, NULL), 0);
    assert_int_equal(ask_as(f, NULL, "PUT", "/v1/vms/same-1", "{\"labels\":{\"env\":\"prod\"}}"),
                     201);
    for (size_t i = 0; i < ARRAY_LENGTH(keys) * ARRAY_LENGTH(targets); i++) {
        const char *const *asked = targets[i / ARRAY_LENGTH(keys)];
        char target[64], *answers[2];
        int statuses[2];

        for (int j = 0; j < 2; j++) {
            snprintf(target, sizeof(target), asked[1], j == 0 ? "same-1" : "same-2");
            statuses[j] = ASK(f, asked[0], target, asked[2], .caller = &caller,
                              .key = keys[i % ARRAY_LENGTH(keys)]);
            answers[j] = json_dumps(f->body, JSON_COMPACT);
        }
        for (char *digit = answers[1]; (digit = strstr(digit, "same-2")); digit++)
            digit[5] = '1';
        assert_int_equal(statuses[0], statuses[1]);
        assert_string_equal(answers[0], answers[1]);
        free(answers[0]);
        free(answers[1]);
    }
    assert_int_equal(ask_as(f, &caller, "GET", "/v1/vms/same-1/wait?for=deleted", NULL), 200);
    assert_true(json_is_true(json_object_get(f->body, "reached")));
    assert_int_equal(ask_as(f, NULL, "GET", "/v1/vms/same-1/wait?for=deleted&timeout=0", NULL),
                     200);
    assert_true(json_is_false(json_object_get(f->body, "reached")));
}

/* What was done is answered again when its VM has gone; not when others have one of its name. */
static void a_key_tells_of_what_its_caller_did(void **state)
{
    static const char test_vm[] = "{\"labels\":{\"env\":\"test\"}}";
    static const char prod_vm[] = "{\"labels\":{\"env\":\"prod\"}}";
    struct fixture *f = *state;
    struct label_selector limits;
    struct caller caller = { .listener = LISTENER_TLS,
                             .kind = CALLER_TOKEN,
                             .name = "ci",
                             .scope = SCOPE_ADMIN,
                             .limits = &limits };

    assert_int_equal(label_selector_parse("env=test", &limits, NULL), 0);
    assert_int_equal(ask_as(f, &caller, "PUT", "/v1/vms/a", test_vm), 201);
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/stop", .caller = &caller, .key = "k"), 202);
    assert_int_equal(ask_as(f, &caller, "DELETE", "/v1/vms/a", NULL), 200);
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/stop", .caller = &caller, .key = "k"), 202);
    assert_string_equal(f->replayed, "true");
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/kill", .caller = &caller, .key = "k"), 404);
    snprintf(caller.name, sizeof(caller.name), "cd");
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/stop", .caller = &caller, .key = "k"), 404);
    snprintf(caller.name, sizeof(caller.name), "ci");
    assert_int_equal(ask_as(f, NULL, "PUT", "/v1/vms/a", prod_vm), 201);
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/stop", .caller = &caller, .key = "k"), 404);
}

static void give_away(void *context)
{
    struct fixture *f = context;
    struct fake_resource *copy = fake_find(f->node, RESOURCE_VM, "copy");

    json_object_set_new(json_object_get(copy->spec, "labels"), "env", json_string("prod"));
}

/* While its request waits, its VM gets other labels; or it goes, and others make one of its name.
 */
static void an_answer_shows_no_vm_that_is_anothers_by_then(void **state)
{
    struct fixture *f = *state;
    struct label_selector limits;
    struct caller caller = {
        .listener = LISTENER_TLS, .kind = CALLER_TOKEN, .scope = SCOPE_ADMIN, .limits = &limits
    };

    assert_int_equal(label_selector_parse("env=test", &limits, NULL), 0);
    assert_int_equal(
        ask_as(f, NULL, "PUT", "/v1/vms/a", "{\"labels\":{\"env\":\"test\"},\"boot\":{}}"), 201);
    assert_non_null(loop_after(f->loop, 0, give_away, f));
    assert_int_equal(ask_as(f, &caller, "POST", "/v1/vms/a/fork?wait=10", "{\"ids\":[\"copy\"]}"),
                     200);
    assert_int_equal(json_array_size(json_object_get(f->body, "items")), 0);
    assert_int_equal(ask_as(f, NULL, "DELETE", "/v1/vms/copy", NULL), 200);
    assert_non_null(loop_after(f->loop, 0, give_away, f));
    assert_int_equal(
        ask_as(f, &caller, "PUT", "/v1/vms/copy?wait=10", "{\"labels\":{\"env\":\"test\"}}"), 404);
}

/* A token that is wrong is not made up for by a certificate that is right. */
static void who_asks_is_who_shows_it(void **state)
{
    static const char file[] =
        "token ci scopes=read labels=a "
        "sha256=2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\n"
        "cert prom scopes=metrics";
    static const struct {
        enum listener listener;
        const char *authorization, *certificate, *name;
        enum caller_kind kind;
        enum scope scope;
        bool refused;
    } rows[] = {
        { LISTENER_UNIX, NULL, NULL, "", CALLER_SOCKET, SCOPE_ADMIN, false },
        { LISTENER_UNIX, "Bearer wrong", NULL, "", CALLER_SOCKET, SCOPE_ADMIN, false },
        { LISTENER_TLS, NULL, NULL, "", CALLER_NOBODY, SCOPE_OPEN, false },
        { LISTENER_TLS, "Bearer secret", NULL, "ci", CALLER_TOKEN, SCOPE_READ, false },
        { LISTENER_TLS, "bEARER secret", "prom", "ci", CALLER_TOKEN, SCOPE_READ, false },
        { LISTENER_TLS, "Basic secret", NULL, "", CALLER_NOBODY, SCOPE_OPEN, true },
        { LISTENER_TLS, "secret", NULL, "", CALLER_NOBODY, SCOPE_OPEN, true },
        { LISTENER_TLS, "Bearer wrong", "prom", "", CALLER_NOBODY, SCOPE_OPEN, true },
        { LISTENER_TLS, NULL, "prom", "prom", CALLER_CERTIFICATE, SCOPE_METRICS, false },
        { LISTENER_TLS, NULL, "ci", "", CALLER_NOBODY, SCOPE_OPEN, true },
        { LISTENER_METRICS, NULL, "prom", "prom", CALLER_CERTIFICATE, SCOPE_METRICS, false },
    };
    struct tokens tokens;

    (void)state;
    assert_int_equal(tokens_parse(file, strlen(file), &tokens, NULL), 0);
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        struct wire_message message = { .kind = WIRE_REQUEST };
        struct caller caller;

        message.strings[WIRE_AUTHORIZATION] = rows[i].authorization;
        message.strings[WIRE_CERTIFICATE] = rows[i].certificate;
        assert_int_equal(caller_identify(rows[i].listener, &tokens, &message, &caller, NULL), 0);
        assert_int_equal(caller.listener, rows[i].listener);
        assert_int_equal(caller.kind, rows[i].kind);
        assert_int_equal(caller.scope, rows[i].scope);
        assert_int_equal(caller.refused, rows[i].refused);
        assert_string_equal(caller.name, rows[i].name);
        assert_int_equal(caller.limits != NULL, rows[i].kind == CALLER_TOKEN);
        assert_true(!caller.limits || label_selector_equal(caller.limits, tokens.items[0].limits));
        caller_clear(&caller);
    }
    tokens_clear(&tokens);
}

static bool holds(const char *file, const struct caller *caller, enum scope scope)
{
    struct route route = { .scope = scope };
    struct request request = { .route = &route, .caller = *caller };
    struct tokens tokens;
    bool result;

    assert_int_equal(tokens_parse(file, strlen(file), &tokens, NULL), 0);
    result = access_still_holds(&request, &tokens);
    tokens_clear(&tokens);
    return result;
}

static void what_is_open_holds_as_long_as_its_token(void **state)
{
#define OLD "5fc95f2f23e9bb9f6eb4a4d1d4bc4a5b5fc95f2f23e9bb9f6eb4a4d1d4bc4a5b"
#define NEW "0000000000000000000000000000000000000000000000000000000000000000"
    struct label_selector limits;
    struct caller token = { .kind = CALLER_TOKEN, .name = "ci", .digest = OLD };
    struct caller certificate = { .kind = CALLER_CERTIFICATE, .name = "ci" };
    struct caller user = { .kind = CALLER_SOCKET };

    (void)state;
    assert_true(holds("token ci scopes=read sha256=" OLD, &token, SCOPE_READ));
    assert_true(holds("token renamed scopes=admin sha256=" OLD, &token, SCOPE_READ));
    assert_false(holds("token ci scopes=read sha256=" OLD, &token, SCOPE_OPERATE));
    assert_false(holds("token ci scopes=admin sha256=" NEW, &token, SCOPE_READ));
    assert_false(holds("token ci scopes=read labels=a sha256=" OLD, &token, SCOPE_READ));
    assert_false(holds("cert ci scopes=admin", &token, SCOPE_READ));
    assert_true(holds("cert ci scopes=read", &certificate, SCOPE_READ));
    assert_false(holds("cert other scopes=read", &certificate, SCOPE_READ));
    assert_false(holds("token ci scopes=admin sha256=" OLD, &certificate, SCOPE_READ));
    assert_int_equal(label_selector_parse("a", &limits, NULL), 0);
    token.limits = &limits;
    assert_true(holds("token ci scopes=read labels=a sha256=" OLD, &token, SCOPE_READ));
    assert_false(holds("token ci scopes=read labels=b sha256=" OLD, &token, SCOPE_READ));
    assert_false(holds("token ci scopes=read sha256=" OLD, &token, SCOPE_READ));
    assert_true(holds("", &user, SCOPE_ADMIN));
}

static void callers_are_told_apart(void **state)
{
    const struct caller callers[] = {
        { .kind = CALLER_TOKEN, .name = "ci" },
        { .kind = CALLER_TOKEN, .name = "cd" },
        { .kind = CALLER_CERTIFICATE, .name = "ci" },
        { .kind = CALLER_SOCKET, .peer = "pid=7,uid=1,gid=0" },
        { .kind = CALLER_SOCKET, .peer = "pid=7,uid=11,gid=0" },
        { .kind = CALLER_SOCKET, .peer = "?" },
    };
    struct caller same = { .kind = CALLER_SOCKET, .peer = "pid=8,uid=1,gid=3" };

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(callers); i++)
        for (size_t j = 0; j < ARRAY_LENGTH(callers); j++)
            assert_int_equal(caller_is_same(&callers[i], &callers[j]), i == j);
    assert_true(caller_is_same(&same, &callers[3]));
    same = (struct caller){ .kind = CALLER_TOKEN, .name = "ci", .digest = OLD };
    assert_true(caller_is_same(&same, &callers[0]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(each_route_needs_its_scope),
        CASE(labels_limit_what_is_seen_and_made),
        CASE(a_hidden_vm_is_like_none),
        CASE(a_key_tells_of_what_its_caller_did),
        CASE(an_answer_shows_no_vm_that_is_anothers_by_then),
        cmocka_unit_test(who_asks_is_who_shows_it),
        cmocka_unit_test(what_is_open_holds_as_long_as_its_token),
        cmocka_unit_test(callers_are_told_apart),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
