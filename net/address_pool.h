/* address_pool.h - which address a guest gets.  Pure; any thread.
 *
 * Of a network's addresses the first is the host's, the last the broadcast; the others are for
 * guests, at most ADDRESS_POOL_GUESTS_MAX of them (a Linux bridge has 1,024 port numbers). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "net/cidr.h"

struct error;

#define ADDRESS_POOL_GUESTS_MAX 1023

/* How many guests a network can hold. */
uint32_t address_pool_capacity(const struct cidr *cidr);

/* Has it as many already?  used: as for address_pool_pick. */
bool address_pool_is_full(const struct cidr *cidr, const uint32_t *used, size_t used_count);

/* The lowest address that is neither used nor recently released; if there is none, the one that was
 * released longest ago: peers, ARP caches and leases may still know the last owner of others.
 *   used:   strictly ascending; addresses outside the network are ignored
 *   recent: released ones, the oldest first; used ones among them are ignored
 * -ENOSPC when every address is used. */
int address_pool_pick(const struct cidr *cidr, const uint32_t *used, size_t used_count,
                      const uint32_t *recent, size_t recent_count, uint32_t *ret_address,
                      struct error *err);

/* May a guest have this address?  -EINVAL with the reason (outside, network, gateway, broadcast).
 */
int address_pool_check(const struct cidr *cidr, uint32_t address, struct error *err);
