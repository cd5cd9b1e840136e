#include "storage/snapshot_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/directory.h"
#include "base/error.h"
#include "base/file_io.h"
#include "base/path.h"
#include "base/write_marks.h"
#include "storage/delta_file.h"
#include "storage/instance_name.h"
#include "storage/trash.h"

#define UNDONE     ".tmp"
#define HOLES      "holes"
#define OPEN_READ  (O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
#define OPEN_DIR   (O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
#define OPEN_WRITE (O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW)

struct snapshot_store {
    int dir_fd; /* borrowed */
    struct keyed_digest_key key;
};

struct disk_name {
    char text[24];
};

static struct disk_name disk_name(unsigned index, enum volume_format format)
{
    struct disk_name name;

    snprintf(name.text, sizeof name.text, "disk%u.%s", index, volume_format_name(format));
    return name;
}

static int is_whole(void *context, int dir_fd, const char *name)
{
    uint32_t instance;

    (void)context;
    (void)dir_fd;
    return instance_name_parse(name, "", &instance) == 0;
}

bool snapshot_store_has_any(int snapshots_dir_fd)
{
    return directory_each(snapshots_dir_fd, ".", is_whole, NULL) > 0;
}

int snapshot_store_new(int snapshots_dir_fd, const struct keyed_digest_key *key,
                       struct snapshot_store **ret_store, struct error *err)
{
    struct snapshot_store *store = calloc(1, sizeof *store);

    if (!store)
        return error_set(err, ENOMEM, "no memory for the snapshot store");
    store->dir_fd = snapshots_dir_fd;
    store->key = *key;
    *ret_store = store;
    return 0;
}

struct snapshot_store *snapshot_store_free(struct snapshot_store *store)
{
    free(store);
    return NULL;
}

/* --- making --- */

static int open_undone(const struct snapshot_store *store, uint32_t instance, struct error *err)
{
    int fd = openat(store->dir_fd, instance_name(instance, UNDONE).text, OPEN_DIR | O_CLOEXEC);

    return fd < 0 ? error_set(err, errno, "open the snapshot: %s", strerror(errno)) : fd;
}

int snapshot_store_begin(const struct snapshot_store *store, uint32_t instance,
                         uint64_t memory_bytes, int *ret_state_fd, int *ret_memory_fd,
                         struct error *err)
{
    struct instance_name undone = instance_name(instance, UNDONE);
    int result = directory_remove(store->dir_fd, undone.text);
    auto_close int dir_fd = -1, state_fd = -1, memory_fd = -1;

    if (result < 0)
        return error_set(err, result, "remove an unfinished snapshot: %s", strerror(-result));
    if (mkdirat(store->dir_fd, undone.text, 0700) < 0)
        return error_set(err, errno, "make the snapshot's directory: %s", strerror(errno));
    dir_fd = open_undone(store, instance, err);
    if (dir_fd < 0)
        return dir_fd;
    state_fd = openat(dir_fd, "state", OPEN_WRITE | O_CLOEXEC, 0600);
    memory_fd = openat(dir_fd, "memory", OPEN_WRITE | O_CLOEXEC, 0600);
    if (state_fd < 0 || memory_fd < 0 || ftruncate(memory_fd, (off_t)memory_bytes) < 0)
        return error_set(err, errno, "make the snapshot's files: %s", strerror(errno));
    *ret_state_fd = take_fd(&state_fd);
    *ret_memory_fd = take_fd(&memory_fd);
    return 0;
}

int snapshot_store_add_disk(const struct snapshot_store *store, uint32_t instance, unsigned index,
                            enum volume_format format, int from_fd, sparse_progress_fn *progress,
                            void *context, struct error *err)
{
    auto_close int dir_fd = open_undone(store, instance, err);
    auto_close int fd = -1;
    struct stat status;

    if (dir_fd < 0)
        return dir_fd;
    fd = openat(dir_fd, disk_name(index, format).text, OPEN_WRITE | O_CLOEXEC, 0600);
    if (fd < 0 || fstat(from_fd, &status) < 0)
        return error_set(err, errno, "copy a disk: %s", strerror(errno));
    return sparse_copy(from_fd, fd, (uint64_t)status.st_size, progress, context, err);
}

uint64_t snapshot_store_weigh_disk(const struct snapshot_store *store, uint32_t instance,
                                   int from_fd)
{
    auto_close int dir_fd = open_undone(store, instance, NULL);
    auto_close int fd = dir_fd < 0 ? -1 : openat(dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    struct stat status;

    if (fd < 0 || fstat(from_fd, &status) < 0 || sparse_can_clone(from_fd, fd) ||
        fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, SPARSE_BLOCK_BYTES) < 0)
        return 0;
    return (uint64_t)status.st_blocks * 512;
}

static int open_added(const struct snapshot_store *store, uint32_t instance, unsigned index,
                      enum volume_format format, struct error *err)
{
    auto_close int dir_fd = open_undone(store, instance, err);
    int fd;

    if (dir_fd < 0)
        return dir_fd;
    fd = openat(dir_fd, disk_name(index, format).text, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? error_set(err, errno, "open a disk's copy: %s", strerror(errno)) : fd;
}

int snapshot_store_sync_disk(const struct snapshot_store *store, uint32_t instance, unsigned index,
                             enum volume_format format, struct error *err)
{
    auto_close int fd = open_added(store, instance, index, format, err);

    if (fd < 0)
        return fd;
    return fdatasync(fd) < 0 ? error_set(err, errno, "sync a disk's copy: %s", strerror(errno)) : 0;
}

int snapshot_store_renew_disk(const struct snapshot_store *store, uint32_t instance, unsigned index,
                              enum volume_format format, int from_fd, uint8_t *marks,
                              unsigned shift, sparse_progress_fn *progress, void *context,
                              uint64_t *bytes, struct error *err)
{
    auto_close int fd = open_added(store, instance, index, format, err);
    uint64_t size, first = 0, start, end;
    struct stat status;
    int result = 0;

    if (fd < 0)
        return fd;
    if (fstat(from_fd, &status) < 0)
        return error_set(err, errno, "look at a disk: %s", strerror(errno));
    size = (uint64_t)status.st_size;
    if (format == VOLUME_DELTA)
        result = delta_file_start(from_fd, &first, err);
    if (result < 0)
        return result;
    if (first > 0) /* what stands before the disk in a delta is small, and not marked */
        result = sparse_copy_anew(from_fd, fd, 0, first, progress, context);
    for (size_t mark = 0; mark < WRITE_MARKS_OF_DISK && result == 0; mark++) {
        start = first + ((uint64_t)mark << shift);
        end = mark + 1 == WRITE_MARKS_OF_DISK ? size : first + ((uint64_t)(mark + 1) << shift);
        end = end < size ? end : size;
        if (start >= end || !write_mark_take(marks, mark))
            continue;
        result = sparse_copy_anew(from_fd, fd, start, end, progress, context);
        *bytes += end - start;
    }
    if (result == 0 && ftruncate(fd, (off_t)size) < 0)
        result = -errno;
    return result < 0 ? error_set(err, result, "copy a disk anew: %s", strerror(-result)) : 0;
}

/* --- thinning --- */

#define THIN_BYTES (1u << 20) /* at a time */

/* [at, end) of the file: whole blocks of zeroes become holes. */
static int punch_zeroes(int fd, uint64_t at, uint64_t end, unsigned char *buffer)
{
    while (at < end) {
        size_t want = end - at < THIN_BYTES ? (size_t)(end - at) : THIN_BYTES;
        size_t stop, size = SPARSE_BLOCK_BYTES;

        int result = file_read_all(fd, buffer, want, at);

        if (result < 0)
            return result;
        for (size_t start = 0; start + size <= want; start = stop + size) {
            for (stop = start; stop + size <= want && sparse_is_zero(buffer + stop, size);)
                stop += size;
            if (stop > start && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                          (off_t)(at + start), (off_t)(stop - start)) < 0)
                return errno == EOPNOTSUPP ? 0 : -errno;
        }
        at += want;
    }
    return 0;
}

/* From `at` on, before `end`: the next data of any of these, else none (`end`). */
static int next_data(const int *fds, size_t count, uint64_t at, uint64_t end, uint64_t *ret_start,
                     uint64_t *ret_end)
{
    *ret_start = end;
    *ret_end = end;
    for (size_t i = 0; i < count; i++) {
        uint64_t start, stop;
        int result = sparse_next_data(fds[i], at, end, &start, &stop);

        if (result < 0)
            return result;
        if (result > 0 && start < *ret_start) {
            *ret_start = start;
            *ret_end = stop;
        }
    }
    return 0;
}

static int thin(int fd, const int *parents, size_t count)
{
    auto_free unsigned char *buffer = malloc(THIN_BYTES);
    uint64_t start, end = 0, data, data_end;
    off_t size = lseek(fd, 0, SEEK_END);
    int result;

    if (!buffer || size < 0)
        return buffer ? -errno : -ENOMEM;
    while ((result = sparse_next_data(fd, end, (uint64_t)size, &start, &end)) > 0) {
        for (uint64_t at = start; at < end && result >= 0; at = data_end) {
            result = next_data(parents, count, at, end, &data, &data_end);
            if (result == 0)
                result = punch_zeroes(fd, at, data, buffer);
        }
        if (result < 0)
            break;
    }
    return result;
}

/* A copy that filled or made some would be another memory, with nothing wrong to be seen. */
static int note_holes(const struct snapshot_store *store, int dir_fd, int memory_fd,
                      struct error *err)
{
    auto_close int fd = -1;
    char digest[DIGEST_TEXT];
    int result = keyed_digest_holes(&store->key, memory_fd, digest, err);

    if (result < 0)
        return result;
    fd = openat(dir_fd, HOLES, OPEN_WRITE | O_CLOEXEC, 0600);
    result = fd < 0 ? -errno : file_write_all(fd, digest, DIGEST_TEXT - 1, 0);
    return result < 0 ? error_set(err, result, "note the holes of the snapshot's memory: %s",
                                  strerror(-result))
                      : 0;
}

int snapshot_store_thin(const struct snapshot_store *store, uint32_t instance,
                        const uint32_t *parents, size_t count, struct error *err)
{
    auto_close int dir_fd = open_undone(store, instance, err);
    auto_close int fd = dir_fd < 0 ? -1 : openat(dir_fd, "memory", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    int fds[SNAPSHOT_PARENTS_MAX];
    size_t opened = 0;
    int result = count <= SNAPSHOT_PARENTS_MAX ? 0 : -E2BIG;

    if (dir_fd < 0)
        return dir_fd;
    if (fd < 0)
        return error_set(err, errno, "open the snapshot's memory: %s", strerror(errno));
    while (result == 0 && opened < count) {
        result = snapshot_store_open_memory(store, parents[opened], &fds[opened], err);
        opened += result == 0;
    }
    if (result == 0)
        result = thin(fd, fds, count);
    for (size_t i = 0; i < opened; i++)
        close(fds[i]);
    if (result < 0)
        return error_set(err, result, "thin the snapshot: %s", strerror(-result));
    return note_holes(store, dir_fd, fd, err);
}

/* --- sealing --- */

static int sync_entry(void *context, int dir_fd, const char *name)
{
    auto_close int fd = openat(dir_fd, name, OPEN_READ | O_CLOEXEC);

    (void)context;
    return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

static int add_size(void *context, int dir_fd, const char *name)
{
    uint64_t *size_bytes = context;
    struct stat status;

    if (fstatat(dir_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    *size_bytes += (uint64_t)status.st_blocks * 512;
    return 0;
}

static int publish(const struct snapshot_store *store, uint32_t instance)
{
    struct instance_name undone = instance_name(instance, UNDONE);
    struct instance_name ready = instance_name(instance, "");
    auto_close int dir_fd = openat(store->dir_fd, undone.text, OPEN_DIR | O_CLOEXEC);
    int result = dir_fd < 0 ? -errno : directory_each(store->dir_fd, undone.text, sync_entry, NULL);

    if (result < 0)
        return result;
    if (fsync(dir_fd) < 0 ||
        renameat2(store->dir_fd, undone.text, store->dir_fd, ready.text, RENAME_NOREPLACE) < 0 ||
        fsync(store->dir_fd) < 0)
        return -errno;
    return 0;
}

int snapshot_store_seal(const struct snapshot_store *store, uint32_t instance,
                        struct snapshot_seal *ret_seal, struct error *err)
{
    struct instance_name ready = instance_name(instance, "");
    struct snapshot_seal seal = { 0 };
    auto_close int dir_fd = -1, state_fd = -1;
    int result = 0;

    if (snapshot_store_find(store, instance) < 0)
        result = publish(store, instance);
    if (result == 0)
        result = directory_each(store->dir_fd, ready.text, add_size, &seal.size_bytes);
    if (result < 0)
        return error_set(err, result, "sync the snapshot: %s", strerror(-result));
    dir_fd = openat(store->dir_fd, ready.text, OPEN_DIR | O_CLOEXEC);
    state_fd = dir_fd < 0 ? -1 : openat(dir_fd, "state", OPEN_READ | O_CLOEXEC);
    if (state_fd < 0)
        return error_set(err, errno, "open the snapshot's state: %s", strerror(errno));
    result = keyed_digest_file(&store->key, state_fd, SNAPSHOT_STATE_BYTES_MAX, seal.digest, err);
    if (result == 0)
        *ret_seal = seal;
    return result;
}

/* --- the rest of its life --- */

int snapshot_store_find(const struct snapshot_store *store, uint32_t instance)
{
    return faccessat(store->dir_fd, instance_name(instance, "").text, F_OK, AT_SYMLINK_NOFOLLOW) < 0
               ? -errno
               : 0;
}

int snapshot_store_remove(const struct snapshot_store *store, uint32_t instance, struct error *err)
{
    int result = directory_remove(store->dir_fd, instance_name(instance, UNDONE).text);

    if (result == 0)
        result = directory_remove(store->dir_fd, instance_name(instance, "").text);
    if (result == 0 && fsync(store->dir_fd) < 0)
        result = -errno;
    return result < 0 ? error_set(err, result, "remove the snapshot: %s", strerror(-result)) : 0;
}

static int sweep_entry(void *context, int dir_fd, const char *name)
{
    const struct instance_set *keep = context;
    uint32_t instance;

    if (instance_name_parse(name, UNDONE, &instance) == 0)
        return trash_move(dir_fd, name);
    /* What we did not name is not ours. */
    if (instance_name_parse(name, "", &instance) < 0 || instance_set_has(keep, instance))
        return 0;
    return trash_move(dir_fd, name);
}

int snapshot_store_sweep(const struct snapshot_store *store, const uint32_t *keep, size_t count,
                         struct error *err)
{
    struct instance_set kept = { keep, count };
    int result = directory_each(store->dir_fd, ".", sweep_entry, &kept);

    return result < 0 ? error_set(err, result, "sweep the snapshots: %s", strerror(-result)) : 0;
}

static int open_file(const struct snapshot_store *store, uint32_t instance, const char *name,
                     struct error *err)
{
    auto_close int dir_fd =
        openat(store->dir_fd, instance_name(instance, "").text, OPEN_DIR | O_CLOEXEC);
    char what[48];

    snprintf(what, sizeof what, "the snapshot's %s", name);
    return dir_fd < 0 ? error_set(err, errno, "open %s: %s", what, strerror(errno))
                      : path_open_regular(dir_fd, name, O_RDONLY, what, err);
}

static int check_holes(const struct snapshot_store *store, uint32_t instance, int memory_fd,
                       struct error *err)
{
    auto_close int fd = open_file(store, instance, HOLES, err);
    char noted[DIGEST_TEXT] = "", found[DIGEST_TEXT];
    int result;

    if (fd < 0) /* not there: it is full, where holes are zeroes; or an older version's */
        return fd == -ENOENT ? 0 : fd;
    result = keyed_digest_holes(&store->key, memory_fd, found, err);
    if (result < 0)
        return result;
    if (file_read_all(fd, noted, DIGEST_TEXT - 1, 0) < 0 || !digest_equal(found, noted))
        return error_set(err, EBADMSG,
                         "the memory of a differential snapshot has not the holes that it was "
                         "written with: copy it again, with tar --sparse");
    return 0;
}

int snapshot_store_open(const struct snapshot_store *store, uint32_t instance,
                        const char digest[DIGEST_TEXT], int *ret_state_fd, int *ret_memory_fd,
                        struct error *err)
{
    auto_close int state_fd = open_file(store, instance, "state", err);
    auto_close int memory_fd = -1;
    char found[DIGEST_TEXT];
    int result;

    if (state_fd < 0)
        return state_fd;
    result = snapshot_store_open_memory(store, instance, &memory_fd, err);
    if (result < 0)
        return result;
    result = keyed_digest_file(&store->key, state_fd, SNAPSHOT_STATE_BYTES_MAX, found, err);
    if (result < 0)
        return result;
    if (!digest_equal(found, digest))
        return error_set(err, EBADMSG,
                         "the snapshot's state is not what this node wrote: its digest is wrong");
    *ret_state_fd = take_fd(&state_fd);
    *ret_memory_fd = take_fd(&memory_fd);
    return 0;
}

int snapshot_store_open_memory(const struct snapshot_store *store, uint32_t instance, int *ret_fd,
                               struct error *err)
{
    auto_close int fd = open_file(store, instance, "memory", err);
    int result = fd < 0 ? fd : check_holes(store, instance, fd, err);

    if (result == 0)
        *ret_fd = take_fd(&fd);
    return result;
}

int snapshot_store_open_disk(const struct snapshot_store *store, uint32_t instance, unsigned index,
                             enum volume_format format, int *ret_fd, struct error *err)
{
    int fd = open_file(store, instance, disk_name(index, format).text, err);

    if (fd < 0)
        return fd;
    *ret_fd = fd;
    return 0;
}
