/* card.h - the first virtio-net device: frames in and out.  Virtio 1.2, 5.1. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct guest;

#define FRAME_MAX 1514
/* Of zeroes behind a frame, for net:long. */
#define CARD_LONG_MAX 4000

/* Once; later calls return the same.  Prints "net 0 absent" and returns false if there is none. */
bool card_open(void);
const uint8_t *card_mac(void);
/* Where to build the next frame: FRAME_MAX zeroed bytes. */
uint8_t *card_frame(void);
/* Sends the first bytes of card_frame(), unpadded; false if the device did not take them in time.
 */
bool card_send(uint32_t bytes);
/* Next received frame, or NULL after timeout_ns (apic.h's WAIT_FOREVER: never).  Valid until the
 * next call. */
uint8_t *card_receive(struct guest *guest, uint64_t timeout_ns, uint32_t *ret_bytes);
