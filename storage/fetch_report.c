#include "storage/fetch_report.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/loop.h"
#include "base/seqpacket.h"

#define RESULT_WAIT_MS 10000

static bool is_due(const struct fetch_report *report, uint64_t done, uint64_t total, int64_t now)
{
    int64_t since = now - report->sent_ms;

    if (report->sent_ms == 0 || since >= FETCH_PROGRESS_MS)
        return true;
    if (since < FETCH_PROGRESS_MIN_MS || total == 0)
        return false;
    return done - report->sent_done >= total / 100;
}

int fetch_report_progress(struct fetch_report *report, uint64_t done, uint64_t total,
                          struct error *err)
{
    struct fetch_message message = { .magic = FETCH_MESSAGE_MAGIC, .type = FETCH_PROGRESS };
    int64_t now = loop_now_ms();
    int result;

    if (!is_due(report, done, total, now))
        return 0;
    message.done_bytes = done;
    message.total_bytes = total;
    result = seqpacket_send(report->fd, &message, sizeof message, NULL, 0, err);
    report->sent_ms = now;
    report->sent_done = done;
    return result == -EAGAIN ? 0 : result; /* a busy agent misses one, that is all */
}

int fetch_report_result(struct fetch_report *report, const struct fetch_result *result,
                        const struct error *failure)
{
    struct fetch_message message = { .magic = FETCH_MESSAGE_MAGIC, .type = FETCH_RESULT };
    struct pollfd room = { .fd = report->fd, .events = POLLOUT };
    int sent;

    if (failure) {
        message.code = failure->code ? failure->code : EIO;
        memcpy(message.field, failure->field, sizeof message.field);
        memcpy(message.message, failure->message, sizeof message.message);
    } else {
        message.size_bytes = result->size_bytes;
        memcpy(message.sha256, result->sha256, sizeof message.sha256);
        message.kernel_format = result->kernel_format;
    }
    sent = seqpacket_send(report->fd, &message, sizeof message, NULL, 0, NULL);
    if (sent == -EAGAIN && poll(&room, 1, RESULT_WAIT_MS) > 0)
        sent = seqpacket_send(report->fd, &message, sizeof message, NULL, 0, NULL);
    return sent;
}
