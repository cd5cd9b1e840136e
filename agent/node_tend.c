/* What is done again and again: once a second networks and the VMs' control group are looked after,
 * and what could not be written to the database, or done about a resource, is tried again.  One
 * timer that needs no memory, so that nothing waits for ever because memory was short once. */
#include <errno.h>

#include "agent/jail.h"
#include "agent/node_internal.h"
#include "agent/node_schedule.h"
#include "agent/operation.h"
#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/worker.h"

#define TICK_MS 1000
/* Prometheus looks once a minute, if nobody tells it otherwise: it is to see that one failed. */
#define DATABASE_TICKS 60

void node_retry_later(struct node *node, struct resource *resource, const char *work,
                      const struct error *err)
{
    int delay_ms;

    node->retries[resource->kind]++;
    resource->stuck = true;
    resource->tries++;
    delay_ms = vm_lifecycle_backoff_ms(resource->tries);
    resource->retry_ms = loop_now_ms() + delay_ms;
    log_error(node->log, "%s %s: %s: %s; tried again in %d s", resource_kind_name(resource->kind),
              resource->id, work, err->message, delay_ms / 1000);
}

void node_retry(struct node *node, struct resource *resource)
{
    const struct resource_ops *ops = resource_ops_of(resource->kind);

    if (!resource->stuck)
        return;
    resource->stuck = false;
    if (resource->kind == RESOURCE_VM)
        vm_step(node, (struct vm *)resource);
    else if (resource->deleting)
        ops->remove(node, resource);
    else
        ops->begin(node, resource);
}

void node_retry_over(struct resource *resource)
{
    resource->stuck = false;
    resource->tries = 0;
}

/* Who does not answer is told of.  What a guest has not let go yet is asked for again, what could
 * not be begun is begun. */
static void tend_vms(struct node *node)
{
    struct vm *vm;

    for (size_t i = 0; (vm = node_vm_at(node, i)); i++) {
        vm_see_silence(node, vm);
        if (vm->pidfd >= 0 && !vm_devices_are_settled(vm))
            vm_step(node, vm);
    }
}

/* Who goes by /readyz changes nothing while the database is said to fail, and so would never see
 * that it works again: a row is written that changes nothing either. */
static void try_database(struct node *node)
{
    node->database_ticks = node->database_error ? node->database_ticks + 1 : 0;
    if (node->database_ticks < DATABASE_TICKS)
        return;
    node->database_ticks = 0;
    node->row.stale = true;
}

static int renew_cgroup(void *context, struct error *err)
{
    struct node *node = context;

    return jail_renew_cgroup(node->jail, err);
}

static void cgroup_renewed(void *context, int result, const struct error *err)
{
    struct node *node = context;
    struct error why = { 0 };

    node->renewing_cgroup = false;
    if (result == 0)
        log_warning(node->log,
                    "the control group of VMs was removed by others; there is one again");
    else if (!node->cgroup_told && jail_check_cgroup(node->jail, &why) < 0)
        log_error(node->log, "%s: %s", why.message, err->message);
    node->cgroup_told = result < 0;
}

void node_tend_cgroup(struct node *node)
{
    if (!node->renewing_cgroup && jail_check_cgroup(node->jail, NULL) < 0)
        node->renewing_cgroup =
            worker_submit(node->launch_worker, renew_cgroup, cgroup_renewed, node, NULL) == 0;
}

/* No resource leaves its table within: the database tells later that its row is gone. */
static void tick(void *context)
{
    struct node *node = context;
    int64_t now = loop_now_ms();

    if (node->unsaved)
        node_save_again(node);
    try_database(node);
    node_tend_cgroup(node);
    node_spec_save_again(node);
    for (int kind = 0; kind < RESOURCE_OPERATION; kind++) {
        const struct resource_table *table = &node->tables[kind];

        for (size_t i = 0; i < table->count; i++)
            if (table->items[i]->stuck && table->items[i]->retry_ms <= now)
                node_retry(node, table->items[i]);
    }
    operations_tend(node);
    tend_vms(node);
    node_autostart(node);
    node_drain_go_on(node);
    node_tend_networks(node);
    node_memory_tick(node);
}

int node_tend(struct node *node, struct error *err)
{
    node->tick = loop_every(node->loop, TICK_MS, tick, node);
    return node->tick ? 0 : error_set(err, ENOMEM, "memory is short");
}
