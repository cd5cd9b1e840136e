/* query.h - a request's target taken apart: path and query parameters.  Pure; any thread.
 *
 * Paths of this API never need percent-encoding, so a '%' in one is refused (no %2f, no %00).
 * Query names and values may be percent-encoded; the result must be UTF-8 free of control
 * characters.  Each name may appear once. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

#define QUERY_MAX 8 /* parameters of one request */

struct query {
    size_t count;
    struct query_parameter {
        const char *name, *value; /* borrowed from the text given to query_parse */
    } parameters[QUERY_MAX];
};

/* Ends `target` behind its path and decodes what follows in place.  -EINVAL with the field. */
int query_parse(char *target, struct query *ret_query, struct error *err);

/* NULL if absent. */
const char *query_get(const struct query *query, const char *name);
/* The first parameter that is not in `allowed` (NULL ended) is -EINVAL with its name as field. */
int query_check_names(const struct query *query, const char *const *allowed, struct error *err);

/* Decimal digits only, min..max; `fallback` if absent. */
int query_integer(const struct query *query, const char *name, int64_t min, int64_t max,
                  int64_t fallback, int64_t *ret_value, struct error *err);
/* "true" or "false"; false if absent. */
int query_bool(const struct query *query, const char *name, bool *ret_value, struct error *err);

/* Decimal digits only, no sign, at most 18 of them. */
bool digits_parse(const char *text, size_t length, int64_t *ret_value);
