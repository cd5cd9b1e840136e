/* Keyed digests: the node's key, and that a file's every byte counts. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "storage/keyed_digest.h"

/* Owned fd of a memfd with these bytes. */
static int file_of(const void *bytes, size_t size)
{
    int fd = memfd_create("digest", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, size), size);
    return fd;
}

/* RFC 4231, test case 1, whose key of 20 bytes HMAC pads with zeroes. */
static void the_digest_is_hmac_sha256(void **state)
{
    struct keyed_digest_key key = { { 0 } };
    char text[DIGEST_TEXT] = "";
    auto_close int fd = file_of("Hi There", 8);

    (void)state;
    memset(key.bytes, 0x0b, 20);
    assert_int_equal(keyed_digest_file(&key, fd, 8, text, NULL), 0);
    assert_string_equal(text, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
}

static void every_byte_and_the_length_count(void **state)
{
    static uint8_t bytes[200000];
    static const size_t places[] = { 0, 65535, 65536, 131072, sizeof bytes - 1 };
    const struct keyed_digest_key key = { { 1, 2, 3 } };
    const struct keyed_digest_key other = { { 1, 2, 4 } };
    char good[DIGEST_TEXT], bad[DIGEST_TEXT];
    auto_close int fd = file_of(bytes, sizeof bytes);

    (void)state;
    assert_int_equal(keyed_digest_file(&key, fd, sizeof bytes, good, NULL), 0);
    assert_true(digest_equal(good, good));
    for (size_t i = 0; i < ARRAY_LENGTH(places); i++) {
        assert_int_equal(pwrite(fd, "\1", 1, (off_t)places[i]), 1);
        assert_int_equal(keyed_digest_file(&key, fd, sizeof bytes, bad, NULL), 0);
        assert_false(digest_equal(good, bad));
        assert_int_equal(pwrite(fd, "", 1, (off_t)places[i]), 1);
    }
    assert_int_equal(keyed_digest_file(&other, fd, sizeof bytes, bad, NULL), 0);
    assert_false(digest_equal(good, bad));
    assert_int_equal(keyed_digest_file(&key, fd, sizeof bytes - 1, bad, NULL), -EFBIG);
    assert_int_equal(ftruncate(fd, sizeof bytes - 1), 0);
    assert_int_equal(keyed_digest_file(&key, fd, sizeof bytes, bad, NULL), 0);
    assert_false(digest_equal(good, bad));
}

static void each_flipped_byte_is_seen(void **state)
{
    static uint8_t bytes[3000];
    const struct keyed_digest_key key = { { 1, 2, 3 } };
    char good[DIGEST_TEXT], bad[DIGEST_TEXT];
    auto_close int fd = -1;

    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * i >> 3);
    fd = file_of(bytes, sizeof bytes);
    assert_int_equal(keyed_digest_file(&key, fd, sizeof bytes, good, NULL), 0);
    for (size_t i = 0; i < sizeof bytes; i++) {
        uint8_t flipped = bytes[i] ^ (uint8_t)(1u << i % 8);

        assert_int_equal(pwrite(fd, &flipped, 1, (off_t)i), 1);
        assert_int_equal(keyed_digest_file(&key, fd, sizeof bytes, bad, NULL), 0);
        if (digest_equal(good, bad))
            fail_msg("byte %zu", i);
        assert_int_equal(pwrite(fd, &bytes[i], 1, (off_t)i), 1);
    }
}

static void the_key_is_made_once_and_kept(void **state)
{
    char path[] = "/tmp/warren-key-XXXXXX";
    struct keyed_digest_key first, second;
    struct error err = { 0 };
    struct stat status;
    auto_close int dir_fd = -1, fd = -1;

    (void)state;
    assert_non_null(mkdtemp(path));
    dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_false(keyed_digest_has_key(dir_fd));
    assert_int_equal(keyed_digest_open_key(dir_fd, &first, &err), 0);
    assert_true(keyed_digest_has_key(dir_fd));
    assert_int_equal(keyed_digest_open_key(dir_fd, &second, &err), 0);
    assert_memory_equal(&first, &second, sizeof first);
    assert_int_equal(fstatat(dir_fd, "node.key", &status, 0), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(fstatat(dir_fd, "node.key.tmp", &status, 0), -1);
    fd = openat(dir_fd, "node.key", O_WRONLY | O_CLOEXEC);
    assert_int_equal(ftruncate(fd, 31), 0);
    assert_int_equal(keyed_digest_open_key(dir_fd, &second, &err), -EINVAL);
    assert_int_equal(ftruncate(fd, 33), 0);
    assert_int_equal(keyed_digest_open_key(dir_fd, &second, &err), -EINVAL);
    assert_memory_equal(&first, &second, sizeof first);
    assert_int_equal(unlinkat(dir_fd, "node.key", 0), 0);
    /* What an agent left that ended while it made one is not taken for a key. */
    cleanup_close(&fd);
    fd = openat(dir_fd, "node.key.tmp", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_int_equal(keyed_digest_open_key(dir_fd, &second, &err), 0);
    assert_memory_not_equal(&first, &second, sizeof first);
    assert_int_equal(fstatat(dir_fd, "node.key", &status, 0), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(unlinkat(dir_fd, "node.key", 0), 0);
    assert_int_equal(symlinkat("elsewhere", dir_fd, "node.key"), 0);
    assert_true(keyed_digest_has_key(dir_fd));
    assert_int_equal(keyed_digest_open_key(dir_fd, &second, &err), -ELOOP);
    assert_int_equal(unlinkat(dir_fd, "node.key", 0), 0);
    assert_int_equal(rmdir(path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_digest_is_hmac_sha256),
        cmocka_unit_test(every_byte_and_the_length_count),
        cmocka_unit_test(each_flipped_byte_is_seen),
        cmocka_unit_test(the_key_is_made_once_and_kept),
    };

    return cmocka_run_group_tests_name("keyed_digest", tests, NULL, NULL);
}
