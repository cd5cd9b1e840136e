/* console_cursor.h - how far somebody has read in a console ring that a guest goes on writing, over
 * the VM's starts.  Pure; any thread.
 *
 * The figures come from the shared page, so they are not to be trusted: whatever they are, next
 * never lies more than a ring behind total, nor beyond it. */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct console_cursor {
    uint64_t start_ns; /* which start of the VM this is about */
    uint64_t total;    /* bytes written since that start, as last seen */
    uint64_t next;     /* the first one not read; <= total */
    uint64_t lost;     /* bytes overwritten before they were read; the reader sets it back */
};

/* Sets it to the last `tail` bytes there are. */
void console_cursor_begin(struct console_cursor *cursor, uint64_t start_ns, uint64_t total,
                          uint64_t tail);
/* The ring as it is now.  Call it again after having read: if next has changed, what was read may
 * be overwritten, and is among the lost. */
void console_cursor_see(struct console_cursor *cursor, uint64_t start_ns, uint64_t total);
/* The next piece that lies in one: its offset in the ring and size, at most `max`; 0 = all is read.
 */
size_t console_cursor_piece(const struct console_cursor *cursor, size_t max, size_t *ret_offset);
