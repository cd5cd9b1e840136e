/* test_router.c - routes, their agreement with openapi.yaml, and what each verb answers. */
#include "tests/unit/router_harness.h"

/* --- the contract --- */

/* Finds "  PATH:", then "    method:", then "      operationId: ID" in the text. */
static void every_operation_is_a_route_and_the_reverse(void **state)
{
    size_t count, size, found = 0;
    const struct route *routes = router_routes(&count);
    auto_free char *text = strdup(openapi_text(&size));
    char path[128] = "", method[16] = "";
    char *rest = text, *line;

    (void)state;
    while ((line = strsep(&rest, "\n"))) {
        char word[128];

        if (sscanf(line, "  %127[^: ]:", word) == 1 && strncmp(line, "  /", 3) == 0)
            keep(path, sizeof(path), word);
        else if (strncmp(line, "    ", 4) == 0 && line[4] >= 'a' && line[4] <= 'z' &&
                 sscanf(line, "    %15[a-z]:", word) == 1)
            keep(method, sizeof(method), word);
        else if (sscanf(line, "      operationId: %127s", word) == 1) {
            size_t i = 0;

            while (i < count && strcmp(routes[i].operation_id, word) != 0)
                i++;
            if (i == count)
                fail_msg("openapi.yaml has %s, the routes have not", word);
            assert_string_equal(routes[i].path, path);
            assert_int_equal(strcasecmp(routes[i].method, method), 0);
            assert_int_equal(i, found); /* the same order */
            found++;
        }
    }
    assert_int_equal(found, count);
}

static void every_problem_is_in_the_contract(void **state)
{
    static const int codes[] = { EALREADY,
                                 EKEYREJECTED,
                                 EHOSTDOWN,
                                 EINVAL,
                                 ENOENT,
                                 EOPNOTSUPP,
                                 EEXIST,
                                 EBUSY,
                                 EADDRINUSE,
                                 ESTALE,
                                 EAGAIN,
                                 ENODEV,
                                 ENOSPC,
                                 ENOMEM,
                                 EADDRNOTAVAIL,
                                 EMEDIUMTYPE,
                                 EIO,
                                 E2BIG,
                                 ENOPROTOOPT,
                                 PROBLEM_UNAUTHENTICATED,
                                 PROBLEM_FORBIDDEN,
                                 PROBLEM_TOO_MANY_REQUESTS };
    size_t size;

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(codes); i++) {
        char text[80];

        snprintf(text, sizeof(text), "- urn:warren:problem:%s\n", problem_of(codes[i])->name);
        if (!strstr(openapi_text(&size), text))
            fail_msg("openapi.yaml lacks %s", text);
    }
}

static void an_internal_error_is_not_shown(void **state)
{
    struct error err;
    json_t *document;

    (void)state;
    error_field(&err, EIO, "secret", "write /var/lib/warren/x");
    document = problem_document(&err);
    assert_null(strstr(json_string_value(json_object_get(document, "detail")), "/var"));
    assert_null(json_object_get(document, "field"));
    assert_int_equal(json_integer_value(json_object_get(document, "status")), 500);
    json_decref(document);
}

static void half_a_character_does_not_spoil_a_problem(void **state)
{
    struct error err;
    json_t *document;

    (void)state;
    error_field(&err, EINVAL, "\xc3", "bad \xe2\x82");
    document = problem_document(&err);
    assert_string_equal(json_string_value(json_object_get(document, "detail")), "bad ??");
    assert_string_equal(json_string_value(json_object_get(document, "field")), "?");
    json_decref(document);
}

/* --- routing --- */

static void what_has_no_route_is_refused(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(ASK(f, "GET", "/v1/nothing"), 404);
    assert_string_equal(f->content_type, "application/problem+json");
    assert_int_equal(ASK(f, "GET", "/v1/vms/"), 404);
    assert_int_equal(ASK(f, "GET", "/v1/vms/a/b"), 404);
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/pause"), 404);
    assert_int_equal(ASK(f, "POST", "/v1/vms"), 405);
    assert_string_equal(f->allow, "GET, HEAD");
    assert_int_equal(ASK(f, "BREW", "/v1/vms/a"), 405);
    assert_string_equal(f->allow, "GET, HEAD, PUT, PATCH, DELETE");
    assert_int_equal(ASK(f, "GET", "/v1/vms/A"), 400);
    assert_string_equal(member(f, "field"), "id");
    assert_int_equal(ASK(f, "GET", "/v1/vms/-a"), 400);
    assert_int_equal(
        ASK(f, "GET", "/v1/vms/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        400);
    assert_int_equal(ASK(f, "GET", "/v1/vms?limits=1"), 400);
    assert_string_equal(member(f, "field"), "limits");
    assert_int_equal(ASK(f, "GET", "/v1/vms/a", "{}"), 400);
    assert_string_equal(member(f, "field"), "body");
    assert_int_equal(ASK(f, "HEAD", "/healthz"), 200);
}

/* --- verbs --- */

static void put_creates_confirms_and_refuses(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(ASK(f, "PUT", "/v1/vms/a", "{\"vcpus\":1}"), 201);
    assert_string_equal(f->etag, "\"1.00000000\"");
    assert_string_equal(f->location, "/v1/vms/a");
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a", "{\"vcpus\":1}"), 200);
    assert_string_equal(f->location, "");
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a", "{\"vcpus\":2}"), 409);
    assert_string_equal(member(f, "type"), "urn:warren:problem:conflict");
    assert_string_equal(member(f, "field"), "vcpus");
    assert_int_equal(ASK(f, "PUT", "/v1/images/k", "{\"kind\":\"kernel\"}"), 201);
    assert_string_equal(f->location, "/v1/operations/op-1");
    assert_int_equal(ASK(f, "PUT", "/v1/vms/b?wait=5", "{}"), 201);
}

static void console_input_is_checked(void **state)
{
    struct fixture *f = *state;
    static char long_body[NODE_INPUT_MAX + 2];

    assert_int_equal(ASK(f, "PUT", "/v1/vms/a", "{}"), 201);
    assert_int_equal(
        ASK(f, "POST", "/v1/vms/a/console/input", "hello", .content_type = "text/plain"), 204);
    assert_string_equal(f->node->typed, "hello");
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/console/input", "x"), 415);
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/console/input", .content_type = "text/plain"), 400);
    assert_string_equal(member(f, "field"), "body");
    memset(long_body, 'x', NODE_INPUT_MAX + 1);
    assert_int_equal(
        ASK(f, "POST", "/v1/vms/a/console/input", long_body, .content_type = "text/plain"), 413);
    assert_string_equal(f->node->typed, "hello");
    long_body[NODE_INPUT_MAX] = '\0';
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/console/input", long_body,
                         .content_type = "application/octet-stream"),
                     204);
    assert_int_equal(
        ASK(f, "POST", "/v1/vms/absent/console/input", "x", .content_type = "text/plain"), 404);
    assert_int_equal(ASK(f, "GET", "/v1/vms/a/console?follow=2"), 400);
    assert_int_equal(ASK(f, "GET", "/v1/vms/absent/console?follow=1"), 404);
}

static void a_guests_port_is_connected_to(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(ASK(f, "PUT", "/v1/vms/a", "{}"), 201);
    assert_int_equal(ASK(f, "GET", "/v1/vms/a/vsock/7"), 426);
    assert_int_equal(ASK(f, "GET", "/v1/vms/a/vsock/7", .upgrade = "other"), 426);
    assert_int_equal(ASK(f, "GET", "/v1/vms/a/vsock/7", .upgrade = "vsock"), 101);
    assert_int_equal(ASK(f, "GET", "/v1/vms/a/vsock/8", .upgrade = "vsock"), 502);
    assert_string_equal(member(f, "type"), "urn:warren:problem:guest-refused");
    assert_int_equal(ASK(f, "GET", "/v1/vms/a/vsock/9", .upgrade = "vsock"), 504);
    assert_int_equal(ASK(f, "GET", "/v1/vms/absent/vsock/7", .upgrade = "vsock"), 404);
    assert_int_equal(ASK(f, "GET", "/v1/vms/a/vsock/4294967295", .upgrade = "vsock"), 400);
    assert_string_equal(member(f, "field"), "port");
    assert_int_equal(ASK(f, "GET", "/v1/vms/a/vsock/-1", .upgrade = "vsock"), 400);
    assert_int_equal(ASK(f, "GET", "/v1/vms/a/vsock/99999999999999999999", .upgrade = "vsock"),
                     400);
    assert_int_equal(ASK(f, "GET", "/v1/vms/a/vsock/", .upgrade = "vsock"), 404);
    assert_int_equal(ASK(f, "GET", "/v1/vms/a/vsock/7/8", .upgrade = "vsock"), 404);
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/vsock/7"), 405);
}

static void errors_have_their_statuses(void **state)
{
    static const struct {
        int code, status;
    } cases[] = { { EINVAL, 400 },        { EBUSY, 409 },  { EADDRINUSE, 409 },
                  { ENOSPC, 507 },        { ENOMEM, 507 }, { EAGAIN, 503 },
                  { EADDRNOTAVAIL, 507 }, { ENODEV, 503 }, { EPROTO, 500 } };
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        char body[32];

        snprintf(body, sizeof(body), "{\"refuse\":%d}", cases[i].code);
        assert_int_equal(ASK(f, "PUT", "/v1/vms/a", body), cases[i].status);
        assert_int_equal(f->retry_after[0] != '\0', cases[i].status == 503);
    }
}

static void bodies_are_json_objects_of_the_right_type(void **state)
{
    static const char *const bad[] = {
        "", "[]", "1", "{", "{}x", "{\"a\":1,\"a\":2}", "{\"a\":\"\xff\"}", "null"
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        assert_int_equal(ASK(f, "PUT", "/v1/vms/a", bad[i]), 400);
        assert_string_equal(member(f, "field"), "body");
    }
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a", "{}", .content_type = "text/plain"), 415);
    assert_int_equal(
        ASK(f, "PUT", "/v1/vms/a", "{}", .content_type = "application/x-www-form-urlencoded"), 415);
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a", "{}", .content_type = "application/jsonx"), 415);
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a"), 415);
    assert_int_equal(
        ASK(f, "PUT", "/v1/vms/a", "{}", .content_type = "Application/JSON; charset=utf-8"), 201);
}

#define BOOT "{\"boot\":{}}" /* which a fork takes over */

static void conditions_hold_or_412(void **state)
{
    static const char *const nonsense[] = {
        "\"",     "\"\"",          "\"0\"",           "\".00000000\"",
        "\"1.\"", "\"1.0000000\"", "\"1.000000000\"", "\"1-00000000\""
    };
    struct fixture *f = *state;

    assert_int_equal(ASK(f, "PUT", "/v1/vms/a", BOOT, .if_match = "*"), 412);
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a", BOOT, .if_none_match = "*"), 201);
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a", BOOT, .if_none_match = "*"), 412);
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a", BOOT, .if_match = "\"1\""), 200);
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a", BOOT, .if_match = "\"2\""), 412);
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a", BOOT, .if_match = "W/\"1\""), 412);
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a", BOOT, .if_match = "1"), 412);
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a", BOOT, .if_match = "\"1.00000000\""), 200);
    for (size_t i = 0; i < ARRAY_LENGTH(nonsense); i++)
        assert_int_equal(ASK(f, "PUT", "/v1/vms/a", BOOT, .if_match = nonsense[i]), 412);
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a", BOOT, .if_match = "\"1\", \"2\""), 400);
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a", BOOT, .if_none_match = "\"1\""), 400);
    assert_int_equal(ASK(f, "PATCH", "/v1/vms/a", "{\"labels\":{}}", .if_match = "\"1\""), 200);
    assert_string_equal(f->etag, "\"2.00000000\"");
    assert_int_equal(ASK(f, "PATCH", "/v1/vms/a", "{}", .if_match = "\"1\""), 412);
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/start", .if_match = "\"1\""), 412);
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/fork", "{\"ids\":[\"b\"]}", .if_match = "\"1\""),
                     412);
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/fork", "{\"ids\":[\"b\"]}", .if_match = "\"2\""),
                     202);
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/fork", "{\"ids\":[\"b\"]}", .if_none_match = "*"),
                     400);
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/snapshot", "{\"id\":\"s\"}", .if_match = "\"1\""),
                     412);
    assert_int_equal(
        ASK(f, "POST", "/v1/vms/a/snapshot", "{\"id\":\"s\"}", .if_match = "\"2.00000000\""), 202);
    assert_int_equal(ASK(f, "POST", "/v1/vms/b/snapshot", "{\"id\":\"s\"}", .if_none_match = "*"),
                     412);
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/console/input", "x", .content_type = "text/plain",
                         .if_match = "\"1\""),
                     412);
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/console/input", "x", .content_type = "text/plain",
                         .if_match = "\"2\""),
                     204);
    assert_int_equal(ASK(f, "DELETE", "/v1/vms/a", .if_match = "\"1\""), 412);
    assert_int_equal(ASK(f, "DELETE", "/v1/vms/a", .if_none_match = "*"), 400);
}

static void delete_ends_in_deleted(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(ASK(f, "DELETE", "/v1/vms/a"), 404);
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a", "{\"busy\":true}"), 201);
    assert_int_equal(ASK(f, "DELETE", "/v1/vms/a"), 409);
    assert_string_equal(member(f, "type"), "urn:warren:problem:busy");
    assert_int_equal(ASK(f, "DELETE", "/v1/vms/a?force=yes"), 400);
    assert_int_equal(ASK(f, "DELETE", "/v1/vms/a?force=true"), 200);
    assert_true(json_is_true(json_object_get(f->body, "deleted")));
    assert_string_equal(member(f, "id"), "a");
    assert_string_equal(member(f, "uid"), "00000000-0000-4000-8000-000000000001");
}

static void actions_answer_202_or_wait(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(ASK(f, "POST", "/v1/vms/a/start"), 404);
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a", "{}"), 201);
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/start"), 202);
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/start?wait=5"), 200);
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/reboot?wait=5"), 200);
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/stop?wait=0"), 202); /* not reached in time */
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/kill"), 202);
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/kill?wait=601"), 400);
    assert_int_equal(ASK(f, "POST", "/v1/vms/a/kill?wait=-1"), 400);
}

static void disks_and_nics_are_parts_of_a_vm(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(ASK(f, "PUT", "/v1/vms/a/disks/new", "{}"), 404);
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a", "{}"), 201);
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a/disks/there", "{\"volume\":\"v\"}"), 200);
    assert_string_equal(f->node->part, "put disk there");
    assert_string_equal(member(f, "id"), "a");
    assert_string_equal(f->etag, "\"1.00000000\"");
    assert_string_equal(f->location, "");
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a/nics/new?wait=5", "{}"), 201);
    assert_string_equal(f->node->part, "put nic new");
    assert_string_equal(f->location, "");
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a/nics/new", "{}"), 202);
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a/disks/other", "{}"), 409);
    assert_string_equal(member(f, "field"), "volume");
    assert_int_equal(ASK(f, "DELETE", "/v1/vms/a/nics/there"),
                     202); /* of a VM that is not settled */
    assert_string_equal(f->node->part, "delete nic there");
    assert_int_equal(ASK(f, "DELETE", "/v1/vms/a/disks/going?wait=5"), 200);
    assert_int_equal(ASK(f, "PATCH", "/v1/vms/a/nics/there", "{}"), 200);
    assert_string_equal(f->node->part, "patch nic there");
    assert_int_equal(ASK(f, "PATCH", "/v1/vms/a/disks/absent", "{}"), 404);
    assert_int_equal(ASK(f, "DELETE", "/v1/vms/a/disks/absent"), 404);
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a/disks/there", "{}", .if_match = "\"9\""), 412);
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a/disks/there", "{}", .if_none_match = "*"), 400);
}

static void names_in_paths_are_ids(void **state)
{
    char endless[ID_MAX + 2] = "";
    const char *const bad[] = { "A", "-a", "a_b", "a.b", endless };
    struct fixture *f = *state;

    memset(endless, 'a', sizeof(endless) - 1);
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a", "{}"), 201);
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        char path[128];

        snprintf(path, sizeof(path), "/v1/vms/a/disks/%s", bad[i]);
        assert_int_equal(ASK(f, "PUT", path, "{}"), 400);
        assert_string_equal(member(f, "field"), "name");
        assert_int_equal(ASK(f, "DELETE", path), 400);
    }
    assert_string_equal(f->node->part, "");
    assert_int_equal(ASK(f, "PUT", "/v1/vms/A/disks/a", "{}"), 400);
    assert_string_equal(member(f, "field"), "id");
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a/disks/7", "{}"), 200); /* no number */
    assert_string_equal(f->node->part, "put disk 7");
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a/disks/", "{}"), 404);
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a/disks/a/b", "{}"), 404);
    assert_int_equal(ASK(f, "GET", "/v1/vms/a/disks/a"), 405);
    assert_string_equal(f->allow, "PUT, PATCH, DELETE");
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a/disks/a"), 415);
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a/disks/a", "[]"), 400);
    assert_int_equal(ASK(f, "DELETE", "/v1/vms/a/disks/a", "{}"), 400);
    assert_int_equal(ASK(f, "DELETE", "/v1/vms/a/disks/a?force=true"), 400);
}

static void waiting_tells_what_was_reached(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(ASK(f, "GET", "/v1/vms/a/wait?for=deleted"), 200);
    assert_true(json_is_true(json_object_get(f->body, "reached")));
    assert_true(json_is_null(json_object_get(f->body, "vm")));
    assert_int_equal(ASK(f, "GET", "/v1/vms/a/wait?for=running"), 200);
    assert_true(json_is_false(json_object_get(f->body, "reached")));
    assert_int_equal(ASK(f, "PUT", "/v1/vms/a", "{}"), 201);
    assert_int_equal(ASK(f, "GET", "/v1/vms/a/wait?for=running&generation=1&timeout=5"), 200);
    assert_true(json_is_true(json_object_get(f->body, "reached")));
    assert_string_equal(json_string_value(json_object_get(json_object_get(f->body, "vm"), "id")),
                        "a");
    assert_int_equal(ASK(f, "GET", "/v1/vms/a/wait?for=stopped&timeout=0"), 200);
    assert_true(json_is_false(json_object_get(f->body, "reached")));
    assert_int_equal(ASK(f, "GET", "/v1/vms/a/wait?for=happiness"), 400);
    assert_string_equal(member(f, "field"), "for");
    assert_int_equal(ASK(f, "GET", "/v1/vms/a/wait"), 400);
    assert_int_equal(ASK(f, "GET", "/v1/vms/a/wait?for=running&generation=0"), 400);
}

static void a_client_that_leaves_ends_its_wait(void **state)
{
    struct fixture *f = *state;
    struct request *request;

    assert_int_equal(ASK(f, "PUT", "/v1/vms/a", "{}"), 201);
    request = ask_without_waiting(
        f, (struct asked){ .method = "GET", .target = "/v1/vms/a/wait?for=deleted" });
    assert_int_equal(f->node->outstanding, 1);
    request_abandon(request);
    assert_int_equal(f->node->outstanding, 0);
}

static void lists_come_in_pages(void **state)
{
    struct fixture *f = *state;
    json_t *items;

    assert_int_equal(ASK(f, "GET", "/v1/vms"), 200);
    assert_int_equal(json_array_size(json_object_get(f->body, "items")), 0);
    assert_true(json_is_null(json_object_get(f->body, "next")));
    for (int i = 5; i > 0; i--) {
        char target[32];

        snprintf(target, sizeof(target), "/v1/vms/v%d", i);
        assert_int_equal(ASK(f, "PUT", target, "{}"), 201);
    }
    assert_int_equal(ASK(f, "GET", "/v1/vms?limit=2"), 200);
    items = json_object_get(f->body, "items");
    assert_int_equal(json_array_size(items), 2);
    assert_string_equal(member(f, "next"), "v2");
    assert_int_equal(json_integer_value(json_object_get(f->body, "revision")), 5);
    assert_int_equal(ASK(f, "GET", "/v1/vms?limit=3&cursor=v2"), 200);
    assert_int_equal(json_array_size(json_object_get(f->body, "items")), 3);
    assert_true(json_is_null(json_object_get(f->body, "next")));
    assert_int_equal(ASK(f, "GET", "/v1/vms?limit=0"), 400);
    assert_int_equal(ASK(f, "GET", "/v1/vms?limit=1001"), 400);
    assert_int_equal(ASK(f, "GET", "/v1/vms?labels=a=b,,c"), 400);
    assert_string_equal(member(f, "field"), "labels");
    assert_int_equal(ASK(f, "GET", "/v1/vms?labels="), 400);
    assert_int_equal(ASK(f, "GET", "/v1/vms?state=asleep"), 400);
    assert_string_equal(member(f, "field"), "state");
    assert_int_equal(ASK(f, "GET", "/v1/operations?labels=a"), 400);
    assert_int_equal(ASK(f, "GET", "/v1/vms/v1", .if_none_match = "\"7\", W/\"1.00000000\""), 304);
    assert_string_equal(f->etag, "\"1.00000000\"");
    assert_int_equal(ASK(f, "GET", "/v1/vms/v1", .if_none_match = "*"), 304);
    assert_int_equal(ASK(f, "GET", "/v1/vms/v1", .if_none_match = "\"11\""), 200);
    assert_int_equal(ASK(f, "GET", "/v1/vms/v1", .if_none_match = "1"), 200);
    assert_int_equal(ASK(f, "GET", "/v1/vms/none", .if_none_match = "*"), 404);
    assert_int_equal(ASK(f, "GET", "/v1/vms?cursor=%2f"), 400);
    assert_string_equal(member(f, "field"), "cursor");
}

static void the_node_tells_about_itself(void **state)
{
    struct fixture *f = *state;
    auto_free char *metrics = NULL;
    size_t size;

    assert_int_equal(ASK(f, "GET", "/v1/node"), 200);
    assert_int_equal(ASK(f, "GET", "/openapi.yaml"), 200);
    assert_string_equal(f->content_type, "application/yaml");
    assert_int_equal(ASK(f, "GET", "/readyz"), 200);
    f->node->not_ready = true;
    assert_int_equal(ASK(f, "GET", "/readyz"), 503);
    assert_int_equal(ASK(f, "GET", "/metrics"), 200);
    api_metrics_count(f->metrics, &router_routes(&size)[0], 200, 300);
    api_metrics_count(f->metrics, NULL, 404, 1);
    metrics = api_metrics_text(f->metrics, true, &size);
    assert_non_null(
        strstr(metrics, "warren_api_requests_total{operation=\"listImages\",code=\"200\"} 1\n"));
    assert_non_null(
        strstr(metrics, "warren_api_requests_total{operation=\"none\",code=\"404\"} 1\n"));
    assert_non_null(strstr(
        metrics, "warren_api_request_seconds_bucket{operation=\"listImages\",le=\"0.00025\"} 0\n"));
    assert_non_null(strstr(
        metrics, "warren_api_request_seconds_bucket{operation=\"listImages\",le=\"0.0005\"} 1\n"));
    assert_non_null(
        strstr(metrics, "warren_api_request_seconds_sum{operation=\"listImages\"} 0.000300\n"));
}

static void a_damaged_database_is_read_of_only(void **state)
{
    static const struct {
        const char *method, *path, *body;
        int status;
    } rows[] = {
        { "GET", "/healthz", "", 200 },
        { "GET", "/readyz", "", 200 }, /* the node's to say */
        { "GET", "/openapi.yaml", "", 200 },
        { "GET", "/metrics", "", 200 }, /* the alert's */
        { "GET", "/v1/vms", "", 200 },
        { "GET", "/v1/vms/a", "", 200 },
        { "GET", "/v1/vms/none", "", 404 },
        { "GET", "/v1/none", "", 404 },
        { "GET", "/v1/volumes", "", 503 },
        { "GET", "/v1/events", "", 503 },
        { "GET", "/v1/node/backup", "", 503 },
        { "PUT", "/v1/vms/b", "{}", 503 },
        { "PATCH", "/v1/vms/a", "{}", 503 },
        { "DELETE", "/v1/vms/a", "", 503 },
        { "POST", "/v1/vms/a/stop", "", 503 },
        { "POST", "/v1/vms/a/fork", "{}", 503 },
        { "PUT", "/v1/volumes/v", "{\"size_mib\":1}", 503 },
        { "POST", "/v1/node/drain", "", 503 },
    };
    struct fixture *f = *state;

    assert_int_equal(ASK(f, "PUT", "/v1/vms/a", "{}"), 201);
    f->node->is_damaged = true;
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        if (ASK(f, rows[i].method, rows[i].path, rows[i].body) != rows[i].status)
            fail_msg("%s %s", rows[i].method, rows[i].path);
        if (rows[i].status == 503)
            assert_string_equal(member(f, "type"), "urn:warren:problem:database-damaged");
    }
    f->node->is_damaged = false;
    assert_int_equal(ASK(f, "PUT", "/v1/vms/b", "{}"), 201);
}

/* Who hears that a VM is gone may make another. */
static void want_of_memory_is_no_absence(void **state)
{
    static const struct {
        const char *method, *target, *body;
    } asks[] = {
        { "GET", "/v1/vms/a", NULL },
        { "GET", "/v1/vms/a/wait?for=deleted&timeout=0", NULL },
        { "PATCH", "/v1/vms/a", "{\"labels\":{}}" },
        { "POST", "/v1/vms/a/start", NULL },
        { "POST", "/v1/vms/a/fork", "{\"ids\":[\"b\"]}" },
    };
    struct fixture *f = *state;

    assert_int_equal(ASK(f, "PUT", "/v1/vms/a", "{}"), 201);
    f->node->is_short = true;
    for (size_t i = 0; i < ARRAY_LENGTH(asks); i++)
        if (ASK(f, asks[i].method, asks[i].target, asks[i].body) != 503)
            fail_msg("%s %s", asks[i].method, asks[i].target);
    f->node->is_short = false;
    assert_int_equal(ASK(f, "GET", "/v1/vms/a"), 200);
}

/* Somebody else has deleted it before who changed it was answered: then that is no VM. */
static void what_is_gone_by_the_answer_is_not_found(void **state)
{
    static const struct {
        const char *method, *target, *body;
    } asks[] = {
        { "PUT", "/v1/vms/a?wait=5", "{}" },
        { "PATCH", "/v1/vms/a?wait=5", "{}" },
        { "POST", "/v1/vms/a/start?wait=5", NULL },
        { "PUT", "/v1/vms/a/disks/there?wait=5", "{}" },
        { "DELETE", "/v1/vms/a/disks/there?wait=5", NULL },
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_LENGTH(asks); i++) {
        struct fake_resource *vm;

        assert_int_equal(ASK(f, "PUT", "/v1/vms/a", "{}"), 201);
        f->replies = 0;
        ask_without_waiting(f, (struct asked){ .method = asks[i].method,
                                               .target = asks[i].target,
                                               .body = asks[i].body });
        vm = fake_find(f->node, RESOURCE_VM, "a");
        json_decref(vm->spec);
        memset(vm, 0, sizeof(*vm));
        for (int turns = 0; f->replies == 0 && turns < 1000; turns++)
            assert_int_equal(loop_turn(f->loop, 100, NULL), 0);
        if (f->status != 404)
            fail_msg("%s %s: %d", asks[i].method, asks[i].target, f->status);
        assert_string_equal(member(f, "type"), "urn:warren:problem:not-found");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(what_is_gone_by_the_answer_is_not_found),
        CASE(want_of_memory_is_no_absence),
        cmocka_unit_test(every_operation_is_a_route_and_the_reverse),
        cmocka_unit_test(every_problem_is_in_the_contract),
        cmocka_unit_test(an_internal_error_is_not_shown),
        cmocka_unit_test(half_a_character_does_not_spoil_a_problem),
        CASE(what_has_no_route_is_refused),
        CASE(put_creates_confirms_and_refuses),
        CASE(console_input_is_checked),
        CASE(a_guests_port_is_connected_to),
        CASE(errors_have_their_statuses),
        CASE(bodies_are_json_objects_of_the_right_type),
        CASE(conditions_hold_or_412),
        CASE(delete_ends_in_deleted),
        CASE(actions_answer_202_or_wait),
        CASE(disks_and_nics_are_parts_of_a_vm),
        CASE(names_in_paths_are_ids),
        CASE(waiting_tells_what_was_reached),
        CASE(a_client_that_leaves_ends_its_wait),
        CASE(lists_come_in_pages),
        CASE(the_node_tells_about_itself),
        CASE(a_damaged_database_is_read_of_only),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
