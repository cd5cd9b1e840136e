/* tokens.h - the tokens file: who may do what over TCP.  Pure; any thread.
 *
 * One line each, # begins a comment:
 *
 *   token NAME scopes=read,operate [labels=env=prod,!retired] sha256=<64 hex digits>
 *   cert  NAME scopes=metrics      [labels=...]
 *
 * A token's digest is of the whole secret.  Its secret has 256 random bits, which nobody finds by
 * trying: a slow hash protects passwords that people choose, and would only slow us down here.  Two
 * lines with one name and different digests are one token that is being replaced.  A cert is a
 * client certificate's common name. */
#pragma once
#include <stddef.h>
#include "agent/label_selector.h"
#include "base/digest.h"

struct error;

#define TOKEN_NAME_MAX  64
#define TOKENS_MAX      1024
#define TOKENS_FILE_MAX (512 * 1024) /* bytes */

/* Each may do what those before it may. */
enum scope { SCOPE_OPEN, SCOPE_METRICS, SCOPE_READ, SCOPE_OPERATE, SCOPE_ADMIN, SCOPE_COUNT };
const char *scope_name(enum scope scope);

struct token {
    char name[TOKEN_NAME_MAX + 1];
    bool is_certificate;
    enum scope scope; /* the widest of those named */
    char digest[DIGEST_TEXT];
    struct label_selector *limits; /* owned; NULL = none */
};

struct tokens {
    size_t count;
    struct token *items; /* owned */
};

/* -EINVAL with the line. */
int tokens_parse(const char *bytes, size_t size, struct tokens *ret_tokens, struct error *err);
void tokens_clear(struct tokens *tokens);

/* NULL if there is none.  Borrowed. */
const struct token *tokens_find_secret(const struct tokens *tokens, const char *secret);
const struct token *tokens_find_digest(const struct tokens *tokens, const char *digest);
const struct token *tokens_find_certificate(const struct tokens *tokens, const char *name);
