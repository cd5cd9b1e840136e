/* spec_rules.h - what a spec that is asked for must keep to, beyond what can be read at all.  Pure.
 *
 * A kind's parse (resource_ops) reads every row that any version ever wrote: it refuses only what
 * the code could not live with, and never becomes stricter.  A rule that is to be stricter than
 * that stands here, and is for what is new: an agent must not fail to start, or a VM be lost, for
 * an older row. */
#pragma once
#include <jansson.h>
#include "agent/node.h"

struct error;

/* Both canonical; before: what the resource has by now, or a new fork's parent, NULL = nothing.
 * What is as it was may stay so.  -EINVAL naming the field. */
int spec_rules_check(enum resource_kind kind, const json_t *spec, const json_t *before,
                     struct error *err);

/* Labels of a VM by which others go (vm_spec.h) are what these take them for, or as they were. */
int spec_rules_check_metrics(const json_t *labels, const json_t *before, struct error *err);
