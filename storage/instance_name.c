#include "storage/instance_name.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct instance_name instance_name(uint32_t instance, const char *suffix)
{
    struct instance_name name;

    snprintf(name.text, sizeof name.text, "%" PRIu32 "%s", instance, suffix);
    return name;
}

int instance_name_parse(const char *name, const char *suffix, uint32_t *ret_instance)
{
    uint64_t number = 0;
    size_t digits = 0;
    const char *rest;

    while (name[digits] >= '0' && name[digits] <= '9' && digits <= 10)
        number = number * 10 + (uint64_t)(name[digits++] - '0');
    rest = name + digits;
    if (digits == 0 || (digits > 1 && name[0] == '0') || number > UINT32_MAX)
        return -EINVAL;
    if (suffix ? strcmp(rest, suffix) != 0 : *rest && *rest != '.')
        return -EINVAL;
    *ret_instance = (uint32_t)number;
    return 0;
}

bool instance_set_has(const struct instance_set *set, uint32_t instance)
{
    for (size_t i = 0; i < set->count; i++)
        if (set->items[i] == instance)
            return true;
    return false;
}
