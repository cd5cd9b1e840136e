/* test_snapshot_disks.c - disks are copied while they are written to, and then what was marked: on
 * a tmpfs, which shares no blocks. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "agent/snapshot_disks.h"
#include "base/cleanup.h"
#include "base/delta_format.h"
#include "base/error.h"
#include "base/file_io.h"
#include "base/write_marks.h"
#include "tests/unit/scratch.h"

#define MIB        (1ull << 20)
#define DISK_BYTES (40 * MIB)
#define FILLED     (20 * MIB) /* more than is copied while a VM is held */
#define PLACE      5

struct fixture {
    char path[SCRATCH_PATH];
    int volumes_fd, snapshots_fd, image_fd, fd; /* fd: of the volume */
    uint64_t start;                             /* where the disk begins in it */
    struct volume_store *volumes;
    struct snapshot_store *snapshots;
    struct snapshot_disks disks;
    uint8_t *marks; /* of the disk */
    struct error err;
};

static bool is_delta; /* what the disk is, each in turn */

/* Which files were synced, in this order. */
static struct {
    ino_t files[32];
    size_t count;
} syncs;

int __wrap_fdatasync(int fd);
int __wrap_fdatasync(int fd)
{
    struct stat status;

    assert_int_equal(fstat(fd, &status), 0);
    assert_true(syncs.count < sizeof syncs.files / sizeof syncs.files[0]);
    syncs.files[syncs.count++] = status.st_ino;
    return 0;
}

static int make_directory(const struct fixture *f, const char *name)
{
    char path[SCRATCH_PATH + 16];

    snprintf(path, sizeof path, "%s/%s", f->path, name);
    assert_int_equal(mkdir(path, 0700), 0);
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void fill(const struct fixture *f, uint64_t at, uint64_t bytes, uint8_t value)
{
    static uint8_t buffer[1 << 20];

    memset(buffer, value, sizeof buffer);
    for (uint64_t done = 0; done < bytes; done += sizeof buffer)
        assert_int_equal(file_write_all(f->fd, buffer,
                                        bytes - done < sizeof buffer ? bytes - done : sizeof buffer,
                                        f->start + at + done),
                         0);
}

static void make_volume(struct fixture *f)
{
    const struct volume_source source = { .image_fd = f->image_fd,
                                          .image_uid = "uid",
                                          .clone = VOLUME_CLONE_DELTA };
    struct delta_header header;
    enum volume_format format;

    assert_int_equal(
        volume_create(f->volumes, 1, DISK_BYTES, is_delta ? &source : NULL, &format, &f->err), 0);
    assert_int_equal(format, is_delta ? VOLUME_DELTA : VOLUME_RAW);
    f->fd = openat(f->volumes_fd, is_delta ? "1.delta" : "1.raw", O_RDWR | O_CLOEXEC);
    assert_true(f->fd >= 0);
    if (is_delta) {
        assert_int_equal(delta_header_read(f->fd, f->image_fd, &header, &f->err), 0);
        f->start = delta_data_offset(&header);
    }
    f->disks = (struct snapshot_disks){
        .store = f->snapshots,
        .volumes = f->volumes,
        .instance = 2,
        .count = 1,
        .list[0] = { .index = 3,
                     .place = PLACE,
                     .volume = 1,
                     .format = is_delta ? VOLUME_DELTA : VOLUME_RAW },
        .marks.fd = -1,
    };
}

static int set_up(void **state)
{
    const struct keyed_digest_key key = { { 7 } };
    struct fixture *f = calloc(1, sizeof *f);
    auto_close int state_fd = -1, memory_fd = -1;

    if (!f || !scratch_make(f->path, "disks") || mount("disks", f->path, "tmpfs", 0, NULL) < 0)
        return -1;
    f->volumes_fd = make_directory(f, "volumes");
    f->snapshots_fd = make_directory(f, "snapshots");
    f->image_fd = openat(f->volumes_fd, "image", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (ftruncate(f->image_fd, MIB) < 0 ||
        volume_store_new(f->volumes_fd, &f->volumes, &f->err) < 0 ||
        snapshot_store_new(f->snapshots_fd, &key, &f->snapshots, &f->err) < 0 ||
        snapshot_store_begin(f->snapshots, 2, MIB, &state_fd, &memory_fd, &f->err) < 0)
        return -1;
    make_volume(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    snapshot_marks_free(&f->disks.marks);
    volume_store_free(f->volumes);
    snapshot_store_free(f->snapshots);
    close(f->fd);
    close(f->image_fd);
    close(f->volumes_fd);
    close(f->snapshots_fd);
    if (umount(f->path) < 0 || rmdir(f->path) < 0)
        return -1;
    free(f);
    return 0;
}

/* Of a disk on which there is much. */
static void prepare(struct fixture *f)
{
    fill(f, 0, FILLED, 1);
    assert_int_equal(snapshot_disks_prepare(&f->disks, &f->err), 0);
    assert_true(f->disks.marks.fd >= 0);
    for (unsigned i = 0; i < VMM_DISKS_MAX; i++)
        assert_int_equal(f->disks.marks.shifts[i], WRITE_MARK_SHIFT_MIN);
    f->marks = f->disks.marks.bytes + PLACE * WRITE_MARKS_OF_DISK;
}

/* The first byte in which the copy is not what the disk's file is; -1 if none, and both are as
 * long.
 */
static int64_t difference(const struct fixture *f)
{
    auto_close int fd = openat(f->snapshots_fd, is_delta ? "2.tmp/disk3.delta" : "2.tmp/disk3.raw",
                               O_RDONLY | O_CLOEXEC);
    struct stat one, other;
    static uint8_t a[4096], b[4096];

    assert_true(fd >= 0);
    assert_true(fstat(f->fd, &one) == 0 && fstat(fd, &other) == 0);
    for (off_t at = 0; at < one.st_size && at < other.st_size; at += sizeof a) {
        assert_int_equal(pread(f->fd, a, sizeof a, at), sizeof a);
        assert_int_equal(pread(fd, b, sizeof b, at), sizeof b);
        if (memcmp(a, b, sizeof a) != 0)
            return at;
    }
    return one.st_size == other.st_size ? -1 : one.st_size;
}

static void little_is_copied_in_one_go(void **state)
{
    struct fixture *f = *state;

    fill(f, 0, 15 * MIB, 1);
    assert_int_equal(snapshot_disks_prepare(&f->disks, &f->err), 0);
    assert_int_equal(f->disks.marks.fd, -1);
    assert_int_equal(snapshot_disks_copy(&f->disks, &f->err), 0);
    assert_false(f->disks.copied_ahead);
    assert_int_equal(difference(f), -1);
}

static void what_is_marked_is_copied_again_and_nothing_else(void **state)
{
    struct fixture *f = *state;

    prepare(f);
    assert_int_equal(snapshot_disks_copy_ahead(&f->disks, &f->err), 0);
    assert_true(f->disks.copied_ahead);
    assert_int_equal(difference(f), -1);
    assert_true(f->disks.done >= DISK_BYTES);
    fill(f, 3 * MIB, MIB, 2); /* without a mark */
    fill(f, 7 * MIB + 4096, 8192, 3);
    fill(f, 39 * MIB, MIB, 4);
    assert_int_equal(fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                               (off_t)(f->start + 9 * MIB), MIB),
                     0);
    write_marks_set(f->marks, WRITE_MARK_SHIFT_MIN, 7 * MIB + 4096, 8192);
    write_marks_set(f->marks, WRITE_MARK_SHIFT_MIN, 9 * MIB, MIB);
    write_marks_set(f->marks, WRITE_MARK_SHIFT_MIN, 39 * MIB, MIB);
    assert_int_equal(snapshot_disks_copy(&f->disks, &f->err), 0);
    assert_int_equal(difference(f), f->start + 3 * MIB);
    write_marks_set(f->marks, WRITE_MARK_SHIFT_MIN, 3 * MIB, 1);
    assert_int_equal(snapshot_disks_copy(&f->disks, &f->err), 0);
    assert_int_equal(difference(f), -1);
    for (size_t mark = 0; mark < WRITE_MARKS_OF_DISK; mark++)
        assert_int_equal(f->marks[mark], 0);
}

/* No mark tells of the bitmap of a delta. */
static void what_stands_before_the_disk_is_always_copied(void **state)
{
    struct fixture *f = *state;

    if (!is_delta)
        return; /* it begins with its file */
    prepare(f);
    assert_int_equal(snapshot_disks_copy_ahead(&f->disks, &f->err), 0);
    assert_int_equal(pwrite(f->fd, "\xff", 1, DELTA_BITMAP_OFFSET + 2), 1);
    assert_int_equal(snapshot_disks_copy(&f->disks, &f->err), 0);
    assert_int_equal(difference(f), -1);
}

/* Of a disk beside a much larger one, parts are as small as they were. */
static void each_disk_has_parts_of_its_own_size(void **state)
{
    struct fixture *f = *state;
    enum volume_format format;

    fill(f, 0, FILLED, 1);
    assert_int_equal(volume_create(f->volumes, 4, 128ull << 30, NULL, &format, &f->err), 0);
    f->disks.list[f->disks.count].volume = 4;
    f->disks.list[f->disks.count].place = 1;
    f->disks.list[f->disks.count++].format = format;
    assert_int_equal(snapshot_disks_prepare(&f->disks, &f->err), 0);
    assert_int_equal(f->disks.marks.shifts[1], WRITE_MARK_SHIFT_MIN + 1);
    assert_int_equal(f->disks.marks.shifts[PLACE], WRITE_MARK_SHIFT_MIN);
}

struct writer {
    const struct fixture *f;
    bool stop;
    unsigned writes;
};

/* As a VMM: marks once the write has ended. */
static void *write_on(void *argument)
{
    struct writer *writer = argument;
    const struct fixture *f = writer->f;
    unsigned random = 1;

    while (!__atomic_load_n(&writer->stop, __ATOMIC_ACQUIRE)) {
        uint64_t at = (random = random * 1103515245 + 12345) / 65536 % (DISK_BYTES / 4096) * 4096;
        uint8_t bytes[4096];

        memset(bytes, (int)random, sizeof bytes);
        if (file_write_all(f->fd, bytes, sizeof bytes, f->start + at) < 0)
            break;
        write_marks_set(f->marks, WRITE_MARK_SHIFT_MIN, at, sizeof bytes);
        __atomic_add_fetch(&writer->writes, 1, __ATOMIC_RELEASE);
    }
    return NULL;
}

static void await_writes(const struct writer *writer, unsigned writes)
{
    while (__atomic_load_n(&writer->writes, __ATOMIC_ACQUIRE) < writes)
        (void)sched_yield();
}

static void a_disk_that_is_written_to_all_the_time_is_copied_as_it_is_at_the_end(void **state)
{
    struct fixture *f = *state;
    struct writer writer = { .f = f };
    pthread_t thread;

    prepare(f);
    assert_int_equal(pthread_create(&thread, NULL, write_on, &writer), 0);
    await_writes(&writer, 1);
    assert_int_equal(snapshot_disks_copy_ahead(&f->disks, &f->err), 0);
    await_writes(&writer, __atomic_load_n(&writer.writes, __ATOMIC_ACQUIRE) + 64);
    __atomic_store_n(&writer.stop, true, __ATOMIC_RELEASE);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(difference(f) >= 0);
    assert_int_equal(snapshot_disks_copy(&f->disks, &f->err), 0);
    assert_int_equal(difference(f), -1);
}

/* Or the VMM would do it, which holds its guest meanwhile. */
static void what_was_written_meanwhile_is_on_its_way_too(void **state)
{
    struct fixture *f = *state;
    struct stat status;

    prepare(f);
    assert_int_equal(fstat(f->fd, &status), 0);
    syncs.count = 0;
    assert_int_equal(snapshot_disks_copy_ahead(&f->disks, &f->err), 0);
    assert_true(syncs.count > 0);
    assert_int_equal(syncs.files[syncs.count - 1], status.st_ino);
    syncs.count = 0;
    assert_int_equal(snapshot_disks_copy(&f->disks, &f->err), 0);
    assert_int_equal(syncs.count, 0);
}

static void a_copy_is_cancelled(void **state)
{
    struct fixture *f = *state;

    prepare(f);
    f->disks.cancelled = true;
    assert_int_equal(snapshot_disks_copy_ahead(&f->disks, &f->err), -ECANCELED);
    assert_false(f->disks.copied_ahead);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(little_is_copied_in_one_go),
        TEST(what_is_marked_is_copied_again_and_nothing_else),
        TEST(what_stands_before_the_disk_is_always_copied),
        TEST(a_disk_that_is_written_to_all_the_time_is_copied_as_it_is_at_the_end),
        TEST(each_disk_has_parts_of_its_own_size),
        TEST(what_was_written_meanwhile_is_on_its_way_too),
        TEST(a_copy_is_cancelled),
    };
    int failed = cmocka_run_group_tests_name("raw", tests, NULL, NULL);

    is_delta = true;
    return failed + cmocka_run_group_tests_name("delta", tests, NULL, NULL);
}
