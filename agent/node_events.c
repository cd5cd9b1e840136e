/* Events: pages and streams of them.
 *
 * A stream has a place in the database's events, and reads what follows there when something was
 * committed and its socket has taken what was read before.  So nothing but one page waits for a
 * listener, and neither agent nor others ever wait for it: one that takes nothing for two
 * heartbeats is cut off, and resumes where it was. */
#include "agent/node_events.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/event_filter.h"
#include "agent/node_internal.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/text.h"
#include "storage/database.h"

#define STREAMS_MAX   64
#define STREAM_PAGE   128   /* events that are read at a time */
#define STREAM_SOCKET 32768 /* bytes that may wait in one's socket; the kernel doubles it */
#define PAGE_SCAN     1000  /* events that are looked at for one page */
#define RETRY_MS      1000  /* after which a listener comes again */

/* Can all that came after `after` be told? */
static int check_place(const struct event_page *page, int64_t after, struct error *err)
{
    if (after < page->trimmed)
        return error_set(err, EIDRM,
                         "events up to %" PRId64 " are gone: list again, and go on after that "
                         "list's revision",
                         page->trimmed);
    if (after > page->revision)
        return error_set(err, EIDRM,
                         "the newest event here is %" PRId64 ", as after the restore of a backup: "
                         "list again, and go on after that list's revision",
                         page->revision);
    return 0;
}

/* --- pages --- */

struct page_request {
    int64_t after; /* -1 = from the oldest */
    size_t limit;
    struct event_filter filter;
    node_events_fn *done;
    void *context;
};

static int append_item(json_t *items, const struct event *event, struct error *err)
{
    json_t *item = NULL;
    int result = json_parse(event->document, strlen(event->document), &item, err);

    if (result == 0 && json_array_append_new(items, item) < 0)
        result = error_no_memory(err);
    return result;
}

static json_t *page_json(const struct page_request *request, const struct event_page *page,
                         struct error *err)
{
    json_t *items = json_array();
    bool more = page->count == PAGE_SCAN;
    int64_t last = page->count > 0 ? page->events[page->count - 1].id : 0;
    int result = items ? 0 : error_no_memory(err);

    for (size_t i = 0; result == 0 && i < page->count; i++) {
        if (!event_filter_passes(&request->filter, &page->events[i]))
            continue;
        if (json_array_size(items) == request->limit) {
            more = true;
            last = page->events[i].id - 1;
            break;
        }
        result = append_item(items, &page->events[i], err);
    }
    if (result < 0) {
        json_decref(items);
        return NULL;
    }
    return json_pack("{s:o, s:o, s:I}", "items", items, "next",
                     more ? json_integer(last) : json_null(), "revision",
                     (json_int_t)page->revision);
}

static void page_read(void *context, const struct event_page *page, const struct error *err)
{
    struct page_request *request = context;
    struct error refused = { .code = EAGAIN, .message = "memory is short; try again" };
    json_t *json = NULL;

    if (!page)
        refused = *err;
    else if (request->after < 0 || check_place(page, request->after, &refused) == 0)
        json = page_json(request, page, &refused);
    request->done(request->context, json, &refused);
    free(request);
}

void node_events_page(struct node *node, int64_t after, size_t limit,
                      const struct event_filter *filter, node_events_fn *done, void *context)
{
    struct page_request *request = malloc(sizeof *request);
    struct error err = { .code = EAGAIN, .message = "memory is short; try again" };

    if (request) {
        *request = (struct page_request){
            .after = after, .limit = limit, .filter = *filter, .done = done, .context = context
        };
        if (database_read_events(node->database, after < 0 ? 0 : after, PAGE_SCAN, page_read,
                                 request, &err) == 0)
            return;
    }
    free(request);
    done(context, NULL, &err);
}

/* --- streams --- */

struct event_stream {
    struct event_stream *next;
    struct node *node;
    struct event_filter filter;
    int fd; /* owned; our end */
    struct loop_source *source;
    struct loop_timer *timer; /* heartbeats */
    int64_t cursor;           /* the newest event that was looked at */
    bool reading;             /* what follows it */
    bool over;                /* freed when that has come */
    bool moved;               /* something went out since the last heartbeat was due */
    char *bytes;              /* owned; what is to be sent */
    size_t size, sent;
};

static void stream_free(struct event_stream *stream)
{
    struct event_stream **link = &stream->node->event_streams;

    while (*link && *link != stream)
        link = &(*link)->next;
    if (*link)
        *link = stream->next;
    stream->source = loop_remove(stream->source);
    stream->timer = loop_cancel(stream->timer);
    cleanup_close(&stream->fd);
    stream->over = true;
    if (stream->reading)
        return; /* stream_read comes again */
    free(stream->bytes);
    free(stream);
}

/* False if the client has left. */
static bool send_bytes(struct event_stream *stream)
{
    while (stream->sent < stream->size) {
        ssize_t n = send(stream->fd, stream->bytes + stream->sent, stream->size - stream->sent,
                         MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0)
            return errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM;
        stream->sent += (size_t)n;
        stream->moved = true;
    }
    free(take_pointer(stream->bytes));
    stream->size = stream->sent = 0;
    return true;
}

static void stream_read(void *context, const struct event_page *page, const struct error *err);

/* Sends what waits, and then has more read, if there is more.  May free it. */
static void stream_pump(struct event_stream *stream)
{
    struct node *node = stream->node;

    if (!send_bytes(stream)) {
        stream_free(stream);
        return;
    }
    if (stream->bytes || stream->reading || stream->cursor >= database_revision(node->database))
        return;
    /* If that fails, the next heartbeat tries again. */
    stream->reading = database_read_events(node->database, stream->cursor, STREAM_PAGE, stream_read,
                                           stream, NULL) == 0;
}

/* Nothing waits to be sent.  False if memory is short: then nothing has changed. */
static bool put_events(struct event_stream *stream, const struct event_page *page)
{
    struct text text;
    char *bytes;
    size_t size;

    if (!text_open(&text))
        return false;
    for (size_t i = 0; i < page->count; i++) {
        const struct event *event = &page->events[i];

        if (event_filter_passes(&stream->filter, event))
            fprintf(text.out, "id: %" PRId64 "\nevent: %s\ndata: %s\n\n", event->id, event->type,
                    event->document);
    }
    bytes = text_close(&text, &size);
    if (!bytes)
        return false;
    stream->bytes = bytes;
    stream->size = size;
    stream->cursor = page->count == STREAM_PAGE ? page->events[page->count - 1].id : page->revision;
    return true;
}

static void stream_read(void *context, const struct event_page *page, const struct error *err)
{
    struct event_stream *stream = context;

    (void)err;
    stream->reading = false;
    /* Overtaken by what is trimmed: when it comes again it is told so. */
    if (stream->over || (page && page->trimmed > stream->cursor)) {
        stream_free(stream);
        return;
    }
    if (page && put_events(stream, page))
        stream_pump(stream);
}

/* The id goes along, so that who hears of nothing that passes its filter can still resume. */
static void put_sign(struct event_stream *stream, const char *sign)
{
    int size = asprintf(&stream->bytes, "id: %" PRId64 "\n%s\n\n", stream->cursor, sign);

    if (size < 0)
        stream->bytes = NULL;
    stream->size = size < 0 ? 0 : (size_t)size;
}

static void on_heartbeat(void *context)
{
    struct event_stream *stream = context;

    if (stream->bytes && !stream->moved) {
        log_warning(stream->node->log,
                    "a listener of events takes none: it is cut off, after event %" PRId64
                    " at most",
                    stream->cursor);
        stream->node->event_listeners_cut++;
        stream_free(stream);
        return;
    }
    if (!stream->bytes && !stream->moved && !stream->reading)
        put_sign(stream, ": heartbeat");
    stream->moved = false;
    stream_pump(stream);
}

static void on_socket(void *context, uint32_t events)
{
    struct event_stream *stream = context;

    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        stream_free(stream);
    else
        stream_pump(stream);
}

static void on_commit(void *context)
{
    struct node *node = context;
    struct event_stream *next;

    for (struct event_stream *stream = node->event_streams; stream; stream = next) {
        next = stream->next;
        stream_pump(stream);
    }
}

static int check_room(const struct node *node, struct error *err)
{
    if (node->waits_ended)
        return error_set(err, EAGAIN, "the agent is ending");
    if (node_event_streams(node) >= STREAMS_MAX)
        return error_set(err, EAGAIN, "there are %d streams of events, which is the most",
                         STREAMS_MAX);
    return 0;
}

/* fd: taken, in every case. */
static int stream_new(struct node *node, int64_t after, const struct event_filter *filter, int fd,
                      struct error *err)
{
    struct event_stream *stream = calloc(1, sizeof *stream);
    int64_t heartbeat_ms = node->config->events_heartbeat_seconds * 1000;
    int size = STREAM_SOCKET;
    char sign[32];
    int result = 0;

    if (!stream) {
        close(fd);
        return error_no_memory(err);
    }
    *stream = (struct event_stream){ .node = node, .filter = *filter, .fd = fd, .cursor = after };
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    snprintf(sign, sizeof sign, "retry: %d", RETRY_MS);
    put_sign(stream, sign);
    stream->timer = loop_every(node->loop, heartbeat_ms, on_heartbeat, stream);
    if (!stream->timer || !stream->bytes)
        result = error_no_memory(err);
    if (result == 0) /* edges: that it can be written to now is the first, and begins it */
        result = loop_add(node->loop, fd, EPOLLOUT | EPOLLRDHUP | EPOLLET, on_socket, stream,
                          &stream->source, err);
    if (result < 0) {
        stream_free(stream);
        return result;
    }
    stream->next = node->event_streams;
    node->event_streams = stream;
    database_watch(node->database, on_commit, node);
    return 0;
}

/* The client's end of a new stream, or -errno. */
static int stream_open(struct node *node, int64_t after, const struct event_filter *filter,
                       struct error *err)
{
    int pair[2];
    int result = check_room(node, err);

    if (result < 0)
        return result;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return error_set(err, errno, "make a stream");
    result = stream_new(node, after, filter, pair[0], err);
    if (result < 0) {
        close(pair[1]);
        return result;
    }
    return pair[1];
}

struct follow_request {
    struct node *node;
    int64_t after;
    struct event_filter filter;
    node_stream_fn *done;
    void *context;
};

static void place_read(void *context, const struct event_page *page, const struct error *err)
{
    struct follow_request *request = context;
    struct error refused = { 0 };
    int fd = page ? check_place(page, request->after, &refused) : -err->code;

    if (!page)
        refused = *err;
    if (fd == 0)
        fd = stream_open(request->node, request->after, &request->filter, &refused);
    request->done(request->context, fd, &refused);
    free(request);
}

void node_events_follow(struct node *node, int64_t after, const struct event_filter *filter,
                        node_stream_fn *done, void *context)
{
    struct error err = { .code = EAGAIN, .message = "memory is short; try again" };
    struct follow_request *request;
    int fd;

    if (after < 0) {
        fd = stream_open(node, database_revision(node->database), filter, &err);
        done(context, fd, &err);
        return;
    }
    request = malloc(sizeof *request);
    if (request) {
        *request = (struct follow_request){
            .node = node, .after = after, .filter = *filter, .done = done, .context = context
        };
        if (database_read_events(node->database, after, 0, place_read, request, &err) == 0)
            return;
    }
    free(request);
    done(context, -err.code, &err);
}

unsigned node_event_streams(const struct node *node)
{
    unsigned count = 0;

    for (const struct event_stream *other = node->event_streams; other; other = other->next)
        count++;
    return count;
}

void node_events_end(struct node *node)
{
    while (node->event_streams)
        stream_free(node->event_streams);
}
