#include "net/interface_name.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool interface_prefix_is_valid(const char *prefix)
{
    size_t length = strspn(prefix, "abcdefghijklmnopqrstuvwxyz0123456789");

    return length > 0 && length <= INTERFACE_PREFIX_MAX && prefix[length] == '\0' &&
           prefix[0] >= 'a';
}

void network_bridge_name(const char *prefix, uint32_t network_instance, char ret_name[IFNAMSIZ])
{
    snprintf(ret_name, IFNAMSIZ, "%.4s-b%x", prefix, network_instance);
}

void nic_tap_name(const char *prefix, uint32_t vm_instance, uint8_t index, char ret_name[IFNAMSIZ])
{
    snprintf(ret_name, IFNAMSIZ, "%.4s-%x-%x", prefix, vm_instance, index & 15u);
}

enum interface_kind interface_name_parse(const char *prefix, const char *name,
                                         uint32_t *ret_instance, uint8_t *ret_index)
{
    size_t skip = strlen(prefix) + 1;
    char expected[IFNAMSIZ];
    unsigned long instance;
    const char *dash;

    if (strlen(name) <= skip || strncmp(name, prefix, skip - 1) != 0)
        return INTERFACE_OTHER;
    dash = strchr(name + skip, '-');
    instance = strtoul(name + skip + (dash ? 0 : 1), NULL, 16);
    if (instance > UINT32_MAX)
        return INTERFACE_OTHER;
    *ret_instance = (uint32_t)instance;
    *ret_index = dash ? (uint8_t)(strtoul(dash + 1, NULL, 16) & 15) : 0;
    if (dash)
        nic_tap_name(prefix, *ret_instance, *ret_index, expected);
    else
        network_bridge_name(prefix, *ret_instance, expected);
    if (strcmp(name, expected) != 0)
        return INTERFACE_OTHER;
    return dash ? INTERFACE_TAP : INTERFACE_BRIDGE;
}
