/* problem.h - an error as an RFC 9457 problem document.  Pure; any thread. */
#pragma once
#include <jansson.h>

struct error;

struct problem {
    int code;                /* errno, as in agent/node.h */
    int status;              /* HTTP */
    const char *name;        /* type is "urn:warren:problem:" name */
    const char *title;       /* fixed for a type */
    const char *retry_after; /* seconds; NULL = no such header */
    const char *upgrade;     /* the same */
};

/* Codes beyond node.h's that requests themselves fail with. */
#define PROBLEM_METHOD_NOT_ALLOWED   EOPNOTSUPP
#define PROBLEM_MEDIA_TYPE           EMEDIUMTYPE
#define PROBLEM_TOO_MANY_OUTSTANDING ENOBUFS
#define PROBLEM_TOO_LARGE            E2BIG
#define PROBLEM_UPGRADE              ENOPROTOOPT
/* Codes that nothing below can fail with by chance. */
#define PROBLEM_UNAUTHENTICATED   ENOKEY
#define PROBLEM_FORBIDDEN         EKEYREVOKED
#define PROBLEM_TOO_MANY_REQUESTS EUSERS
#define PROBLEM_TOO_MANY_STREAMS  ENOSR
/* What streams of bytes both ways are called in Upgrade headers: there is one kind. */
#define STREAM_PROTOCOL "vsock"

/* Never NULL: unknown codes are "internal" (500). */
const struct problem *problem_of(int code);
/* {"type","title","status","detail","field"?}; NULL if memory is short.  The message of an internal
 * error is not shown (it may name paths): it belongs into the log. */
json_t *problem_document(const struct error *err);
