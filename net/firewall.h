/* firewall.h - the packet filter's rules as nftables text.  Pure; any thread.
 *
 * Two tables of our own, "warren_<prefix>": `bridge` decides what a guest may send at all
 * (stateless, so it needs no bridge connection tracking), `inet` what of it reaches the host, the
 * outside and other networks.  Neither needs br_netfilter, and both work with it.  Guests are
 * elements of sets: the rules do not grow with them.  Every change is one transaction, and adding
 * what is there or removing what is not is no error.
 *
 * All functions return malloc'ed text, or NULL if memory is short. */
#pragma once
#include <stddef.h>
#include "net/network.h"

/* Replaces both tables whole. */
char *firewall_ruleset(const char *prefix, const struct network_config *networks,
                       size_t network_count, const struct nic_config *nics, size_t nic_count);
/* Removes both tables. */
char *firewall_removal(const char *prefix);

enum firewall_change { FIREWALL_ADD, FIREWALL_REMOVE };

char *firewall_network_change(const char *prefix, enum firewall_change change,
                              const struct network_config *network);
char *firewall_nic_change(const char *prefix, enum firewall_change change,
                          const struct nic_config *nic);
