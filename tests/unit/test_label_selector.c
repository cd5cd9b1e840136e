/* test_label_selector.c - what matches which labels, and what is no selector. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "agent/label_selector.h"
#include "base/cleanup.h"
#include "base/error.h"

static bool matches(const char *text, const char *labels_text)
{
    json_t *labels = labels_text ? json_loads(labels_text, 0, NULL) : NULL;
    struct label_selector selector, copy;
    struct error err;
    bool result;

    if (label_selector_parse(text, &selector, &err) < 0)
        fail_msg("%s: %s", text, err.message);
    copy = selector;
    memset(&selector, 0, sizeof(selector));
    result = label_selector_matches(&copy, labels);
    json_decref(labels);
    return result;
}

static void all_requirements_must_hold(void **state)
{
    static const char labels[] = "{\"env\":\"prod\",\"team\":\"a\",\"empty\":\"\"}";
    static const char *const yes[] = {
        "env=prod", "env=prod,team=a", "env!=test",           "absent!=x",       "env",   "!absent",
        "empty=",   "empty",           "env,!absent,team!=b", "env=prod,env!=x", "team!="
    };
    static const char *const no[] = { "env=test", "env=prod,team=b", "env!=prod", "absent",
                                      "!env",     "absent=",         "empty!=",   "env=prod,!team",
                                      "env=pro",  "env=prod=" };

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(yes); i++)
        if (!matches(yes[i], labels))
            fail_msg("%s does not match", yes[i]);
    for (size_t i = 0; i < ARRAY_LENGTH(no); i++)
        if (matches(no[i], labels))
            fail_msg("%s matches", no[i]);
    assert_true(matches("env!=prod", NULL));
    assert_false(matches("env=prod", NULL));
}

static void nonsense_is_refused(void **state)
{
    static const char *const bad[] = { "",  ",",   "a=b,", ",a=b", "=b",
                                       "!", "!=b", "a!b",  "!!a",  "!a=b" };
    char long_key[LABEL_SELECTOR_MAX + 2], many[LABEL_REQUIREMENT_MAX * 2 + 4] = "";
    struct label_selector selector;
    struct error err;

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++)
        if (label_selector_parse(bad[i], &selector, &err) != -EINVAL)
            fail_msg("%s is taken", bad[i]);
    memset(long_key, 'k', sizeof(long_key));
    long_key[sizeof(long_key) - 1] = '\0';
    assert_int_equal(label_selector_parse(long_key, &selector, &err), -EINVAL);
    long_key[64] = '\0';
    assert_int_equal(label_selector_parse(long_key, &selector, &err), -EINVAL);
    long_key[63] = '\0';
    assert_int_equal(label_selector_parse(long_key, &selector, &err), 0);
    memset(long_key, 'v', 300);
    memcpy(long_key, "k=", 2);
    long_key[2 + 256] = '\0';
    assert_int_equal(label_selector_parse(long_key, &selector, &err), -EINVAL);
    long_key[2 + 255] = '\0';
    assert_int_equal(label_selector_parse(long_key, &selector, &err), 0);
    memset(long_key, 'v', sizeof(long_key));
    for (int i = 0; i < LABEL_SELECTOR_MAX; i += 128)
        memcpy(long_key + i, i ? ",k=" : "kk=", 3);
    long_key[LABEL_SELECTOR_MAX + 1] = '\0'; /* of short parts */
    assert_int_equal(label_selector_parse(long_key, &selector, &err), -EINVAL);
    long_key[LABEL_SELECTOR_MAX] = '\0';
    assert_int_equal(label_selector_parse(long_key, &selector, &err), 0);
    for (int i = 0; i < LABEL_REQUIREMENT_MAX; i++)
        strcat(many, i ? ",a" : "a");
    assert_int_equal(label_selector_parse(many, &selector, &err), 0);
    strcat(many, ",a");
    assert_int_equal(label_selector_parse(many, &selector, &err), -EINVAL);
}

/* A token's limits that changed end what is open under them. */
static void equal_are_those_of_the_same_text(void **state)
{
    static const char *const texts[] = { "a=b",   "a,b",   "a!=b",  "a==b", "a",  "!a",
                                         "a=b,c", "a,b=c", "a,b,c", "a=c",  "b=b" };

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++)
        for (size_t j = 0; j < ARRAY_LENGTH(texts); j++) {
            struct label_selector a, b;

            assert_int_equal(label_selector_parse(texts[i], &a, NULL), 0);
            assert_int_equal(label_selector_parse(texts[j], &b, NULL), 0);
            if (label_selector_equal(&a, &b) != (i == j))
                fail_msg("%s and %s", texts[i], texts[j]);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_requirements_must_hold),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(equal_are_those_of_the_same_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
