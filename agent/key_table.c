#include "agent/key_table.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

bool key_is_valid(const char *key)
{
    size_t length = strlen(key);

    for (size_t i = 0; i < length; i++)
        if (key[i] < '!' || key[i] > '~')
            return false;
    return length >= 1 && length <= KEY_MAX;
}

static size_t length(const char *text)
{
    return text ? strlen(text) : 0;
}

static size_t answer_bytes(const struct key *key)
{
    const struct key_answer *answer = &key->answer;

    return length(answer->etag) + length(answer->location) + length(answer->body);
}

static void clear_answer(struct key *key)
{
    free((char *)key->answer.etag);
    free((char *)key->answer.location);
    free((char *)key->answer.body);
    key->answer = (struct key_answer){ 0 };
}

static void key_free(struct key *key)
{
    clear_answer(key);
    free((char *)key->scope);
    free((char *)key->key);
    free(key);
}

/* false if memory is short. */
static bool copy_text(const char *from, const char **ret_copy)
{
    *ret_copy = from ? strdup(from) : NULL;
    return !from || *ret_copy;
}

static int copy_answer(struct key *key, const struct key_answer *answer)
{
    struct key_answer copy = { .status = answer->status };
    bool whole = copy_text(answer->etag, &copy.etag) &&
                 copy_text(answer->location, &copy.location) && copy_text(answer->body, &copy.body);

    clear_answer(key);
    key->answer = copy;
    if (!whole)
        clear_answer(key);
    return whole ? 0 : -ENOMEM;
}

static int insert(struct key_table *table, const struct key *template, struct key **ret_key)
{
    struct key *key = malloc(sizeof *key);

    if (table->count == table->room) {
        size_t room = table->room ? 2 * table->room : 64;
        struct key **items = realloc(table->items, room * sizeof(struct key *));

        if (!items) {
            free(key);
            return -ENOMEM;
        }
        table->items = items;
        table->room = room;
    }
    if (!key)
        return -ENOMEM;
    *key = *template;
    key->scope = strdup(template->scope);
    key->key = strdup(template->key);
    key->answer = (struct key_answer){ 0 };
    if (!key->scope || !key->key || copy_answer(key, &template->answer) < 0) {
        key_free(key);
        return -ENOMEM;
    }
    table->items[table->count++] = key;
    table->bytes += answer_bytes(key);
    table->last_sequence = key->sequence;
    *ret_key = key;
    return 0;
}

static void remove_at(struct key_table *table, size_t i)
{
    table->bytes -= answer_bytes(table->items[i]);
    key_free(table->items[i]);
    table->count--;
    memmove(table->items + i, table->items + i + 1, (table->count - i) * sizeof(struct key *));
}

/* NULL if there is none. */
static struct key *find(const struct key_table *table, const char *scope, const char *key)
{
    for (size_t i = 0; i < table->count; i++)
        if (strcmp(table->items[i]->key, key) == 0 && strcmp(table->items[i]->scope, scope) == 0)
            return table->items[i];
    return NULL;
}

bool key_is_known(struct key_table *table, const char *scope, const char *key, int64_t now_ms)
{
    key_trim(table, now_ms);
    return find(table, scope, key) != NULL;
}

int key_begin(struct key_table *table, const char *scope, const char *key, const char *digest,
              int64_t now_ms, struct key **ret_key, struct error *err)
{
    struct key fresh = { .sequence = table->last_sequence + 1,
                         .created_ms = now_ms,
                         .state = KEY_UNDER_WAY,
                         .scope = scope,
                         .key = key };
    struct key *old;

    key_trim(table, now_ms);
    old = find(table, scope, key);
    if (old) {
        if (strcmp(old->digest, digest) != 0)
            return error_field(err, EKEYREJECTED, "Idempotency-Key",
                               "this key was used for another body: take a new one");
        if (old->state == KEY_UNDER_WAY)
            return error_field(err, EALREADY, "Idempotency-Key",
                               "the request with this key is under way: ask again later");
        if (old->state == KEY_COMMITTED)
            old->state = KEY_UNDER_WAY;
        *ret_key = old;
        return 0;
    }
    snprintf(fresh.digest, sizeof fresh.digest, "%s", digest);
    if (insert(table, &fresh, ret_key) < 0)
        return error_no_memory(err);
    return 0;
}

int key_answer(struct key_table *table, struct key *key, const struct key_answer *answer)
{
    int result;

    table->bytes -= answer_bytes(key);
    result = copy_answer(key, answer);
    table->bytes += answer_bytes(key);
    return result;
}

void key_end(struct key_table *table, struct key *key)
{
    if (key->answer.status != 0)
        key->state = KEY_ANSWERED;
    else if (key->committed)
        key->state = KEY_COMMITTED;
    else
        for (size_t i = 0; i < table->count; i++)
            if (table->items[i] == key) {
                remove_at(table, i);
                return;
            }
}

int key_restore(struct key_table *table, const struct key *key)
{
    struct key *restored;

    if (insert(table, key, &restored) < 0)
        return -ENOMEM;
    restored->committed = true;
    restored->state = key->answer.status != 0 ? KEY_ANSWERED : KEY_COMMITTED;
    return 0;
}

void key_trim(struct key_table *table, int64_t now_ms)
{
    size_t i = 0;

    while (i < table->count) {
        const struct key *key = table->items[i];
        bool old = now_ms - key->created_ms > KEY_KEPT_MS;

        if (!old && table->count <= KEYS_MAX && table->bytes <= KEYS_BYTES_MAX)
            return;
        if (key->state == KEY_UNDER_WAY)
            i++;
        else
            remove_at(table, i);
    }
}

void key_table_clear(struct key_table *table)
{
    while (table->count > 0)
        remove_at(table, table->count - 1);
    free(table->items);
    *table = (struct key_table){ 0 };
}
