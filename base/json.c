#include "base/json.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/id.h"
#include "base/text.h"

/* Nesting and number of values of the text before it is parsed: jansson's own limit of depth is
 * 2048, its dump has none, and a MiB of "[[],[],..." would become 50. */
static int check_shape(const char *bytes, size_t size, struct error *err)
{
    int depth = 0, values = 1;
    bool in_string = false;

    for (size_t i = 0; i < size; i++) {
        char c = bytes[i];

        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            values++;
            if (++depth > JSON_DEPTH_MAX)
                return error_set(err, EINVAL, "the JSON nests deeper than %d levels",
                                 JSON_DEPTH_MAX);
        } else if (c == ',') {
            values++;
        } else if (c == '}' || c == ']') {
            depth--;
        }
        if (values > JSON_VALUES_MAX)
            return error_set(err, EINVAL, "the JSON has more than %d values", JSON_VALUES_MAX);
    }
    return 0;
}

int json_parse(const char *bytes, size_t size, json_t **ret_json, struct error *err)
{
    json_error_t where;
    json_t *json;
    int result = check_shape(bytes, size, err);

    if (result < 0)
        return result;
    errno = 0; /* all that tells want of memory from a wrong document, for jansson does not */
    json = json_loadb(bytes, size, JSON_REJECT_DUPLICATES, &where);
    if (!json && errno == ENOMEM)
        return error_no_memory(err);
    if (!json)
        return error_set(err, EINVAL, "not JSON: line %d column %d: %s", where.line, where.column,
                         where.text);
    *ret_json = json;
    return 0;
}

/* Not json_dumps, whose text may lack a key where memory is short (jansson 2.14). */
static char *print(const json_t *json, size_t flags)
{
    struct text text;
    char *bytes;
    int result;

    if (!json || !text_open(&text))
        return NULL;
    result = json_dumpf(json, text.out, flags | JSON_COMPACT | JSON_ENCODE_ANY);
    bytes = text_close(&text, NULL);
    if (result == 0)
        return bytes;
    free(bytes);
    return NULL;
}

char *json_canonical(const json_t *json)
{
    return print(json, JSON_SORT_KEYS);
}

char *json_compact(const json_t *json)
{
    return print(json, 0);
}

const char *json_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

int json_index(const json_t *object, const char *key, const char *const *names, int count)
{
    const char *text = json_text(object, key);

    for (int i = 0; i < count; i++)
        if (names[i] && strcmp(names[i], text) == 0)
            return i;
    return -1;
}

int json_merge_patch(json_t *target, const json_t *patch)
{
    const char *key;
    json_t *value;
    int result = 0;

    json_object_foreach((json_t *)patch, key, value)
    {
        json_t *old = json_object_get(target, key);

        if (json_is_null(value)) {
            json_object_del(target, key);
        } else if (json_is_object(value)) {
            if (!json_is_object(old)) {
                old = json_object();
                result |= json_object_set_new(target, key, old);
            }
            result |= json_merge_patch(json_object_get(target, key), value);
        } else {
            result |= json_object_set(target, key, value);
        }
    }
    return result == 0 ? 0 : -ENOMEM;
}

int json_set_text(json_t *object, const char *key, const char *text)
{
    return text && text[0] ? json_object_set_new(object, key, json_string(text)) : 0;
}

json_t *json_message(const char *text)
{
    json_t *string = json_string(text);
    char ascii[512];
    size_t i;

    if (string)
        return string;
    for (i = 0; i < sizeof ascii && text[i]; i++)
        ascii[i] = (unsigned char)text[i] < 0x80 ? text[i] : '?';
    return json_stringn(ascii, i);
}

json_t *json_reason(const char *text)
{
    return text[0] ? json_message(text) : json_null();
}

json_t *json_whole(json_t *json, int results)
{
    if (results == 0)
        return json;
    json_decref(json);
    return NULL;
}

json_t *json_whole_copy(const json_t *json)
{
    json_t *copy = json_deep_copy(json);

    return json_whole(copy, json_equal(copy, json) ? 0 : -1);
}

json_t *json_patched(const json_t *json, const json_t *patch)
{
    json_t *copy = json_whole_copy(json);

    return copy ? json_whole(copy, json_merge_patch(copy, patch)) : NULL;
}

/* --- reader --- */

static void path_of(const struct json_reader *reader, const char *key, char *to, size_t size)
{
    snprintf(to, size, "%s%s%s", reader->path, reader->path[0] && key[0] ? "." : "", key);
}

static int fail_v(struct json_reader *reader, const char *key, const char *format, va_list args)
{
    char path[sizeof reader->err->field];
    char message[sizeof reader->err->message];

    if (reader->result < 0)
        return reader->result;
    path_of(reader, key, path, sizeof path);
    vsnprintf(message, sizeof message, format, args);
    reader->result = error_field(reader->err, EINVAL, path, "%s: %s", path, message);
    return reader->result;
}

int json_reader_fail(struct json_reader *reader, const char *key, const char *format, ...)
{
    va_list args;
    int result;

    va_start(args, format);
    result = fail_v(reader, key, format, args);
    va_end(args);
    return result;
}

void json_reader_init(struct json_reader *reader, const json_t *object, const char *path,
                      struct error *err)
{
    *reader = (struct json_reader){ .object = object, .path = path, .err = err };
    if (!json_is_object(object))
        json_reader_fail(reader, "", "must be an object");
}

static const json_t *look_up(struct json_reader *reader, const char *key,
                             enum json_presence presence)
{
    const json_t *value;

    if (reader->result < 0)
        return NULL;
    if (reader->seen_count < JSON_MEMBERS_MAX)
        reader->seen[reader->seen_count++] = key;
    value = json_object_get(reader->object, key);
    if (presence == JSON_NULLABLE && json_is_null(value))
        return NULL;
    if (!value && presence == JSON_REQUIRED)
        json_reader_fail(reader, key, "is missing");
    return value;
}

/* JSON has one kind of number: 4.0 is an integer as 4 is (JSON Schema, 6.1.1).  Not beyond 2^53,
 * from where on a double may stand for its neighbours. */
static bool integer_of(const json_t *value, int64_t *ret_integer)
{
    static const double exact_max = 9007199254740992.0;
    double real = json_real_value(value);

    *ret_integer = json_integer_value(value);
    if (!json_is_real(value))
        return json_is_integer(value);
    if (real <= -exact_max || real >= exact_max)
        return false;
    *ret_integer = (int64_t)real;
    return (double)*ret_integer == real;
}

int64_t json_read_integer(struct json_reader *reader, const char *key, int64_t min, int64_t max,
                          enum json_presence presence, int64_t fallback)
{
    const json_t *value = look_up(reader, key, presence);
    int64_t integer;

    if (!value)
        return fallback;
    if (!integer_of(value, &integer)) {
        json_reader_fail(reader, key, "must be an integer");
        return fallback;
    }
    if (integer < min || integer > max) {
        json_reader_fail(reader, key, "must be from %lld to %lld", (long long)min, (long long)max);
        return fallback;
    }
    return integer;
}

const char *json_read_string(struct json_reader *reader, const char *key, size_t max,
                             enum json_presence presence, const char *fallback)
{
    const json_t *value = look_up(reader, key, presence);

    if (!value)
        return fallback;
    if (!json_is_string(value)) {
        json_reader_fail(reader, key, "must be a string");
        return fallback;
    }
    if (json_string_length(value) > max) {
        json_reader_fail(reader, key, "must have at most %zu bytes", max);
        return fallback;
    }
    if (strlen(json_string_value(value)) != json_string_length(value)) {
        json_reader_fail(reader, key, "must not contain NUL");
        return fallback;
    }
    return json_string_value(value);
}

const char *json_read_id(struct json_reader *reader, const char *key, enum json_presence presence)
{
    const char *id = json_read_string(reader, key, ID_MAX, presence, NULL);

    if (id && !id_is_valid(id)) {
        json_reader_fail(reader, key, ID_RULE);
        return NULL;
    }
    return id;
}

bool json_read_bool(struct json_reader *reader, const char *key, bool fallback)
{
    const json_t *value = look_up(reader, key, JSON_OPTIONAL);

    if (!value)
        return fallback;
    if (!json_is_boolean(value)) {
        json_reader_fail(reader, key, "must be true or false");
        return fallback;
    }
    return json_is_true(value);
}

int json_read_enum(struct json_reader *reader, const char *key, const char *const *names, int count,
                   enum json_presence presence, int fallback)
{
    const char *text = json_read_string(reader, key, 64, presence, NULL);
    char all[160] = "";

    if (!text)
        return fallback;
    for (int i = 0; i < count; i++) {
        size_t used = strlen(all);

        if (strcmp(text, names[i]) == 0)
            return i;
        snprintf(all + used, sizeof all - used, "%s\"%s\"", i ? ", " : "", names[i]);
    }
    json_reader_fail(reader, key, "must be one of %s", all);
    return fallback;
}

const json_t *json_read_array(struct json_reader *reader, const char *key, size_t max,
                              enum json_presence presence)
{
    const json_t *value = look_up(reader, key, presence);

    if (!value)
        return NULL;
    if (!json_is_array(value)) {
        json_reader_fail(reader, key, "must be an array");
        return NULL;
    }
    if (json_array_size(value) > max) {
        json_reader_fail(reader, key, "must have at most %zu items", max);
        return NULL;
    }
    return value;
}

const json_t *json_read_object(struct json_reader *reader, const char *key,
                               enum json_presence presence)
{
    const json_t *value = look_up(reader, key, presence);

    if (value && !json_is_object(value)) {
        json_reader_fail(reader, key, "must be an object");
        return NULL;
    }
    return value;
}

static bool was_seen(const struct json_reader *reader, const char *key)
{
    for (uint32_t i = 0; i < reader->seen_count; i++)
        if (strcmp(reader->seen[i], key) == 0)
            return true;
    return false;
}

int json_reader_end(struct json_reader *reader)
{
    const char *key;
    json_t *value;

    if (reader->result < 0)
        return reader->result;
    json_object_foreach((json_t *)reader->object, key, value)
    {
        if (!was_seen(reader, key))
            return json_reader_fail(reader, key, "is not a known field");
    }
    return 0;
}
