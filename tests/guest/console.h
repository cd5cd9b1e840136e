/* console.h - lines of text on COM1, polled (16550: 16 bytes go out for each "transmitter empty").
 */
#pragma once
#include <stdint.h>

/* The rest of the first line, whose 'r' start.S has sent; turns the FIFO on. */
void console_ready(void);
/* Understands %s %c %u (64 bits) %x (64 bits) %b (a byte, two digits) %i (IPv4, host order) %m
 * (MAC) %%. Pass (uint64_t) for %u and %x.  Sent at each newline. */
void console_print(const char *format, ...);
void console_bytes(const char *bytes, uint64_t count);
