#include "net/mac.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/hex.h"

static bool read_pairs(const char *text, uint8_t ret_mac[MAC_BYTES])
{
    if (strlen(text) != MAC_TEXT - 1)
        return false;
    for (int i = 0; i < MAC_BYTES; i++) {
        const char *pair = text + (size_t)i * 3;
        int high = hex_digit(pair[0]);
        int low = hex_digit(pair[1]);

        if (high < 0 || low < 0 || (i < MAC_BYTES - 1 && pair[2] != ':'))
            return false;
        ret_mac[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

int mac_parse(const char *text, uint8_t ret_mac[MAC_BYTES], struct error *err)
{
    static const uint8_t zero[MAC_BYTES];
    uint8_t mac[MAC_BYTES];

    if (!read_pairs(text, mac))
        return error_set(err, EINVAL, "is not a MAC address such as 02:00:00:00:00:01");
    if (mac[0] & 1)
        return error_set(err, EINVAL, "is a group address: the first byte must be even");
    if (memcmp(mac, zero, sizeof mac) == 0)
        return error_set(err, EINVAL, "is the zero address");
    memcpy(ret_mac, mac, sizeof mac);
    return 0;
}

void mac_format(const uint8_t mac[MAC_BYTES], char ret_text[MAC_TEXT])
{
    snprintf(ret_text, MAC_TEXT, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3],
             mac[4], mac[5]);
}

static void fill(uint8_t first, uint32_t instance, uint8_t last, uint8_t ret_mac[MAC_BYTES])
{
    ret_mac[0] = first;
    ret_mac[1] = (uint8_t)(instance >> 24);
    ret_mac[2] = (uint8_t)(instance >> 16);
    ret_mac[3] = (uint8_t)(instance >> 8);
    ret_mac[4] = (uint8_t)instance;
    ret_mac[5] = last;
}

void mac_derive(uint32_t vm_instance, uint8_t index, uint8_t ret_mac[MAC_BYTES])
{
    fill(0x02, vm_instance, index, ret_mac);
}

void mac_derive_bridge(uint32_t network_instance, uint8_t ret_mac[MAC_BYTES])
{
    fill(0x06, network_instance, 0, ret_mac);
}
