/* dhcp.h - one dnsmasq per network: DHCP for the guests that we name, DNS on the gateway.
 * Network worker only.
 *
 * Its directory, "<net dir>/<instance>/", holds hosts/ and names/ (a file for each nic, read by
 * inotify), leases, log, and, where there is a way out, a copy of the host's resolv.conf.  dnsmasq
 * runs as a user of its own with two capabilities (CAP_NET_BIND_SERVICE, and CAP_NET_ADMIN, without
 * which it refuses to start), no new privileges, a list of system calls (build_filter.c), mount,
 * pid, ipc and uts namespaces of its own, a root that holds libraries, two devices and that
 * directory, and files of at most 1 MiB. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "net/network.h"

struct error;
struct dhcp_server; /* opaque */

struct dhcp_options {
    const char *prefix; /* all borrowed */
    const char *net_dir;
    int net_dir_fd;
    const char *empty_root; /* a directory over which dnsmasq's root is mounted, for itself */
    uid_t uid;
    gid_t gid;
};

/* Writes the directory anew for these nics (of other networks: ignored) and starts dnsmasq; returns
 * when it listens.  No other dnsmasq of this directory may run. */
int dhcp_server_start(const struct dhcp_options *options, const struct network_config *network,
                      const struct nic_config *nics, size_t nic_count,
                      struct dhcp_server **ret_server, struct error *err);
/* Kills dnsmasq and removes the directory.  Accepts NULL, returns NULL. */
struct dhcp_server *dhcp_server_stop(struct dhcp_server *server);
/* Forgets it: dnsmasq and its directory stay.  Accepts NULL, returns NULL. */
struct dhcp_server *dhcp_server_free(struct dhcp_server *server);
bool dhcp_server_runs(const struct dhcp_server *server);
/* To be called once a second, or so: why dnsmasq does not serve, to be put behind its name; NULL if
 * it does, as far as can be told.  It has to answer DNS (base/watchdog.h): one that hangs is ended.
 * May wait for it. */
const char *dhcp_server_fault(struct dhcp_server *server);
/* Where it does not, or to be rid of a lease: kills what is left and starts it with the same files.
 */
int dhcp_server_restart(struct dhcp_server *server, struct error *err);

/* When it returns, dnsmasq sees the entry before any request that comes later. */
int dhcp_server_add(struct dhcp_server *server, const struct nic_config *nic, struct error *err);
/* Idempotent.  dnsmasq forgets the guest at the latest when its address or MAC comes again, or
 * after 64 more: making it read all its files anew for each would keep it busy. */
int dhcp_server_remove(struct dhcp_server *server, const struct nic_config *nic, struct error *err);

/* The host's resolv.conf, if it has changed since it was copied; dnsmasq sees that it has. */
int dhcp_server_follow_resolver(struct dhcp_server *server, struct error *err);

/* Kills every dnsmasq whose command line says that it works in a directory of net_dir (started by
 * us or by an agent before us), and removes these directories. */
int dhcp_remove_all(const struct dhcp_options *options, struct error *err);
