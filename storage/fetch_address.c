#include "storage/fetch_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>

#include "base/cleanup.h"

/* Special-purpose IPv4, by first address and prefix length. */
static const struct {
    uint32_t network;
    unsigned prefix;
} special_ipv4[] = {
    { 0x00000000, 8 },  /* this network */
    { 0x0a000000, 8 },  /* private */
    { 0x64400000, 10 }, /* carrier-grade NAT */
    { 0x7f000000, 8 },  /* loopback */
    { 0xa9fe0000, 16 }, /* link-local: cloud metadata is here */
    { 0xac100000, 12 }, /* private */
    { 0xc0000000, 24 }, /* protocol assignments */
    { 0xc0000200, 24 }, /* documentation */
    { 0xc0586300, 24 }, /* 6to4 relays */
    { 0xc0a80000, 16 }, /* private */
    { 0xc6120000, 15 }, /* benchmarking */
    { 0xc6336400, 24 }, /* documentation */
    { 0xcb007100, 24 }, /* documentation */
    { 0xe0000000, 3 },  /* multicast, reserved, broadcast */
};

/* Within 2000::/3, which is all of IPv6's global unicast, by the first 32 bits. */
static const struct {
    uint32_t network;
    unsigned prefix;
} special_ipv6[] = {
    { 0x20010000, 23 }, /* protocol assignments, Teredo among them */
    { 0x20010db8, 32 }, /* documentation */
    { 0x20020000, 16 }, /* 6to4: an IPv4 address in disguise */
    { 0x3fff0000, 20 }, /* documentation */
};

static bool in_prefix(uint32_t address, uint32_t network, unsigned prefix)
{
    return (address ^ network) >> (32 - prefix) == 0;
}

static bool ipv4_is_public(uint32_t address)
{
    for (size_t i = 0; i < ARRAY_LENGTH(special_ipv4); i++)
        if (in_prefix(address, special_ipv4[i].network, special_ipv4[i].prefix))
            return false;
    return true;
}

static uint32_t read_big_32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static bool ipv6_is_public(const uint8_t address[16])
{
    static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff }; /* ::ffff:0:0/96 */
    static const uint8_t nat64[12] = { 0x00, 0x64, 0xff, 0x9b };    /* 64:ff9b::/96 */
    uint32_t first = read_big_32(address);

    if (memcmp(address, mapped, sizeof mapped) == 0 || memcmp(address, nat64, sizeof nat64) == 0)
        return ipv4_is_public(read_big_32(address + 12));
    if (!in_prefix(first, 0x20000000, 3))
        return false;
    for (size_t i = 0; i < ARRAY_LENGTH(special_ipv6); i++)
        if (in_prefix(first, special_ipv6[i].network, special_ipv6[i].prefix))
            return false;
    return true;
}

bool address_is_public(const struct sockaddr *address, unsigned length)
{
    struct sockaddr_in ipv4;
    struct sockaddr_in6 ipv6;

    if (address->sa_family == AF_INET && length >= sizeof ipv4) {
        memcpy(&ipv4, address, sizeof ipv4);
        return ipv4_is_public(ntohl(ipv4.sin_addr.s_addr));
    }
    if (address->sa_family == AF_INET6 && length >= sizeof ipv6) {
        memcpy(&ipv6, address, sizeof ipv6);
        return ipv6_is_public(ipv6.sin6_addr.s6_addr);
    }
    return false;
}
