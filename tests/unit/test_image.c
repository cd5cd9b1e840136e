/* The image store's files and its rules for sources; imports themselves are in
 * tests/integration/storage. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "storage/image.h"
#include "storage/image_internal.h"
#include "tests/unit/scratch.h"

struct fixture {
    char path[SCRATCH_PATH];
    char import[300];
    int images_fd;
    struct image_store *store;
    struct error err;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    const char *dirs[2];
    struct image_store_config config = { .import_dirs = dirs,
                                         .import_dir_count = 2,
                                         .fetch_path = "/proc/self/exe", /* never run here */
                                         .fetch_root = "/",
                                         .log_fd = -1 };
    char images[300];

    if (!f)
        return -1;
    if (!scratch_make(f->path, "images"))
        return -1;
    snprintf(images, sizeof images, "%s/images", f->path);
    snprintf(f->import, sizeof f->import, "%s/import", f->path);
    if (mkdir(images, 0700) < 0 || mkdir(f->import, 0700) < 0)
        return -1;
    f->images_fd = open(images, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    config.images_dir_fd = f->images_fd;
    dirs[0] = "/nowhere";
    dirs[1] = f->import;
    *state = f;
    return image_store_new(&config, &f->store, &f->err);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    image_store_free(f->store);
    close(f->images_fd);
    assert_int_equal(scratch_remove(f->path), 0);
    free(f);
    return 0;
}

static int check(struct fixture *f, const char *name, const char *sha256)
{
    char path[400];
    struct image_import_spec spec = { .kind = IMAGE_DISK, .source = path, .sha256 = sha256 };

    snprintf(path, sizeof path, "%s/%s", f->import, name);
    memset(&f->err, 0, sizeof f->err);
    return image_import_check(f->store, &spec, &f->err);
}

static int check_source(struct fixture *f, const char *source, bool is_url)
{
    struct image_import_spec spec = { .kind = IMAGE_DISK, .source = source, .is_url = is_url };

    memset(&f->err, 0, sizeof f->err);
    return image_import_check(f->store, &spec, &f->err);
}

static void in_import(const struct fixture *f, const char *command)
{
    char line[1000];

    snprintf(line, sizeof line, "cd '%s' && %s", f->import, command);
    assert_int_equal(system(line), 0);
}

static void paths_that_lead_out_are_refused(void **state)
{
    static const struct {
        const char *name;
        int result;
    } sources[] = {
        { "file", 0 },
        { "hard", 0 },
        { "dir/file", 0 },
        { "dir//file", 0 },
        { "dir/../file", 0 },
        { "link", -EINVAL },
        { "absolute", -EINVAL },
        { "up/outside", -EINVAL },
        { "../outside", -EINVAL },
        { "dir/../../outside", -EINVAL },
        { "../import/file", -EINVAL },
        { "proc", -EINVAL },
        { "fifo", -EINVAL },
        { "socket", -EINVAL },
        { "dir", -EINVAL },
        { ".", -EINVAL },
        { "", -EINVAL },
        { "none", -ENOENT },
        { "file/none", -ENOENT },
    };
    struct fixture *f = *state;

    in_import(f, "echo x >file && mkdir dir && echo x >dir/file && echo x >../outside && "
                 "ln ../outside hard && ln -s file link && ln -s /etc/passwd absolute && "
                 "ln -s .. up && ln -s /proc/self/root/etc/passwd proc && mkfifo fifo && "
                 "mknod socket c 1 3");
    for (size_t i = 0; i < ARRAY_LENGTH(sources); i++) {
        int result = check(f, sources[i].name, NULL);

        if (result != sources[i].result)
            fail_msg("%s: %d (%s)", sources[i].name, result, f->err.message);
        if (result < 0)
            assert_string_equal(f->err.field, "spec.source");
        assert_null(strstr(f->err.message, f->path));
    }
}

static void paths_elsewhere_are_refused(void **state)
{
    static const char *const paths[] = { "/etc/passwd", "etc/passwd", "", "/", "file", "./file" };
    struct fixture *f = *state;
    char beside[400];

    for (size_t i = 0; i < ARRAY_LENGTH(paths); i++) {
        assert_int_equal(check_source(f, paths[i], false), -EINVAL);
        assert_string_equal(f->err.field, "spec.source");
    }
    snprintf(beside, sizeof beside, "%s-2/file", f->import);
    assert_int_equal(check_source(f, beside, false), -EINVAL);
    assert_int_equal(check_source(f, "/nowhere/file", false), -ENOENT);
}

static void urls_are_looked_at(void **state)
{
    struct fixture *f = *state;
    char *lengthy = malloc(IMAGE_URL_MAX + 2);

    assert_int_equal(check_source(f, "https://example.org/a?b=c%20d", true), 0);
    assert_int_equal(check_source(f, "http://example.org/a", true), -EINVAL);
    assert_int_equal(check_source(f, "file:///etc/passwd", true), -EINVAL);
    assert_int_equal(check_source(f, "https://example.org/a b", true), -EINVAL);
    assert_int_equal(check_source(f, "https://example.org/a\r\nHost: x", true), -EINVAL);
    assert_int_equal(check_source(f, "https://ex\xc3\xa4mple.org/", true), -EINVAL);
    memset(lengthy, 'x', IMAGE_URL_MAX + 1);
    lengthy[IMAGE_URL_MAX + 1] = '\0';
    memcpy(lengthy, "https://", 8);
    assert_int_equal(check_source(f, lengthy, true), -EINVAL);
    lengthy[IMAGE_URL_MAX] = '\0';
    assert_int_equal(check_source(f, lengthy, true), 0);
    free(lengthy);
}

static void sums_are_looked_at(void **state)
{
    const char *good = "0123456789abcdefABCDEF00112233445566778899aabbccddeeff0011223344";
    struct fixture *f = *state;

    in_import(f, "echo x >file");
    assert_int_equal(check(f, "file", good), 0);
    assert_int_equal(check(f, "file", good + 1), -EINVAL);
    assert_string_equal(f->err.field, "spec.sha256");
    assert_int_equal(
        check(f, "file", "g123456789abcdefABCDEF00112233445566778899aabbccddeeff0011223344"),
        -EINVAL);
    assert_int_equal(check(f, "file", ""), -EINVAL);
}

static void an_image_is_there_once_it_is_finished(void **state)
{
    struct fixture *f = *state;
    auto_close int undone = -1;
    auto_close int fd = -1;
    struct stat status;
    char byte;

    assert_int_equal(image_undone_create(f->store, 9, &undone, &f->err), 0);
    assert_int_equal(write(undone, "a", 1), 1);
    assert_int_equal(image_open(f->store, 9, &fd, &f->err), -ENOENT);
    assert_int_equal(image_undone_finish(f->store, 9, undone, &f->err), 0);
    assert_int_equal(image_open(f->store, 9, &fd, &f->err), 0);
    assert_int_equal(fstat(fd, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0400);

    /* What is open stays. */
    assert_int_equal(image_remove(f->store, 9, &f->err), 0);
    assert_int_equal(image_remove(f->store, 9, &f->err), 0);
    assert_int_equal(pread(fd, &byte, 1, 0), 1);
    assert_int_equal(byte, 'a');
    cleanup_close(&fd);
    assert_int_equal(image_open(f->store, 9, &fd, &f->err), -ENOENT);
}

static void an_import_begun_again_replaces_what_was_left(void **state)
{
    struct fixture *f = *state;
    auto_close int first = -1;
    auto_close int second = -1;
    struct stat status;

    assert_int_equal(image_undone_create(f->store, 9, &first, &f->err), 0);
    assert_int_equal(write(first, "a", 1), 1);
    assert_int_equal(image_undone_create(f->store, 9, &second, &f->err), 0);
    assert_int_equal(fstat(second, &status), 0);
    assert_int_equal(status.st_size, 0);
}

static void make_image(struct fixture *f, uint32_t instance, bool finish)
{
    auto_close int fd = -1;

    assert_int_equal(image_undone_create(f->store, instance, &fd, &f->err), 0);
    if (finish)
        assert_int_equal(image_undone_finish(f->store, instance, fd, &f->err), 0);
}

static void a_sweep_takes_what_has_no_row_and_nothing_of_others(void **state)
{
    const uint32_t keep[] = { 5, 1, 6 };
    struct fixture *f = *state;

    make_image(f, 1, true);
    make_image(f, 2, true);
    make_image(f, 3, false);
    make_image(f, 5, false);
    assert_int_equal(mkdirat(f->images_fd, "other", 0700), 0);
    assert_int_equal(mkdirat(f->images_fd, "07", 0700), 0);
    assert_int_equal(image_sweep(f->store, keep, 3, &f->err), 0);
    assert_int_equal(faccessat(f->images_fd, "1/content", F_OK, 0), 0);
    assert_int_equal(faccessat(f->images_fd, "2", F_OK, 0), -1);
    assert_int_equal(faccessat(f->images_fd, "3", F_OK, 0), -1);
    assert_int_equal(faccessat(f->images_fd, "trash/2/content", F_OK, 0), 0); /* for later */
    assert_int_equal(faccessat(f->images_fd, "5/content.tmp", F_OK, 0), -1);
    assert_int_equal(faccessat(f->images_fd, "other", F_OK, 0), 0);
    assert_int_equal(faccessat(f->images_fd, "07", F_OK, 0), 0);
}

#define ON_A_STORE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_A_STORE(paths_that_lead_out_are_refused),
        ON_A_STORE(paths_elsewhere_are_refused),
        ON_A_STORE(urls_are_looked_at),
        ON_A_STORE(sums_are_looked_at),
        ON_A_STORE(an_image_is_there_once_it_is_finished),
        ON_A_STORE(an_import_begun_again_replaces_what_was_left),
        ON_A_STORE(a_sweep_takes_what_has_no_row_and_nothing_of_others),
    };

    return cmocka_run_group_tests_name("image", tests, NULL, NULL);
}
