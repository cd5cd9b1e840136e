/* Images as resources; the work is storage/image.h's: warren-fetch, then the disk worker. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/labels.h"
#include "agent/node_change.h"
#include "agent/node_snapshot.h"
#include "agent/operation.h"
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/worker.h"
#include "storage/image.h"

/* Processes of one import: what ends them all is not chance, but what is imported. */
#define IMPORTS_KILLED_MAX 3

static const char *const format_names[KERNEL_FORMAT_COUNT] = {
    [KERNEL_FORMAT_NONE] = "",
    [KERNEL_FORMAT_ELF] = "elf",
    [KERNEL_FORMAT_BZIMAGE] = "bzimage",
};

static bool is_url(const char *source)
{
    return strncmp(source, "https://", 8) == 0 || strncmp(source, "http://", 7) == 0;
}

/* --- parse --- */

static bool is_sha256(const char *text)
{
    return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

static int image_parse(const json_t *spec, struct resource **ret_resource, struct error *err)
{
    struct json_reader reader;
    struct image *image;
    const char *source;
    const char *format;
    const char *sha256;
    const json_t *labels;
    json_t *json;
    int kind;

    json_reader_init(&reader, spec, "", err);
    kind = json_read_enum(&reader, "kind", image_kind_names, IMAGE_KIND_COUNT, JSON_REQUIRED, 0);
    source = json_read_string(&reader, "source", IMAGE_URL_MAX, JSON_REQUIRED, "");
    format = json_read_string(&reader, "format", 16, JSON_OPTIONAL, NULL);
    sha256 = json_read_string(&reader, "sha256", 64, JSON_OPTIONAL, NULL);
    labels = labels_read(&reader);
    if (reader.result == 0 && source[0] != '/' && !is_url(source))
        json_reader_fail(&reader, "source", "must be an absolute path or an https:// URL");
    if (format && (kind != IMAGE_DISK || strcmp(format, "raw") != 0))
        json_reader_fail(&reader, "format", "must be \"raw\", and only for disks");
    if (sha256 && !is_sha256(sha256))
        json_reader_fail(&reader, "sha256", "must be 64 lower-case hexadecimal digits");
    if (json_reader_end(&reader) < 0)
        return reader.result;
    image = calloc(1, sizeof *image);
    if (!image)
        return error_no_memory(err);
    image->kind = kind;
    json = json_pack("{s:s, s:s, s:o}", "kind", image_kind_names[kind], "source", source, "labels",
                     labels_copy(labels));
    image->head.spec =
        json_whole(json, json_set_text(json, "format", kind == IMAGE_DISK ? "raw" : NULL) |
                             json_set_text(json, "sha256", sha256));
    *ret_resource = &image->head;
    return 0;
}

static struct image_import_spec import_spec(const struct image *image)
{
    const char *source = json_string_value(json_object_get(image->head.spec, "source"));

    return (struct image_import_spec){
        .instance = image->head.instance,
        .kind = (enum image_kind)image->kind,
        .source = source,
        .is_url = is_url(source),
        .sha256 = json_string_value(json_object_get(image->head.spec, "sha256")),
    };
}

static int image_reserve(struct node *node, struct resource *resource, struct error *err)
{
    struct image_import_spec spec = import_spec((struct image *)resource);

    return image_import_check(node->images, &spec, err);
}

/* --- work --- */

static void on_progress(void *context, uint64_t done, uint64_t total)
{
    struct image *image = context;

    image->done_bytes = done;
    image->total_bytes = total;
    operation_look(image->node, &image->head);
}

static void image_begin(struct node *node, struct resource *resource);

static void on_done(void *context, int result, const struct image_import_result *imported,
                    const struct error *err)
{
    struct image *image = context;
    struct node *node = image->node;

    image->import = NULL;
    if (image->head.deleting) {
        image_ops.remove(node, &image->head);
        return;
    }
    if (result == -IMAGE_IMPORT_KILLED && ++image->killed < IMPORTS_KILLED_MAX) {
        log_warning(node->log, "image %s: %s; it begins again", image->head.id, err->message);
        operation_interrupted(node, &image->head);
        image_begin(node, &image->head);
        operation_look(node, &image->head);
        return;
    }
    if (result < 0) {
        image->state = PROGRESS_FAILED;
        image->head.failure = err->code;
        snprintf(image->reason, sizeof image->reason, "%.150s", err->message);
        log_warning(node->log, "image %s: %s", image->head.id, err->message);
    } else {
        image->imported = true;
        image->size_bytes = imported->size_bytes;
        image->done_bytes = image->total_bytes;
        memcpy(image->sha256, imported->sha256, sizeof image->sha256);
        snprintf(image->kernel_format, sizeof image->kernel_format, "%s",
                 format_names[imported->kernel_format]);
    }
    node_save(node, &image->head);
    node_wake_volumes(node);
    node_wake_vms(node);
}

void image_is_written(struct node *node, struct image *image)
{
    if (!image->imported || image->head.unsaved || image->head.writing > 0)
        return;
    image->imported = false;
    image->state = PROGRESS_READY;
    node_notify(node, &image->head);
    node_wake_volumes(node);
    node_wake_vms(node);
}

static void image_begin(struct node *node, struct resource *resource)
{
    struct image *image = (struct image *)resource;
    struct image_import_spec spec = import_spec(image);
    struct error err = { 0 };

    image->node = node;
    spec.loop = node->loop;
    spec.worker = node->disk_worker;
    spec.progress = on_progress;
    spec.done = on_done;
    spec.context = image;
    if (image_import_start(node->images, &spec, &image->import, &err) == 0)
        return;
    image->state = PROGRESS_FAILED;
    image->head.failure = err.code;
    snprintf(image->reason, sizeof image->reason, "%.150s", err.message);
    node_save(node, resource);
}

static bool boots(const struct vm_spec *spec, const char *image)
{
    return strcmp(spec->kernel, image) == 0 || strcmp(spec->initrd, image) == 0;
}

static int image_may_remove(struct node *node, const struct resource *resource, bool force,
                            struct error *err)
{
    const struct vm *vm;
    const struct volume *volume;
    const struct snapshot *snapshot = snapshot_of_image(node, resource->id);

    (void)force;
    for (size_t i = 0; (vm = node_vm_at(node, i)); i++) {
        if (boots(&vm->spec, resource->id) || (vm->next && boots(vm->next, resource->id)))
            return error_set(err, EBUSY, "image %s is in use by vm %s", resource->id, vm->head.id);
    }
    for (size_t i = 0; (volume = node_volume_at(node, i)); i++) {
        if (volume->state == PROGRESS_WORKING && strcmp(volume->source.image, resource->id) == 0)
            return error_set(err, EBUSY, "image %s is being copied to volume %s", resource->id,
                             volume->head.id);
        if (strcmp(volume->base.image, resource->id) == 0)
            return error_set(err, EBUSY, "image %s is the base of volume %s", resource->id,
                             volume->head.id);
    }
    if (snapshot)
        return error_set(err, EBUSY, "image %s is in use by snapshot %s", resource->id,
                         snapshot->head.id);
    return 0;
}

struct image_job {
    struct node *node;
    struct image *image;
    uint32_t instance;
};

static int run_remove(void *argument, struct error *err)
{
    struct image_job *job = argument;

    return image_remove(job->node->images, job->instance, err);
}

static void remove_failed(struct node *node, struct image *image, const struct error *err)
{
    snprintf(image->reason, sizeof image->reason, "%.150s", err->message);
    node_retry_later(node, &image->head, "remove", err);
    node_save(node, &image->head);
}

static void is_removed(void *argument, int result, const struct error *err)
{
    struct image_job *job = argument;

    if (result < 0)
        remove_failed(job->node, job->image, err);
    else
        node_gone(job->node, &job->image->head);
    free(job);
}

static void image_begin_remove(struct node *node, struct resource *resource)
{
    struct image *image = (struct image *)resource;
    struct image_job *job;
    struct error err = { 0 };

    if (image->import) {
        image_import_cancel(image->import); /* on_done goes on with it */
        return;
    }
    job = malloc(sizeof *job);
    if (!job) {
        error_set(&err, ENOMEM, "memory is short");
        remove_failed(node, image, &err);
        return;
    }
    *job = (struct image_job){ .node = node, .image = image, .instance = resource->instance };
    if (worker_submit(node->disk_worker, run_remove, is_removed, job, &err) < 0)
        is_removed(job, -err.code, &err);
}

/* --- status --- */

static json_t *image_status(const struct node *node, const struct resource *resource, bool stored)
{
    const struct image *image = (const struct image *)resource;
    enum progress_state state = stored && image->imported ? PROGRESS_READY : image->state;
    json_t *status = json_pack(
        "{s:s, s:o, s:o, s:I, s:s?}", "state",
        image->head.deleting ? "deleting" : progress_state_name(state, "importing"), "reason",
        json_reason(image->reason), "operation", operation_link(node, resource), "size_bytes",
        (json_int_t)image->size_bytes, "sha256", json_or_null(image->sha256));
    int result =
        image->kind == IMAGE_KERNEL
            ? json_object_set_new(status, "kernel_format",
                                  image->kernel_format[0] ? json_string(image->kernel_format)
                                                          : json_null())
            : 0;

    return json_whole(status, result);
}

static int image_restore(struct resource *resource, const json_t *status, struct error *err)
{
    struct image *image = (struct image *)resource;

    image->size_bytes = (uint64_t)json_integer_value(json_object_get(status, "size_bytes"));
    snprintf(image->sha256, sizeof image->sha256, "%s", json_text(status, "sha256"));
    snprintf(image->kernel_format, sizeof image->kernel_format, "%s",
             json_text(status, "kernel_format"));
    return progress_restore(resource, status, &image->state, image->reason, sizeof image->reason,
                            err);
}

const struct resource_ops image_ops = {
    .parse = image_parse,
    .reserve = image_reserve,
    .begin = image_begin,
    .may_remove = image_may_remove,
    .remove = image_begin_remove,
    .patch = change_patch_spec,
    .apply = change_apply_spec,
    .status = image_status,
    .restore = image_restore,
    .free = resource_free,
};
