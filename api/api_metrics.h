/* api_metrics.h - what the API counts of itself, per operation, for /metrics.  Loop thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct api_metrics; /* opaque; see api_metrics.c */
struct route;

struct api_metrics *api_metrics_new(void);                         /* NULL if memory is short */
struct api_metrics *api_metrics_free(struct api_metrics *metrics); /* accepts NULL, returns NULL */

/* route: NULL for requests that no route took. */
void api_metrics_count(struct api_metrics *metrics, const struct route *route, int status,
                       int64_t microseconds);
void api_metrics_count_restart(struct api_metrics *metrics); /* of warren-api */
/* When the server's certificate ends, in seconds of the epoch. */
void api_metrics_set_certificate_end(struct api_metrics *metrics, uint64_t seconds);
void api_metrics_add_outstanding(struct api_metrics *metrics, int requests);

/* Prometheus text exposition; malloc'ed; NULL if memory is short.  audit_is_good: it can be written
 * (audit.h). */
char *api_metrics_text(const struct api_metrics *metrics, bool audit_is_good, size_t *ret_size);
