/* wire_link.h - one end of the socket between warrend and warren-api: whole messages in order, with
 * a queue for what the peer is too slow to take.  Loop thread. */
#pragma once
#include <stddef.h>
#include "api/wire.h"

struct error;
struct loop;
struct wire_link; /* opaque; see wire_link.c */

/* May take message->body (set it to NULL) and the stream (set has_stream to false); the strings
 * live until it returns.  May free the link. */
typedef void wire_link_message_fn(void *context, struct wire_message *message);
/* The peer is gone (err->code EPIPE) or misbehaved (EINVAL, ENOBUFS).  Called once, never from
 * within wire_link_send; nothing follows.  May free the link. */
typedef void wire_link_end_fn(void *context, const struct error *err);

struct wire_link_options {
    struct loop *loop;  /* borrowed */
    unsigned int kinds; /* bit mask of 1 << enum wire_kind accepted from the peer */
    size_t pause_at;    /* with so many messages queued, no more are read; 0 = never pause */
    wire_link_message_fn *on_message;
    wire_link_end_fn *on_end;
    void *context; /* borrowed */
};

/* Takes fd (also on failure). */
int wire_link_new(const struct wire_link_options *options, int fd, struct wire_link **ret_link,
                  struct error *err);
struct wire_link *wire_link_free(struct wire_link *link); /* accepts NULL, returns NULL */

/* Sends or queues; a failure of the socket itself is told by on_end later. */
int wire_link_send(struct wire_link *link, const struct wire_message *message, struct error *err);
