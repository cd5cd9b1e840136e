#include "storage/keyed_digest.h"

#include <errno.h>
#include <fcntl.h>
#include <nettle/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/file_io.h"
#include "base/path.h"
#include "base/sparse_file.h"

#define KEY_NAME   "node.key"
#define KEY_UNDONE "node.key.tmp"
#define READ_BYTES 65536u

/* Whole and on the disk, or not there. */
static int make_key(int state_dir_fd, struct error *err)
{
    struct keyed_digest_key key;
    auto_close int fd = openat(state_dir_fd, KEY_UNDONE,
                               O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

    int result = 0;

    if (fd < 0 || fchmod(fd, 0600) < 0 ||
        getrandom(key.bytes, sizeof key.bytes, 0) != sizeof key.bytes)
        result = -errno;
    if (result == 0)
        result = file_write_all(fd, key.bytes, sizeof key.bytes, 0);
    if (result == 0 &&
        (fsync(fd) < 0 || renameat(state_dir_fd, KEY_UNDONE, state_dir_fd, KEY_NAME) < 0 ||
         fsync(state_dir_fd) < 0))
        result = -errno;
    return result < 0 ? error_set(err, result, "make the node's key: %s", strerror(-result)) : 0;
}

bool keyed_digest_has_key(int state_dir_fd)
{
    return faccessat(state_dir_fd, KEY_NAME, F_OK, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT;
}

int keyed_digest_open_key(int state_dir_fd, struct keyed_digest_key *ret_key, struct error *err)
{
    auto_close int fd = path_open_regular(state_dir_fd, KEY_NAME, O_RDONLY, "the node's key", err);
    struct keyed_digest_key key;
    uint8_t behind;

    if (fd == -ENOENT) {
        int result = make_key(state_dir_fd, err);

        if (result < 0)
            return result;
        fd = path_open_regular(state_dir_fd, KEY_NAME, O_RDONLY, "the node's key", err);
    }
    if (fd < 0)
        return fd;
    if (read(fd, key.bytes, sizeof key.bytes) != sizeof key.bytes || read(fd, &behind, 1) != 0)
        return error_set(err, EINVAL,
                         "%s in the state directory has not %d bytes: put back the right one, or "
                         "remove it and do without the snapshots made so far",
                         KEY_NAME, KEYED_DIGEST_KEY_BYTES);
    *ret_key = key;
    return 0;
}

static void finish(struct hmac_sha256_ctx *hmac, char ret_text[DIGEST_TEXT])
{
    uint8_t digest[DIGEST_BYTES];

    hmac_sha256_digest(hmac, sizeof digest, digest);
    digest_text(digest, ret_text);
}

int keyed_digest_file(const struct keyed_digest_key *key, int fd, uint64_t max_bytes,
                      char ret_text[DIGEST_TEXT], struct error *err)
{
    auto_free uint8_t *bytes = malloc(READ_BYTES);
    struct hmac_sha256_ctx hmac;
    uint64_t at = 0;

    if (!bytes)
        return error_set(err, ENOMEM, "memory is short");
    hmac_sha256_set_key(&hmac, sizeof key->bytes, key->bytes);
    for (;;) {
        ssize_t got = pread(fd, bytes, READ_BYTES, (off_t)at);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set(err, errno, "read a file to sum it: %s", strerror(errno));
        if (got == 0)
            break;
        at += (uint64_t)got;
        if (at > max_bytes)
            return error_set(err, EFBIG, "a file to be summed has more than %llu bytes",
                             (unsigned long long)max_bytes);
        hmac_sha256_update(&hmac, (size_t)got, bytes);
    }
    finish(&hmac, ret_text);
    return 0;
}

int keyed_digest_holes(const struct keyed_digest_key *key, int fd, char ret_text[DIGEST_TEXT],
                       struct error *err)
{
    off_t size = lseek(fd, 0, SEEK_END);
    int result = size < 0 ? -errno : 1;
    struct hmac_sha256_ctx hmac;
    uint64_t data[2] = { 0 }; /* from, to */

    hmac_sha256_set_key(&hmac, sizeof key->bytes, key->bytes);
    while (result > 0) {
        result = sparse_next_data(fd, data[1], (uint64_t)size, &data[0], &data[1]);
        if (result > 0)
            hmac_sha256_update(&hmac, sizeof data, (const uint8_t *)data);
    }
    if (result < 0)
        return error_set(err, result, "look for a file's holes: %s", strerror(-result));
    finish(&hmac, ret_text);
    return 0;
}
