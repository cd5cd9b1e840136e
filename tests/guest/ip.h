/* ip.h - ARP, ICMP, UDP and TCP's first step over the card.  Addresses are in host byte order. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct guest;
struct ipv4_header;

#define PAYLOAD_MAX 1400

/* Sends protocol's header and data (count bytes at body, checksum field zero) to an address,
 * resolving it first. checksum_at is that field's offset in body.  Returns NULL, or the word to
 * print. */
const char *ip_send(struct guest *guest, uint8_t protocol, uint32_t to, const void *body,
                    uint16_t count, unsigned checksum_at);
/* The next datagram for us that is not answered here, or NULL when deadline_ns (clock_ns()) has
 * passed.  ARP requests, ICMP echo and UDP echo are answered on the way.  *ret_body has *ret_count
 * bytes. */
const struct ipv4_header *ip_receive(struct guest *guest, uint64_t deadline_ns,
                                     const uint8_t **ret_body, uint16_t *ret_count);
/* Asks who has an address; false after one second without an answer. */
bool ip_resolve(struct guest *guest, uint32_t address, uint8_t ret_mac[6]);
/* Our MAC: the card's, or the one of the mac= word. */
const uint8_t *ip_mac(const struct guest *guest);
