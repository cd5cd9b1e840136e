/* test_path.c - files below a directory, while others rename theirs; and small ones as text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/path.h"
#include "tests/unit/scratch.h"

static unsigned renames, calls; /* so many opens are met by one; so many opens were made */

/* The linker puts it in the place of syscall (Makefile). */
long __real_syscall(long number, int dir, const char *path, void *how, size_t size);
long __wrap_syscall(long number, int dir, const char *path, void *how, size_t size);
long __wrap_syscall(long number, int dir, const char *path, void *how, size_t size)
{
    assert_int_equal(number, SYS_openat2);
    calls++;
    if (renames > 0) {
        renames--;
        errno = EAGAIN;
        return -1;
    }
    return __real_syscall(number, dir, path, how, size);
}

static int open_in(const char *dir, const char *path, unsigned renames_meanwhile)
{
    calls = 0;
    renames = renames_meanwhile;
    return path_open_below(dir, path, O_RDONLY | O_CLOEXEC);
}

/* The kernel cannot tell then where ".." leads, and has it asked again. */
static void renames_of_others_are_no_error(void **state)
{
    char dir[SCRATCH_PATH], sub[SCRATCH_PATH + 8];
    auto_close int fd = -1;

    (void)state;
    assert_true(scratch_make(dir, "path"));
    snprintf(sub, sizeof sub, "%s/sub", dir);
    assert_int_equal(mkdir(sub, 0700), 0);
    fd = open_in(dir, "sub/../sub", 20);
    assert_true(fd >= 0);
    assert_int_equal(calls, 21);
    assert_int_equal(open_in(dir, "sub/../../sub", 1), -EXDEV);
    assert_int_equal(symlinkat("sub", fd, "../link"), 0);
    assert_int_equal(open_in(dir, "link", 0), -ELOOP); /* not even to where it may lead */
    assert_int_equal(open_in(dir, "none", 0), -ENOENT);
    assert_int_equal(calls, 1);
    assert_int_equal(open_in(dir, "sub", 1000000), -EAGAIN); /* not for ever */
    assert_int_equal(scratch_remove(dir), 0);
}

static void a_name_that_begins_like_the_directory_is_not_below(void **state)
{
    static const struct {
        const char *path, *dir, *below;
    } rows[] = {
        { "/srv/images/a", "/srv/images", "a" },       { "/srv/images/a/b", "/srv/images/", "a/b" },
        { "/srv/images//a", "/srv/images//", "a" },    { "/a", "/", "a" },
        { "/srv/images2/a", "/srv/images", NULL },     { "/srv/images", "/srv/images", NULL },
        { "/srv/images/", "/srv/images", NULL },       { "/srv/image", "/srv/images", NULL },
        { "/other/srv/images/a", "/srv/images", NULL }
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        const char *below = path_below(rows[i].path, rows[i].dir);

        if (rows[i].below)
            assert_string_equal(below, rows[i].below);
        else
            assert_null(below);
    }
}

/* What is none is refused, and holds nobody up. */
static void a_small_file_is_a_string(void **state)
{
    char dir[SCRATCH_PATH], text[6] = "as is";
    auto_close int dir_fd = -1;
    int fd;

    (void)state;
    assert_true(scratch_make(dir, "path"));
    dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    fd = openat(dir_fd, "file", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, "seven!\n", 7), 7);
    close(fd);
    assert_int_equal(mkfifoat(dir_fd, "fifo", 0600), 0);
    assert_int_equal(symlinkat("file", dir_fd, "link"), 0);
    assert_int_equal(path_read_text(dir_fd, "none", text, sizeof text), -ENOENT);
    assert_int_equal(path_read_text(dir_fd, "fifo", text, sizeof text), -EINVAL);
    assert_int_equal(path_read_text(dir_fd, "link", text, sizeof text), -ELOOP);
    assert_string_equal(text, "as is");
    assert_int_equal(path_read_text(dir_fd, "file", text, sizeof text), 0);
    assert_string_equal(text, "seven");
    fd = path_open_regular(dir_fd, "file", O_RDWR, "file", NULL);
    assert_int_equal(fcntl(fd, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDWR);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    close(fd);
    assert_int_equal(scratch_remove(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(renames_of_others_are_no_error),
        cmocka_unit_test(a_name_that_begins_like_the_directory_is_not_below),
        cmocka_unit_test(a_small_file_is_a_string),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
