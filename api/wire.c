/* wire.c - see wire.h.  Layout: struct wire_header, then each present string with its NUL, then the
 * body unless it is in the memfd. */
#include "api/wire.h"
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "base/seqpacket.h"

#define WIRE_MAGIC         0x57524e32u /* "WRN2": changes with the layout */
#define WIRE_ABSENT        0xffffu
#define WIRE_FLAG_BODY_FD  1u
#define WIRE_FLAG_STREAM   2u
#define WIRE_FLAGS_ALLOWED (WIRE_FLAG_BODY_FD | WIRE_FLAG_STREAM)

struct wire_header {
    uint32_t magic;
    uint16_t kind;
    uint16_t status;
    uint64_t id;
    uint32_t flags;
    uint32_t body_size;
    /* Without the NUL; WIRE_ABSENT, as those are that only fill up to whole words. */
    uint16_t lengths[(WIRE_STRING_COUNT + 3) / 4 * 4];
};
_Static_assert(sizeof(struct wire_header) == 24 + sizeof(((struct wire_header *)0)->lengths),
               "no hidden padding on the wire");

static const struct wire_string_rule {
    const char *name;
    size_t max;
    unsigned int kinds; /* bit mask of 1 << enum wire_kind */
} string_rules[WIRE_STRING_COUNT] = {
    [WIRE_METHOD] = { "method", 16, 1u << WIRE_REQUEST },
    [WIRE_TARGET] = { "target", WIRE_TARGET_MAX, 1u << WIRE_REQUEST },
    [WIRE_IF_MATCH] = { "if_match", 256, 1u << WIRE_REQUEST },
    [WIRE_IF_NONE_MATCH] = { "if_none_match", 256, 1u << WIRE_REQUEST },
    [WIRE_CONTENT_TYPE] = { "content_type", 128, 1u << WIRE_REQUEST | 1u << WIRE_REPLY },
    [WIRE_ETAG] = { "etag", 64, 1u << WIRE_REPLY },
    [WIRE_LOCATION] = { "location", 256, 1u << WIRE_REPLY },
    [WIRE_ALLOW] = { "allow", 64, 1u << WIRE_REPLY },
    [WIRE_RETRY_AFTER] = { "retry_after", 16, 1u << WIRE_REPLY },
    [WIRE_UPGRADE] = { "upgrade", 64, 1u << WIRE_REQUEST | 1u << WIRE_REPLY },
    [WIRE_IDEMPOTENCY_KEY] = { "idempotency_key", 256, 1u << WIRE_REQUEST },
    [WIRE_IDEMPOTENCY_REPLAYED] = { "idempotency_replayed", 8, 1u << WIRE_REPLY },
    [WIRE_AUTHORIZATION] = { "authorization", WIRE_AUTHORIZATION_MAX, 1u << WIRE_REQUEST },
    [WIRE_PEER] = { "peer", 64, 1u << WIRE_REQUEST },
    [WIRE_CERTIFICATE] = { "certificate", WIRE_CERTIFICATE_MAX, 1u << WIRE_REQUEST },
    [WIRE_WWW_AUTHENTICATE] = { "www_authenticate", 128, 1u << WIRE_REPLY },
    [WIRE_REQUEST_ID] = { "request_id", 64, 1u << WIRE_REPLY },
    [WIRE_ACCEPT] = { "accept", 256, 1u << WIRE_REQUEST },
    [WIRE_LAST_EVENT_ID] = { "last_event_id", 32, 1u << WIRE_REQUEST },
};

static const size_t body_max[WIRE_KIND_COUNT] = {
    [WIRE_REQUEST] = WIRE_REQUEST_BODY_MAX,
    [WIRE_REPLY] = WIRE_REPLY_BODY_MAX,
    [WIRE_TLS] = WIRE_TLS_BODY_MAX,
};

/* Printable ASCII only: the strings become HTTP header values and log text. */
static bool wire_string_is_clean(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if ((unsigned char)text[i] < 0x20 || (unsigned char)text[i] > 0x7e)
            return false;
    }
    return true;
}

static bool wire_status_is_valid(const struct wire_message *message)
{
    if (message->kind != WIRE_REPLY)
        return message->status == 0 && !message->has_stream;
    if (message->has_stream)
        return (message->status == 200 || message->status == 101) && message->body_size == 0;
    return message->status >= 200 && message->status <= 599;
}

/* What holds for a message whichever way it goes. */
static int wire_message_check(const struct wire_message *message, struct error *err)
{
    if (message->kind < WIRE_REQUEST || message->kind >= WIRE_KIND_COUNT)
        return error_set(err, EINVAL, "wire message of unknown kind %d", (int)message->kind);
    if (!wire_status_is_valid(message))
        return error_set(err, EINVAL, "wire message with status %d", message->status);
    if (message->kind == WIRE_REQUEST &&
        (!message->strings[WIRE_METHOD] || !message->strings[WIRE_TARGET]))
        return error_set(err, EINVAL, "wire request without method or target");
    if (message->body_size > body_max[message->kind])
        return error_set(err, EINVAL, "wire message with a body of %zu bytes", message->body_size);
    for (int i = 0; i < WIRE_STRING_COUNT; i++) {
        const struct wire_string_rule *rule = &string_rules[i];
        const char *text = message->strings[i];

        if (!text)
            continue;
        if (!(rule->kinds & 1u << message->kind) || strlen(text) > rule->max)
            return error_set(err, EINVAL, "wire message with a bad %s", rule->name);
        if (!wire_string_is_clean(text, strlen(text)))
            return error_set(err, EINVAL, "wire message with control characters in %s", rule->name);
    }
    return 0;
}

static size_t wire_put_strings(const struct wire_message *message, struct wire_header *header,
                               char *buffer)
{
    size_t used = sizeof(*header);

    memset(header->lengths, 0xff, sizeof(header->lengths));
    for (int i = 0; i < WIRE_STRING_COUNT; i++) {
        size_t length;

        if (!message->strings[i])
            continue;
        length = strlen(message->strings[i]);
        header->lengths[i] = (uint16_t)length;
        memcpy(buffer + used, message->strings[i], length + 1);
        used += length + 1;
    }
    return used;
}

static size_t wire_size_without_body(const struct wire_message *message)
{
    size_t size = sizeof(struct wire_header);

    for (int i = 0; i < WIRE_STRING_COUNT; i++)
        size += message->strings[i] ? strlen(message->strings[i]) + 1 : 0;
    return size;
}

int wire_pack(const struct wire_message *message, void *buffer, size_t size, size_t *ret_size,
              int *ret_fd, struct error *err)
{
    struct wire_header header = { .magic = WIRE_MAGIC };
    auto_close int fd = -1;
    size_t used = 0;
    int r = wire_message_check(message, err);

    if (r < 0)
        return r;
    if (wire_size_without_body(message) > size)
        return error_set(err, EINVAL, "wire message does not fit into %zu bytes", size);
    header.kind = (uint16_t)message->kind;
    header.status = message->status;
    header.id = message->id;
    header.body_size = (uint32_t)message->body_size;
    used = wire_put_strings(message, &header, buffer);
    if (message->has_stream) {
        fd = fcntl(message->stream_fd, F_DUPFD_CLOEXEC, 0);
        if (fd < 0)
            return error_set(err, errno, "pass a stream");
        header.flags |= WIRE_FLAG_STREAM;
    } else if (message->body_size > size - used) {
        fd = sealed_memfd(message->body, message->body_size, err);
        if (fd < 0)
            return fd;
        header.flags |= WIRE_FLAG_BODY_FD;
    } else if (message->body_size > 0) {
        memcpy((char *)buffer + used, message->body, message->body_size);
        used += message->body_size;
    }
    memcpy(buffer, &header, sizeof(header));
    *ret_size = used;
    *ret_fd = take_fd(&fd);
    return 0;
}

static int wire_header_check(const struct wire_header *header, int fd, struct error *err)
{
    bool in_fd = header->flags & WIRE_FLAG_BODY_FD;
    bool stream = header->flags & WIRE_FLAG_STREAM;

    if (header->magic != WIRE_MAGIC)
        return error_set(err, EINVAL, "wire message of another version");
    if (header->kind < WIRE_REQUEST || header->kind >= WIRE_KIND_COUNT)
        return error_set(err, EINVAL, "wire message of unknown kind %d", header->kind);
    if (header->flags & ~WIRE_FLAGS_ALLOWED)
        return error_set(err, EINVAL, "wire message with unknown flags");
    if ((in_fd || stream) != (fd >= 0) || (in_fd && (stream || header->body_size == 0)))
        return error_set(err, EINVAL, "wire message whose body and fd disagree");
    return 0;
}

/* Sets the strings to point into `bytes`; *ret_used is where the body starts. */
static int wire_take_strings(const struct wire_header *header, const char *bytes, size_t size,
                             struct wire_message *message, size_t *ret_used, struct error *err)
{
    size_t used = sizeof(*header);

    for (size_t i = 0; i < ARRAY_LENGTH(header->lengths); i++) {
        size_t length = header->lengths[i];

        if (length == WIRE_ABSENT)
            continue;
        if (i >= WIRE_STRING_COUNT)
            return error_set(err, EINVAL, "wire message with an unknown string");
        if (length >= size - used || bytes[used + length] != '\0' || strlen(bytes + used) != length)
            return error_set(err, EINVAL, "wire message with a bad %s", string_rules[i].name);
        message->strings[i] = bytes + used;
        used += length + 1;
    }
    *ret_used = used;
    return 0;
}

static int wire_take_body(struct wire_message *message, const char *rest, size_t rest_size, int fd,
                          struct error *err)
{
    size_t expected = message->body_size;

    if (fd >= 0) {
        size_t size = 0;
        int r;

        if (rest_size != 0)
            return error_set(err, EINVAL, "wire message with two bodies");
        r = sealed_memfd_read(fd, expected, &message->body, &size, err);
        if (r < 0)
            return r;
        if (size != expected) {
            wire_message_clear(message);
            return error_set(err, EINVAL, "wire body of %zu bytes, not %zu", size, expected);
        }
        return 0;
    }
    if (rest_size != expected)
        return error_set(err, EINVAL, "wire body of %zu bytes, not %zu", rest_size, expected);
    if (expected == 0)
        return 0;
    message->body = malloc(expected + 1);
    if (!message->body)
        return error_set(err, ENOMEM, "no memory for a body of %zu bytes", expected);
    memcpy(message->body, rest, expected);
    message->body[expected] = '\0';
    return 0;
}

int wire_unpack(const void *bytes, size_t size, int fd, struct wire_message *ret_message,
                struct error *err)
{
    struct wire_message message = { 0 };
    struct wire_header header;
    size_t used = 0;
    int r;

    if (size < sizeof(header))
        return error_set(err, EINVAL, "wire message of %zu bytes", size);
    memcpy(&header, bytes, sizeof(header));
    r = wire_header_check(&header, fd, err);
    if (r < 0)
        return r;
    message.kind = header.kind;
    message.id = header.id;
    message.status = header.status;
    message.body_size = header.body_size;
    message.has_stream = header.flags & WIRE_FLAG_STREAM;
    message.stream_fd = message.has_stream ? fd : -1;
    r = wire_take_strings(&header, bytes, size, &message, &used, err);
    if (r < 0)
        return r;
    r = wire_message_check(&message, err);
    if (r < 0)
        return r;
    r = wire_take_body(&message, (const char *)bytes + used, size - used,
                       message.has_stream ? -1 : fd, err);
    if (r < 0)
        return r;
    *ret_message = message;
    return 0;
}

void wire_message_clear(struct wire_message *message)
{
    free(message->body);
    message->body = NULL;
    message->body_size = 0;
    if (message->has_stream)
        close(message->stream_fd);
    message->has_stream = false;
}
