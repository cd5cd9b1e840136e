/* defects.h - is what the kernel has of a network still what was made?  Pure but for taking the
 * sight.  Network worker only. */
#pragma once
#include "net/network_internal.h"

struct netlink_address;
struct netlink_link;

/* The host's interfaces at one moment. */
struct net_sight {
    struct netlink_link *links; /* owned; by name */
    size_t link_count;
    struct netlink_address *addresses; /* owned */
    size_t address_count;
};

int net_sight_take(struct netlink *netlink, struct net_sight *ret_sight, struct error *err);
void net_sight_free(struct net_sight *sight);
/* Borrowed; NULL if there is none. */
const struct netlink_link *net_sight_find(const struct net_sight *sight, const char *name);

/* Is the tap, or what has its name, the port that bridge_attach and then netlink_link_up make? */
bool tap_is_attached(const struct network *network, const struct netlink_link *tap);

/* What network_up mends: of the bridge, or the first tap on it.  (A tap that has gone cannot be
 * mended: whoever has its fds has those of the one that is gone.) */
struct network_fault network_defect(const struct net_host *host, const struct network *network,
                                    const struct net_sight *sight);
