#include "agent/console_cursor.h"

#include "vmm/stats_page.h"

/* The byte that is being written just now takes the place of the oldest. */
#define READABLE_BYTES (CONSOLE_RING_BYTES - 1)

void console_cursor_begin(struct console_cursor *cursor, uint64_t start_ns, uint64_t total,
                          uint64_t tail)
{
    uint64_t size = total < READABLE_BYTES ? total : READABLE_BYTES;

    *cursor = (struct console_cursor){ .start_ns = start_ns,
                                       .total = total,
                                       .next = total - (tail < size ? tail : size) };
}

void console_cursor_see(struct console_cursor *cursor, uint64_t start_ns, uint64_t total)
{
    if (start_ns != cursor->start_ns || total < cursor->total) {
        cursor->lost += cursor->total - cursor->next;
        cursor->next = 0;
        cursor->start_ns = start_ns;
    }
    cursor->total = total;
    if (total - cursor->next > READABLE_BYTES) {
        cursor->lost += total - READABLE_BYTES - cursor->next;
        cursor->next = total - READABLE_BYTES;
    }
}

size_t console_cursor_piece(const struct console_cursor *cursor, size_t max, size_t *ret_offset)
{
    size_t offset = (size_t)(cursor->next % CONSOLE_RING_BYTES);
    uint64_t size = cursor->total - cursor->next;

    if (size > CONSOLE_RING_BYTES - offset)
        size = CONSOLE_RING_BYTES - offset;
    *ret_offset = offset;
    return size < max ? (size_t)size : max;
}
