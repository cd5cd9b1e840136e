/* fuzz_tokens.c - the tokens file, as warrend reads it. */
#include "tests/fuzz/fuzz.h"
#include <string.h>
#include "api/tokens.h"
#include "base/error.h"

FUZZ_TARGET(tokens)
{
    struct tokens tokens = { 0 };
    struct error err = { 0 };

    if (tokens_parse((const char *)bytes, size, &tokens, &err) < 0) {
        FUZZ_REQUIRE(tokens.count == 0 && err.message[0]);
        return 0;
    }
    FUZZ_REQUIRE(tokens.count <= TOKENS_MAX);
    for (size_t i = 0; i < tokens.count; i++) {
        const struct token *token = &tokens.items[i];

        FUZZ_REQUIRE(token->scope > SCOPE_OPEN && token->scope < SCOPE_COUNT);
        FUZZ_REQUIRE(token->name[0] && strlen(token->name) <= TOKEN_NAME_MAX);
        FUZZ_REQUIRE(!token->limits || token->limits->count > 0);
        if (token->is_certificate)
            FUZZ_REQUIRE(tokens_find_certificate(&tokens, token->name) == token);
    }
    FUZZ_REQUIRE(!tokens_find_secret(&tokens, "nobody has this"));
    tokens_clear(&tokens);
    return 0;
}
