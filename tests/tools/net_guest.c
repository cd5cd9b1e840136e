#include "tests/tools/net_guest.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "net/tap.h"

#define ETHERNET_BYTES 14
#define IPV4_BYTES     20
#define ANSWER_MS      10000 /* of a process, which the host may not run for a while */
#define FIRST_PORT     40000
#define SILENCE_MS     150
#define ARP_MS         100

const uint8_t broadcast_mac[MAC_BYTES] = { 255, 255, 255, 255, 255, 255 };

void frame_put(struct frame *frame, const void *bytes, size_t size)
{
    memcpy(frame->bytes + frame->size, bytes, size);
    frame->size += size;
}

static void put16(struct frame *frame, uint16_t value)
{
    uint16_t wire = htons(value);

    frame_put(frame, &wire, sizeof wire);
}

static void put32(struct frame *frame, uint32_t value)
{
    uint32_t wire = htonl(value);

    frame_put(frame, &wire, sizeof wire);
}

static uint32_t get32(const uint8_t *bytes)
{
    uint32_t wire;

    memcpy(&wire, bytes, sizeof wire);
    return ntohl(wire);
}

static uint32_t sum16(uint32_t sum, const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        sum += i & 1 ? bytes[i] : (uint32_t)bytes[i] << 8;
    return sum;
}

static uint16_t fold(uint32_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return htons((uint16_t)~sum);
}

void frame_start(struct frame *frame, const uint8_t to[MAC_BYTES], const uint8_t from[MAC_BYTES],
                 uint16_t type)
{
    frame->size = 0;
    frame_put(frame, to, MAC_BYTES);
    frame_put(frame, from, MAC_BYTES);
    put16(frame, type);
}

void frame_ipv4(struct frame *frame, uint32_t from, uint32_t to, uint8_t protocol, size_t payload)
{
    uint8_t *header = frame->bytes + frame->size;
    uint16_t sum;

    put16(frame, 0x4500);
    put16(frame, (uint16_t)(IPV4_BYTES + payload));
    put32(frame, 0x12340000);
    put16(frame, (uint16_t)(64 << 8 | protocol));
    put16(frame, 0);
    put32(frame, from);
    put32(frame, to);
    sum = fold(sum16(0, header, IPV4_BYTES));
    memcpy(header + 10, &sum, sizeof sum);
}

void frame_udp(struct frame *frame, uint32_t from, uint16_t from_port, uint32_t to,
               uint16_t to_port, const void *bytes, size_t size)
{
    frame_ipv4(frame, from, to, IPPROTO_UDP, 8 + size);
    put16(frame, from_port);
    put16(frame, to_port);
    put16(frame, (uint16_t)(8 + size));
    put16(frame, 0); /* no checksum, RFC 768 */
    frame_put(frame, bytes, size);
}

void frame_tcp_syn(struct frame *frame, uint32_t from, uint16_t from_port, uint32_t to,
                   uint16_t to_port)
{
    uint8_t *header;
    uint32_t sum;
    uint16_t folded;

    frame_ipv4(frame, from, to, IPPROTO_TCP, 20);
    header = frame->bytes + frame->size;
    put16(frame, from_port);
    put16(frame, to_port);
    put32(frame, 1000);
    put32(frame, 0);
    put32(frame, 0x50021000); /* 5 words, SYN, window 4096 */
    put32(frame, 0);
    sum = (from >> 16) + (from & 0xffff) + (to >> 16) + (to & 0xffff) + IPPROTO_TCP + 20;
    folded = fold(sum16(sum, header, 20));
    memcpy(header + 16, &folded, sizeof folded);
}

void frame_ping(struct frame *frame, uint32_t from, uint32_t to)
{
    uint8_t *header;
    uint16_t sum;

    frame_ipv4(frame, from, to, IPPROTO_ICMP, 8);
    header = frame->bytes + frame->size;
    put32(frame, 0x08000000);
    put32(frame, 0x00070001);
    sum = fold(sum16(0, header, 8));
    memcpy(header + 2, &sum, sizeof sum);
}

void frame_arp(struct frame *frame, uint16_t operation, const uint8_t sender_mac[MAC_BYTES],
               uint32_t sender, uint32_t target)
{
    static const uint8_t unknown[MAC_BYTES];

    put16(frame, 1);
    put16(frame, 0x0800);
    put16(frame, 0x0604);
    put16(frame, operation);
    frame_put(frame, sender_mac, MAC_BYTES);
    put32(frame, sender);
    frame_put(frame, unknown, MAC_BYTES);
    put32(frame, target);
}

void guest_udp(const struct guest *guest, struct frame *frame, const uint8_t to_mac[MAC_BYTES],
               uint32_t to, uint16_t to_port, const char *text)
{
    frame_start(frame, to_mac, guest->mac, 0x0800);
    frame_udp(frame, guest->ipv4, 5000, to, to_port, text, strlen(text));
}

void guest_dhcp(const struct guest *guest, struct frame *frame, uint8_t type,
                const uint8_t hardware[MAC_BYTES], uint32_t requested)
{
    struct frame bootp = { .size = 0 };
    static const uint8_t start[] = { 1, 1, MAC_BYTES, 0, 0xab, 0xcd, 0xef, 0x01 };
    uint8_t options[] = { 0x63, 0x82, 0x53, 0x63, 53, 1, type, 55, 4, 1, 3, 6, 15, 255 };
    uint8_t more[] = { 50,
                       4,
                       (uint8_t)(requested >> 24),
                       (uint8_t)(requested >> 16),
                       (uint8_t)(requested >> 8),
                       (uint8_t)requested,
                       255 };

    memset(bootp.bytes, 0, sizeof bootp.bytes);
    memcpy(bootp.bytes, start, sizeof start);
    memcpy(bootp.bytes + 28, hardware, MAC_BYTES);
    bootp.size = 236;
    frame_put(&bootp, options, sizeof options);
    if (requested) {
        bootp.size--;
        frame_put(&bootp, more, sizeof more);
    }
    bootp.size = 300;
    frame_start(frame, broadcast_mac, guest->mac, 0x0800);
    frame_udp(frame, 0, 68, 0xffffffff, 67, bootp.bytes, bootp.size);
}

void guest_send(const struct guest *guest, const struct frame *frame)
{
    uint8_t packet[TAP_VNET_HEADER_BYTES + FRAME_MAX] = { 0 };

    memcpy(packet + TAP_VNET_HEADER_BYTES, frame->bytes, frame->size);
    if (write(guest->fd, packet, TAP_VNET_HEADER_BYTES + frame->size) < 0)
        perror("write to tap");
}

/* As any guest does. */
static void answer_arp(const struct guest *guest, const struct frame *asked)
{
    struct frame frame;

    if (asked->size < 42 || asked->bytes[12] != 8 || asked->bytes[13] != 6 ||
        asked->bytes[21] != 1 || get32(asked->bytes + 38) != guest->ipv4)
        return;
    frame_start(&frame, asked->bytes + MAC_BYTES, guest->mac, 0x0806);
    frame_arp(&frame, 2, guest->mac, guest->ipv4, get32(asked->bytes + 28));
    guest_send(guest, &frame);
}

bool guest_receive(const struct guest *guest, struct frame *frame, int timeout_ms)
{
    uint8_t packet[TAP_VNET_HEADER_BYTES + FRAME_MAX];
    struct pollfd poll_fd = { .fd = guest->fd, .events = POLLIN };
    ssize_t got;

    if (poll(&poll_fd, 1, timeout_ms) <= 0)
        return false;
    got = read(guest->fd, packet, sizeof packet);
    if (got < TAP_VNET_HEADER_BYTES + ETHERNET_BYTES)
        return false;
    frame->size = (size_t)got - TAP_VNET_HEADER_BYTES;
    memcpy(frame->bytes, packet + TAP_VNET_HEADER_BYTES, frame->size);
    answer_arp(guest, frame);
    return true;
}

void guest_drain(const struct guest *guest)
{
    struct frame frame;

    while (guest_receive(guest, &frame, 0))
        ;
}

bool frame_holds(const struct frame *frame, const char *text)
{
    return memmem(frame->bytes, frame->size, text, strlen(text)) != NULL;
}

bool guest_hears(const struct guest *guest, const char *text, struct frame *frame, int timeout_ms)
{
    while (guest_receive(guest, frame, timeout_ms))
        if (frame_holds(frame, text))
            return true;
    return false;
}

/* Are there more in the field "file" (RFC 2132 section 9.3)? */
static bool read_options(const uint8_t *at, const uint8_t *end, struct dhcp_answer *answer)
{
    bool more = false;

    while (at + 2 <= end && *at != 255 && at + 2 + at[1] <= end) {
        if (at[0] == 53)
            answer->type = at[2];
        else if (at[0] == 3)
            answer->router = get32(at + 2);
        else if (at[0] == 6)
            answer->dns = get32(at + 2);
        else if (at[0] == 15)
            snprintf(answer->domain, sizeof answer->domain, "%.*s", at[1], (const char *)at + 2);
        else if (at[0] == 52)
            more = at[2] & 1;
        at += 2 + at[1];
    }
    return more;
}

struct dhcp_answer guest_asks_dhcp(const struct guest *guest, uint8_t type, uint32_t requested)
{
    const size_t bootp = ETHERNET_BYTES + IPV4_BYTES + 8;
    struct dhcp_answer answer = { 0 };
    struct frame frame;

    guest_drain(guest);
    guest_dhcp(guest, &frame, type, guest->mac, requested);
    guest_send(guest, &frame);
    while (answer.type == 0 && guest_receive(guest, &frame, ANSWER_MS)) {
        const uint8_t *udp = frame.bytes + ETHERNET_BYTES + IPV4_BYTES;

        if (frame.size < bootp + 240 || udp[1] != 67 || udp[3] != 68 ||
            memcmp(frame.bytes + bootp + 28, guest->mac, MAC_BYTES) != 0)
            continue;
        answer.address = get32(frame.bytes + bootp + 16);
        if (read_options(frame.bytes + bootp + 240, frame.bytes + frame.size, &answer))
            (void)read_options(frame.bytes + bootp + 108, frame.bytes + bootp + 236, &answer);
    }
    return answer;
}

static size_t put_name(uint8_t *to, const char *name)
{
    uint8_t *at = to;

    while (*name) {
        size_t length = strcspn(name, ".");

        *at++ = (uint8_t)length;
        memcpy(at, name, length);
        at += length;
        name += length + (name[length] == '.');
    }
    *at++ = 0;
    return (size_t)(at - to);
}

size_t guest_asks_dns(const struct guest *guest, const char *name)
{
    uint8_t query[300] = { 0x77, 0x55, 1, 0, 0, 1 };
    static const uint8_t a_in[] = { 0, 1, 0, 1 };
    size_t size = 12 + put_name(query + 12, name);
    struct frame frame;

    memcpy(query + size, a_in, sizeof a_in);
    size += sizeof a_in;
    frame_start(&frame, guest->gateway_mac, guest->mac, 0x0800);
    frame_udp(&frame, guest->ipv4, 5353, guest->gateway, 53, query, size);
    guest_send(guest, &frame);
    return size;
}

uint32_t guest_resolves(const struct guest *guest, const char *name)
{
    return guest_resolves_within(guest, name, ANSWER_MS);
}

uint32_t guest_resolves_within(const struct guest *guest, const char *name, int timeout_ms)
{
    const size_t dns = ETHERNET_BYTES + IPV4_BYTES + 8;
    struct frame frame;
    size_t size;

    guest_drain(guest);
    size = guest_asks_dns(guest, name);
    while (guest_receive(guest, &frame, timeout_ms)) {
        const uint8_t *answer = frame.bytes + dns;

        /* the answer repeats the question; the record behind it: pointer, type, class, ttl, length
         */
        if (frame.size < dns + size || answer[0] != 0x77 || answer[1] != 0x55)
            continue;
        return answer[7] && frame.size >= dns + size + 16 ? get32(answer + size + 12) : 0;
    }
    return 0;
}

unsigned guest_connects(const struct guest *guest, uint16_t port, unsigned times)
{
    uint64_t answered = 0;
    struct frame frame;

    guest_drain(guest);
    for (unsigned i = 0; i < times; i++) {
        frame_start(&frame, guest->gateway_mac, guest->mac, 0x0800);
        frame_tcp_syn(&frame, guest->ipv4, (uint16_t)(FIRST_PORT + i), guest->gateway, port);
        guest_send(guest, &frame);
    }
    while (guest_receive(guest, &frame, SILENCE_MS)) {
        unsigned to = (unsigned)(frame.bytes[36] << 8 | frame.bytes[37]) - FIRST_PORT;

        if (frame.size >= 54 && frame.bytes[12] == 8 && frame.bytes[23] == IPPROTO_TCP &&
            frame.bytes[34] == port >> 8 && frame.bytes[35] == (port & 255) && to < times)
            answered |= 1ull << to;
        if (times == 1 && answered)
            break;
    }
    return (unsigned)__builtin_popcountll(answered);
}

/* Asked again and again: a port that has just come up may lose frames for a moment. */
bool guest_resolves_arp(const struct guest *guest, uint32_t target, int timeout_ms)
{
    struct frame frame;

    guest_drain(guest);
    for (; timeout_ms > 0; timeout_ms -= ARP_MS) {
        frame_start(&frame, broadcast_mac, guest->mac, 0x0806);
        frame_arp(&frame, 1, guest->mac, guest->ipv4, target);
        guest_send(guest, &frame);
        while (guest_receive(guest, &frame, ARP_MS))
            if (frame.bytes[12] == 8 && frame.bytes[13] == 6 && frame.bytes[21] == 2)
                return memcmp(frame.bytes + 22, guest->gateway_mac, MAC_BYTES) == 0;
    }
    return false;
}
