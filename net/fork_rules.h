/* fork_rules.h - the packet filter of a forked nic's own namespace, as nftables text.  Pure; any
 * thread.
 *
 * The guest was copied while it ran: it keeps the MAC and address that it had ("inside"), and is
 * known to the network by those of its nic ("outside").  In its namespace stand FORK_TAP, which the
 * guest is behind, and FORK_UPLINK, whose other end is a port of the network's bridge:
 *
 *   - from the tap comes only what has the inside MAC and address, ARP included, whomever the frame
 *     is for: the guest may know its neighbours' MAC addresses from before;
 *   - inside and outside address change places both ways.  So whoever has the inside address now
 *     (the guest that was copied) is known to this guest by the outside one, and they can talk;
 *   - DHCP is answered here, by rewriting the request: the lease is the guest's for good, whatever
 *     became of it outside.  It needs the message type to be the first option, as clients have it;
 *   - the namespace itself is no host: nothing is delivered to it;
 *   - at most FORK_CONNECTIONS each way are tracked: their memory is the host's. */
#pragma once
#include "net/network.h"

#define FORK_TAP         "guest"
#define FORK_UPLINK      "uplink"
#define FORK_CONNECTIONS 4096

/* nic->forked.  Malloc'ed; NULL if memory is short. */
char *fork_rules(const struct network_config *network, const struct nic_config *nic);
