/* request_table.c - see request_table.h. */
#include "api/request_table.h"
#include "api/request.h"

static struct request **slot_of(struct request_table *table, uint64_t id)
{
    struct request **slot = &table->slots[id & (REQUEST_TABLE_SIZE - 1)];

    while (*slot && (*slot)->id != id)
        slot = &(*slot)->next;
    return slot;
}

struct request *request_table_find(struct request_table *table, uint64_t id)
{
    return *slot_of(table, id);
}

void request_table_add(struct request_table *table, struct request *request)
{
    *slot_of(table, request->id) = request;
    table->count++;
}

void request_table_remove(struct request_table *table, const struct request *request)
{
    *slot_of(table, request->id) = request->next;
    table->count--;
}

void request_table_each(struct request_table *table,
                        void (*visit)(void *context, struct request *request), void *context)
{
    for (size_t i = 0; i < REQUEST_TABLE_SIZE; i++) {
        struct request *next;

        for (struct request *request = table->slots[i]; request; request = next) {
            next = request->next;
            visit(context, request);
        }
    }
}
