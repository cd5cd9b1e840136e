/* console.c - see console.h. */
#include <stdarg.h>
#include "tests/guest/console.h"
#include "tests/guest/cpu.h"

#define FIFO_BYTES     16
#define FIFO_CONTROL   (COM1_PORT + 2)
#define LINE_STATUS    (COM1_PORT + 5)
#define STATUS_EMPTY   0x20
#define POLLS_MAX      1000000 /* a dead port must not hang the guest */
#define CONSOLE_BUFFER 256

static struct {
    char bytes[CONSOLE_BUFFER];
    unsigned count;
} pending;

static void console_wait_empty(void)
{
    for (int i = 0; i < POLLS_MAX; i++) {
        if ((port_read8(LINE_STATUS) & STATUS_EMPTY) != 0)
            return;
        cpu_pause();
    }
}

void console_bytes(const char *bytes, uint64_t count)
{
    while (count > 0) {
        uint64_t chunk = count < FIFO_BYTES ? count : FIFO_BYTES;

        console_wait_empty();
        port_write_string(COM1_PORT, bytes, chunk);
        bytes += chunk;
        count -= chunk;
    }
}

void console_ready(void)
{
    console_wait_empty();
    port_write8(FIFO_CONTROL, 0x01);
    port_write_string(COM1_PORT, "eady\n", 5);
}

static void console_flush(void)
{
    console_bytes(pending.bytes, pending.count);
    pending.count = 0;
}

static void put(char c)
{
    pending.bytes[pending.count++] = c;
    if (c == '\n' || pending.count == CONSOLE_BUFFER)
        console_flush();
}

static void put_number(uint64_t number, unsigned base, unsigned width)
{
    char digits[24];
    unsigned count = 0;

    do {
        digits[count++] = "0123456789abcdef"[number % base];
        number /= base;
    } while (number > 0 || count < width);
    while (count > 0)
        put(digits[--count]);
}

static void put_text(const char *text)
{
    while (*text != '\0')
        put(*text++);
}

static void put_ipv4(uint32_t address)
{
    for (int shift = 24; shift >= 0; shift -= 8) {
        put_number(address >> shift & 0xff, 10, 1);
        if (shift > 0)
            put('.');
    }
}

static void put_mac(const uint8_t *mac)
{
    for (int i = 0; i < 6; i++) {
        if (i > 0)
            put(':');
        put_number(mac[i], 16, 2);
    }
}

void console_print(const char *format, ...)
{
    va_list values;

    va_start(values, format);
    for (; *format != '\0'; format++) {
        if (*format != '%') {
            put(*format);
            continue;
        }
        switch (*++format) {
        case 's':
            put_text(va_arg(values, const char *));
            break;
        case 'c':
            put((char)va_arg(values, int));
            break;
        case 'u':
            put_number(va_arg(values, uint64_t), 10, 1);
            break;
        case 'x':
            put_number(va_arg(values, uint64_t), 16, 1);
            break;
        case 'b':
            put_number(va_arg(values, unsigned) & 0xff, 16, 2);
            break;
        case 'i':
            put_ipv4(va_arg(values, uint32_t));
            break;
        case 'm':
            put_mac(va_arg(values, const uint8_t *));
            break;
        default:
            put(*format);
        }
    }
    va_end(values);
}
