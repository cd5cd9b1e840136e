/* access.h - may this caller do that?  Loop thread.
 *
 * Who is at the socket's other end is said by warren-api, which parses strangers' bytes.  Each
 * listener has a warren-api of its own, and what one says counts only as far as its listener goes:
 * a taken-over one at a TCP port is no user of the unix socket. */
#pragma once
#include <jansson.h>
#include "agent/node.h"
#include "api/tokens.h"

struct error;
struct request;
struct wire_message;

enum listener {
    LISTENER_UNIX,    /* who may open the socket may do everything */
    LISTENER_TLS,     /* tokens and certificates */
    LISTENER_METRICS, /* the same, for GET /metrics and the open routes */
    LISTENER_COUNT
};

enum caller_kind { CALLER_NOBODY, CALLER_SOCKET, CALLER_TOKEN, CALLER_CERTIFICATE };

struct caller {
    enum listener listener;
    enum caller_kind kind;
    enum scope scope;
    bool refused;                  /* NOBODY, though it showed a token or certificate */
    char name[TOKEN_NAME_MAX + 1]; /* of the token or certificate */
    char digest[DIGEST_TEXT];      /* of the token: its name stays when it is replaced */
    char peer[65];                 /* address, or the socket's credentials */
    struct label_selector *limits; /* owned; NULL = none */
};

/* tokens: NULL for LISTENER_UNIX.  -ENOMEM. */
int caller_identify(enum listener listener, const struct tokens *tokens,
                    const struct wire_message *message, struct caller *ret_caller,
                    struct error *err);
void caller_clear(struct caller *caller);
/* The same token (a new secret, too), certificate's name, or user of the unix socket? */
bool caller_is_same(const struct caller *a, const struct caller *b);

/* By route, which may be NULL.  PROBLEM_UNAUTHENTICATED (401) or PROBLEM_FORBIDDEN (403). */
int access_check(const struct request *request, struct error *err);
/* By labels, of a request whose path was found well: the VM that it is about, what its body makes
 * of it, and what a new one begins with.  -ENOENT for VMs that the caller must not see, else
 * PROBLEM_FORBIDDEN.  It holds for this moment: when a change's turn comes, node_condition's limits
 * do. */
int access_check_labels(const struct request *request, struct error *err);
/* Would the caller of a request that was found well be known, and allowed it, by these tokens? A
 * stream must be of a VM that it sees, too. */
bool access_still_holds(const struct request *request, const struct tokens *tokens);
/* May the caller see this VM?  As node_get has it. */
bool caller_sees_vm(const struct caller *caller, const json_t *vm);
/* The scopes' challenge (RFC 6750, 3); code: of the error. */
const char *access_challenge(const struct request *request, int code, char *buffer, size_t size);
