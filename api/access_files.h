/* access_files.h - the tokens, and the certificate with its key, read from their files.  Each of
 * both as a whole or not at all, and neither waits for the other: who takes a token's line out
 * wants it to count whatever is wrong with a key.  Any thread; may wait. */
#pragma once
#include <stddef.h>
#include "api/tokens.h"

struct error;

struct access_paths {
    const char *tokens, *certificate, *key; /* borrowed */
    const char *client_ca;                  /* "" = no certificates of clients */
};

struct access_tls {
    char *bytes; /* owned; the body of a WIRE_TLS message */
    size_t size;
};

/* Tokens and key must be ours and nobody else's to read or write.  -errno, -EINVAL, naming the
 * file.  No file of tokens is one that has none. */
int access_tokens_read(const struct access_paths *paths, struct tokens *ret_tokens,
                       struct error *err);
int access_tls_read(const struct access_paths *paths, struct access_tls *ret_tls,
                    struct error *err);
void access_tls_clear(struct access_tls *tls);
