/* main.c - warrend's composition root: settings, the one loop, the node, the API; then signals. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/config.h"
#include "agent/jail.h"
#include "agent/node.h"
#include "agent/node_setup.h"
#include "agent/notify.h"
#include "agent/version.h"
#include "api/api_front.h"
#include "api/audit.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"

#define WAITS_MS 1000  /* from SIGTERM until who waits is answered with what there is */
#define DRAIN_MS 10000 /* until what is still not answered is dropped */

struct warrend {
    struct config config;
    struct log log;
    struct log_losses losses;
    struct loop *loop;
    struct jail *jail;
    struct node *node;
    struct audit *audit;
    struct api_front *api;
    bool ending; /* a signal has come */
    int signal_fd;
    int api_exec_fd;
    int state_dir_fd;
};

static void stop(void *context)
{
    struct warrend *warrend = context;

    loop_stop(warrend->loop);
}

static void end_waits(void *context)
{
    struct warrend *warrend = context;

    node_end_waits(warrend->node);
}

static void give_up(void *context)
{
    struct warrend *warrend = context;

    log_warning(&warrend->log, "requests that were not answered within %d s are dropped",
                DRAIN_MS / 1000);
    loop_stop(warrend->loop);
}

/* SIGHUP: tokens and certificate are read again.  Others end: what is under way is answered first;
 * a second one ends at once. */
static void on_signal(void *context, uint32_t events)
{
    struct warrend *warrend = context;
    struct signalfd_siginfo info;

    (void)events;
    if (read(warrend->signal_fd, &info, sizeof info) != sizeof info)
        return;
    if (info.ssi_signo == SIGHUP) {
        if (warrend->api && !warrend->ending)
            api_front_reload(warrend->api);
        return;
    }
    if (!warrend->api || warrend->ending) {
        loop_stop(warrend->loop);
        return;
    }
    log_info(&warrend->log, "signal %u: ending; VMs go on running", info.ssi_signo);
    warrend->ending = true;
    notify_stopping();
    api_front_drain(warrend->api, stop, warrend);
    if (!loop_after(warrend->loop, WAITS_MS, end_waits, warrend))
        end_waits(warrend);
    if (!loop_after(warrend->loop, DRAIN_MS, give_up, warrend))
        give_up(warrend);
}

/* Before any thread is made: all inherit the mask. */
static int catch_signals(struct warrend *warrend, struct error *err)
{
    struct loop_source *source;
    sigset_t set;

    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    warrend->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (warrend->signal_fd < 0)
        return error_set(err, errno, "catch signals");
    return loop_add(warrend->loop, warrend->signal_fd, EPOLLIN, on_signal, warrend, &source, err);
}

/* A VM costs five fds here, a connection one in warren-api. */
static void raise_file_limit(void)
{
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67 /* Linux 6.4 */
#endif

/* KSM would let one tenant find out, by how long a write takes, what another has in memory.  That
 * all of a process's memory may be merged is inherited, over fork and exec: MemoryKSM= of our unit
 * would be every VM's.  Here, because the kernel then looks through all that the process has. */
static int merge_nothing(struct error *err)
{
    if (prctl(PR_SET_MEMORY_MERGE, 0, 0, 0, 0) == 0 || errno == EINVAL)
        return 0; /* EINVAL: the kernel has no KSM, or none of whole processes */
    return error_set(err, errno, "have no memory merged: %s", strerror(errno));
}

static int find_libexec(struct config *config, struct error *err)
{
    char path[PATH_MAX];
    ssize_t length;
    char *slash;

    if (config->libexec_dir[0])
        return 0;
    length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length < 0)
        return error_set(err, errno, "find where warrend is");
    path[length] = '\0';
    slash = strrchr(path, '/');
    if (!slash || (size_t)(slash - path) >= sizeof config->libexec_dir)
        return error_set(err, ENAMETOOLONG, "warrend's directory: use --libexec-dir");
    *slash = '\0';
    memcpy(config->libexec_dir, path, strlen(path) + 1);
    return 0;
}

static int find_group(const struct config *config, gid_t *ret_gid, struct error *err)
{
    const struct group *group;

    *ret_gid = 0;
    if (!config->socket_group[0])
        return 0;
    group = getgrnam(config->socket_group);
    if (!group)
        return error_field(err, EINVAL, "socket-group", "socket-group: there is no group %s",
                           config->socket_group);
    *ret_gid = group->gr_gid;
    return 0;
}

static int open_api(struct warrend *warrend, struct error *err)
{
    const struct config *config = &warrend->config;
    struct api_front_options options = {
        .service = { .loop = warrend->loop,
                     .node = warrend->node,
                     .log = &warrend->log,
                     .audit = warrend->audit,
                     .run_dir_fd = jail_run_dir_fd(warrend->jail),
                     .uid = jail_user(warrend->jail, JAIL_USER_API),
                     .gid = jail_user(warrend->jail, JAIL_USER_API),
                     .empty_root = jail_empty_root(warrend->jail) },
        .listen = config->listen,
        .metrics_listen = config->metrics_listen,
        .tls_cert = config->tls_cert,
        .tls_key = config->tls_key,
        .tls_client_ca = config->tls_client_ca,
        .tokens = config->tokens,
    };
    gid_t group;
    int result = find_group(config, &group, err);

    if (result < 0)
        return result;
    options.service.socket_mode = group ? 0660 : 0600;
    warrend->api_exec_fd = jail_open_program(warrend->jail, "warren-api", err);
    if (warrend->api_exec_fd < 0)
        return warrend->api_exec_fd;
    options.service.api_exec_fd = warrend->api_exec_fd;
    result = api_front_new(&options, &warrend->api, err);
    if (result == 0 && group &&
        fchownat(options.service.run_dir_fd, API_SOCKET_NAME, 0, group, AT_SYMLINK_NOFOLLOW) < 0)
        result = error_set(err, errno, "give the socket to group %s", warrend->config.socket_group);
    return result;
}

static int open_audit(struct warrend *warrend, struct error *err)
{
    warrend->state_dir_fd = open(warrend->config.state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (warrend->state_dir_fd < 0)
        return error_set(err, errno, "open %s", warrend->config.state_dir);
    return audit_new(warrend->loop, &warrend->log, warrend->state_dir_fd, &warrend->audit, err);
}

static int start(struct warrend *warrend, struct error *err)
{
    int result = geteuid() == 0 ? 0 : error_set(err, EPERM, "only root can run warrend");

    if (result == 0)
        result = merge_nothing(err);
    if (result == 0)
        result = find_libexec(&warrend->config, err);
    if (result == 0)
        result = loop_new(&warrend->loop, err);
    if (result == 0)
        result = catch_signals(warrend, err);
    if (result == 0)
        result = jail_new(&warrend->config, &warrend->jail, err);
    if (result == 0)
        result = node_new(warrend->loop, &warrend->log, &warrend->config, warrend->jail,
                          &warrend->node, err);
    if (result == 0)
        result = node_reconcile(warrend->node, err);
    if (result == 0)
        result = open_audit(warrend, err);
    return result == 0 ? open_api(warrend, err) : result;
}

static void end(struct warrend *warrend)
{
    api_front_free(warrend->api);
    node_free(warrend->node);
    audit_free(warrend->audit); /* what the node still answered is in it */
    cleanup_close(&warrend->state_dir_fd);
    jail_free(warrend->jail);
    cleanup_close(&warrend->api_exec_fd);
    loop_free(warrend->loop);
    cleanup_close(&warrend->signal_fd);
}

/* Also where no VM can start: who looks for the reason looks here.  Damage was told when it was
 * seen. */
static void tell_ready(const struct warrend *warrend)
{
    struct error why = { 0 };

    log_info(&warrend->log, "ready on %s/warren.sock", warrend->config.run_dir);
    if (node_ready(warrend->node, &why) < 0 && why.code != EUCLEAN)
        log_warning(&warrend->log, "/readyz is 503: %s", why.message);
    notify_ready(warrend->loop);
}

/* 2: trying again is of no use, a person has to mend the settings, or to run the version that the
 * database is of.  The unit does not try then. */
static int exit_status(const struct error *err)
{
    return (err->code == EINVAL && err->field[0]) || err->code == EPROTO ? 2 : 1;
}

int main(int argc, char **argv)
{
    struct warrend warrend = { .log = { .fd = 2, .level = LOG_LEVEL_INFO, .name = "warrend" },
                               .signal_fd = -1,
                               .api_exec_fd = -1,
                               .state_dir_fd = -1 };
    struct error err = { 0 };
    enum config_wish wish;
    int result = config_parse(argc, argv, &warrend.config, &wish, &err);

    if (result < 0) {
        fprintf(stderr, "warrend: %s\n", err.message);
        return 2;
    }
    if (wish == CONFIG_HELP) {
        config_print_help();
        return 0;
    }
    if (wish == CONFIG_VERSION) {
        printf("warrend %s\n", WARREN_VERSION);
        return 0;
    }
    warrend.log.losses = &warrend.losses;
    log_unblock(warrend.log.fd); /* a journal that is stuck stops nobody */
    if (warrend.config.debug)
        warrend.log.level = LOG_LEVEL_DEBUG;
    /* Modes are given where files are made; dnsmasq must pass through the run directory. */
    umask(022);
    raise_file_limit();
    result = start(&warrend, &err);
    if (result == 0) {
        tell_ready(&warrend);
        result = loop_run(warrend.loop, &err);
    }
    if (result < 0)
        log_error(&warrend.log, "%s", err.message);
    end(&warrend);
    return result < 0 ? exit_status(&err) : 0;
}
