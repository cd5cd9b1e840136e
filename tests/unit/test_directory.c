/* test_directory.c - every entry is met once, until somebody has enough. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/directory.h"

struct met {
    char names[8];
    unsigned count;
    int result; /* of each call */
};

static int meet(void *context, int dir_fd, const char *name)
{
    struct met *met = context;

    assert_int_equal(strlen(name), 1);
    assert_int_equal(faccessat(dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW), 0);
    assert_true(met->count < ARRAY_LENGTH(met->names));
    met->names[met->count++] = *name;
    return met->result;
}

static int remove_entry(void *context, int dir_fd, const char *name)
{
    (void)context;
    return unlinkat(dir_fd, name, 0) < 0 ? -errno : 0;
}

static void all_are_met_until_one_says_no(void **state)
{
    char path[] = "/tmp/test_directory.XXXXXX";
    struct met met = { 0 };
    auto_close int fd = -1;

    (void)state;
    assert_non_null(mkdtemp(path));
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(directory_each(fd, ".", meet, &met), 0);
    assert_int_equal(met.count, 0);
    for (const char *name = "abc"; *name; name++)
        assert_int_equal(symlinkat("nowhere", fd, (char[]){ *name, '\0' }), 0);
    for (int again = 1; again <= 2; again++) {
        assert_int_equal(directory_each(AT_FDCWD, path, meet, &met), 0);
        assert_int_equal(met.count, 3 * again);
    }
    for (const char *name = "abc"; *name; name++)
        assert_true(memchr(met.names, *name, 3) && memchr(met.names + 3, *name, 3));
    met = (struct met){ .result = -EUCLEAN };
    assert_int_equal(directory_each(fd, ".", meet, &met), -EUCLEAN);
    met.result = 1;
    assert_int_equal(directory_each(fd, ".", meet, &met), 1);
    assert_int_equal(met.count, 2);
    assert_int_equal(directory_each(fd, "a", meet, &met), -ENOTDIR); /* no link is followed */
    assert_int_equal(directory_each(fd, "x", meet, &met), -ENOENT);
    assert_int_equal(directory_each(fd, ".", remove_entry, NULL), 0);
    assert_int_equal(rmdir(path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_are_met_until_one_says_no),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
