/* network.h - the networks of this host: bridges, taps, packet filter, DHCP and DNS.
 *
 * Everything here runs on one thread, the network worker, and may block for some milliseconds; the
 * exceptions say so.  Nothing is global: several hosts (agents) live side by side, each with its
 * own prefix, in whatever network namespace the thread that made them was in. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "net/cidr.h"
#include "net/interface_name.h"
#include "net/mac.h"

struct error;
struct log;
struct net_host; /* opaque; see network.c */

#define NETWORK_ID_MAX      63
#define NIC_QUEUES_MAX      8
#define NETWORK_MTU_MIN     576
#define NETWORK_MTU_MAX     9000
#define NETWORK_MTU_DEFAULT 1500
#define NETWORK_LIMIT       256 /* networks of one host: each has its own dnsmasq */

struct net_options {
    const char *prefix;     /* borrowed; interface_prefix_is_valid; names everything of ours */
    int run_dir_fd;         /* borrowed */
    const char *run_dir;    /* borrowed, absolute; dnsmasq's user must be able to pass through it */
    const char *empty_root; /* borrowed; a directory over which dnsmasqs mount their roots */
    uid_t dnsmasq_uid;      /* not 0 */
    gid_t dnsmasq_gid;
    const struct log *log; /* borrowed; may be NULL */
};

struct network_config {
    uint32_t instance;           /* never reused */
    char id[NETWORK_ID_MAX + 1]; /* the domain of its guests: "<vm id>.<id>.internal" */
    struct cidr cidr;            /* cidr_check */
    bool nat;                    /* guests reach the outside; else isolated */
    bool peer_isolation;         /* guests do not reach each other */
    uint16_t mtu;                /* of bridge and taps; NETWORK_MTU_MIN to _MAX */
};

struct nic_config {
    uint32_t instance;         /* the VM's; never reused */
    uint8_t index;             /* at most NIC_INDEX_MAX */
    uint32_t network_instance; /* the network's, which is up */
    uint8_t mac[MAC_BYTES];
    uint32_t ipv4;                     /* host order; address_pool_check */
    char hostname[NETWORK_ID_MAX + 1]; /* the VM's id */
    uid_t owner;                       /* of the tap: the VMM's user */
    uint8_t queues;                    /* of the tap; 1 to NIC_QUEUES_MAX */
    /* A copy of a running guest keeps what it had, in a network namespace of its own, which mac and
     * ipv4 are the outside of (fork_rules.h). */
    bool forked;
    uint8_t inside_mac[MAC_BYTES];
    uint32_t inside_ipv4; /* of the same network */
};

/* Opens netlink and nftables; changes nothing. */
int net_host_new(const struct net_options *options, struct net_host **ret_host, struct error *err);
/* Accepts NULL, returns NULL.  Networks, taps, rules and dnsmasq stay as they are. */
struct net_host *net_host_free(struct net_host *host);

/* Agent start: makes the kernel agree with the rows.  Our tables are replaced whole in one
 * transaction; bridges are made where missing; bridges, taps and dnsmasqs of our prefix that no row
 * names are removed; dnsmasqs start anew.  `nics` are those whose VMM still runs: their taps are
 * not touched.  On failure of one network the others are done all the same; the first error is
 * returned. */
int net_host_restore(struct net_host *host, const struct network_config *networks,
                     size_t network_count, const struct nic_config *nics, size_t nic_count,
                     struct error *err);

/* What of a network is not as it was made: "bridge", "has gone". */
struct network_fault {
    uint32_t instance;
    const char *part, *text; /* static; NULL = nothing */
};
/* To be called once a second, or so.  If our tables were removed behind our back ("nft flush
 * ruleset"), puts them back: 1 if it did, 0 if there was no need.  DNS follows the host's
 * resolv.conf.  Tells of `count` networks, of which the instances are given and all else is NULL,
 * what others have changed, or why its dnsmasq does not serve (one that hangs is ended): network_up
 * mends that. */
int net_host_tend(struct net_host *host, struct network_fault *faults, size_t count,
                  struct error *err);

/* Idempotent: what is missing of one that is up is made again, and taps that are there are
 * connected again.  -EADDRINUSE if an interface that is not ours has an overlapping network. */
int network_up(struct net_host *host, const struct network_config *config, struct error *err);
/* Idempotent.  Its nics, if any are left, go with it. */
int network_down(struct net_host *host, const struct network_config *config, struct error *err);

/* A tap without persistence: it goes with its last fd, which are the VMM's.
 * IFF_TAP|IFF_NO_PI|IFF_VNET_HDR, header of 12 bytes, on the bridge, up, filtered; DHCP knows the
 * guest.  ret_tap_fds, one for each of its queues, are owned, non-blocking.  On failure nothing is
 * left.  -EBUSY while a tap of that name lives.
 *
 * A forked nic is the same to the host, but what has the tap's name is one end of a veth pair.  The
 * other end, the tap and the rules between are in a network namespace that nothing but the tap's
 * fds holds: it goes, and the pair with it, a moment after them. */
int nic_up(struct net_host *host, const struct nic_config *nic, int *ret_tap_fds,
           struct error *err);
/* Idempotent.  The tap too is removed if it is still there. */
int nic_down(struct net_host *host, const struct nic_config *config, struct error *err);

/* What on this host stands in the way of the networks, for people. */
struct net_finding {
    char name[32];     /* "ip-forward", "forward-drop", ... */
    bool problem;      /* else: just to know */
    bool logged;       /* the caller's to set */
    char message[256]; /* what it means and what to do */
};
#define NET_FINDINGS_MAX 16
/* How many there are. */
size_t net_host_findings(struct net_host *host, struct net_finding ret_findings[NET_FINDINGS_MAX]);
