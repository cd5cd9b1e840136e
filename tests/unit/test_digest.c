/* test_digest.c - SHA-256 by its published values, and that every digit counts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/digest.h"

/* FIPS 180-2, appendix B.1; and of nothing. */
static void digests_are_sha256(void **state)
{
    char text[DIGEST_TEXT];

    (void)state;
    digest_of("abc", 3, text);
    assert_string_equal(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    digest_of("", 0, text);
    assert_string_equal(text, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

static void every_digit_counts(void **state)
{
    char good[DIGEST_TEXT], bad[DIGEST_TEXT];

    (void)state;
    digest_of("abc", 3, good);
    digest_of("abc", 3, bad);
    assert_true(digest_equal(good, bad));
    for (int i = 0; i < DIGEST_TEXT - 1; i++) {
        bad[i] ^= 1;
        assert_false(digest_equal(good, bad));
        bad[i] ^= 1;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests_are_sha256),
        cmocka_unit_test(every_digit_counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
