/* server.h - warren-api: HTTP for warrend.  One thread: libmicrohttpd's epoll inside our loop.
 *
 * It parses what strangers send and knows nothing else: each request becomes one message to
 * warrend, each reply one response.  While warrend works on a request the connection is suspended,
 * its socket watched for the client's leaving.  A reply may be a stream: see server_stream.h. */
#pragma once
#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "api/server_headers.h"
#include "api/server_tls.h"
#include "api/wire_link.h"

struct error;
struct loop;
struct loop_source;
struct server;
struct server_linger; /* see server_linger.h */
struct server_relay;  /* see server_stream.c */

/* Absolute, from the moment named; a client that is slower is disconnected. */
#define SERVER_HEADER_MS 10000 /* from connecting to the end of the first request's headers */
#define SERVER_IDLE_MS   30000 /* from a response's end to the end of the next request's headers */
#define SERVER_BODY_MS   30000 /* from the end of the headers to the end of the body */
#define SERVER_SEND_MS   60000 /* from the reply to the response's end; a stream: for each block */

#define SERVER_DRAIN_MS 250 /* when draining: for a request of which nothing may have come yet */

#define SERVER_BODY_BYTES_MAX (256u << 20) /* of all requests being received together */

/* With more connections than that, each is closed after its response: idle ones shall not take the
 * memory of those that ask. */
#define SERVER_KEPT_MAX 1024

enum connection_state {
    CONNECTION_HEADER,  /* waiting for, or in the midst of, a request's headers */
    CONNECTION_BODY,    /* being received */
    CONNECTION_WAITING, /* suspended until warrend replies or the client leaves */
    CONNECTION_REPLIED, /* resumed; the reply is there, or the client has left */
    CONNECTION_SENDING,
    CONNECTION_STATE_COUNT
};

/* One client's connection and the one request it can have under way. */
struct server_connection {
    struct server *server;
    struct MHD_Connection *mhd;
    struct server_connection *next, **previous; /* all connections */
    int fd;                                     /* libmicrohttpd's; for watching and shutdown */
    enum connection_state state;
    int64_t deadline_ms;        /* 0 = none */
    struct loop_source *hangup; /* while WAITING */

    uint64_t id; /* of the message to warrend */
    struct server_connection *id_next;
    char *target;
    const char
        *target_place; /* libmicrohttpd's, which decodes it there; while headers are looked at */
    char *body;
    size_t body_size, body_room;
    struct wire_message reply; /* kind 0 until it is there; its strings are in reply_text */
    char *reply_text;

    struct loop_source *stream_source; /* while a stream waits for more, suspended */
    bool client_left;                  /* meanwhile */
    bool has_unread;                   /* of its body, which may be refused: see server_linger.h */

    char peer[64];              /* as WIRE_PEER has it */
    struct server_tls *tls;     /* with which it has begun; NULL without TLS */
    int64_t certificate_until;  /* s since 1970; of what its client has shown; 0 = none */
    struct server_relay *relay; /* owned; after 101 */
};

#define SERVER_TABLE_SIZE 4096 /* power of two */

struct server {
    struct loop *loop;
    struct MHD_Daemon *daemon;
    struct loop_source *daemon_source;
    struct loop_timer *sweep;
    struct wire_link *link;
    struct server_connection *connections;
    size_t connection_count;
    struct server_connection *waiting[SERVER_TABLE_SIZE]; /* for replies, or streams' ends; by id */
    uint64_t last_id;
    struct server_linger *lingering;
    size_t linger_count;
    size_t body_bytes;      /* reserved for bodies */
    struct server_tls *tls; /* for who connects from now on; NULL while there is none */
    bool has_tls;
    uint32_t hangup_events; /* what says of a suspended connection that its client has left */
    bool draining;          /* each connection is closed behind its next response */
    bool stopping;
};

struct server_options {
    unsigned int connection_limit; /* more wait in the socket's backlog */
    unsigned int address_limit;    /* connections of one address; more are closed; 0 = no limit */
    bool tls;                      /* the socket is TCP's, and nothing but TLS 1.3 is spoken */
};

/* Takes both fds. */
int server_new(int link_fd, int listen_fd, const struct server_options *options,
               struct server **ret_server, struct error *err);
/* Until warrend closes its end or, draining, the last connection has gone (0), or epoll fails. */
int server_run(struct server *server, struct error *err);
struct server *server_free(struct server *server); /* accepts NULL, returns NULL */

/* --- server_exchange.c --- */

/* libmicrohttpd's callbacks; cls is the server. */
enum MHD_Result exchange_handle(void *cls, struct MHD_Connection *mhd, const char *url,
                                const char *method, const char *version, const char *upload,
                                size_t *upload_size, void **request_cls);
void *exchange_note_target(void *cls, const char *target, struct MHD_Connection *mhd);
void exchange_completed(void *cls, struct MHD_Connection *mhd, void **request_cls,
                        enum MHD_RequestTerminationCode why);
/* A reply for whom it may concern. */
void exchange_reply(struct server *server, struct wire_message *reply);
/* Both sockets, its own and its stream's, so that it ends however far it is; the rest comes of
 * their ends. */
void exchange_end(const struct server_connection *connection);
/* The same of the connection that waits for the reply to this id, or has its stream, if there is
 * one.
 */
void exchange_cut(struct server *server, uint64_t id);
