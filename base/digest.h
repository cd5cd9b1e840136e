/* digest.h - SHA-256 of what is in memory, as text.  Pure; any thread.
 *
 * Nettle computes: the smallest library for it, and one that every node has already (dnsmasq needs
 * it). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define DIGEST_BYTES 32
#define DIGEST_TEXT  65 /* hexadecimal digits and a NUL */

void digest_of(const void *bytes, size_t size, char ret_text[DIGEST_TEXT]);
/* Here, so that who has the sum from elsewhere needs no Nettle. */
static inline void digest_text(const uint8_t digest[DIGEST_BYTES], char ret_text[DIGEST_TEXT])
{
    for (size_t i = 0; i < DIGEST_BYTES; i++)
        snprintf(ret_text + 2 * i, 3, "%02x", digest[i]);
}
/* In the same time wherever they differ. */
bool digest_equal(const char a[DIGEST_TEXT], const char b[DIGEST_TEXT]);
