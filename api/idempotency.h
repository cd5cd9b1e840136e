/* idempotency.h - POSTs with an Idempotency-Key: done once, answered as often as they are sent.
 * Loop thread.
 *
 * What is kept is the answer to a request that changed something (2xx); a refusal changed nothing,
 * so its key may be used again.  The key is written with the change, the answer before it is sent:
 * a key without an answer is that of an agent which ended in between, and is answered with the
 * resource as it is by now. */
#pragma once
#include <stdbool.h>

struct error;
struct request;
struct wire_message;

/* Before the handler of a routed request.  true: it has been answered, and is gone. */
bool idempotency_begin(struct request *request);
/* Is it a repetition, whatever came of the first?  -ENOMEM. */
int idempotency_is_repeated(const struct request *request, struct error *err);
/* Has an earlier agent done what this request asks for? */
bool idempotency_is_done(const struct request *request);
/* The reply to it.  true: it is sent once it is on the disk, and frees the request. */
bool idempotency_reply(struct request *request, const struct wire_message *reply);
