/* fetch_report.h - progress and the result, to the agent.  warren-fetch, one thread. */
#pragma once
#include <stdint.h>
#include "storage/fetch_protocol.h"

struct error;

struct fetch_report {
    int fd;             /* borrowed; FETCH_FD_CHANNEL */
    uint64_t sent_done; /* of the last message */
    int64_t sent_ms;    /* when; 0 = never */
};

struct fetch_result {
    uint64_t size_bytes;
    uint8_t sha256[DIGEST_BYTES];
    enum kernel_format kernel_format;
};

/* Sends at most every FETCH_PROGRESS_MS, or when a further hundredth is done (but not more often
 * than every FETCH_PROGRESS_MIN_MS).  -EPIPE when the agent has gone: then stop. */
int fetch_report_progress(struct fetch_report *report, uint64_t done, uint64_t total,
                          struct error *err);
#define FETCH_PROGRESS_MS     250
#define FETCH_PROGRESS_MIN_MS 20

/* The last message.  failure NULL = ok.  Waits until the agent's queue has room. */
int fetch_report_result(struct fetch_report *report, const struct fetch_result *result,
                        const struct error *failure);
