/* server_stream.c - see server_stream.h. */
#include "api/server_stream.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include "api/server.h"
#include "base/cleanup.h"
#include "base/loop.h"

#define BLOCK_BYTES     16384
#define MOVES_PER_TURN  16 /* blocks of one relay before others have their turn */
#define STREAM_GIVEN_UP MHD_CONTENT_READER_END_WITH_ERROR

/* --- one way: 200 --- */

/* There is something to read, its end included, or the client has left. */
static void stream_resume(struct server_connection *connection)
{
    connection->hangup = loop_remove(connection->hangup);
    connection->stream_source = loop_remove(connection->stream_source);
    MHD_resume_connection(connection->mhd);
}

static void stream_readable(void *context, uint32_t events)
{
    (void)events;
    stream_resume(context);
}

static void stream_client_left(void *context, uint32_t events)
{
    struct server_connection *connection = context;

    (void)events;
    connection->client_left = true;
    stream_resume(connection);
}

/* Nothing to send now.  Without a deadline: a silent guest may stay so. */
static ssize_t stream_suspend(struct server_connection *connection)
{
    struct loop *loop = connection->server->loop;

    if (connection->client_left ||
        loop_add(loop, connection->fd, connection->server->hangup_events, stream_client_left,
                 connection, &connection->hangup, NULL) < 0)
        return STREAM_GIVEN_UP;
    if (loop_add(loop, connection->reply.stream_fd, EPOLLIN, stream_readable, connection,
                 &connection->stream_source, NULL) < 0) {
        connection->hangup = loop_remove(connection->hangup);
        return STREAM_GIVEN_UP;
    }
    connection->deadline_ms = 0;
    MHD_suspend_connection(connection->mhd);
    return 0;
}

/* libmicrohttpd asks for the next block when the last one has gone out: so the deadline is for each
 * block. */
static ssize_t stream_read(void *cls, uint64_t position, char *buffer, size_t size)
{
    struct server_connection *connection = cls;
    ssize_t n = recv(connection->reply.stream_fd, buffer, size, MSG_DONTWAIT);

    (void)position;
    if (n == 0)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? stream_suspend(connection) : STREAM_GIVEN_UP;
    connection->deadline_ms = loop_now_ms() + SERVER_SEND_MS;
    return n;
}

/* --- both ways: 101 --- */

struct relay_way {
    struct server_relay *relay; /* that it belongs to */
    int from, to;               /* borrowed */
    size_t first, count;
    bool ended; /* nothing more comes */
    bool told;  /* and `to` knows */
    bool gone;  /* `from` does not listen any more, either */
    char bytes[BLOCK_BYTES];
};

enum { TO_STREAM, TO_CLIENT, WAY_COUNT };

struct server_relay {
    struct server_connection *connection;
    struct MHD_UpgradeResponseHandle *handle;
    struct loop_source *sources[WAY_COUNT];
    struct loop_timer *again;
    struct relay_way ways[WAY_COUNT];
};

/* 1 = something moved, 0 = nothing can now, -1 = broken. */
static int relay_move(struct relay_way *way)
{
    ssize_t n = 0;

    if (way->count == 0 && !way->ended) {
        n = recv(way->from, way->bytes, sizeof(way->bytes), MSG_DONTWAIT);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR ? 0 : -1;
        way->first = 0;
        way->count = (size_t)n;
        way->ended = n == 0;
    }
    if (way->count > 0) {
        n = send(way->to, way->bytes + way->first, way->count, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR ? 0 : -1;
        way->first += (size_t)n;
        way->count -= (size_t)n;
        return 1;
    }
    if (way->ended && !way->told) {
        shutdown(way->to, SHUT_WR);
        way->told = true;
    }
    return 0;
}

/* Its memory goes with the request, in stream_end. */
static void relay_close(struct server_relay *relay)
{
    struct MHD_UpgradeResponseHandle *handle = take_pointer(relay->handle);

    relay->again = loop_cancel(relay->again);
    for (int i = 0; i < WAY_COUNT; i++)
        relay->sources[i] = loop_remove(relay->sources[i]);
    if (handle)
        MHD_upgrade_action(handle, MHD_UPGRADE_ACTION_CLOSE);
}

static void relay_run(struct server_relay *relay);

static void relay_again(void *context)
{
    struct server_relay *relay = context;

    relay->again = NULL;
    relay_run(relay);
}

/* Both ways are at their ends, or who is gone has been heard to the end. */
static bool relay_is_over(const struct server_relay *relay)
{
    const struct relay_way *ways = relay->ways;

    for (int i = 0; i < WAY_COUNT; i++)
        if (ways[i].told && (ways[i].gone || ways[1 - i].told))
            return true;
    return false;
}

/* The sources are edge-triggered, so it goes on until nothing moves, or comes again by itself. */
static void relay_run(struct server_relay *relay)
{
    int moves = 0, moved = 1;

    while (moved > 0 && moves++ < MOVES_PER_TURN) {
        moved = 0;
        for (int i = 0; i < WAY_COUNT && moved >= 0; i++) {
            int r = relay_move(&relay->ways[i]);

            moved = r < 0 ? r : moved | r;
        }
    }
    if (moved < 0 || relay_is_over(relay)) {
        relay_close(relay);
        return;
    }
    if (moved > 0 && !relay->again) {
        relay->again = loop_after(relay->connection->server->loop, 0, relay_again, relay);
        if (!relay->again)
            relay_close(relay);
    }
}

static void relay_ready(void *context, uint32_t events)
{
    struct relay_way *way = context;

    way->gone = way->gone || (events & (EPOLLHUP | EPOLLERR));
    relay_run(way->relay);
}

static int relay_watch(struct server_relay *relay, struct loop *loop)
{
    for (int i = 0; i < WAY_COUNT; i++) {
        struct relay_way *way = &relay->ways[i];
        int r = loop_add(loop, way->from, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, relay_ready,
                         way, &relay->sources[i], NULL);

        if (r < 0)
            return r;
        way->relay = relay;
    }
    return 0;
}

/* What the client sent ahead of its 101, of which libmicrohttpd has read more than a block, maybe:
 * the rest waits in the stream, which is new and takes that. */
static bool relay_take_early(struct relay_way *way, const char *bytes, size_t size)
{
    size_t over = size > BLOCK_BYTES ? size - BLOCK_BYTES : 0;

    if (over > 0 && send(way->to, bytes, over, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)over)
        return false;
    if (size > over)
        memcpy(way->bytes, bytes + over, size - over);
    way->count = size - over;
    return true;
}

/* The client has been told 101; extra is what it sent ahead of that. */
static void relay_begin(void *cls, struct MHD_Connection *mhd, void *request_cls, const char *extra,
                        size_t extra_size, MHD_socket client,
                        struct MHD_UpgradeResponseHandle *handle)
{
    struct server_connection *connection = cls;
    struct server_relay *relay = calloc(1, sizeof(*relay));
    int stream = connection->reply.stream_fd;

    (void)mhd;
    (void)request_cls;
    connection->deadline_ms = 0; /* both ends may be silent for as long as they like */
    if (!relay) {
        MHD_upgrade_action(handle, MHD_UPGRADE_ACTION_CLOSE);
        return;
    }
    connection->relay = relay;
    relay->connection = connection;
    relay->handle = handle;
    relay->ways[TO_STREAM].from = relay->ways[TO_CLIENT].to = client;
    relay->ways[TO_STREAM].to = relay->ways[TO_CLIENT].from = stream;
    relay->again = loop_after(connection->server->loop, 0, relay_again, relay);
    if (!relay->again || !relay_take_early(&relay->ways[TO_STREAM], extra, extra_size) ||
        relay_watch(relay, connection->server->loop) < 0)
        relay_close(relay);
}

/* --- both kinds --- */

struct MHD_Response *stream_response(struct server_connection *connection)
{
    if (connection->reply.status == 101)
        return MHD_create_response_for_upgrade(relay_begin, connection);
    return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK_BYTES, stream_read, connection,
                                             NULL);
}

void stream_end(struct server_connection *connection)
{
    connection->stream_source = loop_remove(connection->stream_source);
    connection->client_left = false;
    if (connection->relay)
        relay_close(connection->relay);
    free(connection->relay);
    connection->relay = NULL;
}

void stream_let_go(struct server_connection *connection)
{
    if (connection->stream_source)
        stream_resume(connection);
    if (connection->relay)
        relay_close(connection->relay);
}
