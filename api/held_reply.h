/* held_reply.h - replies that wait until their entries are in the audit log.  Loop thread. */
#pragma once
#include "api/wire.h"

struct audit;
struct held_reply;
struct request;

/* message: borrowed. */
typedef void held_reply_fn(void *context, struct wire_message *message);

/* Those of one warren-api, which may end before they are sent. */
struct held_replies {
    struct held_reply *first;
};

/* Sends a copy of the reply (kind and id are set) by send(context), later, or at once if memory is
 * short. */
void held_reply_add(struct held_replies *replies, struct audit *audit,
                    const struct request *request, struct wire_message *reply, held_reply_fn *send,
                    void *context);
/* They are sent to nobody. */
void held_replies_drop(struct held_replies *replies);
