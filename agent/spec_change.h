/* spec_change.h - which fields of a spec can be changed, and when.  Pure. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include "agent/node.h"

struct error;

/* The path of the first field in which two canonical specs differ, like "boot.kernel" or
 * "disks[0].volume", without those whose path is in `except` ("disks[].volume": of each; NULL
 * ended, or NULL); false if there is none. */
bool spec_differs(const json_t *a, const json_t *b, const char *const *except, char *ret_field,
                  size_t size);

/* May the spec of what is there become that one?  busy: what it is while fields that need it at
 * rest cannot change, and what to do, as in "running: stop it first"; NULL = it is at rest.
 * -EBUSY, or -EBADE: never; both name the field. */
int spec_change_check(enum resource_kind kind, const json_t *before, const json_t *after,
                      const char *busy, struct error *err);

/* A merge patch's nulls take away what is there, or may be: one that names no field is a mistake,
 * of which what comes out of the merge tells nothing.  before: what the patch is of, and path:
 * where that is, "" or as in "disks[]".  -EINVAL, naming the field. */
int spec_change_check_nulls(enum resource_kind kind, const json_t *before, const json_t *patch,
                            const char *path, struct error *err);
/* The same of a patch of what is shown with all fields that there are. */
int spec_change_check_known(const json_t *known, const json_t *patch, struct error *err);
