#include "storage/image.h"

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
#include "base/path.h"
#include "storage/image_internal.h"
#include "storage/instance_name.h"
#include "storage/trash.h"

#define FIELD "spec.source"

/* --- the store --- */

static int copy_text(const char *from, char **ret_to)
{
    char *copy = from ? strdup(from) : NULL;

    if (from && !copy)
        return -ENOMEM;
    *ret_to = copy;
    return 0;
}

static int copy_config(struct image_store *store, const struct image_store_config *config)
{
    int result = copy_text(config->fetch_root, &store->fetch_root);

    if (result == 0)
        result = copy_text(config->ca_file, &store->ca_file);
    if (result == 0)
        store->import_dirs = calloc(config->import_dir_count + 1, sizeof *store->import_dirs);
    if (!store->import_dirs)
        return -ENOMEM;
    for (size_t i = 0; i < config->import_dir_count && result == 0; i++) {
        result = copy_text(config->import_dirs[i], &store->import_dirs[i]);
        store->import_dir_count = i + 1;
    }
    return result;
}

int image_store_new(const struct image_store_config *config, struct image_store **ret_store,
                    struct error *err)
{
    struct image_store *store = calloc(1, sizeof *store);
    int result;

    if (!store)
        return error_set(err, ENOMEM, "no memory for the image store");
    store->dir_fd = config->images_dir_fd;
    store->uid = config->uid;
    store->gid = config->gid;
    store->allow_private = config->allow_private;
    store->speed_limit = config->speed_limit;
    store->speed_time = config->speed_time;
    store->log_fd = config->log_fd;
    store->fetch_fd = open(config->fetch_path, O_RDONLY | O_CLOEXEC);
    if (store->fetch_fd < 0)
        result = error_set(err, errno, "open %s: %s", config->fetch_path, strerror(errno));
    else if (copy_config(store, config) < 0)
        result = error_set(err, ENOMEM, "no memory for the image store");
    else
        result = 0;
    if (result < 0) {
        image_store_free(store);
        return result;
    }
    *ret_store = store;
    return 0;
}

struct image_store *image_store_free(struct image_store *store)
{
    if (!store)
        return NULL;
    image_imports_abort(store);
    for (size_t i = 0; i < store->import_dir_count; i++)
        free(store->import_dirs[i]);
    free(store->import_dirs);
    free(store->fetch_root);
    free(store->ca_file);
    cleanup_close(&store->fetch_fd);
    free(store);
    return NULL;
}

/* --- local sources --- */

static int refuse_source(int code, struct error *err)
{
    switch (code) {
    case -ENOENT:
    case -ENOTDIR:
        return error_field(err, ENOENT, FIELD, "there is no such file");
    case -ELOOP:
    case -EXDEV:
        return error_field(err, EINVAL, FIELD,
                           "the path has a symbolic link or '..' in it; give the file's own path");
    case -ENXIO:
        return error_field(err, EINVAL, FIELD, "the source is not a regular file");
    default:
        return error_field(err, code, FIELD, "the source cannot be opened: %s", strerror(-code));
    }
}

int image_source_open(const struct image_store *store, const char *path, int *ret_fd,
                      struct error *err)
{
    auto_close int fd = -1;
    const char *below = NULL;
    struct stat status;

    if (path[0] != '/')
        return error_field(err, EINVAL, FIELD,
                           "a path must be absolute, a URL begin with https://");
    for (size_t i = 0; i < store->import_dir_count && fd < 0; i++) {
        below = path_below(path, store->import_dirs[i]);
        if (!below)
            continue;
        fd = path_open_below(store->import_dirs[i], below,
                             O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* no FIFO holds us */
        if (fd < 0)
            return refuse_source(fd, err);
    }
    if (fd < 0)
        return error_field(err, EINVAL, FIELD,
                           "the path is not below a directory that the node imports from "
                           "(import-dir)");
    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode))
        return error_field(err, EINVAL, FIELD, "the source is not a regular file");
    *ret_fd = take_fd(&fd);
    return 0;
}

/* --- files --- */

int image_open(const struct image_store *store, uint32_t instance, int *ret_fd, struct error *err)
{
    int fd = openat(store->dir_fd, instance_name(instance, "/" IMAGE_CONTENT).text,
                    O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return error_set(err, errno, "open the image's file: %s", strerror(errno));
    *ret_fd = fd;
    return 0;
}

int image_remove(const struct image_store *store, uint32_t instance, struct error *err)
{
    int result = directory_remove(store->dir_fd, instance_name(instance, "").text);

    if (result == 0 && fsync(store->dir_fd) < 0)
        result = -errno;
    return result < 0 ? error_set(err, result, "remove the image's files: %s", strerror(-result))
                      : 0;
}

static int sweep_entry(void *context, int dir_fd, const char *name)
{
    const struct instance_set *keep = context;
    uint32_t instance;

    /* What we did not name is not ours. */
    if (instance_name_parse(name, "", &instance) < 0)
        return 0;
    if (!instance_set_has(keep, instance))
        return trash_move(dir_fd, name);
    return directory_unlink(dir_fd, instance_name(instance, "/" IMAGE_UNDONE).text);
}

int image_sweep(const struct image_store *store, const uint32_t *keep, size_t count,
                struct error *err)
{
    struct instance_set kept = { keep, count };
    int result = directory_each(store->dir_fd, ".", sweep_entry, &kept);

    return result < 0 ? error_set(err, result, "sweep the images: %s", strerror(-result)) : 0;
}

int image_undone_create(const struct image_store *store, uint32_t instance, int *ret_fd,
                        struct error *err)
{
    struct instance_name name = instance_name(instance, "");
    auto_close int dir_fd = -1;
    int result = directory_remove(store->dir_fd, name.text), fd;

    if (result == 0 && mkdirat(store->dir_fd, name.text, 0700) < 0)
        result = -errno;
    if (result < 0)
        return error_set(err, result, "make the image's directory: %s", strerror(-result));
    dir_fd = openat(store->dir_fd, name.text, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (dir_fd < 0)
        return error_set(err, errno, "open the image's directory: %s", strerror(errno));
    fd = openat(dir_fd, IMAGE_UNDONE, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return error_set(err, errno, "make the image's file: %s", strerror(errno));
    *ret_fd = fd;
    return 0;
}

int image_undone_finish(const struct image_store *store, uint32_t instance, int fd,
                        struct error *err)
{
    auto_close int dir_fd = openat(store->dir_fd, instance_name(instance, "").text,
                                   O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    int result = 0;

    if (dir_fd < 0 || fchmod(fd, 0400) < 0 || fsync(fd) < 0 ||
        renameat(dir_fd, IMAGE_UNDONE, dir_fd, IMAGE_CONTENT) < 0 || fsync(dir_fd) < 0 ||
        fsync(store->dir_fd) < 0)
        result = -errno;
    return result < 0 ? error_set(err, result, "store the image: %s", strerror(-result)) : 0;
}
