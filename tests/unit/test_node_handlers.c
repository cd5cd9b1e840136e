/* test_node_handlers.c - PATCH /v1/node, and its entity tag. */
#include "tests/unit/router_harness.h"

#define NODE "/v1/node"

static void its_generation_is_its_tag(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(ASK(f, "GET", NODE), 200);
    assert_string_equal(f->etag, "\"1\"");
    assert_int_equal(ASK(f, "GET", NODE, .if_none_match = "\"1\""), 304);
    assert_int_equal(ASK(f, "GET", NODE, .if_none_match = "\"2\""), 200);
    assert_int_equal(ASK(f, "PATCH", NODE, "{\"memory\":{}}"), 200);
    assert_string_equal(f->etag, "\"2\"");
}

static void conditions_are_kept_to(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(ASK(f, "PATCH", NODE, "{\"memory\":{}}", .if_match = "\"1\""), 200);
    assert_int_equal(ASK(f, "PATCH", NODE, "{\"memory\":{}}", .if_match = "\"1\""), 412);
    assert_int_equal(ASK(f, "PATCH", NODE, "{\"memory\":{}}", .if_match = "*"), 200);
    assert_int_equal(ASK(f, "PATCH", NODE, "{\"memory\":{}}", .if_match = "\"x\""), 412);
    assert_int_equal(ASK(f, "PATCH", NODE, "{\"memory\":{}}", .if_match = "\"1\", \"2\""), 400);
    assert_int_equal(ASK(f, "PATCH", NODE, "{\"memory\":{}}", .if_none_match = "*"), 400);
    assert_int_equal(f->node->patched, 2);
    assert_int_equal(ASK(f, "POST", NODE "/drain", .if_match = "\"1\""), 412);
    assert_int_equal(ASK(f, "POST", NODE "/drain", .if_match = "\"3\""), 202);
    assert_int_equal(ASK(f, "POST", NODE "/uncordon", .if_match = "\"1\""), 412);
    assert_int_equal(ASK(f, "POST", NODE "/uncordon", .if_match = "\"3\""), 200);
    assert_int_equal(ASK(f, "POST", NODE "/uncordon", .if_none_match = "*"), 400);
}

static void only_what_can_change_is_taken(void **state)
{
    static const struct {
        const char *body, *field;
    } cases[] = {
        { "{}", "body" },
        { "[]", "body" },
        { "{\"draining\":true}", "draining" },
        { "{\"version\":\"2\",\"schedulable\":true}", "version" },
        { "{\"colour\":null}", "colour" },
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        assert_int_equal(ASK(f, "PATCH", NODE, cases[i].body), 400);
        assert_string_equal(member(f, "field"), cases[i].field);
    }
    assert_int_equal(ASK(f, "PATCH", NODE), 415);
    assert_int_equal(ASK(f, "PATCH", NODE, "{}", .content_type = "text/plain"), 415);
    assert_int_equal(f->node->patched, 0);
}

static void a_refusal_names_its_field(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(ASK(f, "PATCH", NODE, "{\"memory\":{\"refuse\":16}}"), 409);
    assert_string_equal(member(f, "field"), "memory.refuse");
    assert_int_equal(ASK(f, "PATCH", NODE, "{\"memory\":{\"refuse\":22}}"), 400);
}

static void it_is_an_admins(void **state)
{
    static const struct caller operator= { .kind = CALLER_TOKEN, .scope = SCOPE_OPERATE };
    struct fixture *f = *state;

    assert_int_equal(ASK(f, "PATCH", NODE, "{\"memory\":{}}", .caller = &operator), 403);
    assert_int_equal(ASK(f, "GET", NODE, .caller = &operator), 200);
    assert_int_equal(f->node->patched, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(its_generation_is_its_tag),
        TEST(conditions_are_kept_to),
        TEST(only_what_can_change_is_taken),
        TEST(a_refusal_names_its_field),
        TEST(it_is_an_admins),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
