/* fuzz_spec.c - JSON bodies of the API as specs of images, volumes, networks and VMs, as warrend
 * reads them.  The first byte chooses the kind. */
#include <jansson.h>
#include "tests/fuzz/fuzz.h"
#include "agent/node_internal.h"
#include "agent/spec_rules.h"
#include "agent/vm_spec.h"
#include "base/error.h"
#include "base/json.h"

/* What was taken has bounds, and its canonical form is taken again and stays as it is. */
static void check_spec(const struct resource_ops *ops, struct resource *resource)
{
    struct resource *again = NULL;
    struct error err = { 0 };
    char *text = json_canonical(resource->spec);
    json_t *json = NULL;

    FUZZ_REQUIRE(text && json_parse(text, strlen(text), &json, NULL) == 0);
    FUZZ_REQUIRE(ops->parse(json, &again, &err) == 0);
    FUZZ_REQUIRE(json_equal(again->spec, resource->spec));
    json_decref(json);
    free(text);
    ops->free(again);
}

static void check_vm(const json_t *json)
{
    struct vm_spec spec = { 0 };

    if (vm_spec_parse(json, &spec, NULL) < 0)
        return;
    FUZZ_REQUIRE(spec.vcpus >= 1 && spec.vcpus <= VMM_VCPUS_MAX);
    FUZZ_REQUIRE(spec.memory_mib >= VM_MEMORY_MIB_MIN && spec.memory_mib <= VM_MEMORY_MIB_MAX);
    FUZZ_REQUIRE(spec.disk_count <= VMM_DISKS_MAX && spec.nic_count <= VMM_NICS_MAX);
    FUZZ_REQUIRE(memchr(spec.cmdline, 0, sizeof(spec.cmdline)));
    vm_spec_clear(&spec);
}

FUZZ_TARGET(spec)
{
    const struct resource_ops *const kinds[] = { &vm_ops, &network_ops, &volume_ops, &image_ops };
    const struct resource_ops *ops = kinds[size > 0 ? bytes[0] & 3 : 0];
    struct resource *resource = NULL;
    struct error err = { 0 };
    json_t *json = NULL;

    if (size == 0 || json_parse((const char *)bytes + 1, size - 1, &json, &err) < 0)
        return 0;
    if (ops->parse(json, &resource, &err) == 0) {
        check_spec(ops, resource);
        (void)spec_rules_check(RESOURCE_VM, resource->spec, NULL, &err);
        FUZZ_REQUIRE(spec_rules_check(RESOURCE_VM, resource->spec, resource->spec, NULL) == 0);
        ops->free(resource);
    }
    check_vm(json);
    json_decref(json);
    return 0;
}
