/* nic.c - nic_up and nic_down of network.h, and how a nic's tap is connected again. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "net/address_pool.h"
#include "net/bridge.h"
#include "net/defects.h"
#include "net/dhcp.h"
#include "net/firewall.h"
#include "net/fork_namespace.h"
#include "net/netlink.h"
#include "net/network_internal.h"
#include "net/nftables.h"
#include "net/tap.h"

_Static_assert(NIC_QUEUES_MAX == TAP_QUEUES_MAX, "each tap is a nic's");

struct nic_config *net_host_find_nic(const struct net_host *host, uint32_t instance, uint8_t index)
{
    for (size_t i = 0; i < host->nic_count; i++)
        if (host->nics[i].instance == instance && host->nics[i].index == index)
            return &host->nics[i];
    return NULL;
}

int net_host_add_nic(struct net_host *host, const struct nic_config *nic, struct error *err)
{
    if (host->nic_count == host->nic_room) {
        size_t room = host->nic_room ? host->nic_room * 2 : 64;
        struct nic_config *nics = reallocarray(host->nics, room, sizeof *nics);

        if (!nics)
            return error_set(err, ENOMEM, "nic of %s: out of memory", nic->hostname);
        host->nics = nics;
        host->nic_room = room;
    }
    host->nics[host->nic_count++] = *nic;
    return 0;
}

static void remove_nic(struct net_host *host, uint32_t instance, uint8_t index)
{
    struct nic_config *nic = net_host_find_nic(host, instance, index);

    if (nic)
        *nic = host->nics[--host->nic_count];
}

static int check_unique(const struct net_host *host, const struct nic_config *nic,
                        struct error *err)
{
    for (size_t i = 0; i < host->nic_count; i++) {
        const struct nic_config *other = &host->nics[i];

        if (other->network_instance != nic->network_instance)
            continue;
        if (other->ipv4 == nic->ipv4)
            return error_field(err, EEXIST, "ipv4", "is the address of %s", other->hostname);
        if (memcmp(other->mac, nic->mac, MAC_BYTES) == 0)
            return error_field(err, EEXIST, "mac", "is the MAC address of %s", other->hostname);
    }
    return 0;
}

static int check_inside(const struct network *network, const struct nic_config *nic,
                        const uint8_t bridge_mac[MAC_BYTES], struct error *err)
{
    if ((nic->inside_mac[0] & 1) || memcmp(nic->inside_mac, bridge_mac, MAC_BYTES) == 0)
        return error_field(err, EINVAL, "mac", "inside is a group address or the gateway's own");
    if (nic->inside_ipv4 == nic->ipv4)
        return error_field(err, EINVAL, "ipv4", "inside and outside are the same");
    return address_pool_check(&network->config.cidr, nic->inside_ipv4, err);
}

static int check(const struct net_host *host, const struct network *network,
                 const struct nic_config *nic, struct error *err)
{
    uint8_t bridge_mac[MAC_BYTES];
    int result;

    if (!network)
        return error_set(err, ENOENT, "the network of %s is not up", nic->hostname);
    if (nic->index > NIC_INDEX_MAX)
        return error_set(err, EINVAL, "a VM has at most %d nics", NIC_INDEX_MAX + 1);
    if (nic->queues < 1 || nic->queues > NIC_QUEUES_MAX)
        return error_field(err, EINVAL, "queues", "must be 1 to %d", NIC_QUEUES_MAX);
    mac_derive_bridge(network->config.instance, bridge_mac);
    if ((nic->mac[0] & 1) || memcmp(nic->mac, bridge_mac, MAC_BYTES) == 0)
        return error_field(err, EINVAL, "mac", "is a group address or the gateway's own");
    result = address_pool_check(&network->config.cidr, nic->ipv4, err);
    if (result == 0 && nic->forked)
        result = check_inside(network, nic, bridge_mac, err);
    return result < 0 ? result : check_unique(host, nic, err);
}

static int change_rules(struct net_host *host, const struct nic_config *nic,
                        enum firewall_change change, struct error *err)
{
    struct firewall_element elements[FIREWALL_NIC_ELEMENTS];
    char table[FIREWALL_TABLE_NAME];
    int result;

    firewall_nic_elements(host->prefix, nic, elements);
    firewall_table_name(host->prefix, table);
    result = nftables_change_elements(host->nftables, table, elements, FIREWALL_NIC_ELEMENTS,
                                      change == FIREWALL_REMOVE, err);
    /* The tables were removed behind our back; `host` knows what is to be in them. */
    return result == -ENOENT ? net_host_apply_rules(host, err) : result;
}

/* The tap (of a forked nic: what has its name) is there and down.  Filtered, known to DHCP, on the
 * bridge; then up. */
static int connect_tap(struct net_host *host, struct network *network, const struct nic_config *nic,
                       const char *tap, struct error *err)
{
    struct netlink_link link;
    int result = netlink_link_find(host->netlink, tap, &link, err);

    if (result == 0)
        result = change_rules(host, nic, FIREWALL_ADD, err);
    if (result == 0)
        result = bridge_attach(host->netlink, link.index, network->bridge_index, &network->config,
                               nic, err);
    if (result == 0 && network->dhcp)
        result = dhcp_server_add(network->dhcp, nic, err);
    return result < 0 ? result
                      : netlink_link_up(host->netlink, link.index, network->config.mtu, err);
}

/* A nic whose VMM died and that was not taken down yet: its rules may be stale. */
static int forget_dead(struct net_host *host, const struct nic_config *nic, const char *tap,
                       struct error *err)
{
    struct netlink_link link;

    if (!net_host_find_nic(host, nic->instance, nic->index))
        return 0;
    if (netlink_link_find(host->netlink, tap, &link, NULL) == 0)
        return error_set(err, EBUSY, "tap %s of %s is in use", tap, nic->hostname);
    return nic_down(host, nic, err);
}

int net_host_reattach(struct net_host *host, const struct network *network,
                      const struct nic_config *nic, struct error *err)
{
    struct netlink_link link;
    struct error inner;
    char tap[IFNAMSIZ];
    int result;

    nic_tap_name(host->prefix, nic->instance, nic->index, tap);
    result = netlink_link_find(host->netlink, tap, &link, &inner);
    if (result < 0)
        return result == -ENODEV ? 0 : error_set(err, result, "%s", inner.message);
    /* Its ARP entry goes when its bridge is down, too. */
    if (tap_is_attached(network, &link))
        return netlink_neighbour_add(host->netlink, network->bridge_index, nic->ipv4, nic->mac,
                                     err);
    result =
        bridge_attach(host->netlink, link.index, network->bridge_index, &network->config, nic, err);
    if (result == 0)
        result = netlink_link_up(host->netlink, link.index, network->config.mtu, err);
    if (result == 0 && host->log)
        log_warning(host->log, "tap %s of VM %s is connected to network %s again", tap,
                    nic->hostname, network->config.id);
    return result;
}

int nic_up(struct net_host *host, const struct nic_config *nic, int *ret_tap_fds, struct error *err)
{
    struct network *network = net_host_find_network(host, nic->network_instance);
    char tap[IFNAMSIZ];
    int fds[NIC_QUEUES_MAX];
    int result;

    nic_tap_name(host->prefix, nic->instance, nic->index, tap);
    result = forget_dead(host, nic, tap, err);
    if (result == 0)
        result = check(host, network, nic, err);
    if (result < 0)
        return result;
    if (nic->forked)
        result = fork_namespace_open(host->netlink, &network->config, nic, tap, fds, err);
    else
        result = tap_open(tap, nic->owner, nic->queues, fds, err);
    if (result < 0)
        return result;
    result = net_host_add_nic(host, nic, err);
    if (result == 0) {
        result = connect_tap(host, network, nic, tap, err);
        if (result < 0)
            (void)nic_down(host, nic, NULL);
    }
    for (unsigned i = 0; i < nic->queues; i++) {
        if (result < 0)
            cleanup_close(&fds[i]);
        else
            ret_tap_fds[i] = fds[i];
    }
    return result;
}

static int remove_tap(struct net_host *host, const struct nic_config *nic, struct error *err)
{
    struct netlink_link link;
    char tap[IFNAMSIZ];
    struct error inner;
    int result;

    nic_tap_name(host->prefix, nic->instance, nic->index, tap);
    result = netlink_link_find(host->netlink, tap, &link, &inner);
    if (result == 0)
        return netlink_link_remove(host->netlink, link.index, err);
    return result == -ENODEV ? 0 : error_set(err, result, "%s", inner.message);
}

/* What was set up may differ from what the caller's row says now. */
static struct nic_config as_set_up(const struct net_host *host, const struct nic_config *nic)
{
    const struct nic_config *known = net_host_find_nic(host, nic->instance, nic->index);

    return known ? *known : *nic;
}

/* Another guest may have the address by now: its ARP entry stays. */
static int remove_neighbour(struct net_host *host, const struct network *network, uint32_t address,
                            struct error *err)
{
    for (size_t i = 0; i < host->nic_count; i++)
        if (host->nics[i].network_instance == network->config.instance &&
            host->nics[i].ipv4 == address)
            return 0;
    return netlink_neighbour_remove(host->netlink, network->bridge_index, address, err);
}

/* Every step is tried; the first failure is told.  The tap goes before its rules. */
int nic_down(struct net_host *host, const struct nic_config *config, struct error *err)
{
    struct nic_config nic = as_set_up(host, config);
    struct network *network = net_host_find_network(host, nic.network_instance);
    int result = remove_tap(host, &nic, err);
    int step;

    remove_nic(host, nic.instance, nic.index);
    if (!network)
        return result;
    step = change_rules(host, &nic, FIREWALL_REMOVE, result < 0 ? NULL : err);
    result = result < 0 ? result : step;
    if (network->dhcp) {
        step = dhcp_server_remove(network->dhcp, &nic, result < 0 ? NULL : err);
        result = result < 0 ? result : step;
    }
    step = remove_neighbour(host, network, nic.ipv4, result < 0 ? NULL : err);
    return result < 0 ? result : step;
}
