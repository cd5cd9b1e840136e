/* instance_name.h - reading instance numbers back from file names.  Pure. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "<decimal number without leading zeros><suffix>"; -EINVAL for every other name. */
int instance_name_parse(const char *name, const char *suffix, uint32_t *ret_instance);

struct instance_set {
    const uint32_t *items; /* borrowed */
    size_t count;
};
bool instance_set_has(const struct instance_set *set, uint32_t instance);
