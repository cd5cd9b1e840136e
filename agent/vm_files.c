#include "agent/vm_files.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "agent/jail.h"
#include "agent/node_internal.h"
#include "agent/node_snapshot.h"
#include "agent/vm_fork.h"
#include "agent/vm_memory.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "storage/image.h"
#include "storage/snapshot_store.h"
#include "storage/volume.h"

/* Of a volume that another process seems to hold; other starts wait as long. */
#define VOLUME_WAIT_MS  200
#define VOLUME_PAUSE_MS 2

#define GROW_FACTOR 4

#define START_LIMIT_MS 30000 /* loading a kernel from a slow disk included */

static uint32_t instance_of(const struct image *image)
{
    return image ? image->head.instance : 0;
}

enum vmm_memory_backing vm_files_backing(const struct vm *vm)
{
    /* Restored memory is files already, and can be forked as it is. */
    return vm->restore == VM_RESTORE_UNDER_WAY && vm->spec.memory_backing == VMM_MEMORY_SHARED
               ? VMM_MEMORY_ANONYMOUS
               : vm->spec.memory_backing;
}

int vm_files_limit_ms(const struct vm *vm)
{
    bool reads =
        vm->restore == VM_RESTORE_UNDER_WAY && vm_files_backing(vm) != VMM_MEMORY_ANONYMOUS;

    return START_LIMIT_MS + (reads ? vm_memory_file_ms(vm) : 0);
}

static void raise_to(uint64_t *bytes, uint64_t least)
{
    if (*bytes < least)
        *bytes = least;
}

/* Each file of a VMM may become as long as the longest, so a limit that can be raised is none too
 * many; else there is room to grow. */
static uint64_t file_room(const struct node *node, uint64_t bytes)
{
    return jail_may_raise_limits(node->jail) ? bytes : bytes * GROW_FACTOR;
}

void vm_files_choose_disk(const struct node *node, const struct vm_disk_spec *spec,
                          struct vm_file_disk *ret_disk)
{
    const struct volume *volume = node_find_volume(node, spec->volume);
    struct vm_file_disk disk = { .read_only = spec->read_only,
                                 .direct = spec->cache == VM_CACHE_NONE };

    memcpy(disk.id, spec->volume, sizeof disk.id);
    disk.volume = volume ? volume->head.instance : 0;
    disk.is_delta = volume && volume->format == VOLUME_DELTA;
    if (disk.is_delta)
        disk.base = disk_base_file(node, &volume->base);
    if (volume && !disk.read_only)
        disk.writable_bytes =
            volume_file_bytes(volume->wanted_bytes, (enum volume_format)volume->format);
    *ret_disk = disk;
}

void vm_files_choose(const struct node *node, const struct vm *vm, struct vm_files *ret_files)
{
    const struct vm_spec *spec = &vm->spec;
    const struct vm_spec *boot = vm_boot_spec(node, vm);

    *ret_files = (struct vm_files){
        .kernel = instance_of(node_find_image(node, boot->kernel)),
        .initrd = instance_of(node_find_image(node, boot->initrd)),
        .memory_backing = vm_files_backing(vm),
        .memory_bytes = vm_spec_memory_bytes(spec),
        .max_file_bytes = vm_spec_memory_bytes(spec),
    };
    raise_to(&ret_files->max_file_bytes, SNAPSHOT_STATE_BYTES_MAX);
    for (size_t i = 0; i < ARRAY_LENGTH(ret_files->fork_fds); i++)
        ret_files->fork_fds[i] = -1;
    memset(ret_files->vhost_fds, 0xff, sizeof ret_files->vhost_fds); /* all -1 */
    for (unsigned place = 0; place < VMM_NICS_MAX; place++) {
        const struct vm_nic_spec *nic = vm_nic_in_machine(vm, place);

        ret_files->vhost_queues[place] = nic && nic->vhost ? nic->queues : 0;
    }
    if (vm->restore == VM_RESTORE_UNDER_WAY && vm->fork) {
        vm_fork_files(vm, ret_files);
    } else if (vm->restore == VM_RESTORE_UNDER_WAY) {
        const struct snapshot *snapshot = node_find_snapshot(node, spec->snapshot);

        ret_files->snapshot = snapshot ? snapshot->head.instance : 0;
        if (snapshot)
            memcpy(ret_files->digest, snapshot->digest, sizeof ret_files->digest);
        ret_files->restore =
            snapshot ? (uint8_t)snapshot_chain(node, snapshot, ret_files->layers) : 1;
    }
    for (unsigned place = 0; place < VMM_DISKS_MAX; place++) {
        struct vm_file_disk *disk = &ret_files->disks[ret_files->disk_count];

        if (!vm_disk_in_machine(vm, place))
            continue;
        vm_files_choose_disk(node, vm_disk_at(vm, place), disk);
        raise_to(&ret_files->max_file_bytes, file_room(node, disk->writable_bytes));
        ret_files->disk_count++;
        ret_files->disk_places = place + 1;
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

static int open_image(const struct node *node, const char *what, uint32_t instance,
                      struct vm_files *files, struct error *err)
{
    int result = image_open(node->images, instance, &files->fds[files->count], err);

    files->count += result == 0;
    return result < 0 ? error_wrap(err, "%s", what) : 0;
}

/* As it was, or -EBADMSG. */
static int open_snapshot(const struct node *node, struct vm_files *files, struct error *err)
{
    auto_close int memory_fd = -1;
    int result = snapshot_store_open(node->snapshots, files->snapshot, files->digest,
                                     &files->fds[files->count], &memory_fd, err);

    files->count += result == 0;
    for (unsigned i = 0; result == 0 && i + 1u < files->restore; i++) {
        result = snapshot_store_open_memory(node->snapshots, files->layers[i],
                                            &files->fds[files->count], err);
        files->count += result == 0;
    }
    if (result == 0)
        files->fds[files->count++] = take_fd(&memory_fd);
    return result;
}

static int take_fork(struct vm_files *files, struct error *err)
{
    for (unsigned i = 0; i <= files->restore; i++) {
        if (files->fork_fds[i] < 0)
            return error_set(err, EMFILE, "take over a fork's files");
        files->fds[files->count++] = take_fd(&files->fork_fds[i]);
    }
    return 0;
}

int vm_files_open_disk(const struct node *node, const struct vm_file_disk *disk, int *ret_fds,
                       unsigned *count, struct error *err)
{
    struct volume_base base = { .image_uid = disk->base.uid };
    int result = 0;

    if (disk->is_delta) {
        result = disk_base_open(node, &disk->base, &ret_fds[*count], err);
        base.image_fd = ret_fds[*count];
        *count += result == 0;
    }
    /* The kernel takes a VMM's rings down some milliseconds after its process has ended, and until
     * then what they have under way holds its volumes.  A sync may take seconds: that is not waited
     * for here. */
    for (int waited_ms = 0; result == 0; waited_ms += VOLUME_PAUSE_MS) {
        result = volume_open(node->volumes, disk->volume, disk->read_only, disk->direct,
                             disk->is_delta ? &base : NULL, &ret_fds[*count], err);
        if (result != -EBUSY || waited_ms >= VOLUME_WAIT_MS)
            break;
        usleep(VOLUME_PAUSE_MS * 1000);
        result = 0;
    }
    *count += result == 0;
    return result < 0 ? error_wrap(err, "volume %s", disk->id) : 0;
}

void vm_files_open_vhost(unsigned queues, int ret_fds[VMM_QUEUES_MAX])
{
    bool good = true;

    for (unsigned i = 0; i < VMM_QUEUES_MAX; i++) {
        ret_fds[i] = i < queues ? open("/dev/vhost-net", O_RDWR | O_CLOEXEC) : -1;
        good = good && (i >= queues || ret_fds[i] >= 0);
    }
    for (unsigned i = 0; i < queues && !good; i++)
        cleanup_close(&ret_fds[i]);
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
    if (result == 0 && files->snapshot)
        result = open_snapshot(node, files, err);
    else if (result == 0 && files->restore)
        result = take_fork(files, err);
    else if (result == 0)
        result = open_image(node, "kernel", files->kernel, files, err);
    if (result == 0 && files->initrd && !files->restore)
        result = open_image(node, "initrd", files->initrd, files, err);
    for (unsigned i = 0; result == 0 && i < files->disk_count; i++) {
        result = vm_files_open_disk(node, &files->disks[i], files->fds, &files->count, err);
        files->busy_volume = result == -EBUSY ? files->disks[i].volume : 0;
    }
    for (unsigned i = 0; result == 0 && i < VMM_NICS_MAX; i++)
        vm_files_open_vhost(files->vhost_queues[i], files->vhost_fds[i]);
    return result;
}

void vm_files_close(struct vm_files *files)
{
    for (unsigned i = 0; i < files->count; i++)
        cleanup_close(&files->fds[i]);
    for (size_t i = 0; i < ARRAY_LENGTH(files->fork_fds); i++)
        cleanup_close(&files->fork_fds[i]);
    for (unsigned i = 0; i < VMM_NICS_MAX; i++)
        for (unsigned k = 0; k < VMM_QUEUES_MAX; k++)
            cleanup_close(&files->vhost_fds[i][k]);
    files->count = 0;
}

int vm_files_admit(struct error *err)
{
    /* The lowest that is free: all below it are used. */
    auto_close int lowest = open("/", O_PATH | O_CLOEXEC);
    struct rlimit limit;

    if (lowest < 0 || (getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
                       (rlim_t)lowest + VM_FILES_RESERVE >= limit.rlim_cur))
        return error_set(err, EMFILE,
                         "the node is short of file descriptors; try again, or raise their limit");
    return 0;
}
