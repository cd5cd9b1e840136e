/* Volumes as resources; the work is storage/volume.h's, on the disk worker. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/node_internal.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/worker.h"
#include "storage/image.h"
#include "storage/space.h"
#include "storage/volume.h"

#define VOLUME_SIZE_MIB_MAX (64ll << 20) /* 64 TiB */

/* Those that can be asked for; VOLUME_CLONE_BEST is for who does not ask. */
static const char *const clone_names[] = { "copy", "reflink", "delta" };
#define CLONE_OF_NAME(index) ((index) + VOLUME_CLONE_COPY)
_Static_assert(CLONE_OF_NAME(ARRAY_LENGTH(clone_names)) == VOLUME_CLONE_COUNT, "a name for each");

static const char *const format_names[VOLUME_FORMAT_COUNT] = {
    [VOLUME_RAW] = "raw",
    [VOLUME_DELTA] = "delta",
};

struct volume_job {
    struct node *node;
    struct volume *volume;
    uint32_t instance;
    uint32_t image; /* 0 = none */
    char image_uid[UID_TEXT];
    enum volume_clone clone;
    uint64_t size_bytes;
    enum volume_format format; /* results */
    uint64_t allocated_bytes;
};

static void volume_free(struct resource *resource)
{
    json_decref(resource->spec);
    free(resource);
}

static int volume_parse(const json_t *spec, struct resource **ret_resource, struct error *err)
{
    struct json_reader reader;
    struct volume *volume;
    const char *image;
    int64_t size_mib;
    int clone;

    json_reader_init(&reader, spec, "", err);
    size_mib = json_read_integer(&reader, "size_mib", 1, VOLUME_SIZE_MIB_MAX, JSON_REQUIRED, 0);
    image = json_read_id(&reader, "image", JSON_OPTIONAL);
    clone =
        json_read_enum(&reader, "clone", clone_names, ARRAY_LENGTH(clone_names), JSON_NULLABLE, -1);
    if (clone >= 0 && !image)
        json_reader_fail(&reader, "clone", "is for volumes with an image");
    if (json_reader_end(&reader) < 0)
        return reader.result;
    volume = calloc(1, sizeof *volume);
    if (!volume)
        return error_set(err, EAGAIN, "memory is short; try again");
    volume->size_bytes = (uint64_t)size_mib << 20;
    volume->head.spec = json_pack("{s:I}", "size_mib", (json_int_t)size_mib);
    if (image) {
        snprintf(volume->image, sizeof volume->image, "%s", image);
        json_object_set_new(volume->head.spec, "image", json_string(image));
    }
    volume->clone = clone < 0 ? VOLUME_CLONE_BEST : CLONE_OF_NAME(clone);
    if (clone >= 0)
        json_object_set_new(volume->head.spec, "clone", json_string(clone_names[clone]));
    *ret_resource = &volume->head;
    return 0;
}

static int volume_reserve(struct node *node, struct resource *resource, struct error *err)
{
    struct volume *volume = (struct volume *)resource;
    const struct resource_table *volumes = &node->tables[RESOURCE_VOLUME];
    uint64_t promised = 0;
    uint64_t total = 0;
    uint64_t available = 0;

    if (volume->image[0]) {
        const struct image *image = node_find_image(node, volume->image);

        if (!image || resource_is_leaving(&image->head))
            return error_field(err, EINVAL, "image", "image: there is no image %s", volume->image);
        if (image->kind != IMAGE_DISK)
            return error_field(err, EINVAL, "image", "image: image %s is not a disk",
                               volume->image);
        if (image->state == PROGRESS_READY && image->size_bytes > volume->size_bytes)
            return error_field(err, EINVAL, "size_mib",
                               "size_mib: image %s needs at least %llu MiB", volume->image,
                               (unsigned long long)((image->size_bytes + (1 << 20) - 1) >> 20));
    }
    for (size_t i = 0; i < volumes->count; i++)
        promised += ((const struct volume *)volumes->items[i])->size_bytes;
    if (space_filesystem(node->volumes_dir_fd, &total, &available, err) < 0)
        return -err->code;
    return space_admit(total, (uint64_t)node->config->disk_ratio_percent, promised,
                       volume->size_bytes, "size_mib", err);
}

/* --- work --- */

static int run_create(void *argument, struct error *err)
{
    struct volume_job *job = argument;
    struct volume_source source = { .image_uid = job->image_uid, .clone = job->clone };
    auto_close int image_fd = -1;
    int result = 0;

    if (job->image)
        result = image_open(job->node->images, job->image, &image_fd, err);
    source.image_fd = image_fd;
    if (result == 0)
        result = volume_create(job->node->volumes, job->instance, job->size_bytes,
                               job->image ? &source : NULL, &job->format, err);
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

static void is_created(void *argument, int result, const struct error *err)
{
    struct volume_job *job = argument;
    struct volume *volume = job->volume;
    struct node *node = job->node;

    volume->job_running = false;
    volume->state = result < 0 ? PROGRESS_FAILED : PROGRESS_READY;
    volume->format = job->format;
    volume->allocated_bytes = job->allocated_bytes;
    node_retry_over(&volume->head);
    snprintf(volume->reason, sizeof volume->reason, "%.150s", result < 0 ? err->message : "");
    if (result < 0)
        log_warning(node->log, "volume %s: %s", volume->head.id, err->message);
    free(job);
    if (volume->head.deleting) {
        volume_ops.remove(node, &volume->head);
        return;
    }
    node_save(node, &volume->head);
    node_wake_vms(node);
}

/* Its state stays as it is: the work is begun again. */
static void volume_stuck(struct node *node, struct volume *volume, const char *work,
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

static void submit(struct node *node, struct volume *volume, const struct image *image,
                   worker_run_fn *run, worker_done_fn *done)
{
    struct volume_job *job = malloc(sizeof *job);
    struct error err = { 0 };

    if (!job) {
        error_set(&err, ENOMEM, "memory is short");
        volume_stuck(node, volume, "queue its work", &err);
        return;
    }
    *job = (struct volume_job){ .node = node,
                                .volume = volume,
                                .instance = volume->head.instance,
                                .image = image ? image->head.instance : 0,
                                .clone = (enum volume_clone)volume->clone,
                                .size_bytes = volume->size_bytes };
    if (image)
        memcpy(job->image_uid, image->head.uid, sizeof job->image_uid);
    if (worker_submit(node->disk_worker, run, done, job, &err) < 0) {
        free(job);
        volume_stuck(node, volume, "queue its work", &err);
        return;
    }
    volume->job_running = true;
}

/* Waits for its image, if that is still imported: node_wake_volumes calls again. */
static void volume_begin(struct node *node, struct resource *resource)
{
    struct volume *volume = (struct volume *)resource;
    const struct image *image = volume->image[0] ? node_find_image(node, volume->image) : NULL;

    if (volume->job_running || (image && image->state == PROGRESS_WORKING))
        return;
    if (volume->image[0] && (!image || image->state == PROGRESS_FAILED)) {
        volume->state = PROGRESS_FAILED;
        snprintf(volume->reason, sizeof volume->reason, "image %s is not there", volume->image);
        node_save(node, resource);
        node_wake_vms(node);
        return;
    }
    submit(node, volume, image, run_create, is_created);
}

void node_wake_volumes(struct node *node)
{
    const struct resource_table *volumes = &node->tables[RESOURCE_VOLUME];

    for (size_t i = 0; i < volumes->count; i++) {
        struct volume *volume = (struct volume *)volumes->items[i];

        if (!volume->head.hidden && !volume->head.deleting && volume->state == PROGRESS_WORKING)
            volume_begin(node, &volume->head);
    }
}

static const struct vm *find_user(const struct node *node, const char *id)
{
    const struct resource_table *vms = &node->tables[RESOURCE_VM];

    for (size_t i = 0; i < vms->count; i++) {
        const struct vm *vm = (const struct vm *)vms->items[i];

        for (unsigned d = 0; d < vm->spec.disk_count; d++)
            if (strcmp(vm->spec.disks[d].volume, id) == 0)
                return vm;
    }
    return NULL;
}

static int volume_may_remove(struct node *node, const struct resource *resource, bool force,
                             struct error *err)
{
    const struct vm *user = find_user(node, resource->id);

    (void)force;
    if (user)
        return error_set(err, EBUSY, "volume %s is in use by vm %s", resource->id, user->head.id);
    return 0;
}

static void volume_begin_remove(struct node *node, struct resource *resource)
{
    struct volume *volume = (struct volume *)resource;

    if (!volume->job_running)
        submit(node, volume, NULL, run_remove, is_removed);
}

/* --- status --- */

static json_t *volume_status(const struct node *node, const struct resource *resource, bool stored)
{
    const struct volume *volume = (const struct volume *)resource;
    const struct vm *user = stored ? NULL : find_user(node, resource->id);
    uint64_t allocated = volume->allocated_bytes;

    if (!stored && volume->state == PROGRESS_READY)
        volume_allocated_bytes(node->volumes, resource->instance, &allocated, NULL);
    return json_pack(
        "{s:s, s:o, s:o, s:I, s:o}", "state",
        resource->deleting ? "deleting" : progress_state_name(volume->state, "creating"), "reason",
        volume->reason[0] ? json_string(volume->reason) : json_null(), "format",
        volume->state == PROGRESS_READY ? json_string(format_names[volume->format]) : json_null(),
        "allocated_bytes", (json_int_t)allocated, "used_by",
        user ? json_string(user->head.id) : json_null());
}

static int volume_restore(struct resource *resource, const json_t *status, struct error *err)
{
    struct volume *volume = (struct volume *)resource;
    const char *state = json_string_value(json_object_get(status, "state"));
    const char *reason = json_string_value(json_object_get(status, "reason"));
    const char *format = json_string_value(json_object_get(status, "format"));

    if (!state)
        return error_set(err, EINVAL, "it has no state");
    volume->head.deleting = strcmp(state, "deleting") == 0;
    volume->state = strcmp(state, "ready") == 0    ? PROGRESS_READY
                    : strcmp(state, "failed") == 0 ? PROGRESS_FAILED
                                                   : PROGRESS_WORKING;
    volume->format =
        format && strcmp(format, format_names[VOLUME_DELTA]) == 0 ? VOLUME_DELTA : VOLUME_RAW;
    volume->allocated_bytes =
        (uint64_t)json_integer_value(json_object_get(status, "allocated_bytes"));
    snprintf(volume->reason, sizeof volume->reason, "%s", reason ? reason : "");
    return 0;
}

const struct resource_ops volume_ops = {
    .parse = volume_parse,
    .reserve = volume_reserve,
    .begin = volume_begin,
    .may_remove = volume_may_remove,
    .remove = volume_begin_remove,
    .status = volume_status,
    .restore = volume_restore,
    .free = volume_free,
};
