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
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include "api/api_metrics.h"
#include "api/problem.h"
#include "api/request.h"
#include "api/router.h"
#include "api/wire_link.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/process.h"
#include "base/seqpacket.h"

#define LISTEN_BACKLOG 4096
#define TABLE_SIZE     4096 /* power of two */
#define OUTSTANDING_MAX                                                      \
    16384 /* more than warren-api's connections: a sane one never gets there \
           */
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
    struct wire_link *link;
    struct request *table[TABLE_SIZE]; /* outstanding, by id */
    size_t outstanding;
    void (*drained)(void *context); /* set: draining */
    void *drained_context;
};

/* --- requests --- */

static struct request **table_slot(struct api_service *service, uint64_t id)
{
    struct request **slot = &service->table[id & (TABLE_SIZE - 1)];

    while (*slot && (*slot)->id != id)
        slot = &(*slot)->next;
    return slot;
}

/* Takes it out of the table; false if it is not there. */
static bool table_remove(struct api_service *service, const struct request *request)
{
    struct request **slot = table_slot(service, request->id);

    if (*slot != request)
        return false;
    *slot = request->next;
    service->outstanding--;
    api_metrics_set_outstanding(service->metrics, service->outstanding);
    return true;
}

static void service_kill_api(struct api_service *service, const char *why)
{
    log_error(service->options.log, "warren-api is ended: %s", why);
    if (service->pidfd >= 0)
        process_kill(service->pidfd, SIGKILL); /* service_api_exited does the rest */
}

static int64_t microseconds_since(int64_t started_us)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000 - started_us;
}

/* request_sink.reply of requests whose client still waits. */
static void service_reply(void *context, struct request *request, struct wire_message *reply)
{
    struct api_service *service = context;
    struct error err;

    if (!table_remove(service, request) || !service->link)
        return;
    api_metrics_count(service->metrics, request->route, reply->status,
                      microseconds_since(request->started_us));
    reply->kind = WIRE_REPLY;
    reply->id = request->id;
    if (wire_link_send(service->link, reply, &err) < 0)
        service_kill_api(service, err.message);
}

/* request_sink.reply of requests whose client has gone. */
static void reply_to_nobody(void *context, struct request *request, struct wire_message *reply)
{
    (void)context;
    (void)request;
    (void)reply;
}

/* Its reply, whenever it comes, goes nowhere; it no longer needs the service. */
static void service_abandon(struct api_service *service, struct request *request)
{
    table_remove(service, request);
    request->sink.reply = reply_to_nobody;
    request->sink.context = NULL;
    request_abandon(request);
}

static void service_abandon_all(struct api_service *service)
{
    for (size_t i = 0; i < TABLE_SIZE; i++) {
        while (service->table[i])
            service_abandon(service, service->table[i]);
    }
}

static void service_request(struct api_service *service, struct wire_message *message)
{
    struct request_sink sink = { .reply = service_reply, .context = service };
    struct request **slot = table_slot(service, message->id);
    struct request *request;
    struct error err;

    if (*slot || service->outstanding >= OUTSTANDING_MAX) {
        service_kill_api(service, *slot ? "it used a request id twice"
                                        : "it has too many requests outstanding");
        return;
    }
    if (request_new(message, &sink, service->options.node, service->metrics, &request, &err) < 0) {
        service_kill_api(service, err.message);
        return;
    }
    *slot = request;
    service->outstanding++;
    api_metrics_set_outstanding(service->metrics, service->outstanding);
    router_dispatch(request);
}

static void service_message(void *context, struct wire_message *message)
{
    struct api_service *service = context;

    if (message->kind == WIRE_REQUEST) {
        service_request(service, message);
    } else {
        struct request *request = *table_slot(service, message->id);

        /* the reply may have crossed it */
        if (request)
            service_abandon(service, request);
    }
}

/* --- the process --- */

static void service_start_later(struct api_service *service);

static void service_link_ended(void *context, const struct error *err)
{
    struct api_service *service = context;

    if (service->drained && err->code == EPIPE)
        return; /* it is ending, as it was told */
    service_kill_api(service, err->message);
}

static void service_log_exit(const struct api_service *service, int status)
{
    const struct log *log = service->options.log;

    if (WIFSIGNALED(status))
        log_error(log, "warren-api was killed by signal %d, %zu requests lost", WTERMSIG(status),
                  service->outstanding);
    else if (!service->drained || status != 0)
        log_error(log, "warren-api exited with %d, %zu requests lost", WEXITSTATUS(status),
                  service->outstanding);
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
    service_abandon_all(service);
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
        .kinds = 1u << WIRE_REQUEST | 1u << WIRE_ABANDON,
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
    const char *argv[] = {
        "warren-api",        "--uid", uid, "--gid", gid, options->empty_root ? "--root" : NULL,
        options->empty_root, NULL
    };
    const int fds[] = { -1, -1, options->log->fd, child_fd, service->listen_fd };
    struct process_spec spec = {
        .exec_fd = options->api_exec_fd,
        .argv = argv,
        .clone_flags = options->empty_root
                           ? CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
                           : 0,
        .cgroup_fd = -1,
        .fds = fds,
        .fd_count = ARRAY_LENGTH(fds),
    };
    pid_t pid;

    snprintf(uid, sizeof(uid), "%u", (unsigned int)options->uid);
    snprintf(gid, sizeof(gid), "%u", (unsigned int)options->gid);
    return process_spawn(&spec, &pid, &service->pidfd, err);
}

/* It may be a moment until it is gone: SIGKILL leaves nothing to wait for. */
static void service_end_api(struct api_service *service)
{
    int status;

    process_kill(service->pidfd, SIGKILL);
    (void)waitid(P_PIDFD, (id_t)service->pidfd, NULL, WEXITED | WNOWAIT);
    (void)process_reap(service->pidfd, &status);
    close(service->pidfd);
    service->pidfd = -1;
}

static int service_start(struct api_service *service, struct error *err)
{
    auto_close int child_fd = -1;
    int r = service_link_new(service, &child_fd, err);

    if (r < 0)
        return r;
    r = service_spawn(service, child_fd, err);
    if (r < 0) {
        service->link = wire_link_free(service->link);
        return error_wrap(err, "start warren-api");
    }
    service->started_ms = loop_now_ms();
    r = loop_add(service->options.loop, service->pidfd, EPOLLIN, service_api_exited, service,
                 &service->exit_source, err);
    if (r < 0) {
        service_end_api(service);
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
    service->restart_timer = loop_after(service->options.loop, delay_ms, service_restart, service);
    if (!service->restart_timer)
        log_error(service->options.log, "no memory to start warren-api again; it stays down");
}

/* --- the socket --- */

/* Made under another name and renamed once it listens: whoever sees warren.sock can connect. */
static int service_listen(const struct api_service_options *options, int *ret_fd, struct error *err)
{
    static const char name[] = API_SOCKET_NAME ".new";
    auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    if (fd < 0)
        return error_set(err, errno, "create the API's socket");
    /* by /proc: a run directory's path may be longer than a socket's address */
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", options->run_dir_fd,
             name);
    (void)unlinkat(options->run_dir_fd, name, 0);
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return error_set(err, errno, "bind the API's socket");
    if (fchmodat(options->run_dir_fd, name, options->socket_mode ? options->socket_mode : 0600, 0) <
            0 ||
        listen(fd, LISTEN_BACKLOG) < 0 ||
        renameat(options->run_dir_fd, name, options->run_dir_fd, API_SOCKET_NAME) < 0)
        return error_set(err, errno, "listen on the API's socket");
    *ret_fd = take_fd(&fd);
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
    service->listen_fd = service->pidfd = -1;
    service->metrics = api_metrics_new();
    r = service->metrics ? 0 : error_set(err, ENOMEM, "no memory for the API service");
    if (r >= 0)
        r = service_listen(options, &service->listen_fd, err);
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
    loop_cancel(service->restart_timer);
    loop_remove(service->exit_source);
    service->link = wire_link_free(service->link); /* warren-api exits at this end of file */
    if (service->pidfd >= 0)
        service_end_api(service);
    service_abandon_all(service);
    service_unlisten(service);
    api_metrics_free(service->metrics);
    free(service);
    return NULL;
}
