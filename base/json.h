/* json.h - bounded reading of JSON over jansson: every field named once, unknown ones refused, and
 * errors that carry the field's path.  Loop thread (jansson objects are not shared).
 *
 *   struct json_reader reader;
 *   json_reader_init(&reader, object, "spec", &err);
 *   int64_t vcpus = json_read_integer(&reader, "vcpus", 1, 32, JSON_REQUIRED, 0);
 *   const char *id = json_read_string(&reader, "image", ID_MAX, JSON_OPTIONAL, NULL);
 *   return json_reader_end(&reader);   (the first error of any read, or an unknown field)
 *
 * After the first failure the further reads return their defaults, so callers check once. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

#define JSON_DEPTH_MAX   16
#define JSON_VALUES_MAX  16384 /* of one text, nested ones included */
#define JSON_MEMBERS_MAX 64    /* fields of one object looked up by a reader */

/* Parses bytes: UTF-8, no duplicate keys, depth and number of values bounded.  -EINVAL with line
 * and column. */
int json_parse(const char *bytes, size_t size, json_t **ret_json, struct error *err);
/* Its text, malloc'ed; NULL if memory is short, also for the JSON (NULL).  Canonical: by sorted
 * keys, else as they were set. */
char *json_canonical(const json_t *json);
char *json_compact(const json_t *json);
/* Of rows and other objects of our own making, which need no reader.  A member's text, borrowed; ""
 * if it has none. */
const char *json_text(const json_t *object, const char *key);
/* The other way: NULL for "", as json_pack's "s?" wants what is not there. */
static inline const char *json_or_null(const char *text)
{
    return text[0] ? text : NULL;
}
/* Sets a member, but not to NULL or "".  < 0 if memory is short, which json_pack's "s*" would not
 * tell from NULL. */
int json_set_text(json_t *object, const char *key, const char *text);
/* A message, perhaps cut in the middle of a character, or with bytes of whoever sent them: what is
 * no UTF-8 is told in ASCII and "?"s.  New reference; NULL if memory is short. */
json_t *json_message(const char *text);
/* The same of a status; null for "". */
json_t *json_reason(const char *text);
/* Which of names[0..count-1] (some may be NULL) that is; -1 if none. */
int json_index(const json_t *object, const char *key, const char *const *names, int count);
/* RFC 7396, into an object: null removes, objects merge, the rest replaces. */
int json_merge_patch(json_t *target, const json_t *patch); /* -ENOMEM: a part of it */
/* A deep copy of all of it, or NULL: jansson's own leaves out what it has no memory for. */
json_t *json_whole_copy(const json_t *json);
/* The same with that in it. */
json_t *json_patched(const json_t *json, const json_t *patch);
/* Takes json; NULL if anything that was put into it did not get there (results < 0, or-ed). */
json_t *json_whole(json_t *json, int results);

/* A nullable one may be absent or null, which is the same. */
enum json_presence { JSON_OPTIONAL, JSON_REQUIRED, JSON_NULLABLE };

struct json_reader {
    const json_t *object; /* borrowed */
    const char *path;     /* borrowed; "" or "spec.disks[0]" */
    struct error *err;    /* borrowed */
    int result;
    uint32_t seen_count;
    const char *seen[JSON_MEMBERS_MAX]; /* borrowed keys, for the unknown-field check */
};

void json_reader_init(struct json_reader *reader, const json_t *object, const char *path,
                      struct error *err);
/* 4.0 is one, too, up to 2^53. */
int64_t json_read_integer(struct json_reader *reader, const char *key, int64_t min, int64_t max,
                          enum json_presence presence, int64_t fallback);
/* Borrowed from the JSON; NULs inside are refused; length in bytes. */
const char *json_read_string(struct json_reader *reader, const char *key, size_t max,
                             enum json_presence presence, const char *fallback);
/* A string that id_is_valid. */
const char *json_read_id(struct json_reader *reader, const char *key, enum json_presence presence);
bool json_read_bool(struct json_reader *reader, const char *key, bool fallback);
/* One of names[0..count-1]; its index, else fallback. */
int json_read_enum(struct json_reader *reader, const char *key, const char *const *names, int count,
                   enum json_presence presence, int fallback);
/* Array of at most max items, or NULL if absent. */
const json_t *json_read_array(struct json_reader *reader, const char *key, size_t max,
                              enum json_presence presence);
const json_t *json_read_object(struct json_reader *reader, const char *key,
                               enum json_presence presence);
/* Blames a field by hand: sets the reader's error unless one is set. */
int json_reader_fail(struct json_reader *reader, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* 0, or the first error; unknown fields are one. */
int json_reader_end(struct json_reader *reader);
