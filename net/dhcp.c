#include "net/dhcp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/loop.h"
#include "base/process.h"
#include "base/watchdog.h"
#include "net/dhcp_directory.h"
#include "net/dhcp_filter.inc" /* generated: dhcp_filter */
#include "net/dhcp_text.h"

#define START_MS        5000
#define FILE_BYTES      (1u << 20)
#define OPEN_FILES      256
#define RELOAD_MS       1000
#define GONE_MAX        64
#define RELEASE_TRIES   10 /* of RELEASE_WAIT_MS */
#define RELEASE_WAIT_MS 5

struct dhcp_server {
    struct dhcp_options options;
    struct network_config network;
    struct dhcp_directory directory; /* owned fds */
    char path[256];                  /* of the directory */
    int pidfd;                       /* owned; -1 = none */
    int probe_fd;                    /* owned; to its DNS */
    struct watchdog watchdog;
    struct nic_config gone[GONE_MAX]; /* removed since dnsmasq last read its directories */
    size_t gone_count;
};

static void sleep_ms(long ms)
{
    struct timespec span = { .tv_nsec = ms * 1000000 };

    nanosleep(&span, NULL);
}

static int open_program(struct error *err)
{
    static const char *const paths[] = { "/usr/sbin/dnsmasq", "/usr/bin/dnsmasq",
                                         "/usr/local/sbin/dnsmasq" };

    for (size_t i = 0; i < ARRAY_LENGTH(paths); i++) {
        int fd = open(paths[i], O_PATH | O_CLOEXEC);

        if (fd >= 0)
            return fd;
    }
    return error_set(err, ENOENT, "dnsmasq is not installed (Debian package dnsmasq-base)");
}

/* Does a socket of dnsmasq's user listen on gateway:53/udp?  Bound last, after DHCP's.  Another's
 * would be what keeps dnsmasq from starting. */
static bool is_listening(const struct dhcp_server *server)
{
    FILE *table = fopen("/proc/thread-self/net/udp", "re");
    const unsigned gateway = htonl(cidr_gateway(&server->network.cidr));
    char line[256];
    bool found = false;

    if (!table)
        return false;
    while (!found && fgets(line, sizeof line, table)) {
        unsigned address, port, uid;

        found = sscanf(line, "%*s %x:%x %*s %*s %*s %*s %*s %u", &address, &port, &uid) == 3 &&
                address == gateway && port == 53 && uid == server->options.uid;
    }
    fclose(table);
    return found;
}

static int await_listening(struct dhcp_server *server, struct error *err)
{
    char reason[160];

    for (int waited = 0; waited < START_MS; waited += 2) {
        if (is_listening(server))
            return 0;
        if (process_await(server->pidfd, 2) == 0)
            break;
    }
    dhcp_directory_last_log(&server->directory, reason, sizeof reason);
    process_end(&server->pidfd);
    return error_set(err, EIO, "network %s: dnsmasq does not start: %s", server->network.id,
                     reason[0] ? reason : "it said nothing");
}

/* What dnsmasq has as its input: a share of the net directory's lock.  The process has it from its
 * first moment on, while its command line still is ours: see dhcp_strays.c. */
static int open_lock(const struct dhcp_server *server, struct error *err)
{
    auto_close int fd = openat(server->options.net_dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || flock(fd, LOCK_SH | LOCK_NB) < 0)
        return error_set(err, errno, "start dnsmasq: lock its directory: %s", strerror(errno));
    return take_fd(&fd);
}

/* What dnsmasq sees of the host: libraries and their loader, whatever the distribution's place for
 * them is; two devices; and its own directory, of which only the leases are its to write. */
#define FROM_HOST (MS_RDONLY | MS_NOSUID | MS_NODEV)
#define DEVICE    (MS_RDONLY | MS_NOSUID | MS_NOEXEC)
#define DATA      (MS_NOSUID | MS_NODEV | MS_NOEXEC)

static int spawn(struct dhcp_server *server, struct error *err)
{
    const struct sandbox_mount mounts[] = {
        { "/lib", FROM_HOST },
        { "/lib64", FROM_HOST },
        { "/usr/lib", FROM_HOST },
        { "/usr/lib64", FROM_HOST },
        { "/etc/ld.so.cache", FROM_HOST | MS_NOEXEC },
        { "/dev/null", DEVICE },
        { "/dev/urandom", DEVICE },
        { server->path, DATA },
    };
    auto_close int program = open_program(err);
    auto_close int lock = -1;
    auto_close int log = -1;
    struct dhcp_arguments arguments;
    const struct sandbox_spec sandbox = {
        .root = server->options.empty_root,
        .mounts = mounts,
        .mount_count = ARRAY_LENGTH(mounts),
        .filter = dhcp_filter,
        .filter_length = ARRAY_LENGTH(dhcp_filter),
        .uid = server->options.uid,
        .gid = server->options.gid,
        .keep_capabilities = 1ull << CAP_NET_BIND_SERVICE | 1ull << CAP_NET_ADMIN,
        .max_files = OPEN_FILES,
        .max_file_bytes = FILE_BYTES,
    };
    int fds[3] = { -1, -1, -1 };
    pid_t pid;
    int result;

    if (program < 0)
        return program;
    log = dhcp_directory_open_log(&server->directory, err);
    if (log < 0)
        return log;
    lock = open_lock(server, err);
    if (lock < 0)
        return lock;
    fds[0] = lock;
    fds[2] = log;
    dhcp_arguments_fill(&arguments, server->options.prefix, server->path, &server->network);
    if (arguments.failed) {
        dhcp_arguments_free(&arguments);
        return error_set(err, ENOMEM, "start dnsmasq: out of memory");
    }
    struct process_spec spec = {
        .exec_fd = program,
        .argv = (const char *const *)arguments.items,
        .clone_flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS,
        .cgroup_fd = -1,
        .fds = fds,
        .fd_count = ARRAY_LENGTH(fds),
        .sandbox = &sandbox,
        .new_session = true,
    };
    result = process_spawn(&spec, &pid, &server->pidfd, err);
    dhcp_arguments_free(&arguments);
    return result < 0 ? error_wrap(err, "start dnsmasq") : await_listening(server, err);
}

int dhcp_server_restart(struct dhcp_server *server, struct error *err)
{
    process_end(&server->pidfd);
    server->gone_count = 0;
    server->watchdog = (struct watchdog){ 0 };
    return spawn(server, err);
}

/* One for its life: each question from a new port would be a connection that the host tracks. */
static int open_probe(struct dhcp_server *server, struct error *err)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET,
        .sin_port = htons(53),
        .sin_addr.s_addr = htonl(cidr_gateway(&server->network.cidr)),
    };

    server->probe_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (server->probe_fd < 0 || connect(server->probe_fd, (struct sockaddr *)&to, sizeof to) < 0)
        return error_set(err, errno, "reach dnsmasq: %s", strerror(errno));
    return 0;
}

int dhcp_server_start(const struct dhcp_options *options, const struct network_config *network,
                      const struct nic_config *nics, size_t nic_count,
                      struct dhcp_server **ret_server, struct error *err)
{
    struct dhcp_server *server = calloc(1, sizeof *server);
    int result;

    if (!server)
        return error_set(err, ENOMEM, "start dnsmasq: out of memory");
    server->options = *options;
    server->network = *network;
    server->pidfd = server->probe_fd = -1;
    dhcp_directory_init(&server->directory);
    if (snprintf(server->path, sizeof server->path, "%s/%x", options->net_dir, network->instance) >=
        (int)sizeof server->path)
        result = error_set(err, ENAMETOOLONG, "the run directory's path is too long");
    else
        result = dhcp_directory_make(&server->directory, options, network, nics, nic_count, err);
    if (result == 0)
        result = open_probe(server, err);
    if (result == 0)
        result = spawn(server, err);
    if (result < 0) {
        dhcp_server_stop(server);
        return result;
    }
    *ret_server = server;
    return 0;
}

struct dhcp_server *dhcp_server_stop(struct dhcp_server *server)
{
    if (!server)
        return NULL;
    process_end(&server->pidfd);
    dhcp_directory_remove(server->options.net_dir_fd, server->network.instance);
    return dhcp_server_free(server);
}

struct dhcp_server *dhcp_server_free(struct dhcp_server *server)
{
    if (!server)
        return NULL;
    cleanup_close(&server->pidfd);
    cleanup_close(&server->probe_fd);
    dhcp_directory_close(&server->directory);
    free(server);
    return NULL;
}

/* From the host to itself, but bound to the bridge: dnsmasq sees it come from there. */
static void send_release(const struct dhcp_server *server, uint32_t address,
                         const uint8_t mac[MAC_BYTES])
{
    auto_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_in to = {
        .sin_family = AF_INET,
        .sin_port = htons(67),
        .sin_addr.s_addr = htonl(cidr_gateway(&server->network.cidr)),
    };
    uint8_t packet[DHCP_RELEASE_BYTES];
    char bridge[IFNAMSIZ];

    network_bridge_name(server->options.prefix, server->network.instance, bridge);
    dhcp_release_fill(&server->network, address, mac, packet);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, bridge, strlen(bridge)) < 0 ||
        sendto(fd, packet, sizeof packet, 0, (struct sockaddr *)&to, sizeof to) < 0)
        return; /* the lease is looked for before the address is used again */
}

/* dnsmasq gives no address that it thinks leased to another: that lease has to go first. */
static int free_address(struct dhcp_server *server, const struct nic_config *nic, struct error *err)
{
    uint8_t mac[MAC_BYTES];

    for (int try = 0; try < RELEASE_TRIES; try++) {
        if (!dhcp_directory_find_lease(&server->directory, nic->ipv4, mac) ||
            memcmp(mac, nic->mac, MAC_BYTES) == 0)
            return 0;
        if (try == 0)
            send_release(server, nic->ipv4, mac);
        sleep_ms(RELEASE_WAIT_MS);
    }
    process_end(&server->pidfd);
    dhcp_directory_drop_lease(&server->directory, nic->ipv4);
    return dhcp_server_restart(server, err);
}

/* A file that only a SIGHUP makes it read shows when it has done so. */
static int await_reading(struct dhcp_server *server, struct error *err)
{
    auto_close int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    struct pollfd poll_fd = { .fd = watch, .events = POLLIN };
    char path[320];

    snprintf(path, sizeof path, "%s/hosts/" DHCP_RELOAD_FILE, server->path);
    if (watch < 0 || inotify_add_watch(watch, path, IN_CLOSE_NOWRITE) < 0)
        return error_set(err, errno, "watch dnsmasq: %s", strerror(errno));
    (void)process_kill(server->pidfd, SIGHUP);
    return poll(&poll_fd, 1, RELOAD_MS) > 0 ? 0
                                            : error_set(err, ETIMEDOUT, "dnsmasq reads nothing");
}

/* dnsmasq forgets nothing of hosts/ until SIGHUP, and refuses an entry whose address it knows
 * already.  It does nothing else while it reads. */
static int reload(struct dhcp_server *server, struct error *err)
{
    int result;

    if (server->pidfd < 0)
        return 0; /* it will read all when it starts */
    result = await_reading(server, err);
    if (result == -ETIMEDOUT)
        return dhcp_server_restart(server, err);
    if (result == 0)
        server->gone_count = 0;
    return result;
}

/* To the host itself only: without its bridge the address would be anybody's. */
static void send_question(const struct dhcp_server *server)
{
    uint8_t query[DHCP_PROBE_MAX];
    size_t size = dhcp_probe_fill(&server->network, query);

    (void)send(server->probe_fd, query, size, MSG_DONTROUTE); /* no answer will come, then */
}

static void hear_answers(struct dhcp_server *server)
{
    char byte;

    while (recv(server->probe_fd, &byte, sizeof byte, 0) > 0)
        watchdog_answered(&server->watchdog);
}

bool dhcp_server_runs(const struct dhcp_server *server)
{
    return server->pidfd >= 0 && process_await(server->pidfd, 0) < 0;
}

const char *dhcp_server_fault(struct dhcp_server *server)
{
    enum watchdog_verdict verdict;

    hear_answers(server);
    verdict = watchdog_turn(&server->watchdog, loop_now_ms());
    if (!dhcp_server_runs(server))
        return server->pidfd < 0 ? "does not run" : "has ended";
    if (verdict == WATCHDOG_ASK)
        send_question(server);
    if (verdict != WATCHDOG_HUNG)
        return NULL;
    /* Guests may send so much that our questions are lost; a signal is not. */
    if (await_reading(server, NULL) == -ETIMEDOUT) {
        process_end(&server->pidfd);
        return WATCHDOG_HUNG_TEXT;
    }
    watchdog_answered(&server->watchdog);
    return NULL;
}

static bool is_same(const struct nic_config *a, const struct nic_config *b)
{
    return a->ipv4 == b->ipv4 && memcmp(a->mac, b->mac, MAC_BYTES) == 0 &&
           strcmp(a->hostname, b->hostname) == 0;
}

/* Does dnsmasq have to forget somebody first?  Not if the very same guest comes back. */
static bool needs_reload(struct dhcp_server *server, const struct nic_config *nic)
{
    for (size_t i = 0; i < server->gone_count; i++) {
        if (is_same(&server->gone[i], nic)) {
            server->gone[i] = server->gone[--server->gone_count];
            return false;
        }
        if (server->gone[i].ipv4 == nic->ipv4 ||
            memcmp(server->gone[i].mac, nic->mac, MAC_BYTES) == 0)
            return true;
    }
    return server->gone_count == GONE_MAX;
}

int dhcp_server_add(struct dhcp_server *server, const struct nic_config *nic, struct error *err)
{
    int result = free_address(server, nic, err);

    if (result == 0 && needs_reload(server, nic))
        result = reload(server, err);
    return result < 0 ? result : dhcp_directory_add(&server->directory, &server->network, nic, err);
}

int dhcp_server_follow_resolver(struct dhcp_server *server, struct error *err)
{
    return server && server->network.nat ? dhcp_directory_follow_resolver(&server->directory, err)
                                         : 0;
}

int dhcp_server_remove(struct dhcp_server *server, const struct nic_config *nic, struct error *err)
{
    int result = dhcp_directory_delete(&server->directory, nic, err);

    if (server->gone_count < GONE_MAX)
        server->gone[server->gone_count++] = *nic;
    else
        result = result < 0 ? result : reload(server, err);
    send_release(server, nic->ipv4, nic->mac);
    return result;
}
