/* api_service.c - see api_service.h. */
#include "api/api_service.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <time.h>
#include "api/api_listen.h"
#include "api/api_metrics.h"
#include "api/audit.h"
#include "api/held_reply.h"
#include "api/problem.h"
#include "api/request.h"
#include "api/request_table.h"
#include "api/router.h"
#include "api/wire_link.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/process.h"
#include "base/seqpacket.h"
#include "base/watchdog.h"

#define OUTSTANDING_MAX   16384 /* a sane warren-api has fewer connections than that */
#define CHANGES_MAX       2048
#define REPLY_QUEUE_PAUSE 256
#define RESTART_MAX_MS    5000
#define STEADY_MS         10000 /* having lived so long, it is started again at once */

struct api_service {
    struct api_service_options options;
    struct api_metrics *metrics;
    int listen_fd;
    int pidfd; /* of warren-api; -1 while none runs */
    struct loop_source *exit_source;
    struct loop_timer *restart_timer;
    int64_t started_ms, delay_ms;
    struct loop_timer *watch_timer;
    struct watchdog watchdog; /* of that process */
    struct wire_link *link;
    struct tls_bytes {
        char *bytes; /* owned; NULL = none */
        size_t size;
    } tls, tried_tls;         /* that warren-api has taken; that it has yet to judge */
    unsigned int tls_asked;   /* of this warren-api, which has not answered yet */
    bool tried_is_asked;      /* and of the last of those */
    struct held_replies held; /* until they are in the audit log */
    size_t changes;           /* outstanding */
    struct request_table requests;
    void (*drained)(void *context); /* set: draining */
    void *drained_context;
};

/* --- requests --- */

/* It is answered, or nobody waits for its answer any more. */
static void service_settled(struct api_service *service, const struct request *request)
{
    if (request->admitted)
        service->changes--;
    api_metrics_add_outstanding(service->metrics, -1);
}

static void service_kill_api(struct api_service *service, const char *why)
{
    log_error(service->options.log, "warren-api is ended: %s", why);
    if (service->pidfd >= 0)
        process_kill(service->pidfd, SIGKILL); /* service_api_exited does the rest */
}

/* A held_reply_fn. */
static void service_send(void *context, struct wire_message *reply)
{
    struct api_service *service = context;
    struct error err;

    if (service->link && wire_link_send(service->link, reply, &err) < 0)
        service_kill_api(service, err.message);
}

/* request_sink.reply of requests whose client still waits. */
static void service_reply(void *context, struct request *request, struct wire_message *reply)
{
    struct api_service *service = context;
    int64_t took_us;

    service_settled(service, request);
    request->is_open = reply->has_stream && service->link;
    if (!request->is_open)
        request_table_remove(&service->requests, request);
    if (!service->link)
        return;
    took_us = (loop_now_ns() - request->started_ns) / 1000;
    api_metrics_count(service->metrics, request->route, reply->status, took_us);
    log_debug(service->options.log, "%s %.256s: %u in %lld us (%s)", request->method, request->path,
              (unsigned)reply->status, (long long)took_us, request->uuid);
    reply->kind = WIRE_REPLY;
    reply->id = request->id;
    if (service->options.audit && request_is_change(request))
        held_reply_add(&service->held, service->options.audit, request, reply, service_send,
                       service);
    else
        service_send(service, reply);
}

/* request_sink.reply of requests whose client has gone; context: the audit log, which outlives the
 * service. */
static void reply_to_nobody(void *context, struct request *request, struct wire_message *reply)
{
    if (context && request_is_change(request))
        audit_write(context, request, reply->status, NULL, NULL);
}

/* Its reply, whenever it comes, goes nowhere; it no longer needs the service. */
static void service_abandon(void *context, struct request *request)
{
    struct api_service *service = context;

    request_table_remove(&service->requests, request);
    if (request->is_open) {
        request_free(request);
        return;
    }
    service_settled(service, request);
    request->sink.others = NULL;
    request->sink.reply = reply_to_nobody;
    request->sink.context = service->options.audit;
    request_abandon(request);
}

/* Who has a stream, or is about to, or merely waits; what is being done is answered. */
static void service_check_access(void *context, struct request *request)
{
    struct api_service *service = context;
    struct wire_message message = { .kind = WIRE_ABANDON, .id = request->id };

    if ((!request->is_stream && !request->step.waiter) ||
        access_still_holds(request, service->options.tokens))
        return;
    log_info(service->options.log, "%s of %s %s is cut off: it may no longer have it",
             request->route->operation_id,
             request->caller.kind == CALLER_TOKEN ? "token" : "certificate", request->caller.name);
    service_abandon(service, request);
    service_send(service, &message);
}

void api_service_check_access(struct api_service *service)
{
    request_table_each(&service->requests, service_check_access, service);
}

/* A router_admit_fn.  Changes need room among those under way, and an audit log that can be
 * written. */
static int service_admit(void *context, struct request *request, struct error *err)
{
    struct api_service *service = context;
    int r = request_only_reads(request) ? 0 : audit_check(service->options.audit, err);

    if (r == 0 && service->changes >= service->options.changes_max)
        r = error_set(err, PROBLEM_TOO_MANY_REQUESTS, "%zu changes are under way: try again later",
                      service->changes);
    if (r < 0)
        return r;
    service->changes++;
    request->admitted = true;
    return 0;
}

static void service_request(struct api_service *service, struct wire_message *message)
{
    struct request_sink sink = { .reply = service_reply,
                                 .others = &service->requests,
                                 .log = service->options.log,
                                 .audit = service->options.audit,
                                 .context = service };
    bool is_known = request_table_find(&service->requests, message->id) != NULL;
    struct request *request;
    struct caller caller;
    struct error err;

    if (is_known || service->requests.count >= OUTSTANDING_MAX) {
        service_kill_api(service, is_known ? "it used a request id twice"
                                           : "it has too many requests outstanding");
        return;
    }
    if (caller_identify(service->options.listener, service->options.tokens, message, &caller,
                        &err) < 0) {
        service_kill_api(service, err.message);
        return;
    }
    if (request_new(message, &caller, &sink, service->options.node, service->metrics, &request,
                    &err) < 0) {
        caller_clear(&caller);
        service_kill_api(service, err.message);
        return;
    }
    request_table_add(&service->requests, request);
    api_metrics_add_outstanding(service->metrics, 1);
    router_dispatch(request, service_admit, service);
}

static void service_tls_taken(struct api_service *service, const struct wire_message *message);

static void service_message(void *context, struct wire_message *message)
{
    struct api_service *service = context;

    watchdog_answered(&service->watchdog);
    if (message->kind == WIRE_REQUEST) {
        service_request(service, message);
    } else if (message->kind == WIRE_TLS) {
        service_tls_taken(service, message);
    } else if (message->kind == WIRE_ABANDON) {
        struct request *request = request_table_find(&service->requests, message->id);

        /* the reply may have crossed it */
        if (request)
            service_abandon(service, request);
    }
}

/* --- the process --- */

static void service_start_later(struct api_service *service);
static void service_restart(void *context);
static int service_send_tls(struct api_service *service, const struct tls_bytes *tls);

static void service_link_ended(void *context, const struct error *err)
{
    struct api_service *service = context;

    if (service->drained && err->code == EPIPE)
        return; /* it is ending, as it was told */
    service_kill_api(service, err->message);
}

/* One that hangs is ended, and so started again: clients wait in the socket's backlog meanwhile.
 * One that there was no memory for a timer to start again is started now. */
static void service_watch(void *context)
{
    struct api_service *service = context;
    struct wire_message probe = { .kind = WIRE_PROBE };
    enum watchdog_verdict verdict =
        service->link ? watchdog_turn(&service->watchdog, loop_now_ms()) : WATCHDOG_WAIT;

    if (service->pidfd < 0 && !service->restart_timer && !service->drained)
        service_restart(service);
    if (verdict == WATCHDOG_ASK)
        service_send(service, &probe);
    else if (verdict == WATCHDOG_HUNG)
        service_kill_api(service, "it " WATCHDOG_HUNG_TEXT);
}

static void service_log_exit(const struct api_service *service, int status)
{
    const struct log *log = service->options.log;

    if (WIFSIGNALED(status))
        log_error(log, "warren-api was killed by signal %d, %zu requests lost", WTERMSIG(status),
                  service->requests.count);
    else if (!service->drained || status != 0)
        log_error(log, "warren-api exited with %d, %zu requests lost", WEXITSTATUS(status),
                  service->requests.count);
}

static void service_api_exited(void *context, uint32_t events)
{
    struct api_service *service = context;
    int status = 0;

    (void)events;
    (void)process_reap(service->pidfd, &status);
    service_log_exit(service, status);
    service->exit_source = loop_remove(service->exit_source);
    close(service->pidfd);
    service->pidfd = -1;
    service->link = wire_link_free(service->link);
    held_replies_drop(&service->held);
    request_table_each(&service->requests, service_abandon, service);
    if (service->drained) {
        service->drained(service->drained_context);
        return;
    }
    api_metrics_count_restart(service->metrics);
    service_start_later(service);
}

/* Our end goes into a new link; *ret_fd is the child's end. */
static int service_link_new(struct api_service *service, int *ret_fd, struct error *err)
{
    struct wire_link_options link = {
        .loop = service->options.loop,
        .kinds = 1u << WIRE_REQUEST | 1u << WIRE_ABANDON | 1u << WIRE_TLS | 1u << WIRE_PROBE,
        .pause_at = REPLY_QUEUE_PAUSE,
        .on_message = service_message,
        .on_end = service_link_ended,
        .context = service,
    };
    int pair[2];
    int r = seqpacket_pair(pair, err);

    if (r < 0)
        return r;
    r = wire_link_new(&link, pair[0], &service->link, err);
    if (r < 0) {
        close(pair[1]);
        return r;
    }
    *ret_fd = pair[1];
    return 0;
}

static int service_spawn(struct api_service *service, int child_fd, struct error *err)
{
    const struct api_service_options *options = &service->options;
    char uid[24], gid[24];
    const char *argv[9] = { "warren-api", "--uid", uid, "--gid", gid };
    size_t count = 5;
    const int fds[] = { -1, -1, options->log->fd, child_fd, service->listen_fd };
    struct process_spec spec = {
        .exec_fd = options->api_exec_fd,
        .argv = argv,
        .clone_flags =
            options->empty_root ? CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS : 0,
        .cgroup_fd = -1,
        .fds = fds,
        .fd_count = ARRAY_LENGTH(fds),
        .new_session = true, /* a terminal's ^C is for warrend, which still needs it */
    };
    pid_t pid;

    if (options->empty_root) {
        argv[count++] = "--root";
        argv[count++] = options->empty_root;
    }
    if (options->listener != LISTENER_UNIX)
        argv[count++] = "--tls";
    snprintf(uid, sizeof(uid), "%u", (unsigned int)options->uid);
    snprintf(gid, sizeof(gid), "%u", (unsigned int)options->gid);
    return process_spawn(&spec, &pid, &service->pidfd, err);
}

static int service_start(struct api_service *service, struct error *err)
{
    auto_close int child_fd = -1;
    int r = service_link_new(service, &child_fd, err);

    if (r < 0)
        return r;
    /* before it runs, so that it is there before the first client */
    service->tls_asked = 0;
    service->tried_is_asked = false;
    if (service_send_tls(service, &service->tls) < 0 ||
        service_send_tls(service, &service->tried_tls) < 0)
        log_error(service->options.log, "the certificate cannot be passed to warren-api");
    r = service_spawn(service, child_fd, err);
    if (r < 0) {
        service->link = wire_link_free(service->link);
        return error_wrap(err, "start warren-api");
    }
    service->started_ms = loop_now_ms();
    service->watchdog = (struct watchdog){ 0 };
    r = loop_add(service->options.loop, service->pidfd, EPOLLIN, service_api_exited, service,
                 &service->exit_source, err);
    if (r < 0) {
        process_end(&service->pidfd);
        service->link = wire_link_free(service->link);
    }
    return r;
}

static void service_restart(void *context)
{
    struct api_service *service = context;
    struct error err;

    service->restart_timer = NULL;
    if (service_start(service, &err) < 0) {
        log_error(service->options.log, "%s", err.message);
        service_start_later(service);
    }
}

static void service_start_later(struct api_service *service)
{
    int64_t delay_ms = 0;

    if (loop_now_ms() - service->started_ms < STEADY_MS) {
        delay_ms = service->delay_ms;
        service->delay_ms = delay_ms ? 2 * delay_ms : 50;
        if (service->delay_ms > RESTART_MAX_MS)
            service->delay_ms = RESTART_MAX_MS;
    } else {
        service->delay_ms = 0;
    }
    /* Without memory for that, service_watch will. */
    service->restart_timer = loop_after(service->options.loop, delay_ms, service_restart, service);
}

/* --- TLS --- */

static int service_send_tls(struct api_service *service, const struct tls_bytes *tls)
{
    struct wire_message message = { .kind = WIRE_TLS, .body = tls->bytes, .body_size = tls->size };
    int r;

    if (!service->link || !tls->bytes)
        return 0;
    r = wire_link_send(service->link, &message, NULL);
    if (r < 0)
        return r;
    service->tls_asked++;
    service->tried_is_asked = tls == &service->tried_tls;
    return 0;
}

static void tls_bytes_clear(struct tls_bytes *tls)
{
    if (tls->bytes)
        explicit_bzero(tls->bytes, tls->size);
    free(tls->bytes);
    *tls = (struct tls_bytes){ 0 };
}

int api_service_set_tls(struct api_service *service, const char *bytes, size_t size,
                        struct error *err)
{
    struct tls_bytes tls = { .bytes = malloc(size), .size = size };

    if (!tls.bytes)
        return error_set(err, ENOMEM, "no memory for a certificate");
    memcpy(tls.bytes, bytes, size);
    tls_bytes_clear(&service->tried_tls);
    service->tried_tls = tls;
    return service_send_tls(service, &service->tried_tls);
}

/* One that is over is taken, too: its clients may not care, and there is none that is better. */
static void service_note_end(struct api_service *service, uint64_t seconds)
{
    const time_t end = (time_t)seconds;
    char text[64] = "?";
    struct tm date;

    if (gmtime_r(&end, &date))
        strftime(text, sizeof(text), "%Y-%m-%d %H:%M UTC", &date);
    api_metrics_set_certificate_end(service->metrics, seconds);
    if (end > time(NULL))
        log_info(service->options.log, "the certificate for %s is taken; it ends %s",
                 service->options.address, text);
    else
        log_error(service->options.log,
                  "the certificate for %s ended %s: clients refuse it until tls-cert is a new one",
                  service->options.address, text);
}

/* What warren-api says of one that it was given: what it says of the last counts.  One that is no
 * good is not given to the next warren-api either. */
static void service_tls_taken(struct api_service *service, const struct wire_message *message)
{
    const struct log *log = service->options.log;

    if (service->tls_asked == 0 || --service->tls_asked > 0 || !service->tried_is_asked)
        return;
    service->tried_is_asked = false;
    if (message->body_size > 0) {
        log_error(log, "the certificate is not taken: %.200s; %s", message->body,
                  service->tls.bytes ? "the one before stays"
                                     : "nobody can connect by TCP until the files are right");
        tls_bytes_clear(&service->tried_tls);
        return;
    }
    tls_bytes_clear(&service->tls);
    service->tls = service->tried_tls;
    service->tried_tls = (struct tls_bytes){ 0 };
    service_note_end(service, message->id);
}

/* --- the socket --- */

static int service_listen(struct api_service *service, struct error *err)
{
    const struct api_service_options *options = &service->options;
    char address[80];

    if (options->listener == LISTENER_UNIX) {
        service->listen_fd =
            api_listen_unix(options->run_dir_fd, API_SOCKET_NAME,
                            options->socket_mode ? options->socket_mode : 0600, err);
        return service->listen_fd < 0 ? service->listen_fd : 0;
    }
    service->listen_fd = api_listen_tcp(options->address, address, sizeof(address), err);
    if (service->listen_fd < 0)
        return service->listen_fd;
    log_info(options->log, "listening on %s (TLS%s)", address,
             options->listener == LISTENER_METRICS ? ", metrics" : "");
    return 0;
}

int api_service_new(const struct api_service_options *options, struct api_service **ret_service,
                    struct error *err)
{
    struct api_service *service = calloc(1, sizeof(*service));
    int r;

    if (!service)
        return error_set(err, ENOMEM, "no memory for the API service");
    service->options = *options;
    if (service->options.changes_max == 0)
        service->options.changes_max = CHANGES_MAX;
    service->listen_fd = service->pidfd = -1;
    service->metrics = options->metrics;
    service->watch_timer = loop_every(options->loop, WATCHDOG_TURN_MS, service_watch, service);
    r = service->metrics && service->watch_timer
            ? 0
            : error_set(err, ENOMEM, "no memory for the API service");
    if (r >= 0)
        r = service_listen(service, err);
    if (r >= 0 && options->tls)
        r = api_service_set_tls(service, options->tls, options->tls_size, err);
    service->options.tls = NULL; /* the caller's */
    if (r >= 0)
        r = service_start(service, err);
    if (r < 0) {
        api_service_free(service);
        return r;
    }
    *ret_service = service;
    return 0;
}

static void service_unlisten(struct api_service *service)
{
    if (service->listen_fd < 0)
        return;
    if (service->options.listener == LISTENER_UNIX)
        (void)unlinkat(service->options.run_dir_fd, API_SOCKET_NAME, 0);
    close(service->listen_fd);
    service->listen_fd = -1;
}

void api_service_drain(struct api_service *service, void (*done)(void *context), void *context)
{
    struct wire_message message = { .kind = WIRE_DRAIN };

    service->drained = done;
    service->drained_context = context;
    service->restart_timer = loop_cancel(service->restart_timer);
    service_unlisten(service);
    if (service->pidfd >= 0 && service->link && wire_link_send(service->link, &message, NULL) == 0)
        return; /* service_api_exited tells */
    if (service->pidfd >= 0)
        process_kill(service->pidfd, SIGKILL);
    else if (loop_post(service->options.loop, done, context) < 0)
        done(context);
}

struct api_service *api_service_free(struct api_service *service)
{
    if (!service)
        return NULL;
    loop_cancel(service->watch_timer);
    loop_cancel(service->restart_timer);
    loop_remove(service->exit_source);
    service->link = wire_link_free(service->link); /* warren-api exits at this end of file */
    held_replies_drop(&service->held);
    process_end(&service->pidfd);
    request_table_each(&service->requests, service_abandon, service);
    service_unlisten(service);
    tls_bytes_clear(&service->tls);
    tls_bytes_clear(&service->tried_tls);
    free(service);
    return NULL;
}
