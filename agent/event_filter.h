/* event_filter.h - which events somebody wants.  Pure; any thread. */
#pragma once
#include <stdbool.h>
#include "agent/label_selector.h"
#include "base/id.h"

struct error;
struct event;

/* "" = any. */
struct event_filter {
    char kind[12], id[ID_MAX + 1]; /* of the resource */
    char type[12];
    struct label_selector labels; /* of no requirements = any, as the next */
    struct label_selector limits; /* which VMs who asks may see */
};

/* NULL = any; without selectors.  -EINVAL naming the field. */
int event_filter_make(const char *kind, const char *id, const char *type,
                      struct event_filter *ret_filter, struct error *err);
/* Labels are those that the event itself tells.  An older agent's tells none: of a VM it passes no
 * limits. */
bool event_filter_passes(const struct event_filter *filter, const struct event *event);
