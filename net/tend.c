/* tend.c - net_host_tend and net_host_findings of network.h. */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "net/defects.h"
#include "net/findings.h"
#include "net/firewall.h"
#include "net/netlink.h"
#include "net/nftables.h"

/* Are the rules of our tables there?  Whoever adds one breaks the rules, too. */
static bool has_rules(struct net_host *host)
{
    size_t count = 0;

    /* What cannot be looked at now is looked at the next time. */
    return net_host_count_rules(host, &count, NULL) < 0 || count == host->rule_count;
}

/* What others have changed.  Listing links is 8 us each, so only when there was a change; until
 * there is no fault, and with each look for findings, in any case. */
static int look_at_links(struct net_host *host, struct network_fault *faults, size_t count,
                         struct error *err)
{
    __attribute__((cleanup(net_sight_free))) struct net_sight sight = { 0 };
    bool due = netlink_has_changed(host->netlink) || host->links_due;
    int result = due ? net_sight_take(host->netlink, &sight, err) : 0;

    host->links_due = result < 0;
    for (size_t i = 0; i < count && due && result == 0; i++) {
        const struct network *network = net_host_find_network(host, faults[i].instance);

        if (network)
            faults[i] = network_defect(host, network, &sight);
        host->links_due = host->links_due || faults[i].text;
    }
    return result;
}

static void look_at_dhcp(struct net_host *host, struct network_fault *fault)
{
    const struct network *network = net_host_find_network(host, fault->instance);

    fault->part = "dnsmasq";
    fault->text = network && network->dhcp ? dhcp_server_fault(network->dhcp) : "does not run";
}

int net_host_tend(struct net_host *host, struct network_fault *faults, size_t count,
                  struct error *err)
{
    bool gone = host->network_count > 0 && !has_rules(host);
    int result = gone ? net_host_apply_rules(host, err) : 0;
    int seen = look_at_links(host, faults, count, result < 0 ? NULL : err);

    result = result < 0 ? result : seen;
    for (size_t i = 0; i < host->network_count && result == 0; i++)
        result = dhcp_server_follow_resolver(host->networks[i].dhcp, err);
    for (size_t i = 0; i < count; i++)
        if (!faults[i].text)
            look_at_dhcp(host, &faults[i]);
    return result < 0 ? result : gone;
}

static void look_at_networks(const struct net_host *host, const struct net_sight *sight,
                             struct findings *findings)
{
    char name[IFNAMSIZ];

    for (size_t i = 0; i < host->network_count; i++) {
        const struct network *network = &host->networks[i];

        network_bridge_name(host->prefix, network->config.instance, name);
        if (!net_sight_find(sight, name))
            findings_add(findings, "bridge-missing", true,
                         "network %s has no bridge %s, its guests are cut off: its status.reason "
                         "says why; it is tried again",
                         network->config.id, name);
        if (!network->dhcp || !dhcp_server_runs(network->dhcp))
            findings_add(findings, "dhcp-down", true,
                         "network %s has no dnsmasq, its guests get no address: its status.reason "
                         "says why; it is tried again",
                         network->config.id);
    }
}

/* A tap, unlike all else, cannot be put back: the VMM has the other end of the one that is gone. */
static void look_at_taps(const struct net_host *host, const struct net_sight *sight,
                         struct findings *findings)
{
    char name[IFNAMSIZ];

    for (size_t i = 0; i < host->nic_count; i++) {
        const struct nic_config *nic = &host->nics[i];

        nic_tap_name(host->prefix, nic->instance, nic->index, name);
        if (!net_sight_find(sight, name))
            findings_add(findings, "tap-missing", true,
                         "somebody removed %s, the tap of VM %s, which is cut off until it is "
                         "stopped and started",
                         name, nic->hostname);
    }
}

size_t net_host_findings(struct net_host *host, struct net_finding ret_findings[NET_FINDINGS_MAX])
{
    struct findings findings = { .items = ret_findings };
    __attribute__((cleanup(net_sight_free))) struct net_sight sight = { 0 };

    findings_collect(&findings, host->nftables, host->prefix, host->network_count > 0,
                     host->net_dir_fd);
    host->links_due = true;
    if (net_sight_take(host->netlink, &sight, NULL) == 0) {
        look_at_networks(host, &sight, &findings);
        look_at_taps(host, &sight, &findings);
    }
    return findings.count;
}
