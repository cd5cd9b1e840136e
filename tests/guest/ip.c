/* ip.c - see ip.h. */
#include <stddef.h>
#include "tests/guest/apic.h"
#include "tests/guest/card.h"
#include "tests/guest/guest.h"
#include "tests/guest/ip.h"
#include "tests/guest/packet.h"
#include "tests/guest/text.h"

#define RESOLVE_TRIES 2
#define RESOLVE_TRY   (500 * MILLISECOND)
#define HOPS          64

static const uint8_t everybody[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

const uint8_t *ip_mac(const struct guest *guest)
{
    return guest->has_mac ? guest->mac : card_mac();
}

static void *begin_frame(const struct guest *guest, const uint8_t *to, uint16_t type)
{
    struct ethernet_header *ethernet = (struct ethernet_header *)card_frame();

    memcpy(ethernet->to, to, 6);
    memcpy(ethernet->from, ip_mac(guest), 6);
    ethernet->type = swap16(type);
    return ethernet + 1;
}

static void send_arp(const struct guest *guest, uint16_t operation, const uint8_t *frame_to,
                     const uint8_t *target_mac, uint32_t target_ip)
{
    struct arp_packet *arp = begin_frame(guest, frame_to, ETHERNET_ARP);

    arp->hardware = swap16(1);
    arp->protocol = swap16(ETHERNET_IPV4);
    arp->hardware_bytes = 6;
    arp->protocol_bytes = 4;
    arp->operation = swap16(operation);
    memcpy(arp->sender_mac, ip_mac(guest), 6);
    arp->sender_ip = swap32(guest->address);
    memcpy(arp->target_mac, target_mac, 6);
    arp->target_ip = swap32(target_ip);
    (void)card_send(sizeof(struct ethernet_header) + sizeof(*arp));
}

static void answer_arp(const struct guest *guest, const struct arp_packet *arp, uint32_t bytes)
{
    uint8_t asker[6];

    if (bytes < sizeof(*arp) || swap16(arp->operation) != ARP_REQUEST || guest->address == 0 ||
        swap32(arp->target_ip) != guest->address)
        return;
    memcpy(asker, arp->sender_mac, 6);
    send_arp(guest, ARP_REPLY, asker, asker, swap32(arp->sender_ip));
}

static const char *send_ipv4(struct guest *guest, const uint8_t *mac, uint8_t protocol, uint32_t to,
                             const void *body, uint16_t count, unsigned checksum_at)
{
    struct ipv4_header *ip = begin_frame(guest, mac, ETHERNET_IPV4);
    uint8_t *copy = (uint8_t *)(ip + 1);
    uint16_t checksum;

    ip->version_words = 0x45;
    ip->length = swap16((uint16_t)(sizeof(*ip) + count));
    ip->hops = HOPS;
    ip->protocol = protocol;
    ip->source = swap32(guest->address);
    ip->destination = swap32(to);
    ip->checksum = packet_checksum(ip, sizeof(*ip), 0);
    memcpy(copy, body, count);
    checksum = packet_checksum(copy, count, protocol == IP_ICMP ? 0 : packet_pseudo_sum(ip, count));
    if (checksum == 0 && protocol == IP_UDP)
        checksum = 0xffff;
    memcpy(copy + checksum_at, &checksum, sizeof(checksum));
    return card_send(sizeof(struct ethernet_header) + sizeof(*ip) + count) ? NULL : "send-timeout";
}

/* Answers ICMP echo and UDP echo in kind; true if it was one. */
static bool answer_ipv4(struct guest *guest, const uint8_t *frame, const struct ipv4_header *ip,
                        const uint8_t *body, uint16_t count)
{
    uint8_t reply[PAYLOAD_MAX];
    const struct ethernet_header *ethernet = (const struct ethernet_header *)frame;
    struct icmp_header *icmp = (struct icmp_header *)reply;
    struct udp_header *udp = (struct udp_header *)reply;
    uint8_t asker[6];

    if (count > sizeof(reply) || swap32(ip->destination) != guest->address)
        return false;
    memcpy(reply, body, count);
    memcpy(asker, ethernet->from, 6);
    if (ip->protocol == IP_ICMP && count >= sizeof(*icmp) && body[0] == ICMP_REQUEST) {
        icmp->type = ICMP_REPLY;
        icmp->checksum = 0;
        (void)send_ipv4(guest, asker, IP_ICMP, swap32(ip->source), reply, count,
                        offsetof(struct icmp_header, checksum));
        return true;
    }
    if (ip->protocol == IP_UDP && count >= sizeof(*udp) && swap16(udp->destination) == PORT_ECHO) {
        udp->destination = udp->source;
        udp->source = swap16(PORT_ECHO);
        udp->checksum = 0;
        (void)send_ipv4(guest, asker, IP_UDP, swap32(ip->source), reply, count,
                        offsetof(struct udp_header, checksum));
        return true;
    }
    return false;
}

static bool is_for_us(const struct guest *guest, const struct ipv4_header *ip)
{
    uint32_t to = swap32(ip->destination);

    return to == guest->address || to == IPV4_BROADCAST || guest->address == 0;
}

static uint64_t time_left(uint64_t deadline_ns)
{
    uint64_t now;

    if (deadline_ns == WAIT_FOREVER)
        return WAIT_FOREVER;
    now = clock_ns();
    return now < deadline_ns ? deadline_ns - now : 0;
}

const struct ipv4_header *ip_receive(struct guest *guest, uint64_t deadline_ns,
                                     const uint8_t **ret_body, uint16_t *ret_count)
{
    uint32_t bytes;
    const uint8_t *frame;

    while ((frame = card_receive(guest, time_left(deadline_ns), &bytes)) != NULL) {
        const struct ethernet_header *ethernet = (const struct ethernet_header *)frame;
        const struct ipv4_header *ip = (const struct ipv4_header *)(ethernet + 1);
        uint32_t header;
        uint32_t length;

        if (bytes < sizeof(*ethernet))
            continue;
        bytes -= sizeof(*ethernet);
        if (ethernet->type == swap16(ETHERNET_ARP))
            answer_arp(guest, (const struct arp_packet *)(ethernet + 1), bytes);
        if (ethernet->type != swap16(ETHERNET_IPV4) || bytes < sizeof(*ip))
            continue;
        header = (ip->version_words & 0xf) * 4u;
        length = swap16(ip->length);
        if (ip->version_words >> 4 != 4 || header < sizeof(*ip) || length < header ||
            length > bytes || !is_for_us(guest, ip))
            continue;
        if (answer_ipv4(guest, frame, ip, (const uint8_t *)ip + header,
                        (uint16_t)(length - header)))
            continue;
        *ret_body = (const uint8_t *)ip + header;
        *ret_count = (uint16_t)(length - header);
        return ip;
    }
    return NULL;
}

bool ip_resolve(struct guest *guest, uint32_t address, uint8_t ret_mac[6])
{
    static const uint8_t unknown[6];

    for (int i = 0; i < RESOLVE_TRIES; i++) {
        uint64_t deadline = clock_ns() + RESOLVE_TRY;
        uint32_t bytes;
        const uint8_t *frame;

        send_arp(guest, ARP_REQUEST, everybody, unknown, address);
        while ((frame = card_receive(guest, time_left(deadline), &bytes)) != NULL) {
            const struct ethernet_header *ethernet = (const struct ethernet_header *)frame;
            const struct arp_packet *arp = (const struct arp_packet *)(ethernet + 1);

            if (bytes < sizeof(*ethernet) + sizeof(*arp) || ethernet->type != swap16(ETHERNET_ARP))
                continue;
            if (swap16(arp->operation) == ARP_REPLY && swap32(arp->sender_ip) == address) {
                memcpy(ret_mac, arp->sender_mac, 6);
                return true;
            }
            answer_arp(guest, arp, bytes - sizeof(*ethernet));
        }
    }
    return false;
}

const char *ip_send(struct guest *guest, uint8_t protocol, uint32_t to, const void *body,
                    uint16_t count, unsigned checksum_at)
{
    uint32_t hop = to;
    uint8_t mac[6];

    if (to == IPV4_BROADCAST) {
        memcpy(mac, everybody, 6);
    } else {
        if (guest->gateway != 0 && ((to ^ guest->address) & guest->mask) != 0)
            hop = guest->gateway;
        if (!ip_resolve(guest, hop, mac))
            return "no-arp";
    }
    return send_ipv4(guest, mac, protocol, to, body, count, checksum_at);
}
