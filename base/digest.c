/* digest.c - see digest.h. */
#include "base/digest.h"
#include <nettle/memops.h>
#include <nettle/sha2.h>

void digest_of(const void *bytes, size_t size, char ret_text[DIGEST_TEXT])
{
    struct sha256_ctx context;
    uint8_t digest[DIGEST_BYTES];

    sha256_init(&context);
    sha256_update(&context, size, bytes);
    sha256_digest(&context, sizeof digest, digest);
    digest_text(digest, ret_text);
}

bool digest_equal(const char a[DIGEST_TEXT], const char b[DIGEST_TEXT])
{
    return memeql_sec(a, b, DIGEST_TEXT) != 0;
}
