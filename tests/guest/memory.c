/* memory.c - see memory.h.  Intel SDM volume 3, 4.5: four levels, 2 MiB leaves. */
#include "tests/guest/memory.h"

#define ENTRY_COUNT   512
#define ENTRY_PRESENT 0x01
#define ENTRY_TABLE   0x27 /* present, writable, user, accessed */
#define ENTRY_LARGE   0xe7 /* and dirty, 2 MiB */
#define ENTRY_ADDRESS 0x000ffffffffff000
#define LARGE_BYTES   (UINT64_C(1) << 21)
#define SPARE_TABLES  64

typedef uint64_t page_table[ENTRY_COUNT] __attribute__((aligned(4096)));

extern page_table pml4; /* start.S */

static page_table spare[SPARE_TABLES];
static unsigned spare_used;

/* Returns the table below entry, made if missing; NULL if none is left. */
static volatile uint64_t *table_below(volatile uint64_t *entry)
{
    if ((*entry & ENTRY_PRESENT) == 0) {
        if (spare_used == SPARE_TABLES)
            return NULL;
        *entry = (uint64_t)(uintptr_t)spare[spare_used++] | ENTRY_TABLE;
    }
    return (volatile uint64_t *)(uintptr_t)(*entry & ENTRY_ADDRESS);
}

void *memory_map(uint64_t address, uint64_t bytes)
{
    uint64_t page = address & ~(LARGE_BYTES - 1);

    for (; page < address + bytes; page += LARGE_BYTES) {
        volatile uint64_t *table = pml4;

        for (int shift = 39; shift > 21; shift -= 9) {
            table = table_below(&table[page >> shift & (ENTRY_COUNT - 1)]);
            if (table == NULL)
                return NULL;
        }
        if ((table[page >> 21 & (ENTRY_COUNT - 1)] & ENTRY_PRESENT) == 0)
            table[page >> 21 & (ENTRY_COUNT - 1)] = page | ENTRY_LARGE;
    }
    return (void *)(uintptr_t)address;
}
