/* net.c - see net.h. */
#include <stddef.h>
#include "tests/guest/apic.h"
#include "tests/guest/card.h"
#include "tests/guest/console.h"
#include "tests/guest/cpu.h"
#include "tests/guest/dhcp.h"
#include "tests/guest/guest.h"
#include "tests/guest/ip.h"
#include "tests/guest/net.h"
#include "tests/guest/packet.h"
#include "tests/guest/text.h"

#define REPLY_TIMEOUT SECOND
#define LOCAL_PORT    40000
#define PING_ID       0x5741

struct net_call {
    struct guest *guest;
    uint32_t address;
    uint16_t port;
    const char *text;
};

static bool net_mac(const struct net_call *call)
{
    console_print("net mac %m\n", ip_mac(call->guest));
    return true;
}

static bool net_arp(const struct net_call *call)
{
    uint8_t mac[6];

    if (ip_resolve(call->guest, call->address, mac))
        console_print("net arp %i ok %m\n", call->address, mac);
    else
        console_print("net arp %i timeout\n", call->address);
    return true;
}

static bool net_dhcp(const struct net_call *call)
{
    dhcp_run(call->guest);
    return true;
}

static bool net_echo(const struct net_call *call)
{
    const uint8_t *body;
    uint16_t count;

    console_print("net echo ip %i mac %m\n", call->guest->address, ip_mac(call->guest));
    for (;;)
        (void)ip_receive(call->guest, WAIT_FOREVER, &body, &count);
    return true;
}

/* net:long:BYTES sends a broadcast of that size, longer than a frame ought to be. */
static bool net_long(const struct net_call *call)
{
    uint64_t bytes;

    if (!text_number(call->text, &bytes) || bytes > CARD_LONG_MAX)
        return false;
    memset(card_frame(), 0xff, 6);
    console_print("net long %u %s\n", bytes, card_send((uint32_t)bytes) ? "ok" : "timeout");
    return true;
}

/* net:send:HEX sends the bytes as a frame, as they are. */
static bool net_send(const struct net_call *call)
{
    int bytes = text_hex(call->text, card_frame(), FRAME_MAX);

    if (bytes <= 0)
        return false;
    console_print("net send %u %s\n", (uint64_t)(unsigned)bytes,
                  card_send((uint32_t)bytes) ? "ok" : "timeout");
    return true;
}

static bool net_ping(const struct net_call *call)
{
    struct {
        struct icmp_header icmp;
        uint8_t filling[48];
    } __attribute__((packed))
    echo = { .icmp = { .type = ICMP_REQUEST, .id = PING_ID, .sequence = (uint16_t)cpu_cycles() } };
    const char *wrong = ip_send(call->guest, IP_ICMP, call->address, &echo, sizeof(echo),
                                offsetof(struct icmp_header, checksum));
    uint64_t start = clock_ns();
    const struct ipv4_header *ip;
    const uint8_t *body;
    uint16_t count;

    while (wrong == NULL) {
        const struct icmp_header *icmp;

        ip = ip_receive(call->guest, start + REPLY_TIMEOUT, &body, &count);
        if (ip == NULL) {
            wrong = "timeout";
            break;
        }
        icmp = (const struct icmp_header *)body;
        if (ip->protocol != IP_ICMP || count < sizeof(*icmp) || icmp->type != ICMP_REPLY ||
            icmp->id != PING_ID || icmp->sequence != echo.icmp.sequence)
            continue;
        console_print("net ping %i ok ns %u\n", call->address, clock_ns() - start);
        return true;
    }
    console_print("net ping %i %s\n", call->address, wrong);
    return true;
}

/* net:udp:IP:PORT:TEXT sends TEXT and prints what comes back from there. */
static bool net_udp(const struct net_call *call)
{
    uint8_t message[sizeof(struct udp_header) + 256];
    struct udp_header *udp = (struct udp_header *)message;
    uint16_t bytes = sizeof(*udp);
    uint64_t deadline = clock_ns() + 2 * REPLY_TIMEOUT;
    const char *wrong;
    const struct ipv4_header *ip;
    const uint8_t *body;
    uint16_t count;

    for (const char *text = call->text; *text != '\0' && bytes < sizeof(message); text++)
        message[bytes++] = (uint8_t)*text;
    *udp = (struct udp_header){ .source = swap16(LOCAL_PORT),
                                .destination = swap16(call->port),
                                .length = swap16(bytes) };
    wrong = ip_send(call->guest, IP_UDP, call->address, message, bytes,
                    offsetof(struct udp_header, checksum));
    console_print("net udp %i %u ", call->address, (uint64_t)call->port);
    while (wrong == NULL) {
        ip = ip_receive(call->guest, deadline, &body, &count);
        if (ip == NULL) {
            wrong = "timeout";
        } else if (ip->protocol == IP_UDP && count >= sizeof(*udp) &&
                   swap32(ip->source) == call->address &&
                   ((const struct udp_header *)body)->destination == swap16(LOCAL_PORT)) {
            console_print("ok ");
            for (unsigned i = sizeof(*udp); i < count; i++)
                console_print("%c", body[i] >= ' ' && body[i] < 0x7f ? body[i] : '.');
            console_print("\n");
            return true;
        }
    }
    console_print("%s\n", wrong);
    return true;
}

static const char *tcp_send(const struct net_call *call, uint8_t flags, uint16_t local,
                            uint32_t sequence)
{
    struct tcp_header tcp = { .source = swap16(local),
                              .destination = swap16(call->port),
                              .sequence = swap32(sequence),
                              .words = 5 << 4,
                              .flags = flags,
                              .window = swap16(1024) };

    return ip_send(call->guest, IP_TCP, call->address, &tcp, sizeof(tcp),
                   offsetof(struct tcp_header, checksum));
}

/* net:tcp:IP:PORT sends a SYN and prints open, refused or timeout. */
static bool net_tcp(const struct net_call *call)
{
    uint32_t sequence = (uint32_t)cpu_cycles();
    uint16_t local = (uint16_t)(LOCAL_PORT + sequence % 20000);
    uint64_t deadline = clock_ns() + REPLY_TIMEOUT;
    const char *result = tcp_send(call, TCP_SYN, local, sequence);

    while (result == NULL) {
        const uint8_t *body;
        uint16_t count;
        const struct ipv4_header *ip = ip_receive(call->guest, deadline, &body, &count);
        const struct tcp_header *tcp = (const struct tcp_header *)body;

        if (ip == NULL) {
            result = "timeout";
        } else if (ip->protocol == IP_TCP && count >= sizeof(*tcp) &&
                   swap32(ip->source) == call->address && tcp->source == swap16(call->port) &&
                   tcp->destination == swap16(local)) {
            result = (tcp->flags & TCP_RESET) != 0 ? "refused" : "open";
            if ((tcp->flags & TCP_RESET) == 0)
                (void)tcp_send(call, TCP_RESET, local, sequence + 1);
        }
    }
    console_print("net tcp %i %u %s\n", call->address, (uint64_t)call->port, result);
    return true;
}

static const struct net_verb {
    const char *name;
    bool address; /* which arguments follow */
    bool port;
    bool text;
    bool (*run)(const struct net_call *call); /* false: usage */
} verbs[] = {
    { "mac", false, false, false, net_mac },   { "arp", true, false, false, net_arp },
    { "dhcp", false, false, false, net_dhcp }, { "echo", false, false, false, net_echo },
    { "send", false, false, true, net_send },  { "long", false, false, true, net_long },
    { "ping", true, false, false, net_ping },  { "udp", true, true, true, net_udp },
    { "tcp", true, true, false, net_tcp },
};

/* Takes the verb's arguments; false if they are not as it wants them. */
static bool take_arguments(const struct net_verb *verb, char **arguments, unsigned count,
                           struct net_call *call)
{
    uint64_t port = 0;
    unsigned at = 0;

    if (count != (unsigned)verb->address + verb->port + verb->text)
        return false;
    if (verb->address && !text_ipv4(arguments[at++], &call->address))
        return false;
    if (verb->port && (!text_number(arguments[at++], &port) || port > 65535))
        return false;
    call->port = (uint16_t)port;
    if (verb->text)
        call->text = arguments[at];
    return true;
}

void net_run(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    struct net_call call = { .guest = guest };

    (void)index;
    for (unsigned i = 0; i < sizeof(verbs) / sizeof(verbs[0]) && count > 0; i++) {
        if (!text_equal(arguments[0], verbs[i].name))
            continue;
        if (!take_arguments(&verbs[i], arguments + 1, count - 1, &call))
            break;
        if (!card_open() || verbs[i].run(&call))
            return;
        break;
    }
    console_print("net usage\n");
}
