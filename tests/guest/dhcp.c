/* dhcp.c - see dhcp.h. */
#include <stddef.h>
#include "tests/guest/apic.h"
#include "tests/guest/card.h"
#include "tests/guest/console.h"
#include "tests/guest/cpu.h"
#include "tests/guest/dhcp.h"
#include "tests/guest/guest.h"
#include "tests/guest/ip.h"
#include "tests/guest/packet.h"
#include "tests/guest/text.h"

#define DHCP_COOKIE    0x63825363
#define DHCP_BROADCAST 0x8000
#define DHCP_TRIES     4
#define DHCP_TRY       (2 * SECOND)

enum dhcp_type {
    DHCP_DISCOVER = 1,
    DHCP_OFFER = 2,
    DHCP_REQUEST = 3,
    DHCP_ACK = 5,
    DHCP_NAK = 6,
};

enum dhcp_option {
    OPTION_MASK = 1,
    OPTION_ROUTER = 3,
    OPTION_DNS = 6,
    OPTION_ADDRESS = 50,
    OPTION_LEASE = 51,
    OPTION_TYPE = 53,
    OPTION_SERVER = 54,
    OPTION_WANTED = 55,
    OPTION_END = 255,
};

struct dhcp_message {
    struct udp_header udp;
    uint8_t operation;
    uint8_t hardware;
    uint8_t hardware_bytes;
    uint8_t hops;
    uint32_t transaction;
    uint16_t seconds;
    uint16_t flags;
    uint32_t client;
    uint32_t yours;
    uint32_t next_server;
    uint32_t relay;
    uint8_t mac[16];
    uint8_t names[192];
    uint32_t cookie;
    uint8_t options[64];
} __attribute__((packed));

#define DHCP_MIN_BYTES offsetof(struct dhcp_message, options)

struct dhcp_lease { /* host byte order */
    uint8_t type;
    uint32_t address;
    uint32_t server;
    uint32_t mask;
    uint32_t router;
    uint32_t dns;
    uint32_t seconds;
};

static uint8_t *put_option(uint8_t *at, enum dhcp_option option, const void *value, uint8_t bytes)
{
    at[0] = (uint8_t)option;
    at[1] = bytes;
    memcpy(at + 2, value, bytes);
    return at + 2 + bytes;
}

static const char *dhcp_send(struct guest *guest, uint32_t transaction, enum dhcp_type type,
                             const struct dhcp_lease *offer)
{
    static const uint8_t wanted[] = { OPTION_MASK, OPTION_ROUTER, OPTION_DNS, OPTION_LEASE };
    struct dhcp_message message;
    uint8_t *at = message.options;
    uint8_t type_byte = (uint8_t)type;
    uint32_t address = swap32(offer->address);
    uint32_t server = swap32(offer->server);

    memset(&message, 0, sizeof(message));
    message.udp.source = swap16(PORT_BOOTPC);
    message.udp.destination = swap16(PORT_BOOTPS);
    message.udp.length = swap16(sizeof(message));
    message.operation = 1;
    message.hardware = 1;
    message.hardware_bytes = 6;
    message.transaction = transaction;
    message.flags = swap16(DHCP_BROADCAST);
    message.cookie = swap32(DHCP_COOKIE);
    memcpy(message.mac, ip_mac(guest), 6);
    at = put_option(at, OPTION_TYPE, &type_byte, 1);
    if (type == DHCP_REQUEST) {
        at = put_option(at, OPTION_ADDRESS, &address, 4);
        at = put_option(at, OPTION_SERVER, &server, 4);
    }
    at = put_option(at, OPTION_WANTED, wanted, sizeof(wanted));
    *at = OPTION_END;
    return ip_send(guest, IP_UDP, IPV4_BROADCAST, &message, sizeof(message),
                   offsetof(struct udp_header, checksum));
}

static void parse_options(const uint8_t *options, uint32_t bytes, struct dhcp_lease *lease)
{
    uint32_t at = 0;

    while (at + 2 <= bytes && options[at] != OPTION_END) {
        uint8_t option = options[at];
        uint8_t length = options[at + 1];
        uint32_t value = 0;

        if (option == 0) { /* padding */
            at++;
            continue;
        }
        if (at + 2 + length > bytes)
            return;
        if (length >= 4)
            memcpy(&value, &options[at + 2], 4);
        value = swap32(value);
        switch (option) {
        case OPTION_TYPE:
            lease->type = options[at + 2];
            break;
        case OPTION_MASK:
            lease->mask = value;
            break;
        case OPTION_ROUTER:
            lease->router = value;
            break;
        case OPTION_DNS:
            lease->dns = value;
            break;
        case OPTION_LEASE:
            lease->seconds = value;
            break;
        case OPTION_SERVER:
            lease->server = value;
            break;
        default:
            break;
        }
        at += 2u + length;
    }
}

/* Waits for an answer to our transaction; its type is 0 if none came. */
static void dhcp_receive(struct guest *guest, uint32_t transaction, struct dhcp_lease *ret_lease)
{
    uint64_t deadline = clock_ns() + DHCP_TRY;
    const struct ipv4_header *ip;
    const uint8_t *body;
    uint16_t count;

    memset(ret_lease, 0, sizeof(*ret_lease));
    while ((ip = ip_receive(guest, deadline, &body, &count)) != NULL) {
        const struct dhcp_message *message = (const struct dhcp_message *)body;

        if (ip->protocol != IP_UDP || count < DHCP_MIN_BYTES ||
            message->udp.destination != swap16(PORT_BOOTPC) || message->operation != 2 ||
            message->transaction != transaction || message->cookie != swap32(DHCP_COOKIE))
            continue;
        ret_lease->address = swap32(message->yours);
        parse_options(message->options, count - (uint32_t)DHCP_MIN_BYTES, ret_lease);
        return;
    }
}

/* One round; returns the type of the last answer. */
static uint8_t dhcp_try(struct guest *guest, struct dhcp_lease *ret_lease)
{
    uint32_t transaction = (uint32_t)cpu_cycles();
    struct dhcp_lease offer = { .type = 0 };

    (void)dhcp_send(guest, transaction, DHCP_DISCOVER, &offer);
    dhcp_receive(guest, transaction, &offer);
    if (offer.type != DHCP_OFFER)
        return offer.type;
    (void)dhcp_send(guest, transaction, DHCP_REQUEST, &offer);
    dhcp_receive(guest, transaction, ret_lease);
    return ret_lease->type;
}

void dhcp_run(struct guest *guest)
{
    struct dhcp_lease lease;
    uint8_t type = 0;

    guest->address = 0;
    for (int i = 0; i < DHCP_TRIES && type != DHCP_ACK && type != DHCP_NAK; i++)
        type = dhcp_try(guest, &lease);
    if (type != DHCP_ACK) {
        console_print("net dhcp %s\n", type == DHCP_NAK ? "refused" : "timeout");
        return;
    }
    guest->address = lease.address;
    guest->mask = lease.mask;
    guest->gateway = lease.router;
    console_print("net dhcp ok ip %i mask %i gateway %i dns %i lease %u\n", lease.address,
                  lease.mask, lease.router, lease.dns, (uint64_t)lease.seconds);
}
