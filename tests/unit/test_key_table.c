/* test_key_table.c - which Idempotency-Keys are known, for how long, and for whom. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "agent/key_table.h"
#include "base/error.h"
#include "storage/keyed_digest.h"

static int begin(struct key_table *table, const char *scope, const char *key, const char *digest,
                 int64_t now_ms, struct key **ret_key)
{
    struct error err = { 0 };
    int result = key_begin(table, scope, key, digest, now_ms, ret_key, &err);

    if (result < 0)
        assert_string_equal(err.field, "Idempotency-Key");
    return result;
}

static void one_key_is_one_request(void **state)
{
    const struct key_answer answer = { .status = 202, .etag = "\"3\"", .body = "{}\n" };
    struct key_table table = { 0 };
    struct key *key, *again;

    (void)state;
    assert_int_equal(begin(&table, "a", "k", "1", 0, &key), 0);
    assert_int_equal(key->state, KEY_UNDER_WAY);
    assert_true(key_is_known(&table, "a", "k", 0));
    assert_false(key_is_known(&table, "b", "k", 0));
    assert_false(key_is_known(&table, "a", "l", 0));
    assert_int_equal(begin(&table, "a", "k", "1", 0, &again), -EALREADY);
    assert_int_equal(begin(&table, "a", "k", "2", 0, &again), -EKEYREJECTED);
    assert_int_equal(begin(&table, "b", "k", "2", 0, &again), 0); /* another scope */
    key_end(&table, again);
    assert_int_equal(table.count, 1); /* as if it had never been */
    assert_int_equal(key_answer(&table, key, &answer), 0);
    assert_int_equal(begin(&table, "a", "k", "1", 0, &again), -EALREADY); /* not sent yet */
    key_end(&table, key);
    assert_int_equal(begin(&table, "a", "k", "1", 0, &again), 0);
    assert_ptr_equal(again, key);
    assert_int_equal(again->state, KEY_ANSWERED);
    assert_int_equal(again->answer.status, 202);
    assert_string_equal(again->answer.body, "{}\n");
    assert_null(again->answer.location);
    assert_int_equal(begin(&table, "a", "k", "2", 0, &again), -EKEYREJECTED);
    key_table_clear(&table);
}

static void what_an_agent_left_unanswered_is_known(void **state)
{
    struct key_table table = { 0 };
    struct key row = { .sequence = 7, .scope = "a", .key = "k", .digest = "1" }, *key;

    (void)state;
    assert_int_equal(key_restore(&table, &row), 0);
    assert_int_equal(begin(&table, "a", "k", "1", 0, &key), 0);
    assert_true(key->committed);
    assert_int_equal(key->state, KEY_UNDER_WAY);
    key_end(&table, key); /* still without an answer */
    assert_int_equal(key->state, KEY_COMMITTED);
    assert_int_equal(begin(&table, "a", "l", "1", 0, &key), 0);
    assert_int_equal(key->sequence, 8);
    key_table_clear(&table);
}

static void the_oldest_go_first(void **state)
{
    const struct key_answer answer = { .status = 200, .body = "x" };
    struct key_table table = { 0 };
    struct key *key, *held;
    char name[16];

    (void)state;
    assert_int_equal(begin(&table, "a", "held", "1", 0, &held), 0);
    for (int i = 0; i < KEYS_MAX + 5; i++) {
        snprintf(name, sizeof name, "k%d", i);
        assert_int_equal(begin(&table, "a", name, "1", 1, &key), 0);
        key_answer(&table, key, &answer);
        key_end(&table, key);
    }
    key_trim(&table, 1);
    assert_int_equal(table.count, KEYS_MAX);
    assert_ptr_equal(table.items[0], held); /* its request still needs it */
    assert_string_equal(table.items[1]->key, "k6");
    key_trim(&table, 1 + KEY_KEPT_MS);
    assert_int_equal(table.count, KEYS_MAX);
    assert_false(key_is_known(&table, "a", name, 2 + KEY_KEPT_MS));
    assert_int_equal(table.count, 1);
    assert_int_equal(table.bytes, 0);
    assert_int_equal(begin(&table, "a", "one", "1", 3 + KEY_KEPT_MS, &key), 0);
    key_answer(&table, key, &answer);
    key_end(&table, key);
    assert_int_equal(begin(&table, "a", "two", "1", 4 + 2 * KEY_KEPT_MS, &key), 0);
    assert_int_equal(table.count, 2); /* held, and the new one */
    key_table_clear(&table);
}

static void answers_are_bounded_together(void **state)
{
    static char big[KEYS_BYTES_MAX / 4];
    struct key_answer answer = { .status = 200, .body = big };
    struct key_table table = { 0 };
    struct key *key;
    char name[16];

    (void)state;
    memset(big, 'b', sizeof big - 1);
    for (int i = 0; i < 6; i++) {
        snprintf(name, sizeof name, "k%d", i);
        assert_int_equal(begin(&table, "a", name, "1", 1, &key), 0);
        key_answer(&table, key, &answer);
        key_end(&table, key);
    }
    key_trim(&table, 1);
    assert_true(table.bytes <= KEYS_BYTES_MAX);
    assert_int_equal(table.count, 4);
    assert_string_equal(table.items[0]->key, "k2");
    key_table_clear(&table);
    /* Those that an agent before wrote down count, too. */
    for (int i = 0; i < 6; i++) {
        const struct key row = {
            .sequence = i + 1, .created_ms = 1, .scope = "a", .key = "k", .answer = answer
        };

        assert_int_equal(key_restore(&table, &row), 0);
    }
    key_trim(&table, 1);
    assert_int_equal(table.count, 4);
    key_table_clear(&table);
}

static void keys_and_digests(void **state)
{
    char text[KEY_MAX + 2];

    (void)state;
    memset(text, 'k', sizeof text);
    text[KEY_MAX + 1] = '\0';
    assert_false(key_is_valid(text));
    text[KEY_MAX] = '\0';
    assert_true(key_is_valid(text));
    assert_true(key_is_valid("!~\"8e03978e-40d5-43e8-bc93-6894a57f9324\""));
    assert_false(key_is_valid(""));
    assert_false(key_is_valid("a b"));
    assert_false(key_is_valid("a\x7f"));
    assert_false(key_is_valid("\xc3\xa4"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_key_is_one_request),
        cmocka_unit_test(what_an_agent_left_unanswered_is_known),
        cmocka_unit_test(the_oldest_go_first),
        cmocka_unit_test(answers_are_bounded_together),
        cmocka_unit_test(keys_and_digests),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
