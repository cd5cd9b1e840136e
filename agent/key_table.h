/* key_table.h - the Idempotency-Keys that were used, and what was answered.  No I/O, no clock; loop
 * thread only.
 *
 * A key counts within its scope (who asked, method, path).  It is under way from key_begin to
 * key_end; the request that holds it then owns it so far that it stays.  Others are dropped, oldest
 * first, after KEY_KEPT_MS, or when there are too many. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/digest.h"

struct error;

#define KEY_MAX        128 /* characters, visible ASCII */
#define KEY_KEPT_MS    (24ll * 3600 * 1000)
#define KEYS_MAX       10000
#define KEYS_BYTES_MAX (16u << 20) /* of all answers */

enum key_state {
    KEY_UNDER_WAY,
    KEY_COMMITTED, /* its change is on the disk; the agent ended before it had answered */
    KEY_ANSWERED,
};

struct key_answer {
    int status;                  /* HTTP; 0 = none yet */
    const char *etag, *location; /* NULL = none */
    const char *body;            /* JSON text; NULL = none */
};

struct key {
    int64_t sequence; /* ascending; the row's */
    int64_t created_ms;
    enum key_state state;
    bool committed;           /* with its change, while it is under way */
    char digest[DIGEST_TEXT]; /* SHA-256 of the body */
    const char *scope, *key;  /* owned, as the answer's texts */
    struct key_answer answer;
};

struct key_table {
    struct key **items; /* ascending by sequence */
    size_t count, room;
    size_t bytes; /* of answers */
    int64_t last_sequence;
};

bool key_is_valid(const char *key);
/* A new one that is under way, or one that was COMMITTED, which is so again, or an ANSWERED one.
 * -EALREADY: it is under way; -EKEYREJECTED: it was used with another body. */
int key_begin(struct key_table *table, const char *scope, const char *key, const char *digest,
              int64_t now_ms, struct key **ret_key, struct error *err);
/* Whatever came of it so far. */
bool key_is_known(struct key_table *table, const char *scope, const char *key, int64_t now_ms);
/* Copies; -ENOMEM leaves it without an answer.  It stays under way. */
int key_answer(struct key_table *table, struct key *key, const struct key_answer *answer);
/* The request has ended: it is answered, committed or as if it had never been (then it is freed).
 */
void key_end(struct key_table *table, struct key *key);
/* One from the disk; the sequences ascend.  -ENOMEM. */
int key_restore(struct key_table *table, const struct key *key);
void key_trim(struct key_table *table, int64_t now_ms);
void key_table_clear(struct key_table *table);
