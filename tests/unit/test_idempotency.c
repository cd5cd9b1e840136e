/* test_idempotency.c - what a POST with an Idempotency-Key is answered. */
#include "tests/unit/router_harness.h"

static void a_key_is_done_once(void **state)
{
    struct fixture *f = *state;
    int revision;

    assert_int_equal(ASK(f, "PUT", "/v1/vms/a", "{}"), 201);
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/start", .key = "one"), 202);
    assert_string_equal(f->replayed, "");
    revision = (int)f->node->revision;
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/start", .key = "one"), 202);
    assert_string_equal(f->replayed, "true");
    assert_string_equal(f->etag, "\"1.00000000\"");
    assert_int_equal(f->node->revision, revision);
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/stop", .key = "one"), 202); /* another scope */
    assert_string_equal(f->replayed, "");
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/snapshot", "{\"id\":\"s\"}", .key = "one"), 202);
    assert_string_equal(f->location, "/v1/snapshots/s");
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/snapshot", "{\"id\":\"t\"}", .key = "one"), 422);
    assert_string_equal(member(f, "type"), "urn:warren:problem:key-reused");
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/snapshot", "{\"id\":\"s\"}", .key = "one"), 202);
    assert_string_equal(f->location, "/v1/snapshots/s");
    assert_string_equal(f->replayed, "true");
    /* what was refused changed nothing */
    assert_int_equal(ASK(f, "POST", "/v1/vms/none/start", .key = "two"), 404);
    assert_int_equal(ASK(f, "POST", "/v1/vms/none/start", .key = "two"), 404);
    assert_string_equal(f->replayed, "");
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/start", .key = "with space"), 400);
    assert_string_equal(member(f, "field"), "Idempotency-Key");
    /* other methods are idempotent as they are */
    assert_int_equal(ASK(f, "PUT", "/v1/vms/b", "{}", .key = "one"), 201);
    assert_int_equal(ASK(f, "PUT", "/v1/vms/b", "{}", .key = "one"), 200);
}

static void a_key_under_way_is_refused(void **state)
{
    struct fixture *f = *state;
    int before;

    assert_int_equal(ASK(f, "PUT", "/v1/vms/a", "{}"), 201);
    before = f->replies;
    ask_without_waiting(
        f, (struct asked){ .method = "POST", .target = "/v1/vms/a/start", .key = "k" });
    assert_int_equal(f->replies, before);
    ask_without_waiting(
        f, (struct asked){ .method = "POST", .target = "/v1/vms/a/start", .key = "k" });
    assert_int_equal(f->replies, before + 1);
    assert_int_equal(f->status, 409);
    assert_string_equal(member(f, "type"), "urn:warren:problem:key-under-way");
    for (int turns = 0; f->replies < before + 2 && turns < 1000; turns++)
        assert_int_equal(loop_turn(f->loop, 100, NULL), 0);
    assert_int_equal(f->status, 202);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_key_is_done_once),
        CASE(a_key_under_way_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
