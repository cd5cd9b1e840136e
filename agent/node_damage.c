/* A node whose database is damaged, or older than what is there.  VMs go on; nothing of them is
 * adopted, ended or swept, because what would be taken for a leftover may be somebody's.  What is
 * told of them is what could be read, corrected by the processes that are there. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/jail.h"
#include "agent/node_internal.h"
#include "agent/node_setup.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/process.h"

#define LOOK_MS 1000

static void tell_gone(struct vm *vm)
{
    cleanup_close(&vm->pidfd);
    vm->pid = 0;
    if (!vm_state_is_live(vm->state))
        return; /* as it was */
    vm->state = VM_FAILED;
    snprintf(vm->reason, sizeof vm->reason,
             "its process has ended, and the database is damaged: why is not known");
}

/* Row and process, if there is one. */
static void find(const struct node *node, struct vm *vm)
{
    vm->pidfd = node_find_process(node, vm->head.instance, &vm->pid);
    if (vm->pidfd < 0)
        tell_gone(vm);
    else if (!vm_state_is_live(vm->state))
        vm->state = VM_RUNNING; /* the row is older than its start */
    if (vm->pidfd >= 0)
        vm_open_process(node, vm);
}

/* Those that run, but of which no row could be read: their processes' ids. */
static void list_unknown(const struct node *node, char *ret_text, size_t size)
{
    auto_free uint32_t *instances = NULL;
    size_t count = 0, used = 0;

    ret_text[0] = '\0';
    if (jail_list(node->jail, &instances, &count, NULL) < 0)
        return;
    for (size_t i = 0; i < count && used < size; i++) {
        auto_close int pidfd = -1;
        pid_t pid = 0;

        if (vm_of_instance(node, instances[i]))
            continue;
        pidfd = node_find_process(node, instances[i], &pid);
        if (pidfd >= 0)
            used += (size_t)snprintf(ret_text + used, size - used, "%s %d",
                                     used ? "" : "; no row names the VMs of processes", (int)pid);
    }
}

/* A timer's, in place of node_tend's. */
static void look(void *context)
{
    const struct node *node = context;
    struct vm *vm;

    for (size_t i = 0; (vm = node_vm_at(node, i)); i++) {
        if (vm->pidfd >= 0 && process_await(vm->pidfd, 0) == 0)
            tell_gone(vm);
    }
}

void node_damage_begin(struct node *node, const struct error *damage)
{
    struct vm *vm;
    char unknown[100];

    for (size_t i = 0; (vm = node_vm_at(node, i)); i++)
        find(node, vm);
    list_unknown(node, unknown, sizeof unknown);
    if ((size_t)snprintf(node->damage, sizeof node->damage, "%s%s", damage->message, unknown) >=
        sizeof node->damage)
        log_error(node->log, "%s", unknown); /* which is cut there */
    log_error(node->log, "%s; until then nothing is changed, and %zu VMs can be asked for",
              node->damage, node->tables[RESOURCE_VM].count);
    node->tick = loop_every(node->loop, LOOK_MS, look, node);
}

int node_check_damage(struct node *node, struct error *err)
{
    return node->damage[0] ? error_set(err, EUCLEAN, "%s", node->damage) : 0;
}
