/* firewall.h - the packet filter's rules as nftables text.  Pure; any thread.
 *
 * Two tables of our own, "warren_<prefix>": `bridge` decides what a guest may send at all
 * (stateless, so it needs no bridge connection tracking), `inet` what of it reaches the host, the
 * outside and other networks.  Neither needs br_netfilter, and both work with it.  Guests are
 * elements of sets: the rules do not grow with them.  Every change is one transaction, and adding
 * what is there or removing what is not is no error.
 *
 * Functions that return text return it malloc'ed, or NULL if memory is short. */
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

/* A nic is no text but elements of sets of the bridge table, as the kernel takes them: nics come
 * and go with VMs, and libnftables reads all sets back before each change. */
#define FIREWALL_KEY_MAX      32
#define FIREWALL_NIC_ELEMENTS 2
struct firewall_element {
    const char *set; /* static */
    size_t key_bytes;
    uint8_t key[FIREWALL_KEY_MAX]; /* each part padded to 4 bytes */
};
void firewall_nic_elements(const char *prefix, const struct nic_config *nic,
                           struct firewall_element ret_elements[FIREWALL_NIC_ELEMENTS]);
/* A guest's connections to the host and the outside that are tracked, of 262,144 that a host has by
 * default.  More are dropped. */
#define FIREWALL_CONNECTIONS  16384
#define FIREWALL_TABLE_PREFIX "warren_" /* of every table of ours */
/* Of both tables; text of at most FIREWALL_TABLE_NAME bytes. */
#define FIREWALL_TABLE_NAME 32
void firewall_table_name(const char *prefix, char ret_name[FIREWALL_TABLE_NAME]);
