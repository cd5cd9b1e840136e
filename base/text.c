/* text.c - see text.h. */
#include "base/text.h"
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#define ROOM_FIRST 4096u

/* Of fopencookie: 0 is an error. */
static ssize_t append(void *cookie, const char *bytes, size_t size)
{
    struct text *text = cookie;

    if (size >= text->room - text->size) { /* the NUL, too */
        size_t room = 2 * text->room + size;
        char *grown = realloc(text->bytes, room);

        if (!grown)
            return 0;
        text->bytes = grown;
        text->room = room;
    }
    memcpy(text->bytes + text->size, bytes, size);
    text->size += size;
    return (ssize_t)size;
}

bool text_open(struct text *text)
{
    *text = (struct text){ .bytes = malloc(ROOM_FIRST), .room = ROOM_FIRST };
    if (text->bytes)
        text->out = fopencookie(text, "w", (cookie_io_functions_t){ .write = append });
    if (!text->out) {
        free(text->bytes);
        return false;
    }
    (void)__fsetlocking(text->out, FSETLOCKING_BYCALLER); /* JSON is many small writes */
    return true;
}

char *text_close(struct text *text, size_t *ret_size)
{
    bool failed = ferror(text->out);

    if (fclose(text->out) != 0 || failed) {
        free(text->bytes);
        return NULL;
    }
    text->bytes[text->size] = '\0';
    if (ret_size)
        *ret_size = text->size;
    return text->bytes;
}
