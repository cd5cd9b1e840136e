#include "storage/fetch_local.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/sparse_file.h"
#include "storage/fetch_output.h"
#include "storage/fetch_report.h"

struct local {
    int fd; /* borrowed; what is read */
    uint64_t size;
    struct fetch_output *output;
    struct fetch_report *report;
    uint8_t *buffer; /* borrowed; FETCH_BUFFER_BYTES */
};

static int take_stretch(struct local *local, uint64_t end, struct error *err)
{
    while (local->output->size < end) {
        uint64_t left = end - local->output->size;
        size_t want = left < FETCH_BUFFER_BYTES ? (size_t)left : FETCH_BUFFER_BYTES;
        ssize_t got = pread(local->fd, local->buffer, want, (off_t)local->output->size);
        int result;

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set(err, errno, "read the source: %s", strerror(errno));
        if (got == 0)
            return error_field(err, EINVAL, "spec.source", "the source shrank while it was read");
        result = fetch_output_append(local->output, local->buffer, (size_t)got, err);
        if (result == 0)
            result = fetch_report_progress(local->report, local->output->size, local->size, err);
        if (result < 0)
            return result;
    }
    return 0;
}

/* A hole is taken in steps, so that the sum of a large one still reports progress. */
static int take_hole(struct local *local, uint64_t end, struct error *err)
{
    int result = 0;

    while (result == 0 && local->output->size < end) {
        uint64_t left = end - local->output->size;
        uint64_t step = left < (16u << 20) ? left : 16u << 20;

        result = fetch_output_skip(local->output, step, err);
        if (result == 0)
            result = fetch_report_progress(local->report, local->output->size, local->size, err);
    }
    return result;
}

static int take_all(struct local *local, struct error *err)
{
    uint64_t start, end;
    int result;

    while ((result = sparse_next_data(local->fd, local->output->size, local->size, &start, &end)) >
           0) {
        result = take_hole(local, start, err);
        if (result == 0)
            result = take_stretch(local, end, err);
        if (result < 0)
            return result;
    }
    if (result < 0)
        return error_set(err, result, "read the source: %s", strerror(-result));
    return take_hole(local, local->size, err);
}

/* Somebody may be copying it there: what there is of it by now is no image. */
static int check_same(int fd, const struct stat *before, struct error *err)
{
    struct stat after;

    if (fstat(fd, &after) < 0)
        return error_set(err, errno, "look at the source: %s", strerror(errno));
    if (after.st_size == before->st_size && after.st_mtim.tv_sec == before->st_mtim.tv_sec &&
        after.st_mtim.tv_nsec == before->st_mtim.tv_nsec)
        return 0;
    return error_field(err, EINVAL, "spec.source",
                       "the source changed while it was read: import it once it is whole");
}

int fetch_local(int source_fd, struct fetch_output *output, struct fetch_report *report,
                struct error *err)
{
    auto_free uint8_t *buffer = malloc(FETCH_BUFFER_BYTES);
    struct local local = { source_fd, 0, output, report, buffer };
    struct stat status;
    int result;

    if (!buffer)
        return error_set(err, ENOMEM, "no memory for the import");
    if (fstat(source_fd, &status) < 0)
        return error_set(err, errno, "look at the source: %s", strerror(errno));
    if (!S_ISREG(status.st_mode))
        return error_field(err, EINVAL, "spec.source", "the source is not a regular file");
    if ((uint64_t)status.st_size > output->max_bytes)
        return error_field(err, EFBIG, "spec.source",
                           "the source is larger than the limit of %" PRIu64 " bytes for this kind",
                           output->max_bytes);
    local.size = (uint64_t)status.st_size;
    result = sparse_clone(source_fd, output->fd);
    if (result == 0) {
        output->sum_only = true;
        local.fd = output->fd;
    } else if (result != -EOPNOTSUPP) {
        return error_set(err, result, "share the source's blocks: %s", strerror(-result));
    }
    result = take_all(&local, err);
    return result < 0 ? result : check_same(source_fd, &status, err);
}
