/* cidr.h - IPv4 addresses and networks as text and numbers.  Pure; any thread.
 * Addresses are in host order everywhere in net/. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct error;

struct cidr {
    uint32_t address; /* host order; host bits zero */
    uint8_t prefix;   /* CIDR_PREFIX_MIN..CIDR_PREFIX_MAX */
};

#define CIDR_PREFIX_MIN 8
#define CIDR_PREFIX_MAX 30
#define IPV4_TEXT       16 /* "255.255.255.255" and its NUL */
#define CIDR_TEXT       19

/* Strict dotted quads: no leading zeros, signs or spaces.  0, or -EINVAL. */
int ipv4_parse(const char *text, uint32_t *ret_address, struct error *err);
void ipv4_format(uint32_t address, char ret_text[IPV4_TEXT]);

/* "10.77.0.0/24".  -EINVAL if it is no network address (host bits set), the prefix is out of range,
 * or it is not all private (RFC 1918) or shared (RFC 6598) address space. */
int cidr_parse(const char *text, struct cidr *ret_cidr, struct error *err);
/* The same demands of numbers. */
int cidr_check(const struct cidr *cidr, struct error *err);
void cidr_format(const struct cidr *cidr, char ret_text[CIDR_TEXT]);

bool cidr_contains(const struct cidr *cidr, uint32_t address);
bool cidr_overlaps(const struct cidr *a, const struct cidr *b);
uint32_t cidr_netmask(const struct cidr *cidr);
uint32_t cidr_broadcast(const struct cidr *cidr);
/* The host's own address in it: the first one. */
uint32_t cidr_gateway(const struct cidr *cidr);
