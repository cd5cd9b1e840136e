/* request_table.c - see request_table.h. */
#include "api/request_table.h"
#include <errno.h>
#include <string.h>
#include "api/access.h"
#include "api/problem.h"
#include "api/request.h"
#include "base/error.h"

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

int request_table_check_share(const struct request_table *table, const struct request *request,
                              const struct stream_share *share, struct error *err)
{
    size_t all = 0, of_vm = 0;

    for (size_t i = 0; i < REQUEST_TABLE_SIZE; i++) {
        for (const struct request *other = table->slots[i]; other; other = other->next) {
            if (!other->is_stream || other->route != request->route ||
                !caller_is_same(&other->caller, &request->caller))
                continue;
            all++;
            of_vm += strcmp(other->parameter, request->parameter) == 0;
        }
    }
    if (share->of_vm > 0 && of_vm >= share->of_vm)
        return error_set(err, PROBLEM_TOO_MANY_STREAMS,
                         "one caller may have %zu %s of one VM: close one, or try again later",
                         share->of_vm, share->what);
    if (all >= share->all)
        return error_set(err, PROBLEM_TOO_MANY_STREAMS,
                         "one caller may have %zu %s: close one, or try again later", share->all,
                         share->what);
    return 0;
}
