/* wire_link.c - see wire_link.h. */
#include "api/wire_link.h"
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "base/loop.h"
#include "base/seqpacket.h"

#define MESSAGES_PER_TURN 64 /* read before the loop may do something else */

struct queued_message {
    struct queued_message *next;
    size_t size;
    int fd;
    char bytes[];
};

struct wire_link {
    struct wire_link_options options;
    int fd;
    struct loop_source *source;
    uint32_t events; /* watched now */
    struct queued_message *first, **last;
    size_t queued;
    bool *freed; /* where a callback's caller wants to know of wire_link_free */
    char buffer[SEQPACKET_MESSAGE_MAX]; /* received or being packed */
};

static void queued_message_free(struct queued_message *message)
{
    if (message->fd >= 0)
        close(message->fd);
    free(message);
}

struct wire_link *wire_link_free(struct wire_link *link)
{
    if (!link)
        return NULL;
    if (link->freed)
        *link->freed = true;
    loop_remove(link->source);
    while (link->first) {
        struct queued_message *message = link->first;

        link->first = message->next;
        queued_message_free(message);
    }
    close(link->fd);
    free(link);
    return NULL;
}

static void wire_link_watch(struct wire_link *link)
{
    size_t pause_at = link->options.pause_at;
    uint32_t events = 0;

    if (pause_at == 0 || link->queued < pause_at)
        events |= EPOLLIN;
    if (link->queued > 0)
        events |= EPOLLOUT;
    if (events != link->events && link->source && loop_change(link->source, events, NULL) == 0)
        link->events = events;
}

static void wire_link_end(struct wire_link *link, const struct error *err)
{
    link->source = loop_remove(link->source);
    link->options.on_end(link->options.context, err);
}

/* Sends what waits.  -errno if the socket is broken. */
static int wire_link_flush(struct wire_link *link, struct error *err)
{
    while (link->first) {
        struct queued_message *message = link->first;
        int r = seqpacket_send(link->fd, message->bytes, message->size, &message->fd,
                               message->fd >= 0 ? 1 : 0, err);

        if (r == -EAGAIN)
            break;
        if (r < 0)
            return r;
        link->first = message->next;
        if (!link->first)
            link->last = &link->first;
        link->queued--;
        queued_message_free(message);
    }
    wire_link_watch(link);
    return 0;
}

/* One message: 1 = handled, 0 = none waits, -errno = the link is at its end. */
static int wire_link_receive(struct wire_link *link, struct error *err)
{
    struct wire_message message;
    auto_close int fd = -1;
    size_t fds = 1;
    ssize_t size;
    int r;

    size = seqpacket_receive(link->fd, link->buffer, sizeof(link->buffer), &fd, &fds, err);
    if (size == -EAGAIN)
        return 0;
    if (size < 0)
        return (int)size;
    if (size == 0)
        return error_set(err, EPIPE, "the other end has gone");
    r = wire_unpack(link->buffer, (size_t)size, fds > 0 ? fd : -1, &message, err);
    if (r < 0)
        return r;
    if (message.has_stream)
        (void)take_fd(&fd); /* it is the message's */
    if (!(link->options.kinds & 1u << message.kind)) {
        wire_message_clear(&message);
        return error_set(err, EINVAL, "wire message of the wrong direction");
    }
    link->options.on_message(link->options.context, &message);
    wire_message_clear(&message);
    return 1;
}

static void wire_link_ready(void *context, uint32_t events)
{
    struct wire_link *link = context;
    struct error err = { 0 };
    bool freed = false;
    int r = 0;

    link->freed = &freed;
    if (events & EPOLLOUT)
        r = wire_link_flush(link, &err);
    for (int i = 0; r >= 0 && i < MESSAGES_PER_TURN && (events & ~(uint32_t)EPOLLOUT); i++) {
        size_t pause_at = link->options.pause_at;

        if (pause_at > 0 && link->queued >= pause_at && !(events & (EPOLLHUP | EPOLLERR)))
            break;
        r = wire_link_receive(link, &err);
        if (freed)
            return;
        if (r == 0)
            break;
    }
    link->freed = NULL;
    if (r < 0)
        wire_link_end(link, &err);
}

int wire_link_new(const struct wire_link_options *options, int fd, struct wire_link **ret_link,
                  struct error *err)
{
    auto_close int owned = fd;
    struct wire_link *link = calloc(1, sizeof(*link));
    int r;

    if (!link)
        return error_set(err, ENOMEM, "no memory for a wire link");
    link->options = *options;
    link->last = &link->first;
    link->events = EPOLLIN;
    r = loop_add(options->loop, fd, EPOLLIN, wire_link_ready, link, &link->source, err);
    if (r < 0) {
        free(link);
        return r;
    }
    link->fd = take_fd(&owned);
    *ret_link = link;
    return 0;
}

static int wire_link_queue(struct wire_link *link, const void *bytes, size_t size, int *fd,
                           struct error *err)
{
    struct queued_message *message = malloc(sizeof(*message) + size);

    if (!message)
        return error_set(err, ENOMEM, "no memory to queue a wire message");
    message->next = NULL;
    message->size = size;
    message->fd = take_fd(fd);
    memcpy(message->bytes, bytes, size);
    *link->last = message;
    link->last = &message->next;
    link->queued++;
    wire_link_watch(link);
    return 0;
}

int wire_link_send(struct wire_link *link, const struct wire_message *message, struct error *err)
{
    char bytes[SEQPACKET_MESSAGE_MAX];
    auto_close int fd = -1;
    size_t size = 0;
    int r;

    r = wire_pack(message, bytes, sizeof(bytes), &size, &fd, err);
    if (r < 0)
        return r;
    if (!link->first) {
        r = seqpacket_send(link->fd, bytes, size, &fd, fd >= 0 ? 1 : 0, err);
        if (r == 0)
            return 0;
        if (r != -EAGAIN)
            return 0; /* broken: the loop will see it, and on_end tells */
    }
    return wire_link_queue(link, bytes, size, &fd, err);
}
