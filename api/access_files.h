/* access_files.h - the tokens and the certificate with its key, read from their files as a whole or
 * not at all.  Any thread; may wait. */
#pragma once
#include <stddef.h>
#include "api/tokens.h"

struct error;

struct access_paths {
    const char *tokens, *certificate, *key; /* borrowed */
    const char *client_ca;                  /* "" = no certificates of clients */
};

struct access_files {
    struct tokens tokens;
    char *tls; /* owned; the body of a WIRE_TLS message */
    size_t tls_size;
};

/* Tokens and key must be ours and nobody else's to read or write.  -errno, -EINVAL, naming the
 * file.  No file of tokens is one that has none. */
int access_files_read(const struct access_paths *paths, struct access_files *ret_files,
                      struct error *err);
void access_files_clear(struct access_files *files);
