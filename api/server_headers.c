/* server_headers.c - see server_headers.h. */
#include "api/server_headers.h"
#include <string.h>
#include <strings.h>
#include "api/wire.h"
#include "base/cleanup.h"

static const char *const names[HEADER_COUNT] = {
    [HEADER_HOST] = "Host",
    [HEADER_CONTENT_LENGTH] = "Content-Length",
    [HEADER_TRANSFER_ENCODING] = "Transfer-Encoding",
    [HEADER_CONTENT_ENCODING] = "Content-Encoding",
    [HEADER_CONTENT_TYPE] = "Content-Type",
    [HEADER_IF_MATCH] = "If-Match",
    [HEADER_IF_NONE_MATCH] = "If-None-Match",
    [HEADER_CONNECTION] = "Connection",
    [HEADER_UPGRADE] = "Upgrade",
    [HEADER_IDEMPOTENCY_KEY] = "Idempotency-Key",
    [HEADER_AUTHORIZATION] = "Authorization",
    [HEADER_ACCEPT] = "Accept",
    [HEADER_LAST_EVENT_ID] = "Last-Event-ID",
};

/* What warrend's wire takes of each; longer ones are nobody's honest value. */
static const size_t value_max[HEADER_COUNT] = {
    [HEADER_HOST] = 256,
    [HEADER_CONTENT_LENGTH] = 19,
    [HEADER_TRANSFER_ENCODING] = 256,
    [HEADER_CONTENT_ENCODING] = 256,
    [HEADER_CONTENT_TYPE] = 128,
    [HEADER_IF_MATCH] = 256,
    [HEADER_IF_NONE_MATCH] = 256,
    [HEADER_CONNECTION] = 256,
    [HEADER_UPGRADE] = 64,
    [HEADER_IDEMPOTENCY_KEY] = 256,
    [HEADER_AUTHORIZATION] = WIRE_AUTHORIZATION_MAX,
    [HEADER_ACCEPT] = 256,
    [HEADER_LAST_EVENT_ID] = 32,
};

/* tchar of RFC 9110, 5.6.2 */
static bool is_token(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        bool alphanumeric =
            (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');

        if (!alphanumeric && (c == '\0' || !strchr("!#$%&'*+-.^_`|~", c)))
            return false;
    }
    return size > 0;
}

/* Printable, with tabs; 8-bit characters only where nobody looks at the value. */
static bool is_field_value(const char *text, size_t size, bool ascii)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c == 0x7f || (c < 0x20 && c != '\t') || (ascii && (c > 0x7e || c == '\t')))
            return false;
    }
    return true;
}

static void refuse(struct server_headers *headers, enum server_refusal refusal)
{
    if (headers->refusal == SERVER_ACCEPTED)
        headers->refusal = refusal;
}

/* Is there nothing but so many bytes, which are NULs by now, from one place to the other? */
static bool is_next(const char *from, const char *to, size_t separators)
{
    for (size_t i = 0; i < separators && to == from + separators; i++)
        if (from[i] != '\0')
            return false;
    return to == from + separators;
}

void server_headers_begin(struct server_headers *headers, const char *method, const char *target,
                          size_t target_size, const char *version)
{
    if (!is_next(method + strlen(method), target, 1) || !is_next(target + target_size, version, 1))
        refuse(headers, SERVER_BAD_REQUEST);
    headers->end = version + strlen(version);
}

/* Behind the name a colon, and any number of spaces and tabs. */
static bool is_in_place(const struct server_headers *headers, const char *name, size_t name_size,
                        const char *value)
{
    const char *from = name + name_size + 1;

    if (!is_next(headers->end, name, strlen("\r\n")) || value < from ||
        value > from + SERVER_HEADER_BYTES_MAX)
        return false;
    while (from < value && (*from == ' ' || *from == '\t'))
        from++;
    return from == value;
}

void server_headers_end(struct server_headers *headers, const char *place)
{
    if (!is_next(headers->end, place, strlen("\r\n\r\n")))
        refuse(headers, SERVER_BAD_REQUEST);
}

void server_headers_add(struct server_headers *headers, const char *name, size_t name_size,
                        const char *value, size_t value_size)
{
    int known = 0;

    if (headers->end) {
        if (!is_in_place(headers, name, name_size, value))
            refuse(headers, SERVER_BAD_REQUEST);
        headers->end = value + value_size;
    }

    while (known < HEADER_COUNT &&
           (strlen(names[known]) != name_size || strncasecmp(names[known], name, name_size) != 0))
        known++;
    headers->bytes += name_size + value_size + strlen(": \r\n");
    if (++headers->count > SERVER_HEADERS_MAX || headers->bytes > SERVER_HEADER_BYTES_MAX)
        refuse(headers, SERVER_HEADERS_TOO_LARGE);
    if (!is_token(name, name_size) || !is_field_value(value, value_size, known < HEADER_COUNT))
        refuse(headers, SERVER_BAD_REQUEST);
    if (known == HEADER_COUNT)
        return;
    /* A wish: more of it, or a longer one, than is understood is nobody's fault. */
    if (known == HEADER_ACCEPT && (headers->values[known] || value_size > value_max[known]))
        return;
    if (headers->values[known] || value_size > value_max[known])
        refuse(headers, SERVER_BAD_REQUEST);
    headers->values[known] = value;
}

/* Digits only: "+5", "5, 5" and " 5" are each read differently by somebody. */
static bool read_length(const char *text, uint64_t *ret_length)
{
    uint64_t length = 0;

    if (!*text || strlen(text) > 18)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        length = length * 10 + (uint64_t)(*text - '0');
    }
    *ret_length = length;
    return true;
}

static enum server_refusal check_line(const char *method, const char *target, const char *version)
{
    if (!is_token(method, strlen(method)) || strlen(method) > 16 ||
        (strcmp(version, "HTTP/1.1") != 0 && strcmp(version, "HTTP/1.0") != 0))
        return SERVER_BAD_REQUEST;
    if (strlen(target) > WIRE_TARGET_MAX)
        return SERVER_TARGET_TOO_LONG;
    if (target[0] != '/' || strchr(target, '#') || strchr(target, ' ') ||
        !is_field_value(target, strlen(target), true))
        return SERVER_BAD_TARGET;
    return SERVER_ACCEPTED;
}

enum server_refusal server_headers_check(struct server_headers *headers, const char *method,
                                         const char *target, const char *version)
{
    const char *const *values = headers->values;
    enum server_refusal line = check_line(method, target, version);

    if (values[HEADER_TRANSFER_ENCODING] && headers->refusal == SERVER_ACCEPTED)
        return SERVER_LENGTH_REQUIRED;
    refuse(headers, line);
    if (strcmp(version, "HTTP/1.1") == 0 && !values[HEADER_HOST])
        refuse(headers, SERVER_BAD_REQUEST);
    if (values[HEADER_CONTENT_LENGTH] &&
        !read_length(values[HEADER_CONTENT_LENGTH], &headers->content_length))
        refuse(headers, SERVER_BAD_REQUEST);
    if (headers->content_length > WIRE_REQUEST_BODY_MAX)
        refuse(headers, SERVER_TOO_LARGE);
    if (values[HEADER_CONTENT_ENCODING])
        refuse(headers, SERVER_MEDIA_TYPE);
    return headers->refusal;
}

const char *server_headers_upgrade(const struct server_headers *headers, const char *version)
{
    static const char wanted[] = "upgrade";
    const char *list = headers->values[HEADER_CONNECTION];

    if (!list || !headers->values[HEADER_UPGRADE] || strcmp(version, "HTTP/1.1") != 0)
        return NULL;
    while (*list) {
        size_t length;

        list += strspn(list, ", ");
        length = strcspn(list, ", ");
        if (length == strlen(wanted) && strncasecmp(list, wanted, length) == 0)
            return headers->values[HEADER_UPGRADE];
        list += length;
    }
    return NULL;
}
