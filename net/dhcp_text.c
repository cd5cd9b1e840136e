#include "net/dhcp_text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEASE_SECONDS 3600

__attribute__((format(printf, 2, 3))) static void add(struct dhcp_arguments *arguments,
                                                      const char *format, ...)
{
    va_list values;
    char *text = NULL;

    va_start(values, format);
    if (arguments->count == DHCP_ARGUMENTS_MAX || vasprintf(&text, format, values) < 0)
        arguments->failed = true;
    else
        arguments->items[arguments->count++] = text;
    va_end(values);
}

static void add_mode(struct dhcp_arguments *arguments, const char *dir,
                     const struct network_config *network)
{
    if (network->nat) {
        add(arguments, "--resolv-file=%s/" DHCP_RESOLVER_FILE, dir);
        return;
    }
    /* No way out: no upstream servers, no default route. */
    add(arguments, "--no-resolv");
    add(arguments, "--dhcp-option=option:router");
}

void dhcp_arguments_fill(struct dhcp_arguments *arguments, const char *prefix, const char *dir,
                         const struct network_config *network)
{
    struct cidr mask = { .address = cidr_netmask(&network->cidr), .prefix = 32 };
    char bridge[IFNAMSIZ];
    char address[IPV4_TEXT];
    char netmask[IPV4_TEXT];

    memset(arguments, 0, sizeof *arguments);
    network_bridge_name(prefix, network->instance, bridge);
    ipv4_format(network->cidr.address, address);
    ipv4_format(mask.address, netmask);
    add(arguments, "dnsmasq");
    add(arguments, "--conf-file=/dev/null");
    add(arguments, "--user="); /* it is whom it is to be, and finds no names in its root */
    add(arguments, "--group=");
    add(arguments, "--keep-in-foreground");
    add(arguments, "--pid-file=");
    add(arguments, "--log-facility=-");
    add(arguments, "--quiet-dhcp");
    add(arguments, "--interface=%s", bridge);
    add(arguments, "--except-interface=lo");
    add(arguments, "--bind-interfaces");
    add(arguments, "--dhcp-range=%s,static,%s,%ds", address, netmask, LEASE_SECONDS);
    add(arguments, "--dhcp-authoritative");
    add(arguments, "--dhcp-hostsdir=%s/hosts", dir);
    add(arguments, "--dhcp-leasefile=%s/leases", dir);
    add(arguments, "--dhcp-lease-max=2048");
    add(arguments, "--dhcp-ignore-clid");
    add(arguments, "--dhcp-ignore-names");
    add(arguments, "--no-ping");
    add(arguments, "--no-hosts");
    add(arguments, "--hostsdir=%s/names", dir);
    add(arguments, "--domain=%s.internal", network->id);
    add(arguments, "--local=/%s.internal/", network->id);
    add(arguments, "--domain-needed");
    /* Unanswered ones are kept for 10 s: more than one guest may ask in that time (firewall.c). */
    add(arguments, "--dns-forward-max=4096");
    add(arguments, "--bogus-priv");
    add_mode(arguments, dir, network);
}

void dhcp_arguments_free(struct dhcp_arguments *arguments)
{
    for (size_t i = 0; i < arguments->count; i++)
        free(arguments->items[i]);
    memset(arguments, 0, sizeof *arguments);
}

void dhcp_host_line(const struct network_config *network, const struct nic_config *nic,
                    char ret_line[DHCP_LINE_MAX])
{
    char mac[MAC_TEXT];
    char address[IPV4_TEXT];

    mac_format(nic->mac, mac);
    ipv4_format(nic->ipv4, address);
    snprintf(ret_line, DHCP_LINE_MAX, "%s,%s,%s.%s.internal\n", mac, address, nic->hostname,
             network->id);
}

void dhcp_name_line(const struct network_config *network, const struct nic_config *nic,
                    char ret_line[DHCP_LINE_MAX])
{
    char address[IPV4_TEXT];

    ipv4_format(nic->ipv4, address);
    snprintf(ret_line, DHCP_LINE_MAX, "%s %s %s.%s.internal\n", address, nic->hostname,
             nic->hostname, network->id);
}

bool dhcp_lease_line_holds(const char *line, uint32_t address, uint8_t ret_mac[MAC_BYTES])
{
    char mac[20];
    char text[20];
    uint32_t leased = 0;

    /* "<expiry> <mac> <address> <name> <client id>" */
    return sscanf(line, "%*s %19s %19s", mac, text) == 2 && ipv4_parse(text, &leased, NULL) == 0 &&
           leased == address && mac_parse(mac, ret_mac, NULL) == 0;
}

static void put_address(uint8_t *to, uint32_t address)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(address >> (24 - 8 * i));
}

void dhcp_release_fill(const struct network_config *network, uint32_t address,
                       const uint8_t mac[MAC_BYTES], uint8_t ret_packet[DHCP_RELEASE_BYTES])
{
    static const uint8_t start[] = { 1 /* request */, 1 /* Ethernet */, MAC_BYTES };
    static const uint8_t cookie_and_type[] = { 0x63, 0x82, 0x53, 0x63, 53, 1, 7 /* release */ };
    uint8_t *options = ret_packet + 236;

    memset(ret_packet, 0, DHCP_RELEASE_BYTES);
    memcpy(ret_packet, start, sizeof start);
    put_address(ret_packet + 4, address ^ 0x57524e00); /* xid: any */
    put_address(ret_packet + 12, address);
    memcpy(ret_packet + 28, mac, MAC_BYTES);
    memcpy(options, cookie_and_type, sizeof cookie_and_type);
    options += sizeof cookie_and_type;
    *options++ = 54; /* server identifier */
    *options++ = 4;
    put_address(options, cidr_gateway(&network->cidr));
    options[4] = 255;
}

static uint8_t *put_label(uint8_t *to, const char *label)
{
    size_t length = strnlen(label, 63);

    *to++ = (uint8_t)length;
    memcpy(to, label, length);
    return to + length;
}

size_t dhcp_probe_fill(const struct network_config *network, uint8_t ret_query[DHCP_PROBE_MAX])
{
    static const uint8_t header[] = {
        0x57, 0x52, 1 /* recursion desired */, 0, 0, 1 /* question */, 0, 0, 0, 0, 0, 0
    };
    static const uint8_t ending[] = { 0 /* root */, 0, 1 /* A */, 0, 1 /* IN */ };
    uint8_t *at = ret_query;

    memcpy(at, header, sizeof header);
    at = put_label(at + sizeof header, network->id);
    at = put_label(at, "internal");
    memcpy(at, ending, sizeof ending);
    return (size_t)(at - ret_query) + sizeof ending;
}

static uint8_t *put_option(uint8_t *to, uint8_t option, uint32_t value)
{
    *to++ = option;
    *to++ = 4;
    put_address(to, value);
    return to + 4;
}

void dhcp_file_fill(const struct network_config *network, uint8_t ret_file[DHCP_FILE_BYTES])
{
    uint32_t gateway = cidr_gateway(&network->cidr);
    uint8_t *at = ret_file;
    char domain[NETWORK_ID_MAX + sizeof ".internal"];
    int length = snprintf(domain, sizeof domain, "%s.internal", network->id);

    memset(ret_file, 0, DHCP_FILE_BYTES);
    at = put_option(at, 54, gateway); /* server */
    at = put_option(at, 51, LEASE_SECONDS);
    at = put_option(at, 1, cidr_netmask(&network->cidr));
    at = put_option(at, 28, cidr_broadcast(&network->cidr));
    at = put_option(at, 6, gateway); /* DNS */
    if (network->nat)
        at = put_option(at, 3, gateway); /* router */
    *at++ = 15;
    *at++ = (uint8_t)length;
    memcpy(at, domain, (size_t)length);
    at[length] = 255;
}
