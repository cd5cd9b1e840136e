/* query.c - see query.h. */
#include "api/query.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "base/error.h"
#include "base/hex.h"

/* Decodes %XX in place; false if malformed or if a control character comes out. */
static bool percent_decode(char *text)
{
    char *to = text;

    for (const char *from = text; *from; from++) {
        unsigned char c = (unsigned char)*from;

        if (c == '%') {
            int high = hex_digit(from[1]);
            int low = high < 0 ? -1 : hex_digit(from[2]);

            if (low < 0)
                return false;
            c = (unsigned char)(high << 4 | low);
            from += 2;
        }
        if (c < 0x20 || c > 0x7e)
            return false; /* no parameter of this API has a value beyond ASCII */
        *to++ = (char)c;
    }
    *to = '\0';
    return true;
}

static int query_add(struct query *query, char *pair, struct error *err)
{
    char *equals = strchr(pair, '=');
    char *value = equals ? equals + 1 : pair + strlen(pair);

    if (equals)
        *equals = '\0';
    if (!percent_decode(pair) || *pair == '\0' || strlen(pair) > 40)
        return error_field(err, EINVAL, "query", "a query parameter's name is malformed");
    if (!percent_decode(value))
        return error_field(err, EINVAL, pair, "query parameter %s is malformed", pair);
    if (query_get(query, pair))
        return error_field(err, EINVAL, pair, "query parameter %s is given twice", pair);
    if (query->count == QUERY_MAX)
        return error_field(err, EINVAL, "query", "more than %d query parameters", QUERY_MAX);
    query->parameters[query->count].name = pair;
    query->parameters[query->count++].value = value;
    return 0;
}

int query_parse(char *target, struct query *ret_query, struct error *err)
{
    struct query query = { 0 };
    char *rest = strchr(target, '?');

    if (target[0] != '/')
        return error_field(err, EINVAL, "path", "the request target must begin with /");
    if (rest)
        *rest++ = '\0';
    if (strchr(target, '%'))
        return error_field(err, EINVAL, "path",
                           "paths of this API contain no percent-encoded characters");
    while (rest && *rest) {
        char *pair = strsep(&rest, "&");
        int r = query_add(&query, pair, err);

        if (r < 0)
            return r;
    }
    *ret_query = query;
    return 0;
}

const char *query_get(const struct query *query, const char *name)
{
    for (size_t i = 0; i < query->count; i++) {
        if (strcmp(query->parameters[i].name, name) == 0)
            return query->parameters[i].value;
    }
    return NULL;
}

int query_check_names(const struct query *query, const char *const *allowed, struct error *err)
{
    for (size_t i = 0; i < query->count; i++) {
        const char *name = query->parameters[i].name;
        const char *const *one = allowed;

        while (one && *one && strcmp(*one, name) != 0)
            one++;
        if (!one || !*one)
            return error_field(err, EINVAL, name, "unknown query parameter %s", name);
    }
    return 0;
}

bool digits_parse(const char *text, size_t length, int64_t *ret_value)
{
    int64_t value = 0;

    if (length == 0 || length > 18)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        value = value * 10 + (text[i] - '0');
    }
    *ret_value = value;
    return true;
}

int query_integer(const struct query *query, const char *name, int64_t min, int64_t max,
                  int64_t fallback, int64_t *ret_value, struct error *err)
{
    const char *text = query_get(query, name);
    int64_t value = 0;

    if (!text) {
        *ret_value = fallback;
        return 0;
    }
    if (!digits_parse(text, strlen(text), &value) || value < min || value > max)
        return error_field(err, EINVAL, name,
                           "%s must be a whole number from %" PRId64 " to %" PRId64, name, min,
                           max);
    *ret_value = value;
    return 0;
}

int query_bool(const struct query *query, const char *name, bool *ret_value, struct error *err)
{
    const char *text = query_get(query, name);

    if (text && strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
        return error_field(err, EINVAL, name, "%s must be true or false", name);
    *ret_value = text && strcmp(text, "true") == 0;
    return 0;
}
