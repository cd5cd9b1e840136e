#include "agent/resource.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/error.h"

/* First index whose id is >= `id` (or > `id`). */
static size_t bound(const struct resource_table *table, const char *id, bool greater)
{
    size_t low = 0;
    size_t high = table->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(table->items[middle]->id, id);

        if (order < 0 || (greater && order == 0))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct resource *resource_find(const struct resource_table *table, const char *id)
{
    size_t i = bound(table, id, /* greater= */ false);

    return i < table->count && strcmp(table->items[i]->id, id) == 0 ? table->items[i] : NULL;
}

size_t resource_after(const struct resource_table *table, const char *id)
{
    return bound(table, id, /* greater= */ true);
}

int resource_insert(struct resource_table *table, struct resource *resource)
{
    size_t i;

    if (table->count == table->room) {
        size_t room = table->room ? 2 * table->room : 16;
        struct resource **items = realloc(table->items, room * sizeof(struct resource *));

        if (!items)
            return -ENOMEM;
        table->items = items;
        table->room = room;
    }
    i = bound(table, resource->id, /* greater= */ false);
    memmove(table->items + i + 1, table->items + i, (table->count - i) * sizeof(struct resource *));
    table->items[i] = resource;
    table->count++;
    return 0;
}

void resource_remove(struct resource_table *table, const struct resource *resource)
{
    size_t i = bound(table, resource->id, /* greater= */ false);

    if (i >= table->count || table->items[i] != resource)
        return;
    table->count--;
    memmove(table->items + i, table->items + i + 1, (table->count - i) * sizeof(struct resource *));
}

void resource_free(struct resource *resource)
{
    json_decref(resource->spec);
    free(resource);
}

const char *resource_kind_name(enum resource_kind kind)
{
    static const char *const names[RESOURCE_KIND_COUNT] = {
        [RESOURCE_IMAGE] = "image",       [RESOURCE_VOLUME] = "volume",
        [RESOURCE_NETWORK] = "network",   [RESOURCE_VM] = "vm",
        [RESOURCE_SNAPSHOT] = "snapshot", [RESOURCE_OPERATION] = "operation",
    };

    return names[kind];
}

int resource_check_condition(const struct node_condition *condition, int64_t generation,
                             const char *uid, struct error *err)
{
    if (condition->if_generation == 0 ||
        (condition->if_generation == generation &&
         strncmp(uid, condition->if_uid, strlen(condition->if_uid)) == 0))
        return 0;
    return error_set(err, ESTALE, "the generation is %lld, the uid %s", (long long)generation,
                     uid[0] ? uid : "none");
}

int resource_not_found(enum resource_kind kind, const char *id, struct error *err)
{
    return error_set(err, ENOENT, "there is no %s %s", resource_kind_name(kind), id);
}

int64_t timestamp_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void timestamp_format(int64_t ms, char ret_text[TIMESTAMP_TEXT])
{
    time_t seconds = (time_t)(ms / 1000);
    struct tm utc;
    char date[24];

    gmtime_r(&seconds, &utc);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(ret_text, TIMESTAMP_TEXT, "%s.%03dZ", date, (int)(ms % 1000));
}
