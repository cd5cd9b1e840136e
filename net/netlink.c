#include "net/netlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/fib_rules.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "net/netlink_socket.h"

#define BUFFER_BYTES  32768 /* a dump's messages are at most this large */
#define REQUEST_BYTES 1024

struct netlink {
    struct mnl_socket *socket; /* owned */
    struct mnl_socket *watch;  /* owned; hears of changes; NULL = not asked for any yet */
    uint32_t port;
    uint32_t sequence;
    char buffer[BUFFER_BYTES];
};

int netlink_new(struct netlink **ret_netlink, struct error *err)
{
    struct netlink *netlink = calloc(1, sizeof *netlink);
    int result;

    if (!netlink)
        return error_set(err, ENOMEM, "open netlink");
    result = netlink_socket_open(NETLINK_ROUTE, "netlink", &netlink->socket, err);
    if (result < 0) {
        netlink_free(netlink);
        return result;
    }
    netlink->port = mnl_socket_get_portid(netlink->socket);
    *ret_netlink = netlink;
    return 0;
}

struct netlink *netlink_free(struct netlink *netlink)
{
    if (!netlink)
        return NULL;
    if (netlink->socket)
        mnl_socket_close(netlink->socket);
    if (netlink->watch)
        mnl_socket_close(netlink->watch);
    free(netlink);
    return NULL;
}

static void watch(struct netlink *netlink)
{
    struct mnl_socket *made = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);

    if (made && mnl_socket_bind(made, RTMGRP_LINK | RTMGRP_IPV4_IFADDR, MNL_SOCKET_AUTOPID) < 0) {
        mnl_socket_close(made);
        made = NULL;
    }
    netlink->watch = made;
}

/* Also what was told but not remembered (ENOBUFS) is a change.  Without a watch all may be. */
bool netlink_has_changed(struct netlink *netlink)
{
    bool changed = false;
    ssize_t got;

    if (!netlink->watch) {
        watch(netlink);
        return true;
    }
    do {
        got = recv(mnl_socket_get_fd(netlink->watch), netlink->buffer, sizeof netlink->buffer,
                   MSG_DONTWAIT);
        changed = changed || got >= 0 || errno != EAGAIN;
    } while (got >= 0 || errno == ENOBUFS || errno == EINTR);
    return changed;
}

/* A request in the making, and its answer's receiver. */
struct request {
    struct nlmsghdr *header; /* in bytes */
    char bytes[REQUEST_BYTES] __attribute__((aligned(8)));
};

/* Its zeroed head of so many bytes; attributes follow. */
static void *request_start(struct request *request, uint16_t type, uint16_t flags, size_t bytes)
{
    request->header = mnl_nlmsg_put_header(request->bytes);
    request->header->nlmsg_type = type;
    request->header->nlmsg_flags = NLM_F_REQUEST | flags;
    return mnl_nlmsg_put_extra_header(request->header, bytes);
}

/* Sends, and feeds every answer to `receive` until the acknowledgement or the dump's end.
 * Returns 0 or -errno of the kernel. */
static int talk(struct netlink *netlink, struct request *request, mnl_cb_t receive, void *context)
{
    int result;

    request->header->nlmsg_seq = ++netlink->sequence;
    if (mnl_socket_sendto(netlink->socket, request->header, request->header->nlmsg_len) < 0)
        return -errno;
    do {
        ssize_t size =
            mnl_socket_recvfrom(netlink->socket, netlink->buffer, sizeof netlink->buffer);

        if (size < 0 && errno == EINTR) {
            result = MNL_CB_OK;
            continue;
        }
        if (size < 0)
            return -errno;
        result = mnl_cb_run(netlink->buffer, (size_t)size, netlink->sequence, netlink->port,
                            receive, context);
        /* The answer to an earlier request that failed in the middle. */
        if (result < 0 && errno == EPROTO)
            result = MNL_CB_OK;
    } while (result > MNL_CB_STOP);
    return result < 0 ? -errno : 0;
}

static int acknowledge(struct netlink *netlink, struct request *request, const char *what,
                       struct error *err)
{
    int result;

    request->header->nlmsg_flags |= NLM_F_ACK;
    result = talk(netlink, request, NULL, NULL);
    if (result < 0)
        return error_set(err, result, "%s: %s", what, strerror(-result));
    return 0;
}

/* The same of what is to go: if it has gone, all is well. */
static int acknowledge_removal(struct netlink *netlink, struct request *request, const char *what,
                               struct error *err)
{
    struct error inner = { 0 };
    int result = acknowledge(netlink, request, what, &inner);

    if (result == -ENOENT || result == -ENODEV)
        return 0;
    return result < 0 ? error_set(err, result, "%s", inner.message) : 0;
}

static struct ifinfomsg *link_request(struct request *request, uint16_t type, uint16_t flags,
                                      int index)
{
    struct ifinfomsg *message = request_start(request, type, flags, sizeof *message);

    message->ifi_index = index;
    return message;
}

static struct ndmsg *neighbour_request(struct request *request, uint16_t type, uint16_t flags,
                                       int index)
{
    struct ndmsg *message = request_start(request, type, flags, sizeof *message);

    message->ndm_ifindex = index;
    return message;
}

/* What a dump collects. */
struct list {
    void *items; /* owned */
    size_t item_bytes;
    size_t count;
    size_t room;
};

/* A fresh zeroed item, or NULL with errno. */
static void *list_grow(struct list *list)
{
    if (list->count == list->room) {
        size_t room = list->room ? list->room * 2 : 32;
        void *items = reallocarray(list->items, room, list->item_bytes);

        if (!items)
            return NULL;
        list->items = items;
        list->room = room;
    }
    return memset((char *)list->items + list->count++ * list->item_bytes, 0, list->item_bytes);
}

static void read_port(const struct nlattr *data, struct netlink_link *link)
{
    const struct nlattr *attribute;

    mnl_attr_for_each_nested(attribute, data)
    {
        if (mnl_attr_validate(attribute, MNL_TYPE_U8) < 0)
            continue;
        if (mnl_attr_get_type(attribute) == IFLA_BRPORT_LEARNING)
            link->learns = mnl_attr_get_u8(attribute);
        else if (mnl_attr_get_type(attribute) == IFLA_BRPORT_UNICAST_FLOOD)
            link->floods = mnl_attr_get_u8(attribute);
        else if (mnl_attr_get_type(attribute) == IFLA_BRPORT_ISOLATED)
            link->isolated = mnl_attr_get_u8(attribute);
    }
}

static bool is_bridge_port(const struct nlattr *attribute)
{
    return mnl_attr_get_type(attribute) == IFLA_INFO_SLAVE_KIND &&
           mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) >= 0 &&
           strcmp(mnl_attr_get_str(attribute), "bridge") == 0;
}

/* The kind of a port comes before its data (rtnl_link_slave_info_fill). */
static void read_link_info(const struct nlattr *info, struct netlink_link *link)
{
    const struct nlattr *attribute;
    bool is_port = false;

    mnl_attr_for_each_nested(attribute, info)
    {
        if (mnl_attr_get_type(attribute) == IFLA_INFO_KIND &&
            mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) >= 0)
            strncpy(link->kind, mnl_attr_get_str(attribute), sizeof link->kind - 1);
        else if (is_port && mnl_attr_get_type(attribute) == IFLA_INFO_SLAVE_DATA)
            read_port(attribute, link);
        is_port = is_port || is_bridge_port(attribute);
    }
}

static int receive_link(const struct nlmsghdr *header, void *context)
{
    const struct ifinfomsg *message = mnl_nlmsg_get_payload(header);
    const struct nlattr *attribute;
    struct netlink_link *link = list_grow(context);

    if (!link)
        return MNL_CB_ERROR;
    link->index = message->ifi_index;
    link->up = message->ifi_flags & IFF_UP;
    mnl_attr_for_each(attribute, header, sizeof *message)
    {
        uint16_t type = mnl_attr_get_type(attribute);

        if (type == IFLA_IFNAME)
            strncpy(link->name, mnl_attr_get_str(attribute), sizeof link->name - 1);
        else if (type == IFLA_MASTER)
            link->master = (int)mnl_attr_get_u32(attribute);
        else if (type == IFLA_ADDRESS && mnl_attr_get_payload_len(attribute) == MAC_BYTES)
            memcpy(link->mac, mnl_attr_get_payload(attribute), MAC_BYTES);
        else if (type == IFLA_LINKINFO)
            read_link_info(attribute, link);
    }
    return MNL_CB_OK;
}

int netlink_link_find(struct netlink *netlink, const char *name, struct netlink_link *ret_link,
                      struct error *err)
{
    struct list list = { .item_bytes = sizeof(struct netlink_link) };
    struct request request;
    int result;

    link_request(&request, RTM_GETLINK, NLM_F_ACK, 0);
    mnl_attr_put_strz(request.header, IFLA_IFNAME, name);
    result = talk(netlink, &request, receive_link, &list);
    if (result == 0 && list.count != 1)
        result = -ENODEV;
    if (result == 0)
        *ret_link = *(struct netlink_link *)list.items;
    free(list.items);
    return result < 0 ? error_set(err, result, "find interface %s: %s", name, strerror(-result))
                      : 0;
}

static int dump(struct netlink *netlink, struct request *request, mnl_cb_t receive,
                struct list *list, void **ret_items, size_t *ret_count, struct error *err)
{
    int result;

    /* A change during a dump may hide entries: EINTR asks for another try. */
    for (int attempt = 0; attempt < 10; attempt++) {
        list->count = 0;
        result = talk(netlink, request, receive, list);
        if (result != -EINTR)
            break;
    }
    if (result < 0) {
        free(list->items);
        return error_set(err, result, "list the host's network: %s", strerror(-result));
    }
    *ret_items = list->items;
    *ret_count = list->count;
    return 0;
}

int netlink_link_list(struct netlink *netlink, struct netlink_link **ret_items, size_t *ret_count,
                      struct error *err)
{
    struct list list = { .item_bytes = sizeof(struct netlink_link) };
    struct request request;

    link_request(&request, RTM_GETLINK, NLM_F_DUMP, 0);
    mnl_attr_put_u32(request.header, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    return dump(netlink, &request, receive_link, &list, (void **)ret_items, ret_count, err);
}

static int receive_address(const struct nlmsghdr *header, void *context)
{
    const struct ifaddrmsg *message = mnl_nlmsg_get_payload(header);
    struct netlink_address *address = list_grow(context);
    const struct nlattr *attribute;
    uint32_t peer = 0;

    if (!address)
        return MNL_CB_ERROR;
    address->index = (int)message->ifa_index;
    mnl_attr_for_each(attribute, header, sizeof *message)
    {
        if (mnl_attr_get_type(attribute) == IFA_ADDRESS)
            peer = ntohl(mnl_attr_get_u32(attribute));
        else if (mnl_attr_get_type(attribute) == IFA_LOCAL)
            address->local = ntohl(mnl_attr_get_u32(attribute));
    }
    address->cidr.prefix = message->ifa_prefixlen > 32 ? 32 : message->ifa_prefixlen;
    address->cidr.address = peer & cidr_netmask(&address->cidr);
    return MNL_CB_OK;
}

int netlink_address_list(struct netlink *netlink, struct netlink_address **ret_items,
                         size_t *ret_count, struct error *err)
{
    struct list list = { .item_bytes = sizeof(struct netlink_address) };
    struct request request;
    struct ifaddrmsg *message = request_start(&request, RTM_GETADDR, NLM_F_DUMP, sizeof *message);

    message->ifa_family = AF_INET;
    return dump(netlink, &request, receive_address, &list, (void **)ret_items, ret_count, err);
}

static int receive_neighbour(const struct nlmsghdr *header, void *context)
{
    const struct ndmsg *message = mnl_nlmsg_get_payload(header);
    struct netlink_neighbour *neighbour = list_grow(context);
    const struct nlattr *attribute;

    if (!neighbour)
        return MNL_CB_ERROR;
    neighbour->index = message->ndm_ifindex;
    neighbour->state = message->ndm_state;
    mnl_attr_for_each(attribute, header, sizeof *message)
    {
        if (mnl_attr_get_type(attribute) == NDA_DST && mnl_attr_get_payload_len(attribute) == 4)
            neighbour->address = ntohl(mnl_attr_get_u32(attribute));
    }
    return MNL_CB_OK;
}

int netlink_neighbour_list(struct netlink *netlink, struct netlink_neighbour **ret_items,
                           size_t *ret_count, struct error *err)
{
    struct list list = { .item_bytes = sizeof(struct netlink_neighbour) };
    struct request request;

    neighbour_request(&request, RTM_GETNEIGH, NLM_F_DUMP, 0)->ndm_family = AF_INET;
    return dump(netlink, &request, receive_neighbour, &list, (void **)ret_items, ret_count, err);
}

/* No address that the kernel makes up.  With an MTU below 1,280, or on a host without IPv6, there
 * is nothing to set (EAFNOSUPPORT), nor will there be an address. */
static int set_no_ipv6(struct netlink *netlink, int index, struct error *err)
{
    struct request request;
    struct nlattr *families, *ipv6;
    int result;

    link_request(&request, RTM_NEWLINK, 0, index);
    families = mnl_attr_nest_start(request.header, IFLA_AF_SPEC);
    ipv6 = mnl_attr_nest_start(request.header, AF_INET6);
    mnl_attr_put_u8(request.header, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
    mnl_attr_nest_end(request.header, ipv6);
    mnl_attr_nest_end(request.header, families);
    result = acknowledge(netlink, &request, "keep an interface without IPv6", err);
    return result == -EAFNOSUPPORT ? 0 : result;
}

int netlink_bridge_add(struct netlink *netlink, const char *name, const uint8_t mac[MAC_BYTES],
                       struct error *err)
{
    struct request request;
    struct nlattr *info;
    struct nlattr *data;

    link_request(&request, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, 0);
    mnl_attr_put_strz(request.header, IFLA_IFNAME, name);
    mnl_attr_put(request.header, IFLA_ADDRESS, MAC_BYTES, mac);
    info = mnl_attr_nest_start(request.header, IFLA_LINKINFO);
    mnl_attr_put_strz(request.header, IFLA_INFO_KIND, "bridge");
    data = mnl_attr_nest_start(request.header, IFLA_INFO_DATA);
    mnl_attr_put_u32(request.header, IFLA_BR_STP_STATE, 0);
    mnl_attr_put_u8(request.header, IFLA_BR_MCAST_SNOOPING, 0);
    mnl_attr_nest_end(request.header, data);
    mnl_attr_nest_end(request.header, info);
    return acknowledge(netlink, &request, "create a bridge", err);
}

int netlink_link_remove(struct netlink *netlink, int index, struct error *err)
{
    struct request request;

    link_request(&request, RTM_DELLINK, 0, index);
    return acknowledge_removal(netlink, &request, "remove an interface", err);
}

int netlink_link_up(struct netlink *netlink, int index, uint16_t mtu, struct error *err)
{
    struct request request;
    struct ifinfomsg *message = link_request(&request, RTM_NEWLINK, 0, index);

    message->ifi_flags = IFF_UP;
    message->ifi_change = IFF_UP;
    mnl_attr_put_u32(request.header, IFLA_MTU, mtu);
    return acknowledge(netlink, &request, "set an interface up", err);
}

int netlink_port_attach(struct netlink *netlink, int index, int bridge_index, struct error *err)
{
    int result = set_no_ipv6(netlink, index, err);
    struct request request;

    link_request(&request, RTM_NEWLINK, 0, index);
    mnl_attr_put_u32(request.header, IFLA_MASTER, (uint32_t)bridge_index);
    return result < 0 ? result : acknowledge(netlink, &request, "attach a tap to its bridge", err);
}

int netlink_port_configure(struct netlink *netlink, int index, bool isolated, struct error *err)
{
    struct request request;
    struct nlattr *port;

    link_request(&request, RTM_SETLINK, 0, index)->ifi_family = AF_BRIDGE;
    port = mnl_attr_nest_start(request.header, IFLA_PROTINFO | NLA_F_NESTED);
    mnl_attr_put_u8(request.header, IFLA_BRPORT_LEARNING, 0);
    mnl_attr_put_u8(request.header, IFLA_BRPORT_UNICAST_FLOOD, 0);
    mnl_attr_put_u8(request.header, IFLA_BRPORT_ISOLATED, isolated);
    mnl_attr_nest_end(request.header, port);
    return acknowledge(netlink, &request, "configure a bridge port", err);
}

int netlink_port_address(struct netlink *netlink, int index, const uint8_t mac[MAC_BYTES],
                         struct error *err)
{
    struct request request;
    struct ndmsg *message =
        neighbour_request(&request, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, index);

    message->ndm_family = AF_BRIDGE;
    message->ndm_state = NUD_NOARP;
    message->ndm_flags = NTF_MASTER;
    mnl_attr_put(request.header, NDA_LLADDR, MAC_BYTES, mac);
    return acknowledge(netlink, &request, "bind a MAC address to its bridge port", err);
}

int netlink_address_add(struct netlink *netlink, int index, uint32_t address, uint8_t prefix,
                        struct error *err)
{
    struct request request;
    struct ifaddrmsg *message =
        request_start(&request, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sizeof *message);

    message->ifa_family = AF_INET;
    message->ifa_prefixlen = prefix;
    message->ifa_index = (uint32_t)index;
    mnl_attr_put_u32(request.header, IFA_LOCAL, htonl(address));
    mnl_attr_put_u32(request.header, IFA_ADDRESS, htonl(address));
    mnl_attr_put_u32(request.header, IFA_BROADCAST, htonl(address | (0xffffffffu >> prefix)));
    return acknowledge(netlink, &request, "set an interface's address", err);
}

int netlink_neighbour_add(struct netlink *netlink, int index, uint32_t address,
                          const uint8_t mac[MAC_BYTES], struct error *err)
{
    struct request request;
    struct ndmsg *message =
        neighbour_request(&request, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, index);

    message->ndm_family = AF_INET;
    message->ndm_state = NUD_PERMANENT;
    mnl_attr_put_u32(request.header, NDA_DST, htonl(address));
    mnl_attr_put(request.header, NDA_LLADDR, MAC_BYTES, mac);
    return acknowledge(netlink, &request, "set a neighbour's address", err);
}

int netlink_neighbour_remove(struct netlink *netlink, int index, uint32_t address,
                             struct error *err)
{
    struct request request;

    neighbour_request(&request, RTM_DELNEIGH, 0, index)->ndm_family = AF_INET;
    mnl_attr_put_u32(request.header, NDA_DST, htonl(address));
    return acknowledge_removal(netlink, &request, "remove a neighbour's address", err);
}

int netlink_veth_add(struct netlink *netlink, const char *name, const char *peer_name,
                     const uint8_t peer_mac[MAC_BYTES], int peer_namespace, struct error *err)
{
    struct request request;
    struct nlattr *info;
    struct nlattr *data;
    struct nlattr *peer;

    link_request(&request, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, 0);
    mnl_attr_put_strz(request.header, IFLA_IFNAME, name);
    info = mnl_attr_nest_start(request.header, IFLA_LINKINFO);
    mnl_attr_put_strz(request.header, IFLA_INFO_KIND, "veth");
    data = mnl_attr_nest_start(request.header, IFLA_INFO_DATA);
    peer = mnl_attr_nest_start(request.header, VETH_INFO_PEER);
    memset(mnl_nlmsg_get_payload_tail(request.header), 0, sizeof(struct ifinfomsg));
    request.header->nlmsg_len += MNL_ALIGN(sizeof(struct ifinfomsg));
    mnl_attr_put_strz(request.header, IFLA_IFNAME, peer_name);
    mnl_attr_put(request.header, IFLA_ADDRESS, MAC_BYTES, peer_mac);
    mnl_attr_put_u32(request.header, IFLA_NET_NS_FD, (uint32_t)peer_namespace);
    mnl_attr_nest_end(request.header, peer);
    mnl_attr_nest_end(request.header, data);
    mnl_attr_nest_end(request.header, info);
    return acknowledge(netlink, &request, "create a veth pair", err);
}

static void put_router(struct nlmsghdr *header, bool proxy_arp)
{
    struct nlattr *families = mnl_attr_nest_start(header, IFLA_AF_SPEC);
    struct nlattr *ipv4 = mnl_attr_nest_start(header, AF_INET);
    struct nlattr *settings = mnl_attr_nest_start(header, IFLA_INET_CONF);

    mnl_attr_put_u32(header, IPV4_DEVCONF_FORWARDING, 1);
    mnl_attr_put_u32(header, IPV4_DEVCONF_PROXY_ARP, proxy_arp);
    mnl_attr_put_u32(header, IPV4_DEVCONF_RP_FILTER, 0);
    mnl_attr_put_u32(header, IPV4_DEVCONF_ACCEPT_REDIRECTS, 0);
    mnl_attr_put_u32(header, IPV4_DEVCONF_SEND_REDIRECTS, 0);
    mnl_attr_nest_end(header, settings);
    mnl_attr_nest_end(header, ipv4);
    mnl_attr_nest_end(header, families);
}

/* In two steps: in one message the kernel would set it up first, and IPv6 with it. */
int netlink_router_up(struct netlink *netlink, int index, uint16_t mtu, const uint8_t *mac,
                      bool proxy_arp, struct error *err)
{
    struct request request;
    int result = set_no_ipv6(netlink, index, err);

    link_request(&request, RTM_NEWLINK, 0, index);
    if (mac)
        mnl_attr_put(request.header, IFLA_ADDRESS, MAC_BYTES, mac);
    put_router(request.header, proxy_arp);
    result = result < 0 ? result : acknowledge(netlink, &request, "configure a router", err);
    return result < 0 ? result : netlink_link_up(netlink, index, mtu, err);
}

int netlink_route_add(struct netlink *netlink, const struct netlink_route *route, struct error *err)
{
    struct request request;
    struct rtmsg *message =
        request_start(&request, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sizeof *message);

    message->rtm_family = AF_INET;
    message->rtm_dst_len = route->to.prefix;
    message->rtm_table = route->table;
    message->rtm_protocol = RTPROT_STATIC;
    message->rtm_scope = route->gateway ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
    message->rtm_type = RTN_UNICAST;
    if (route->to.prefix)
        mnl_attr_put_u32(request.header, RTA_DST, htonl(route->to.address));
    if (route->gateway)
        mnl_attr_put_u32(request.header, RTA_GATEWAY, htonl(route->gateway));
    mnl_attr_put_u32(request.header, RTA_OIF, (uint32_t)route->index);
    return acknowledge(netlink, &request, "add a route", err);
}

int netlink_rule_add(struct netlink *netlink, const char *from_interface, uint8_t table,
                     struct error *err)
{
    struct request request;
    struct fib_rule_hdr *message =
        request_start(&request, RTM_NEWRULE, NLM_F_CREATE, sizeof *message);

    message->family = AF_INET;
    message->table = table;
    message->action = FR_ACT_TO_TBL;
    mnl_attr_put_strz(request.header, FRA_IIFNAME, from_interface);
    return acknowledge(netlink, &request, "add a routing rule", err);
}
