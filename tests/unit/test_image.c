/* The image store's files and its rules for sources; imports themselves, but for one that fails at
 * once, are in tests/integration/storage. */
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
#include <unistd.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/loop.h"
#include "base/worker.h"
#include "storage/image.h"
#include "storage/image_internal.h"
#include "tests/unit/open_fds.h"
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

/* --- what takes long to close --- */

struct count {
    int told[2]; /* a pipe: that it is done */
    int open;
};

/* What the worker does next, before the loop hears that the import is over. */
static int count_open(void *job, struct error *err)
{
    struct count *count = job;

    (void)err;
    count->open = open_fds();
    return write(count->told[1], "", 1) == 1 ? 0 : -EIO;
}

static void is_counted(void *job, int result, const struct error *err)
{
    (void)job;
    (void)err;
    assert_int_equal(result, 0);
}

static void import_is_done(void *context, int result, const struct image_import_result *image,
                           const struct error *err)
{
    (void)image;
    (void)err;
    *(int *)context = result;
}

/* A large file that nobody keeps: who closes it last waits until its blocks are free. */
static void what_an_import_wrote_is_closed_by_the_worker(void **state)
{
    struct fixture *f = *state;
    char source[400];
    struct image_import_spec spec = {
        .instance = 9, .kind = IMAGE_DISK, .source = source, .done = import_is_done
    };
    struct image_import *import;
    struct count count;
    int result = 1, before;
    char byte;

    if (geteuid() != 0)
        skip();
    snprintf(source, sizeof source, "%s/file", f->import);
    in_import(f, "echo x >file");
    close(f->store->fetch_fd);
    f->store->fetch_fd = open("/bin/false", O_RDONLY | O_CLOEXEC); /* that writes nothing, even */
    assert_int_equal(pipe2(count.told, O_CLOEXEC), 0);
    assert_int_equal(loop_new(&spec.loop, &f->err), 0);
    assert_int_equal(worker_new(spec.loop, "disk", NULL, &spec.worker, &f->err), 0);
    spec.context = &result;
    before = open_fds();
    assert_int_equal(image_import_start(f->store, &spec, &import, &f->err), 0);
    while (image_import_stage(import) != IMAGE_IMPORT_STORING)
        assert_int_equal(loop_turn(spec.loop, -1, &f->err), 0);
    assert_int_equal(worker_submit(spec.worker, count_open, is_counted, &count, &f->err), 0);
    assert_int_equal(read(count.told[0], &byte, 1), 1);
    assert_int_equal(count.open, before);
    spec.worker = worker_free(spec.worker);
    assert_int_equal(result, -EIO);
    loop_free(spec.loop);
    close(count.told[0]);
    close(count.told[1]);
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
        ON_A_STORE(what_an_import_wrote_is_closed_by_the_worker),
    };

    return cmocka_run_group_tests_name("image", tests, NULL, NULL);
}
