#include "vmm/mmio_bus.h"

#include <string.h>

void bus_add(struct bus *bus, uint64_t start, uint64_t size, bus_access_fn *access, void *device)
{
    bus->ranges[bus->count++] = (struct bus_range){ start, size, access, device };
}

/* Who answers the whole of [address, address+length); NULL if nobody does. */
static const struct bus_range *bus_find(const struct bus *bus, uint64_t address, unsigned length)
{
    if (length == 0 || length > 8 || (length & (length - 1)) != 0)
        return NULL;
    for (size_t i = 0; i < bus->count; i++) {
        const struct bus_range *range = &bus->ranges[i];
        uint64_t offset = address - range->start; /* beyond any size if it is below */

        if (offset < range->size && length <= range->size - offset)
            return range;
    }
    return NULL;
}

void bus_read(const struct bus *bus, uint64_t address, void *data, unsigned length)
{
    const struct bus_range *range = bus_find(bus, address, length);
    uint64_t value = UINT64_MAX;

    if (range)
        value = range->access(range->device, address - range->start, length, NULL);
    memcpy(data, &value, length <= 8 ? length : 8);
}

void bus_write(const struct bus *bus, uint64_t address, const void *data, unsigned length)
{
    const struct bus_range *range = bus_find(bus, address, length);
    uint64_t value = 0;

    if (!range)
        return;
    memcpy(&value, data, length);
    (void)range->access(range->device, address - range->start, length, &value);
}
