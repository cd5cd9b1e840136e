#include "net/fork_namespace.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "net/fork_rules.h"
#include "net/netlink.h"
#include "net/nftables.h"
#include "net/sysctl.h"
#include "net/tap.h"

#define GUEST_TABLE 100 /* of routes: for what comes from the guest */

/* What is open in the new namespace. */
struct inside {
    uid_t owner;
    unsigned queues;
    int namespace_fd; /* all owned */
    int tap_fds[NIC_QUEUES_MAX];
    struct netlink *netlink;
    struct nftables *nftables;
    int result;
    struct error error;
};

static void inside_close(struct inside *inside)
{
    cleanup_close(&inside->namespace_fd);
    for (unsigned i = 0; i < inside->queues; i++)
        cleanup_close(&inside->tap_fds[i]);
    netlink_free(inside->netlink);
    nftables_free(inside->nftables);
}

/* The thread: sockets and taps belong to the namespace of the thread that opens them. */
static void *open_inside(void *argument)
{
    struct inside *inside = argument;
    struct error *err = &inside->error;

    if (unshare(CLONE_NEWNET) < 0) {
        inside->result = error_set(err, errno, "make a network namespace: %s", strerror(errno));
        return NULL;
    }
    inside->namespace_fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (inside->namespace_fd < 0) {
        inside->result = error_set(err, errno, "open a network namespace: %s", strerror(errno));
        return NULL;
    }
    /* Inherited from the host; where it is strict, and not writable, the guest that was copied and
     * this one cannot talk. */
    (void)sysctl_write("net/ipv4/conf/all/rp_filter", 0, NULL);
    inside->result = tap_open(FORK_TAP, inside->owner, inside->queues, inside->tap_fds, err);
    if (inside->result == 0)
        inside->result = netlink_new(&inside->netlink, err);
    if (inside->result == 0)
        inside->result = nftables_new(&inside->nftables, err);
    return NULL;
}

static int run_thread(struct inside *inside, struct error *err)
{
    pthread_t thread;
    int code = pthread_create(&thread, NULL, open_inside, inside);

    if (code != 0)
        return error_set(err, code, "start a thread: %s", strerror(code));
    (void)pthread_join(thread, NULL);
    if (inside->result < 0 && err)
        *err = inside->error;
    return inside->result;
}

static int add_routes(struct netlink *netlink, const struct network_config *network,
                      const struct nic_config *nic, int tap, int uplink, struct error *err)
{
    const struct netlink_route routes[] = {
        { .to = { nic->inside_ipv4, 32 }, .index = tap, .table = RT_TABLE_MAIN },
        { .gateway = cidr_gateway(&network->cidr), .index = uplink, .table = RT_TABLE_MAIN },
        { .to = network->cidr, .index = uplink, .table = GUEST_TABLE },
        { .gateway = cidr_gateway(&network->cidr), .index = uplink, .table = GUEST_TABLE },
    };
    int result = 0;

    for (size_t i = 0; i < ARRAY_LENGTH(routes) && result == 0; i++)
        result = netlink_route_add(netlink, &routes[i], err);
    return result < 0 ? result : netlink_rule_add(netlink, FORK_TAP, GUEST_TABLE, err);
}

/* The tap answers for the gateway and everybody else, by the gateway's MAC address, which the guest
 * knows already. */
static int connect_inside(struct inside *inside, const struct network_config *network,
                          const struct nic_config *nic, struct error *err)
{
    struct netlink *netlink = inside->netlink;
    struct netlink_link tap = { 0 };
    struct netlink_link uplink = { 0 };
    uint8_t mac[MAC_BYTES];
    int result = netlink_link_find(netlink, FORK_TAP, &tap, err);

    mac_derive_bridge(network->instance, mac);
    if (result == 0)
        result = netlink_link_find(netlink, FORK_UPLINK, &uplink, err);
    if (result == 0)
        result = netlink_address_add(netlink, uplink.index, nic->ipv4, network->cidr.prefix, err);
    if (result == 0)
        result =
            netlink_router_up(netlink, tap.index, network->mtu, mac, /* proxy_arp= */ true, err);
    if (result == 0)
        result = netlink_router_up(netlink, uplink.index, network->mtu, NULL,
                                   /* proxy_arp= */ false, err);
    if (result == 0)
        result = netlink_neighbour_add(netlink, tap.index, nic->inside_ipv4, nic->inside_mac, err);
    return result < 0 ? result : add_routes(netlink, network, nic, tap.index, uplink.index, err);
}

/* The other end goes with it. */
static void remove_pair(struct netlink *host, const char *name)
{
    struct netlink_link link;

    if (netlink_link_find(host, name, &link, NULL) == 0)
        (void)netlink_link_remove(host, link.index, NULL);
}

/* Rules before the interfaces are up. */
int fork_namespace_open(struct netlink *host, const struct network_config *network,
                        const struct nic_config *nic, const char *name, int *ret_tap_fds,
                        struct error *err)
{
    __attribute__((cleanup(inside_close))) struct inside inside = { .owner = nic->owner,
                                                                    .queues = nic->queues,
                                                                    .namespace_fd = -1 };
    auto_free char *rules = fork_rules(network, nic);
    int result;

    for (unsigned i = 0; i < NIC_QUEUES_MAX; i++)
        inside.tap_fds[i] = -1;
    result = run_thread(&inside, err);
    if (result < 0)
        return result;
    result = netlink_veth_add(host, name, FORK_UPLINK, nic->mac, inside.namespace_fd, err);
    if (result == -EEXIST)
        return error_set(err, EBUSY, "interface %s exists", name);
    if (result < 0)
        return result;
    result = nftables_apply(inside.nftables, rules, err);
    if (result == 0)
        result = connect_inside(&inside, network, nic, err);
    if (result < 0) {
        remove_pair(host, name);
        return result;
    }
    for (unsigned i = 0; i < nic->queues; i++)
        ret_tap_fds[i] = take_fd(&inside.tap_fds[i]);
    return 0;
}
