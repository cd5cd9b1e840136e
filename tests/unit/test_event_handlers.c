/* test_event_handlers.c - GET /v1/events: where it begins, what it filters, what it is answered. */
#include "tests/unit/router_harness.h"

#define JSON .accept = "application/json"

static void a_page_is_json(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(ASK(f, "GET", "/v1/events?after=7&limit=3&kind=vm&id=web&type=deleted", JSON),
                     200);
    assert_string_equal(f->content_type, "application/json");
    assert_int_equal(json_integer_value(json_object_get(f->body, "next")), 7);
    assert_int_equal(json_integer_value(json_object_get(f->body, "revision")), 3);
    assert_string_equal(member(f, "kind"), "vm");
    assert_string_equal(member(f, "id"), "web");
    assert_string_equal(member(f, "type"), "deleted");
    assert_int_equal(ASK(f, "GET", "/v1/events", JSON), 200);
    assert_int_equal(json_integer_value(json_object_get(f->body, "next")), -1);
    assert_int_equal(json_integer_value(json_object_get(f->body, "revision")), 100);
}

static void else_it_is_a_stream(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(ASK(f, "GET", "/v1/events"), 200);
    assert_string_equal(f->content_type, "text/event-stream");
    assert_int_equal(ASK(f, "GET", "/v1/events?after=6", .accept = "*/*"), 200);
    assert_string_equal(f->content_type, "text/event-stream");
    assert_int_equal(
        ASK(f, "GET", "/v1/events", .accept = "text/event-stream, application/json;q=0.5"), 200);
    assert_string_equal(f->content_type, "text/event-stream");
}

static void the_header_counts_more(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(ASK(f, "GET", "/v1/events?after=2", JSON, .last_event_id = "8"), 200);
    assert_int_equal(json_integer_value(json_object_get(f->body, "next")), 8);
    assert_int_equal(ASK(f, "GET", "/v1/events", .last_event_id = "8 "), 400);
    assert_string_equal(member(f, "field"), "Last-Event-ID");
    assert_int_equal(ASK(f, "GET", "/v1/events", .last_event_id = ""), 400);
    assert_int_equal(ASK(f, "GET", "/v1/events", .last_event_id = "1234567890123456789"), 400);
}

static void what_is_gone_is_410(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(ASK(f, "GET", "/v1/events?after=4", JSON), 410);
    assert_string_equal(member(f, "type"), "urn:warren:problem:events-trimmed");
    assert_int_equal(ASK(f, "GET", "/v1/events?after=4"), 410);
    assert_string_equal(f->content_type, "application/problem+json");
    assert_int_equal(ASK(f, "GET", "/v1/events", .last_event_id = "10"), 410);
}

static void nonsense_is_400_and_named(void **state)
{
    static const struct {
        const char *target, *field;
    } cases[] = {
        { "/v1/events?kind=pod", "kind" },  { "/v1/events?kind=", "kind" },
        { "/v1/events?id=A", "id" },        { "/v1/events?id=", "id" },
        { "/v1/events?type=born", "type" }, { "/v1/events?type=", "type" },
        { "/v1/events?after=-1", "after" }, { "/v1/events?after=", "after" },
        { "/v1/events?limit=0", "limit" },  { "/v1/events?limit=1001", "limit" },
        { "/v1/events?state=on", "state" },
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        assert_int_equal(ASK(f, "GET", cases[i].target), 400);
        assert_string_equal(member(f, "field"), cases[i].field);
    }
    assert_int_equal(ASK(f, "POST", "/v1/events"), 405);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_page_is_json),      CASE(else_it_is_a_stream),       CASE(the_header_counts_more),
        CASE(what_is_gone_is_410), CASE(nonsense_is_400_and_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
