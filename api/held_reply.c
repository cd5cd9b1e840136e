/* held_reply.c - see held_reply.h. */
#include "api/held_reply.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include "api/audit.h"
#include "api/request.h"
#include "base/cleanup.h"

struct held_reply {
    struct held_reply *next, **previous; /* NULL: dropped */
    held_reply_fn *send;
    void *context;
    struct wire_message message; /* its strings are in text */
    char *text;
};

static void held_unlink(struct held_reply *held)
{
    *held->previous = held->next;
    if (held->next)
        held->next->previous = held->previous;
    held->previous = NULL;
}

static void held_free(struct held_reply *held)
{
    wire_message_clear(&held->message);
    free(held->text);
    free(held);
}

static void held_send(void *context)
{
    struct held_reply *held = context;

    if (held->previous) {
        held_unlink(held);
        held->send(held->context, &held->message);
    }
    held_free(held);
}

/* Deep: what the reply borrows is gone when its request is.  false if memory, or a file, is short.
 */
static bool copy_message(struct held_reply *held, const struct wire_message *reply)
{
    size_t size = 1, length;
    char *to;

    held->message = *reply;
    held->message.body = NULL;
    held->message.has_stream = false;
    for (int i = 0; i < WIRE_STRING_COUNT; i++)
        size += reply->strings[i] ? strlen(reply->strings[i]) + 1 : 0;
    to = held->text = malloc(size);
    if (!to)
        return false;
    for (int i = 0; i < WIRE_STRING_COUNT; i++) {
        if (!reply->strings[i])
            continue;
        length = strlen(reply->strings[i]) + 1;
        memcpy(to, reply->strings[i], length);
        held->message.strings[i] = to;
        to += length;
    }
    if (reply->body_size > 0) {
        held->message.body = malloc(reply->body_size);
        if (!held->message.body)
            return false;
        memcpy(held->message.body, reply->body, reply->body_size);
    }
    if (reply->has_stream) {
        held->message.stream_fd = fcntl(reply->stream_fd, F_DUPFD_CLOEXEC, 0);
        held->message.has_stream = held->message.stream_fd >= 0;
    }
    return held->message.has_stream == reply->has_stream;
}

void held_reply_add(struct held_replies *replies, struct audit *audit,
                    const struct request *request, struct wire_message *reply, held_reply_fn *send,
                    void *context)
{
    struct held_reply *held = calloc(1, sizeof(*held));

    if (!held || !copy_message(held, reply)) {
        if (held)
            held_free(held);
        audit_write(audit, request, reply->status, NULL, NULL);
        send(context, reply);
        return;
    }
    held->send = send;
    held->context = context;
    held->next = replies->first;
    held->previous = &replies->first;
    if (held->next)
        held->next->previous = &held->next;
    replies->first = held;
    audit_write(audit, request, reply->status, held_send, held);
}

void held_replies_drop(struct held_replies *replies)
{
    struct held_reply *held = replies->first, *next;

    replies->first = NULL;
    for (; held; held = next) {
        next = held->next;
        held->next = NULL;
        held->previous = NULL;
    }
}
