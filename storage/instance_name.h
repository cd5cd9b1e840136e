/* instance_name.h - reading instance numbers back from file names.  Pure. */
#pragma once
#include <stdint.h>

/* "<decimal number without leading zeros><suffix>"; -EINVAL for every other name. */
int instance_name_parse(const char *name, const char *suffix, uint32_t *ret_instance);
