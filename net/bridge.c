#include "net/bridge.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "net/netlink.h"
#include "net/sysctl.h"

static bool is_ours(const char *prefix, int index, const struct netlink_link *links, size_t count)
{
    uint32_t instance;
    uint8_t nic;

    for (size_t i = 0; i < count; i++)
        if (links[i].index == index)
            return interface_name_parse(prefix, links[i].name, &instance, &nic) != INTERFACE_OTHER;
    return false;
}

/* A network over one that the host is part of would cut the host's own connections. */
static int refuse_overlap(struct netlink *netlink, const char *prefix, const struct cidr *cidr,
                          struct error *err)
{
    auto_free struct netlink_link *links = NULL;
    auto_free struct netlink_address *addresses = NULL;
    size_t link_count = 0;
    size_t address_count = 0;
    int result = netlink_link_list(netlink, &links, &link_count, err);

    if (result == 0)
        result = netlink_address_list(netlink, &addresses, &address_count, err);
    for (size_t i = 0; i < address_count && result == 0; i++) {
        char text[CIDR_TEXT];

        if (!cidr_overlaps(cidr, &addresses[i].cidr) ||
            is_ours(prefix, addresses[i].index, links, link_count))
            continue;
        cidr_format(&addresses[i].cidr, text);
        result = error_field(err, EADDRINUSE, "spec.cidr",
                             "overlaps with %s, on which this host has an address", text);
    }
    return result;
}

/* Settings that only harden: where /proc/sys is not writable the packet filter has to do. */
static void harden(const char *bridge)
{
    static const struct {
        const char *path;
        int value;
    } settings[] = {
        { "net/ipv6/conf/%s/disable_ipv6", 1 },
        { "net/ipv4/conf/%s/arp_ignore", 1 }, /* answer for the gateway's address only */
        { "net/ipv4/conf/%s/arp_announce", 2 },
        { "net/ipv4/conf/%s/send_redirects", 0 },
        { "net/ipv4/conf/%s/accept_redirects", 0 },
    };
    char path[96];

    for (size_t i = 0; i < ARRAY_LENGTH(settings); i++) {
        snprintf(path, sizeof path, settings[i].path, bridge);
        (void)sysctl_write(path, settings[i].value, NULL);
    }
}

static int create(struct netlink *netlink, const char *prefix, const char *name,
                  const struct network_config *network, struct netlink_link *ret_link,
                  struct error *err)
{
    uint8_t mac[MAC_BYTES];
    int result = refuse_overlap(netlink, prefix, &network->cidr, err);

    mac_derive_bridge(network->instance, mac);
    if (result == 0)
        result = netlink_bridge_add(netlink, name, mac, err);
    return result < 0 ? result : netlink_link_find(netlink, name, ret_link, err);
}

bool bridge_is_own(const struct network_config *network, const struct netlink_link *link)
{
    uint8_t mac[MAC_BYTES];

    mac_derive_bridge(network->instance, mac);
    return memcmp(link->mac, mac, MAC_BYTES) == 0;
}

int bridge_ensure(struct netlink *netlink, const char *prefix, const struct network_config *network,
                  int *ret_index, bool *ret_created, struct error *err)
{
    struct netlink_link link = { 0 };
    char name[IFNAMSIZ];
    bool created = false;
    int result;

    network_bridge_name(prefix, network->instance, name);
    result = netlink_link_find(netlink, name, &link, err);
    if (result == 0 && strcmp(link.kind, "bridge") != 0)
        return error_set(err, EEXIST, "interface %s exists and is no bridge", name);
    if (result == 0 && !bridge_is_own(network, &link)) {
        result = netlink_link_remove(netlink, link.index, err);
        result = result < 0 ? result : -ENODEV;
    }
    if (result == -ENODEV) {
        result = create(netlink, prefix, name, network, &link, err);
        created = result == 0;
    }
    if (result < 0)
        return result;
    harden(name);
    result = netlink_address_add(netlink, link.index, cidr_gateway(&network->cidr),
                                 network->cidr.prefix, err);
    if (result == 0)
        result = netlink_link_up(netlink, link.index, network->mtu, err);
    if (result < 0) {
        if (created)
            (void)netlink_link_remove(netlink, link.index, NULL);
        return result;
    }
    *ret_index = link.index;
    *ret_created = created;
    return 0;
}

int bridge_attach(struct netlink *netlink, int tap_index, int bridge_index,
                  const struct network_config *network, const struct nic_config *nic,
                  struct error *err)
{
    int result = netlink_port_attach(netlink, tap_index, bridge_index, err);

    if (result == 0)
        result = netlink_port_configure(netlink, tap_index, network->peer_isolation, err);
    if (result == 0)
        result = netlink_port_address(netlink, tap_index, nic->mac, err);
    if (result == 0)
        result = netlink_neighbour_add(netlink, bridge_index, nic->ipv4, nic->mac, err);
    return result == -EXFULL || result == -ENOSPC
               ? error_set(err, ENOSPC, "network %s is full: a bridge has 1,023 ports", network->id)
               : result;
}
