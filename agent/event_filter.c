#include "agent/event_filter.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/resource.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"
#include "storage/database.h"

static const char *const types[] = { "created", "changed", "deleted" };

static bool kind_is_known(const char *name)
{
    for (int kind = 0; kind < RESOURCE_KIND_COUNT; kind++)
        if (strcmp(resource_kind_name((enum resource_kind)kind), name) == 0)
            return true;
    return strcmp(name, "node") == 0;
}

static bool type_is_known(const char *name)
{
    for (size_t i = 0; i < ARRAY_LENGTH(types); i++)
        if (strcmp(types[i], name) == 0)
            return true;
    return false;
}

int event_filter_make(const char *kind, const char *id, const char *type,
                      struct event_filter *ret_filter, struct error *err)
{
    struct event_filter filter = { 0 };

    if (kind && !kind_is_known(kind))
        return error_field(err, EINVAL, "kind",
                           "kind must be image, volume, network, vm, snapshot, operation or node");
    if (id && !id_is_valid(id))
        return error_field(err, EINVAL, "id", "id: " ID_RULE);
    if (type && !type_is_known(type))
        return error_field(err, EINVAL, "type", "type must be created, changed or deleted");
    snprintf(filter.kind, sizeof filter.kind, "%s", kind ? kind : "");
    snprintf(filter.id, sizeof filter.id, "%s", id ? id : "");
    snprintf(filter.type, sizeof filter.type, "%s", type ? type : "");
    *ret_filter = filter;
    return 0;
}

static bool labels_pass(const struct event_filter *filter, const struct event *event)
{
    bool limited = filter->limits.count > 0 && strcmp(event->kind, "vm") == 0;
    json_t *document = NULL;
    const json_t *labels;
    bool result;

    if (json_parse(event->document, strlen(event->document), &document, NULL) < 0)
        return false;
    labels = json_object_get(document, "labels");
    result =
        label_selector_matches(&filter->labels, labels) &&
        (!limited || (json_is_object(labels) && label_selector_matches(&filter->limits, labels)));
    json_decref(document);
    return result;
}

bool event_filter_passes(const struct event_filter *filter, const struct event *event)
{
    return (!filter->kind[0] || strcmp(filter->kind, event->kind) == 0) &&
           (!filter->id[0] || strcmp(filter->id, event->resource) == 0) &&
           (!filter->type[0] || strcmp(filter->type, event->type) == 0) &&
           (filter->labels.count + filter->limits.count == 0 || labels_pass(filter, event));
}
