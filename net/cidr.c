#include "net/cidr.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"

/* Reads digits up to max; NULL if there are none, too many, or a leading zero. */
static const char *read_number(const char *text, uint32_t max, uint32_t *ret_value)
{
    uint32_t value = 0;
    const char *at = text;

    while (*at >= '0' && *at <= '9') {
        value = value * 10 + (uint32_t)(*at - '0');
        if (value > max)
            return NULL;
        at++;
    }
    if (at == text || (*text == '0' && at != text + 1))
        return NULL;
    *ret_value = value;
    return at;
}

/* Behind the fourth number, or NULL. */
static const char *read_quad(const char *text, uint32_t *ret_address)
{
    uint32_t address = 0;

    for (int i = 0; i < 4; i++) {
        uint32_t byte = 0;

        if (i > 0 && *text++ != '.')
            return NULL;
        text = read_number(text, 255, &byte);
        if (!text)
            return NULL;
        address = address << 8 | byte;
    }
    *ret_address = address;
    return text;
}

int ipv4_parse(const char *text, uint32_t *ret_address, struct error *err)
{
    uint32_t address = 0;
    const char *end = read_quad(text, &address);

    if (!end || *end != '\0')
        return error_set(err, EINVAL, "is not an IPv4 address such as 10.77.0.12");
    *ret_address = address;
    return 0;
}

void ipv4_format(uint32_t address, char ret_text[IPV4_TEXT])
{
    snprintf(ret_text, IPV4_TEXT, "%u.%u.%u.%u", address >> 24, address >> 16 & 255,
             address >> 8 & 255, address & 255);
}

int cidr_parse(const char *text, struct cidr *ret_cidr, struct error *err)
{
    struct cidr cidr = { 0 };
    uint32_t prefix = 0;
    const char *end = read_quad(text, &cidr.address);
    int result;

    if (end && *end == '/')
        end = read_number(end + 1, 32, &prefix);
    else
        end = NULL;
    if (!end || *end != '\0')
        return error_set(err, EINVAL, "is not an IPv4 network such as 10.77.0.0/24");
    cidr.prefix = (uint8_t)prefix;
    result = cidr_check(&cidr, err);
    if (result == 0)
        *ret_cidr = cidr;
    return result;
}

int cidr_check(const struct cidr *cidr, struct error *err)
{
    static const struct cidr usable[] = {
        { 0x0a000000, 8 },  /* 10.0.0.0/8 */
        { 0xac100000, 12 }, /* 172.16.0.0/12 */
        { 0xc0a80000, 16 }, /* 192.168.0.0/16 */
        { 0x64400000, 10 }, /* 100.64.0.0/10, RFC 6598 */
    };
    char text[IPV4_TEXT];

    if (cidr->prefix < CIDR_PREFIX_MIN || cidr->prefix > CIDR_PREFIX_MAX)
        return error_set(err, EINVAL, "has a prefix length outside %d to %d", CIDR_PREFIX_MIN,
                         CIDR_PREFIX_MAX);
    if (cidr->address & ~cidr_netmask(cidr)) {
        ipv4_format(cidr->address & cidr_netmask(cidr), text);
        return error_set(err, EINVAL, "is not a network address: write %s/%u", text, cidr->prefix);
    }
    for (size_t i = 0; i < ARRAY_LENGTH(usable); i++)
        if (cidr->prefix >= usable[i].prefix && cidr_contains(&usable[i], cidr->address))
            return 0;
    return error_set(err, EINVAL,
                     "is not inside 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10");
}

void cidr_format(const struct cidr *cidr, char ret_text[CIDR_TEXT])
{
    char text[IPV4_TEXT];

    ipv4_format(cidr->address, text);
    snprintf(ret_text, CIDR_TEXT, "%s/%u", text, cidr->prefix % 100u);
}

uint32_t cidr_netmask(const struct cidr *cidr)
{
    return cidr->prefix == 0 ? 0 : ~0u << (32 - cidr->prefix);
}

bool cidr_contains(const struct cidr *cidr, uint32_t address)
{
    return (address & cidr_netmask(cidr)) == cidr->address;
}

bool cidr_overlaps(const struct cidr *a, const struct cidr *b)
{
    uint32_t mask = a->prefix < b->prefix ? cidr_netmask(a) : cidr_netmask(b);

    return (a->address & mask) == (b->address & mask);
}

uint32_t cidr_broadcast(const struct cidr *cidr)
{
    return cidr->address | ~cidr_netmask(cidr);
}

uint32_t cidr_gateway(const struct cidr *cidr)
{
    return cidr->address + 1;
}
