/* id.h - the names of resources. */
#pragma once
#include <stdbool.h>

#define ID_MAX  63 /* characters, without the NUL */
#define ID_RULE "must match [a-z0-9][a-z0-9-]{0,62}"

bool id_is_valid(const char *id);

#define UID_TEXT 37 /* bytes of a uuid in text with its NUL */

/* A random RFC 9562 version 4 uuid; never fails (getrandom without flags blocks only at early
 * boot). */
void uid_generate(char ret_uid[UID_TEXT]);
