/* api_front.c - see api_front.h. */
#include "api/api_front.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include "api/access_files.h"
#include "api/api_metrics.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/worker.h"

#define SETTLE_MS 200 /* from the first sign of a change, so that all files of it are there */

struct api_front {
    struct api_front_options options;
    struct api_metrics *metrics;
    struct tokens tokens;
    struct access_tls tls;
    struct api_service *services[LISTENER_COUNT];
    struct worker *worker; /* reads the files; NULL without TCP */
    int inotify_fd;        /* -1 without TCP */
    struct loop_source *watch;
    struct loop_timer *settle;
    int draining; /* services that have not yet ended */
    void (*drained)(void *context);
    void *drained_context;
};

static struct access_paths paths_of(const struct api_front *front)
{
    return (struct access_paths){ .tokens = front->options.tokens,
                                  .certificate = front->options.tls_cert,
                                  .key = front->options.tls_key,
                                  .client_ca = front->options.tls_client_ca };
}

/* Of streams and waits, when tokens, or labels of VMs, are others. */
static void check_access(void *context)
{
    struct api_front *front = context;

    for (int i = 0; i < LISTENER_COUNT; i++)
        if (front->services[i])
            api_service_check_access(front->services[i]);
}

/* --- reading again --- */

struct read_job {
    struct api_front *front;
    struct access_paths paths;
    struct tokens tokens;
    struct access_tls tls;
    int tls_result; /* the tokens' is the job's */
    struct error tls_err;
};

static int read_files(void *context, struct error *err)
{
    struct read_job *job = context;

    job->tls_result = access_tls_read(&job->paths, &job->tls, &job->tls_err);
    return access_tokens_read(&job->paths, &job->tokens, err);
}

static void take_tokens(struct api_front *front, struct tokens *tokens)
{
    tokens_clear(&front->tokens);
    front->tokens = *tokens;
    *tokens = (struct tokens){ 0 };
    log_info(front->options.service.log, "%zu tokens and certificate names are known%s",
             front->tokens.count, front->tokens.count > 0 ? "" : ": nobody can use the API by TCP");
    check_access(front);
}

static void take_tls(struct api_front *front, struct access_tls *tls)
{
    bool is_new =
        tls->size != front->tls.size || memcmp(tls->bytes, front->tls.bytes, tls->size) != 0;
    struct error err;

    access_tls_clear(&front->tls);
    front->tls = *tls;
    *tls = (struct access_tls){ 0 };
    for (int i = 0; is_new && i < LISTENER_COUNT; i++)
        if (front->services[i] && i != LISTENER_UNIX &&
            api_service_set_tls(front->services[i], front->tls.bytes, front->tls.size, &err) < 0)
            log_error(front->options.service.log, "pass the certificate on: %s", err.message);
}

static void not_read(const struct api_front *front, const struct error *err)
{
    log_error(front->options.service.log, "%s; what was known before stays", err->message);
}

static void files_read(void *context, int result, const struct error *err)
{
    struct read_job *job = context;

    if (result < 0)
        not_read(job->front, err);
    else
        take_tokens(job->front, &job->tokens);
    if (job->tls_result < 0)
        not_read(job->front, &job->tls_err);
    else
        take_tls(job->front, &job->tls);
    tokens_clear(&job->tokens);
    access_tls_clear(&job->tls);
    free(job);
}

static void settled(void *context);
static int watch_directories(const struct api_front *front, struct error *err);

/* False where memory is short. */
static bool read_later(struct api_front *front)
{
    if (!front->settle)
        front->settle = loop_after(front->options.service.loop, SETTLE_MS, settled, front);
    return front->settle;
}

void api_front_reload(struct api_front *front)
{
    struct read_job *job;

    if (!front->worker)
        return;
    (void)watch_directories(front, NULL); /* by now they may be others of the same names */
    job = calloc(1, sizeof(*job));
    if (job) {
        *job = (struct read_job){ .front = front, .paths = paths_of(front) };
        if (worker_submit(front->worker, read_files, files_read, job, NULL) == 0)
            return;
        free(job);
    }
    if (!read_later(front))
        log_error(front->options.service.log,
                  "memory is short: tokens and certificates are not read again; send SIGHUP");
}

static void settled(void *context)
{
    struct api_front *front = context;

    front->settle = NULL;
    api_front_reload(front);
}

static void something_changed(void *context, uint32_t events)
{
    struct api_front *front = context;
    char buffer[4096];

    (void)events;
    if (!read_later(front))
        return; /* it is told again: what was revoked may not count until the next change */
    while (read(front->inotify_fd, buffer, sizeof(buffer)) > 0)
        ;
}

/* The directories, because files are replaced by renaming. */
static int watch_directory_of(const struct api_front *front, const char *path, struct error *err)
{
    auto_free char *directory = strdup(path);
    char *slash = directory ? strrchr(directory, '/') : NULL;

    if (!path[0])
        return 0;
    if (!slash)
        return error_set(err, directory ? EINVAL : ENOMEM, "watch %s", path);
    slash[slash == directory] = '\0';
    if (inotify_add_watch(front->inotify_fd, directory,
                          IN_CLOSE_WRITE | IN_ATTRIB | IN_MOVED_TO | IN_CREATE | IN_DELETE |
                              IN_MOVED_FROM | IN_MOVE_SELF) < 0)
        return error_set(err, errno, "watch the directory of %s: %s", path, strerror(errno));
    return 0;
}

/* One that is watched already stays so. */
static int watch_directories(const struct api_front *front, struct error *err)
{
    struct access_paths paths = paths_of(front);
    const char *const all[] = { paths.tokens, paths.certificate, paths.key, paths.client_ca };
    int r = 0;

    for (size_t i = 0; i < ARRAY_LENGTH(all); i++) {
        int watched = watch_directory_of(front, all[i], r < 0 ? NULL : err);

        r = r < 0 ? r : watched;
    }
    return r;
}

static int watch_files(struct api_front *front, struct error *err)
{
    int r;

    front->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (front->inotify_fd < 0)
        return error_set(err, errno, "watch the tokens");
    r = watch_directories(front, err);
    if (r < 0)
        return r;
    return loop_add(front->options.service.loop, front->inotify_fd, EPOLLIN, something_changed,
                    front, &front->watch, err);
}

/* --- beginning --- */

static int start_listener(struct api_front *front, enum listener listener, const char *address,
                          struct error *err)
{
    struct api_service_options options = front->options.service;

    options.listener = listener;
    options.address = address;
    options.metrics = front->metrics;
    options.tokens = &front->tokens;
    options.tls = front->tls.bytes;
    options.tls_size = front->tls.size;
    return api_service_new(&options, &front->services[listener], err);
}

static int start_tcp(struct api_front *front, struct error *err)
{
    static const struct worker_ops ops = { 0 };
    const struct api_front_options *options = &front->options;
    const char *const addresses[LISTENER_COUNT] = {
        [LISTENER_TLS] = options->listen, [LISTENER_METRICS] = options->metrics_listen
    };
    struct access_paths paths = paths_of(front);
    int r;

    if (!options->tls_cert[0] || !options->tls_key[0])
        return error_field(err, EINVAL, "tls-cert",
                           "listen, metrics-listen: TCP needs TLS: set tls-cert and tls-key");
    r = watch_files(front, err);
    if (r == 0)
        r = worker_new(options->service.loop, "access", &ops, &front->worker, err);
    if (r == 0)
        r = access_tokens_read(&paths, &front->tokens, err);
    if (r == 0)
        r = access_tls_read(&paths, &front->tls, err);
    for (int i = 0; r == 0 && i < LISTENER_COUNT; i++)
        if (addresses[i] && addresses[i][0])
            r = start_listener(front, (enum listener)i, addresses[i], err);
    return r;
}

int api_front_new(const struct api_front_options *options, struct api_front **ret_front,
                  struct error *err)
{
    struct api_front *front = calloc(1, sizeof(*front));
    int r;

    if (!front)
        return error_set(err, ENOMEM, "no memory for the API");
    front->options = *options;
    front->inotify_fd = -1;
    front->metrics = api_metrics_new();
    r = front->metrics ? start_listener(front, LISTENER_UNIX, "", err)
                       : error_set(err, ENOMEM, "no memory for the API");
    if (r == 0 && (options->listen[0] || options->metrics_listen[0]))
        r = start_tcp(front, err);
    if (r < 0) {
        api_front_free(front);
        return r;
    }
    node_watch_labels(options->service.node, check_access, front);
    *ret_front = front;
    return 0;
}

/* --- ending --- */

static void one_drained(void *context)
{
    struct api_front *front = context;

    if (--front->draining == 0)
        front->drained(front->drained_context);
}

void api_front_drain(struct api_front *front, void (*done)(void *context), void *context)
{
    front->drained = done;
    front->drained_context = context;
    for (int i = 0; i < LISTENER_COUNT; i++)
        front->draining += front->services[i] != NULL;
    for (int i = 0; i < LISTENER_COUNT; i++)
        if (front->services[i])
            api_service_drain(front->services[i], one_drained, front);
}

struct api_front *api_front_free(struct api_front *front)
{
    if (!front)
        return NULL;
    node_watch_labels(front->options.service.node, NULL, NULL);
    front->worker = worker_free(front->worker);
    loop_cancel(front->settle);
    loop_remove(front->watch);
    cleanup_close(&front->inotify_fd);
    for (int i = 0; i < LISTENER_COUNT; i++)
        api_service_free(front->services[i]);
    tokens_clear(&front->tokens);
    access_tls_clear(&front->tls);
    api_metrics_free(front->metrics);
    free(front);
    return NULL;
}
