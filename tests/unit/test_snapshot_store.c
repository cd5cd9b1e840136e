/* The files of snapshots on a real file system: the one of the temporary directory. */
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
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "storage/snapshot_store.h"
#include "storage/trash.h"

#define MIB (1ull << 20)

struct fixture {
    char path[64];
    int dir_fd;
    struct snapshot_store *store;
    struct error err;
};

static int set_up(void **state)
{
    const struct keyed_digest_key key = { { 7 } };
    struct fixture *f = calloc(1, sizeof *f);

    if (!f)
        return -1;
    snprintf(f->path, sizeof f->path, "/tmp/warren-snapshots-XXXXXX");
    if (!mkdtemp(f->path))
        return -1;
    f->dir_fd = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *state = f;
    return snapshot_store_new(f->dir_fd, &key, &f->store, &f->err);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    int result = snapshot_store_sweep(f->store, NULL, 0, &f->err);

    if (result == 0)
        result = trash_empty(f->dir_fd, &f->err);
    close(f->dir_fd);
    snapshot_store_free(f->store);
    if (result < 0 || rmdir(f->path) < 0) /* a test cleans up what is not the store's */
        return -1;
    free(f);
    return 0;
}

static bool there_is(const struct fixture *f, const char *name)
{
    return faccessat(f->dir_fd, name, F_OK, 0) == 0;
}

/* Begins, and writes a state and one page of memory. */
static void begin(struct fixture *f, uint32_t instance)
{
    auto_close int state_fd = -1, memory_fd = -1;

    assert_int_equal(
        snapshot_store_begin(f->store, instance, 4 * MIB, &state_fd, &memory_fd, &f->err), 0);
    assert_int_equal(write(state_fd, "state", 5), 5);
    assert_int_equal(pwrite(memory_fd, "memory", 6, MIB), 6);
}

static void make(struct fixture *f, uint32_t instance, struct snapshot_seal *ret_seal)
{
    begin(f, instance);
    assert_int_equal(snapshot_store_seal(f->store, instance, ret_seal, &f->err), 0);
}

static void it_is_there_once_it_is_sealed(void **state)
{
    struct fixture *f = *state;
    struct snapshot_seal seal = { 0 }, again;
    auto_close int state_fd = -1, memory_fd = -1;
    struct stat status;

    begin(f, 3);
    assert_int_equal(snapshot_store_find(f->store, 3), -ENOENT);
    assert_int_equal(snapshot_store_open(f->store, 3, seal.digest, &state_fd, &memory_fd, &f->err),
                     -ENOENT);
    assert_int_equal(snapshot_store_seal(f->store, 3, &seal, &f->err), 0);
    assert_int_equal(snapshot_store_find(f->store, 3), 0);
    assert_false(there_is(f, "3.tmp"));
    assert_true(seal.size_bytes >= 8192 && seal.size_bytes < MIB);
    assert_int_equal(snapshot_store_seal(f->store, 3, &again, &f->err), 0);
    assert_string_equal(seal.digest, again.digest);
    assert_int_equal(snapshot_store_open(f->store, 3, seal.digest, &state_fd, &memory_fd, &f->err),
                     0);
    assert_int_equal(fcntl(state_fd, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDONLY);
    assert_int_equal(fstat(memory_fd, &status), 0);
    assert_int_equal(status.st_size, 4 * MIB);
    assert_int_equal(status.st_mode & 07777, 0600);
}

/* Who can write to the directory cannot make one. */
static void what_another_node_sealed_is_refused(void **state)
{
    const struct keyed_digest_key key = { { 8 } };
    struct fixture *f = *state;
    struct snapshot_store *other = NULL;
    struct snapshot_seal seal;
    auto_close int state_fd = -1, memory_fd = -1;

    make(f, 3, &seal);
    assert_int_equal(snapshot_store_new(f->dir_fd, &key, &other, &f->err), 0);
    assert_int_equal(snapshot_store_open(other, 3, seal.digest, &state_fd, &memory_fd, &f->err),
                     -EBADMSG);
    snapshot_store_free(other);
}

static void another_state_is_refused(void **state)
{
    struct fixture *f = *state;
    struct snapshot_seal seal;
    auto_close int state_fd = -1, memory_fd = -1;
    auto_close int fd = -1;

    make(f, 3, &seal);
    fd = openat(f->dir_fd, "3/state", O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "S", 1, 0), 1);
    assert_int_equal(snapshot_store_open(f->store, 3, seal.digest, &state_fd, &memory_fd, &f->err),
                     -EBADMSG);
    assert_int_equal(state_fd, -1);
    assert_int_equal(pwrite(fd, "s", 1, 0), 1);
    seal.digest[0] ^= 1;
    assert_int_equal(snapshot_store_open(f->store, 3, seal.digest, &state_fd, &memory_fd, &f->err),
                     -EBADMSG);
    seal.digest[0] ^= 1;
    assert_int_equal(ftruncate(fd, 64 * MIB), 0);
    assert_int_equal(snapshot_store_open(f->store, 3, seal.digest, &state_fd, &memory_fd, &f->err),
                     -EFBIG);
    assert_int_equal(unlinkat(f->dir_fd, "3/state", 0), 0);
    assert_int_equal(mkfifoat(f->dir_fd, "3/state", 0600), 0);
    assert_int_equal(snapshot_store_open(f->store, 3, seal.digest, &state_fd, &memory_fd, &f->err),
                     -EINVAL);
}

static void disks_are_copied_with_their_holes(void **state)
{
    struct fixture *f = *state;
    auto_close int disk = open(f->path, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    auto_close int copy = -1;
    struct snapshot_seal seal;
    struct stat status;
    char bytes[5] = "";

    assert_int_equal(ftruncate(disk, 64 * MIB), 0);
    assert_int_equal(pwrite(disk, "disk", 4, 32 * MIB), 4);
    begin(f, 3);
    assert_int_equal(snapshot_store_add_disk(f->store, 3, 1, VOLUME_RAW, disk, NULL, NULL, &f->err),
                     0);
    assert_int_equal(
        snapshot_store_add_disk(f->store, 3, 2, VOLUME_DELTA, disk, NULL, NULL, &f->err), 0);
    assert_int_equal(snapshot_store_add_disk(f->store, 4, 1, VOLUME_RAW, disk, NULL, NULL, &f->err),
                     -ENOENT);
    assert_int_equal(snapshot_store_seal(f->store, 3, &seal, &f->err), 0);
    assert_int_equal(snapshot_store_open_disk(f->store, 3, 1, VOLUME_DELTA, &copy, &f->err),
                     -ENOENT);
    assert_int_equal(snapshot_store_open_disk(f->store, 3, 1, VOLUME_RAW, &copy, &f->err), 0);
    assert_int_equal(pread(copy, bytes, 4, 32 * MIB), 4);
    assert_string_equal(bytes, "disk");
    assert_int_equal(fstat(copy, &status), 0);
    assert_int_equal(status.st_size, 64 * MIB);
    assert_true(status.st_blocks * 512ull < MIB);
}

static void what_was_begun_is_begun_anew(void **state)
{
    struct fixture *f = *state;
    struct snapshot_seal first, second;

    make(f, 1, &first);
    begin(f, 3);
    make(f, 3, &second);
    assert_string_equal(first.digest, second.digest); /* it has the same state, and only that */
}

static void a_sweep_takes_what_has_no_row_and_nothing_of_others(void **state)
{
    struct fixture *f = *state;
    const uint32_t keep[] = { 1, 3 };
    struct snapshot_seal seal;

    begin(f, 3);
    assert_int_equal(mkdirat(f->dir_fd, "04", 0700), 0);
    assert_int_equal(mkdirat(f->dir_fd, "5.bak", 0700), 0);
    assert_false(snapshot_store_has_any(f->dir_fd));
    make(f, 1, &seal);
    make(f, 2, &seal);
    assert_true(snapshot_store_has_any(f->dir_fd));
    assert_int_equal(snapshot_store_sweep(f->store, keep, 2, &f->err), 0);
    assert_true(there_is(f, "1"));
    assert_false(there_is(f, "2"));
    assert_false(there_is(f, "3.tmp"));
    assert_true(there_is(f, "trash/2/memory") && there_is(f, "trash/3.tmp/memory")); /* for later */
    assert_true(there_is(f, "04") && there_is(f, "5.bak"));
    assert_int_equal(unlinkat(f->dir_fd, "04", AT_REMOVEDIR), 0);
    assert_int_equal(unlinkat(f->dir_fd, "5.bak", AT_REMOVEDIR), 0);
}

/* 2 stands on 1, which has data at 1 MiB: zeroes there count, zeroes beside it are none. */
static void thinning_keeps_zeroes_over_data(void **state)
{
    struct fixture *f = *state;
    const uint32_t parents[] = { 1 };
    static const char zeroes[256 << 10];
    auto_close int state_fd = -1, memory_fd = -1;
    struct snapshot_seal seal;
    uint64_t start, end;

    make(f, 1, &seal);
    assert_int_equal(snapshot_store_begin(f->store, 2, 4 * MIB, &state_fd, &memory_fd, &f->err), 0);
    assert_int_equal(sparse_check_exact(memory_fd), 0);
    assert_int_equal(sparse_next_data(memory_fd, 0, 4 * MIB, &start, &end), 0);
    assert_int_equal(pwrite(memory_fd, zeroes, sizeof zeroes, MIB - 8192), sizeof zeroes);
    assert_int_equal(pwrite(memory_fd, zeroes, 4096, 0), 4096);
    assert_int_equal(pwrite(memory_fd, "x", 1, MIB + 65536), 1);
    assert_int_equal(pwrite(memory_fd, zeroes, 4096, 4 * MIB - 4096), 4096);
    assert_int_equal(snapshot_store_thin(f->store, 2, parents, 1, &f->err), 0);
    assert_int_equal(sparse_next_data(memory_fd, 0, 4 * MIB, &start, &end), 1);
    assert_int_equal(start, MIB);
    assert_int_equal(end, MIB + 4096);
    assert_int_equal(sparse_next_data(memory_fd, end, 4 * MIB, &start, &end), 1);
    assert_int_equal(start, MIB + 65536);
    assert_int_equal(end, MIB + 65536 + 4096);
    assert_int_equal(sparse_next_data(memory_fd, end, 4 * MIB, &start, &end), 0);
    assert_int_equal(snapshot_store_thin(f->store, 2, (const uint32_t[]){ 7 }, 1, &f->err),
                     -ENOENT);
    assert_int_equal(snapshot_store_thin(f->store, 2, parents, 1, &f->err), -EEXIST); /* noted */
}

static int open_memory(struct fixture *f, uint32_t instance)
{
    auto_close int fd = -1;

    return snapshot_store_open_memory(f->store, instance, &fd, &f->err);
}

/* Zeroes for a hole of a difference, or a hole for its zeroes, are another memory; for one of a
 * full snapshot they are the same. */
static void holes_that_are_others_are_found_out(void **state)
{
    struct fixture *f = *state;
    const uint32_t parents[] = { 1 };
    static const char zeroes[4096];
    auto_close int full = -1, fd = -1, noted = -1, state_fd = -1, memory_fd = -1;
    struct snapshot_seal seal;

    make(f, 1, &seal);
    full = openat(f->dir_fd, "1/memory", O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(full, zeroes, sizeof zeroes, 0), sizeof zeroes);
    assert_int_equal(open_memory(f, 1), 0);
    begin(f, 2);
    assert_int_equal(snapshot_store_thin(f->store, 2, parents, 1, &f->err), 0);
    assert_int_equal(snapshot_store_seal(f->store, 2, &seal, &f->err), 0);
    assert_int_equal(open_memory(f, 2), 0);
    fd = openat(f->dir_fd, "2/memory", O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(fd, zeroes, sizeof zeroes, 0), sizeof zeroes);
    assert_int_equal(open_memory(f, 2), -EBADMSG);
    assert_int_equal(snapshot_store_open(f->store, 2, seal.digest, &state_fd, &memory_fd, &f->err),
                     -EBADMSG);
    assert_non_null(strstr(f->err.message, "holes"));
    assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), 0);
    assert_int_equal(open_memory(f, 2), 0);
    assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, MIB, 4096), 0);
    assert_int_equal(open_memory(f, 2), -EBADMSG);
    assert_int_equal(pwrite(fd, "memory", 6, MIB), 6);
    assert_int_equal(open_memory(f, 2), 0);
    noted = openat(f->dir_fd, "2/holes", O_RDWR | O_TRUNC | O_CLOEXEC);
    assert_int_equal(open_memory(f, 2), -EBADMSG);
}

/* What keeps the holes from being looked at says nothing of them. */
static void a_want_of_descriptors_is_no_damage(void **state)
{
    struct fixture *f = *state;
    auto_close int lowest = -1;
    struct snapshot_seal seal;
    struct rlimit limit, few;
    int result;

    make(f, 1, &seal);
    begin(f, 2);
    assert_int_equal(snapshot_store_thin(f->store, 2, (const uint32_t[]){ 1 }, 1, &f->err), 0);
    assert_int_equal(snapshot_store_seal(f->store, 2, &seal, &f->err), 0);
    lowest = open("/", O_PATH | O_CLOEXEC);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    few = limit;
    few.rlim_cur = (rlim_t)lowest + 3; /* the memory, its directory */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    result = open_memory(f, 2);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(result, -EMFILE);
}

/* ramfs has no holes to be told from zeroes. */
static void a_file_system_without_holes_is_found_out(void **state)
{
    struct fixture *f = *state;
    auto_close int fd = -1;

    if (mount("warren-test", f->path, "ramfs", 0, "mode=700") < 0)
        skip();
    fd = open(f->path, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    assert_int_equal(umount2(f->path, MNT_DETACH), 0);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 4 * MIB), 0);
    assert_int_equal(sparse_check_exact(fd), -EOPNOTSUPP);
}

static void removal_can_be_repeated(void **state)
{
    struct fixture *f = *state;
    struct snapshot_seal seal;

    make(f, 3, &seal);
    assert_int_equal(snapshot_store_remove(f->store, 3, &f->err), 0);
    assert_int_equal(snapshot_store_remove(f->store, 3, &f->err), 0);
    begin(f, 3);
    assert_int_equal(snapshot_store_remove(f->store, 3, &f->err), 0);
    assert_false(there_is(f, "3") || there_is(f, "3.tmp"));
}

#define ON_A_STORE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_A_STORE(it_is_there_once_it_is_sealed),
        ON_A_STORE(what_another_node_sealed_is_refused),
        ON_A_STORE(another_state_is_refused),
        ON_A_STORE(disks_are_copied_with_their_holes),
        ON_A_STORE(what_was_begun_is_begun_anew),
        ON_A_STORE(a_sweep_takes_what_has_no_row_and_nothing_of_others),
        ON_A_STORE(thinning_keeps_zeroes_over_data),
        ON_A_STORE(holes_that_are_others_are_found_out),
        ON_A_STORE(a_want_of_descriptors_is_no_damage),
        ON_A_STORE(a_file_system_without_holes_is_found_out),
        ON_A_STORE(removal_can_be_repeated),
    };

    return cmocka_run_group_tests_name("snapshot_store", tests, NULL, NULL);
}
