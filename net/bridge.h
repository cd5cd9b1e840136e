/* bridge.h - a network's bridge, and taps as its ports.  Network worker only. */
#pragma once
#include "net/network.h"

struct netlink;
struct netlink_link;

/* Has the bridge of its name the MAC address that its guests know as the gateway's? */
bool bridge_is_own(const struct network_config *network, const struct netlink_link *link);

/* Makes the bridge, or what of it is missing: its address is the network's gateway.  One of its
 * name that is not its own is replaced.  -EADDRINUSE if an interface of the host that is not ours
 * has an overlapping network (looked at only when the bridge is made).  *ret_created: it was not
 * there. */
int bridge_ensure(struct netlink *netlink, const char *prefix, const struct network_config *network,
                  int *ret_index, bool *ret_created, struct error *err);

/* Makes the tap (down) a port for this guest: known MAC, permanent ARP entry. */
int bridge_attach(struct netlink *netlink, int tap_index, int bridge_index,
                  const struct network_config *network, const struct nic_config *nic,
                  struct error *err);
