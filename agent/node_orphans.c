/* What is left of VMs that no row names. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "agent/jail.h"
#include "agent/node_internal.h"
#include "agent/node_setup.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/process.h"
#include "base/worker.h"

/* For the first that does not end, be it stuck in the kernel or slow to give its memory back; the
 * others have had as long by then. */
#define ORPHANS_WAIT_MS 10000

struct orphans {
    const struct node *node;
    size_t count;
    struct {
        uint32_t instance;
        int pidfd; /* owned; -1 = no process */
    } items[];
};

/* On the launch worker. */
static int remove_all(void *argument, struct error *err)
{
    struct orphans *orphans = argument;
    int wait_ms = ORPHANS_WAIT_MS;

    (void)err;
    for (size_t i = 0; i < orphans->count; i++) {
        uint32_t instance = orphans->items[i].instance;
        int *pidfd = &orphans->items[i].pidfd;
        struct error failure = { 0 };

        if (*pidfd >= 0 && process_await(*pidfd, wait_ms) < 0) {
            error_set(&failure, ETIMEDOUT, "its process does not end");
            wait_ms = 0;
        } else {
            jail_remove(orphans->node->jail, instance, &failure);
        }
        if (failure.code)
            log_error(orphans->node->log,
                      "leftovers of VM instance %u: %s; the next agent tries again", instance,
                      failure.message);
        cleanup_close(pidfd);
    }
    return 0;
}

static void are_removed(void *argument, int result, const struct error *err)
{
    (void)result;
    (void)err;
    free(argument);
}

/* All die at the same time, and nobody waits here. */
static void kill_all(const struct node *node, const uint32_t *instances, size_t count,
                     struct orphans *orphans)
{
    for (size_t i = 0; i < count; i++) {
        pid_t pid = 0;
        int pidfd;

        if (vm_of_instance(node, instances[i]))
            continue;
        pidfd = node_find_process(node, instances[i], &pid);
        if (pidfd >= 0) {
            log_warning(node->log, "process %d of a VM that no row names: killed", (int)pid);
            process_kill(pidfd, SIGKILL);
        }
        orphans->items[orphans->count].instance = instances[i];
        orphans->items[orphans->count++].pidfd = pidfd;
    }
}

int node_remove_orphans(struct node *node, struct error *err)
{
    auto_free uint32_t *instances = NULL;
    auto_free struct orphans *orphans = NULL;
    size_t count = 0;
    int result = jail_list(node->jail, &instances, &count, err);

    if (result < 0)
        return result;
    orphans = calloc(1, sizeof *orphans + count * sizeof orphans->items[0]);
    if (!orphans)
        return error_set(err, ENOMEM, "memory is short");
    orphans->node = node;
    kill_all(node, instances, count, orphans);
    if (orphans->count == 0)
        return 0;
    result = worker_submit(node->launch_worker, remove_all, are_removed, orphans, err);
    if (result == 0)
        (void)take_pointer(orphans);
    return result;
}
