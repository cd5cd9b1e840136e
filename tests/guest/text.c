/* text.c - see text.h. */
#include "tests/guest/text.h"

void *memcpy(void *to, const void *from, size_t count)
{
    void *start = to;

    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    return start;
}

void *memset(void *to, int value, size_t count)
{
    void *start = to;

    __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(value) : "memory");
    return start;
}

int memcmp(const void *left, const void *right, size_t count)
{
    const uint8_t *a = left;
    const uint8_t *b = right;

    for (size_t i = 0; i < count; i++) {
        if (a[i] != b[i])
            return a[i] < b[i] ? -1 : 1;
    }
    return 0;
}

bool text_equal(const char *left, const char *right)
{
    const char *rest = text_after(left, right);

    return rest != NULL && *rest == '\0';
}

const char *text_after(const char *text, const char *prefix)
{
    for (; *prefix != '\0'; text++, prefix++) {
        if (*text != *prefix)
            return NULL;
    }
    return text;
}

unsigned text_split(char *text, char separator, char **pieces, unsigned max)
{
    unsigned count = 0;

    while (count < max) {
        pieces[count++] = text;
        while (*text != '\0' && *text != separator)
            text++;
        if (*text == '\0')
            break;
        if (count < max)
            *text++ = '\0';
    }
    return count;
}

static int digit_value(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    if (digit >= 'a' && digit <= 'f')
        return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F')
        return digit - 'A' + 10;
    return -1;
}

/* Reads digits up to end; returns where it stopped, or NULL if there was none or too many. */
static const char *digits_read(const char *text, unsigned base, uint64_t *ret_number)
{
    uint64_t number = 0;
    const char *start = text;

    for (; digit_value(*text) >= 0 && digit_value(*text) < (int)base; text++) {
        if (number > (UINT64_MAX - 15) / base)
            return NULL;
        number = number * base + (unsigned)digit_value(*text);
    }
    if (text == start)
        return NULL;
    *ret_number = number;
    return text;
}

bool text_number(const char *text, uint64_t *ret_number)
{
    const char *hex = text_after(text, "0x");
    uint64_t number;
    const char *end = digits_read(hex != NULL ? hex : text, hex != NULL ? 16 : 10, &number);

    if (end == NULL || *end != '\0')
        return false;
    *ret_number = number;
    return true;
}

bool text_ipv4(const char *text, uint32_t *ret_address)
{
    uint32_t address = 0;

    for (int i = 0; i < 4; i++) {
        uint64_t byte;

        text = digits_read(text, 10, &byte);
        if (text == NULL || byte > 255 || *text != (i < 3 ? '.' : '\0'))
            return false;
        address = address << 8 | (uint32_t)byte;
        text++;
    }
    *ret_address = address;
    return true;
}

bool text_mac(const char *text, uint8_t ret_mac[6])
{
    uint8_t mac[6];

    for (int i = 0; i < 6; i++) {
        uint64_t byte;

        text = digits_read(text, 16, &byte);
        if (text == NULL || byte > 255 || *text != (i < 5 ? ':' : '\0'))
            return false;
        mac[i] = (uint8_t)byte;
        text++;
    }
    memcpy(ret_mac, mac, sizeof(mac));
    return true;
}

int text_hex(const char *text, uint8_t *bytes, unsigned max)
{
    unsigned count = 0;

    for (; text[0] != '\0'; text += 2) {
        if (digit_value(text[0]) < 0 || digit_value(text[1]) < 0 || count == max)
            return -1;
        bytes[count++] = (uint8_t)(digit_value(text[0]) << 4 | digit_value(text[1]));
    }
    return (int)count;
}
