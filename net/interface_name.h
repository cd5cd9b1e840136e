/* interface_name.h - names of our bridges and taps, from instance numbers.  Pure; any thread.
 *
 * bridge "<prefix>-b<network instance, hex>", tap "<prefix>-<vm instance, hex>-<index, hex digit>".
 * A prefix has no '-', so names of agents with other prefixes never match, even if one prefix
 * begins with the other; the firewall matches "<prefix>-*".  At most 15 characters. */
#pragma once
#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

#define INTERFACE_PREFIX_MAX 4  /* characters of [a-z0-9], the first a letter */
#define NIC_INDEX_MAX        15 /* one hex digit */

enum interface_kind { INTERFACE_OTHER, INTERFACE_BRIDGE, INTERFACE_TAP };

bool interface_prefix_is_valid(const char *prefix);
void network_bridge_name(const char *prefix, uint32_t network_instance, char ret_name[IFNAMSIZ]);
void nic_tap_name(const char *prefix, uint32_t vm_instance, uint8_t index, char ret_name[IFNAMSIZ]);
/* Whose it is: INTERFACE_OTHER unless `name` is exactly what the functions above make. */
enum interface_kind interface_name_parse(const char *prefix, const char *name,
                                         uint32_t *ret_instance, uint8_t *ret_index);
