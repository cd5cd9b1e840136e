/* restore.c - net_host_restore of network.h. */
#include <errno.h>
#include <linux/neighbour.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "net/netlink.h"
#include "net/network_internal.h"

/* Remembers the first failure, logs it and the others, and lets the work go on. */
struct outcome {
    const struct log *log;
    struct error *err;
    int result;
};

static void outcome_note(struct outcome *outcome, int result, const struct error *error)
{
    if (result >= 0)
        return;
    if (outcome->log)
        log_warning(outcome->log, "restoring networks: %s", error->message);
    if (outcome->result == 0 && outcome->err)
        *outcome->err = *error;
    if (outcome->result == 0)
        outcome->result = result;
}

static void load_model(struct net_host *host, const struct network_config *networks,
                       size_t network_count, const struct nic_config *nics, size_t nic_count,
                       struct outcome *outcome)
{
    struct error error = { 0 };

    while (host->network_count > 0)
        net_host_remove_network(host, &host->networks[0]);
    host->nic_count = 0;
    for (size_t i = 0; i < network_count; i++)
        outcome_note(outcome, net_host_add_network(host, &networks[i], &error), &error);
    for (size_t i = 0; i < nic_count; i++) {
        outcome_note(outcome, net_host_add_nic(host, &nics[i], &error), &error);
        if (!net_host_find_network(host, nics[i].network_instance))
            outcome_note(
                outcome,
                error_set(&error, ENOENT, "%s is on a network that is not up", nics[i].hostname),
                &error);
    }
}

static bool is_stray(const struct net_host *host, const char *name)
{
    uint32_t instance;
    uint8_t index;

    switch (interface_name_parse(host->prefix, name, &instance, &index)) {
    case INTERFACE_BRIDGE:
        return !net_host_find_network(host, instance);
    case INTERFACE_TAP:
        return !net_host_find_nic(host, instance, index);
    default:
        return false;
    }
}

static void remove_stray_links(struct net_host *host, struct outcome *outcome)
{
    auto_free struct netlink_link *links = NULL;
    struct error error = { 0 };
    size_t count = 0;

    outcome_note(outcome, netlink_link_list(host->netlink, &links, &count, &error), &error);
    for (size_t i = 0; i < count; i++)
        if (is_stray(host, links[i].name))
            outcome_note(outcome, netlink_link_remove(host->netlink, links[i].index, &error),
                         &error);
}

static bool is_guest(const struct net_host *host, const struct network *network, uint32_t address)
{
    for (size_t i = 0; i < host->nic_count; i++)
        if (host->nics[i].network_instance == network->config.instance &&
            host->nics[i].ipv4 == address)
            return true;
    return false;
}

/* ARP entries of guests that are gone. */
static void remove_stray_neighbours(struct net_host *host, struct outcome *outcome)
{
    auto_free struct netlink_neighbour *neighbours = NULL;
    struct error error = { 0 };
    size_t count = 0;

    outcome_note(outcome, netlink_neighbour_list(host->netlink, &neighbours, &count, &error),
                 &error);
    for (size_t n = 0; n < host->network_count; n++) {
        const struct network *network = &host->networks[n];

        for (size_t i = 0; i < count; i++)
            if (neighbours[i].index == network->bridge_index &&
                (neighbours[i].state & NUD_PERMANENT) &&
                !is_guest(host, network, neighbours[i].address))
                outcome_note(outcome,
                             netlink_neighbour_remove(host->netlink, network->bridge_index,
                                                      neighbours[i].address, &error),
                             &error);
    }
}

int net_host_restore(struct net_host *host, const struct network_config *networks,
                     size_t network_count, const struct nic_config *nics, size_t nic_count,
                     struct error *err)
{
    struct outcome outcome = { .log = host->log, .err = err };
    struct error error = { 0 };
    bool created;

    load_model(host, networks, network_count, nics, nic_count, &outcome);
    outcome_note(&outcome, net_host_apply_rules(host, &error), &error);
    outcome_note(&outcome, dhcp_remove_all(&host->dhcp, &error), &error);
    remove_stray_links(host, &outcome);
    for (size_t i = 0; i < host->network_count; i++)
        outcome_note(&outcome, net_host_raise(host, &host->networks[i], &created, &error), &error);
    remove_stray_neighbours(host, &outcome);
    outcome_note(&outcome, net_host_set_forwarding(host, &error), &error);
    return outcome.result;
}
