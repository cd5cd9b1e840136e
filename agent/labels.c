/* labels.c - see labels.h. */
#include "agent/labels.h"
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include "base/error.h"
#include "base/json.h"

static bool key_is_valid(const char *key)
{
    size_t length = strlen(key);

    return length >= 1 && length <= LABEL_KEY_MAX &&
           strspn(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._/-") ==
               length;
}

static bool value_is_valid(const json_t *value)
{
    const char *text = json_string_value(value);

    if (!text || json_string_length(value) > LABEL_VALUE_MAX)
        return false;
    for (size_t i = 0; i < json_string_length(value); i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return false;
    return true;
}

int labels_check(const json_t *labels, const json_t *before, struct error *err)
{
    const char *key;
    json_t *value;

    if (json_object_size(labels) > LABELS_MAX &&
        json_object_size(labels) > json_object_size(before))
        return error_field(err, EINVAL, "labels", "labels: must be at most %d", LABELS_MAX);
    json_object_foreach((json_t *)labels, key, value)
    {
        json_t *old = json_object_get(before, key);

        if (old && json_equal(old, value))
            continue;
        if (!key_is_valid(key))
            return error_field(
                err, EINVAL, "labels",
                "labels: keys have 1 to %d of A-Z, a-z, 0-9, \".\", \"_\", \"/\" and \"-\"",
                LABEL_KEY_MAX);
        if (!value_is_valid(value))
            return error_field(
                err, EINVAL, "labels",
                "labels: values are strings of at most %d bytes, without control characters",
                LABEL_VALUE_MAX);
    }
    return 0;
}

const json_t *labels_read(struct json_reader *reader)
{
    const json_t *labels = json_read_object(reader, "labels", JSON_OPTIONAL);
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)labels, key, value)
    {
        if (!json_is_string(value))
            json_reader_fail(reader, "labels", "values are strings");
    }
    return reader->result == 0 ? labels : NULL;
}

json_t *labels_copy(const json_t *labels)
{
    return labels ? json_whole_copy(labels) : json_object();
}
