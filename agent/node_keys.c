/* Idempotency-Keys in the database: with the change that they were sent for, and again with what
 * was answered, before it is sent. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/node_internal.h"
#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "storage/database.h"

struct key_record node_key_record(const struct node *node, const struct key *key)
{
    return (struct key_record){
        .sequence = key->sequence,
        .keep_from = node->keys.count > 0 ? node->keys.items[0]->sequence : key->sequence,
        .created_ms = key->created_ms,
        .status = key->answer.status,
        .scope = key->scope,
        .key = key->key,
        .digest = key->digest,
        .etag = key->answer.etag,
        .location = key->answer.location,
        .body = key->answer.body,
    };
}

int node_key_begin(struct node *node, const char *scope, const char *text, const void *body,
                   size_t size, struct key **ret_key, struct error *err)
{
    char digest[DIGEST_TEXT];

    if (!key_is_valid(text))
        return error_field(err, EINVAL, "Idempotency-Key",
                           "Idempotency-Key must have 1 to %d visible ASCII characters", KEY_MAX);
    digest_of(body, size, digest);
    return key_begin(&node->keys, scope, text, digest, node->clock_ms + loop_now_ms(), ret_key,
                     err);
}

bool node_key_is_known(struct node *node, const char *scope, const char *text)
{
    return key_is_known(&node->keys, scope, text, node->clock_ms + loop_now_ms());
}

struct keeping {
    struct node *node;
    struct key *key;
    node_done_fn *done;
    void *context;
};

/* What could not be recorded is known as long as this agent runs. */
static void kept(void *context, int result, const struct error *err)
{
    struct keeping *keeping = context;

    if (result < 0)
        log_error(keeping->node->log, "an answer's Idempotency-Key could not be recorded: %s",
                  err->message);
    key_end(&keeping->node->keys, keeping->key);
    keeping->done(keeping->context, result, err);
    free(keeping);
}

int node_key_keep(struct node *node, struct key *key, const struct key_answer *answer,
                  node_done_fn *done, void *context)
{
    struct keeping *keeping = malloc(sizeof *keeping);
    struct key_record record;
    int result = keeping ? key_answer(&node->keys, key, answer) : -ENOMEM;

    if (result == 0) {
        *keeping = (struct keeping){ .node = node, .key = key, .done = done, .context = context };
        record = node_key_record(node, key);
        result = database_put_key(node->database, &record, kept, keeping, NULL);
    }
    if (result < 0)
        free(keeping);
    return result;
}

void node_key_end(struct node *node, struct key *key)
{
    key_end(&node->keys, key);
}

int node_load_key(void *context, const struct key_record *record, struct error *err)
{
    struct node *node = context;
    struct key key = { .sequence = record->sequence,
                       .created_ms = record->created_ms,
                       .scope = record->scope,
                       .key = record->key,
                       .answer = { .status = record->status,
                                   .etag = record->etag,
                                   .location = record->location,
                                   .body = record->body } };

    snprintf(key.digest, sizeof key.digest, "%s", record->digest);
    if (key_restore(&node->keys, &key) < 0)
        return error_set(err, ENOMEM, "memory is short");
    return 0;
}
