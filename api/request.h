/* request.h - one HTTP request inside warrend, from its arrival to its one reply.  Loop thread.
 *
 * A handler must lead to exactly one request_reply_*, at once or later; that call frees the
 * request. When the client goes away first, the request stays valid (an operation under way will
 * still want to reply, which then goes nowhere); one that merely waits (request_wait) stops. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "agent/node.h"
#include "api/access.h"
#include "api/query.h"
#include "base/error.h"
#include "base/id.h"

struct api_metrics;
struct audit;
struct forks;
struct key;
struct label_selector;
struct log;
struct request;
struct request_table;
struct route;
struct stream_share;
struct wire_message;

/* The wait is over: what was waited for is so, or not in time, or never. */
typedef void request_waited_fn(struct request *request, bool reached);

/* Where replies go.  `reply` has no id or kind yet; its body is borrowed. */
struct request_sink {
    void (*reply)(void *context, struct request *request, struct wire_message *reply);
    const struct request_table *others; /* of the same listener; NULL = none (tests) */
    const struct log *log;              /* for what a reply does not tell; the same */
    const struct audit *audit;          /* that changes need; the same */
    void *context;                      /* borrowed, as they are */
};

struct request {
    uint64_t id;          /* warren-api's */
    struct request *next; /* in a request_table */
    struct request_sink sink;
    struct node *node;           /* borrowed */
    struct api_metrics *metrics; /* borrowed */
    const struct route *route;   /* NULL until routed */
    struct caller caller;        /* who asks */
    char uuid[UID_TEXT];         /* X-Request-Id, and in the audit log */
    bool admitted;               /* counted among changes under way */
    bool is_stream;              /* counted against its caller's share, from before it is open */
    bool is_open;                /* replied to, with a stream; the sink's, which frees it */
    int64_t started_ns;          /* of loop_now_ns */
    char *method, *path;         /* owned; path without the query */
    struct query query;          /* points into path's buffer */
    char *if_match, *if_none_match, *content_type, *upgrade; /* owned; NULL = absent */
    char *idempotency_key, *accept, *last_event_id;          /* the same */
    struct key *key; /* the node's, from idempotency_begin to the reply; NULL = none */
    char *body;      /* owned; a NUL behind; NULL if empty */
    size_t body_size;
    char parameter[ID_MAX + 1]; /* the path's {id}; "" if it has none */
    char name[ID_MAX + 1];      /* the second, {name}; "" if it has none */
    uint32_t number;            /* or {port}; 0 if it has none */
    char *allow;                /* owned; for 405 */

    /* What a handler keeps between its steps. */
    struct {
        char uid[UID_TEXT]; /* of the resource that it is about, once it waits */
        int64_t wait_ms;    /* ?wait=; -1 = absent */
        enum node_wait_for wait_for;
        int status;                 /* to answer with once waiting is over */
        struct node_waiter *waiter; /* NULL = does not wait */
        request_waited_fn *waited;
        struct forks *forks; /* fork_handler.c's, while it waits */
    } step;

    bool abandoned; /* the client has gone */
};

/* Takes message->body and what caller owns; copies the rest.  On failure (-ENOMEM) nothing is
 * replied, and nothing taken. */
int request_new(struct wire_message *message, struct caller *caller,
                const struct request_sink *sink, struct node *node, struct api_metrics *metrics,
                struct request **ret_request, struct error *err);
/* Is it one that may change something, so that it is counted and audited? */
bool request_is_change(const struct request *request);
/* One of those that has an entry, but need not wait for a log that can be written: what admins read
 * alone.  (The GET that is operate's opens a guest's socket.) */
bool request_only_reads(const struct request *request);
/* Only for a request that will never be replied to.  Accepts NULL, returns NULL. */
struct request *request_free(struct request *request);

/* Splits the target into path and query: separate from request_new so that its error is a reply. */
int request_parse_target(struct request *request, struct error *err);

/* The client has gone: a wait is over.  May free the request. */
void request_abandon(struct request *request);
/* node_wait, with `then` called once in any case: at once if the client has gone, or memory is
 * short. */
void request_wait(struct request *request, enum resource_kind kind, const char *id,
                  enum node_wait_for what, int64_t generation, int64_t timeout_ms,
                  request_waited_fn *then);

/* The body as a JSON object.  -EINVAL, or -EMEDIUMTYPE (415) if its content type is none of
 * `types` (NULL ended). */
int request_json(struct request *request, const char *const *types, json_t **ret_json,
                 struct error *err);
/* As node_get, but VMs that the caller must not see, perhaps since a moment ago, are not there. */
int request_see(const struct request *request, enum resource_kind kind, const char *id,
                json_t **ret_resource, struct error *err);
/* Is the body of one of these content types, and has it 1 to max bytes?  -EMEDIUMTYPE (415),
 * -EINVAL, -E2BIG (413). */
int request_check_bytes(const struct request *request, const char *const *types, size_t max,
                        struct error *err);
/* The query's selector "labels"; without, one that matches everything. */
int request_labels(const struct request *request, struct label_selector *ret_selector,
                   struct error *err);
/* Does the client want to go on with this protocol?  PROBLEM_UPGRADE (426), naming it. */
int request_check_upgrade(const struct request *request, const char *protocol, struct error *err);
/* To be asked before a stream is opened for its caller.  PROBLEM_TOO_MANY_STREAMS (429). */
int request_admit_stream(struct request *request, const struct stream_share *share,
                         struct error *err);
/* If-Match and If-None-Match.  -EINVAL, or -ESTALE if they can be seen not to hold. */
int request_condition(struct request *request, enum resource_kind kind, bool may_create,
                      struct node_condition *ret_condition, struct error *err);
/* The same of a VM, with If-Match checked now: for what does not change the VM itself.
 * *ret_condition is what else is made of it must keep to. */
int request_check_match(struct request *request, bool may_create,
                        struct node_condition *ret_condition, struct error *err);
/* The same, of a change of the node's own spec. */
int request_node_condition(struct request *request, struct node_condition *ret_condition,
                           struct error *err);

/* Of a resource its generation and whose it is: another of the same id begins with 1 again.  The
 * node has no uid. */
#define ETAG_TEXT (20 + TAG_UID + sizeof("\".\""))
void etag_of(const json_t *resource, char ret_etag[ETAG_TEXT]);
/* Does the client of a GET say, by If-None-Match, that it has what has this tag (RFC 9110, 13.1.2)?
 */
bool request_etag_is_known(const struct request *request, const char *etag);

/* Headers of a reply beside its content type; NULL = none. */
struct reply_headers {
    const char *etag, *location, *allow, *retry_after, *upgrade, *www_authenticate;
};

/* What all of these end in; frees the request.  The reply is borrowed. */
void request_send(struct request *request, struct wire_message *reply);
/* Each frees the request.  body: taken; NULL (memory is short) is answered as 503. */
void request_reply_json(struct request *request, int status, json_t *body,
                        const struct reply_headers *headers);
/* 200; bytes: borrowed. */
void request_reply_text(struct request *request, const char *content_type, const char *bytes,
                        size_t size);
/* Without a body: 204. */
void request_reply_empty(struct request *request);
/* 200: the client gets what can be read from the stream socket fd, which is taken, until its end.
 */
void request_reply_stream(struct request *request, const char *content_type, int fd);
/* 101: the client and fd, taken, are connected.  After request_check_upgrade only. */
void request_reply_upgrade(struct request *request, const char *protocol, int fd);
/* A problem document; see problem.h for how codes become statuses. */
void request_reply_error(struct request *request, const struct error *err);
