/* Volumes on a real file system: that of $TMPDIR. */
#include <dirent.h>
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
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "storage/delta_file.h"
#include "storage/instance_name.h"
#include "storage/trash.h"
#include "storage/volume.h"
#include "tests/unit/scratch.h"

#define MIB (1ull << 20)

struct fixture {
    char path[SCRATCH_PATH];
    int dir_fd;
    struct volume_store *store;
    struct error err;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    if (!f || !scratch_make(f->path, "volumes"))
        return -1;
    f->dir_fd = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *state = f;
    return volume_store_new(f->dir_fd, &f->store, &f->err);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    scratch_remove(f->path);
    close(f->dir_fd);
    volume_store_free(f->store);
    free(f);
    return 0;
}

/* image: -1 = none */
static int create(struct fixture *f, uint32_t instance, uint64_t size, int image,
                  sparse_progress_fn *progress, void *context)
{
    struct volume_source source = { .image_fd = image,
                                    .image_uid = "uid",
                                    .clone = VOLUME_CLONE_COPY,
                                    .progress = progress,
                                    .context = context };
    enum volume_format format = VOLUME_FORMAT_COUNT;
    int result =
        volume_create(f->store, instance, size, image < 0 ? NULL : &source, &format, &f->err);

    assert_int_equal(format, result == 0 ? VOLUME_RAW : VOLUME_FORMAT_COUNT);
    return result;
}

static unsigned count_files(const struct fixture *f)
{
    DIR *dir = opendir(f->path);
    unsigned count = 0;

    while (readdir(dir))
        count++;
    closedir(dir);
    return count - 2;
}

/* 16 MiB: 1 MiB of noise at the start, at 5 MiB, and at the end; holes between.  Owned fd. */
static int make_image(const struct fixture *f)
{
    static unsigned char noise[MIB];
    int fd = openat(f->dir_fd, "image", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    srand(7);
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (unsigned char)rand();
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, noise, MIB, 0), MIB);
    assert_int_equal(pwrite(fd, noise, MIB, 5 * MIB), MIB);
    assert_int_equal(pwrite(fd, noise, MIB, 15 * MIB), MIB);
    assert_int_equal(fsync(fd), 0);
    return fd;
}

static void assert_same_bytes(int a, int b, uint64_t size)
{
    static unsigned char left[MIB], right[MIB];

    for (uint64_t at = 0; at < size; at += MIB) {
        assert_int_equal(pread(a, left, MIB, (off_t)at), MIB);
        assert_int_equal(pread(b, right, MIB, (off_t)at), MIB);
        assert_memory_equal(left, right, MIB);
    }
}

static void an_empty_volume_is_all_hole(void **state)
{
    struct fixture *f = *state;
    auto_close int fd = -1;
    uint64_t bytes = 1;
    struct stat status;

    assert_int_equal(create(f, 3, 1ull << 40, -1, NULL, NULL), 0);
    assert_int_equal(volume_allocated_bytes(f->store, 3, &bytes, &f->err), 0);
    assert_true(bytes <= 64 << 10);
    assert_int_equal(volume_open(f->store, 3, false, false, NULL, &fd, &f->err), 0);
    assert_int_equal(fstat(fd, &status), 0);
    assert_int_equal(status.st_size, 1ull << 40);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(fcntl(fd, F_GETFL) & (O_NONBLOCK | O_ACCMODE), O_RDWR);
    assert_int_equal(count_files(f), 1);
}

static void sizes_that_cannot_be_are_refused(void **state)
{
    static const uint64_t sizes[] = { 0, 1, 4095, 4097, 1ull << 63 };
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_LENGTH(sizes); i++) {
        assert_int_equal(create(f, 1, sizes[i], -1, NULL, NULL), -EINVAL);
        assert_string_equal(f->err.field, "spec.size_mib");
    }
    assert_int_equal(count_files(f), 0);
}

static void a_taken_instance_is_refused(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(create(f, 1, MIB, -1, NULL, NULL), 0);
    assert_int_equal(create(f, 1, MIB, -1, NULL, NULL), -EEXIST);
    assert_int_equal(count_files(f), 1);
}

static int count_progress(void *context, uint64_t done, uint64_t size)
{
    uint64_t *last = context;

    assert_true(done >= *last && done <= size);
    *last = done;
    return 0;
}

static void a_copy_has_the_bytes_and_keeps_the_holes(void **state)
{
    struct fixture *f = *state;
    auto_close int image = make_image(f);
    auto_close int fd = -1;
    uint64_t done = 0;
    uint64_t bytes;
    struct stat status;

    assert_int_equal(create(f, 2, 64 * MIB, image, count_progress, &done), 0);
    assert_int_equal(done, 16 * MIB);
    assert_int_equal(volume_open(f->store, 2, false, false, NULL, &fd, &f->err), 0);
    assert_int_equal(fstat(fd, &status), 0);
    assert_int_equal(status.st_size, 64 * MIB);
    assert_same_bytes(image, fd, 16 * MIB);
    assert_int_equal(volume_allocated_bytes(f->store, 2, &bytes, &f->err), 0);
    assert_in_range(bytes, 3 * MIB, 3 * MIB + MIB / 2);

    /* They share no fate. */
    assert_int_equal(pwrite(fd, "x", 1, 0), 1);
    assert_int_equal(pread(image, &(char){ 0 }, 1, 0), 1);
}

/* Where the file system can, a copy costs no space: said on stdout, because both are right. */
static void reflinks_are_used_where_there_are_any(void **state)
{
    struct fixture *f = *state;
    auto_close int image = make_image(f);
    auto_close int probe = openat(f->dir_fd, "probe", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    int result = sparse_clone(image, probe);
    struct statvfs before, after;

    if (result == -EOPNOTSUPP) {
        struct stat status;

        assert_int_equal(fstat(probe, &status), 0);
        assert_int_equal(status.st_size, 0);
        printf("reflink: not on this file system\n");
        return;
    }
    assert_int_equal(result, 0);
    assert_same_bytes(image, probe, 16 * MIB);
    sync();
    assert_int_equal(fstatvfs(f->dir_fd, &before), 0);
    for (uint32_t instance = 10; instance < 20; instance++)
        assert_int_equal(create(f, instance, 16 * MIB, image, NULL, NULL), 0);
    sync();
    assert_int_equal(fstatvfs(f->dir_fd, &after), 0);
    assert_true((before.f_bfree - after.f_bfree) * before.f_frsize < 10 * MIB);
    printf("reflink: shared\n");
}

static void an_image_larger_than_the_volume_is_refused(void **state)
{
    struct fixture *f = *state;
    auto_close int image = make_image(f);

    assert_int_equal(create(f, 1, 15 * MIB, image, NULL, NULL), -EINVAL);
    assert_string_equal(f->err.field, "spec.size_mib");
    assert_non_null(strstr(f->err.message, "at least 16 MiB"));
    assert_int_equal(count_files(f), 1);
}

static int stop_at_once(void *context, uint64_t done, uint64_t size)
{
    (void)context;
    (void)done;
    (void)size;
    return -ECANCELED;
}

static void a_stopped_copy_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    auto_close int image = make_image(f);

    assert_int_equal(create(f, 1, 16 * MIB, image, stop_at_once, NULL), -ECANCELED);
    assert_int_equal(count_files(f), 1);
}

static int count_calls(void *context, uint64_t done, uint64_t size)
{
    unsigned *calls = context;

    (void)done;
    (void)size;
    ++*calls;
    return 0;
}

/* On 5 MiB, of which the image has 3. */
static void a_copy_that_cannot_fit_takes_nothing(void **state)
{
    struct fixture *f = *state;
    unsigned calls = 0;

    assert_int_equal(mount("warren-test", f->path, "tmpfs", 0, "size=5m"), 0);
    close(f->dir_fd);
    f->dir_fd = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(umount2(f->path, MNT_DETACH), 0); /* it goes with what is open of it */
    volume_store_free(f->store);
    assert_int_equal(volume_store_new(f->dir_fd, &f->store, &f->err), 0);

    auto_close int image = make_image(f);

    assert_int_equal(create(f, 1, 16 * MIB, image, count_calls, &calls), -ENOSPC);
    assert_int_equal(calls, 0);
    assert_int_equal(ftruncate(image, MIB), 0);
    assert_int_equal(create(f, 1, 16 * MIB, image, count_calls, &calls), 0);
    assert_true(calls > 0);
}

static void leftovers_of_a_dead_agent_do_not_disturb(void **state)
{
    struct fixture *f = *state;
    auto_close int old = openat(f->dir_fd, "1.raw.tmp", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    assert_int_equal(write(old, "old", 3), 3);
    assert_int_equal(create(f, 1, MIB, -1, NULL, NULL), 0);
    assert_int_equal(count_files(f), 1);
}

static void a_symbolic_link_is_not_followed(void **state)
{
    struct fixture *f = *state;
    int fd = -1;

    assert_int_equal(symlinkat("/etc/passwd", f->dir_fd, "1.raw"), 0);
    assert_int_equal(symlinkat("/nowhere/file", f->dir_fd, "2.raw.tmp"), 0);
    assert_int_equal(mkfifoat(f->dir_fd, "3.raw", 0600), 0);
    assert_int_equal(volume_open(f->store, 1, true, false, NULL, &fd, &f->err), -ELOOP);
    assert_int_equal(create(f, 1, MIB, -1, NULL, NULL), -EEXIST);
    assert_int_equal(create(f, 2, MIB, -1, NULL, NULL), 0);
    assert_int_equal(volume_open(f->store, 3, true, false, NULL, &fd, &f->err), -EINVAL);
    assert_int_equal(volume_open(f->store, 4, true, false, NULL, &fd, &f->err), -ENOENT);
    assert_int_equal(fd, -1);
}

static void one_writer_or_many_readers(void **state)
{
    struct fixture *f = *state;
    auto_close int writer = -1;
    auto_close int copy = -1;
    auto_close int first = -1;
    auto_close int second = -1;

    assert_int_equal(create(f, 1, MIB, -1, NULL, NULL), 0);
    assert_int_equal(volume_open(f->store, 1, false, false, NULL, &writer, &f->err), 0);
    assert_int_equal(volume_open(f->store, 1, false, false, NULL, &first, &f->err), -EBUSY);
    assert_int_equal(volume_open(f->store, 1, true, false, NULL, &first, &f->err), -EBUSY);
    copy = fcntl(writer, F_DUPFD_CLOEXEC, 0); /* as a VMM has it */
    cleanup_close(&writer);
    assert_int_equal(volume_open(f->store, 1, true, false, NULL, &first, &f->err), -EBUSY);
    cleanup_close(&copy);
    assert_int_equal(volume_open(f->store, 1, true, false, NULL, &first, &f->err), 0);
    assert_int_equal(volume_open(f->store, 1, true, false, NULL, &second, &f->err), 0);
    assert_int_equal(volume_open(f->store, 1, false, false, NULL, &writer, &f->err), -EBUSY);
}

static void a_volume_only_grows(void **state)
{
    struct fixture *f = *state;
    auto_close int fd = -1;
    struct stat status;

    assert_int_equal(create(f, 1, 2 * MIB, -1, NULL, NULL), 0);
    assert_int_equal(volume_check_resize(f->store, 1, 8 * MIB, &f->err), 0);
    assert_int_equal(volume_check_resize(f->store, 1, MIB, &f->err), -EINVAL);
    assert_int_equal(volume_check_resize(f->store, 2, 8 * MIB, &f->err), -ENOENT);
    assert_int_equal(volume_resize(f->store, 1, 8 * MIB, &f->err), 0);
    assert_int_equal(volume_resize(f->store, 1, 8 * MIB, &f->err), 0);
    assert_int_equal(volume_resize(f->store, 1, MIB, &f->err), -EINVAL);
    assert_string_equal(f->err.field, "spec.size_mib");
    assert_int_equal(volume_resize(f->store, 1, 8 * MIB + 1, &f->err), -EINVAL);
    assert_int_equal(volume_resize(f->store, 2, 8 * MIB, &f->err), -ENOENT);
    assert_int_equal(volume_open(f->store, 1, false, false, NULL, &fd, &f->err), 0);
    assert_int_equal(fstat(fd, &status), 0);
    assert_int_equal(status.st_size, 8 * MIB);
}

static void removal_can_be_repeated(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(create(f, 1, MIB, -1, NULL, NULL), 0);
    assert_int_equal(volume_remove(f->store, 1, &f->err), 0);
    assert_int_equal(volume_remove(f->store, 1, &f->err), 0);
    assert_int_equal(count_files(f), 0);
}

static void make_file(const struct fixture *f, const char *name)
{
    auto_close int fd = openat(f->dir_fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
}

static void numbers_are_read_back_from_names_with_and_without_endings(void **state)
{
    uint32_t instance = 0;

    (void)state;
    assert_string_equal(instance_name(4294967295u, "/content.tmp").text, "4294967295/content.tmp");
    assert_int_equal(instance_name_parse("7.raw", ".raw", &instance), 0);
    assert_int_equal(instance, 7);
    assert_int_equal(instance_name_parse("7.raw", "", &instance), -EINVAL);
    assert_int_equal(instance_name_parse("8.anything", NULL, &instance), 0);
    assert_int_equal(instance, 8);
    assert_int_equal(instance_name_parse("9", NULL, &instance), 0);
    assert_int_equal(instance_name_parse("9x", NULL, &instance), -EINVAL);
    assert_int_equal(instance_name_parse("09.raw", NULL, &instance), -EINVAL);
    assert_int_equal(instance_name_parse("4294967296.raw", NULL, &instance), -EINVAL);
    assert_int_equal(instance_name_parse(".raw", NULL, &instance), -EINVAL);
}

static void a_sweep_takes_what_has_no_row_and_nothing_of_others(void **state)
{
    static const char *const swept[] = { "2.raw", "4294967295.raw", "1.raw.tmp", "7.raw.tmp" };
    static const char *const left[] = { "1.raw",  "3.raw",          "03.raw", "x.raw", ".raw",
                                        "5.rawx", "4294967296.raw", "5",      "-1.raw" };
    const uint32_t keep[] = { 3, 1 };
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_LENGTH(swept); i++)
        make_file(f, swept[i]);
    for (size_t i = 0; i < ARRAY_LENGTH(left); i++)
        make_file(f, left[i]);
    assert_int_equal(volume_sweep(f->store, keep, 2, &f->err), 0);
    assert_int_equal(faccessat(f->dir_fd, "trash/7.raw.tmp", F_OK, 0), 0); /* for later */
    assert_int_equal(faccessat(f->dir_fd, "trash/2.raw", F_OK, 0), 0);
    assert_int_equal(trash_empty(f->dir_fd, &f->err), 0);
    assert_int_equal(count_files(f), ARRAY_LENGTH(left));
    for (size_t i = 0; i < ARRAY_LENGTH(left); i++)
        assert_int_equal(faccessat(f->dir_fd, left[i], F_OK, 0), 0);
}

/* --- clones --- */

static int clone_as(struct fixture *f, uint32_t instance, int image, enum volume_clone clone,
                    enum volume_format *ret_format)
{
    struct volume_source source = { .image_fd = image, .image_uid = "uid", .clone = clone };

    return volume_create(f->store, instance, 64 * MIB, &source, ret_format, &f->err);
}

static void a_delta_costs_nothing_and_needs_its_image(void **state)
{
    struct fixture *f = *state;
    auto_close int image = make_image(f);
    const uint32_t keep = 1;
    struct volume_base base = { image, "uid" };
    struct volume_base other = { image, "another" };
    enum volume_format format = VOLUME_FORMAT_COUNT;
    auto_close int fd = -1;
    auto_close int second = -1;
    struct stat status;
    uint64_t bytes;

    assert_int_equal(clone_as(f, 1, image, VOLUME_CLONE_DELTA, &format), 0);
    assert_int_equal(format, VOLUME_DELTA);
    assert_int_equal(clone_as(f, 1, image, VOLUME_CLONE_COPY, &format), -EEXIST);
    assert_int_equal(volume_find(f->store, 1, &format, &f->err), 0);
    assert_int_equal(format, VOLUME_DELTA);
    assert_int_equal(volume_allocated_bytes(f->store, 1, &bytes, &f->err), 0);
    assert_true(bytes <= 16 << 10);
    assert_int_equal(volume_open(f->store, 1, false, false, NULL, &fd, &f->err), -ENOENT);
    assert_int_equal(volume_open(f->store, 1, false, false, &other, &fd, &f->err), -EINVAL);
    assert_int_equal(volume_open(f->store, 1, false, false, &base, &fd, &f->err), 0);
    assert_int_equal(volume_open(f->store, 1, true, false, &base, &second, &f->err), -EBUSY);
    assert_int_equal(fstat(fd, &status), 0);
    assert_int_equal(status.st_size, volume_file_bytes(64 * MIB, VOLUME_DELTA));
    assert_int_equal(volume_check_resize(f->store, 1, 128 * MIB, &f->err), 0);
    assert_int_equal(volume_check_resize(f->store, 1, (2ull << 20) * MIB, &f->err), -EFBIG);
    assert_string_equal(f->err.field, "spec.size_mib");
    assert_int_equal(volume_resize(f->store, 1, 128 * MIB, &f->err), 0);
    assert_int_equal(fstat(fd, &status), 0);
    assert_true((uint64_t)status.st_size <= volume_file_bytes(128 * MIB, VOLUME_DELTA));
    assert_int_equal(volume_resize(f->store, 1, 64 * MIB, &f->err), -EINVAL);
    assert_string_equal(f->err.field, "spec.size_mib");
    assert_int_equal(volume_sweep(f->store, &keep, 1, &f->err), 0);
    assert_int_equal(volume_find(f->store, 1, &format, &f->err), 0);
    assert_int_equal(volume_remove(f->store, 1, &f->err), 0);
    assert_int_equal(volume_find(f->store, 1, &format, &f->err), -ENOENT);
    assert_int_equal(clone_as(f, 2, image, VOLUME_CLONE_DELTA, &format), 0);
    assert_int_equal(volume_sweep(f->store, NULL, 0, &f->err), 0);
    assert_int_equal(volume_find(f->store, 2, &format, &f->err), -ENOENT);
    assert_int_equal(trash_empty(f->dir_fd, &f->err), 0);
    assert_int_equal(count_files(f), 1);
}

/* But it may be as large. */
static void a_delta_is_never_smaller_than_its_image(void **state)
{
    static const char uid[] = "0e03978e-40d5-43e8-bc93-6894a57f9324";
    auto_close int fd = memfd_create("delta", MFD_CLOEXEC);

    (void)state;
    assert_int_equal(delta_file_init(fd, MIB, MIB + 1, uid, NULL), -EINVAL);
    assert_int_equal(delta_file_init(fd, MIB + 512, MIB, uid, NULL), -EINVAL);
    assert_int_equal(delta_file_init(fd, 0, 0, uid, NULL), -EINVAL);
    assert_int_equal(delta_file_init(fd, MIB, MIB, uid, NULL), 0);
    assert_int_equal(delta_file_grow(fd, MIB, NULL), 0);
    assert_int_equal(delta_file_grow(fd, 2 * MIB, NULL), 0);
    assert_int_equal(delta_file_grow(fd, MIB, NULL), -EINVAL);
}

static void a_copy_of_a_delta_stands_on_the_same(void **state)
{
    struct fixture *f = *state;
    auto_close int image = make_image(f);
    struct volume_base base = { image, "uid" };
    enum volume_format format = VOLUME_FORMAT_COUNT;
    struct volume_source source = { .is_delta = true };
    auto_close int first = -1, held = -1, second = -1;
    char bytes[5] = "";

    assert_int_equal(clone_as(f, 1, image, VOLUME_CLONE_DELTA, &format), 0);
    assert_int_equal(volume_open(f->store, 1, false, false, &base, &first, &f->err), 0);
    assert_int_equal(pwrite(first, "data", 4, 40 * MIB), 4);
    assert_int_equal(volume_open_held(f->store, 1, VOLUME_RAW, &held, &f->err), -ENOENT);
    assert_int_equal(volume_open_held(f->store, 1, VOLUME_DELTA, &held, &f->err), 0);
    assert_int_equal(fcntl(held, F_GETFL) & O_ACCMODE, O_RDONLY);
    source.image_fd = held;
    assert_int_equal(volume_create(f->store, 2, 63 * MIB, &source, &format, &f->err), -EINVAL);
    assert_int_equal(volume_find(f->store, 2, &format, NULL), -ENOENT);
    format = VOLUME_FORMAT_COUNT;
    assert_int_equal(volume_create(f->store, 2, 96 * MIB, &source, &format, &f->err), 0);
    assert_int_equal(format, VOLUME_DELTA);
    assert_int_equal(volume_open(f->store, 2, false, false, &base, &second, &f->err), 0);
    assert_int_equal(pread(second, bytes, 4, 40 * MIB), 4);
    assert_string_equal(bytes, "data");
    source.image_fd = image; /* which is no delta */
    assert_int_equal(volume_create(f->store, 3, 96 * MIB, &source, &format, &f->err), -EINVAL);
    assert_int_equal(count_files(f), 3);
}

/* A hole of 100 GiB is as good as data here: nothing of it is looked at. */
static void a_large_image_is_cloned_without_a_copy(void **state)
{
    struct fixture *f = *state;
    auto_close int image = openat(f->dir_fd, "image", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct volume_source source = { .image_fd = image, .image_uid = "uid" };
    enum volume_format format = VOLUME_FORMAT_COUNT;
    uint64_t bytes;

    assert_int_equal(ftruncate(image, 100ll << 30), 0);
    source.clone = VOLUME_CLONE_DELTA;
    assert_int_equal(volume_create(f->store, 1, 200ull << 30, &source, &format, &f->err), 0);
    assert_int_equal(format, VOLUME_DELTA);
    assert_int_equal(volume_allocated_bytes(f->store, 1, &bytes, &f->err), 0);
    assert_true(bytes <= 16 << 10);
}

static void the_best_clone_is_a_reflink_or_else_a_delta(void **state)
{
    struct fixture *f = *state;
    auto_close int image = make_image(f);
    auto_close int probe = openat(f->dir_fd, "probe", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    bool can = sparse_clone(image, probe) == 0;
    enum volume_format format = VOLUME_FORMAT_COUNT;

    assert_int_equal(clone_as(f, 1, image, VOLUME_CLONE_BEST, &format), 0);
    assert_int_equal(format, can ? VOLUME_RAW : VOLUME_DELTA);
    assert_int_equal(clone_as(f, 2, image, VOLUME_CLONE_REFLINK, &format), can ? 0 : -EOPNOTSUPP);
    if (!can)
        assert_string_equal(f->err.field, "spec.clone");
    assert_int_equal(count_files(f), can ? 4 : 3);
}

static void zeros_are_not_written(void **state)
{
    static unsigned char bytes[64 << 10];
    static unsigned char back[64 << 10];
    struct fixture *f = *state;
    auto_close int fd = openat(f->dir_fd, "zeros", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct stat status;

    bytes[100] = bytes[8191] = bytes[60000] = 1;
    assert_int_equal(sparse_write(fd, bytes, sizeof bytes, 1000), 0);
    assert_int_equal(ftruncate(fd, 1000 + sizeof bytes), 0);
    assert_int_equal(pread(fd, back, sizeof back, 1000), sizeof back);
    assert_memory_equal(bytes, back, sizeof bytes);
    assert_int_equal(fstat(fd, &status), 0);
    assert_true(status.st_blocks * 512 <= 5 * 4096);
}

#define ON_A_STORE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_A_STORE(an_empty_volume_is_all_hole),
        ON_A_STORE(sizes_that_cannot_be_are_refused),
        ON_A_STORE(a_taken_instance_is_refused),
        ON_A_STORE(a_copy_has_the_bytes_and_keeps_the_holes),
        ON_A_STORE(reflinks_are_used_where_there_are_any),
        ON_A_STORE(an_image_larger_than_the_volume_is_refused),
        ON_A_STORE(a_stopped_copy_leaves_nothing),
        ON_A_STORE(a_copy_that_cannot_fit_takes_nothing),
        ON_A_STORE(leftovers_of_a_dead_agent_do_not_disturb),
        ON_A_STORE(a_symbolic_link_is_not_followed),
        ON_A_STORE(one_writer_or_many_readers),
        ON_A_STORE(a_volume_only_grows),
        ON_A_STORE(removal_can_be_repeated),
        cmocka_unit_test(numbers_are_read_back_from_names_with_and_without_endings),
        ON_A_STORE(a_sweep_takes_what_has_no_row_and_nothing_of_others),
        ON_A_STORE(a_delta_costs_nothing_and_needs_its_image),
        cmocka_unit_test(a_delta_is_never_smaller_than_its_image),
        ON_A_STORE(a_copy_of_a_delta_stands_on_the_same),
        ON_A_STORE(a_large_image_is_cloned_without_a_copy),
        ON_A_STORE(the_best_clone_is_a_reflink_or_else_a_delta),
        ON_A_STORE(zeros_are_not_written),
    };

    return cmocka_run_group_tests_name("volume", tests, NULL, NULL);
}
