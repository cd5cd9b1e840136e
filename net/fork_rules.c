#include "net/fork_rules.h"

#include <stdio.h>
#include <stdlib.h>

#include "net/dhcp_text.h"
#include "net/firewall.h"

#define DHCP_WRITE_BYTES 16 /* as much as one statement takes */
#define DHCP_WRITE_TEXT  64
#define DHCP_WRITES      (DHCP_FILE_BYTES / DHCP_WRITE_BYTES)

/* 1 inside MAC, 2 the same as a number, 3 inside address, 4 outside address, 5 the gateway's MAC,
 * 6 its address, 7 the writing of DHCP options, 8 inside address and 9 gateway as numbers, 10 how
 * many connections.
 *
 * Of DHCP (RFC 2131 section 2; bits from the UDP header on) op is at 64, the flags at 144, yiaddr
 * at 192, siaddr at 224, chaddr at 288, "file" at 928, the cookie at 1952, options at 1984. */
static const char rules[] =
    "table netdev " FIREWALL_TABLE_PREFIX "fork {\n"
    "  chain guest {\n"
    "    type filter hook ingress device \"" FORK_TAP "\" priority 0; policy drop;\n"
    "    ether saddr != %1$s drop\n"
    "    meta pkttype other meta pkttype set host\n"
    "    ether type arp goto guest_arp\n"
    "    ether type ip goto guest_ip\n"
    "  }\n"
    /* Asking for its own address is looking for others that have it: there are none.  What was not
     * sent to all is answered at once, the rest up to 0.8 s later (proxy_delay). */
    "  chain guest_arp {\n"
    "    arp htype 1 arp ptype ip arp hlen 6 arp plen 4 arp operation request"
    " arp saddr ether %1$s arp saddr ip %3$s arp daddr ip != %3$s meta pkttype set host accept\n"
    "    drop\n"
    "  }\n"
    "  chain guest_ip {\n"
    "    udp dport 67 goto guest_dhcp\n"
    "    ip saddr %3$s accept\n"
    "    drop\n"
    "  }\n"
    /* A discover (1) is offered (2), a request (3) acknowledged (5); then "options go on in file"
     * and the end.  Shorter than 300 bytes they do not come (RFC 1542 section 2.1). */
    "  chain guest_dhcp {\n"
    "    udp sport 68 udp length >= 308 @th,64,8 1 @th,288,48 %2$s @th,1952,32 0x63825363"
    " @th,1984,24 0x350101 @th,1984,24 set 0x350102 goto answer_dhcp\n"
    "    udp sport 68 udp length >= 308 @th,64,8 1 @th,288,48 %2$s @th,1952,32 0x63825363"
    " @th,1984,24 0x350103 @th,1984,24 set 0x350105 goto answer_dhcp\n"
    "    drop\n"
    "  }\n"
    "  chain answer_dhcp {\n"
    "    @th,2008,32 set 0x340101ff%7$s @th,64,8 set 2 @th,192,32 set %8$s @th,224,32 set %9$s"
    " udp sport set 67 udp dport set 68 udp checksum set 0"
    " ip saddr set %6$s ip daddr set %3$s ether saddr set %5$s ether daddr set %1$s\n"
    "    @th,144,1 1 ip daddr set 255.255.255.255 ether daddr set ff:ff:ff:ff:ff:ff\n"
    "    fwd to iif\n"
    "  }\n"
    "}\n"
    "table ip " FIREWALL_TABLE_PREFIX "fork {\n"
    "  chain prerouting {\n"
    "    type nat hook prerouting priority -100; policy accept;\n"
    "    ip daddr %4$s dnat to %3$s\n"
    "  }\n"
    "  chain postrouting {\n"
    "    type nat hook postrouting priority 100; policy accept;\n"
    "    ip saddr %3$s snat to %4$s\n"
    "  }\n"
    "  chain forward {\n"
    "    type filter hook forward priority 0; policy drop;\n"
    "    iifname \"" FORK_TAP "\" ct state new ct count over %10$d drop\n"
    "    iifname \"" FORK_UPLINK "\" ct state new ct count over %10$d drop\n"
    "    iifname \"" FORK_TAP "\" oifname \"" FORK_UPLINK "\" accept\n"
    "    iifname \"" FORK_UPLINK "\" oifname \"" FORK_TAP "\" accept\n"
    "  }\n"
    "  chain input {\n"
    "    type filter hook input priority 0; policy drop;\n"
    "  }\n"
    "}\n";

/* " @th,928,128 set 0x..." for each part of "file". */
static void write_options(const struct network_config *network,
                          char ret_text[DHCP_WRITES * DHCP_WRITE_TEXT])
{
    const size_t size = DHCP_WRITES * DHCP_WRITE_TEXT;
    uint8_t file[DHCP_FILE_BYTES];
    size_t length = 0;

    dhcp_file_fill(network, file);
    for (size_t i = 0; i < DHCP_FILE_BYTES; i++) {
        if (i % DHCP_WRITE_BYTES == 0)
            length += (size_t)snprintf(ret_text + length, size - length, " @th,%zu,%d set 0x",
                                       928 + i * 8, DHCP_WRITE_BYTES * 8);
        length += (size_t)snprintf(ret_text + length, size - length, "%02x", file[i]);
    }
}

char *fork_rules(const struct network_config *network, const struct nic_config *nic)
{
    char options[DHCP_WRITES * DHCP_WRITE_TEXT];
    const uint8_t *m = nic->inside_mac;
    uint32_t gateway = cidr_gateway(&network->cidr);
    uint8_t gateway_mac[MAC_BYTES];
    char mac[MAC_TEXT], bridge[MAC_TEXT], number[16], yiaddr[16], siaddr[16];
    char inside[IPV4_TEXT], outside[IPV4_TEXT], gateway_text[IPV4_TEXT];
    char *text;

    mac_derive_bridge(network->instance, gateway_mac);
    mac_format(m, mac);
    mac_format(gateway_mac, bridge);
    snprintf(number, sizeof number, "0x%02x%02x%02x%02x%02x%02x", m[0], m[1], m[2], m[3], m[4],
             m[5]);
    ipv4_format(nic->inside_ipv4, inside);
    ipv4_format(nic->ipv4, outside);
    ipv4_format(gateway, gateway_text);
    snprintf(yiaddr, sizeof yiaddr, "0x%08x", nic->inside_ipv4);
    snprintf(siaddr, sizeof siaddr, "0x%08x", gateway);
    write_options(network, options);
    if (asprintf(&text, rules, mac, number, inside, outside, bridge, gateway_text, options, yiaddr,
                 siaddr, FORK_CONNECTIONS) < 0)
        return NULL;
    return text;
}
