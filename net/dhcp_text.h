/* dhcp_text.h - what dnsmasq is told, as text.  Pure; any thread. */
#pragma once
#include <stddef.h>
#include "net/network.h"

#define DHCP_ARGUMENTS_MAX 40
#define DHCP_LINE_MAX      320
#define DHCP_RESOLVER_FILE "resolv.conf" /* in dir, for networks with a way out */

struct dhcp_arguments {
    char *items[DHCP_ARGUMENTS_MAX + 1]; /* owned, NULL-ended */
    size_t count;
    bool failed; /* memory was short */
};

/* dir: of this network.  Leases last an hour: a guest that is up renews, a lost release ends. */
void dhcp_arguments_fill(struct dhcp_arguments *arguments, const char *prefix, const char *dir,
                         const struct network_config *network);
void dhcp_arguments_free(struct dhcp_arguments *arguments);

/* A line of hosts/ (--dhcp-hostsdir).  The name is written with its domain: dnsmasq reads a bare
 * "12" or "1h" as a lease time and "ignore" as an order. */
void dhcp_host_line(const struct network_config *network, const struct nic_config *nic,
                    char ret_line[DHCP_LINE_MAX]);
/* A line of names/ (--hostsdir). */
void dhcp_name_line(const struct network_config *network, const struct nic_config *nic,
                    char ret_line[DHCP_LINE_MAX]);
/* Does this line of the lease file hold the address?  ret_mac is set if so. */
bool dhcp_lease_line_holds(const char *line, uint32_t address, uint8_t ret_mac[MAC_BYTES]);

/* A DHCPRELEASE (RFC 2131 section 4.4.6) as the guest would send it. */
#define DHCP_RELEASE_BYTES 300
void dhcp_release_fill(const struct network_config *network, uint32_t address,
                       const uint8_t mac[MAC_BYTES], uint8_t ret_packet[DHCP_RELEASE_BYTES]);

/* A question of DNS to which dnsmasq knows the answer by itself: the address of the network's
 * domain, which has none.  Its size. */
#define DHCP_PROBE_MAX 100
size_t dhcp_probe_fill(const struct network_config *network, uint8_t ret_query[DHCP_PROBE_MAX]);

/* The options of an answer to a guest that has its lease already (fork_rules.h), as the field
 * "file" holds them (RFC 2132 section 9.3): what dnsmasq tells, but no name. */
#define DHCP_FILE_BYTES 128
void dhcp_file_fill(const struct network_config *network, uint8_t ret_file[DHCP_FILE_BYTES]);
