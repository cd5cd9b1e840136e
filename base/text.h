/* text.h - text that grows as stdio writes it.  Any thread, one at a time.
 *
 * Not open_memstream: where memory was short its text has a gap, of which neither ferror nor fclose
 * tells (glibc). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct text {
    FILE *out; /* to be written to */
    char *bytes;
    size_t size, room;
};

/* False if memory is short; else it must be closed. */
bool text_open(struct text *text);
/* All that was written, owned, with a NUL behind it that *ret_size (NULL = not wanted) does not
 * count; NULL if memory was short for any of it. */
char *text_close(struct text *text, size_t *ret_size);
