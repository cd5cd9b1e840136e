#include "vmm/hotplug.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include "base/error.h"
#include "base/loop.h"
#include "vmm/mmio_bus.h"
#include "vmm/platform.h"
#include "vmm/power.h"
#include "vmm/transfer.h"

/* A bit for each slot. */
struct hotplug {
    struct power *power; /* borrowed, as the loop */
    struct loop *loop;
    hotplug_ejected_fn *ejected_fn;
    void *context;
    atomic_uint filled, emptying; /* read and clear */
    atomic_uint asked;            /* since the slot was filled */
    atomic_uint ejected;          /* and not yet seen by the loop */
};

static void run_ejected(void *context)
{
    struct hotplug *hotplug = context;
    unsigned slots = atomic_exchange(&hotplug->ejected, 0);

    for (unsigned slot = 0; slots != 0; slot++, slots >>= 1)
        if (slots & 1)
            hotplug->ejected_fn(hotplug->context, slot);
}

/* What nobody asked for stays: a guest that has switched a slot off can switch it on again. */
static void eject(struct hotplug *hotplug, unsigned slots)
{
    slots &= atomic_fetch_and(&hotplug->asked, ~slots);
    if (slots != 0 && atomic_fetch_or(&hotplug->ejected, slots) == 0 &&
        loop_post(hotplug->loop, run_ejected, hotplug) < 0) {
        /* Memory is short: it is asked again, and answers again. */
        atomic_fetch_or(&hotplug->asked, atomic_exchange(&hotplug->ejected, 0));
    }
}

static uint64_t hotplug_access(void *device, uint64_t offset, unsigned width,
                               const uint64_t *written)
{
    struct hotplug *hotplug = device;
    uint64_t port = PLATFORM_PORT_HOTPLUG + offset;

    (void)width;
    if (written && port == PLATFORM_PORT_HOTPLUG_EJECT)
        eject(hotplug, (unsigned)*written);
    else if (!written && port == PLATFORM_PORT_HOTPLUG_FILLED)
        return atomic_exchange(&hotplug->filled, 0);
    else if (!written && port == PLATFORM_PORT_HOTPLUG_EMPTY)
        return atomic_exchange(&hotplug->emptying, 0);
    return 0;
}

int hotplug_new(struct bus *ports, struct power *power, struct loop *loop,
                hotplug_ejected_fn *ejected, void *context, struct hotplug **ret_hotplug,
                struct error *err)
{
    struct hotplug *hotplug = calloc(1, sizeof *hotplug);

    if (!hotplug)
        return error_set(err, ENOMEM, "hotplug registers");
    hotplug->power = power;
    hotplug->loop = loop;
    hotplug->ejected_fn = ejected;
    hotplug->context = context;
    bus_add(ports, PLATFORM_PORT_HOTPLUG, PLATFORM_PORT_HOTPLUG_SIZE, hotplug_access, hotplug);
    *ret_hotplug = hotplug;
    return 0;
}

void hotplug_filled(struct hotplug *hotplug, unsigned slot)
{
    /* What was asked, and answered, was of its predecessor. */
    atomic_fetch_and(&hotplug->emptying, ~(1u << slot));
    atomic_fetch_and(&hotplug->asked, ~(1u << slot));
    atomic_fetch_and(&hotplug->ejected, ~(1u << slot));
    atomic_fetch_or(&hotplug->filled, 1u << slot);
    power_notify(hotplug->power, GED_EVENT_PCI_HOTPLUG);
}

void hotplug_ask(struct hotplug *hotplug, unsigned slot)
{
    atomic_fetch_or(&hotplug->asked, 1u << slot);
    atomic_fetch_or(&hotplug->emptying, 1u << slot);
    power_notify(hotplug->power, GED_EVENT_PCI_HOTPLUG);
}

void hotplug_transfer(struct hotplug *hotplug, struct transfer *transfer)
{
    uint32_t filled = atomic_load(&hotplug->filled);

    transfer_item(transfer, "filled slots", &filled, sizeof filled);
    atomic_store(&hotplug->filled, filled);
}
