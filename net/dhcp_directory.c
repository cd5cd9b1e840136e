#include "net/dhcp_directory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/directory.h"
#include "base/error.h"
#include "net/dhcp_text.h"

#define LEASES_MAX    (1u << 20) /* RLIMIT_FSIZE of dnsmasq */
#define RESOLVER_PATH "/etc/resolv.conf"
#define RESOLVER_MAX  4096

void dhcp_directory_init(struct dhcp_directory *directory)
{
    *directory = (struct dhcp_directory){ .fd = -1, .hosts_fd = -1, .names_fd = -1 };
}

void dhcp_directory_close(struct dhcp_directory *directory)
{
    cleanup_close(&directory->fd);
    cleanup_close(&directory->hosts_fd);
    cleanup_close(&directory->names_fd);
}

/* Ours, the group's to read and pass.  Owned fd. */
static int open_shared(int at, const char *name, gid_t gid, struct error *err)
{
    auto_close int fd = -1;

    if (mkdirat(at, name, 0750) < 0 && errno != EEXIST)
        return error_set(err, errno, "make DHCP directory: %s", strerror(errno));
    fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fchown(fd, (uid_t)-1, gid) < 0 || fchmod(fd, 0750) < 0)
        return error_set(err, errno, "open DHCP directory: %s", strerror(errno));
    return take_fd(&fd);
}

/* Whole or not at all: dnsmasq ignores names that begin with a dot.  Closed before it has its name:
 * dnsmasq reads at the end of a writing, too, and complains of what it has read already. */
static int write_entry(int fd, const char *name, const char *line, gid_t gid, struct error *err)
{
    auto_close int file = -1;
    char temporary[IFNAMSIZ + 1];
    size_t size = strlen(line);
    bool written;

    snprintf(temporary, sizeof temporary, ".%s", name);
    file = openat(fd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0640);
    written = file >= 0 && fchown(file, (uid_t)-1, gid) == 0 &&
              write(file, line, size) == (ssize_t)size && close(take_fd(&file)) == 0;
    if (!written || renameat(fd, temporary, fd, name) < 0) {
        int code = errno;

        (void)unlinkat(fd, temporary, 0);
        return error_set(err, code ? code : EIO, "write DHCP entry: %s", strerror(code));
    }
    return 0;
}

int dhcp_directory_add(struct dhcp_directory *directory, const struct network_config *network,
                       const struct nic_config *nic, struct error *err)
{
    char name[IFNAMSIZ];
    char line[DHCP_LINE_MAX];
    int result;

    nic_tap_name(directory->prefix, nic->instance, nic->index, name);
    dhcp_host_line(network, nic, line);
    result = write_entry(directory->hosts_fd, name, line, directory->gid, err);
    if (result < 0)
        return result;
    dhcp_name_line(network, nic, line);
    return write_entry(directory->names_fd, name, line, directory->gid, err);
}

int dhcp_directory_delete(struct dhcp_directory *directory, const struct nic_config *nic,
                          struct error *err)
{
    char name[IFNAMSIZ];

    nic_tap_name(directory->prefix, nic->instance, nic->index, name);
    if ((unlinkat(directory->hosts_fd, name, 0) < 0 && errno != ENOENT) ||
        (unlinkat(directory->names_fd, name, 0) < 0 && errno != ENOENT))
        return error_set(err, errno, "remove DHCP entry: %s", strerror(errno));
    return 0;
}

static bool is_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

int dhcp_directory_follow_resolver(struct dhcp_directory *directory, struct error *err)
{
    auto_close int fd = -1;
    struct stat status = { 0 };
    char text[RESOLVER_MAX];
    ssize_t got = 0;
    int result;

    if (stat(RESOLVER_PATH, &status) < 0)
        status = (struct stat){ 0 };
    if (directory->has_resolver && is_same_file(&status, &directory->resolver))
        return 0;
    fd = open(RESOLVER_PATH, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0)
        got = read(fd, text, sizeof text - 1);
    text[got > 0 ? got : 0] = '\0';
    result = write_entry(directory->fd, DHCP_RESOLVER_FILE, text, directory->gid, err);
    if (result < 0)
        return result;
    directory->resolver = status;
    directory->has_resolver = true;
    return 0;
}

/* The file's text, cut to its bound; "" if there is none.  NULL if memory is short. */
static char *read_leases(const struct dhcp_directory *directory)
{
    auto_close int fd = openat(directory->fd, "leases", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    struct stat status;
    size_t size = 0;
    char *text;
    ssize_t got = 0;

    if (fd >= 0 && fstat(fd, &status) == 0)
        size = (size_t)status.st_size < LEASES_MAX ? (size_t)status.st_size : LEASES_MAX;
    text = malloc(size + 1);
    if (text && size)
        got = read(fd, text, size);
    if (text)
        text[got > 0 ? got : 0] = '\0';
    return text;
}

/* Rewritten in place: the file stays dnsmasq's.  drop = 0: nothing is kept. */
static int rewrite_leases(const struct dhcp_directory *directory, uint32_t drop, struct error *err)
{
    auto_close int fd = -1;
    auto_free char *text = drop ? read_leases(directory) : NULL;
    char *rest = text;
    const char *line;
    uint8_t mac[MAC_BYTES];

    fd = openat(directory->fd, "leases", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
                0600);
    if (fd < 0 || fchown(fd, directory->uid, directory->gid) < 0)
        return error_set(err, errno, "write DHCP leases: %s", strerror(errno));
    while ((line = strsep(&rest, "\n")))
        if (line[0] && !dhcp_lease_line_holds(line, drop, mac) && dprintf(fd, "%s\n", line) < 0)
            return error_set(err, errno, "write DHCP leases");
    return 0;
}

bool dhcp_directory_find_lease(const struct dhcp_directory *directory, uint32_t address,
                               uint8_t ret_mac[MAC_BYTES])
{
    auto_free char *text = read_leases(directory);
    char *rest = text;
    char *line;

    while ((line = strsep(&rest, "\n")))
        if (dhcp_lease_line_holds(line, address, ret_mac))
            return true;
    return false;
}

void dhcp_directory_drop_lease(const struct dhcp_directory *directory, uint32_t address)
{
    (void)rewrite_leases(directory, address, NULL);
}

void dhcp_directory_remove(int net_dir_fd, uint32_t instance)
{
    auto_close int fd = -1;
    char name[16];

    snprintf(name, sizeof name, "%x", instance);
    fd = openat(net_dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)directory_remove(fd, "hosts");
    (void)directory_remove(fd, "names");
    (void)directory_remove(net_dir_fd, name);
}

int dhcp_directory_make(struct dhcp_directory *directory, const struct dhcp_options *options,
                        const struct network_config *network, const struct nic_config *nics,
                        size_t nic_count, struct error *err)
{
    char name[16];
    int result = 0;

    directory->uid = options->uid;
    directory->gid = options->gid;
    snprintf(directory->prefix, sizeof directory->prefix, "%s", options->prefix);
    snprintf(name, sizeof name, "%x", network->instance);
    dhcp_directory_remove(options->net_dir_fd, network->instance);
    directory->fd = open_shared(options->net_dir_fd, name, options->gid, err);
    if (directory->fd < 0)
        return directory->fd;
    directory->hosts_fd = open_shared(directory->fd, "hosts", options->gid, err);
    if (directory->hosts_fd < 0)
        return directory->hosts_fd;
    directory->names_fd = open_shared(directory->fd, "names", options->gid, err);
    if (directory->names_fd < 0)
        return directory->names_fd;
    result =
        write_entry(directory->hosts_fd, DHCP_RELOAD_FILE, "# see dhcp.c\n", options->gid, err);
    if (result == 0 && network->nat)
        result = dhcp_directory_follow_resolver(directory, err);
    for (size_t i = 0; i < nic_count && result == 0; i++)
        if (nics[i].network_instance == network->instance)
            result = dhcp_directory_add(directory, network, &nics[i], err);
    return result < 0 ? result : rewrite_leases(directory, 0, err);
}

int dhcp_directory_open_log(const struct dhcp_directory *directory, struct error *err)
{
    int fd = openat(directory->fd, "log",
                    O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0640);

    if (fd < 0)
        return error_set(err, errno, "open the log of dnsmasq: %s", strerror(errno));
    return fd;
}

void dhcp_directory_last_log(const struct dhcp_directory *directory, char *ret_line, size_t size)
{
    auto_close int fd = openat(directory->fd, "log", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    char text[4096];
    ssize_t got = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    char *start;

    ret_line[0] = '\0';
    if (got <= 0)
        return;
    while (got > 0 && text[got - 1] == '\n')
        got--;
    text[got] = '\0';
    start = strrchr(text, '\n');
    snprintf(ret_line, size, "%s", start ? start + 1 : text);
    for (char *at = ret_line; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 127)
            *at = '?';
}
