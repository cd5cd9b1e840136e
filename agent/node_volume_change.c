/* A volume grows: PATCH, the work on its file, and who is told.  See node_volume.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/node_change.h"
#include "agent/node_snapshot.h"
#include "agent/node_volume.h"
#include "agent/vm_disk.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"
#include "base/loop.h"
#include "base/worker.h"
#include "storage/volume.h"

#define SNAPSHOT_WAIT_MS 1000

/* --- the work --- */

struct growth_job {
    struct node *node;
    struct volume *volume;
    uint32_t instance;
    uint64_t size_bytes;
    uint64_t allocated_bytes; /* result */
};

static int run_grow(void *argument, struct error *err)
{
    struct growth_job *job = argument;
    int result = volume_resize(job->node->volumes, job->instance, job->size_bytes, err);

    if (result == 0)
        volume_allocated_bytes(job->node->volumes, job->instance, &job->allocated_bytes, NULL);
    return result;
}

static void is_grown(void *argument, int result, const struct error *err)
{
    struct growth_job *job = argument;
    struct volume *volume = job->volume;
    struct node *node = job->node;

    volume->job_running = false;
    if (result == 0) {
        volume->size_bytes = job->size_bytes;
        volume->allocated_bytes = job->allocated_bytes;
        volume->reason[0] = '\0';
        node_retry_over(&volume->head);
    }
    free(job);
    if (volume->head.deleting) {
        volume_ops.remove(node, &volume->head);
        return;
    }
    if (result < 0) {
        volume_stuck(node, volume, "grow", err);
        return;
    }
    node_save(node, &volume->head);
    vm_disk_has_grown(node, volume);
    volume_grow(node, volume); /* more may be wanted by now */
}

/* A snapshot that is just being made copies the disk as it noted it. */
static bool is_in_snapshot(const struct node *node, const struct volume *volume)
{
    const struct vm *vm;

    for (size_t i = 0; (vm = node_vm_at(node, i)); i++) {
        for (unsigned d = 0; d < vm->spec.disk_count; d++)
            if (strcmp(vm->spec.disks[d].volume, volume->head.id) == 0 &&
                snapshot_under_way(node, vm->head.id))
                return true;
    }
    return false;
}

void volume_grow(struct node *node, struct volume *volume)
{
    struct growth_job *job;
    struct error err = { .code = ENOMEM, .message = "memory is short" };

    if (volume->job_running || !volume_is_growing(volume) || node->ending)
        return;
    if (is_in_snapshot(node, volume)) {
        volume->head.stuck = true; /* without a word: nothing has failed */
        volume->head.retry_ms = loop_now_ms() + SNAPSHOT_WAIT_MS;
        return;
    }
    job = malloc(sizeof *job);
    if (job) {
        *job = (struct growth_job){ .node = node,
                                    .volume = volume,
                                    .instance = volume->head.instance,
                                    .size_bytes = volume->wanted_bytes };
        if (worker_submit(node->disk_worker, run_grow, is_grown, job, &err) == 0) {
            volume->job_running = true;
            return;
        }
        free(job);
    }
    volume_stuck(node, volume, "grow", &err);
}

/* --- PATCH --- */

/* *ret_bytes: what its size is to be. */
static int read_size(const struct change *change, const struct volume *volume, uint64_t *ret_bytes,
                     struct error *err)
{
    struct json_reader reader;
    int64_t mib;

    json_reader_init(&reader, change->body, "", err);
    mib = json_read_integer(&reader, "size_mib", 1, VOLUME_SIZE_MIB_MAX, JSON_OPTIONAL,
                            (int64_t)(volume->wanted_bytes >> 20));
    if (reader.result < 0)
        return reader.result;
    *ret_bytes = (uint64_t)mib << 20;
    if (*ret_bytes >= volume->wanted_bytes)
        return 0;
    return error_field(err, EINVAL, "size_mib",
                       "size_mib: a volume can grow, but not shrink from %" PRIu64 " MiB",
                       volume->wanted_bytes >> 20);
}

static int may_grow(const struct node *node, const struct volume *volume, uint64_t bytes,
                    struct error *err)
{
    int result;

    if (volume->state != PROGRESS_READY)
        return error_set(err, EBUSY, "volume %s is %s", volume->head.id,
                         resource_state_name(&volume->head));
    result = volume_check_resize(node->volumes, volume->head.instance, bytes, err);
    if (result == -EFBIG)
        err->code = EINVAL;
    if (result < 0)
        return -err->code;
    result = node_admit_disk(node, bytes - volume->wanted_bytes, "size_mib", err);
    return result < 0 ? result : vm_disk_may_grow(node, volume, bytes, err);
}

int change_patch_volume(struct change *change, struct error *err)
{
    struct volume *volume = (struct volume *)change->target;
    uint64_t bytes = 0;
    int result = read_size(change, volume, &bytes, err);

    if (result == 0 && bytes > volume->wanted_bytes)
        result = may_grow(change->node, volume, bytes, err);
    if (result == 0)
        result = change_merge_spec(change, err);
    if (result <= 0)
        return result;
    change->more_bytes = bytes - volume->wanted_bytes;
    return change_commit_spec(change, err);
}

void change_apply_volume(struct change *change)
{
    struct volume *volume = (struct volume *)change->target;

    volume->wanted_bytes += change->more_bytes;
    change->more_bytes = 0;
    change_apply_spec(change);
    volume->head.stuck = false;
    volume_grow(change->node, volume);
}
