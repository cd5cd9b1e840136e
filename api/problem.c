/* problem.c - see problem.h. */
#include "api/problem.h"
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"

static const struct problem problems[] = {
    /* code, status, name, title, retry after, upgrade */
    { EINVAL, 400, "invalid", "The request is invalid", NULL, NULL },
    { PROBLEM_UNAUTHENTICATED, 401, "unauthenticated", "Who asks is not known", NULL, NULL },
    { PROBLEM_FORBIDDEN, 403, "forbidden", "Who asks may not do this", NULL, NULL },
    { ENOENT, 404, "not-found", "There is no such resource", NULL, NULL },
    { PROBLEM_METHOD_NOT_ALLOWED, 405, "method-not-allowed", "The method is not allowed here", NULL,
      NULL },
    { EEXIST, 409, "conflict", "It exists with another specification", NULL, NULL },
    { EBUSY, 409, "busy", "The resource is in use or in the wrong state", NULL, NULL },
    { EALREADY, 409, "key-under-way", "The request with this key is under way", "1", NULL },
    { EADDRINUSE, 409, "overlap", "The address range overlaps another", NULL, NULL },
    { EIDRM, 410, "events-trimmed", "Events after that place are gone", NULL, NULL },
    { ESTALE, 412, "precondition-failed", "The precondition does not hold", NULL, NULL },
    { PROBLEM_TOO_LARGE, 413, "too-large", "The body is too large", NULL, NULL },
    { PROBLEM_MEDIA_TYPE, 415, "unsupported-media-type", "The content type is not supported", NULL,
      NULL },
    { EBADE, 422, "immutable", "The field can never change", NULL, NULL },
    { EKEYREJECTED, 422, "key-reused", "The key was used for another body", NULL, NULL },
    { PROBLEM_UPGRADE, 426, "upgrade-required", "This is a stream of bytes both ways", NULL,
      STREAM_PROTOCOL },
    { PROBLEM_TOO_MANY_REQUESTS, 429, "too-many-requests", "Too many changes are under way", "1",
      NULL },
    { PROBLEM_TOO_MANY_STREAMS, 429, "too-many-streams", "Who asks has its share of streams open",
      "1", NULL },
    { ECONNREFUSED, 502, "guest-refused", "The guest does not accept the connection", NULL, NULL },
    { EAGAIN, 503, "unavailable", "The node cannot serve this now", "1", NULL },
    { PROBLEM_TOO_MANY_OUTSTANDING, 503, "unavailable", "The node cannot serve this now", "1",
      NULL },
    { EMFILE, 503, "unavailable", "The node cannot serve this now", "1", NULL },
    { ENFILE, 503, "unavailable", "The node cannot serve this now", "1", NULL },
    { EUCLEAN, 503, "database-damaged", "The database is damaged: nothing is changed", "60", NULL },
    { EHOSTDOWN, 503, "draining", "The node takes no VMs now", "60", NULL },
    { ENODEV, 503, "no-kvm", "The node has no usable KVM", "60", NULL },
    { ETIMEDOUT, 504, "guest-timeout", "The guest did not answer in time", NULL, NULL },
    { ENOSPC, 507, "disk-full", "The node's disk space is used up or promised", NULL, NULL },
    { EDQUOT, 507, "disk-full", "The node's disk space is used up or promised", NULL, NULL },
    { ENOMEM, 507, "memory-committed", "The node's memory is used up or promised", NULL, NULL },
    { ENOEXEC, 507, "unsupported", "The node lacks what is asked for", NULL, NULL },
    { EADDRNOTAVAIL, 507, "network-full", "The network has no address or port left", NULL, NULL },
};

static const struct problem internal_problem = { 0, 500, "internal", "Internal error", NULL, NULL };

const struct problem *problem_of(int code)
{
    for (size_t i = 0; i < ARRAY_LENGTH(problems); i++) {
        if (problems[i].code == code)
            return &problems[i];
    }
    return &internal_problem;
}

json_t *problem_document(const struct error *err)
{
    const struct problem *problem = problem_of(err->code);
    bool internal = problem == &internal_problem;
    json_t *detail =
        json_message(internal ? "internal error; the agent's log says more" : err->message);
    json_t *document;

    document = json_pack("{s:s+, s:s, s:i, s:o}", "type", "urn:warren:problem:", problem->name,
                         "title", problem->title, "status", problem->status, "detail", detail);
    if (document && err->field[0] && !internal &&
        json_object_set_new(document, "field", json_message(err->field)) < 0) {
        json_decref(document);
        return NULL;
    }
    return document;
}
