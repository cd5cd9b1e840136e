/* test_text.c - text is whole, or is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include <string.h>
#include "base/text.h"

#define LINES 5000

/* The linker puts them in the place of malloc and realloc (Makefile). */
static unsigned until_short; /* allocations; 0 = never */
void *__real_malloc(size_t size);
void *__real_realloc(void *memory, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_realloc(void *memory, size_t size);
void *__wrap_malloc(size_t size)
{
    return until_short > 0 && --until_short == 0 ? NULL : __real_malloc(size);
}
void *__wrap_realloc(void *memory, size_t size)
{
    return until_short > 0 && --until_short == 0 ? NULL : __real_realloc(memory, size);
}

static char *print_lines(unsigned lines, size_t *ret_size)
{
    struct text text;

    if (!text_open(&text))
        return NULL;
    for (unsigned i = 0; i < lines; i++)
        fprintf(text.out, "line %u\n", i);
    return text_close(&text, ret_size);
}

static void what_was_written_is_there(void **state)
{
    size_t size = 7;
    char *text = print_lines(0, &size);

    (void)state;
    assert_string_equal(text, "");
    assert_int_equal(size, 0);
    free(text);
    text = print_lines(LINES, &size);
    assert_int_equal(strlen(text), size);
    for (unsigned i = 0, at = 0; i < LINES; i++) {
        char line[16];
        int length = snprintf(line, sizeof line, "line %u\n", i);

        assert_memory_equal(text + at, line, length);
        at += (unsigned)length;
        assert_true(at < size || i + 1 == LINES);
    }
    free(text);
}

/* There is room for its NUL, too: by a sanitizer. */
static void a_text_that_fills_its_room_ends(void **state)
{
    (void)state;
    for (size_t size = 4094; size <= 4098; size++) {
        struct text text;
        char *bytes;

        assert_true(text_open(&text));
        for (size_t i = 0; i < size; i++)
            fputc('x', text.out);
        bytes = text_close(&text, NULL);
        assert_int_equal(strlen(bytes), size);
        free(bytes);
    }
}

static void a_part_of_it_is_never_given(void **state)
{
    unsigned rounds = 0;
    bool fell_short;

    (void)state;
    do {
        char *text;

        until_short = ++rounds;
        text = print_lines(LINES, NULL);
        fell_short = until_short == 0;
        until_short = 0;
        assert_int_equal(fell_short, text == NULL);
        free(text);
    } while (fell_short);
    assert_true(rounds > 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_there),
        cmocka_unit_test(a_text_that_fills_its_room_ends),
        cmocka_unit_test(a_part_of_it_is_never_given),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
