/* instance_name.h - instance numbers as names of files and directories, and back.  Pure. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "<decimal number><suffix>"; a suffix has at most 13 characters. */
struct instance_name {
    char text[24];
};
struct instance_name instance_name(uint32_t instance, const char *suffix);
/* The number, without leading zeros, of such a name; suffix NULL: "", or any that begins with a
 * dot.  -EINVAL for every other name. */
int instance_name_parse(const char *name, const char *suffix, uint32_t *ret_instance);

struct instance_set {
    const uint32_t *items; /* borrowed */
    size_t count;
};
bool instance_set_has(const struct instance_set *set, uint32_t instance);
