/* tap.h - taps that live as long as their fd.  Network worker only. */
#pragma once
#include <sys/types.h>

struct error;

#define TAP_VNET_HEADER_BYTES 12 /* struct virtio_net_hdr_v1 before each frame */

/* Makes a tap (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, down, not persistent) that `owner` too may
 * configure by its fd.  0 and an owned, non-blocking fd; -EBUSY if a tap of that name lives. */
int tap_open(const char *name, uid_t owner, int *ret_fd, struct error *err);
