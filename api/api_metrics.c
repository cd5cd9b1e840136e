/* api_metrics.c - see api_metrics.h.  Operations that were never asked for have no lines. */
#include "api/api_metrics.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include "api/router.h"
#include "base/cleanup.h"
#include "base/histogram.h"
#include "base/text.h"

static const int statuses[] = { 101, 200, 201, 202, 204, 304, 400, 401, 403, 404, 405, 409, 410,
                                412, 413, 415, 422, 426, 428, 429, 500, 502, 503, 504, 507 };
#define STATUS_COUNT (ARRAY_LENGTH(statuses) + 1) /* the last: any other */

struct operation_figures {
    uint64_t by_status[STATUS_COUNT];
    struct histogram seconds;
};

struct api_metrics {
    struct operation_figures operations[ROUTE_COUNT_MAX + 1]; /* the last: no route */
    uint64_t restarts;
    size_t outstanding;
    uint64_t certificate_end; /* 0 = there is none */
};

struct api_metrics *api_metrics_new(void)
{
    return calloc(1, sizeof(struct api_metrics));
}

struct api_metrics *api_metrics_free(struct api_metrics *metrics)
{
    free(metrics);
    return NULL;
}

void api_metrics_count(struct api_metrics *metrics, const struct route *route, int status,
                       int64_t microseconds)
{
    size_t count, s = 0;
    const struct route *routes = router_routes(&count);
    struct operation_figures *figures =
        &metrics->operations[route ? (size_t)(route - routes) : ROUTE_COUNT_MAX];

    while (s < ARRAY_LENGTH(statuses) && statuses[s] != status)
        s++;
    figures->by_status[s]++;
    histogram_observe(&figures->seconds, microseconds);
}

void api_metrics_count_restart(struct api_metrics *metrics)
{
    metrics->restarts++;
}

void api_metrics_set_certificate_end(struct api_metrics *metrics, uint64_t seconds)
{
    metrics->certificate_end = seconds;
}

void api_metrics_add_outstanding(struct api_metrics *metrics, int requests)
{
    metrics->outstanding += (size_t)requests;
}

static void print_requests(FILE *out, const char *operation,
                           const struct operation_figures *figures)
{
    for (size_t s = 0; s < STATUS_COUNT; s++) {
        char code[8] = "other";

        if (figures->by_status[s] == 0)
            continue;
        if (s < ARRAY_LENGTH(statuses))
            snprintf(code, sizeof(code), "%d", statuses[s]);
        fprintf(out, "warren_api_requests_total{operation=\"%s\",code=\"%s\"} %" PRIu64 "\n",
                operation, code, figures->by_status[s]);
    }
}

static void print_seconds(FILE *out, const char *operation, const struct operation_figures *figures)
{
    char label[64];

    if (histogram_count(&figures->seconds) == 0)
        return;
    snprintf(label, sizeof(label), "operation=\"%s\"", operation);
    histogram_print(&figures->seconds, out, "warren_api_request_seconds", label);
}

static void print_operations(FILE *out, const struct api_metrics *metrics,
                             void (*print)(FILE *, const char *, const struct operation_figures *))
{
    size_t count;
    const struct route *routes = router_routes(&count);

    for (size_t i = 0; i < count; i++)
        print(out, routes[i].operation_id, &metrics->operations[i]);
    print(out, "none", &metrics->operations[ROUTE_COUNT_MAX]);
}

char *api_metrics_text(const struct api_metrics *metrics, bool audit_is_good, size_t *ret_size)
{
    struct text text;

    if (!text_open(&text))
        return NULL;
    fputs("# HELP warren_api_requests_total Requests answered.\n"
          "# TYPE warren_api_requests_total counter\n",
          text.out);
    print_operations(text.out, metrics, print_requests);
    fputs("# HELP warren_api_request_seconds Time from a request's arrival to its reply.\n"
          "# TYPE warren_api_request_seconds histogram\n",
          text.out);
    print_operations(text.out, metrics, print_seconds);
    fprintf(
        text.out,
        "# HELP warren_api_requests_outstanding Requests not yet answered.\n"
        "# TYPE warren_api_requests_outstanding gauge\n"
        "warren_api_requests_outstanding %zu\n"
        "# HELP warren_api_restarts_total Times warren-api had to be started again.\n"
        "# TYPE warren_api_restarts_total counter\n"
        "warren_api_restarts_total %" PRIu64 "\n"
        "# HELP warren_audit_log_healthy 0 while it cannot be written, and changes are refused.\n"
        "# TYPE warren_audit_log_healthy gauge\n"
        "warren_audit_log_healthy %d\n",
        metrics->outstanding, metrics->restarts, audit_is_good);
    if (metrics->certificate_end)
        fprintf(text.out,
                "# HELP warren_tls_certificate_expiry_timestamp_seconds When tls-cert ends.\n"
                "# TYPE warren_tls_certificate_expiry_timestamp_seconds gauge\n"
                "warren_tls_certificate_expiry_timestamp_seconds %" PRIu64 "\n",
                metrics->certificate_end);
    return text_close(&text, ret_size);
}
