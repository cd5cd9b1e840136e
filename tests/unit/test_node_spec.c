/* test_node_spec.c - what can be set of the node, and what of the balancer follows from it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "agent/config.h"
#include "agent/node_internal.h"
#include "agent/node_spec.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "storage/database.h"

static int parse(const char *text, struct node_spec *ret_spec, struct error *err)
{
    json_t *json = NULL;
    int result;

    assert_int_equal(json_parse(text, strlen(text), &json, err), 0);
    result = node_spec_parse(json, ret_spec, err);
    json_decref(json);
    return result;
}

static void rows_of_before_mean_what_they_meant(void **state)
{
    struct node_spec spec;

    (void)state;
    assert_int_equal(parse("{\"draining\":true,\"schedulable\":false}", &spec, NULL), 0);
    assert_true(spec.cordoned && spec.draining);
    assert_int_equal(spec.memory.ratio_percent, NODE_UNSET);
    assert_int_equal(parse("{}", &spec, NULL), 0);
    assert_false(spec.cordoned || spec.draining);
}

static void what_is_set_comes_back(void **state)
{
    static const char *const texts[] = {
        "{\"memory\":{\"thresholds\":{\"hard\":{},\"low\":{},\"soft\":{}}},\"schedulable\":true}",
        "{\"draining\":true,\"memory\":{\"balancer\":\"dry-run\",\"ratio_percent\":150,"
        "\"reserve_mib\":0,\"thresholds\":{\"hard\":{\"enter_permille\":50,\"leave_permille\":60},"
        "\"low\":{\"leave_permille\":11},\"soft\":{\"enter_permille\":100,"
        "\"leave_permille\":110}}},\"schedulable\":false}",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        struct node_spec spec;
        json_t *json;
        auto_free char *text = NULL;

        assert_int_equal(parse(texts[i], &spec, NULL), 0);
        json = node_spec_json(&spec, /* stored= */ true);
        text = json_canonical(json);
        json_decref(json);
        assert_string_equal(text, texts[i]);
    }
}

static void what_is_not_set_is_shown_as_null(void **state)
{
    struct node_spec spec = node_spec_default;
    json_t *json = node_spec_json(&spec, /* stored= */ false), *memory;

    (void)state;
    memory = json_object_get(json, "memory");
    assert_true(json_is_null(json_object_get(memory, "ratio_percent")));
    assert_true(json_is_null(json_object_get(memory, "reserve_mib")));
    assert_true(json_is_null(json_object_get(memory, "balancer")));
    assert_null(json_object_get(json, "draining"));
    json_decref(json);
}

static void thresholds_are_the_balancers(void **state)
{
    struct balancer_config config;
    struct node_spec spec;

    (void)state;
    config = node_spec_balancer(&node_spec_default, &balancer_default);
    assert_memory_equal(&config, &balancer_default, sizeof config);
    assert_int_equal(
        parse("{\"memory\":{\"thresholds\":{\"soft\":{\"enter_permille\":39}}}}", &spec, NULL), 0);
    config = node_spec_balancer(&spec, &balancer_default);
    assert_int_equal(config.levels[BALANCER_SOFT].enter_permille, 39);
    config.levels[BALANCER_SOFT].enter_permille =
        balancer_default.levels[BALANCER_SOFT].enter_permille;
    assert_memory_equal(&config, &balancer_default, sizeof config);
}

/* Every order that balancer_default does not have is refused, whichever is set. */
static void levels_have_an_order(void **state)
{
    static const struct {
        const char *thresholds, *field;
    } cases[] = {
        { "\"soft\":{\"enter_permille\":40}", "memory.thresholds.soft" }, /* left there */
        { "\"soft\":{\"leave_permille\":25}", "memory.thresholds.soft" },
        { "\"soft\":{\"enter_permille\":12}", "memory.thresholds.hard" },
        { "\"hard\":{\"leave_permille\":40}", "memory.thresholds.hard" },
        { "\"hard\":{\"enter_permille\":5}", "memory.thresholds.low" },
        { "\"low\":{\"enter_permille\":10}", "memory.thresholds.low" },
        { "\"low\":{\"leave_permille\":20}", "memory.thresholds.low" },
        { "\"low\":{\"enter_permille\":0}", "memory.thresholds.low.enter_permille" },
        { "\"low\":{\"enter_permille\":1.5}", "memory.thresholds.low.enter_permille" },
        { "\"low\":{\"enter\":1}", "memory.thresholds.low.enter" },
        { "\"low\":7", "memory.thresholds.low" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct error err = { 0 };
        struct node_spec spec;
        char text[160];

        snprintf(text, sizeof text, "{\"memory\":{\"thresholds\":{%s}}}", cases[i].thresholds);
        assert_int_equal(parse(text, &spec, &err), -EINVAL);
        assert_string_equal(err.field, cases[i].field);
    }
}

/* As after an upgrade that has other defaults: the agent starts, with all but the thresholds. */
static void a_row_without_order_hinders_no_start(void **state)
{
    struct log log = { .fd = open("/dev/null", O_WRONLY | O_CLOEXEC), .name = "test" };
    struct record record = { .generation = 7 };
    struct node node = { .log = &log };
    json_t *spec = json_pack("{s:{s:i, s:{s:{s:i}}}}", "memory", "ratio_percent", 90, "thresholds",
                             "soft", "enter_permille", 400);
    json_t *status = json_pack("{s:s, s:s}", "state", "memory-low", "rung", "pause");

    (void)state;
    assert_int_equal(node_spec_restore(&node, &record, spec, status, NULL), 0);
    assert_int_equal(node.generation, 7);
    assert_int_equal(node.spec.memory.ratio_percent, 90);
    assert_int_equal(node.spec.memory.thresholds[BALANCER_SOFT].enter, NODE_UNSET);
    assert_int_equal(node.status.level, BALANCER_LOW);
    assert_int_equal(node.status.rung, BALANCER_PAUSE);
    json_object_set_new(json_object_get(spec, "memory"), "ratio_percent", json_string("many"));
    assert_int_equal(node_spec_restore(&node, &record, spec, status, NULL), -EINVAL);
    json_decref(spec);
    json_decref(status);
    close(log.fd);
}

static void how_it_stands_is_a_state(void **state)
{
    struct node_status status = { .level = BALANCER_HARD, .rung = BALANCER_THROTTLE };
    json_t *json = node_status_json(&status);

    (void)state;
    assert_string_equal(json_string_value(json_object_get(json, "state")), "memory-hard");
    assert_string_equal(json_string_value(json_object_get(json, "rung")), "throttle");
    assert_true(json_is_null(json_object_get(json, "reason")));
    json_decref(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_before_mean_what_they_meant),
        cmocka_unit_test(what_is_set_comes_back),
        cmocka_unit_test(what_is_not_set_is_shown_as_null),
        cmocka_unit_test(thresholds_are_the_balancers),
        cmocka_unit_test(levels_have_an_order),
        cmocka_unit_test(a_row_without_order_hinders_no_start),
        cmocka_unit_test(how_it_stands_is_a_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
