#include "storage/volume.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/directory.h"
#include "base/error.h"
#include "base/path.h"
#include "storage/delta_file.h"
#include "storage/instance_name.h"
#include "storage/space.h"
#include "storage/trash.h"

#define UNDONE ".raw.tmp"
#define FIELD  "spec.size_mib"

static const char *const ready_suffixes[VOLUME_FORMAT_COUNT] = {
    [VOLUME_RAW] = ".raw",
    [VOLUME_DELTA] = ".delta",
};

struct volume_store {
    int dir_fd; /* borrowed */
};

static struct instance_name ready_name(uint32_t instance, enum volume_format format)
{
    return instance_name(instance, ready_suffixes[format]);
}

const char *volume_format_name(enum volume_format format)
{
    return ready_suffixes[format] + 1;
}

enum volume_format volume_format_parse(const char *name)
{
    return strcmp(name, volume_format_name(VOLUME_DELTA)) == 0 ? VOLUME_DELTA : VOLUME_RAW;
}

int volume_store_new(int volumes_dir_fd, struct volume_store **ret_store, struct error *err)
{
    struct volume_store *store = calloc(1, sizeof *store);

    if (!store)
        return error_set(err, ENOMEM, "no memory for the volume store");
    store->dir_fd = volumes_dir_fd;
    *ret_store = store;
    return 0;
}

struct volume_store *volume_store_free(struct volume_store *store)
{
    free(store);
    return NULL;
}

/* --- creation --- */

static int check_size(uint64_t size_bytes, const struct volume_source *source,
                      uint64_t *ret_image_bytes, struct error *err)
{
    struct stat status = { .st_size = 0 };

    if (size_bytes == 0 || size_bytes % VOLUME_BLOCK_BYTES != 0 || size_bytes > INT64_MAX)
        return error_field(err, EINVAL, FIELD, "a volume's size is a multiple of %d bytes",
                           VOLUME_BLOCK_BYTES);
    if (source && fstat(source->image_fd, &status) < 0)
        return error_set(err, errno, "look at the image: %s", strerror(errno));
    if (!(source && source->is_delta) && (uint64_t)status.st_size > size_bytes)
        return error_field(
            err, EINVAL, FIELD, "the image has %lld bytes: the volume must have at least %lld MiB",
            (long long)status.st_size, (long long)((status.st_size + (1 << 20) - 1) >> 20));
    *ret_image_bytes = (uint64_t)status.st_size;
    return 0;
}

/* -EOPNOTSUPP if the file system cannot, and fd is as it was. */
static int fill_reflink(int fd, const struct volume_source *source, struct error *err)
{
    int result = sparse_clone(source->image_fd, fd);

    if (result == -EOPNOTSUPP)
        return error_field(err, EOPNOTSUPP, "spec.clone",
                           "the file system cannot share blocks with the image: "
                           "\"delta\" and \"copy\" work everywhere");
    return result < 0 ? error_set(err, result, "clone the image: %s", strerror(-result)) : 0;
}

static int fill_delta(int fd, uint64_t size_bytes, const struct volume_source *source,
                      uint64_t image_bytes, enum volume_format *ret_format, struct error *err)
{
    int result = delta_file_init(fd, size_bytes, image_bytes, source->image_uid, err);

    if (result == 0)
        *ret_format = VOLUME_DELTA;
    return result;
}

/* Where no blocks are shared, what cannot fit is not begun: first it would take what is left from
 * all that write to theirs. */
static int fill_copy(int fd, const struct volume_source *source, uint64_t bytes, struct error *err)
{
    uint64_t total, available;
    struct stat status;
    int result = 0;

    if (fstat(source->image_fd, &status) < 0)
        return error_set(err, errno, "look at the image: %s", strerror(errno));
    if (!sparse_can_clone(source->image_fd, fd)) {
        result = space_filesystem(fd, &total, &available, err);
        if (result == 0)
            result = space_check_free(available, (uint64_t)status.st_blocks * 512, err);
    }
    return result < 0
               ? result
               : sparse_copy(source->image_fd, fd, bytes, source->progress, source->context, err);
}

/* Never smaller than it was. */
static int fill_copy_of_delta(int fd, uint64_t size_bytes, const struct volume_source *source,
                              uint64_t file_bytes, struct error *err)
{
    int result = fill_copy(fd, source, file_bytes, err);

    return result < 0 ? result : delta_file_grow(fd, size_bytes, err);
}

static int fill(int fd, uint64_t size_bytes, const struct volume_source *source,
                uint64_t image_bytes, enum volume_format *ret_format, struct error *err)
{
    enum volume_format format = source && source->is_delta ? VOLUME_DELTA : VOLUME_RAW;
    int result = 0;

    if (format == VOLUME_DELTA)
        result = fill_copy_of_delta(fd, size_bytes, source, image_bytes, err);
    else if (source && source->clone == VOLUME_CLONE_COPY)
        result = fill_copy(fd, source, image_bytes, err);
    else if (source && source->clone != VOLUME_CLONE_DELTA)
        result = fill_reflink(fd, source, err);
    if (format == VOLUME_RAW && source &&
        (source->clone == VOLUME_CLONE_DELTA ||
         (source->clone == VOLUME_CLONE_BEST && result == -EOPNOTSUPP)))
        result = fill_delta(fd, size_bytes, source, image_bytes, &format, err);
    else if (result == 0 && format == VOLUME_RAW && ftruncate(fd, (off_t)size_bytes) < 0)
        result = error_set(err, errno, "set the volume's size: %s", strerror(errno));
    if (result == 0 && fsync(fd) < 0)
        result = error_set(err, errno, "sync the volume: %s", strerror(errno));
    if (result == 0)
        *ret_format = format;
    return result;
}

/* From undone to ready, never over one that is there. */
static int publish(const struct volume_store *store, uint32_t instance, enum volume_format format,
                   struct error *err)
{
    struct instance_name undone = instance_name(instance, UNDONE);
    struct instance_name ready = ready_name(instance, format);

    if (renameat2(store->dir_fd, undone.text, store->dir_fd, ready.text, RENAME_NOREPLACE) < 0)
        return error_set(err, errno, "name the volume: %s", strerror(errno));
    if (fsync(store->dir_fd) == 0)
        return 0;
    return error_set(err, errno, "sync the volumes' directory: %s", strerror(errno));
}

int volume_create(const struct volume_store *store, uint32_t instance, uint64_t size_bytes,
                  const struct volume_source *source, enum volume_format *ret_format,
                  struct error *err)
{
    struct instance_name undone = instance_name(instance, UNDONE);
    auto_close int fd = -1;
    enum volume_format format = VOLUME_RAW;
    uint64_t image_bytes = 0;
    int result = check_size(size_bytes, source, &image_bytes, err);

    if (result < 0)
        return result;
    if (volume_find(store, instance, &format, NULL) == 0)
        return error_set(err, EEXIST, "the volume is there already");
    /* Left by an agent that ended half-way. */
    if (unlinkat(store->dir_fd, undone.text, 0) < 0 && errno != ENOENT)
        return error_set(err, errno, "remove an unfinished volume: %s", strerror(errno));
    fd = openat(store->dir_fd, undone.text, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
                0600);
    if (fd < 0)
        return error_set(err, errno, "create the volume: %s", strerror(errno));
    result = fill(fd, size_bytes, source, image_bytes, &format, err);
    if (result == 0)
        result = publish(store, instance, format, err);
    if (result < 0)
        (void)unlinkat(store->dir_fd, undone.text, 0);
    else
        *ret_format = format;
    return result;
}

/* --- the rest of its life --- */

int volume_find(const struct volume_store *store, uint32_t instance, enum volume_format *ret_format,
                struct error *err)
{
    for (int format = 0; format < VOLUME_FORMAT_COUNT; format++) {
        struct instance_name ready = ready_name(instance, (enum volume_format)format);

        if (faccessat(store->dir_fd, ready.text, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
            *ret_format = (enum volume_format)format;
            return 0;
        }
    }
    return error_set(err, ENOENT, "the volume is not there");
}

int volume_remove(const struct volume_store *store, uint32_t instance, struct error *err)
{
    struct instance_name undone = instance_name(instance, UNDONE);
    int result = directory_unlink(store->dir_fd, undone.text);

    for (int format = 0; result == 0 && format < VOLUME_FORMAT_COUNT; format++)
        result =
            directory_unlink(store->dir_fd, ready_name(instance, (enum volume_format)format).text);
    if (result == 0 && fsync(store->dir_fd) < 0)
        result = -errno;
    return result < 0 ? error_set(err, result, "remove the volume: %s", strerror(-result)) : 0;
}

static int sweep_entry(void *context, int dir_fd, const char *name)
{
    const struct instance_set *keep = context;
    uint32_t instance;
    bool is_ready = false;

    if (instance_name_parse(name, UNDONE, &instance) == 0)
        return trash_move(dir_fd, name);
    for (int format = 0; !is_ready && format < VOLUME_FORMAT_COUNT; format++)
        is_ready = instance_name_parse(name, ready_suffixes[format], &instance) == 0;
    /* What we did not name is not ours. */
    return !is_ready || instance_set_has(keep, instance) ? 0 : trash_move(dir_fd, name);
}

int volume_sweep(const struct volume_store *store, const uint32_t *keep, size_t count,
                 struct error *err)
{
    struct instance_set kept = { keep, count };
    int result = directory_each(store->dir_fd, ".", sweep_entry, &kept);

    return result < 0 ? error_set(err, result, "sweep the volumes: %s", strerror(-result)) : 0;
}

static int open_plain(const struct volume_store *store, uint32_t instance,
                      enum volume_format format, int flags, struct error *err)
{
    return path_open_regular(store->dir_fd, ready_name(instance, format).text, flags,
                             "the volume's file", err);
}

/* Its fd, if it may grow so far. */
static int open_to_grow(const struct volume_store *store, uint32_t instance, uint64_t size_bytes,
                        int flags, enum volume_format *ret_format, struct error *err)
{
    struct stat status;
    int result = volume_find(store, instance, ret_format, err);
    auto_close int fd = result < 0 ? result : open_plain(store, instance, *ret_format, flags, err);

    if (fd < 0)
        return fd;
    if (fstat(fd, &status) < 0)
        return error_set(err, errno, "look at the volume's file: %s", strerror(errno));
    if (*ret_format == VOLUME_DELTA) {
        result = delta_file_check_growth(fd, size_bytes, err);
        return result < 0 ? result : take_fd(&fd);
    }
    if (size_bytes % VOLUME_BLOCK_BYTES != 0 || size_bytes > INT64_MAX)
        return error_field(err, EINVAL, FIELD, "a volume's size is a multiple of %d bytes",
                           VOLUME_BLOCK_BYTES);
    if (size_bytes < (uint64_t)status.st_size)
        return error_field(err, EINVAL, FIELD, "a volume can grow, but not shrink from %lld MiB",
                           (long long)(status.st_size >> 20));
    result = space_check_length(fd, 0, size_bytes, err);
    return result < 0 ? result : take_fd(&fd);
}

int volume_check_resize(const struct volume_store *store, uint32_t instance, uint64_t size_bytes,
                        struct error *err)
{
    enum volume_format format;
    auto_close int fd = open_to_grow(store, instance, size_bytes, O_RDONLY, &format, err);

    return fd < 0 ? fd : 0;
}

int volume_resize(const struct volume_store *store, uint32_t instance, uint64_t size_bytes,
                  struct error *err)
{
    enum volume_format format;
    auto_close int fd = open_to_grow(store, instance, size_bytes, O_RDWR, &format, err);

    if (fd < 0)
        return fd;
    if (format == VOLUME_DELTA)
        return delta_file_grow(fd, size_bytes, err);
    if (ftruncate(fd, (off_t)size_bytes) < 0 || fsync(fd) < 0)
        return error_set(err, errno, "grow the volume: %s", strerror(errno));
    return 0;
}

int volume_open(const struct volume_store *store, uint32_t instance, bool read_only, bool direct,
                const struct volume_base *base, int *ret_fd, struct error *err)
{
    int flags = (read_only ? O_RDONLY : O_RDWR) | (direct ? O_DIRECT : 0);
    int result = 0;
    auto_close int fd = open_plain(store, instance, base ? VOLUME_DELTA : VOLUME_RAW, flags, err);

    if (base && direct)
        return error_set(err, EINVAL, "cache none is for volumes that are no delta");
    if (fd == -EINVAL && direct)
        return error_wrap(err, "cache none may be impossible there");
    if (fd < 0)
        return fd;
    /* flock belongs to the open file description: copies of the fd in a VMM hold it, too. */
    if (flock(fd, (read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK)
            return error_set(err, EBUSY, "the volume is still open in another process");
        return error_set(err, errno, "lock the volume: %s", strerror(errno));
    }
    if (base)
        result = delta_file_check(fd, base->image_fd, base->image_uid, err);
    if (result == 0)
        *ret_fd = take_fd(&fd);
    return result;
}

int volume_open_held(const struct volume_store *store, uint32_t instance, enum volume_format format,
                     int *ret_fd, struct error *err)
{
    int fd = open_plain(store, instance, format, O_RDONLY, err);

    if (fd < 0)
        return fd;
    *ret_fd = fd;
    return 0;
}

int volume_allocated_bytes(const struct volume_store *store, uint32_t instance, uint64_t *ret_bytes,
                           struct error *err)
{
    enum volume_format format;
    struct stat status;
    int result = volume_find(store, instance, &format, err);

    if (result < 0)
        return result;
    if (fstatat(store->dir_fd, ready_name(instance, format).text, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return error_set(err, errno, "look at the volume: %s", strerror(errno));
    *ret_bytes = (uint64_t)status.st_blocks * 512;
    return 0;
}

uint64_t volume_file_bytes(uint64_t size_bytes, enum volume_format format)
{
    return format == VOLUME_DELTA ? delta_file_bytes_max(size_bytes) : size_bytes;
}
