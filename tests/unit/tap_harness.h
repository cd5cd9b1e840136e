/* tap_harness.h - a real tap in a network namespace of the process's own, as the agent makes them,
 * and a packet socket on it, which is the host's end.  Frames are of a type that the host's stack
 * leaves alone. */
#pragma once
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "vmm/virtio_net.h"

#define TAP_NAME      "t0"
#define TAP_TYPE      0x88b5 /* for local experiments */
#define TAP_FRAME_MAX 9014

#define TAP_QUEUES_MAX 8

struct tap_harness {
    int tap_fd, host_fd; /* tap_fd: of the first queue */
    unsigned queues;
    int fds[TAP_QUEUES_MAX];
};

/* The host's stack would talk to its neighbours over the tap by itself. */
static inline void tap_silence_ipv6(void)
{
    int fd = open("/proc/sys/net/ipv6/conf/default/disable_ipv6", O_WRONLY | O_CLOEXEC);

    if (fd >= 0) {
        (void)!write(fd, "1", 1);
        close(fd);
    }
}

/* Into a new namespace; false if that is not allowed here. */
static inline bool tap_harness_enter(void)
{
    if ((unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0) ||
        access("/dev/net/tun", R_OK | W_OK) < 0)
        return false;
    tap_silence_ipv6();
    return true;
}

static inline int tap_queue_open(unsigned queues)
{
    struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

    if (queues > 1)
        request.ifr_flags |= IFF_MULTI_QUEUE;
    memcpy(request.ifr_name, TAP_NAME, sizeof(TAP_NAME));
    if (fd >= 0 && ioctl(fd, TUNSETIFF, &request) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static inline bool tap_harness_open_queues(struct tap_harness *tap, unsigned queues)
{
    struct ifreq request = { 0 };
    struct sockaddr_ll address = { .sll_family = AF_PACKET, .sll_protocol = htons(TAP_TYPE) };
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int header_bytes = VIRTIO_NET_HEADER_BYTES;
    bool good = true;

    tap->queues = queues;
    for (unsigned i = 0; i < queues; i++) {
        tap->fds[i] = tap_queue_open(queues);
        good = good && tap->fds[i] >= 0;
    }
    tap->tap_fd = tap->fds[0];
    tap->host_fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(TAP_TYPE));
    memcpy(request.ifr_name, TAP_NAME, sizeof(TAP_NAME));
    good = good && ioctl(tap->tap_fd, TUNSETVNETHDRSZ, &header_bytes) == 0;
    request.ifr_flags = IFF_UP | IFF_RUNNING | IFF_NOARP;
    good = good && ioctl(control, SIOCSIFFLAGS, &request) == 0;
    request.ifr_mtu = TAP_FRAME_MAX - ETH_HLEN;
    good = good && ioctl(control, SIOCSIFMTU, &request) == 0;
    address.sll_ifindex = (int)if_nametoindex(TAP_NAME);
    good = good && bind(tap->host_fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    close(control);
    return good;
}

static inline bool tap_harness_open(struct tap_harness *tap)
{
    return tap_harness_open_queues(tap, 1);
}

static inline void tap_harness_close(struct tap_harness *tap)
{
    close(tap->host_fd);
    for (unsigned i = 0; i < tap->queues; i++)
        close(tap->fds[i]);
}

/* A broadcast from the host of `size` bytes; of at least a header's. */
static inline bool tap_host_send(const struct tap_harness *tap, size_t size)
{
    uint8_t frame[TAP_FRAME_MAX] = { 255, 255, 255, 255, 255, 255 };

    frame[12] = TAP_TYPE >> 8;
    frame[13] = TAP_TYPE & 0xff;
    if (size < ETH_HLEN || size > sizeof(frame))
        size = ETH_HLEN;
    return send(tap->host_fd, frame, size, 0) == (ssize_t)size;
}

/* Size of the next frame that came out of the tap, or -1. */
static inline ssize_t tap_host_receive(const struct tap_harness *tap)
{
    uint8_t frame[TAP_FRAME_MAX];

    return recv(tap->host_fd, frame, sizeof(frame), 0);
}

/* Whatever is under way, either way. */
static inline void tap_drain(const struct tap_harness *tap)
{
    uint8_t bytes[64];

    for (unsigned i = 0; i < tap->queues; i++) {
        (void)fcntl(tap->fds[i], F_SETFL, fcntl(tap->fds[i], F_GETFL) | O_NONBLOCK);
        while (read(tap->fds[i], bytes, sizeof(bytes)) > 0)
            continue;
    }
    while (recv(tap->host_fd, bytes, sizeof(bytes), 0) > 0)
        continue;
}
