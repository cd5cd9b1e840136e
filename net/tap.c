#include "net/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/cleanup.h"
#include "base/error.h"

int tap_open(const char *name, uid_t owner, int *ret_fd, struct error *err)
{
    auto_close int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
    int header = TAP_VNET_HEADER_BYTES;

    if (fd < 0)
        return error_set(err, errno, "open /dev/net/tun: %s", strerror(errno));
    strncpy(request.ifr_name, name, sizeof request.ifr_name - 1);
    if (ioctl(fd, TUNSETIFF, &request) < 0)
        return error_set(err, errno, "create tap %s: %s", name, strerror(errno));
    if (ioctl(fd, TUNSETVNETHDRSZ, &header) < 0)
        return error_set(err, errno, "set the header size of tap %s: %s", name, strerror(errno));
    if (ioctl(fd, TUNSETOWNER, (unsigned long)owner) < 0)
        return error_set(err, errno, "set the owner of tap %s: %s", name, strerror(errno));
    *ret_fd = take_fd(&fd);
    return 0;
}
