/* Lists of resources: a page at a time, of those that a filter lets through. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/label_selector.h"
#include "agent/node_internal.h"
#include "agent/operation.h"
#include "base/json.h"

/* Looked at for one page, so that a filter that lets nothing through does not hold up the loop. */
#define LIST_SCAN_MAX 4096

static const char *const states_of_images[] = { "importing", "ready", "failed", "deleting", NULL };
static const char *const states_of_others[] = { "creating", "ready", "failed", "deleting", NULL };

/* NULL behind the last. */
static const char *state_at(enum resource_kind kind, int i)
{
    if (kind == RESOURCE_OPERATION)
        return i < OPERATION_STATE_COUNT ? operation_state_name((enum operation_state)i) : NULL;
    if (kind == RESOURCE_VM)
        return VM_NONE + 1 + i < VM_STATE_COUNT ? vm_state_name((enum vm_state)(VM_NONE + 1 + i))
                                                : NULL;
    return kind == RESOURCE_IMAGE ? states_of_images[i] : states_of_others[i];
}

int node_check_state(enum resource_kind kind, const char *name, struct error *err)
{
    char known[128] = "";
    size_t used = 0;

    for (int i = 0; state_at(kind, i); i++) {
        if (strcmp(state_at(kind, i), name) == 0)
            return 0;
        if (used < sizeof known)
            used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "",
                                     state_at(kind, i));
    }
    return error_field(err, EINVAL, "state", "%ss are never in the state %.40s, but in %s",
                       resource_kind_name(kind), name, known);
}

static bool matches(const struct resource *resource, const struct node_list_query *query)
{
    const json_t *labels = json_object_get(resource->spec, "labels");

    if (resource->hidden)
        return false;
    if (query->state && strcmp(resource_state_name(resource), query->state) != 0)
        return false;
    return (!query->labels || label_selector_matches(query->labels, labels)) &&
           (!query->limits || label_selector_matches(query->limits, labels));
}

json_t *node_list(struct node *node, enum resource_kind kind, const struct node_list_query *query,
                  char ret_next[ID_MAX + 1])
{
    const struct resource_table *table = &node->tables[kind];
    size_t i = resource_after(table, query->after);
    size_t end = table->count - i > LIST_SCAN_MAX ? i + LIST_SCAN_MAX : table->count;
    const struct resource *last = NULL; /* that is shown: others' ids are not told */
    json_t *items = json_array();
    int result = 0;

    for (; items && i < end && json_array_size(items) < query->limit; i++) {
        if (!matches(table->items[i], query))
            continue;
        last = table->items[i];
        result |= json_array_append_new(items, resource_json(node, last));
    }
    while (i > 0 && i < end && !matches(table->items[i], query))
        i++;
    ret_next[0] = '\0';
    if (i > 0 && i < table->count)
        memcpy(ret_next, (last ? last : table->items[i - 1])->id, ID_MAX + 1);
    return json_whole(items, result); /* one that is missing would seem to be gone */
}
