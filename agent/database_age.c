#include "agent/database_age.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/jail.h"
#include "agent/node_internal.h"
#include "base/cleanup.h"
#include "base/directory.h"
#include "base/error.h"
#include "storage/instance_name.h"

static int too_old(const struct node *node, const char *where, uint32_t instance, struct error *err)
{
    return error_set(
        err, EUCLEAN,
        "warren.db is too old: there is %s/%u, but it knows %u instances only: restore the newest "
        "backup; or, to give up what was made since, VMs and volumes too, start once with "
        "--accept-older-database",
        where, instance, node->last_instance);
}

/* The first instance of a directory that the node does not know. */
struct unknown {
    uint32_t last_instance, instance;
};

static int find_unknown(void *context, int dir_fd, const char *name)
{
    struct unknown *unknown = context;

    (void)dir_fd;
    return instance_name_parse(name, NULL, &unknown->instance) == 0 &&
           unknown->instance > unknown->last_instance;
}

static int check_dir(const struct node *node, const char *where, int dir_fd, struct error *err)
{
    struct unknown unknown = { .last_instance = node->last_instance };
    int result = directory_each(dir_fd, ".", find_unknown, &unknown);

    if (result < 0)
        return error_set(err, result, "list %s: %s", where, strerror(-result));
    return result > 0 ? too_old(node, where, unknown.instance, err) : 0;
}

int database_age_check(const struct node *node, struct error *err)
{
    auto_free uint32_t *instances = NULL;
    size_t count = 0;
    int result;

    if (node->config->accept_older_database)
        return 0;
    result = jail_list(node->jail, &instances, &count, err);

    for (size_t i = 0; result == 0 && i < count; i++)
        if (instances[i] > node->last_instance)
            result = too_old(node, "vms", instances[i], err);
    if (result == 0)
        result = check_dir(node, "volumes", node->volumes_dir_fd, err);
    if (result == 0)
        result = check_dir(node, "snapshots", node->snapshots_dir_fd, err);
    return result < 0 ? result : check_dir(node, "images", node->images_dir_fd, err);
}
