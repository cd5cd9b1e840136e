/* PATCH of what every kind has: its labels.  VMs and volumes have more (node_vm_change.c,
 * node_volume_change.c). */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/node_change.h"
#include "agent/spec_rules.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"

static bool is_named(const char *key, const char *const *names)
{
    for (; *names; names++)
        if (strcmp(key, *names) == 0)
            return true;
    return false;
}

/* "labels and size_mib". */
static void list_names(const char *const *names, char *ret_text, size_t size)
{
    size_t used = 0;

    for (size_t i = 0; names[i] && used < size; i++)
        used += (size_t)snprintf(ret_text + used, size - used, "%s%s",
                                 i == 0         ? ""
                                 : names[i + 1] ? ", "
                                                : " and ",
                                 names[i]);
}

int change_check_names(const struct change *change, const char *const *changeable,
                       struct error *err)
{
    const char *key;
    json_t *value;
    char names[80];

    if (!json_is_object(change->body))
        return error_field(err, EINVAL, "body", "the patch must be an object");
    list_names(changeable, names, sizeof names);
    json_object_foreach(change->body, key, value)
    {
        if (!is_named(key, changeable))
            return error_field(err, EINVAL, key,
                               "%s: cannot be changed; of this %s only %s can, or delete it and "
                               "make it anew",
                               key, resource_kind_name(change->kind), names);
    }
    return 0;
}

int change_merge_spec(struct change *change, struct error *err)
{
    const struct resource_ops *ops = resource_ops_of(change->kind);
    json_t *merged = json_patched(change->target->spec, change->body);
    struct resource *fresh = NULL;
    int result;

    if (!merged)
        return error_set(err, EAGAIN, "memory is short; try again");
    result = ops->parse(merged, &fresh, err);
    json_decref(merged);
    if (result < 0)
        return result;
    result = spec_rules_check(change->kind, fresh->spec, change->target->spec, err);
    if (result == 0)
        change->new_json = json_incref(fresh->spec);
    ops->free(fresh);
    return result < 0 ? result : !json_equal(change->new_json, change->target->spec);
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

int change_patch_labels(struct change *change, struct error *err)
{
    static const char *const changeable[] = { "labels", NULL };
    int result = change_check_names(change, changeable, err);

    if (result == 0)
        result = change_merge_spec(change, err);
    return result > 0 ? change_commit_spec(change, err) : result;
}

void change_apply_spec(struct change *change)
{
    struct resource *resource = change->target;

    resource->generation++;
    json_decref(resource->spec);
    resource->spec = take_pointer(change->new_json);
}
