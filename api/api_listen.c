/* api_listen.c - see api_listen.h. */
#include "api/api_listen.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include "api/query.h"
#include "base/cleanup.h"
#include "base/error.h"

#define LISTEN_BACKLOG 4096

int api_listen_unix(int dir_fd, const char *name, mode_t mode, struct error *err)
{
    auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    char undone[64];

    if (fd < 0)
        return error_set(err, errno, "create the API's socket: %s", strerror(errno));
    snprintf(undone, sizeof(undone), "%s.new", name);
    /* by /proc: a run directory's path may be longer than a socket's address */
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", dir_fd, undone);
    (void)unlinkat(dir_fd, undone, 0);
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return error_set(err, errno, "bind the API's socket: %s", strerror(errno));
    if (fchmodat(dir_fd, undone, mode, 0) < 0 || listen(fd, LISTEN_BACKLOG) < 0 ||
        renameat(dir_fd, undone, dir_fd, name) < 0)
        return error_set(err, errno, "listen on the API's socket: %s", strerror(errno));
    return take_fd(&fd);
}

/* Splits "HOST:PORT" and "[HOST]:PORT". */
static int resolve(const char *address, struct addrinfo **ret_info, struct error *err)
{
    static const struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
                                           .ai_socktype = SOCK_STREAM };
    const char *colon = strrchr(address, ':');
    const char *from = address;
    size_t length = colon ? (size_t)(colon - address) : 0;
    char host[64] = "";
    int64_t port; /* getaddrinfo takes larger ones modulo 65536 */

    if (length > 2 && address[0] == '[' && address[length - 1] == ']') {
        from++;
        length -= 2;
    } else if (length > 0 && memchr(address, ':', length)) {
        length = 0; /* an IPv6 address without brackets */
    }
    if (length > 0 && length < sizeof(host))
        memcpy(host, from, length);
    if (!host[0] || !digits_parse(colon + 1, strlen(colon + 1), &port) || port > UINT16_MAX ||
        getaddrinfo(host, colon + 1, &hints, ret_info) != 0)
        return error_field(err, EINVAL, "listen",
                           "listen, metrics-listen: %s: give ADDRESS:PORT in numbers, as "
                           "192.0.2.1:9443 or [2001:db8::1]:9443",
                           address);
    return 0;
}

static void name_of(int fd, char *ret_address, size_t size)
{
    struct sockaddr_storage address = { 0 };
    socklen_t length = sizeof(address);
    char host[64] = "?", port[8] = "?";

    if (getsockname(fd, (struct sockaddr *)&address, &length) == 0)
        (void)getnameinfo((struct sockaddr *)&address, length, host, sizeof(host), port,
                          sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(ret_address, size, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

int api_listen_tcp(const char *address, char *ret_address, size_t size, struct error *err)
{
    struct addrinfo *info = NULL;
    auto_close int fd = -1;
    int r = resolve(address, &info, err), on = 1;

    if (r < 0)
        return r;
    fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        (info->ai_family == AF_INET6 &&
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0) ||
        bind(fd, info->ai_addr, info->ai_addrlen) < 0 || listen(fd, LISTEN_BACKLOG) < 0)
        r = error_set(err, errno, "listen on %s: %s", address, strerror(errno));
    freeaddrinfo(info);
    if (r < 0)
        return r;
    name_of(fd, ret_address, size);
    return take_fd(&fd);
}
