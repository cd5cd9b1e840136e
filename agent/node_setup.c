#include "agent/node_setup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "agent/jail.h"
#include "agent/jail_files.h"
#include "agent/node_console.h"
#include "agent/node_events.h"
#include "agent/node_internal.h"
#include "agent/node_snapshot.h"
#include "agent/node_volume.h"
#include "agent/vmm_client.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/process.h"
#include "base/worker.h"
#include "storage/database.h"
#include "storage/image.h"
#include "storage/keyed_digest.h"
#include "storage/snapshot_store.h"
#include "storage/volume.h"

/* --- rows --- */

static int kind_of(const char *name)
{
    for (int kind = 0; kind < RESOURCE_KIND_COUNT; kind++)
        if (strcmp(resource_kind_name((enum resource_kind)kind), name) == 0)
            return kind;
    return -1;
}

static int restore_resource(struct node *node, enum resource_kind kind, const struct record *record,
                            const json_t *spec, const json_t *status, struct error *err)
{
    const struct resource_ops *ops = resource_ops_of(kind);
    struct resource *resource = NULL;
    int result = resource_parse(kind, spec, &resource, err);

    if (result < 0)
        return result;
    resource->kind = kind;
    snprintf(resource->id, sizeof resource->id, "%s", record->id);
    snprintf(resource->uid, sizeof resource->uid, "%s", record->uid);
    resource->instance = record->instance;
    resource->generation = record->generation;
    resource->revision = record->revision;
    result = ops->restore(resource, status, err);
    if (result == 0 && resource_insert(&node->tables[kind], resource) < 0)
        result = error_set(err, ENOMEM, "memory is short");
    if (result < 0)
        ops->free(resource);
    return result;
}

static int load_row(void *context, const struct record *record, struct error *err)
{
    struct node *node = context;
    json_t *spec = NULL;
    json_t *status = NULL;
    int kind = kind_of(record->kind);
    bool is_node = strcmp(record->kind, "node") == 0;
    int result;

    if (kind < 0 && !is_node)
        return error_set(err, EPROTO, "a row has the unknown kind \"%s\"", record->kind);
    result = json_parse(record->spec, strlen(record->spec), &spec, err);
    if (result == 0)
        result = json_parse(record->status, strlen(record->status), &status, err);
    if (result == 0 && is_node)
        result = node_spec_restore(node, record, spec, status, err);
    else if (result == 0)
        result = restore_resource(node, (enum resource_kind)kind, record, spec, status, err);
    json_decref(spec);
    json_decref(status);
    return result < 0 ? error_wrap(err, "row of %s %s", record->kind, record->id) : 0;
}

/* A row of a damaged database: only what can be told of VMs is wanted, and what is not whole is
 * left out. */
static int salvage_row(void *context, const struct record *record, struct error *err)
{
    const struct node *node = context;
    struct error why = { 0 };

    (void)err;
    if (strcmp(record->kind, resource_kind_name(RESOURCE_VM)) == 0 && id_is_valid(record->id) &&
        !resource_find(&node->tables[RESOURCE_VM], record->id))
        (void)load_row(context, record, &why);
    return 0;
}

static int open_database(struct node *node, struct database_counters *ret_counters,
                         struct error *err)
{
    struct error damage = { 0 };
    int result = database_open(node->config->state_dir, node->loop, load_row, node, ret_counters,
                               &node->database, &damage);

    if (result == -EUCLEAN) {
        (void)database_salvage(node->config->state_dir, salvage_row, node, NULL);
        node_damage_begin(node, &damage);
        return 0;
    }
    if (result < 0) {
        *err = damage;
        return result;
    }
    database_keep_events(node->database, node->config->events_kept);
    return database_load_keys(node->database, node_load_key, node, err);
}

/* --- making --- */

/* A lost key is told before there is another: later each snapshot would only be called damaged. */
static int open_key(const struct node *node, int state_dir_fd, struct keyed_digest_key *ret_key,
                    struct error *err)
{
    if (!keyed_digest_has_key(state_dir_fd) && snapshot_store_has_any(node->snapshots_dir_fd))
        log_warning(node->log,
                    "node.key is not in the state directory, though snapshots are: a new one is "
                    "made, by which none of them can be restored; put the lost one back and start "
                    "warrend again (then those made meanwhile cannot), or delete them");
    return keyed_digest_open_key(state_dir_fd, ret_key, err);
}

static int open_stores(struct node *node, struct error *err)
{
    const struct config *config = node->config;
    const char *import_dirs[CONFIG_DIRS_MAX];
    char fetch_path[CONFIG_PATH_MAX + 32];
    auto_close int state_dir = -1, vsock_dir = -1;
    struct keyed_digest_key key;
    struct image_store_config images = {
        .import_dirs = import_dirs,
        .import_dir_count = config->import_dirs.count,
        .fetch_path = fetch_path,
        .fetch_root = jail_empty_root(node->jail),
        .uid = jail_user(node->jail, JAIL_USER_FETCH),
        .gid = jail_user(node->jail, JAIL_USER_FETCH),
        .ca_file = config->ca_file[0] ? config->ca_file : NULL,
        .allow_private = config->allow_private_urls,
        .speed_limit = (uint64_t)config->import_speed_limit << 10,
        .speed_time = (uint64_t)config->import_speed_time,
        .log_fd = node->log->fd,
    };
    int result = jail_make_dir(AT_FDCWD, config->state_dir, 0700, &state_dir, err);

    for (unsigned i = 0; i < config->import_dirs.count; i++)
        import_dirs[i] = config->import_dirs.paths[i];
    snprintf(fetch_path, sizeof fetch_path, "%s/warren-fetch", config->libexec_dir);
    if (result == 0)
        result = jail_make_dir(state_dir, "images", 0700, &node->images_dir_fd, err);
    if (result == 0)
        result = jail_make_dir(state_dir, "volumes", 0700, &node->volumes_dir_fd, err);
    if (result == 0)
        result = jail_make_dir(state_dir, "snapshots", 0700, &node->snapshots_dir_fd, err);
    if (result == 0)
        result = open_key(node, state_dir, &key, err);
    if (result == 0) /* the default vsock-dir */
        result = jail_make_dir(jail_run_dir_fd(node->jail), "vsock", 0755, &vsock_dir, err);
    images.images_dir_fd = node->images_dir_fd;
    if (result == 0)
        result = image_store_new(&images, &node->images, err);
    if (result == 0)
        result = volume_store_new(node->volumes_dir_fd, &node->volumes, err);
    if (result == 0)
        result = snapshot_store_new(node->snapshots_dir_fd, &key, &node->snapshots, err);
    return result;
}

static int open_network(struct node *node, struct error *err)
{
    struct net_options options = {
        .prefix = node->config->prefix,
        .run_dir_fd = jail_run_dir_fd(node->jail),
        .run_dir = node->config->run_dir,
        .empty_root = jail_empty_root(node->jail),
        .dnsmasq_uid = jail_user(node->jail, JAIL_USER_DNSMASQ),
        .dnsmasq_gid = jail_user(node->jail, JAIL_USER_DNSMASQ),
        .log = node->log,
    };

    return net_host_new(&options, &node->net, err);
}

static int open_all(struct node *node, struct error *err)
{
    const struct worker_ops one_by_one = { .batch_max =
                                               1 }; /* who is done need not wait for others */
    struct database_counters counters = { 0 };
    int result = open_stores(node, err);

    if (result == 0)
        result = open_database(node, &counters, err);
    if (result != 0)
        return result;
    node->last_instance = counters.instance;
    node->revision = counters.revision;
    result = worker_new(node->loop, "network", &one_by_one, &node->net_worker, err);
    if (result == 0)
        result = worker_new(node->loop, "disk", &one_by_one, &node->disk_worker, err);
    if (result == 0)
        result = worker_new(node->loop, "copy", &one_by_one, &node->copy_worker, err);
    if (result == 0)
        result = worker_new(node->loop, "launch", &one_by_one, &node->launch_worker, err);
    if (result == 0)
        result = worker_new(node->loop, "close", &one_by_one, &node->close_worker, err);
    if (result < 0)
        return result;
    vm_launch_prepare(node);
    result = node_memory_new(node, &node->memory, err);
    return result < 0 ? result : open_network(node, err);
}

int node_new(struct loop *loop, const struct log *log, const struct config *config,
             struct jail *jail, struct node **ret_node, struct error *err)
{
    struct node *node;
    struct process_identity self;
    struct sysinfo info;
    int result = process_identify(getpid(), &self, err);

    if (result < 0)
        return result;

    node = calloc(1, sizeof *node);
    if (!node)
        return error_set(err, ENOMEM, "memory is short");
    *node = (struct node){ .loop = loop,
                           .log = log,
                           .config = config,
                           .jail = jail,
                           .generation = 1,
                           .spec = node_spec_default,
                           .clock_ms = timestamp_now_ms() - loop_now_ms(),
                           .images_dir_fd = -1,
                           .volumes_dir_fd = -1,
                           .snapshots_dir_fd = -1 };
    memcpy(node->boot_id, self.boot_id, sizeof node->boot_id);
    sysinfo(&info);
    node->memory_bytes = (uint64_t)info.totalram * info.mem_unit;
    result = open_all(node, err);
    if (result < 0) {
        node_free(node);
        return result;
    }
    *ret_node = node;
    return 0;
}

/* Nobody would resume what is held for a copy before the next agent starts. */
static void let_vms_go(struct node *node)
{
    struct vm *vm;

    for (size_t i = 0; (vm = node_vm_at(node, i)); i++)
        vm_let_go(node, vm);
}

/* The next agent begins them again. */
static void end_copies(struct node *node)
{
    struct volume *volume;
    struct snapshot *snapshot;

    for (size_t i = 0; (volume = node_volume_at(node, i)); i++)
        if (volume->copy)
            volume_cancel(node, volume);
    for (size_t i = 0; (snapshot = node_snapshot_at(node, i)); i++)
        if (snapshot->job)
            snapshot_cancel(node, snapshot);
}

static void await_held_copies(struct node *node)
{
    struct snapshot *snapshot;

    for (size_t i = 0; (snapshot = node_snapshot_at(node, i)); i++)
        snapshot_await_copy(snapshot);
}

struct node *node_free(struct node *node)
{
    if (!node)
        return NULL;
    node->ending = true;
    end_copies(node);
    node->tick = loop_cancel(node->tick);
    node_console_end(node);
    node_events_end(node);
    node->memory = node_memory_free(node->memory);
    /* Their last jobs may queue changes: the database goes last. */
    node->launch_worker = worker_free(node->launch_worker);
    node->net_worker = worker_free(node->net_worker);
    node->disk_worker = worker_free(node->disk_worker);
    node->copy_worker = worker_free(node->copy_worker);
    await_held_copies(node);
    node->database = database_free(node->database);
    let_vms_go(node);
    net_host_free(node->net);
    image_store_free(node->images);
    volume_store_free(node->volumes);
    snapshot_store_free(node->snapshots);
    for (int kind = 0; kind < RESOURCE_KIND_COUNT; kind++) {
        struct resource_table *table = &node->tables[kind];

        for (size_t i = 0; i < table->count; i++) {
            if (kind == RESOURCE_VM)
                vm_forget_process((struct vm *)table->items[i]);
            resource_ops_of((enum resource_kind)kind)->free(table->items[i]);
        }
        free(table->items);
    }
    node->close_worker = worker_free(node->close_worker); /* what was freed above has used it */
    key_table_clear(&node->keys);
    cleanup_close(&node->images_dir_fd);
    cleanup_close(&node->volumes_dir_fd);
    cleanup_close(&node->snapshots_dir_fd);
    free(node);
    return NULL;
}
