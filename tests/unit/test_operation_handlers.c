/* test_operation_handlers.c - waiting for operations, and who may cancel which. */
#include "tests/unit/router_harness.h"

static void add(struct fixture *f, const char *id, const char *kind)
{
    fake_add(f->node, RESOURCE_OPERATION, id,
             json_pack("{s:s, s:{s:s, s:s}}", "verb", "import", "target", "kind", kind, "id", "x"));
}

static void one_is_got_and_waited_for(void **state)
{
    struct fixture *f = *state;

    add(f, "import-1", "image");
    assert_int_equal(ASK(f, "GET", "/v1/operations/import-1"), 200);
    assert_string_equal(member(f, "id"), "import-1");
    assert_int_equal(ASK(f, "GET", "/v1/operations/import-1?wait=0"), 200);
    assert_int_equal(ASK(f, "GET", "/v1/operations/import-1?wait=5"), 200);
    assert_string_equal(member(f, "id"), "import-1");
    assert_int_equal(ASK(f, "GET", "/v1/operations/import-2?wait=5"), 404);
    assert_int_equal(ASK(f, "GET", "/v1/operations/import-1?wait=601"), 400);
    assert_string_equal(member(f, "field"), "wait");
}

static void who_waits_may_leave(void **state)
{
    struct fixture *f = *state;
    struct request *request;

    add(f, "import-1", "image");
    request = ask_without_waiting(
        f, (struct asked){ .method = "GET", .target = "/v1/operations/import-1?wait=600" });
    request_abandon(request);
    assert_int_equal(f->replies, 1);
    assert_int_equal(f->node->outstanding, 0);
}

static void cancelling_is_a_change(void **state)
{
    struct fixture *f = *state;

    add(f, "copy-1", "volume");
    assert_int_equal(ASK(f, "POST", "/v1/operations/copy-1/cancel"), 202);
    assert_true(json_is_true(json_object_get(json_object_get(f->body, "spec"), "cancel")));
    assert_int_equal(ASK(f, "POST", "/v1/operations/copy-1/cancel?wait=5"), 200);
    assert_int_equal(ASK(f, "POST", "/v1/operations/copy-2/cancel"), 404);
    assert_int_equal(ASK(f, "POST", "/v1/operations/copy-1/cancel", "{}"), 400);
    assert_int_equal(ASK(f, "GET", "/v1/operations/copy-1/cancel"), 405);
    assert_int_equal(ASK(f, "POST", "/v1/operations/copy-1/cancel", .if_match = "\"9\""), 412);
}

static int ask_as(struct fixture *f, enum scope scope, const char *target)
{
    struct caller caller = { .kind = CALLER_TOKEN, .scope = scope };

    return ask(f, (struct asked){ .method = "POST", .target = target, .caller = &caller });
}

static void imports_are_admins(void **state)
{
    struct fixture *f = *state;

    add(f, "import-1", "image");
    add(f, "copy-1", "volume");
    assert_int_equal(ask_as(f, SCOPE_OPERATE, "/v1/operations/import-1/cancel"), 403);
    assert_int_equal(ask_as(f, SCOPE_OPERATE, "/v1/operations/copy-1/cancel"), 202);
    assert_int_equal(ask_as(f, SCOPE_READ, "/v1/operations/copy-1/cancel"), 403);
    assert_int_equal(ask_as(f, SCOPE_ADMIN, "/v1/operations/import-1/cancel"), 202);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(one_is_got_and_waited_for),
        CASE(who_waits_may_leave),
        CASE(cancelling_is_a_change),
        CASE(imports_are_admins),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
