/* test_resource_json.c - specs and statuses of all kinds, as they are shown and stored: whole, or
 * not at all, where memory is short. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "agent/node_internal.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"
#include "tests/unit/short_memory.h"

#define LABELS "\"labels\":{\"a\":\"b\",\"c\":\"d\"}"
#define HASH   "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static const struct row {
    enum resource_kind kind;
    const char *spec;
} rows[] = {
    { RESOURCE_IMAGE, "{\"kind\":\"disk\",\"source\":\"/x\",\"format\":\"raw\",\"sha256\":\"" HASH
                      "\"," LABELS "}" },
    { RESOURCE_VOLUME,
      "{\"size_mib\":4,\"snapshot\":\"s\",\"disk\":\"d\",\"clone\":\"delta\"," LABELS "}" },
    { RESOURCE_NETWORK, "{\"cidr\":\"10.0.0.0/24\"," LABELS "}" },
    { RESOURCE_VM,
      "{\"memory_mib\":16,\"boot\":{\"kernel\":\"k\"},\"vsock\":{},\"disks\":[{\"name\":"
      "\"d\",\"volume\":\"v\",\"rate_limit\":{}}],\"nics\":[{\"name\":\"n\",\"network\":"
      "\"net\",\"mac\":\"02:00:00:00:00:01\"}]," LABELS "}" },
    { RESOURCE_SNAPSHOT, "{\"vm\":\"v\",\"mode\":\"differential\",\"parent\":\"p\"," LABELS "}" },
    { RESOURCE_OPERATION,
      "{\"verb\":\"import\",\"target\":{\"kind\":\"image\",\"id\":\"i\",\"uid\":\"u\"}}" },
};

/* A body is not read where memory is short: that is json_parse's. */
static struct resource *parsed(const struct row *row, struct error *err)
{
    static json_t *bodies[ARRAY_LENGTH(rows)];
    struct resource *resource = NULL;
    size_t i = (size_t)(row - rows);

    if (!bodies[i])
        assert_int_equal(json_parse(row->spec, strlen(row->spec), &bodies[i], err), 0);
    if (resource_parse(row->kind, bodies[i], &resource, err) < 0)
        return NULL;
    resource->kind = row->kind;
    return resource;
}

static json_t *spec_of(const void *from)
{
    const struct row *row = from;
    struct error err = { 0 };
    struct resource *resource = parsed(row, &err);
    json_t *spec = resource ? json_incref(resource->spec) : NULL;

    if (resource)
        resource_ops_of(row->kind)->free(resource);
    else
        assert_true(err.code == EAGAIN || err.code == ENOMEM);
    return spec;
}

static void specs_are_whole(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++)
        assert_whole(spec_of, &rows[i]);
}

struct shown {
    struct node node;
    struct resource *resource;
    bool stored;
};

static json_t *status_of(const void *from)
{
    const struct shown *shown = from;

    return resource_ops_of(shown->resource->kind)
        ->status(&shown->node, shown->resource, shown->stored);
}

static json_t *resource_of(const void *from)
{
    const struct shown *shown = from;

    return resource_json(&shown->node, shown->resource);
}

static void statuses_are_whole(void **state)
{
    const struct config config = { .prefix = "test" };

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        struct shown shown = { .node.config = &config };
        struct error err = { 0 };

        if (rows[i].kind == RESOURCE_SNAPSHOT)
            continue; /* of a VM that there is not: tests/integration/snapshots */
        shown.resource = parsed(&rows[i], &err);
        assert_non_null(shown.resource);
        for (int stored = 0; stored < 2; stored++) {
            shown.stored = stored;
            assert_whole(status_of, &shown);
        }
        assert_whole(resource_of, &shown);
        resource_ops_of(rows[i].kind)->free(shown.resource);
    }
}

static void the_node_is_whole(void **state)
{
    struct node_spec spec = node_spec_default;

    (void)state;
    spec.draining = true;
    spec.memory.ratio_percent = 150;
    spec.memory.thresholds[BALANCER_SOFT].enter = 10;
    for (int stored = 0; stored < 2; stored++) {
        json_t *whole = node_spec_json(&spec, stored);

        assert_non_null(whole);
        json_set_alloc_funcs(short_malloc, free);
        for (unsigned i = 1; i < 200; i++) {
            json_t *json;

            until_short = i;
            json = node_spec_json(&spec, stored);
            assert_true(!json || json_equal(json, whole));
            json_decref(json);
        }
        until_short = 0;
        json_set_alloc_funcs(malloc, free);
        json_decref(whole);
    }
}

static void a_message_is_always_text(void **state)
{
    json_t *message = json_message("cut \xc3");

    (void)state;
    assert_string_equal(json_string_value(message), "cut ?");
    json_decref(message);
    message = json_message("\xc3\xa4");
    assert_string_equal(json_string_value(message), "\xc3\xa4");
    json_decref(message);
    assert_true(json_is_null(json_reason("")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(specs_are_whole),
        cmocka_unit_test(statuses_are_whole),
        cmocka_unit_test(the_node_is_whole),
        cmocka_unit_test(a_message_is_always_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
