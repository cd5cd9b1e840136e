/* fetch_address.h - may an import connect there?  Pure. */
#pragma once
#include <stdbool.h>

struct sockaddr;

/* Only addresses that IANA's special-purpose registries (RFC 6890 and its successors) call globally
 * reachable unicast; those that carry an IPv4 address (mapped, NAT64) are judged by it. */
bool address_is_public(const struct sockaddr *address, unsigned length);
