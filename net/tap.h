/* tap.h - taps that live as long as their fds.  Network worker only. */
#pragma once
#include <sys/types.h>

struct error;

#define TAP_VNET_HEADER_BYTES 12 /* struct virtio_net_hdr_v1 before each frame */

#define TAP_QUEUES_MAX 8

/* Makes a tap (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, down, not persistent) of so many queues (more
 * than one: IFF_MULTI_QUEUE) that `owner` too may configure by its fds.  0 and as many owned,
 * non-blocking fds; -EBUSY if a tap of that name lives. */
int tap_open(const char *name, uid_t owner, unsigned queues, int *ret_fds, struct error *err);
