/* fork_namespace.h - the network namespace of a forked nic (fork_rules.h).  Network worker only.
 *
 * It has no name and no process.  The kernel keeps it as long as a fd of the tap lives (a tap's
 * file holds the namespace that it was opened in), so it ends with its VMM, however that ends; the
 * veth pair goes with it.  The worker never enters it: a thread that lives for a moment makes it
 * and opens sockets there, through which the worker works. */
#pragma once
#include "net/network.h"

struct netlink;

/* host: the netlink socket of the namespace whose end of the pair is called `name`, which stays
 * down.  0 and the owned, non-blocking fds of the tap's queues.  -EBUSY while an interface of that
 * name lives. */
int fork_namespace_open(struct netlink *host, const struct network_config *network,
                        const struct nic_config *nic, const char *name, int *ret_tap_fds,
                        struct error *err);
