/* keyed_digest.h - HMAC-SHA256 of files with the node's own key: they are what this node wrote,
 * byte for byte.  Functions block on the disk; any thread.
 *
 * The key is <state-dir>/node.key, 32 random bytes, mode 0600, made once. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "base/digest.h"

struct error;

#define KEYED_DIGEST_KEY_BYTES 32

struct keyed_digest_key {
    uint8_t bytes[KEYED_DIGEST_KEY_BYTES];
};

/* Is there one, or what keeps one from being made? */
bool keyed_digest_has_key(int state_dir_fd);
/* Makes the key, durably, where there is none.  -EINVAL if the file is none of ours. */
int keyed_digest_open_key(int state_dir_fd, struct keyed_digest_key *ret_key, struct error *err);

/* Of the whole file.  -EFBIG if it has more than max_bytes. */
int keyed_digest_file(const struct keyed_digest_key *key, int fd, uint64_t max_bytes,
                      char ret_text[DIGEST_TEXT], struct error *err);
/* Of where it has data and where holes, whatever the data are. */
int keyed_digest_holes(const struct keyed_digest_key *key, int fd, char ret_text[DIGEST_TEXT],
                       struct error *err);
