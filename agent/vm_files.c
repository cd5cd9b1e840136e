#include "agent/vm_files.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "agent/node_internal.h"
#include "agent/vm_memory.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "storage/image.h"
#include "storage/volume.h"

/* Of a volume that another process seems to hold. */
#define VOLUME_WAIT_MS  2000
#define VOLUME_PAUSE_MS 2

static uint32_t instance_of(const struct image *image)
{
    return image ? image->head.instance : 0;
}

void vm_files_choose(const struct node *node, const struct vm *vm, struct vm_files *ret_files)
{
    const struct vm_spec *spec = &vm->spec;

    *ret_files = (struct vm_files){
        .kernel = instance_of(node_find_image(node, spec->kernel)),
        .initrd = spec->initrd[0] ? instance_of(node_find_image(node, spec->initrd)) : 0,
        .memory_backing = spec->memory_backing,
        .memory_bytes = (uint64_t)spec->memory_mib << 20,
        .disk_count = spec->disk_count,
    };
    for (unsigned i = 0; i < spec->disk_count; i++) {
        const struct volume *volume = node_find_volume(node, spec->disks[i].volume);
        struct vm_file_disk *disk = &ret_files->disks[i];
        const struct image *base = NULL;

        if (volume && volume->format == VOLUME_DELTA)
            base = node_find_image(node, volume->image);
        disk->volume = volume ? volume->head.instance : 0;
        disk->base = instance_of(base);
        if (base)
            memcpy(disk->base_uid, base->head.uid, sizeof disk->base_uid);
        disk->read_only = spec->disks[i].read_only;
        disk->direct = spec->disks[i].cache == VM_CACHE_NONE;
        if (volume && !disk->read_only) {
            uint64_t bytes =
                volume_file_bytes(volume->size_bytes, (enum volume_format)volume->format);

            if (bytes > ret_files->max_file_bytes)
                ret_files->max_file_bytes = bytes;
        }
    }
}

static int open_memory(struct vm_files *files, struct error *err)
{
    int result;

    if (!vmm_memory_has_file(files->memory_backing))
        return 0;
    result = vm_memory_open(files->memory_backing, files->memory_bytes, err);
    if (result < 0)
        return result;
    files->fds[files->count++] = result;
    return 0;
}

static int open_image(const struct node *node, uint32_t instance, struct vm_files *files,
                      struct error *err)
{
    int result = image_open(node->images, instance, &files->fds[files->count], err);

    files->count += result == 0;
    return result;
}

static int open_disk(const struct node *node, const struct vm_file_disk *disk,
                     struct vm_files *files, struct error *err)
{
    struct volume_base base = { .image_uid = disk->base_uid };
    int result = 0;

    if (disk->base) {
        result = open_image(node, disk->base, files, err);
        base.image_fd = files->fds[files->count - 1];
    }
    /* The kernel takes a VMM's rings down some milliseconds after its process has ended, and until
     * then they hold its volumes. */
    for (int waited_ms = 0; result == 0; waited_ms += VOLUME_PAUSE_MS) {
        result = volume_open(node->volumes, disk->volume, disk->read_only, disk->direct,
                             disk->base ? &base : NULL, &files->fds[files->count], err);
        if (result != -EBUSY || waited_ms >= VOLUME_WAIT_MS)
            break;
        usleep(VOLUME_PAUSE_MS * 1000);
        result = 0;
    }
    files->count += result == 0;
    return result;
}

int vm_files_open(const struct node *node, struct vm_files *files, struct error *err)
{
    int result;

    files->fds[0] = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    files->fds[VM_FILES_PAGE] = -1;
    files->count = 2;
    if (files->fds[0] < 0)
        return error_set(err, ENODEV, "open /dev/kvm: %s", strerror(errno));
    result = open_memory(files, err);
    if (result == 0)
        result = open_image(node, files->kernel, files, err);
    if (result == 0 && files->initrd)
        result = open_image(node, files->initrd, files, err);
    for (unsigned i = 0; result == 0 && i < files->disk_count; i++)
        result = open_disk(node, &files->disks[i], files, err);
    return result;
}

void vm_files_close(struct vm_files *files)
{
    for (unsigned i = 0; i < files->count; i++)
        cleanup_close(&files->fds[i]);
    files->count = 0;
}
