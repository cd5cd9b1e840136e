/* id.h - the names of resources: [a-z0-9][a-z0-9-]{0,62}. */
#pragma once
#include <stdbool.h>

#define ID_MAX 63 /* characters, without the NUL */

bool id_is_valid(const char *id);

#define UID_TEXT 37 /* bytes of a uuid in text with its NUL */

/* A random RFC 9562 version 4 uuid; never fails (getrandom without flags blocks only at early
 * boot). */
void uid_generate(char ret_uid[UID_TEXT]);
