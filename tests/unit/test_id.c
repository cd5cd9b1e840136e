/* test_id.c - names of resources, and uuids. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/id.h"

static void names_are_lower_case_digits_and_inner_dashes(void **state)
{
    static const char *const good[] = { "a", "0", "web-1", "a-", "a--b", "9z" };
    static const char *const bad[] = { "",    "-a",  "A",        "a_b",   "a.b", "a/b", "..",
                                       "a b", "a\n", "\xc3\xa4", "a\xff", "aB",  "a%" };

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(good); i++)
        assert_true(id_is_valid(good[i]));
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++)
        assert_false(id_is_valid(bad[i]));
}

static void names_have_at_most_63_characters(void **state)
{
    char id[ID_MAX + 2];

    (void)state;
    memset(id, 'a', sizeof id);
    id[ID_MAX] = '\0';
    assert_true(id_is_valid(id));
    id[ID_MAX] = 'a';
    id[ID_MAX + 1] = '\0';
    assert_false(id_is_valid(id));
}

static void uids_are_random_version_4(void **state)
{
    char seen[200][UID_TEXT];

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(seen); i++) {
        uid_generate(seen[i]);
        assert_int_equal(strlen(seen[i]), 36);
        assert_int_equal(strspn(seen[i], "0123456789abcdef-"), 36);
        assert_int_equal(seen[i][8], '-');
        assert_int_equal(seen[i][23], '-');
        assert_int_equal(seen[i][14], '4');
        assert_non_null(strchr("89ab", seen[i][19]));
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(seen[i], seen[j]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_lower_case_digits_and_inner_dashes),
        cmocka_unit_test(names_have_at_most_63_characters),
        cmocka_unit_test(uids_are_random_version_4),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
