/* test_json.c - hostile JSON, and readers that name the field to blame. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"
#include "tests/unit/short_memory.h"

static int parse(const char *text, json_t **ret_json)
{
    struct error err = { 0 };
    int result = json_parse(text, strlen(text), ret_json, &err);

    if (result < 0)
        assert_true(err.message[0] != '\0');
    return result;
}

static void what_is_no_json_is_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "{",
        "{\"a\":1,}",
        "{\"a\":1}x",
        "{\"a\":1,\"a\":2}",
        "{'a':1}",
        "nul",
        "{\"a\":01}",
        "{\"a\":NaN}",
        "{\"a\":\"\xff\"}",
        "{\"a\":\"\\ud800\"}",
        "\xef\xbb\xbf{}",
        "{\"a\":\"\\u0000\"}",
        "]]]]",
        "{\"a\":99999999999999999999}",
        "{\"b\":{\"a\":1,\"a\":1}}",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        json_t *json = NULL;

        if (parse(bad[i], &json) != -EINVAL || json)
            fail_msg("taken: %s", bad[i]);
    }
}

static void nesting_is_bounded(void **state)
{
    char text[5000] = "";
    json_t *json = NULL;

    (void)state;
    memset(text, '[', JSON_DEPTH_MAX);
    memset(text + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
    assert_int_equal(parse(text, &json), 0);
    json_decref(json);
    json = NULL;
    memset(text, '[', JSON_DEPTH_MAX + 1);
    memset(text + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
    assert_int_equal(parse(text, &json), -EINVAL);
    memset(text, '[', 4000);
    text[4000] = '\0';
    assert_int_equal(parse(text, &json), -EINVAL);
    /* Brackets in strings, behind escaped quotes, do not count. */
    assert_int_equal(parse("{\"a\":\"\\\"[[[[[[[[[[[[[[[[[[[[[[\\\\\"}", &json), 0);
    json_decref(json);
}

/* A string ends where it ends, and what is beside it nests no deeper. */
static void what_is_behind_a_string_is_counted(void **state)
{
    static const char *const begins[] = { "[\"a\",", "[\"\\\"\",", "[\"\\\\\",", "[\"[\",{}," };
    char text[64 + 4 * JSON_DEPTH_MAX];

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(begins); i++)
        for (int more = 0; more < 2; more++) {
            size_t begin = strlen(begins[i]), depth = JSON_DEPTH_MAX - 1u + (unsigned)more;
            json_t *json = NULL;

            memcpy(text, begins[i], begin);
            memset(text + begin, '[', depth);
            memset(text + begin + depth, ']', depth + 1);
            text[begin + 2 * depth + 1] = '\0';
            assert_int_equal(parse(text, &json), more ? -EINVAL : 0);
            json_decref(json);
        }
}

static void width_is_bounded(void **state)
{
    auto_free char *text = malloc(2 * JSON_VALUES_MAX + 8);
    size_t used = 1;
    json_t *json = NULL;

    (void)state;
    text[0] = '[';
    for (int i = 2; i < JSON_VALUES_MAX; i++) {
        text[used++] = '1';
        text[used++] = ',';
    }
    memcpy(text + used, "1]", 3); /* the array is a value, too */
    assert_int_equal(parse(text, &json), 0);
    json_decref(json);
    memcpy(text + used, "1,1]", 5);
    assert_int_equal(parse(text, &json), -EINVAL);
    memset(text + 1, ',', 2 * JSON_VALUES_MAX);
    memcpy(text, "[\"", 2);
    memcpy(text + 2 * JSON_VALUES_MAX, "\"]", 3); /* in a string they are none */
    assert_int_equal(parse(text, &json), 0);
    json_decref(json);
}

static void nul_bytes_end_nothing(void **state)
{
    json_t *json = NULL;

    (void)state;
    assert_int_equal(json_parse("{}\0{}", 5, &json, NULL), -EINVAL);
}

static void canonical_text_is_sorted_and_compact(void **state)
{
    json_t *json = NULL;
    char *text;

    (void)state;
    assert_int_equal(parse("{ \"b\": 1, \"a\": { \"d\": [1, 2], \"c\": null } }", &json), 0);
    text = json_canonical(json);
    assert_string_equal(text, "{\"a\":{\"c\":null,\"d\":[1,2]},\"b\":1}");
    free(text);
    json_decref(json);
}

typedef char *print_fn(const json_t *json);

static void text_is_whole_or_is_not(void **state)
{
    static print_fn *const makers[] = { json_canonical, json_compact };
    json_t *json = json_object();

    (void)state;
    for (int i = 0; i < 40; i++) {
        char key[16];

        snprintf(key, sizeof key, "key-%d", i);
        json_object_set_new(json, key, json_pack("{s:s, s:i}", "name", key, "number", i));
    }
    for (size_t i = 0; i < ARRAY_LENGTH(makers); i++) {
        char *whole = makers[i](json), *text;
        bool fell_short;

        json_set_alloc_funcs(short_malloc, free);
        for (unsigned round = 1; round == 1 || fell_short; round++) {
            until_short = round;
            text = makers[i](json);
            fell_short = until_short == 0;
            until_short = 0;
            if (text)
                assert_string_equal(text, whole);
            free(text);
        }
        json_set_alloc_funcs(malloc, free);
        free(whole);
    }
    json_decref(json);
    assert_null(json_compact(NULL));
}

/* --- readers --- */

struct read {
    json_t *json;
    struct error err;
    struct json_reader reader;
};

static void start(struct read *read, const char *text, const char *path)
{
    *read = (struct read){ 0 };
    assert_int_equal(parse(text, &read->json), 0);
    json_reader_init(&read->reader, read->json, path, &read->err);
}

static void finish(struct read *read, int result, const char *field)
{
    assert_int_equal(json_reader_end(&read->reader), result);
    assert_string_equal(read->err.field, field);
    json_decref(read->json);
}

static void integers_have_bounds(void **state)
{
    static const char *const bad[] = { "{\"n\":0}",    "{\"n\":9}",
                                       "{\"n\":1.5}",  "{\"n\":\"1\"}",
                                       "{\"n\":true}", "{\"n\":null}",
                                       "{}",           "{\"n\":-9223372036854775808}" };
    struct read read;

    (void)state;
    start(&read, "{\"n\":1}", "spec");
    assert_int_equal(json_read_integer(&read.reader, "n", 1, 8, JSON_REQUIRED, 0), 1);
    finish(&read, 0, "");
    start(&read, "{\"n\":8}", "spec");
    assert_int_equal(json_read_integer(&read.reader, "n", 1, 8, JSON_REQUIRED, 0), 8);
    assert_int_equal(json_read_integer(&read.reader, "absent", 1, 8, JSON_OPTIONAL, 5), 5);
    finish(&read, 0, "");
    start(&read, "{\"n\":4.0,\"exponent\":4e0,\"most\":9007199254740991.0}", "spec");
    assert_int_equal(json_read_integer(&read.reader, "n", 1, 8, JSON_REQUIRED, 0), 4);
    assert_int_equal(json_read_integer(&read.reader, "exponent", 1, 8, JSON_REQUIRED, 0), 4);
    assert_int_equal(json_read_integer(&read.reader, "most", 1, INT64_MAX, JSON_REQUIRED, 0),
                     9007199254740991);
    finish(&read, 0, "");
    start(&read, "{\"n\":9007199254740992.0}", "spec");
    assert_int_equal(json_read_integer(&read.reader, "n", 1, INT64_MAX, JSON_REQUIRED, 3), 3);
    finish(&read, -EINVAL, "spec.n");
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        start(&read, bad[i], "spec");
        assert_int_equal(json_read_integer(&read.reader, "n", 1, 8, JSON_REQUIRED, 3), 3);
        finish(&read, -EINVAL, "spec.n");
    }
}

static void strings_and_ids_have_bounds(void **state)
{
    static const char *const bad[] = { "{\"s\":\"\"}", "{\"s\":\"A\"}", "{\"s\":\"..\"}",
                                       "{\"s\":7}", "{\"s\":[]}" };
    struct read read;

    (void)state;
    start(&read, "{\"s\":\"abcd\",\"i\":\"web-1\"}", "");
    assert_string_equal(json_read_string(&read.reader, "s", 4, JSON_REQUIRED, NULL), "abcd");
    assert_string_equal(json_read_id(&read.reader, "i", JSON_REQUIRED), "web-1");
    finish(&read, 0, "");
    start(&read, "{\"s\":\"abcde\"}", "");
    assert_null(json_read_string(&read.reader, "s", 4, JSON_REQUIRED, NULL));
    finish(&read, -EINVAL, "s");
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        start(&read, bad[i], "");
        assert_null(json_read_id(&read.reader, "s", JSON_REQUIRED));
        finish(&read, -EINVAL, "s");
    }
}

static void booleans_and_enums(void **state)
{
    static const char *const names[] = { "never", "always" };
    struct read read;

    (void)state;
    start(&read, "{\"b\":true,\"e\":\"always\"}", "");
    assert_true(json_read_bool(&read.reader, "b", false));
    assert_true(json_read_bool(&read.reader, "absent", true));
    assert_int_equal(json_read_enum(&read.reader, "e", names, 2, JSON_REQUIRED, 0), 1);
    assert_int_equal(json_read_enum(&read.reader, "absent2", names, 2, JSON_OPTIONAL, 1), 1);
    finish(&read, 0, "");
    start(&read, "{\"e\":null}", "");
    assert_int_equal(json_read_enum(&read.reader, "e", names, 2, JSON_NULLABLE, -1), -1);
    assert_int_equal(json_read_enum(&read.reader, "absent", names, 2, JSON_NULLABLE, -1), -1);
    finish(&read, 0, "");
    start(&read, "{\"e\":null}", "");
    json_read_enum(&read.reader, "e", names, 2, JSON_OPTIONAL, -1);
    finish(&read, -EINVAL, "e");
    start(&read, "{\"b\":1}", "");
    assert_false(json_read_bool(&read.reader, "b", false));
    finish(&read, -EINVAL, "b");
    start(&read, "{\"e\":\"Always\"}", "");
    json_read_enum(&read.reader, "e", names, 2, JSON_REQUIRED, 0);
    assert_non_null(strstr(read.err.message, "\"never\", \"always\""));
    finish(&read, -EINVAL, "e");
}

static void arrays_and_objects(void **state)
{
    struct read read;

    (void)state;
    start(&read, "{\"a\":[1,2],\"o\":{}}", "");
    assert_int_equal(json_array_size(json_read_array(&read.reader, "a", 2, JSON_REQUIRED)), 2);
    assert_non_null(json_read_object(&read.reader, "o", JSON_REQUIRED));
    assert_null(json_read_array(&read.reader, "b", 2, JSON_OPTIONAL));
    finish(&read, 0, "");
    start(&read, "{\"a\":[1,2,3]}", "");
    assert_null(json_read_array(&read.reader, "a", 2, JSON_REQUIRED));
    finish(&read, -EINVAL, "a");
    start(&read, "{\"a\":{}}", "");
    assert_null(json_read_array(&read.reader, "a", 2, JSON_REQUIRED));
    finish(&read, -EINVAL, "a");
    start(&read, "{\"o\":[]}", "spec");
    assert_null(json_read_object(&read.reader, "o", JSON_REQUIRED));
    finish(&read, -EINVAL, "spec.o");
}

static void unknown_fields_are_refused_and_the_first_error_stays(void **state)
{
    struct read read;

    (void)state;
    start(&read, "{\"known\":true,\"unknown\":1}", "spec.disks[0]");
    json_read_bool(&read.reader, "known", false);
    finish(&read, -EINVAL, "spec.disks[0].unknown");
    start(&read, "{\"a\":\"x\",\"b\":\"y\",\"unknown\":1}", "");
    json_read_integer(&read.reader, "a", 0, 1, JSON_REQUIRED, 0);
    json_read_integer(&read.reader, "b", 0, 1, JSON_REQUIRED, 0);
    finish(&read, -EINVAL, "a");
    start(&read, "[1]", "spec");
    assert_false(json_read_bool(&read.reader, "x", false));
    finish(&read, -EINVAL, "spec");
    start(&read, "{}", "spec");
    json_reader_fail(&read.reader, "x", "is %d", 1);
    json_reader_fail(&read.reader, "y", "is %d", 2);
    assert_string_equal(read.err.message, "spec.x: is 1");
    finish(&read, -EINVAL, "spec.x");
}

static void what_is_not_there_reads_as_nothing(void **state)
{
    static const char *const names[] = { NULL, "one", "two" };
    json_t *object = json_pack("{s:s, s:i}", "name", "two", "number", 1);

    (void)state;
    assert_string_equal(json_text(object, "name"), "two");
    assert_string_equal(json_text(object, "number"), "");
    assert_string_equal(json_text(NULL, "name"), "");
    assert_int_equal(json_index(object, "name", names, 3), 2);
    assert_int_equal(json_index(object, "name", names, 2), -1);
    assert_int_equal(json_index(object, "absent", names, 3), -1);
    json_decref(object);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_no_json_is_refused),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(what_is_behind_a_string_is_counted),
        cmocka_unit_test(width_is_bounded),
        cmocka_unit_test(nul_bytes_end_nothing),
        cmocka_unit_test(canonical_text_is_sorted_and_compact),
        cmocka_unit_test(text_is_whole_or_is_not),
        cmocka_unit_test(integers_have_bounds),
        cmocka_unit_test(strings_and_ids_have_bounds),
        cmocka_unit_test(booleans_and_enums),
        cmocka_unit_test(arrays_and_objects),
        cmocka_unit_test(unknown_fields_are_refused_and_the_first_error_stays),
        cmocka_unit_test(what_is_not_there_reads_as_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
