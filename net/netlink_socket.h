/* netlink_socket.h - how every netlink socket of ours is opened.  Network worker only. */
#pragma once

struct error;
struct mnl_socket;

/* On the network namespace of the calling thread; bus: NETLINK_*; what: for the error.  Owned,
 * bound, and without endless waits: the kernel answers at once, and a lost answer must not stop the
 * worker for ever. */
int netlink_socket_open(int bus, const char *what, struct mnl_socket **ret_socket,
                        struct error *err);
