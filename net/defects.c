#include "net/defects.h"

#include <stdlib.h>
#include <string.h>

#include "net/bridge.h"
#include "net/netlink.h"

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct netlink_link *)a)->name, ((const struct netlink_link *)b)->name);
}

int net_sight_take(struct netlink *netlink, struct net_sight *ret_sight, struct error *err)
{
    struct net_sight sight = { 0 };
    int result = netlink_link_list(netlink, &sight.links, &sight.link_count, err);

    if (result == 0)
        result = netlink_address_list(netlink, &sight.addresses, &sight.address_count, err);
    if (result < 0) {
        net_sight_free(&sight);
        return result;
    }
    if (sight.link_count > 0)
        qsort(sight.links, sight.link_count, sizeof *sight.links, compare_names);
    *ret_sight = sight;
    return 0;
}

void net_sight_free(struct net_sight *sight)
{
    free(sight->links);
    free(sight->addresses);
    *sight = (struct net_sight){ 0 };
}

const struct netlink_link *net_sight_find(const struct net_sight *sight, const char *name)
{
    struct netlink_link wanted = { 0 };

    strncpy(wanted.name, name, sizeof wanted.name - 1);
    return sight->link_count > 0 ? bsearch(&wanted, sight->links, sight->link_count,
                                           sizeof *sight->links, compare_names)
                                 : NULL;
}

bool tap_is_attached(const struct network *network, const struct netlink_link *tap)
{
    return tap->master == network->bridge_index && tap->up && !tap->learns && !tap->floods &&
           tap->isolated == network->config.peer_isolation;
}

static bool has_gateway(const struct network *network, const struct net_sight *sight)
{
    for (size_t i = 0; i < sight->address_count; i++)
        if (sight->addresses[i].index == network->bridge_index &&
            sight->addresses[i].local == cidr_gateway(&network->config.cidr))
            return true;
    return false;
}

static bool has_loose_tap(const struct net_host *host, const struct network *network,
                          const struct net_sight *sight)
{
    for (size_t i = 0; i < host->nic_count; i++) {
        const struct nic_config *nic = &host->nics[i];
        const struct netlink_link *tap;
        char name[IFNAMSIZ];

        if (nic->network_instance != network->config.instance)
            continue;
        nic_tap_name(host->prefix, nic->instance, nic->index, name);
        tap = net_sight_find(sight, name);
        if (tap && !tap_is_attached(network, tap))
            return true;
    }
    return false;
}

struct network_fault network_defect(const struct net_host *host, const struct network *network,
                                    const struct net_sight *sight)
{
    struct network_fault fault = { .instance = network->config.instance, .part = "bridge" };
    const struct netlink_link *bridge;
    char name[IFNAMSIZ];

    network_bridge_name(host->prefix, network->config.instance, name);
    bridge = net_sight_find(sight, name);
    if (!bridge) {
        fault.text = "has gone";
    } else if (bridge->index != network->bridge_index || !bridge_is_own(&network->config, bridge)) {
        fault.text = "is another one";
    } else if (!bridge->up) {
        fault.text = "is down";
    } else if (!has_gateway(network, sight)) {
        fault.text = "has lost its address";
    } else if (has_loose_tap(host, network, sight)) {
        fault.part = "tap";
        fault.text = "is no longer connected as it was";
    }
    return fault;
}
