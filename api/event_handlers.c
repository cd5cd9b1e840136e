/* event_handlers.c - GET /v1/events, as a stream (text/event-stream) or as pages (JSON). */
#include <errno.h>
#include <string.h>
#include "agent/event_filter.h"
#include "api/handlers.h"
#include "api/request.h"
#include "api/request_table.h"

#define EVENT_STREAM_TYPE "text/event-stream"
#define PAGE_LIMIT        100
#define PAGE_LIMIT_MAX    1000

/* Where to begin; -1 if nothing says it.  The header wins: who comes again by itself (EventSource)
 * sends the same target as at first, and in the header how far it came. */
static int read_place(const struct request *request, int64_t *ret_after, struct error *err)
{
    const char *last = request->last_event_id;

    if (last && !digits_parse(last, strlen(last), ret_after))
        return error_field(err, EINVAL, "Last-Event-ID",
                           "Last-Event-ID must be the id of an event, a number");
    return last ? 0 : query_integer(&request->query, "after", 0, INT64_MAX, -1, ret_after, err);
}

static void page_done(void *context, json_t *page, const struct error *err)
{
    struct request *request = context;

    if (page)
        request_reply_json(request, 200, page, NULL);
    else
        request_reply_error(request, err);
}

static void stream_opened(void *context, int fd, const struct error *err)
{
    struct request *request = context;

    if (fd < 0)
        request_reply_error(request, err);
    else
        request_reply_stream(request, EVENT_STREAM_TYPE, fd);
}

/* Of the 64 that there are. */
static const struct stream_share listener_share = { .what = "event streams", .all = 16 };

void event_list(struct request *request)
{
    const struct query *query = &request->query;
    bool json = request->accept && strstr(request->accept, "application/json") &&
                !strstr(request->accept, EVENT_STREAM_TYPE);
    struct event_filter filter;
    struct error err = { 0 };
    int64_t after = 0, limit = 0;

    if (read_place(request, &after, &err) < 0 ||
        event_filter_make(query_get(query, "kind"), query_get(query, "id"),
                          query_get(query, "type"), &filter, &err) < 0 ||
        request_labels(request, &filter.labels, &err) < 0 ||
        query_integer(query, "limit", 1, PAGE_LIMIT_MAX, PAGE_LIMIT, &limit, &err) < 0 ||
        (!json && request_admit_stream(request, &listener_share, &err) < 0)) {
        request_reply_error(request, &err);
        return;
    }
    if (request->caller.limits)
        filter.limits = *request->caller.limits;
    if (json)
        node_events_page(request->node, after, (size_t)limit, &filter, page_done, request);
    else
        node_events_follow(request->node, after, &filter, stream_opened, request);
}
