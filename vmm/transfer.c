#include "vmm/transfer.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"

#define ROOM_FIRST (64u << 10)

struct item_header {
    uint32_t name; /* its hash */
    uint32_t size;
};

/* FNV-1a. */
static uint32_t hash(const char *name)
{
    uint32_t value = 2166136261u;

    for (; *name; name++)
        value = (value ^ (uint8_t)*name) * 16777619u;
    return value;
}

bool transfer_is_good(const struct transfer *transfer)
{
    return transfer->result == 0;
}

void transfer_refuse(struct transfer *transfer, int code, const char *format, ...)
{
    char text[128];
    va_list arguments;

    if (transfer->result != 0)
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    transfer->result = error_set(transfer->err, code, "snapshot: %s", text);
}

static bool make_room(struct transfer *transfer, size_t size)
{
    size_t room = transfer->room ? transfer->room : ROOM_FIRST;
    uint8_t *bytes;

    while (room - transfer->size < size)
        room *= 2;
    if (room == transfer->room)
        return true;
    bytes = realloc(transfer->bytes, room);
    if (!bytes) {
        transfer_refuse(transfer, ENOMEM, "memory is short");
        return false;
    }
    transfer->bytes = bytes;
    transfer->room = room;
    return true;
}

void transfer_item(struct transfer *transfer, const char *name, void *data, size_t size)
{
    transfer_grown(transfer, name, data, size, size);
}

void transfer_grown(struct transfer *transfer, const char *name, void *data, size_t size,
                    size_t older)
{
    struct item_header header = { hash(name), (uint32_t)size }, found;

    if (transfer->result != 0)
        return;
    if (!transfer->loading) {
        if (!make_room(transfer, sizeof header + size))
            return;
        memcpy(transfer->bytes + transfer->size, &header, sizeof header);
        memcpy(transfer->bytes + transfer->size + sizeof header, data, size);
        transfer->size += sizeof header + size;
        return;
    }
    if (transfer->size - transfer->at < sizeof found + older) {
        transfer_refuse(transfer, EINVAL, "ends before \"%s\"", name);
        return;
    }
    memcpy(&found, transfer->bytes + transfer->at, sizeof found);
    transfer->at += sizeof found;
    if (found.name != header.name || (found.size != size && found.size != older) ||
        found.size > transfer->size - transfer->at) {
        transfer_refuse(transfer, EINVAL, "no \"%s\" of %zu bytes where it is due", name, size);
        return;
    }
    memcpy(data, transfer->bytes + transfer->at, found.size);
    transfer->at += found.size;
}
