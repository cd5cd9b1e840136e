#include "net/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/cleanup.h"
#include "base/error.h"

/* The first of a name makes the tap, and nobody else's is taken for it; the others join it. */
static int open_queue(const char *name, short flags, struct error *err)
{
    auto_close int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    struct ifreq request = { .ifr_flags = flags };

    if (fd < 0)
        return error_set(err, errno, "open /dev/net/tun: %s", strerror(errno));
    strncpy(request.ifr_name, name, sizeof request.ifr_name - 1);
    if (ioctl(fd, TUNSETIFF, &request) < 0)
        return error_set(err, errno, "create tap %s: %s", name, strerror(errno));
    return take_fd(&fd);
}

static int open_queues(const char *name, uid_t owner, unsigned queues, int *fds, struct error *err)
{
    const short flags =
        IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (short)(queues > 1 ? IFF_MULTI_QUEUE : 0);
    int header = TAP_VNET_HEADER_BYTES;

    for (unsigned i = 0; i < queues; i++) {
        fds[i] = open_queue(name, (short)(flags | (i == 0 ? IFF_TUN_EXCL : 0)), err);
        if (fds[i] < 0)
            return fds[i];
    }
    if (ioctl(fds[0], TUNSETVNETHDRSZ, &header) < 0)
        return error_set(err, errno, "set the header size of tap %s: %s", name, strerror(errno));
    if (ioctl(fds[0], TUNSETOWNER, (unsigned long)owner) < 0)
        return error_set(err, errno, "set the owner of tap %s: %s", name, strerror(errno));
    return 0;
}

int tap_open(const char *name, uid_t owner, unsigned queues, int *ret_fds, struct error *err)
{
    int fds[TAP_QUEUES_MAX];
    int result;

    if (queues < 1 || queues > TAP_QUEUES_MAX)
        return error_set(err, EINVAL, "tap %s: %u queues are not 1 to %d", name, queues,
                         TAP_QUEUES_MAX);
    for (unsigned i = 0; i < queues; i++)
        fds[i] = -1;
    result = open_queues(name, owner, queues, fds, err);
    for (unsigned i = 0; i < queues; i++) {
        if (result < 0)
            cleanup_close(&fds[i]);
        else
            ret_fds[i] = fds[i];
    }
    return result;
}
