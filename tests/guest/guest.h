/* guest.h - what the words share. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct start_info;

struct guest {
    const struct start_info *info; /* borrowed, where the VMM put it */
    uint64_t rsdp;
    bool watch_power; /* power:watch was given */
    uint64_t button_checked_ns;
    /* ip=A.B.C.D[/N], gw=A.B.C.D, mac=..: 0 or unset if absent; net:dhcp fills the first three. */
    uint32_t address;
    uint32_t gateway;
    uint32_t mask;
    bool has_mac;
    uint8_t mac[6];
};

/* Sleeps until an interrupt or at most timeout_ns.  After power:watch it also powers off when the
 * power button was pressed.  May return early. */
void guest_wait(struct guest *guest, uint64_t timeout_ns);
