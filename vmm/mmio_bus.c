#include "vmm/mmio_bus.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"

#define BUS_RANGES_MAX 64 /* 18 devices with a BAR or two, and the platform's own */

struct bus_range {
    uint64_t start, size;
    const struct bus_ops *ops;
    void *device; /* borrowed */
};

struct bus {
    pthread_rwlock_t lock; /* bus_move against the accesses of other vCPUs */
    size_t count;
    struct bus_range ranges[BUS_RANGES_MAX]; /* sorted by start */
};

int bus_new(struct bus **ret_bus, struct error *err)
{
    struct bus *bus = calloc(1, sizeof *bus);

    if (!bus)
        return error_set(err, ENOMEM, "bus");
    pthread_rwlock_init(&bus->lock, NULL);
    *ret_bus = bus;
    return 0;
}

struct bus *bus_free(struct bus *bus)
{
    if (bus) {
        pthread_rwlock_destroy(&bus->lock);
        free(bus);
    }
    return NULL;
}

/* Index of the first range that ends behind `address`. */
static size_t bus_search(const struct bus *bus, uint64_t address)
{
    size_t low = 0, high = bus->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (address - bus->ranges[middle].start < bus->ranges[middle].size ||
            bus->ranges[middle].start > address)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static int bus_insert(struct bus *bus, const struct bus_range *range, struct error *err)
{
    size_t at = bus_search(bus, range->start);

    if (range->size == 0 || range->start > UINT64_MAX - (range->size - 1))
        return error_set(err, EINVAL, "bus range %#" PRIx64 " wraps", range->start);
    if (at < bus->count && bus->ranges[at].start - range->start < range->size)
        return error_set(err, EEXIST, "bus range %#" PRIx64 " is taken", range->start);
    if (at < bus->count && bus->ranges[at].start < range->start)
        return error_set(err, EEXIST, "bus range %#" PRIx64 " is taken", range->start);
    if (bus->count == BUS_RANGES_MAX)
        return error_set(err, ENOSPC, "more than %d bus ranges", BUS_RANGES_MAX);
    memmove(&bus->ranges[at + 1], &bus->ranges[at], (bus->count - at) * sizeof bus->ranges[0]);
    bus->ranges[at] = *range;
    bus->count++;
    return 0;
}

static void bus_remove_at(struct bus *bus, size_t at)
{
    bus->count--;
    memmove(&bus->ranges[at], &bus->ranges[at + 1], (bus->count - at) * sizeof bus->ranges[0]);
}

int bus_add(struct bus *bus, uint64_t start, uint64_t size, const struct bus_ops *ops, void *device,
            struct error *err)
{
    struct bus_range range = { start, size, ops, device };
    int result;

    pthread_rwlock_wrlock(&bus->lock);
    result = bus_insert(bus, &range, err);
    pthread_rwlock_unlock(&bus->lock);
    return result;
}

int bus_move(struct bus *bus, uint64_t from, uint64_t to, struct error *err)
{
    struct bus_range range;
    int result;
    size_t at;

    pthread_rwlock_wrlock(&bus->lock);
    at = bus_search(bus, from);
    if (at == bus->count || bus->ranges[at].start != from) {
        result = error_set(err, ENOENT, "no bus range starts at %#" PRIx64, from);
    } else {
        range = bus->ranges[at];
        bus_remove_at(bus, at);
        range.start = to;
        result = bus_insert(bus, &range, err);
        if (result < 0) {
            range.start = from;
            (void)bus_insert(bus, &range, NULL); /* its old place is free */
        }
    }
    pthread_rwlock_unlock(&bus->lock);
    return result;
}

/* Who answers the whole of [address, address+length); false if nobody does. */
static bool bus_find(struct bus *bus, uint64_t address, unsigned length, struct bus_range *ret)
{
    bool found = false;
    size_t at;

    if (length == 0 || length > 8 || (length & (length - 1)) != 0)
        return false;
    pthread_rwlock_rdlock(&bus->lock);
    at = bus_search(bus, address);
    if (at < bus->count && bus->ranges[at].start <= address) {
        *ret = bus->ranges[at];
        found =
            address - ret->start <= ret->size - 1 && ret->size - (address - ret->start) >= length;
    }
    pthread_rwlock_unlock(&bus->lock);
    return found;
}

void bus_read(struct bus *bus, uint64_t address, void *data, unsigned length)
{
    uint64_t value = UINT64_MAX;
    struct bus_range range;

    if (bus_find(bus, address, length, &range))
        value = range.ops->read(range.device, address - range.start, length);
    memcpy(data, &value, length <= 8 ? length : 8);
}

void bus_write(struct bus *bus, uint64_t address, const void *data, unsigned length)
{
    struct bus_range range;
    uint64_t value = 0;

    if (!bus_find(bus, address, length, &range))
        return;
    memcpy(&value, data, length);
    range.ops->write(range.device, address - range.start, length, value);
}
