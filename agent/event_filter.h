/* event_filter.h - which events somebody wants.  Pure; any thread. */
#pragma once
#include <stdbool.h>
#include "base/id.h"

struct error;

/* "" = any. */
struct event_filter {
    char kind[12], id[ID_MAX + 1]; /* of the resource */
    char type[12];
};

/* NULL = any.  -EINVAL naming the field. */
int event_filter_make(const char *kind, const char *id, const char *type,
                      struct event_filter *ret_filter, struct error *err);
bool event_filter_passes(const struct event_filter *filter, const char *kind, const char *id,
                         const char *type);
