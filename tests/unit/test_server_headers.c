/* test_server_headers.c - framing that two parsers could read differently is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "api/server_headers.h"
#include "base/cleanup.h"

struct header {
    const char *name, *value;
};

static enum server_refusal check(const struct header *list, size_t count, const char *target)
{
    struct server_headers headers = { 0 };

    for (size_t i = 0; i < count && list[i].name; i++)
        server_headers_add(&headers, list[i].name, strlen(list[i].name), list[i].value,
                           strlen(list[i].value));
    return server_headers_check(&headers, "PUT", target, "HTTP/1.1");
}

static void each_doubt_has_its_refusal(void **state)
{
    static const struct {
        enum server_refusal expected;
        struct header headers[4];
    } cases[] = {
        { SERVER_ACCEPTED, { { "Host", "x" }, { "Content-Length", "5" } } },
        { SERVER_ACCEPTED, { { "hOST", "x" }, { "X-Any", "\xc3\xa4\tb" }, { "X-Any", "" } } },
        { SERVER_BAD_REQUEST, { { "Accept", "x" } } },
        { SERVER_BAD_REQUEST, { { "Host", "x" }, { "Host", "x" } } },
        { SERVER_BAD_REQUEST,
          { { "Host", "x" }, { "Content-Length", "5" }, { "content-length", "5" } } },
        { SERVER_BAD_REQUEST, { { "Host", "x" }, { "Content-Length", "5, 5" } } },
        { SERVER_BAD_REQUEST, { { "Host", "x" }, { "Content-Length", "+5" } } },
        { SERVER_BAD_REQUEST, { { "Host", "x" }, { "Content-Length", "-5" } } },
        { SERVER_BAD_REQUEST, { { "Host", "x" }, { "Content-Length", "0x5" } } },
        { SERVER_BAD_REQUEST, { { "Host", "x" }, { "Content-Length", "" } } },
        { SERVER_BAD_REQUEST, { { "Host", "x" }, { "Content-Length", "99999999999999999999" } } },
        { SERVER_BAD_REQUEST, { { "Host", "x" }, { "Content-Length ", "5" } } },
        { SERVER_BAD_REQUEST, { { "Host", "x" }, { "", "5" } } },
        { SERVER_BAD_REQUEST, { { "Host", "x" }, { "X", "a\rb" } } },
        { SERVER_BAD_REQUEST, { { "Host", "x" }, { "If-Match", "\xff" } } },
        { SERVER_BAD_REQUEST, { { "Host", "x" }, { "If-Match", "*" }, { "If-Match", "*" } } },
        { SERVER_LENGTH_REQUIRED, { { "Host", "x" }, { "Transfer-Encoding", "chunked" } } },
        { SERVER_LENGTH_REQUIRED,
          { { "Host", "x" }, { "Content-Length", "5" }, { "Transfer-Encoding", "identity" } } },
        { SERVER_TOO_LARGE, { { "Host", "x" }, { "Content-Length", "1048577" } } },
        { SERVER_ACCEPTED, { { "Host", "x" }, { "Content-Length", "1048576" } } },
        { SERVER_MEDIA_TYPE, { { "Host", "x" }, { "Content-Encoding", "gzip" } } },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        enum server_refusal found = check(cases[i].headers, 4, "/v1/vms");

        if (found != cases[i].expected)
            fail_msg("case %zu: %d, not %d", i, found, cases[i].expected);
    }
}

/* What libmicrohttpd makes of a request's bytes, of which it tells as many headers as are given. */
static enum server_refusal check_received(const char *bytes, size_t size, size_t target,
                                          size_t version, const size_t (*places)[2], size_t count)
{
    struct server_headers headers = { 0 };

    server_headers_begin(&headers, bytes, bytes + target, strlen(bytes + target), bytes + version);
    for (size_t i = 0; i < count; i++)
        server_headers_add(&headers, bytes + places[i][0], strlen(bytes + places[i][0]),
                           bytes + places[i][1], strlen(bytes + places[i][1]));
    server_headers_end(&headers, bytes + size);
    return server_headers_check(&headers, bytes, bytes + target, bytes + version);
}

#define LINE "GET\0/a\0HTTP/1.1\0\0" /* 17 bytes; separators and ends of lines are NULs */

static void what_is_not_told_as_it_came_is_refused(void **state)
{
    static const struct {
        enum server_refusal expected;
        const char *bytes;
        size_t size, target, version, count, places[3][2];
    } cases[] = {
#define BYTES(text) text, sizeof(text) - 1
        { SERVER_ACCEPTED, BYTES(LINE "Host\0 x\0\0\0\0"), 4, 7, 1, { { 17, 23 } } },
        { SERVER_ACCEPTED,
          BYTES(LINE "Host\0x\0\0X\0 \ty \0\0Z\0\0\0\0\0"),
          4,
          7,
          3,
          { { 17, 22 }, { 25, 29 }, { 33, 35 } } },
        /* continued: "X: y", " Host", of which it makes "XHost" behind the request */
        { SERVER_BAD_REQUEST,
          BYTES(LINE "Host\0x\0\0X\0 y\0\0 Host\0\0\0\0XHost\0"),
          4,
          7,
          2,
          { { 17, 22 }, { 40, 28 } } },
        /* a NUL in a value, in the target, in the method */
        { SERVER_BAD_REQUEST, BYTES(LINE "Host\0 x\0y\0\0\0\0"), 4, 7, 1, { { 17, 23 } } },
        { SERVER_BAD_REQUEST,
          BYTES("GET\0/\0b\0HTTP/1.1\0\0Host\0x\0\0\0\0"),
          4,
          8,
          1,
          { { 18, 23 } } },
        { SERVER_BAD_REQUEST,
          BYTES("G\0T\0/a\0HTTP/1.1\0\0Host\0x\0\0\0\0"),
          4,
          7,
          1,
          { { 17, 22 } } },
        /* a value that is not all of it */
        { SERVER_BAD_REQUEST, BYTES(LINE "Host\0zx\0\0\0\0"), 4, 7, 1, { { 17, 23 } } },
        /* lines that end in LF; ":" and ": y" taken for the end of the headers */
        { SERVER_BAD_REQUEST, BYTES(LINE "Host\0x\0\0\0"), 4, 7, 1, { { 17, 22 } } },
        { SERVER_BAD_REQUEST,
          BYTES(LINE "Host\0x\0X\0y\0\0\0\0"),
          4,
          7,
          2,
          { { 17, 22 }, { 24, 26 } } },
        { SERVER_BAD_REQUEST, BYTES(LINE "Host\0x\0\0\0\0\0"), 4, 7, 1, { { 17, 22 } } },
        { SERVER_BAD_REQUEST, BYTES(LINE "Host\0x\0\0\0 y\0\0"), 4, 7, 1, { { 17, 22 } } },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        enum server_refusal found =
            check_received(cases[i].bytes, cases[i].size, cases[i].target, cases[i].version,
                           cases[i].places, cases[i].count);

        if (found != cases[i].expected)
            fail_msg("case %zu: %d, not %d", i, found, cases[i].expected);
    }
}

static void targets_are_paths(void **state)
{
    static const struct header host[] = { { "Host", "x" } };
    char *longer = malloc(5001);

    (void)state;
    memset(longer, '/', 5000);
    longer[5000] = '\0';
    assert_int_equal(check(host, 1, "/healthz?a=b"), SERVER_ACCEPTED);
    assert_int_equal(check(host, 1, "http://h/healthz"), SERVER_BAD_TARGET);
    assert_int_equal(check(host, 1, "*"), SERVER_BAD_TARGET);
    assert_int_equal(check(host, 1, ""), SERVER_BAD_TARGET);
    assert_int_equal(check(host, 1, "/a#b"), SERVER_BAD_TARGET);
    assert_int_equal(check(host, 1, "/a b"), SERVER_BAD_TARGET);
    assert_int_equal(check(host, 1, "/\x80"), SERVER_BAD_TARGET);
    assert_int_equal(check(host, 1, longer), SERVER_TARGET_TOO_LONG);
    free(longer);
}

static void many_or_long_headers_are_refused(void **state)
{
    struct server_headers headers = { 0 };
    char value[1000];

    (void)state;
    memset(value, 'v', sizeof(value));
    server_headers_add(&headers, "Host", 4, "x", 1);
    for (int i = 0; i < 16; i++)
        server_headers_add(&headers, "X", 1, value, sizeof(value));
    assert_int_equal(server_headers_check(&headers, "GET", "/", "HTTP/1.1"), SERVER_ACCEPTED);
    server_headers_add(&headers, "X", 1, value, sizeof(value));
    assert_int_equal(server_headers_check(&headers, "GET", "/", "HTTP/1.1"),
                     SERVER_HEADERS_TOO_LARGE);
    headers = (struct server_headers){ 0 };
    for (int i = 0; i <= SERVER_HEADERS_MAX; i++)
        server_headers_add(&headers, "X", 1, "", 0);
    assert_int_equal(headers.refusal, SERVER_HEADERS_TOO_LARGE);
}

static void an_upgrade_needs_both_headers(void **state)
{
    static const struct {
        const char *connection, *upgrade, *version, *expected;
    } cases[] = {
        { "Upgrade", "warren-stream", "HTTP/1.1", "warren-stream" },
        { "keep-alive, upgrade", "x", "HTTP/1.1", "x" },
        { "UPGRADE,close", "x", "HTTP/1.1", "x" },
        { "upgraded", "x", "HTTP/1.1", NULL },
        { "keep-alive", "x", "HTTP/1.1", NULL },
        { "", "x", "HTTP/1.1", NULL },
        { ", ,", "x", "HTTP/1.1", NULL },
        { NULL, "x", "HTTP/1.1", NULL },
        { "Upgrade", NULL, "HTTP/1.1", NULL },
        { "Upgrade", "x", "HTTP/1.0", NULL },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct server_headers headers = { 0 };
        const char *found;

        headers.values[HEADER_CONNECTION] = cases[i].connection;
        headers.values[HEADER_UPGRADE] = cases[i].upgrade;
        found = server_headers_upgrade(&headers, cases[i].version);
        if (!found != !cases[i].expected || (found && strcmp(found, cases[i].expected) != 0))
            fail_msg("case %zu: %s", i, found ? found : "none");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_doubt_has_its_refusal),
        cmocka_unit_test(an_upgrade_needs_both_headers),
        cmocka_unit_test(what_is_not_told_as_it_came_is_refused),
        cmocka_unit_test(targets_are_paths),
        cmocka_unit_test(many_or_long_headers_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
