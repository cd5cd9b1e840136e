/* Lists of resources: a page at a time, of those that a filter lets through. */
#include <string.h>

#include "agent/label_selector.h"
#include "agent/node_internal.h"

/* Looked at for one page, so that a filter that lets nothing through does not hold up the loop. */
#define LIST_SCAN_MAX 4096

static const char *const states_of_images[] = { "importing", "ready", "failed", "deleting", NULL };
static const char *const states_of_others[] = { "creating", "ready", "failed", "deleting", NULL };
static const char *const states_of_operations[] = { "running", "succeeded", "failed", NULL };

bool node_state_is_known(enum resource_kind kind, const char *name)
{
    const char *const *names = kind == RESOURCE_IMAGE       ? states_of_images
                               : kind == RESOURCE_OPERATION ? states_of_operations
                                                            : states_of_others;

    if (kind == RESOURCE_VM)
        return vm_state_parse(name) != VM_NONE;
    while (*names && strcmp(*names, name) != 0)
        names++;
    return *names != NULL;
}

/* As in its status. */
static const char *state_name(const struct resource *resource, bool operation)
{
    if (operation)
        return states_of_operations[resource_progress(resource)];
    if (resource->kind == RESOURCE_VM)
        return vm_state_name(resource->deleting ? VM_DELETING
                                                : ((const struct vm *)resource)->state);
    if (resource->deleting)
        return "deleting";
    return progress_state_name(resource_progress(resource),
                               resource->kind == RESOURCE_IMAGE ? "importing" : "creating");
}

static bool matches(const struct resource *resource, bool operation,
                    const struct node_list_query *query)
{
    const json_t *labels = json_object_get(resource->spec, "labels");

    if (resource->hidden)
        return false;
    if (query->state && strcmp(state_name(resource, operation), query->state) != 0)
        return false;
    return (!query->labels || label_selector_matches(query->labels, labels)) &&
           (!query->limits || label_selector_matches(query->limits, labels));
}

/* Operations are listed in the order of their images' ids, which their cursors are: they stay good
 * when an image goes. */
json_t *node_list(struct node *node, enum resource_kind kind, const struct node_list_query *query,
                  char ret_next[ID_MAX + 1])
{
    bool operations = kind == RESOURCE_OPERATION;
    const struct resource_table *table = &node->tables[operations ? RESOURCE_IMAGE : kind];
    size_t i = resource_after(table, query->after);
    size_t end = table->count - i > LIST_SCAN_MAX ? i + LIST_SCAN_MAX : table->count;
    json_t *items = json_array();

    for (; items && i < end && json_array_size(items) < query->limit; i++) {
        const struct resource *resource = table->items[i];

        if (matches(resource, operations, query))
            json_array_append_new(items, operations ? operation_json((const struct image *)resource)
                                                    : resource_json(node, resource));
    }
    while (i > 0 && i < end && !matches(table->items[i], operations, query))
        i++;
    ret_next[0] = '\0';
    if (i > 0 && i < table->count)
        memcpy(ret_next, table->items[i - 1]->id, ID_MAX + 1);
    return items;
}
