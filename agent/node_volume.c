/* Volumes as resources; the work is storage/volume.h's, on the disk worker and on that for copies.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/labels.h"
#include "agent/node_change.h"
#include "agent/node_snapshot.h"
#include "agent/node_volume.h"
#include "agent/operation.h"
#include "agent/vm_fork.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/worker.h"
#include "storage/image.h"
#include "storage/volume.h"

/* Those that can be asked for; VOLUME_CLONE_BEST is for who does not ask. */
static const char *const clone_names[] = { "copy", "reflink", "delta" };
#define CLONE_OF_NAME(index) ((index) + VOLUME_CLONE_COPY)
_Static_assert(CLONE_OF_NAME(ARRAY_LENGTH(clone_names)) == VOLUME_CLONE_COUNT, "a name for each");

struct volume_job {
    struct node *node;
    struct volume *volume;
    uint32_t instance;
    bool is_fork;
    bool has_source;
    struct disk_base_file source;
    enum volume_clone clone;
    uint64_t size_bytes;
    struct volume_copy copy;
    enum volume_format format; /* results */
    uint64_t allocated_bytes;
};

/* Which image, or which disk of which snapshot or fork. */
static void parse_source(struct json_reader *reader, struct volume *volume)
{
    const char *const names[] = { "image", "snapshot", "disk", "fork" };
    char *const ids[] = { volume->source.image, volume->source.snapshot, volume->source.disk,
                          volume->fork };

    for (unsigned i = 0; i < ARRAY_LENGTH(names); i++) {
        const char *id = json_read_id(reader, names[i], JSON_OPTIONAL);

        snprintf(ids[i], ID_MAX + 1, "%s", id ? id : "");
    }
    if (volume->source.image[0] && volume->source.snapshot[0])
        json_reader_fail(reader, "snapshot", "cannot be together with an image");
    if (volume->fork[0] && disk_base_is_set(&volume->source))
        json_reader_fail(reader, "fork", "cannot be together with an image or a snapshot");
    if ((!volume->source.snapshot[0] && !volume->fork[0]) != !volume->source.disk[0])
        json_reader_fail(reader, "disk", "names a disk of the snapshot: both or neither");
}

static json_t *volume_spec_json(const struct volume *volume, const json_t *labels, bool protect)
{
    const struct disk_base *source = &volume->source;
    json_t *spec =
        json_pack("{s:b, s:o}", "delete_protection", protect, "labels", labels_copy(labels));
    int result = json_set_text(spec, "image", source->image) |
                 json_set_text(spec, "snapshot", source->snapshot) |
                 json_set_text(spec, "fork", volume->fork) |
                 json_set_text(spec, "disk", source->disk);

    if (volume->size_bytes > 0)
        result |= json_object_set_new(spec, "size_mib",
                                      json_integer((json_int_t)volume->size_bytes >> 20));
    if (volume->clone != VOLUME_CLONE_BEST)
        result |= json_set_text(spec, "clone", clone_names[volume->clone - VOLUME_CLONE_COPY]);
    return json_whole(spec, result);
}

static int volume_parse(const json_t *spec, struct resource **ret_resource, struct error *err)
{
    struct json_reader reader;
    struct volume *volume = calloc(1, sizeof *volume);
    const json_t *labels;
    int64_t size_mib;
    bool protect;
    int clone;

    if (!volume)
        return error_no_memory(err);
    json_reader_init(&reader, spec, "", err);
    parse_source(&reader, volume);
    size_mib = json_read_integer(&reader, "size_mib", 1, VOLUME_SIZE_MIB_MAX,
                                 volume->source.disk[0] ? JSON_OPTIONAL : JSON_REQUIRED, 0);
    clone =
        json_read_enum(&reader, "clone", clone_names, ARRAY_LENGTH(clone_names), JSON_NULLABLE, -1);
    if (clone >= 0 && !disk_base_is_set(&volume->source))
        json_reader_fail(&reader, "clone", "is for volumes with an image or a snapshot");
    labels = labels_read(&reader);
    protect = json_read_bool(&reader, "delete_protection", false);
    if (protect && volume->fork[0])
        json_reader_fail(&reader, "delete_protection", "is its VM's: it goes with that");
    if (json_reader_end(&reader) < 0) {
        free(volume);
        return reader.result;
    }
    volume->size_bytes = (uint64_t)size_mib << 20;
    volume->clone = clone < 0 ? VOLUME_CLONE_BEST : CLONE_OF_NAME(clone);
    volume->head.spec = volume_spec_json(volume, labels, protect);
    *ret_resource = &volume->head;
    return 0;
}

static int reserve_image(const struct node *node, const struct volume *volume, struct error *err)
{
    const char *id = volume->source.image;
    const struct image *image = node_find_image(node, id);

    if (!image || resource_is_leaving(&image->head))
        return error_field(err, EINVAL, "image", "image: there is no image %s", id);
    if (image->kind != IMAGE_DISK)
        return error_field(err, EINVAL, "image", "image: image %s is not a disk", id);
    if (image->state == PROGRESS_READY && image->size_bytes > volume->size_bytes)
        return error_field(err, EINVAL, "size_mib", "size_mib: image %s needs at least %llu MiB",
                           id, (unsigned long long)((image->size_bytes + (1 << 20) - 1) >> 20));
    return 0;
}

/* The size, where none is asked for, is the disk's. */
static int reserve_snapshot(const struct node *node, struct volume *volume, struct error *err)
{
    const struct disk_base *source = &volume->source;
    const struct snapshot *snapshot = node_find_snapshot(node, source->snapshot);
    const struct snapshot_disk *disk;
    unsigned index;

    if (!snapshot || resource_is_leaving(&snapshot->head))
        return error_field(err, EINVAL, "snapshot", "snapshot: there is no snapshot %s",
                           source->snapshot);
    if (snapshot->state == PROGRESS_FAILED)
        return error_field(err, EINVAL, "snapshot", "snapshot: snapshot %s failed",
                           source->snapshot);
    disk = snapshot_find_disk(snapshot, source->disk, &index);
    if (!disk)
        return error_field(err, EINVAL, "disk",
                           "disk: snapshot %s has no disk %s (those that the VM could only read "
                           "are not in it)",
                           source->snapshot, source->disk);
    if (disk->format == VOLUME_DELTA && volume->clone != VOLUME_CLONE_BEST)
        return error_field(err, EINVAL, "clone",
                           "clone: disk %s of snapshot %s is a delta, which can only be copied: "
                           "leave it out",
                           source->disk, source->snapshot);
    if (volume->size_bytes == 0)
        volume->size_bytes = disk->size_bytes;
    if (volume->size_bytes < disk->size_bytes)
        return error_field(err, EINVAL, "size_mib",
                           "size_mib: disk %s of snapshot %s needs at least %llu MiB", source->disk,
                           source->snapshot, (unsigned long long)disk->size_bytes >> 20);
    return 0;
}

static int volume_reserve(struct node *node, struct resource *resource, struct error *err)
{
    struct volume *volume = (struct volume *)resource;
    int result = 0;

    if (volume->fork[0] && volume->size_bytes > 0) /* later it may be: it can grow */
        return error_field(err, EINVAL, "size_mib", "size_mib: is that of the disk");
    if (volume->source.image[0])
        result = reserve_image(node, volume, err);
    else if (volume->source.snapshot[0])
        result = reserve_snapshot(node, volume, err);
    else if (volume->fork[0])
        result = vm_fork_reserve_volume(node, volume, err);
    volume->wanted_bytes = volume->size_bytes;
    if (result == 0 && volume->fork[0])
        return 0; /* its space was with the VM's */
    return result < 0 ? result : node_admit_disk(node, volume->size_bytes, "size_mib", err);
}

/* --- work --- */

static int copy_progress(void *context, uint64_t done, uint64_t size)
{
    struct volume_copy *copy = context;

    __atomic_store_n(&copy->done, done, __ATOMIC_RELAXED);
    __atomic_store_n(&copy->total, size, __ATOMIC_RELAXED);
    return __atomic_load_n(&copy->cancelled, __ATOMIC_RELAXED) ? -ECANCELED : 0;
}

static int run_create(void *argument, struct error *err)
{
    struct volume_job *job = argument;
    struct volume_source source = { .image_uid = job->source.uid,
                                    .is_delta = job->source.is_delta,
                                    .clone = job->clone,
                                    .progress = copy_progress,
                                    .context = &job->copy };
    auto_close int source_fd = -1;
    int result = 0;

    if (__atomic_exchange_n(&job->copy.taken, true, __ATOMIC_RELAXED))
        return error_set(err, ECANCELED, "it was taken back");
    if (job->is_fork) /* an earlier one is of another moment */
        result = volume_remove(job->node->volumes, job->instance, err);
    if (result == 0 && job->has_source)
        result = disk_base_open(job->node, &job->source, &source_fd, err);
    source.image_fd = source_fd;
    if (result == 0)
        result = volume_create(job->node->volumes, job->instance, job->size_bytes,
                               job->has_source ? &source : NULL, &job->format, err);
    /* It gets its name only when it is whole: an agent that ended then could not record it. */
    if (result == -EEXIST)
        result = volume_find(job->node->volumes, job->instance, &job->format, err);
    if (result == 0)
        volume_allocated_bytes(job->node->volumes, job->instance, &job->allocated_bytes, NULL);
    return result;
}

static int run_remove(void *argument, struct error *err)
{
    struct volume_job *job = argument;

    return volume_remove(job->node->volumes, job->instance, err);
}

/* A delta stands on what it began with, or on what that stands on. */
static void note_base(const struct node *node, struct volume *volume)
{
    const struct snapshot *snapshot = node_find_snapshot(node, volume->source.snapshot);
    const struct snapshot_disk *disk;
    unsigned index;

    volume->base = (struct disk_base){ 0 };
    if (volume->state != PROGRESS_READY || volume->format != VOLUME_DELTA)
        return;
    disk = snapshot ? snapshot_find_disk(snapshot, volume->source.disk, &index) : NULL;
    volume->base = disk && disk->format == VOLUME_DELTA ? disk->base : volume->source;
}

static void is_created(void *argument, int result, const struct error *err)
{
    struct volume_job *job = argument;
    struct volume *volume = job->volume;
    struct node *node = job->node;

    if (job->copy.taken_back) {
        free(job);
        return;
    }
    volume->job_running = false;
    volume->copy = NULL;
    if (node->ending && result == -ECANCELED) {
        free(job);
        return; /* the next agent begins it again */
    }
    volume->state = result < 0 ? PROGRESS_FAILED : PROGRESS_READY;
    volume->head.failure = result < 0 ? err->code : 0;
    volume->format = job->format;
    volume->allocated_bytes = job->allocated_bytes;
    note_base(node, volume);
    node_retry_over(&volume->head);
    snprintf(volume->reason, sizeof volume->reason, "%.150s",
             result == -ECANCELED ? "the copy was cancelled"
             : result < 0         ? err->message
                                  : "");
    if (result < 0 && !(result == -ECANCELED && volume->head.deleting))
        log_warning(node->log, "volume %s: %s", volume->head.id, err->message);
    free(job);
    if (volume->head.deleting) {
        volume_ops.remove(node, &volume->head);
        return;
    }
    node_save(node, &volume->head);
    node_wake_vms(node);
    if (volume->fork[0])
        vm_fork_tidy(node);
}

/* Its state stays as it is: the work is begun again. */
void volume_stuck(struct node *node, struct volume *volume, const char *work,
                  const struct error *err)
{
    snprintf(volume->reason, sizeof volume->reason, "%.150s", err->message);
    node_retry_later(node, &volume->head, work, err);
    node_save(node, &volume->head);
}

static void is_removed(void *argument, int result, const struct error *err)
{
    struct volume_job *job = argument;

    job->volume->job_running = false;
    if (result < 0)
        volume_stuck(job->node, job->volume, "remove", err);
    else
        node_gone(job->node, &job->volume->head);
    free(job);
}

static void submit(struct node *node, struct volume *volume, worker_run_fn *run,
                   worker_done_fn *done)
{
    struct volume_job *job = malloc(sizeof *job);
    struct worker *worker = node->disk_worker;
    struct error err = { 0 };

    if (!job) {
        error_set(&err, ENOMEM, "memory is short");
        volume_stuck(node, volume, "queue its work", &err);
        return;
    }
    *job = (struct volume_job){ .node = node,
                                .volume = volume,
                                .instance = volume->head.instance,
                                .is_fork = volume->fork[0] != '\0',
                                .has_source = disk_base_is_set(&volume->source),
                                .source = disk_base_file(node, &volume->source),
                                .clone = (enum volume_clone)volume->clone,
                                .size_bytes = volume->size_bytes };
    if (run == run_create && (job->clone == VOLUME_CLONE_COPY || job->source.is_delta))
        worker = node->copy_worker;
    if (worker_submit(worker, run, done, job, &err) < 0) {
        free(job);
        volume_stuck(node, volume, "queue its work", &err);
        return;
    }
    volume->job_running = true;
    if (run == run_create)
        volume->copy = &job->copy;
    operation_look(node, &volume->head);
}

static void fail_early(struct node *node, struct volume *volume, const char *reason)
{
    volume->state = PROGRESS_FAILED;
    snprintf(volume->reason, sizeof volume->reason, "%.150s", reason);
    node_save(node, &volume->head);
    node_wake_vms(node);
}

/* At once if it waits behind another's.  False: is_created tells. */
static bool stop_copy(struct volume *volume)
{
    struct volume_copy *copy = volume->copy;

    if (!copy)
        return !volume->job_running;
    if (__atomic_exchange_n(&copy->taken, true, __ATOMIC_RELAXED)) {
        __atomic_store_n(&copy->cancelled, true, __ATOMIC_RELAXED);
        return false;
    }
    copy->taken_back = true;
    volume->copy = NULL;
    volume->job_running = false;
    return true;
}

void volume_cancel(struct node *node, struct volume *volume)
{
    if (stop_copy(volume) && !node->ending) /* else the next agent begins it again */
        fail_early(node, volume, "the copy was cancelled");
}

/* How far what it begins with is; "" in ret_name: it begins with nothing. */
static enum progress_state source_state(const struct node *node, const struct volume *volume,
                                        char *ret_name, size_t size)
{
    const struct disk_base *source = &volume->source;
    const struct image *image = node_find_image(node, source->image);
    const struct snapshot *snapshot = node_find_snapshot(node, source->snapshot);

    ret_name[0] = '\0';
    if (volume->fork[0] && !source->snapshot[0])
        return PROGRESS_WORKING;
    if (!disk_base_is_set(source))
        return PROGRESS_READY;
    snprintf(ret_name, size, "%s %s", source->image[0] ? "image" : "snapshot",
             source->image[0] ? source->image : source->snapshot);
    return image ? image->state : snapshot ? snapshot->state : PROGRESS_FAILED;
}

/* Waits for its image or snapshot, if that is still made: node_wake_volumes calls again.  What has
 * not begun when this agent ends, the next one begins. */
static void volume_begin(struct node *node, struct resource *resource)
{
    struct volume *volume = (struct volume *)resource;
    char name[ID_MAX + 16];
    enum progress_state source = source_state(node, volume, name, sizeof name);

    if (volume->state == PROGRESS_READY) {
        volume_grow(node, volume);
        return;
    }
    if (volume->job_running || source == PROGRESS_WORKING || node->ending)
        return;
    if (source == PROGRESS_FAILED) {
        char reason[sizeof name + 16];

        snprintf(reason, sizeof reason, "%s is not there", name);
        fail_early(node, volume, reason);
        return;
    }
    submit(node, volume, run_create, is_created);
}

void node_wake_volumes(struct node *node)
{
    struct volume *volume;

    for (size_t i = 0; (volume = node_volume_at(node, i)); i++) {
        if (!volume->head.hidden && !volume->head.deleting && volume->state == PROGRESS_WORKING)
            volume_begin(node, &volume->head);
    }
}

void volume_make_fork(struct node *node, struct volume *volume, const struct snapshot *snapshot,
                      bool may_be_delta)
{
    unsigned index;
    const struct snapshot_disk *disk = snapshot_find_disk(snapshot, volume->source.disk, &index);

    memcpy(volume->source.snapshot, snapshot->head.id, sizeof volume->source.snapshot);
    volume->base = (struct disk_base){ 0 };
    volume->state = PROGRESS_WORKING;
    volume->clone = may_be_delta ? VOLUME_CLONE_BEST : VOLUME_CLONE_COPY;
    if (disk)
        volume->wanted_bytes = volume->size_bytes = disk->size_bytes;
    node_save(node, &volume->head);
    volume_begin(node, &volume->head);
}

const struct vm *volume_user(const struct node *node, const char *id, const struct vm *except)
{
    const struct vm *vm;

    for (size_t i = 0; (vm = node_vm_at(node, i)); i++) {
        if (vm != except && vm_uses_volume(vm, id))
            return vm;
    }
    return NULL;
}

static int volume_may_remove(struct node *node, const struct resource *resource, bool force,
                             struct error *err)
{
    const struct volume *volume = (const struct volume *)resource;
    const struct vm *fork = node_find_vm(node, volume->fork);
    /* A fork that goes takes it along. */
    const struct vm *user =
        volume_user(node, resource->id, fork && fork->head.deleting ? fork : NULL);

    (void)force;
    if (user)
        return error_set(err, EBUSY, "volume %s is in use by vm %s", resource->id, user->head.id);
    return 0;
}

static void volume_begin_remove(struct node *node, struct resource *resource)
{
    struct volume *volume = (struct volume *)resource;

    if (stop_copy(volume)) /* else is_created, or is_grown, goes on with it */
        submit(node, volume, run_remove, is_removed);
}

/* --- status --- */

static json_t *volume_status(const struct node *node, const struct resource *resource, bool stored)
{
    const struct volume *volume = (const struct volume *)resource;
    const struct vm *user = stored ? NULL : volume_user(node, resource->id, NULL);
    uint64_t allocated = volume->allocated_bytes;

    if (!stored && volume->state == PROGRESS_READY)
        volume_allocated_bytes(node->volumes, resource->instance, &allocated, NULL);
    return json_pack(
        "{s:s, s:o, s:o, s:s?, s:I, s:s?, s:I, s:o}", "state", resource_state_name(resource),
        "reason", json_reason(volume->reason), "operation", operation_link(node, resource),
        "format",
        volume->state == PROGRESS_READY ? volume_format_name((enum volume_format)volume->format)
                                        : NULL,
        "allocated_bytes", (json_int_t)allocated, "used_by", user ? user->head.id : NULL,
        "size_mib", (json_int_t)(volume->size_bytes >> 20), "base", disk_base_json(&volume->base));
}

static int volume_restore(struct resource *resource, const json_t *status, struct error *err)
{
    struct volume *volume = (struct volume *)resource;
    uint64_t has_bytes = (uint64_t)json_integer_value(json_object_get(status, "size_mib")) << 20;
    int result = progress_restore(resource, status, &volume->state, volume->reason,
                                  sizeof volume->reason, err);

    if (result < 0)
        return result;
    volume->format = volume_format_parse(json_text(status, "format"));
    volume->allocated_bytes =
        (uint64_t)json_integer_value(json_object_get(status, "allocated_bytes"));
    /* Its spec may want more than it has. */
    volume->wanted_bytes = volume->size_bytes > 0 ? volume->size_bytes : has_bytes;
    volume->size_bytes =
        volume->state == PROGRESS_READY && has_bytes > 0 ? has_bytes : volume->wanted_bytes;
    disk_base_restore(&volume->base, json_object_get(status, "base"));
    return 0;
}

const struct resource_ops volume_ops = {
    .parse = volume_parse,
    .reserve = volume_reserve,
    .begin = volume_begin,
    .may_remove = volume_may_remove,
    .remove = volume_begin_remove,
    .patch = change_patch_volume,
    .apply = change_apply_volume,
    .status = volume_status,
    .restore = volume_restore,
    .free = resource_free,
};
