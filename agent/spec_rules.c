/* spec_rules.c - see spec_rules.h. */
#include "agent/spec_rules.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "agent/labels.h"
#include "agent/vm_spec.h"
#include "base/error.h"

/* NULL: it is not there, or was so before. */
static const char *new_label(const json_t *labels, const json_t *before, const char *key)
{
    const json_t *value = json_object_get(labels, key);
    const json_t *old = json_object_get(before, key);

    return value && old && json_equal((json_t *)value, (json_t *)old) ? NULL
                                                                      : json_string_value(value);
}

int spec_rules_check_metrics(const json_t *labels, const json_t *before, struct error *err)
{
    const char *port = new_label(labels, before, VM_LABEL_METRICS_PORT);
    const char *path = new_label(labels, before, VM_LABEL_METRICS_PATH);

    if (port && (strspn(port, "0123456789") != strlen(port) || strlen(port) > 5 || port[0] == '0' ||
                 strtoul(port, NULL, 10) < 1 || strtoul(port, NULL, 10) > 65535))
        return error_field(err, EINVAL, "labels",
                           "labels: " VM_LABEL_METRICS_PORT " is a port, from 1 to 65535");
    if (path && path[0] != '/')
        return error_field(err, EINVAL, "labels",
                           "labels: " VM_LABEL_METRICS_PATH " is a path, and begins with /");
    return 0;
}

int spec_rules_check(enum resource_kind kind, const json_t *spec, const json_t *before,
                     struct error *err)
{
    const json_t *labels = json_object_get(spec, "labels");
    const json_t *old = json_object_get(before, "labels");
    int result = labels_check(labels, old, err);

    return result == 0 && kind == RESOURCE_VM ? spec_rules_check_metrics(labels, old, err) : result;
}
