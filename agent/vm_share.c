#include "agent/vm_share.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/jail.h"
#include "agent/node_internal.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/worker.h"

/* --- in a spec --- */

static const char io_names[4][24] = { "read_bytes_per_second", "write_bytes_per_second",
                                      "read_ops_per_second", "write_ops_per_second" };

static uint64_t *io_rate(struct jail_io_limit *limit, size_t which)
{
    uint64_t *const rates[ARRAY_LENGTH(io_names)] = { &limit->read_bytes, &limit->write_bytes,
                                                      &limit->read_operations,
                                                      &limit->write_operations };

    return rates[which];
}

static int read_io_limit(const json_t *json, struct jail_io_limit *ret_limit, struct error *err)
{
    struct json_reader reader;

    json_reader_init(&reader, json, "io_limit", err);
    for (size_t i = 0; i < ARRAY_LENGTH(io_names); i++)
        *io_rate(ret_limit, i) =
            (uint64_t)json_read_integer(&reader, io_names[i], 1, VMM_RATE_MAX, JSON_OPTIONAL, 0);
    return json_reader_end(&reader);
}

void vm_share_read(struct json_reader *reader, struct jail_share *ret_share)
{
    const json_t *io_limit = json_read_object(reader, "io_limit", JSON_OPTIONAL);

    *ret_share = (struct jail_share){
        .cpu_weight = (unsigned)json_read_integer(reader, "cpu_weight", 1, JAIL_WEIGHT_MAX,
                                                  JSON_OPTIONAL, jail_share_default.cpu_weight),
        .io_weight = (unsigned)json_read_integer(reader, "io_weight", 1, JAIL_WEIGHT_MAX,
                                                 JSON_OPTIONAL, jail_share_default.io_weight),
        .cpu_limit_percent = (unsigned)json_read_integer(reader, "cpu_limit_percent", 1,
                                                         JAIL_CPU_LIMIT_MAX, JSON_OPTIONAL, 0),
    };
    if (io_limit && reader->result == 0)
        reader->result = read_io_limit(io_limit, &ret_share->io_limit, reader->err);
}

int vm_share_put(json_t *spec, const struct jail_share *share)
{
    struct jail_io_limit limit = share->io_limit;
    json_t *io_limit = json_object();
    int result = json_object_set_new(spec, "cpu_weight", json_integer(share->cpu_weight)) |
                 json_object_set_new(spec, "io_weight", json_integer(share->io_weight));

    for (size_t i = 0; i < ARRAY_LENGTH(io_names); i++)
        if (*io_rate(&limit, i) > 0)
            result |= json_object_set_new(io_limit, io_names[i],
                                          json_integer((json_int_t)*io_rate(&limit, i)));
    if (share->cpu_limit_percent > 0)
        result |=
            json_object_set_new(spec, "cpu_limit_percent", json_integer(share->cpu_limit_percent));
    if (json_object_size(io_limit) > 0)
        result |= json_object_set(spec, "io_limit", io_limit);
    json_decref(io_limit);
    return result;
}

/* --- while it runs --- */

struct share_job {
    const struct node *node;
    uint32_t instance;
    char id[ID_MAX + 1];
    struct jail_share share;
};

static int write_share(void *context, struct error *err)
{
    struct share_job *job = context;

    return jail_share_write(jail_cgroups(job->node->jail), job->instance, &job->share, err);
}

/* -ENOENT: its process has ended since, and its cgroup with it. */
static void share_written(void *context, int result, const struct error *err)
{
    struct share_job *job = context;

    if (result < 0 && result != -ENOENT)
        log_warning(job->node->log, "vm %s: its limits are not kept: %s", job->id, err->message);
    free(job);
}

void vm_share_tell(const struct node *node, const struct vm *vm)
{
    struct share_job *job = vm->pid > 0 ? malloc(sizeof *job) : NULL;
    struct error err = { 0 };

    if (!job) {
        if (vm->pid > 0)
            log_warning(node->log, "vm %s: its limits are not changed: memory is short",
                        vm->head.id);
        return;
    }
    *job =
        (struct share_job){ .node = node, .instance = vm->head.instance, .share = vm->spec.share };
    memcpy(job->id, vm->head.id, sizeof job->id);
    if (worker_submit(node->launch_worker, write_share, share_written, job, &err) == 0)
        return;
    log_warning(node->log, "vm %s: its limits are not changed: %s", vm->head.id, err.message);
    free(job);
}
