/* netlink.h - one rtnetlink socket, and the requests that networks need.  Network worker only.
 *
 * Works on the network namespace in which it was opened.  "Idempotent" below: what is already as
 * wanted, or already gone, is no error.  Specification: rtnetlink(7), linux/if_link.h. */
#pragma once
#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>
#include "net/cidr.h"
#include "net/mac.h"

struct error;
struct netlink; /* opaque */

struct netlink_link {
    int index;
    int master; /* 0 = none */
    bool up;
    char name[IFNAMSIZ];
    char kind[16]; /* "bridge", "tun", ... or "" */
    uint8_t mac[MAC_BYTES];
    bool learns, floods, isolated; /* of a bridge's port: see netlink_port_configure */
};

struct netlink_address {
    int index; /* of the link */
    struct cidr cidr;
    uint32_t local;
};

struct netlink_neighbour {
    int index;
    uint32_t address;
    uint16_t state; /* NUD_* */
};

struct netlink_route {
    struct cidr to;   /* prefix 0: default */
    uint32_t gateway; /* 0 = on the link */
    int index;
    uint8_t table; /* RT_TABLE_MAIN or another */
};

int netlink_new(struct netlink **ret_netlink, struct error *err);
struct netlink *netlink_free(struct netlink *netlink); /* accepts NULL, returns NULL */

/* -ENODEV if there is no such link. */
int netlink_link_find(struct netlink *netlink, const char *name, struct netlink_link *ret_link,
                      struct error *err);
/* May links or their IPv4 addresses be other than when this was asked last?  true the first time.
 */
bool netlink_has_changed(struct netlink *netlink);
/* Each: *ret_items is malloc'ed (NULL when there are none). */
int netlink_link_list(struct netlink *netlink, struct netlink_link **ret_items, size_t *ret_count,
                      struct error *err);
int netlink_address_list(struct netlink *netlink, struct netlink_address **ret_items,
                         size_t *ret_count, struct error *err);
int netlink_neighbour_list(struct netlink *netlink, struct netlink_neighbour **ret_items,
                           size_t *ret_count, struct error *err);

/* Down, without IPv6 addresses, STP or multicast snooping.  -EEXIST if the name is taken. */
int netlink_bridge_add(struct netlink *netlink, const char *name, const uint8_t mac[MAC_BYTES],
                       struct error *err);
/* Idempotent. */
int netlink_link_remove(struct netlink *netlink, int index, struct error *err);
/* Sets its MTU, too. */
int netlink_link_up(struct netlink *netlink, int index, uint16_t mtu, struct error *err);
/* Makes the link a port of the bridge, without IPv6 addresses, still down. */
int netlink_port_attach(struct netlink *netlink, int index, int bridge_index, struct error *err);
/* A port that learns nothing and gets no unknown unicast; isolated: cannot reach other isolated
 * ports. */
int netlink_port_configure(struct netlink *netlink, int index, bool isolated, struct error *err);
/* Static entry of the bridge's table: the MAC is behind this port.  Goes with the port. */
int netlink_port_address(struct netlink *netlink, int index, const uint8_t mac[MAC_BYTES],
                         struct error *err);
/* Idempotent. */
int netlink_address_add(struct netlink *netlink, int index, uint32_t address, uint8_t prefix,
                        struct error *err);
/* Permanent ARP entry; replaces one of the same address. */
int netlink_neighbour_add(struct netlink *netlink, int index, uint32_t address,
                          const uint8_t mac[MAC_BYTES], struct error *err);
/* Idempotent. */
int netlink_neighbour_remove(struct netlink *netlink, int index, uint32_t address,
                             struct error *err);

/* A veth pair, both down: `name` here, the peer in another namespace (borrowed fd).  -EEXIST if the
 * name is taken. */
int netlink_veth_add(struct netlink *netlink, const char *name, const char *peer_name,
                     const uint8_t peer_mac[MAC_BYTES], int peer_namespace, struct error *err);
/* Up, forwarding what comes in, without IPv6 addresses, redirects or its own check of sources; mac:
 * NULL keeps it; proxy_arp: answers for what is routed elsewhere. */
int netlink_router_up(struct netlink *netlink, int index, uint16_t mtu, const uint8_t *mac,
                      bool proxy_arp, struct error *err);
/* Idempotent. */
int netlink_route_add(struct netlink *netlink, const struct netlink_route *route,
                      struct error *err);
/* What comes from this interface is routed by that table first.  Not idempotent. */
int netlink_rule_add(struct netlink *netlink, const char *from_interface, uint8_t table,
                     struct error *err);
