/* GET /v1/prometheus/targets: guests that export metrics, by what their VMs' labels say.  Those of
 * a target are few and fixed: a VM's own, which anyone may invent, become none. */
#include <stdio.h>

#include "agent/node_internal.h"
#include "agent/spec_rules.h"
#include "base/json.h"
#include "net/cidr.h"

#define DEFAULT_PATH "/metrics"

static json_t *target(const struct vm *vm, const char *port)
{
    const json_t *path = json_object_get(vm->spec.labels, VM_LABEL_METRICS_PATH);
    char ipv4[IPV4_TEXT];
    char address[IPV4_TEXT + 8];

    ipv4_format(vm->nics[vm->spec.nics[0].place].ipv4, ipv4);
    snprintf(address, sizeof address, "%s:%s", ipv4, port);
    return json_pack("{s:[s], s:{s:s, s:s, s:s}}", "targets", address, "labels", "vm", vm->head.id,
                     "network", vm->spec.nics[0].network, "__metrics_path__",
                     path ? json_string_value(path) : DEFAULT_PATH);
}

json_t *node_targets(struct node *node)
{
    const struct vm *vm;
    json_t *targets = json_array();
    int result = 0;

    for (size_t i = 0; targets && (vm = node_vm_at(node, i)); i++) {
        const json_t *port = json_object_get(vm->spec.labels, VM_LABEL_METRICS_PORT);

        if (!vm->head.hidden && port &&
            spec_rules_check_metrics(vm->spec.labels, NULL, NULL) == 0 && vm->state == VM_RUNNING &&
            vm->spec.nic_count > 0)
            result |= json_array_append_new(targets, target(vm, json_string_value(port)));
    }
    return json_whole(targets, result);
}
