#include "agent/disk_base.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/node_internal.h"
#include "agent/node_snapshot.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"
#include "storage/image.h"
#include "storage/snapshot_store.h"

struct disk_base_file disk_base_file(const struct node *node, const struct disk_base *base)
{
    const struct image *image = base->image[0] ? node_find_image(node, base->image) : NULL;
    const struct snapshot *snapshot =
        base->snapshot[0] ? node_find_snapshot(node, base->snapshot) : NULL;
    struct disk_base_file file = { 0 };
    const struct snapshot_disk *disk =
        snapshot ? snapshot_find_disk(snapshot, base->disk, &file.index) : NULL;

    if (image) {
        file.image = image->head.instance;
        file.least_bytes = image->size_bytes;
        snprintf(file.uid, sizeof file.uid, "%s", image->head.uid);
    } else if (disk) {
        file.snapshot = snapshot->head.instance;
        file.is_delta = disk->format == VOLUME_DELTA;
        file.least_bytes = file.is_delta ? 0 : disk->size_bytes;
        snprintf(file.uid, sizeof file.uid, "%s.%u", snapshot->head.uid, file.index % 10);
    }
    return file;
}

static int open_file(const struct node *node, const struct disk_base_file *file, int *ret_fd,
                     struct error *err)
{
    if (file->image)
        return image_open(node->images, file->image, ret_fd, err);
    return snapshot_store_open_disk(node->snapshots, file->snapshot, file->index,
                                    file->is_delta ? VOLUME_DELTA : VOLUME_RAW, ret_fd, err);
}

/* One that lost its end, as in a copy of the state directory that broke off, would be a disk that
 * reads as zeroes from there on, with nothing wrong to be seen. */
int disk_base_open(const struct node *node, const struct disk_base_file *file, int *ret_fd,
                   struct error *err)
{
    auto_close int fd = -1;
    struct stat status;
    int result = open_file(node, file, &fd, err);

    if (result < 0)
        return result;
    if (fstat(fd, &status) < 0)
        return error_set(err, errno, "look at what the disk is made of: %s", strerror(errno));
    if ((uint64_t)status.st_size < file->least_bytes)
        return error_set(err, EBADMSG, "the %s is damaged: its file has %lld bytes, not %llu",
                         file->image ? "image" : "snapshot", (long long)status.st_size,
                         (unsigned long long)file->least_bytes);
    *ret_fd = take_fd(&fd);
    return 0;
}

json_t *disk_base_json(const struct disk_base *base)
{
    if (base->image[0])
        return json_pack("{s:s}", "image", base->image);
    if (base->snapshot[0])
        return json_pack("{s:s, s:s}", "snapshot", base->snapshot, "disk", base->disk);
    return json_null();
}

void disk_base_restore(struct disk_base *base, const json_t *json)
{
    snprintf(base->image, sizeof base->image, "%s", json_text(json, "image"));
    snprintf(base->snapshot, sizeof base->snapshot, "%s", json_text(json, "snapshot"));
    snprintf(base->disk, sizeof base->disk, "%s", json_text(json, "disk"));
}
