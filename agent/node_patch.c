/* PATCH of a spec that needs nothing beside its commit; what VMs and volumes need is in
 * node_vm_change.c and node_volume_change.c. */
#include <errno.h>

#include "agent/node_change.h"
#include "agent/spec_change.h"
#include "agent/spec_rules.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"

int change_check_spec(const struct change *change, const json_t *spec, const char *busy,
                      struct error *err)
{
    const json_t *before = change->target->spec;
    int result = spec_rules_check(change->kind, spec, before, err);

    if (result == 0)
        result = spec_change_check(change->kind, before, spec, busy, err);
    return result < 0 ? result : !json_equal(spec, before);
}

int change_merge_spec(struct change *change, struct error *err)
{
    const struct resource_ops *ops = resource_ops_of(change->kind);
    const json_t *before = change->target->spec;
    struct resource *fresh = NULL;
    int result = spec_change_check_nulls(change->kind, before, change->body, "", err);
    json_t *merged = result == 0 ? json_patched(before, change->body) : NULL;

    if (result < 0)
        return result;
    if (!merged)
        return error_no_memory(err);
    result = resource_parse(change->kind, merged, &fresh, err);
    json_decref(merged);
    if (result < 0)
        return result;
    result = change_check_spec(change, fresh->spec, NULL, err);
    if (result > 0)
        change->new_json = json_incref(fresh->spec);
    ops->free(fresh);
    return result;
}

int change_commit_spec(struct change *change, struct error *err)
{
    struct resource *resource = change->target;
    json_t *old = resource->spec;
    int result;

    resource->spec = change->new_json;
    resource->generation++;
    result = change_commit(change, err);
    resource->spec = old;
    resource->generation--;
    return result;
}

int change_patch_spec(struct change *change, struct error *err)
{
    int result = change_merge_spec(change, err);

    return result > 0 ? change_commit_spec(change, err) : result;
}

void change_apply_spec(struct change *change)
{
    struct resource *resource = change->target;

    resource->generation++;
    json_decref(resource->spec);
    resource->spec = take_pointer(change->new_json);
}
