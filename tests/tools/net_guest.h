/* net_guest.h - a guest behind a tap whose fd is in our hands: frames out, frames in. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "net/network.h"

#define FRAME_MAX 2048

struct guest {
    int fd; /* the tap's, owned */
    uint32_t gateway;
    uint8_t gateway_mac[MAC_BYTES];
    uint8_t mac[MAC_BYTES]; /* what it has inside: the nic's, unless it is forked */
    uint32_t ipv4;
    struct nic_config nic;
};

struct frame {
    uint8_t bytes[FRAME_MAX];
    size_t size;
};

extern const uint8_t broadcast_mac[MAC_BYTES];

/* Building, from the outside in; each appends. */
void frame_start(struct frame *frame, const uint8_t to[MAC_BYTES], const uint8_t from[MAC_BYTES],
                 uint16_t type);
void frame_put(struct frame *frame, const void *bytes, size_t size);
void frame_ipv4(struct frame *frame, uint32_t from, uint32_t to, uint8_t protocol, size_t payload);
void frame_udp(struct frame *frame, uint32_t from, uint16_t from_port, uint32_t to,
               uint16_t to_port, const void *bytes, size_t size);
void frame_tcp_syn(struct frame *frame, uint32_t from, uint16_t from_port, uint32_t to,
                   uint16_t to_port);
void frame_ping(struct frame *frame, uint32_t from, uint32_t to);
void frame_arp(struct frame *frame, uint16_t operation, const uint8_t sender_mac[MAC_BYTES],
               uint32_t sender, uint32_t target);

/* A whole frame with a text as the UDP payload, as the guest would send it. */
void guest_udp(const struct guest *guest, struct frame *frame, const uint8_t to_mac[MAC_BYTES],
               uint32_t to, uint16_t to_port, const char *text);
/* DHCP of this type (1 discover, 3 request) for this hardware address. */
void guest_dhcp(const struct guest *guest, struct frame *frame, uint8_t type,
                const uint8_t hardware[MAC_BYTES], uint32_t requested);

void guest_send(const struct guest *guest, const struct frame *frame);
/* Next frame within the time; false if none came.  ARP for its own address is answered. */
bool guest_receive(const struct guest *guest, struct frame *frame, int timeout_ms);
void guest_drain(const struct guest *guest);
/* Reads until a frame holds the text or the time is over; true with the frame if it came. */
bool guest_hears(const struct guest *guest, const char *text, struct frame *frame, int timeout_ms);
bool frame_holds(const struct frame *frame, const char *text);

struct dhcp_answer {
    uint8_t type; /* 2 offer, 5 ack, 6 nak; 0 = none came */
    uint32_t address;
    uint32_t router; /* 0 = none */
    uint32_t dns;
    char domain[80];
};
/* Sends and waits for the answer with our hardware address. */
struct dhcp_answer guest_asks_dhcp(const struct guest *guest, uint8_t type, uint32_t requested);
/* Asks the gateway's DNS for the name's address; bytes of the question. */
size_t guest_asks_dns(const struct guest *guest, const char *name);
/* Address of the name by the gateway's DNS; 0 if there is no answer or no such name. */
uint32_t guest_resolves(const struct guest *guest, const char *name);
uint32_t guest_resolves_within(const struct guest *guest, const char *name, int timeout_ms);
/* Does somebody answer ARP for the address, with the gateway's MAC? */
bool guest_resolves_arp(const struct guest *guest, uint32_t target, int timeout_ms);
/* How many of so many TCP SYNs (at most 64) to this port of the gateway, each from another port,
 * got any answer? */
unsigned guest_connects(const struct guest *guest, uint16_t port, unsigned times);
