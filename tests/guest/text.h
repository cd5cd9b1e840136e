/* text.h - memory and string helpers, and parsers for the words of the command line. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *memcpy(void *to, const void *from, size_t count);
void *memset(void *to, int value, size_t count);
int memcmp(const void *left, const void *right, size_t count);

bool text_equal(const char *left, const char *right);
/* Returns what follows prefix in text, or NULL. */
const char *text_after(const char *text, const char *prefix);
/* Cuts text in place at each separator; empty pieces between are kept.  Returns the count. */
unsigned text_split(char *text, char separator, char **pieces, unsigned max);

/* Each takes all of text, "0x" for hexadecimal numbers; outputs are untouched on failure. */
bool text_number(const char *text, uint64_t *ret_number);
bool text_ipv4(const char *text, uint32_t *ret_address); /* host byte order */
bool text_mac(const char *text, uint8_t ret_mac[6]);
/* Hexadecimal digits without separators; returns the bytes, or -1. */
int text_hex(const char *text, uint8_t *bytes, unsigned max);
