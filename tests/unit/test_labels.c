/* test_labels.c - what may be a label, and how a spec gets them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "agent/labels.h"
#include "base/error.h"
#include "base/json.h"

static void nonsense_is_refused(void **state)
{
    static const struct {
        const char *key, *value;
        int size; /* of the value; -1 = as long as it is */
        int result;
    } rows[] = {
        { "env", "prod", -1, 0 },     { "a.b/c_d-E9", "", -1, 0 },
        { "a", "x=y, z!", -1, 0 },    { "a", "\xc3\xa4", -1, 0 },
        { "", "x", -1, -EINVAL },     { "a=b", "x", -1, -EINVAL },
        { "a,b", "x", -1, -EINVAL },  { "!a", "x", -1, -EINVAL },
        { "a b", "x", -1, -EINVAL },  { "\xc3\xa4", "x", -1, -EINVAL },
        { "a", "x\ny", -1, -EINVAL }, { "a", "x\x7f", -1, -EINVAL },
        { "a", "x\0y", 3, -EINVAL },  { "a", NULL, 0, -EINVAL },
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const char *value = rows[i].value;
        json_t *labels = json_object();
        struct error err = { 0 };

        json_object_set_new(
            labels, rows[i].key,
            !value ? json_integer(1)
                   : json_stringn(value, rows[i].size < 0 ? strlen(value) : (size_t)rows[i].size));
        if (labels_check(labels, NULL, &err) != rows[i].result)
            fail_msg("row %zu", i);
        assert_string_equal(err.field, rows[i].result < 0 ? "labels" : "");
        json_decref(labels);
    }
}

static void lengths_and_number_are_bounded(void **state)
{
    char key[65], value[257];
    json_t *labels = json_object();
    struct error err;

    (void)state;
    memset(key, 'k', sizeof key);
    memset(value, 'v', sizeof value);
    key[63] = value[255] = '\0';
    json_object_set_new(labels, key, json_string(value));
    assert_int_equal(labels_check(labels, NULL, &err), 0);
    value[255] = 'v';
    value[256] = '\0';
    json_object_set_new(labels, key, json_string(value));
    assert_int_equal(labels_check(labels, NULL, &err), -EINVAL);
    json_object_clear(labels);
    key[63] = 'k';
    key[64] = '\0';
    json_object_set_new(labels, key, json_string(""));
    assert_int_equal(labels_check(labels, NULL, &err), -EINVAL);
    json_object_clear(labels);
    for (int i = 0; i <= LABELS_MAX; i++) {
        assert_int_equal(labels_check(labels, NULL, &err), 0);
        snprintf(key, sizeof key, "k%d", i);
        json_object_set_new(labels, key, json_string(""));
    }
    assert_int_equal(labels_check(labels, NULL, &err), -EINVAL);
    json_decref(labels);
}

/* A version before may have allowed it, and the agent has it. */
static void what_is_as_it_was_may_stay(void **state)
{
    json_t *before = json_pack("{s:s, s:s}", "a=b", "x", "env", "1\n2");
    json_t *labels = json_deep_copy(before);
    struct error err = { 0 };
    char key[8];

    (void)state;
    assert_int_equal(labels_check(labels, before, &err), 0);
    json_object_set_new(labels, "new", json_string("y"));
    assert_int_equal(labels_check(labels, before, &err), 0);
    json_object_set_new(labels, "a=b", json_string("z"));
    assert_int_equal(labels_check(labels, before, &err), -EINVAL); /* it is another */
    json_object_del(labels, "a=b");
    assert_int_equal(labels_check(labels, before, &err), 0);
    json_object_set_new(labels, "c=d", json_string("x"));
    assert_int_equal(labels_check(labels, before, &err), -EINVAL);
    json_decref(labels);
    for (int i = 0; i <= LABELS_MAX; i++) {
        snprintf(key, sizeof key, "k%d", i);
        json_object_set_new(before, key, json_string(""));
    }
    labels = json_deep_copy(before);
    assert_int_equal(labels_check(labels, before, &err), 0); /* as many */
    json_object_del(labels, "k0");
    assert_int_equal(labels_check(labels, before, &err), 0); /* fewer than there were */
    json_object_set_new(labels, "k0", json_string(""));
    json_object_set_new(labels, "new", json_string(""));
    assert_int_equal(labels_check(labels, before, &err), -EINVAL);
    json_decref(labels);
    json_decref(before);
}

static void a_spec_has_a_copy(void **state)
{
    json_t *body = json_pack("{s:{s:s}}", "labels", "a", "b");
    json_t *bad = json_pack("{s:{s:i}}", "labels", "a", 1);
    json_t *spec = json_object();
    struct json_reader reader;
    struct error err = { 0 };

    (void)state;
    json_reader_init(&reader, body, "", &err);
    json_object_set_new(spec, "labels", labels_copy(labels_read(&reader)));
    assert_int_equal(json_reader_end(&reader), 0);
    json_decref(body);
    assert_string_equal(json_string_value(json_object_get(json_object_get(spec, "labels"), "a")),
                        "b");
    json_object_set_new(spec, "labels", labels_copy(NULL));
    assert_int_equal(json_object_size(json_object_get(spec, "labels")), 0);
    json_reader_init(&reader, bad, "", &err);
    assert_null(labels_read(&reader));
    assert_int_equal(json_reader_end(&reader), -EINVAL);
    assert_string_equal(err.field, "labels");
    json_decref(bad);
    json_decref(spec);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(lengths_and_number_are_bounded),
        cmocka_unit_test(what_is_as_it_was_may_stay),
        cmocka_unit_test(a_spec_has_a_copy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
