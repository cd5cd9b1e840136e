/* packet.h - layouts of the frames the guest speaks, big-endian on the wire, and their checksums.
 */
#pragma once
#include <stdint.h>

#define ETHERNET_IPV4  0x0800
#define ETHERNET_ARP   0x0806
#define ARP_REQUEST    1
#define ARP_REPLY      2
#define IP_ICMP        1
#define IP_TCP         6
#define IP_UDP         17
#define ICMP_REPLY     0
#define ICMP_REQUEST   8
#define TCP_SYN        0x02
#define TCP_RESET      0x04
#define PORT_ECHO      7
#define PORT_BOOTPS    67
#define PORT_BOOTPC    68
#define IPV4_BROADCAST 0xffffffff

struct ethernet_header {
    uint8_t to[6];
    uint8_t from[6];
    uint16_t type;
} __attribute__((packed));

struct arp_packet { /* RFC 826, Ethernet and IPv4 */
    uint16_t hardware;
    uint16_t protocol;
    uint8_t hardware_bytes;
    uint8_t protocol_bytes;
    uint16_t operation;
    uint8_t sender_mac[6];
    uint32_t sender_ip;
    uint8_t target_mac[6];
    uint32_t target_ip;
} __attribute__((packed));

struct ipv4_header { /* RFC 791 */
    uint8_t version_words;
    uint8_t service;
    uint16_t length;
    uint16_t id;
    uint16_t fragment;
    uint8_t hops;
    uint8_t protocol;
    uint16_t checksum;
    uint32_t source;
    uint32_t destination;
} __attribute__((packed));

struct icmp_header { /* RFC 792, echo */
    uint8_t type;
    uint8_t code;
    uint16_t checksum;
    uint16_t id;
    uint16_t sequence;
} __attribute__((packed));

struct udp_header { /* RFC 768 */
    uint16_t source;
    uint16_t destination;
    uint16_t length;
    uint16_t checksum;
} __attribute__((packed));

struct tcp_header { /* RFC 9293 */
    uint16_t source;
    uint16_t destination;
    uint32_t sequence;
    uint32_t acknowledged;
    uint8_t words; /* upper half */
    uint8_t flags;
    uint16_t window;
    uint16_t checksum;
    uint16_t urgent;
} __attribute__((packed));

static inline uint16_t swap16(uint16_t value)
{
    return __builtin_bswap16(value);
}

static inline uint32_t swap32(uint32_t value)
{
    return __builtin_bswap32(value);
}

/* RFC 1071; start is the sum of what came before, of an even number of bytes.  Wire order in and
 * out. */
static inline uint16_t packet_checksum(const void *bytes, uint32_t count, uint32_t start)
{
    const uint8_t *byte = bytes;
    uint64_t sum = start;

    for (; count > 1; count -= 2, byte += 2)
        sum += (uint32_t)(byte[0] | byte[1] << 8);
    if (count > 0)
        sum += byte[0];
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

/* Sum of the pseudo header that TCP and UDP checksums begin with; length is of header and data. */
static inline uint32_t packet_pseudo_sum(const struct ipv4_header *ip, uint16_t length)
{
    return (ip->source & 0xffff) + (ip->source >> 16) + (ip->destination & 0xffff) +
           (ip->destination >> 16) + swap16(ip->protocol) + swap16(length);
}
