/* server_headers.h - is this request's framing beyond doubt?  Pure; any thread.
 *
 * libmicrohttpd 0.9.75 lets pass what two parsers could understand differently: repeated
 * Content-Length, Content-Length with Transfer-Encoding, two Hosts, a space before the colon.  Some
 * of it it does not even tell: what continues a header's line (obs-fold) it adds to the header's
 * *name*, a line that begins with a colon is the end of the headers for it, and what stands behind
 * a NUL it drops.  So the places are compared, too, at which it received what it tells: between one
 * text and the next there is nothing but what separates them.  All of it is refused here, and the
 * connection closed, before a byte of the body is looked at. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SERVER_HEADER_BYTES_MAX (16 * 1024) /* names, values and the request line */
#define SERVER_HEADERS_MAX      100

enum server_refusal {
    SERVER_ACCEPTED,
    SERVER_BAD_REQUEST,       /* 400 */
    SERVER_BAD_TARGET,        /* 400 */
    SERVER_LENGTH_REQUIRED,   /* 411: Transfer-Encoding */
    SERVER_TOO_LARGE,         /* 413 */
    SERVER_TARGET_TOO_LONG,   /* 414 */
    SERVER_MEDIA_TYPE,        /* 415: Content-Encoding */
    SERVER_HEADERS_TOO_LARGE, /* 431 */
    SERVER_BUSY,              /* 503: too much at once */
    SERVER_NO_REPLY,          /* 503: warrend gave none */
    SERVER_REFUSAL_COUNT
};

/* Headers that warrend is told of, or that frame the request: at most one each. */
enum server_header {
    HEADER_HOST,
    HEADER_CONTENT_LENGTH,
    HEADER_TRANSFER_ENCODING,
    HEADER_CONTENT_ENCODING,
    HEADER_CONTENT_TYPE,
    HEADER_IF_MATCH,
    HEADER_IF_NONE_MATCH,
    HEADER_CONNECTION,
    HEADER_UPGRADE,
    HEADER_IDEMPOTENCY_KEY,
    HEADER_AUTHORIZATION,
    HEADER_ACCEPT,
    HEADER_LAST_EVENT_ID,
    HEADER_COUNT
};

struct server_headers {
    const char *values[HEADER_COUNT]; /* borrowed; NULL = absent */
    const char *end; /* of what was received so far; NULL = places are not compared */
    size_t bytes, count;
    uint64_t content_length;     /* 0 without one */
    enum server_refusal refusal; /* the first reason found */
};

/* The request line as it was received, of which the separators, and the line's end (CRLF), are NULs
 * by now, and of which the target may have been written to: its length is the one that it had.
 * Places are compared from then on. */
void server_headers_begin(struct server_headers *headers, const char *method, const char *target,
                          size_t target_size, const char *version);
/* One header after the other, in order; sizes in bytes. */
void server_headers_add(struct server_headers *headers, const char *name, size_t name_size,
                        const char *value, size_t value_size);
/* The place behind the empty line. */
void server_headers_end(struct server_headers *headers, const char *place);
/* What is to be said of all of them and of the request line.  Sets content_length. */
enum server_refusal server_headers_check(struct server_headers *headers, const char *method,
                                         const char *target, const char *version);
/* The protocol that an HTTP/1.1 client wants to go on with (RFC 9110, 7.8); NULL without one, or if
 * its Connection header does not list "upgrade".  Borrowed. */
const char *server_headers_upgrade(const struct server_headers *headers, const char *version);
