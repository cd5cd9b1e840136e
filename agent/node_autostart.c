/* Starting again what a host's reboot has stopped: in order, and so many at a time, lest all guests
 * boot at once.  What waits is in the rows: the next agent goes on with it.  The host may have come
 * back with less memory: who does not fit waits, and keeps nobody waiting who does. */
#include "agent/node_internal.h"
#include "agent/node_schedule.h"
#include "base/log.h"

/* Those that wait for something else (an image, a network) keep nobody waiting. */
static bool is_starting(const struct vm *vm)
{
    return vm->state == VM_STARTING || (vm->start_due && vm->jobs > 0);
}

/* The first in order of those that wait and fit; NULL.  What is promised to others is the same for
 * each of them. */
static struct vm *find_next(const struct node *node)
{
    struct memory_capacity capacity = { 0 };
    struct memory_promise promised = { 0 };
    bool looked = false; /* at the host, which nobody may wait for */
    struct vm *vm, *next = NULL;

    for (size_t i = 0; (vm = node_vm_at(node, i)); i++) {
        const struct memory_promise wanted = { vm->spec.memory_max_mib, vm->spec.memory_min_mib };

        if (!vm->autostart_waits || (next && !vm_starts_before(vm, next)))
            continue;
        if (!looked) {
            capacity = node_memory_capacity(node);
            promised = node_promised(node, vm);
            looked = true;
        }
        if (admission_check(&capacity, &promised, &wanted, NULL) == 0)
            next = vm;
    }
    return next;
}

void node_autostart(struct node *node)
{
    int64_t room = node->config->autostart_parallel;
    struct vm *vm, *next;

    if (node->spec.draining)
        return; /* they are to be stopped */
    for (size_t i = 0; (vm = node_vm_at(node, i)); i++)
        room -= is_starting(vm);
    while (room-- > 0 && (next = find_next(node))) {
        next->autostart_waits = false;
        log_info(node->log, "vm %s: autostart", next->head.id);
        vm_step(node, next);
    }
}
