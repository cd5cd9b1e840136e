/* audit.c - see audit.h. */
#include "api/audit.h"
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include "agent/resource.h"
#include "api/request.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/worker.h"

#define PATH_SHOWN 512  /* characters of a path; longer ones are no path of ours */
#define LINE_BYTES 8192 /* more than any line has */
#define ROOM_BYTES (1 << 20)
#define TRY_MS     1000

struct audit {
    const struct log *log;
    struct worker *worker;
    int dir_fd;
    bool failing;
    struct loop_timer *timer;
    bool telling;         /* that job is under way */
    unsigned int missing; /* entries that the log has not, and does not tell of yet */
    int64_t second;       /* in which strangers were counted */
    unsigned int strangers, suppressed;
    int fd;                        /* the worker's from here on; -1 = to be opened */
    off_t size, synced, room_end;  /* synced: up to there */
    bool unsynced, names_unsynced; /* written, and made or renamed, since the last sync */
    int lost;                      /* why a sync failed of what was written since; 0 = none did */
};

struct audit_job {
    struct audit *audit;
    char *line; /* NULL = none */
    size_t size;
    unsigned int missing; /* that the line tells of */
    loop_fn *done;
    void *context;
};

/* --- on the worker --- */

/* What a power cut left of one that was not answered; the next line must not stand behind it. */
static int drop_half_line(int fd, off_t *size)
{
    char tail[LINE_BYTES];
    size_t count = *size < (off_t)sizeof(tail) ? (size_t)*size : sizeof(tail);
    const char *newline;
    off_t whole;

    if (pread(fd, tail, count, *size - (off_t)count) != (ssize_t)count)
        return -EIO;
    newline = memrchr(tail, '\n', count);
    if (!newline && count == sizeof(tail))
        return 0; /* not ours */
    whole = *size - (off_t)count + (newline ? newline + 1 - tail : 0);
    if (whole < *size && ftruncate(fd, whole) < 0)
        return -errno;
    *size = whole;
    return 0;
}

static int open_file(struct audit *audit, struct error *err)
{
    struct stat status;
    auto_close int fd = openat(audit->dir_fd, AUDIT_NAME,
                               O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    int result;

    audit->names_unsynced = true; /* it may be new */
    if (fd < 0 || fstat(fd, &status) < 0)
        return error_set(err, errno, "open the audit log: %s", strerror(errno));
    result = drop_half_line(fd, &status.st_size);
    if (result < 0)
        return error_set(err, result, "read the audit log: %s", strerror(-result));
    audit->size = audit->synced = audit->room_end = status.st_size;
    audit->fd = take_fd(&fd);
    return 0;
}

/* What makes room on a full disk is a change, too: the next lines have theirs already. */
static void keep_room(struct audit *audit)
{
    if (audit->room_end - audit->size < ROOM_BYTES / 2 &&
        fallocate(audit->fd, FALLOC_FL_KEEP_SIZE, audit->size, ROOM_BYTES) == 0)
        audit->room_end = audit->size + ROOM_BYTES;
}

/* The kernel tells only once that it has lost what was written: another try would succeed. */
static int sync_file(struct audit *audit, struct error *err)
{
    if (audit->lost == 0 && fdatasync(audit->fd) < 0)
        audit->lost = errno;
    return audit->lost == 0
               ? 0
               : error_set(err, audit->lost, "sync the audit log: %s", strerror(audit->lost));
}

/* No half lines, nor room behind them. */
static void cut_file(struct audit *audit, off_t size)
{
    (void)!ftruncate(audit->fd, size);
    audit->size = audit->room_end = size;
}

/* What was written at one time is synced together, before any of it is answered.  Files that were
 * made or renamed have their names on the disk then, too.  What is not synced is said not to be
 * there, and goes: else more would come each time that it is tried. */
static int sync_entries(void *context, struct error *err)
{
    struct audit *audit = context;
    int result = 0;

    if ((audit->unsynced || audit->lost) && audit->fd >= 0)
        result = sync_file(audit, err);
    if (result == 0 && audit->names_unsynced && fsync(audit->dir_fd) < 0)
        result = error_set(err, errno, "sync the audit log's directory: %s", strerror(errno));
    if (result < 0) {
        if (audit->fd >= 0)
            cut_file(audit, audit->synced);
        audit->lost = 0;
        return result;
    }
    audit->synced = audit->size;
    audit->unsynced = false;
    audit->names_unsynced = false;
    return 0;
}

/* audit.log.3 -> .4, ..., audit.log -> .1; those that are not there do not matter. */
static int rotate(struct audit *audit, struct error *err)
{
    char from[32], to[32];
    int result = sync_file(audit, err);

    if (result < 0)
        return result;
    for (int i = AUDIT_FILES - 1; i > 0; i--) {
        snprintf(to, sizeof(to), AUDIT_NAME ".%d", i);
        snprintf(from, sizeof(from), i > 1 ? AUDIT_NAME ".%d" : AUDIT_NAME, i - 1);
        (void)renameat(audit->dir_fd, from, audit->dir_fd, to);
    }
    cleanup_close(&audit->fd);
    return 0;
}

static int write_line(void *context, struct error *err)
{
    struct audit_job *job = context;
    struct audit *audit = job->audit;
    ssize_t n;

    if (!job->line)
        return 0;
    if (audit->fd >= 0 && audit->size + (off_t)job->size > (off_t)AUDIT_FILE_MAX &&
        rotate(audit, err) < 0)
        return -err->code;
    if (audit->fd < 0 && open_file(audit, err) < 0)
        return -err->code;
    keep_room(audit);
    n = write(audit->fd, job->line, job->size);
    if (n == (ssize_t)job->size) {
        audit->size += n;
        audit->unsynced = true;
        return 0;
    }
    n = n < 0 ? errno : ENOSPC;
    cut_file(audit, audit->size);
    return error_set(err, (int)n, "write the audit log: %s", strerror((int)n));
}

/* --- on the loop --- */

static void written(void *context, int result, const struct error *err)
{
    struct audit_job *job = context;

    if (result < 0)
        log_error(job->audit->log, "%s; not in it: %.*s", err->message, (int)job->size - 1,
                  job->line);
    if (job->line) {
        job->audit->failing = result < 0;
        job->audit->missing += result < 0;
    }
    if (job->done)
        job->done(job->context);
    free(job->line);
    free(job);
}

static void told_missing(void *context, int result, const struct error *err)
{
    struct audit_job *job = context;
    struct audit *audit = job->audit;

    (void)err; /* as that of the entries, which was logged */
    audit->telling = false;
    if (result == 0) {
        audit->failing = false;
        audit->missing -= job->missing;
        log_warning(audit->log, "the audit log can be written again; entries not in it: %u",
                    job->missing);
    }
    free(job->line);
    free(job);
}

/* A line in the place of those that are missing: who reads the log is to know of them, and who asks
 * whether changes are taken, that it can be written again. */
static void tell_missing(void *context)
{
    struct audit *audit = context;
    char when[TIMESTAMP_TEXT], line[TIMESTAMP_TEXT + 40];
    struct audit_job *job;

    if (audit->missing == 0 || audit->telling)
        return;
    timestamp_format(timestamp_now_ms(), when);
    snprintf(line, sizeof(line), "{\"time\":\"%s\",\"missing\":%u}\n", when, audit->missing);
    job = calloc(1, sizeof(*job));
    if (job)
        *job = (struct audit_job){
            .audit = audit, .line = strdup(line), .size = strlen(line), .missing = audit->missing
        };
    audit->telling =
        job && job->line && worker_submit(audit->worker, write_line, told_missing, job, NULL) == 0;
    if (audit->telling || !job)
        return;
    free(job->line);
    free(job);
}

static const char *caller_text(const struct caller *caller, char *buffer, size_t size)
{
    static const char *const kinds[] = { "nobody", "socket", "token", "cert" };
    const char *name = caller->kind == CALLER_SOCKET ? caller->peer : caller->name;

    snprintf(buffer, size, "%s%s%s", kinds[caller->kind], *name ? ":" : "", name);
    return buffer;
}

/* Strangers get so many entries a second; how many they did not get stands in the next. */
static bool is_suppressed(struct audit *audit, const struct request *request)
{
    int64_t second = loop_now_ms() / 1000;

    if (request->caller.kind != CALLER_NOBODY)
        return false;
    if (second != audit->second) {
        audit->second = second;
        audit->strangers = 0;
    }
    if (audit->strangers++ < AUDIT_STRANGERS)
        return false;
    audit->suppressed++;
    return true;
}

static char *entry_line(const struct audit *audit, const struct request *request, int status)
{
    bool is_unix = request->caller.listener == LISTENER_UNIX;
    char when[TIMESTAMP_TEXT], who[160], path[PATH_SHOWN + 1];
    json_t *entry;
    char *line;
    int result = 0;

    timestamp_format(timestamp_now_ms(), when);
    snprintf(path, sizeof(path), "%s", request->path);
    entry = json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:s}", "time", when, "who",
                      caller_text(&request->caller, who, sizeof(who)), "address",
                      is_unix ? "unix" : request->caller.peer, "method", request->method, "path",
                      path, "status", status, "request_id", request->uuid);
    if (audit->suppressed > 0)
        result = json_object_set_new(entry, "suppressed", json_integer(audit->suppressed));
    entry = json_whole(entry, result);
    line = json_compact(entry);
    json_decref(entry);
    return line;
}

void audit_write(struct audit *audit, const struct request *request, int status, loop_fn *done,
                 void *context)
{
    struct audit_job *job = calloc(1, sizeof(*job));
    bool wanted = !is_suppressed(audit, request);
    bool queued;

    if (job) {
        *job = (struct audit_job){ .audit = audit, .done = done, .context = context };
        job->line = wanted ? entry_line(audit, request, status) : NULL;
        if (job->line) {
            job->size = strlen(job->line);
            job->line[job->size++] = '\n'; /* in place of the NUL */
        }
    }
    queued = job && worker_submit(audit->worker, write_line, written, job, NULL) == 0;
    if (wanted && queued && job->line)
        audit->suppressed = 0;
    else if (wanted) {
        audit->missing++;
        log_error(audit->log, "memory is short: %s %s is not in the audit log", request->method,
                  request->path);
    }
    if (queued)
        return;
    free(job ? job->line : NULL);
    free(job);
    if (done)
        done(context);
}

int audit_check(const struct audit *audit, struct error *err)
{
    if (!audit || !audit->failing)
        return 0;
    return error_set(err, EDQUOT,
                     "the audit log cannot be written, so nothing may be changed: the node's log "
                     "says why");
}

int audit_new(struct loop *loop, const struct log *log, int dir_fd, struct audit **ret_audit,
              struct error *err)
{
    struct audit *audit = calloc(1, sizeof(*audit));
    struct worker_ops ops = { .end = sync_entries, .context = audit };
    int r;

    if (!audit)
        return error_set(err, ENOMEM, "no memory for the audit log");
    *audit = (struct audit){ .log = log, .dir_fd = dir_fd, .fd = -1 };
    audit->timer = loop_every(loop, TRY_MS, tell_missing, audit);
    r = audit->timer ? open_file(audit, err)
                     : error_set(err, ENOMEM, "no memory for the audit log");
    if (r == 0)
        r = worker_new(loop, "audit", &ops, &audit->worker, err);
    if (r < 0) {
        audit_free(audit);
        return r;
    }
    *ret_audit = audit;
    return 0;
}

struct audit *audit_free(struct audit *audit)
{
    if (!audit)
        return NULL;
    loop_cancel(audit->timer);
    worker_free(audit->worker);
    cleanup_close(&audit->fd);
    free(audit);
    return NULL;
}
