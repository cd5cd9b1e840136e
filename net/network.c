#include "net/network.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "net/bridge.h"
#include "net/dhcp_directory.h"
#include "net/firewall.h"
#include "net/netlink.h"
#include "net/network_internal.h"
#include "net/nftables.h"
#include "net/sysctl.h"

static int open_net_dir(struct net_host *host, const struct net_options *options, struct error *err)
{
    if (mkdirat(options->run_dir_fd, "net", 0711) < 0 && errno != EEXIST)
        return error_set(err, errno, "make the network run directory: %s", strerror(errno));
    host->net_dir_fd =
        openat(options->run_dir_fd, "net", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (host->net_dir_fd < 0 || fchmod(host->net_dir_fd, 0711) < 0)
        return error_set(err, errno, "open the network run directory: %s", strerror(errno));
    return 0;
}

static int open_parts(struct net_host *host, const struct net_options *options, struct error *err)
{
    int result;

    host->prefix = strdup(options->prefix);
    host->empty_root = strdup(options->empty_root);
    if (!host->prefix || !host->empty_root ||
        asprintf(&host->net_dir, "%s/net", options->run_dir) < 0) {
        host->net_dir = NULL;
        return error_set(err, ENOMEM, "open the host's network: out of memory");
    }
    result = open_net_dir(host, options, err);
    if (result == 0)
        result = netlink_new(&host->netlink, err);
    if (result == 0)
        result = nftables_new(&host->nftables, err);
    host->dhcp = (struct dhcp_options){ .prefix = host->prefix,
                                        .net_dir = host->net_dir,
                                        .net_dir_fd = host->net_dir_fd,
                                        .empty_root = host->empty_root,
                                        .uid = options->dnsmasq_uid,
                                        .gid = options->dnsmasq_gid };
    return result;
}

int net_host_new(const struct net_options *options, struct net_host **ret_host, struct error *err)
{
    struct net_host *host;
    int result;

    if (!interface_prefix_is_valid(options->prefix))
        return error_field(err, EINVAL, "prefix",
                           "must be 1 to %d characters of [a-z0-9], the first a letter",
                           INTERFACE_PREFIX_MAX);
    if (options->dnsmasq_uid == 0 || options->run_dir[0] != '/')
        return error_set(err, EINVAL, "dnsmasq needs a user of its own and an absolute directory");
    host = calloc(1, sizeof *host);
    if (!host)
        return error_set(err, ENOMEM, "open the host's network: out of memory");
    host->net_dir_fd = -1;
    host->log = options->log;
    result = open_parts(host, options, err);
    if (result < 0) {
        net_host_free(host);
        return result;
    }
    *ret_host = host;
    return 0;
}

struct net_host *net_host_free(struct net_host *host)
{
    if (!host)
        return NULL;
    for (size_t i = 0; i < host->network_count; i++)
        dhcp_server_free(host->networks[i].dhcp);
    free(host->networks);
    free(host->nics);
    nftables_free(host->nftables);
    netlink_free(host->netlink);
    cleanup_close(&host->net_dir_fd);
    free(host->net_dir);
    free(host->empty_root);
    free(host->prefix);
    free(host);
    return NULL;
}

struct network *net_host_find_network(const struct net_host *host, uint32_t instance)
{
    for (size_t i = 0; i < host->network_count; i++)
        if (host->networks[i].config.instance == instance)
            return &host->networks[i];
    return NULL;
}

int net_host_add_network(struct net_host *host, const struct network_config *config,
                         struct error *err)
{
    struct network *networks;

    if (host->network_count == NETWORK_LIMIT)
        return error_set(err, ENOSPC, "this host holds at most %d networks", NETWORK_LIMIT);
    for (size_t i = 0; i < host->network_count; i++)
        if (cidr_overlaps(&host->networks[i].config.cidr, &config->cidr))
            return error_field(err, EADDRINUSE, "spec.cidr", "overlaps with network %s",
                               host->networks[i].config.id);
    networks = reallocarray(host->networks, host->network_count + 1, sizeof *networks);
    if (!networks)
        return error_set(err, ENOMEM, "network %s: out of memory", config->id);
    host->networks = networks;
    networks[host->network_count++] = (struct network){ .config = *config };
    return 0;
}

void net_host_remove_network(struct net_host *host, struct network *network)
{
    dhcp_server_stop(network->dhcp);
    *network = host->networks[--host->network_count];
}

static struct network_config *copy_configs(const struct net_host *host)
{
    struct network_config *configs = calloc(host->network_count + 1, sizeof *configs);

    for (size_t i = 0; configs && i < host->network_count; i++)
        configs[i] = host->networks[i].config;
    return configs;
}

int net_host_count_rules(struct net_host *host, size_t *ret_count, struct error *err)
{
    static const uint8_t families[] = { NFPROTO_BRIDGE, NFPROTO_INET };
    char table[FIREWALL_TABLE_NAME];
    int result = 0;

    firewall_table_name(host->prefix, table);
    *ret_count = 0;
    for (size_t i = 0; i < ARRAY_LENGTH(families) && result == 0; i++) {
        size_t count = 0;

        result = nftables_count_rules(host->nftables, families[i], table, &count, err);
        *ret_count += count;
    }
    return result;
}

int net_host_apply_rules(struct net_host *host, struct error *err)
{
    auto_free struct network_config *configs = copy_configs(host);
    auto_free char *text = NULL;
    int result;

    if (configs && host->network_count == 0)
        text = firewall_removal(host->prefix);
    else if (configs)
        text = firewall_ruleset(host->prefix, configs, host->network_count, host->nics,
                                host->nic_count);
    result = nftables_apply(host->nftables, text, err);
    if (result == 0 && net_host_count_rules(host, &host->rule_count, NULL) < 0)
        host->rule_count = 0; /* the next look applies them again */
    return result;
}

/* Applies malloc'ed text (freed; NULL = out of memory).  If it fails because our tables are gone,
 * applies all rules instead, which the model already agrees with. */
static int change_rules(struct net_host *host, char *text, struct error *err)
{
    auto_free char *owned = text;
    int result = nftables_apply(host->nftables, owned, err);

    return result == -ENOENT ? net_host_apply_rules(host, err) : result;
}

int net_host_set_forwarding(struct net_host *host, struct error *err)
{
    for (size_t i = 0; i < host->network_count; i++)
        if (host->networks[i].config.nat)
            return forwarding_acquire(host->net_dir_fd, err);
    return forwarding_release(host->net_dir_fd, err);
}

/* Every one is tried; the first failure is told. */
static int reattach_all(struct net_host *host, const struct network *network, struct error *err)
{
    int result = 0;

    for (size_t i = 0; i < host->nic_count; i++) {
        const struct nic_config *nic = &host->nics[i];
        int step = nic->network_instance == network->config.instance
                       ? net_host_reattach(host, network, nic, result < 0 ? NULL : err)
                       : 0;

        result = result < 0 ? result : step;
    }
    return result;
}

/* anew: its sockets are of a bridge that has gone. */
static int serve(struct net_host *host, struct network *network, bool anew, struct error *err)
{
    if (!network->dhcp)
        return dhcp_server_start(&host->dhcp, &network->config, host->nics, host->nic_count,
                                 &network->dhcp, err);
    return anew || !dhcp_server_runs(network->dhcp) ? dhcp_server_restart(network->dhcp, err) : 0;
}

int net_host_raise(struct net_host *host, struct network *network, bool *ret_created,
                   struct error *err)
{
    int before = network->bridge_index;
    int result = bridge_ensure(host->netlink, host->prefix, &network->config,
                               &network->bridge_index, ret_created, err);
    int served;

    if (result < 0)
        return result;
    result = reattach_all(host, network, err);
    served = serve(host, network, network->bridge_index != before, result < 0 ? NULL : err);
    return result < 0 ? result : served;
}

static void remove_bridge(struct net_host *host, uint32_t instance)
{
    struct netlink_link link;
    char name[IFNAMSIZ];

    network_bridge_name(host->prefix, instance, name);
    if (netlink_link_find(host->netlink, name, &link, NULL) == 0)
        (void)netlink_link_remove(host->netlink, link.index, NULL);
}

/* Rules before the bridge: nothing is ever up unfiltered. */
static int raise_new(struct net_host *host, const struct network_config *config, struct error *err)
{
    struct network *network = net_host_find_network(host, config->instance);
    bool created = false;
    int result;

    if (host->network_count == 1)
        result = net_host_apply_rules(host, err);
    else
        result =
            change_rules(host, firewall_network_change(host->prefix, FIREWALL_ADD, config), err);
    if (result == 0)
        result = net_host_raise(host, network, &created, err);
    if (result == 0)
        result = net_host_set_forwarding(host, err);
    if (result < 0 && created)
        remove_bridge(host, config->instance);
    return result;
}

int network_up(struct net_host *host, const struct network_config *config, struct error *err)
{
    struct network *network = net_host_find_network(host, config->instance);
    bool created;
    int result;

    if (network)
        return net_host_raise(host, network, &created, err);
    result = cidr_check(&config->cidr, err);
    if (result == 0)
        result = net_host_add_network(host, config, err);
    if (result < 0)
        return result;
    result = raise_new(host, config, err);
    if (result < 0) {
        net_host_remove_network(host, net_host_find_network(host, config->instance));
        (void)net_host_apply_rules(host, NULL);
        (void)net_host_set_forwarding(host, NULL);
        return result;
    }
    if (host->log)
        log_info(host->log, "network %s up", config->id);
    return 0;
}

static void take_nics_down(struct net_host *host, uint32_t network_instance)
{
    for (size_t i = host->nic_count; i > 0; i--) {
        struct nic_config nic = host->nics[i - 1];

        if (nic.network_instance == network_instance)
            (void)nic_down(host, &nic, NULL);
    }
}

int network_down(struct net_host *host, const struct network_config *config, struct error *err)
{
    struct network *network;
    int result = 0;
    int forwarding;

    take_nics_down(host, config->instance);
    remove_bridge(host, config->instance);
    network = net_host_find_network(host, config->instance);
    if (network)
        net_host_remove_network(host, network);
    else
        dhcp_directory_remove(host->net_dir_fd, config->instance);
    /* All of them also where an earlier try forgot the network before its rules were gone. */
    if (host->network_count == 0 || !network)
        result = net_host_apply_rules(host, err);
    else
        result =
            change_rules(host, firewall_network_change(host->prefix, FIREWALL_REMOVE, config), err);
    forwarding = net_host_set_forwarding(host, result < 0 ? NULL : err);
    if (network && host->log)
        log_info(host->log, "network %s down", config->id);
    return result < 0 ? result : forwarding;
}
