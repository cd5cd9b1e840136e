/* filter.h - the system calls a running VMM may make, one seccomp program per kind of thread; any
 * other call kills the process.  filter_rules.h has the rules; build_filters.c compiles them while
 * the project is built, so the VMM carries programs and no compiler. */
#pragma once
#include "base/sanitized.h"

struct error;

enum filter_kind {
    FILTER_DEVICES, /* the main thread: devices and control */
    FILTER_VCPU,
    FILTER_COUNT,
};

/* Loads it for the calling thread, for ever.  Sanitizers need more system calls: builds with them
 * have no filters and say so in the log. */
int filter_load(enum filter_kind kind, struct error *err);
#define FILTERS_ARE_BUILT (!SANITIZED)
