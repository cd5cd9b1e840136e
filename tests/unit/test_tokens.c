/* test_tokens.c - the tokens file, and who is found in it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "api/tokens.h"
#include "base/cleanup.h"
#include "base/error.h"

/* sha256("secret"), sha256("other") */
#define SECRET "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
#define OTHER  "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa"

static void what_is_written_is_found(void **state)
{
    static const char text[] =
        "# comment\n"
        "\n"
        "token ci scopes=read,operate,metrics labels=env=test sha256=" SECRET "\n"
        "token ci scopes=read sha256=" OTHER "\r\n"
        "  cert\tprom.example  scopes=metrics\n"
        "cert ci scopes=read";
    struct tokens tokens = { 0 };
    const struct token *token;
    struct error err;

    (void)state;
    if (tokens_parse(text, strlen(text), &tokens, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(tokens.count, 4);
    token = tokens_find_secret(&tokens, "secret");
    assert_non_null(token);
    assert_string_equal(token->name, "ci");
    assert_int_equal(token->scope, SCOPE_OPERATE);
    assert_non_null(token->limits);
    token = tokens_find_secret(&tokens, "other");
    assert_non_null(token);
    assert_int_equal(token->scope, SCOPE_READ);
    assert_null(token->limits);
    assert_null(tokens_find_secret(&tokens, ""));
    assert_null(tokens_find_secret(&tokens, SECRET));
    assert_null(tokens_find_secret(&tokens, "secret "));
    assert_null(tokens_find_certificate(&tokens, "cd"));
    token = tokens_find_certificate(&tokens, "ci"); /* not the token of that name */
    assert_non_null(token);
    assert_true(token->is_certificate);
    token = tokens_find_certificate(&tokens, "prom.example");
    assert_non_null(token);
    assert_int_equal(token->scope, SCOPE_METRICS);
    tokens_clear(&tokens);
}

static void nonsense_is_refused_with_its_line(void **state)
{
    static const char *const bad[] = {
        "user ci scopes=read sha256=" SECRET,
        "token",
        "token ci",
        "token scopes=read sha256=" SECRET,
        "token labels=env=test scopes=read sha256=" SECRET, /* the name is missing, not a limit */
        "token ci scopes=read",
        "token ci sha256=" SECRET,
        "token ci scopes= sha256=" SECRET,
        "token ci scopes=read,,admin sha256=" SECRET,
        "token ci scopes=none sha256=" SECRET,
        "token ci scopes=root sha256=" SECRET,
        "token ci scopes=read scopes=admin sha256=" SECRET,
        "token ci scopes=read labels=a labels=b sha256=" SECRET,
        "token ci scopes=read sha256=" SECRET " sha256=" OTHER,
        "token ci scopes=read sha256=" SECRET "0",
        "token ci scopes=read sha256=XXb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf5",
        "token ci scopes=read labels= sha256=" SECRET,
        "token ci scopes=read labels=a,,b sha256=" SECRET,
        "token ci scopes=read more sha256=" SECRET,
        "token c\x01i scopes=read sha256=" SECRET,
        "token a scopes=read sha256=" SECRET "\ntoken b scopes=read sha256=" SECRET,
        "cert a scopes=read sha256=" SECRET,
        "cert a scopes=read\ncert a scopes=admin",
    };
    struct tokens tokens = { 0 };
    struct error err;

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        if (tokens_parse(bad[i], strlen(bad[i]), &tokens, &err) != -EINVAL)
            fail_msg("taken: %s", bad[i]);
        assert_ptr_equal(strstr(err.message, strchr(bad[i], '\n') ? "line 2: " : "line 1: "),
                         err.message);
        assert_null(strstr(err.message, SECRET));
        assert_null(tokens.items);
    }
    assert_int_equal(tokens_parse("#\0b", 3, &tokens, &err), -EINVAL);
}

static void there_are_limits(void **state)
{
    auto_free char *text = malloc(TOKENS_FILE_MAX + 1);
    struct tokens tokens = { 0 };
    struct error err;
    size_t used = 0;

    (void)state;
    memset(text, '\n', TOKENS_FILE_MAX + 1);
    assert_int_equal(tokens_parse(text, TOKENS_FILE_MAX + 1, &tokens, &err), -EINVAL);
    assert_int_equal(tokens_parse(text, TOKENS_FILE_MAX, &tokens, &err), 0);
    assert_int_equal(tokens.count, 0);
    used = (size_t)sprintf(text, "cert %0*d scopes=read", TOKEN_NAME_MAX, 7);
    assert_int_equal(tokens_parse(text, used, &tokens, &err), 0);
    assert_int_equal(strlen(tokens.items[0].name), TOKEN_NAME_MAX);
    tokens_clear(&tokens);
    used = (size_t)sprintf(text, "cert %0*d scopes=read", TOKEN_NAME_MAX + 1, 7);
    assert_int_equal(tokens_parse(text, used, &tokens, &err), -EINVAL);
    used = 0;
    for (int i = 0; i <= TOKENS_MAX; i++) {
        used += (size_t)sprintf(text + used, "cert c%d scopes=read\n", i);
        if (i == TOKENS_MAX - 1) {
            assert_int_equal(tokens_parse(text, used, &tokens, &err), 0);
            assert_int_equal(tokens.count, TOKENS_MAX);
            tokens_clear(&tokens);
        }
    }
    assert_int_equal(tokens_parse(text, used, &tokens, &err), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_found),
        cmocka_unit_test(nonsense_is_refused_with_its_line),
        cmocka_unit_test(there_are_limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
