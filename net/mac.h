/* mac.h - Ethernet addresses.  Pure; any thread. */
#pragma once
#include <stdint.h>

struct error;

#define MAC_BYTES 6
#define MAC_TEXT  18 /* "02:00:00:00:00:00" and its NUL */

/* Six pairs of hex digits with colons; refuses the zero address and group addresses (multicast,
 * broadcast).  0, or -EINVAL. */
int mac_parse(const char *text, uint8_t ret_mac[MAC_BYTES], struct error *err);
void mac_format(const uint8_t mac[MAC_BYTES], char ret_text[MAC_TEXT]);

/* Locally administered, one for each (instance, index): 02, the VM's instance, the index. */
void mac_derive(uint32_t vm_instance, uint8_t index, uint8_t ret_mac[MAC_BYTES]);
/* A bridge's own: 06, the network's instance, 0; no guest may have it. */
void mac_derive_bridge(uint32_t network_instance, uint8_t ret_mac[MAC_BYTES]);
