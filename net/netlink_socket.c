#include "net/netlink_socket.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/error.h"

int netlink_socket_open(int bus, const char *what, struct mnl_socket **ret_socket,
                        struct error *err)
{
    struct timeval patience = { .tv_sec = 10 };
    struct mnl_socket *made = mnl_socket_open2(bus, SOCK_CLOEXEC);

    if (!made || mnl_socket_bind(made, 0, MNL_SOCKET_AUTOPID) < 0) {
        int code = errno;

        if (made)
            mnl_socket_close(made);
        return error_set(err, code, "open %s: %s", what, strerror(code));
    }
    (void)setsockopt(mnl_socket_get_fd(made), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    *ret_socket = made;
    return 0;
}
