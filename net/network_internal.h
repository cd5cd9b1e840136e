/* network_internal.h - the model behind network.h.  Only for net/. */
#pragma once
#include "net/dhcp.h"
#include "net/network.h"

struct netlink;
struct nftables;

struct network {
    struct network_config config;
    int bridge_index;
    struct dhcp_server *dhcp; /* owned; NULL = not running */
};

struct net_host {
    char *prefix;     /* owned */
    char *net_dir;    /* owned; "<run dir>/net" */
    int net_dir_fd;   /* owned */
    char *empty_root; /* owned */
    struct dhcp_options dhcp;
    const struct log *log;     /* borrowed; may be NULL */
    struct netlink *netlink;   /* owned */
    struct nftables *nftables; /* owned */
    struct network *networks;  /* owned; those that are up */
    size_t network_count;
    struct nic_config *nics; /* owned; those that are up */
    size_t nic_count;
    size_t nic_room;
    size_t rule_count; /* of our tables, as they were applied */
    bool links_due;    /* are to be looked at, though nothing may have changed */
};

/* Borrowed, NULL if it is not up; moves when networks come or go. */
struct network *net_host_find_network(const struct net_host *host, uint32_t instance);
struct nic_config *net_host_find_nic(const struct net_host *host, uint32_t instance, uint8_t index);
int net_host_add_network(struct net_host *host, const struct network_config *config,
                         struct error *err);
void net_host_remove_network(struct net_host *host, struct network *network);
int net_host_add_nic(struct net_host *host, const struct nic_config *nic, struct error *err);

/* All rules, from the model; no tables at all while there is no network. */
int net_host_apply_rules(struct net_host *host, struct error *err);
/* How many rules our tables have now. */
int net_host_count_rules(struct net_host *host, size_t *ret_count, struct error *err);
/* Forwarding on or off as the networks need it. */
int net_host_set_forwarding(struct net_host *host, struct error *err);
/* Of a nic of the model, whose network's bridge is there: its tap is made a port of that if it is
 * no longer, or not as it was.  One that has gone is no error (it is a finding). */
int net_host_reattach(struct net_host *host, const struct network *network,
                      const struct nic_config *nic, struct error *err);
/* Bridge and dnsmasq of a network of the model, with the model's nics, and those nics' taps. */
int net_host_raise(struct net_host *host, struct network *network, bool *ret_created,
                   struct error *err);
