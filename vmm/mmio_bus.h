/* mmio_bus.h - who answers a guest's port or MMIO access.  Two of them exist: ports and memory.
 *
 * Ranges are added by the main thread before the vCPUs run, and stay (PCI looks for its BARs
 * itself). Accesses come from vCPU threads; the handler is called with the owner's own lock rules.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* One access of `width` bytes, 1, 2, 4 or 8, at `offset` from the range's start, never across its
 * end.  `written` is NULL for a read, which returns the answer: all ones where it makes no sense. A
 * write that makes none is dropped; what it returns is not looked at. */
typedef uint64_t bus_access_fn(void *device, uint64_t offset, unsigned width,
                               const uint64_t *written);

#define BUS_RANGES_MAX 16 /* the platform's own, and those of PCI as a whole */

/* One that is all zero has nobody on it. */
struct bus {
    size_t count;
    struct bus_range {
        uint64_t start, size;
        bus_access_fn *access;
        void *device; /* borrowed */
    } ranges[BUS_RANGES_MAX];
};

/* Which ranges there are is told by constants (platform.h): they do not overlap, and are no more
 * than BUS_RANGES_MAX. */
void bus_add(struct bus *bus, uint64_t start, uint64_t size, bus_access_fn *access, void *device);

/* Little-endian bytes, any length 1-8, as KVM gives them.  Nobody there: reads are all ones. */
void bus_read(const struct bus *bus, uint64_t address, void *data, unsigned length);
void bus_write(const struct bus *bus, uint64_t address, const void *data, unsigned length);
