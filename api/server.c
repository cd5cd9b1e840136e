/* server.c - see server.h: the daemon, its connections and their deadlines. */
#include "api/server.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include "api/server_linger.h"
#include "api/server_stream.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/loop.h"

#define SWEEP_MS       1000
#define SWEEP_DRAIN_MS 100

/* Room for a header block and what is parsed of it.  A connection's pages are all touched (zeroed)
 * when it is kept for another request. */
#define CONNECTION_MEMORY (40 * 1024)

static void connection_new(struct server *server, struct MHD_Connection *mhd, void **ret_connection)
{
    struct server_connection *connection = calloc(1, sizeof(*connection));
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);

    if (!connection || !info) {
        free(connection); /* without one, exchange_note_target refuses its requests */
        return;
    }
    connection->server = server;
    connection->mhd = mhd;
    connection->fd = info->connect_fd;
    server_peer_name(connection->fd, connection->peer, sizeof(connection->peer));
    if (server->has_tls)
        connection->tls = server_tls_begin(server->tls, mhd);
    connection->deadline_ms =
        loop_now_ms() + (server->draining ? SERVER_DRAIN_MS : SERVER_HEADER_MS);
    connection->next = server->connections;
    connection->previous = &server->connections;
    if (connection->next)
        connection->next->previous = &connection->next;
    server->connections = connection;
    server->connection_count++;
    *ret_connection = connection;
}

static void connection_notify(void *cls, struct MHD_Connection *mhd, void **socket_context,
                              enum MHD_ConnectionNotificationCode code)
{
    struct server_connection *connection = *socket_context;

    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        connection_new(cls, mhd, socket_context);
    } else if (connection) {
        *connection->previous = connection->next;
        if (connection->next)
            connection->next->previous = connection->previous;
        connection->server->connection_count--;
        if (connection->has_unread)
            linger_begin(connection->server, connection->fd);
        server_tls_unref(connection->tls);
        free(connection);
        *socket_context = NULL;
    }
}

/* What it has shown is not valid any more. */
static bool certificate_is_over(const struct server_connection *connection)
{
    return connection->certificate_until &&
           (connection->certificate_until < time(NULL) ||
            !server_tls_same_clients(connection->tls, connection->server->tls));
}

/* Disconnects who is late.  The daemon sees the socket's end; closing it is its business. */
static void server_sweep(void *context)
{
    struct server *server = context;
    int64_t now = loop_now_ms();

    for (struct server_connection *c = server->connections; c; c = c->next) {
        /* A connection to a guest is not waited for; other streams are ended by warrend. */
        if ((c->deadline_ms && c->deadline_ms <= now) || certificate_is_over(c) ||
            (server->draining && c->relay)) {
            c->deadline_ms = 0;
            exchange_end(c);
        }
    }
    /* Not at once: who connected before the socket was unlinked may not have been accepted yet. */
    if (server->draining && server->connection_count == 0)
        server->stopping = true;
    server->sweep = loop_after(server->loop, server->draining ? SWEEP_DRAIN_MS : SWEEP_MS,
                               server_sweep, server);
    if (!server->sweep)
        server->stopping = true; /* better started anew than without deadlines */
}

static void server_drain(struct server *server)
{
    int64_t limit = loop_now_ms() + SERVER_DRAIN_MS;

    server->draining = true;
    for (struct server_connection *c = server->connections; c; c = c->next)
        if (c->state == CONNECTION_HEADER && (c->deadline_ms == 0 || c->deadline_ms > limit))
            c->deadline_ms = limit;
    loop_cancel(server->sweep);
    server->sweep = loop_after(server->loop, SWEEP_DRAIN_MS, server_sweep, server);
    if (!server->sweep)
        server->stopping = true;
}

static void server_answer(struct server *server, const struct wire_message *answer)
{
    if (wire_link_send(server->link, answer, NULL) < 0)
        server->stopping = true;
}

/* What is wrong with the new one goes back; the one before stays then. */
static void server_take_tls(struct server *server, const struct wire_message *message)
{
    struct wire_message answer = { .kind = WIRE_TLS };
    struct server_tls *tls = NULL;
    struct error err = { 0 };

    if (server_tls_new(message->body, message->body_size, &tls, &err) < 0) {
        answer.body = err.message;
        answer.body_size = strlen(err.message);
    } else {
        server_tls_unref(server->tls);
        server->tls = tls;
        answer.id = (uint64_t)server_tls_until(tls);
    }
    server_answer(server, &answer);
}

static void server_message(void *context, struct wire_message *message)
{
    if (message->kind == WIRE_DRAIN)
        server_drain(context);
    else if (message->kind == WIRE_TLS)
        server_take_tls(context, message);
    else if (message->kind == WIRE_PROBE)
        server_answer(context, message);
    else if (message->kind == WIRE_ABANDON)
        exchange_cut(context, message->id);
    else
        exchange_reply(context, message);
}

static void server_link_ended(void *context, const struct error *err)
{
    struct server *server = context;

    (void)err;
    server->stopping = true;
}

/* server_run lets the daemon work after every turn; its epoll fd only has to wake us. */
static void daemon_ready(void *context, uint32_t events)
{
    (void)context;
    (void)events;
}

/* Takes the fd. */
static int server_start_daemon(struct server *server, int listen_fd,
                               const struct server_options *options, struct error *err)
{
    struct MHD_OptionItem tls[] = {
        { MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)SERVER_TLS_PRIORITIES },
        { MHD_OPTION_HTTPS_CERT_CALLBACK2, 0, (void *)(uintptr_t)server_tls_no_certificate },
        { MHD_OPTION_PER_IP_CONNECTION_LIMIT, options->address_limit, NULL },
        { MHD_OPTION_END, 0, NULL },
    };
    struct MHD_OptionItem *more = options->tls ? tls : &tls[ARRAY_LENGTH(tls) - 1];
    const union MHD_DaemonInfo *info;

    server->has_tls = options->tls;
    server->hangup_events = options->tls ? EPOLLRDHUP : 0;
    server->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_ALLOW_UPGRADE |
            (options->tls ? MHD_USE_TLS : 0),
        0, NULL, NULL, exchange_handle, server, MHD_OPTION_LISTEN_SOCKET, listen_fd,
        MHD_OPTION_ARRAY, more, MHD_OPTION_CONNECTION_LIMIT, options->connection_limit,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
        MHD_OPTION_CONNECTION_TIMEOUT, 0u, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_NOTIFY_CONNECTION, connection_notify, server, MHD_OPTION_NOTIFY_COMPLETED,
        exchange_completed, server, MHD_OPTION_URI_LOG_CALLBACK, exchange_note_target, server,
        MHD_OPTION_END);
    if (!server->daemon) {
        close(listen_fd);
        return error_set(err, EIO, "libmicrohttpd does not start");
    }
    info = MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (!info)
        return error_set(err, EIO, "libmicrohttpd has no epoll");
    return loop_add(server->loop, info->epoll_fd, EPOLLIN, daemon_ready, server,
                    &server->daemon_source, err);
}

static int server_connect(struct server *server, int link_fd, struct error *err)
{
    struct wire_link_options options = {
        .loop = server->loop,
        .kinds = 1u << WIRE_REPLY | 1u << WIRE_ABANDON | 1u << WIRE_DRAIN | 1u << WIRE_TLS |
                 1u << WIRE_PROBE,
        .on_message = server_message,
        .on_end = server_link_ended,
        .context = server,
    };

    return wire_link_new(&options, link_fd, &server->link, err);
}

int server_new(int link_fd, int listen_fd, const struct server_options *options,
               struct server **ret_server, struct error *err)
{
    auto_close int owned_link = link_fd, owned_listen = listen_fd;
    struct server *server = calloc(1, sizeof(*server));
    int r;

    if (!server)
        return error_set(err, ENOMEM, "no memory for the server");
    r = loop_new(&server->loop, err);
    if (r >= 0)
        r = server_connect(server, take_fd(&owned_link), err);
    if (r >= 0)
        r = server_start_daemon(server, take_fd(&owned_listen), options, err);
    if (r >= 0) {
        server->sweep = loop_after(server->loop, SWEEP_MS, server_sweep, server);
        if (!server->sweep)
            r = error_set(err, ENOMEM, "no memory for the server");
    }
    if (r < 0) {
        server_free(server);
        return r;
    }
    *ret_server = server;
    return 0;
}

int server_run(struct server *server, struct error *err)
{
    while (!server->stopping) {
        MHD_UNSIGNED_LONG_LONG timeout;
        int ms = -1;
        int r;

        if (MHD_get_timeout(server->daemon, &timeout) == MHD_YES)
            ms = timeout > 1000 ? 1000 : (int)timeout;
        r = loop_turn(server->loop, ms, err);
        if (r < 0)
            return r;
        MHD_run(server->daemon);
    }
    return 0;
}

struct server *server_free(struct server *server)
{
    if (!server)
        return NULL;
    /* libmicrohttpd refuses to stop with suspended connections */
    for (struct server_connection *c = server->connections; c; c = c->next) {
        if (c->state == CONNECTION_WAITING)
            MHD_resume_connection(c->mhd);
        stream_let_go(c);
    }
    loop_remove(server->daemon_source);
    if (server->daemon)
        MHD_stop_daemon(server->daemon);
    linger_end_all(server);
    wire_link_free(server->link);
    server_tls_unref(server->tls);
    loop_free(server->loop);
    free(server);
    return NULL;
}
