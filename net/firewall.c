#include "net/firewall.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "net/interface_name.h"

#define TABLE FIREWALL_TABLE_PREFIX "%2$s"

/* Sets of the two tables.  "clients" holds iifname . Ethernet source . the hardware address inside
 * a DHCP request (BOOTP chaddr: 8 bytes UDP + 28, RFC 2131 section 2), so that a guest cannot ask
 * for, release or decline a neighbour's address.  "bridges" holds pairs (b, b): with br_netfilter
 * (bridge-nf-call-iptables) frames between two guests of one bridge pass the inet table as well.
 * "..._askers" are taps that lately asked the network's one dnsmasq, each for its share of it. */
static const char bridge_sets[] = "  set sources { type ifname . ether_addr . ipv4_addr; }\n"
                                  "  set clients { typeof iifname . ether saddr . @th,288,48; }\n"
                                  "  set gateways { type ipv4_addr; }\n"
                                  "  set subnets { type ipv4_addr; flags interval; }\n"
                                  "  set dhcp_askers { type ifname; size 65536;"
                                  " flags dynamic,timeout; timeout 1m; }\n"
                                  "  set dns_askers { type ifname; size 65536;"
                                  " flags dynamic,timeout; timeout 1m; }\n";

/* prerouting sees what guests send before the bridge learns from it or forwards it.  The type is
 * read from the frame, where a VLAN tag still shows.  Some DHCP clients believe an answer from
 * whatever port (udhcpc, dhclient). */
static const char bridge_chains[] =
    "  chain prerouting {\n"
    "    type filter hook prerouting priority -300; policy accept;\n"
    "    iifname \"%1$s-*\" goto guest\n"
    "  }\n"
    "  chain guest {\n"
    "    ether type vmap { arp : goto guest_arp, ip : goto guest_ip }\n"
    "    drop\n"
    "  }\n"
    "  chain guest_arp {\n"
    "    arp htype 1 arp ptype ip arp hlen 6 arp plen 4 arp operation { request, reply }"
    " iifname . ether saddr . arp saddr ip @sources"
    " iifname . arp saddr ether . arp saddr ip @sources accept\n"
    "    drop\n"
    "  }\n"
    "  chain guest_ip {\n"
    "    udp sport 67 drop\n"
    "    udp dport 68 drop\n"
    "    udp dport 67 goto guest_dhcp\n"
    "    ip daddr @gateways udp dport 53"
    " add @dns_askers { iifname limit rate over 256/second burst 256 packets } drop\n"
    "    iifname . ether saddr . ip saddr @sources accept\n"
    "    drop\n"
    "  }\n"
    "  chain guest_dhcp {\n"
    "    add @dhcp_askers { iifname limit rate over 10/second burst 20 packets } drop\n"
    "    ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68"
    " iifname . ether saddr . @th,288,48 @clients accept\n"
    "    iifname . ether saddr . ip saddr @sources"
    " iifname . ether saddr . @th,288,48 @clients accept\n"
    "    drop\n"
    "  }\n"
    /* Nobody but the host answers DHCP, so nobody else need hear the request. */
    "  chain forward {\n"
    "    type filter hook forward priority -300; policy accept;\n"
    "    iifname \"%1$s-*\" ip daddr 255.255.255.255 udp dport 67 drop\n"
    "  }\n"
    /* To the host: a neighbour is not to be reached by way of the host's routing (peer isolation),
     * nor is another network. */
    "  chain input {\n"
    "    type filter hook input priority -300; policy accept;\n"
    "    iifname \"%1$s-*\" goto host\n"
    "  }\n"
    "  chain host {\n"
    "    ip daddr @gateways accept\n"
    "    ip daddr @subnets drop\n"
    "  }\n";

static const char inet_sets[] =
    "  set gateways { type ifname . ipv4_addr; }\n"
    "  set outgoing { type ifname; }\n"
    "  set bridges { type ifname . ifname; }\n"
    "  set openers { type ipv4_addr; size 65536; flags dynamic; }\n"
    "  set dns_openers { type ipv4_addr; size 65536; flags dynamic; }\n";

/* Guests answer the host's connections, and reach of it only DHCP and DNS.  169.254/16 outside is
 * the cloud's metadata service, with the host's credentials.  Of related ICMP only errors pass: a
 * redirect would change the host's routes.  What is tracked takes a place in the host's table, so
 * each guest has a share of that, and of the 20 connections that dnsmasq serves.
 *
 * "<prefix>-*" names taps as well as bridges, and has to: frames to 01:80:c2:00:00:0e (802.1D's
 * reserved group addresses) pass by all of the bridge's hooks and reach the host's IP as if the tap
 * were no port. */
static const char inet_chains[] =
    "  chain input {\n"
    "    type filter hook input priority -10; policy accept;\n"
    "    iifname \"%1$s-*\" goto guest_to_host\n"
    "  }\n"
    "  chain guest_to_host {\n"
    "    ct state established accept\n"
    "    ct state new jump share\n"
    "    tcp dport 53 ct state new add @dns_openers { ip saddr ct count over 5 } drop\n"
    "    ct state related"
    " icmp type { destination-unreachable, time-exceeded, parameter-problem } accept\n"
    "    iifname . ip daddr @gateways meta l4proto { tcp, udp } th dport 53 accept\n"
    "    iifname . ip daddr @gateways udp dport 67 accept\n"
    "    ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept\n"
    "    drop\n"
    "  }\n"
    "  chain forward {\n"
    "    type filter hook forward priority -10; policy accept;\n"
    "    iifname \"%1$s-*\" goto guest_to_outside\n"
    "    oifname \"%1$s-*\" goto outside_to_guest\n"
    "  }\n"
    "  chain guest_to_outside {\n"
    "    iifname . oifname @bridges accept\n"
    "    oifname \"%1$s-*\" drop\n"
    "    ip daddr 169.254.0.0/16 drop\n"
    "    ct state new jump share\n"
    "    iifname @outgoing accept\n"
    "    drop\n"
    "  }\n"
    "  chain outside_to_guest {\n"
    "    ct state established,related accept\n"
    "    drop\n"
    "  }\n"
    "  chain postrouting {\n"
    "    type nat hook postrouting priority 100; policy accept;\n"
    "    iifname @outgoing oifname != \"%1$s-*\" masquerade\n"
    "  }\n";

/* Removing what may not be there: added first, in the same transaction. */
static void put_table_removal(FILE *to, const char *family, const char *prefix)
{
    fprintf(to, "add table %1$s " TABLE "\ndelete table %1$s " TABLE "\n", family, prefix);
}

static void put_element(FILE *to, enum firewall_change change, const char *prefix,
                        const char *family, const char *set, const char *element)
{
    fprintf(to, "add element %1$s " TABLE " %3$s { %4$s }\n", family, prefix, set, element);
    if (change == FIREWALL_REMOVE)
        fprintf(to, "delete element %1$s " TABLE " %3$s { %4$s }\n", family, prefix, set, element);
}

static void put_network(FILE *to, enum firewall_change change, const char *prefix,
                        const struct network_config *network)
{
    char bridge[IFNAMSIZ];
    char gateway[IPV4_TEXT];
    char cidr[CIDR_TEXT];
    char element[96];

    network_bridge_name(prefix, network->instance, bridge);
    ipv4_format(cidr_gateway(&network->cidr), gateway);
    cidr_format(&network->cidr, cidr);
    put_element(to, change, prefix, "bridge", "gateways", gateway);
    put_element(to, change, prefix, "bridge", "subnets", cidr);
    snprintf(element, sizeof element, "\"%s\" . %s", bridge, gateway);
    put_element(to, change, prefix, "inet", "gateways", element);
    snprintf(element, sizeof element, "\"%s\" . \"%s\"", bridge, bridge);
    put_element(to, change, prefix, "inet", "bridges", element);
    snprintf(element, sizeof element, "\"%s\"", bridge);
    if (network->nat || change == FIREWALL_REMOVE)
        put_element(to, change, prefix, "inet", "outgoing", element);
}

static void put_nic(FILE *to, const char *prefix, const struct nic_config *nic)
{
    const uint8_t *m = nic->mac;
    char tap[IFNAMSIZ];
    char mac[MAC_TEXT];
    char address[IPV4_TEXT];
    char element[96];

    nic_tap_name(prefix, nic->instance, nic->index, tap);
    mac_format(nic->mac, mac);
    ipv4_format(nic->ipv4, address);
    snprintf(element, sizeof element, "\"%s\" . %s . %s", tap, mac, address);
    put_element(to, FIREWALL_ADD, prefix, "bridge", "sources", element);
    snprintf(element, sizeof element, "\"%s\" . %s . 0x%02x%02x%02x%02x%02x%02x", tap, mac, m[0],
             m[1], m[2], m[3], m[4], m[5]);
    put_element(to, FIREWALL_ADD, prefix, "bridge", "clients", element);
}

static void key_add(struct firewall_element *element, const void *part, size_t bytes)
{
    memcpy(element->key + element->key_bytes, part, bytes);
    element->key_bytes += (bytes + 3) & ~(size_t)3;
}

void firewall_nic_elements(const char *prefix, const struct nic_config *nic,
                           struct firewall_element ret_elements[FIREWALL_NIC_ELEMENTS])
{
    struct firewall_element sources = { .set = "sources" };
    struct firewall_element clients = { .set = "clients" };
    uint32_t address = htonl(nic->ipv4);
    char tap[IFNAMSIZ] = "";

    nic_tap_name(prefix, nic->instance, nic->index, tap);
    key_add(&sources, tap, sizeof tap);
    key_add(&sources, nic->mac, sizeof nic->mac);
    key_add(&sources, &address, sizeof address);
    key_add(&clients, tap, sizeof tap);
    key_add(&clients, nic->mac, sizeof nic->mac);
    key_add(&clients, nic->mac, sizeof nic->mac);
    ret_elements[0] = sources;
    ret_elements[1] = clients;
}

void firewall_table_name(const char *prefix, char ret_name[FIREWALL_TABLE_NAME])
{
    snprintf(ret_name, FIREWALL_TABLE_NAME, FIREWALL_TABLE_PREFIX "%s", prefix);
}

char *firewall_ruleset(const char *prefix, const struct network_config *networks,
                       size_t network_count, const struct nic_config *nics, size_t nic_count)
{
    struct text text;

    if (!text_open(&text))
        return NULL;
    put_table_removal(text.out, "bridge", prefix);
    put_table_removal(text.out, "inet", prefix);
    fprintf(text.out, "table bridge " FIREWALL_TABLE_PREFIX "%s {\n%s", prefix, bridge_sets);
    fprintf(text.out, bridge_chains, prefix);
    fprintf(text.out, "}\ntable inet " FIREWALL_TABLE_PREFIX "%s {\n%s", prefix, inet_sets);
    fprintf(text.out, inet_chains, prefix);
    fprintf(text.out, "  chain share {\n    add @openers { ip saddr ct count over %d } drop\n  }\n",
            FIREWALL_CONNECTIONS);
    fputs("}\n", text.out);
    for (size_t i = 0; i < network_count; i++)
        put_network(text.out, FIREWALL_ADD, prefix, &networks[i]);
    for (size_t i = 0; i < nic_count; i++)
        put_nic(text.out, prefix, &nics[i]);
    return text_close(&text, NULL);
}

char *firewall_removal(const char *prefix)
{
    struct text text;

    if (!text_open(&text))
        return NULL;
    put_table_removal(text.out, "bridge", prefix);
    put_table_removal(text.out, "inet", prefix);
    return text_close(&text, NULL);
}

char *firewall_network_change(const char *prefix, enum firewall_change change,
                              const struct network_config *network)
{
    struct text text;

    if (!text_open(&text))
        return NULL;
    put_network(text.out, change, prefix, network);
    return text_close(&text, NULL);
}
