/* Lists of resources: a page at a time, of those that a filter lets through. */
#include <string.h>

#include "agent/label_selector.h"
#include "agent/node_internal.h"
#include "agent/operation.h"
#include "base/json.h"

/* Looked at for one page, so that a filter that lets nothing through does not hold up the loop. */
#define LIST_SCAN_MAX 4096

static const char *const states_of_images[] = { "importing", "ready", "failed", "deleting", NULL };
static const char *const states_of_others[] = { "creating", "ready", "failed", "deleting", NULL };

bool node_state_is_known(enum resource_kind kind, const char *name)
{
    const char *const *names = kind == RESOURCE_IMAGE ? states_of_images : states_of_others;

    for (int state = 0; kind == RESOURCE_OPERATION && state < OPERATION_STATE_COUNT; state++)
        if (strcmp(operation_state_name((enum operation_state)state), name) == 0)
            return true;
    if (kind == RESOURCE_OPERATION)
        return false;
    if (kind == RESOURCE_VM)
        return vm_state_parse(name) != VM_NONE;
    while (*names && strcmp(*names, name) != 0)
        names++;
    return *names != NULL;
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
