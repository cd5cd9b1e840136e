/* server_problem.c - see server_problem.h.  The texts are constant: nothing of the request is
 * repeated in them. */
#include "api/server_problem.h"
#include <stdio.h>
#include <string.h>
#include "base/cleanup.h"

static const struct refusal_text {
    unsigned int status;
    const char *name, *title, *detail;
    const char *retry_after; /* seconds; NULL = no such header */
} texts[SERVER_REFUSAL_COUNT] = {
    [SERVER_BAD_REQUEST] = { 400, "invalid", "The request is invalid",
                             "the request line or a header is malformed, repeated, missing or too "
                             "long",
                             NULL },
    [SERVER_BAD_TARGET] = { 400, "invalid", "The request is invalid",
                            "the request target must be a path, without # and spaces", NULL },
    [SERVER_LENGTH_REQUIRED] = { 411, "length-required", "The request needs a Content-Length",
                                 "Transfer-Encoding is not supported: send a Content-Length",
                                 NULL },
    [SERVER_TOO_LARGE] = { 413, "too-large", "The body is too large",
                           "a request's body may have 1048576 bytes", NULL },
    [SERVER_TARGET_TOO_LONG] = { 414, "too-large", "The request target is too long",
                                 "path and query may have 4096 bytes", NULL },
    [SERVER_MEDIA_TYPE] = { 415, "unsupported-media-type", "The content type is not supported",
                            "Content-Encoding is not supported", NULL },
    [SERVER_HEADERS_TOO_LARGE] = { 431, "too-large", "The headers are too large",
                                   "headers may have 16384 bytes and be 100 in number", NULL },
    [SERVER_BUSY] = { 503, "unavailable", "The node cannot serve this now",
                      "too many requests are under way", "1" },
    [SERVER_NO_REPLY] = { 503, "unavailable", "The node cannot serve this now",
                          "the request could not be handed to the agent", "1" },
};

struct MHD_Response *server_problem(enum server_refusal refusal, unsigned int *ret_status)
{
    const struct refusal_text *text = &texts[refusal];
    struct MHD_Response *response;
    char body[512];
    int size;

    size = snprintf(body, sizeof(body),
                    "{\"type\":\"urn:warren:problem:%s\",\"title\":\"%s\",\"status\":%u,"
                    "\"detail\":\"%s\"}",
                    text->name, text->title, text->status, text->detail);
    response = MHD_create_response_from_buffer((size_t)size, body, MHD_RESPMEM_MUST_COPY);
    if (!response)
        return NULL;
    MHD_add_response_header(response, "Content-Type", "application/problem+json");
    MHD_add_response_header(response, "Connection", "close");
    if (text->retry_after)
        MHD_add_response_header(response, "Retry-After", text->retry_after);
    *ret_status = text->status;
    return response;
}
