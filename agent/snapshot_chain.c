/* What a VM's memory and differential snapshots stand on. */
#include <errno.h>
#include <string.h>

#include "agent/node_snapshot.h"
#include "agent/vm_memory.h"
#include "base/error.h"

size_t snapshot_chain(const struct node *node, const struct snapshot *snapshot,
                      uint32_t ret_instances[VMM_LAYERS_MAX])
{
    uint32_t instances[VMM_LAYERS_MAX];
    size_t count = 0;

    for (; snapshot && count < VMM_LAYERS_MAX; count++) {
        instances[count] = snapshot->head.instance;
        snapshot = snapshot->parent[0] ? node_find_snapshot(node, snapshot->parent) : NULL;
    }
    for (size_t i = 0; i < count; i++)
        ret_instances[i] = instances[count - 1 - i];
    return count;
}

const struct snapshot *snapshot_of_memory(const struct node *node, const struct vm *vm)
{
    const struct snapshot *snapshot;

    for (size_t i = 0; vm->memory_base[0] && (snapshot = node_snapshot_at(node, i)); i++)
        if (strcmp(snapshot->head.uid, vm->memory_base) == 0)
            return snapshot;
    return NULL;
}

static int check_track(const struct vm *vm, struct error *err)
{
    if (vm->spec.memory_backing == VMM_MEMORY_ANONYMOUS || vm->memory_base[0] || vm->forked)
        return 0;
    return error_field(err, EBUSY, "track_changes",
                       "track_changes: the memory_backing of vm %s is %s: only anonymous memory "
                       "can stand on a snapshot",
                       vm->head.id, vm_memory_names[vm->spec.memory_backing]);
}

int snapshot_check_parent(const struct node *node, const struct snapshot *snapshot,
                          const struct vm *vm, struct error *err)
{
    const struct snapshot *parent =
        snapshot->parent[0] ? node_find_snapshot(node, snapshot->parent) : NULL;
    const struct snapshot *base = snapshot_of_memory(node, vm);
    uint32_t instances[VMM_LAYERS_MAX];

    if (!snapshot->parent[0])
        return snapshot->track ? check_track(vm, err) : 0;
    if (!parent || resource_is_leaving(&parent->head))
        return error_field(err, EINVAL, "parent", "parent: there is no snapshot %s",
                           snapshot->parent);
    if (parent->state != PROGRESS_READY)
        return error_field(err, EBUSY, "parent", "parent: snapshot %s is %s", snapshot->parent,
                           resource_state_name(&parent->head));
    if (parent != base)
        return error_field(err, EBUSY, "parent",
                           "parent: the memory of vm %s does not stand on snapshot %s, but on %s: "
                           "restore the VM from it, or take a full one with track_changes",
                           vm->head.id, snapshot->parent, base ? base->head.id : "none");
    if (snapshot_chain(node, parent, instances) == VMM_LAYERS_MAX)
        return error_field(err, EBUSY, "parent",
                           "parent: snapshot %s is the last of %d: take a full one",
                           snapshot->parent, VMM_LAYERS_MAX);
    return 0;
}
