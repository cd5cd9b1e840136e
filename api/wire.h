/* wire.h - one message between warrend and warren-api: its bytes on the SOCK_SEQPACKET socket.
 *
 * warren-api -> warrend: REQUEST (one HTTP request), ABANDON (its client has gone; the reply to
 * this id, if it still comes, is ignored; or the stream that it was answered with has ended).
 * warrend -> warren-api: REPLY, one for each request; ABANDON: close the connection of this id,
 * which still waits for its reply, or has a stream; DRAIN: nobody new can come, end when every
 * connection has had its answer.  PROBE: is it there, and serving?  The same comes back from its
 * one thread (base/watchdog.h).  Where there is TLS, TLS goes first and whenever the files have
 * changed: its body is the certificate chain, its key and the authorities of clients, PEM, a NUL
 * behind each; the same kind comes back, its body what is wrong with that ("" = taken). Neither end
 * trusts the other's bytes: warren-api is the less trusted process, and what it gets back was
 * partly written by guests and users.  Everything is validated in wire_unpack: lengths, kinds,
 * which strings a kind may carry, and that no string holds a control character (so that no header
 * can be smuggled in).  A body that does not fit into one message travels as a sealed memfd.
 *
 * What has no known length is a stream: the reply carries a socket, warren-api sends the client
 * what it reads there until its end (status 200), or copies bytes both ways between the two (101).
 * Who passes the socket owns the other end, bounds what waits in it, and sees the client's leaving
 * as its hang-up.  Any thread; no state. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

enum wire_kind {
    WIRE_REQUEST = 1,
    WIRE_ABANDON,
    WIRE_REPLY,
    WIRE_DRAIN,
    WIRE_TLS,
    WIRE_PROBE,
    WIRE_KIND_COUNT
};

enum wire_string {
    WIRE_METHOD,
    WIRE_TARGET, /* raw path and query, as it was sent */
    WIRE_IF_MATCH,
    WIRE_IF_NONE_MATCH,
    WIRE_CONTENT_TYPE, /* of the request's or the reply's body */
    WIRE_ETAG,
    WIRE_LOCATION,
    WIRE_ALLOW,
    WIRE_RETRY_AFTER,
    WIRE_UPGRADE, /* the protocol asked for; of a reply: that follows, or must be asked for */
    WIRE_IDEMPOTENCY_KEY,
    WIRE_IDEMPOTENCY_REPLAYED,
    WIRE_AUTHORIZATION,
    WIRE_PEER,        /* who is at the other end: "pid=7,uid=0,gid=0", or address and port */
    WIRE_CERTIFICATE, /* the name in the client's certificate, which was verified */
    WIRE_WWW_AUTHENTICATE,
    WIRE_REQUEST_ID,
    WIRE_ACCEPT,
    WIRE_LAST_EVENT_ID,
    WIRE_STRING_COUNT
};

#define WIRE_TARGET_MAX        4096       /* bytes, without the NUL */
#define WIRE_REQUEST_BODY_MAX  (1u << 20) /* bytes; larger is 413 */
#define WIRE_REPLY_BODY_MAX    (64u << 20)
#define WIRE_TLS_BODY_MAX      (256u << 10)
#define WIRE_AUTHORIZATION_MAX 256
#define WIRE_CERTIFICATE_MAX   64

struct wire_message {
    enum wire_kind kind;
    /* Chosen by warren-api, never used twice in its life.  Of the answer to a TLS that was taken:
     * when the certificate ends, in seconds of the epoch. */
    uint64_t id;
    uint16_t status;                        /* REPLY: HTTP status 200-599, 101; else 0 */
    const char *strings[WIRE_STRING_COUNT]; /* NULL = absent; borrowed */
    char *body; /* to pack: borrowed.  Unpacked: owned (malloc'ed, a NUL behind); NULL if empty */
    size_t body_size;
    bool has_stream; /* a REPLY without a body, status 200 or 101 (and that only with a stream) */
    int stream_fd;   /* a stream socket.  To pack: borrowed.  Unpacked: owned */
};

/* Writes at most `size` bytes to buffer; *ret_fd becomes an owned memfd with the body, or -1.
 * -EINVAL: a string or the body is not allowed there or too long. */
int wire_pack(const struct wire_message *message, void *buffer, size_t size, size_t *ret_size,
              int *ret_fd, struct error *err);
/* fd: the one that came with the message, or -1; borrowed, but if the message has a stream it is
 * stream_fd, and the message's own from then on.  The strings point into `bytes`. */
int wire_unpack(const void *bytes, size_t size, int fd, struct wire_message *ret_message,
                struct error *err);
/* Frees the body and closes the stream of an unpacked message. */
void wire_message_clear(struct wire_message *message);
