/* short_memory.h - jansson without memory at one moment: what is made then is whole, or is not. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>

static _Thread_local unsigned until_short; /* allocations; 0 = never */

static void *short_malloc(size_t size)
{
    return until_short > 0 && --until_short == 0 ? NULL : malloc(size);
}

/* What make gives is all of what it gives with memory, or nothing, whichever allocation fails. */
static inline void assert_whole(json_t *make(const void *from), const void *from)
{
    json_t *whole = make(from);
    unsigned rounds = 0;
    bool fell_short;

    assert_non_null(whole);
    json_set_alloc_funcs(short_malloc, free);
    do {
        json_t *json;

        until_short = ++rounds;
        json = make(from);
        fell_short = until_short == 0;
        until_short = 0;
        assert_true(json_equal(json, whole) || (fell_short && !json));
        json_decref(json);
    } while (fell_short);
    json_set_alloc_funcs(malloc, free);
    json_decref(whole);
    assert_true(rounds > 5);
}
