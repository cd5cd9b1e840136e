/* dhcp.h - an address by DHCP (RFC 2131): discover, offer, request, acknowledge. */
#pragma once

struct guest;

/* Fills the guest's address, mask and gateway and prints "net dhcp ok ip .. mask .. gateway .. dns
 * .. lease ..", or "net dhcp timeout" or "net dhcp refused". */
void dhcp_run(struct guest *guest);
