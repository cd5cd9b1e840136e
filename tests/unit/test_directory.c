/* test_directory.c - every entry is met once, until somebody has enough. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
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

/* The linker puts it in the place of readdir (Makefile): the third entry cannot be read. */
static bool broken;
static unsigned reads;
struct dirent *__real_readdir(DIR *dir);
struct dirent *__wrap_readdir(DIR *dir);
struct dirent *__wrap_readdir(DIR *dir)
{
    if (!broken || ++reads < 3)
        return __real_readdir(dir);
    errno = EIO;
    return NULL;
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
    broken = true;
    met = (struct met){ 0 };
    assert_int_equal(directory_each(fd, ".", meet, &met), -EIO); /* it is not taken for the end */
    assert_int_equal(directory_remove(AT_FDCWD, path), -EIO);
    broken = false;
    assert_int_equal(mkdirat(fd, "d", 0700), 0);
    assert_true(directory_remove(AT_FDCWD, path) < 0); /* files alone */
    assert_int_equal(unlinkat(fd, "d", AT_REMOVEDIR), 0);
    assert_int_equal(directory_remove(AT_FDCWD, path), 0);
    assert_int_equal(faccessat(AT_FDCWD, path, F_OK, 0), -1);
    assert_int_equal(directory_remove(AT_FDCWD, path), 0); /* it is gone already */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_are_met_until_one_says_no),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
