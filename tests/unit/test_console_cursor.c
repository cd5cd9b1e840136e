/* test_console_cursor.c - reading a ring that goes on being written, by a writer that may lie. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include "agent/console_cursor.h"
#include "vmm/stats_page.h"

#define START 1000
#define MOST  (CONSOLE_RING_BYTES - 1)

static void it_begins_at_the_tail(void **state)
{
    struct console_cursor cursor;
    size_t offset;

    (void)state;
    console_cursor_begin(&cursor, START, 100, 30);
    assert_int_equal(cursor.next, 70);
    assert_int_equal(console_cursor_piece(&cursor, 4096, &offset), 30);
    assert_int_equal(offset, 70);
    console_cursor_begin(&cursor, START, 100, 1000);
    assert_int_equal(cursor.next, 0);
    console_cursor_begin(&cursor, START, 5 * CONSOLE_RING_BYTES, UINT64_MAX);
    assert_int_equal(cursor.total - cursor.next, MOST);
    console_cursor_begin(&cursor, START, 100, 0);
    assert_int_equal(console_cursor_piece(&cursor, 4096, &offset), 0);
    assert_int_equal(cursor.lost, 0);
}

static void a_piece_ends_where_the_ring_does(void **state)
{
    struct console_cursor cursor;
    size_t offset;

    (void)state;
    console_cursor_begin(&cursor, START, CONSOLE_RING_BYTES + 5, 10);
    assert_int_equal(console_cursor_piece(&cursor, 4096, &offset), 5);
    assert_int_equal(offset, CONSOLE_RING_BYTES - 5);
    cursor.next += 5;
    assert_int_equal(console_cursor_piece(&cursor, 3, &offset), 3);
    assert_int_equal(offset, 0);
}

static void what_was_overwritten_is_counted(void **state)
{
    struct console_cursor cursor;

    (void)state;
    console_cursor_begin(&cursor, START, 0, 0);
    console_cursor_see(&cursor, START, MOST);
    assert_int_equal(cursor.lost, 0);
    console_cursor_see(&cursor, START, MOST + 1);
    assert_int_equal(cursor.lost, 1);
    assert_int_equal(cursor.next, 1);
    console_cursor_see(&cursor, START, 1000000);
    assert_int_equal(cursor.lost + MOST, 1000000);
}

static void a_start_begins_anew(void **state)
{
    struct console_cursor cursor;

    (void)state;
    console_cursor_begin(&cursor, START, 100, 0);
    console_cursor_see(&cursor, START, 120);
    console_cursor_see(&cursor, 0, 0); /* the page was made anew, with 20 bytes not read */
    assert_int_equal(cursor.next, 0);
    assert_int_equal(cursor.lost, 20);
    console_cursor_see(&cursor, START + 1, 500); /* more than the old one had */
    assert_int_equal(cursor.next, 0);
    assert_int_equal(cursor.lost, 20);
    console_cursor_see(&cursor, START + 2, 700); /* one that was never seen empty */
    assert_int_equal(cursor.next, 0);
    assert_int_equal(cursor.lost, 520);
    console_cursor_see(&cursor, START + 2, 400); /* and a page that went back without a start */
    assert_int_equal(cursor.next, 0);
    assert_int_equal(cursor.total, 400);
}

/* Whatever the page says, reading stays inside the ring. */
static void lies_are_harmless(void **state)
{
    static const uint64_t figures[] = {
        0, 1, MOST, CONSOLE_RING_BYTES, UINT64_MAX, UINT64_MAX / 2, 12345, 1, UINT64_MAX - 1, 7
    };
    struct console_cursor cursor;
    size_t offset;

    (void)state;
    srand(1);
    console_cursor_begin(&cursor, START, UINT64_MAX, UINT64_MAX);
    for (int i = 0; i < 100000; i++) {
        size_t size;

        console_cursor_see(&cursor, figures[rand() % 10], figures[rand() % 10]);
        assert_true(cursor.next <= cursor.total && cursor.total - cursor.next <= MOST);
        size = console_cursor_piece(&cursor, 16384, &offset);
        assert_true(offset + size <= CONSOLE_RING_BYTES && size <= 16384);
        cursor.next += size ? (size_t)rand() % (size + 1) : 0;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_begins_at_the_tail),
        cmocka_unit_test(a_piece_ends_where_the_ring_does),
        cmocka_unit_test(what_was_overwritten_is_counted),
        cmocka_unit_test(a_start_begins_anew),
        cmocka_unit_test(lies_are_harmless),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
