/* test_trash.c - what is moved aside at once, and removed later. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "storage/trash.h"

struct fixture {
    char path[32];
    int dir_fd;
    struct error err;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    memcpy(f->path, "/tmp/warren-trash-XXXXXX", sizeof "/tmp/warren-trash-XXXXXX");
    if (!mkdtemp(f->path))
        return -1;
    f->dir_fd = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    close(f->dir_fd);
    assert_int_equal(rmdir(f->path), 0); /* nothing is left */
    free(f);
    return 0;
}

static bool is_there(const struct fixture *f, const char *name)
{
    return faccessat(f->dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static void make_file(const struct fixture *f, const char *name)
{
    auto_close int fd = openat(f->dir_fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0400);

    assert_true(fd >= 0);
}

static void make_directory(const struct fixture *f, const char *name, const char *file)
{
    assert_int_equal(mkdirat(f->dir_fd, name, 0700), 0);
    make_file(f, file);
}

static void what_is_moved_aside_is_removed_later(void **state)
{
    struct fixture *f = *state;

    make_file(f, "7.raw");
    make_directory(f, "8", "8/content");
    assert_int_equal(trash_move(f->dir_fd, "7.raw"), 0);
    assert_int_equal(trash_move(f->dir_fd, "8"), 0);
    assert_false(is_there(f, "7.raw") || is_there(f, "8"));
    assert_true(is_there(f, "trash/7.raw") && is_there(f, "trash/8/content"));
    assert_int_equal(trash_empty(f->dir_fd, &f->err), 0);
    assert_false(is_there(f, "trash"));
}

static void what_is_not_there_is_gone(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(trash_empty(f->dir_fd, &f->err), 0);
    assert_int_equal(trash_move(f->dir_fd, "7.raw"), 0);
    assert_int_equal(trash_empty(f->dir_fd, &f->err), 0);
}

/* An agent ended before it had emptied it; or it is no directory. */
static void what_cannot_be_moved_is_removed_at_once(void **state)
{
    struct fixture *f = *state;

    make_directory(f, "8", "8/content");
    assert_int_equal(trash_move(f->dir_fd, "8"), 0);
    make_directory(f, "8", "8/content");
    assert_int_equal(trash_move(f->dir_fd, "8"), 0);
    assert_false(is_there(f, "8"));
    assert_int_equal(trash_empty(f->dir_fd, &f->err), 0);
    make_file(f, "trash");
    make_file(f, "7.raw");
    assert_int_equal(trash_move(f->dir_fd, "7.raw"), 0);
    assert_false(is_there(f, "7.raw"));
    assert_int_equal(trash_empty(f->dir_fd, &f->err), -ENOTDIR);
    assert_string_equal(f->err.message, "empty the trash: Not a directory");
    assert_int_equal(unlinkat(f->dir_fd, "trash", 0), 0);
}

#define IN_A_DIRECTORY(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_A_DIRECTORY(what_is_moved_aside_is_removed_later),
        IN_A_DIRECTORY(what_is_not_there_is_gone),
        IN_A_DIRECTORY(what_cannot_be_moved_is_removed_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
