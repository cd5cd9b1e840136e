#include "agent/database_age.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/jail.h"
#include "agent/node_internal.h"
#include "agent/node_setup.h"
#include "base/cleanup.h"
#include "base/directory.h"
#include "base/error.h"
#include "storage/image.h"
#include "storage/instance_name.h"
#include "storage/snapshot_store.h"
#include "storage/volume.h"

#define REMEDY                                                                                  \
    "restore this node's newest backup; or, to give up what it does not know, VMs and volumes " \
    "too, start once with --accept-older-database"

static int too_old(const struct node *node, const char *where, uint32_t instance, struct error *err)
{
    return error_set(err, EUCLEAN,
                     "warren.db is too old: there is %s/%u, but it knows %u instances "
                     "only: " REMEDY,
                     where, instance, node->last_instance);
}

struct place {
    enum resource_kind kind;
    const char *name;
    int dir_fd;
};

/* The first instance of a directory that the node does not know. */
struct unknown {
    const struct node *node;
    enum resource_kind kind;
    uint32_t instance;
};

static int find_newer(void *context, int dir_fd, const char *name)
{
    struct unknown *unknown = context;

    (void)dir_fd;
    return instance_name_parse(name, NULL, &unknown->instance) == 0 &&
           unknown->instance > unknown->node->last_instance;
}

static int find_unnamed(void *context, int dir_fd, const char *name)
{
    struct unknown *unknown = context;
    const struct resource_table *table = &unknown->node->tables[unknown->kind];

    (void)dir_fd;
    if (instance_name_parse(name, NULL, &unknown->instance) < 0)
        return 0;
    for (size_t i = 0; i < table->count; i++)
        if (table->items[i]->instance == unknown->instance)
            return 0;
    return 1;
}

/* 1: there is one. */
static int look(const struct node *node, const struct place *place,
                int (*find)(void *, int, const char *), uint32_t *ret_instance, struct error *err)
{
    struct unknown unknown = { .node = node, .kind = place->kind };
    int result = directory_each(place->dir_fd, ".", find, &unknown);

    if (result < 0)
        return error_set(err, result, "list %s: %s", place->name, strerror(-result));
    *ret_instance = unknown.instance;
    return result;
}

/* --- another node's --- */

static bool has_no_file(const struct node *node, const struct resource *resource)
{
    auto_close int fd = -1;
    enum volume_format format;

    if (resource->deleting || resource_progress(resource) != PROGRESS_READY)
        return false;
    switch (resource->kind) {
    case RESOURCE_IMAGE:
        return image_open(node->images, resource->instance, &fd, NULL) == -ENOENT;
    case RESOURCE_VOLUME:
        return volume_find(node->volumes, resource->instance, &format, NULL) == -ENOENT;
    default:
        return snapshot_store_find(node->snapshots, resource->instance) == -ENOENT;
    }
}

/* Whose file is not there; NULL. */
static const struct resource *find_lost(const struct node *node, const struct place *places,
                                        size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct resource_table *table = &node->tables[places[i].kind];

        for (size_t row = 0; row < table->count; row++)
            if (has_no_file(node, table->items[row]))
                return table->items[row];
    }
    return NULL;
}

/* A row goes after its files, which it came before: so a file that no row names is a leftover of a
 * removal only as long as nothing is missing. */
static int check_files(const struct node *node, const struct place *places, size_t count,
                       struct error *err)
{
    const struct resource *lost = find_lost(node, places, count);
    uint32_t instance = 0;
    int result = 0;

    for (size_t i = 0; lost && i < count && result == 0; i++) {
        result = look(node, &places[i], find_unnamed, &instance, err);
        if (result > 0)
            return error_set(err, EUCLEAN,
                             "warren.db is another node's, or too old: there is %s/%u, but no row "
                             "names it, and there is no file of %s %s: " REMEDY,
                             places[i].name, instance, resource_kind_name(lost->kind), lost->id);
    }
    return result;
}

/* A row goes after its VM's process. */
static int check_vm(const struct node *node, uint32_t instance, struct error *err)
{
    auto_close int pidfd = -1;
    pid_t pid = 0;

    if (instance > node->last_instance)
        return too_old(node, "vms", instance, err);
    if (vm_of_instance(node, instance))
        return 0;
    pidfd = node_find_process(node, instance, &pid);
    return pidfd < 0 ? 0
                     : error_set(err, EUCLEAN,
                                 "warren.db is another node's, or too old: vms/%u runs, but no row "
                                 "names it: " REMEDY,
                                 instance);
}

int database_age_check(const struct node *node, struct error *err)
{
    const struct place places[] = {
        { RESOURCE_VOLUME, "volumes", node->volumes_dir_fd },
        { RESOURCE_SNAPSHOT, "snapshots", node->snapshots_dir_fd },
        { RESOURCE_IMAGE, "images", node->images_dir_fd },
    };
    auto_free uint32_t *instances = NULL;
    size_t count = 0;
    int result;

    if (node->config->accept_older_database)
        return 0;
    result = jail_list(node->jail, &instances, &count, err);

    for (size_t i = 0; result == 0 && i < count; i++)
        result = check_vm(node, instances[i], err);
    for (size_t i = 0; result == 0 && i < ARRAY_LENGTH(places); i++) {
        uint32_t instance = 0;

        result = look(node, &places[i], find_newer, &instance, err);
        if (result > 0)
            return too_old(node, places[i].name, instance, err);
    }
    return result < 0 ? result : check_files(node, places, ARRAY_LENGTH(places), err);
}
