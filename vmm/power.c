#include "vmm/power.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include "base/error.h"
#include "base/loop.h"
#include "vmm/exit_record.h"
#include "vmm/mmio_bus.h"
#include "vmm/platform.h"
#include "vmm/transfer.h"

#define SLEEP_ENABLE      0x20 /* SLP_EN */
#define SLEEP_TYPE(value) ((value) >> 2 & 7)

/* How often what the guest has not read is told once more: while it boots, its interrupt controller
 * forgets what comes to a pin that its driver has not taken yet. */
#define TELL_MS    1000
#define TELL_TIMES 600

#define I8042_RESET 0xfe /* pulse output line 0 */

/* QEMU's docs/specs/pvpanic: the device's byte tells and takes events. */
#define PVPANIC_PANICKED 0x01

struct power {
    struct exit_record *record; /* borrowed */
    int ged_interrupt;          /* borrowed */
    atomic_uint ged_events;     /* GED_EVENT_*; read and clear */
    struct loop *loop;          /* borrowed */
    struct loop_timer *timer;   /* owned; of the next telling */
    unsigned told;              /* since the last event */
};

static uint64_t registers_access(void *device, uint64_t offset, unsigned width,
                                 const uint64_t *written)
{
    struct power *power = device;

    (void)width;
    if (!written) /* SLEEP_STATUS: never woken */
        return offset == 0 ? atomic_exchange(&power->ged_events, 0) : 0;
    switch (PLATFORM_PORT_GED + offset) {
    case PLATFORM_PORT_SLEEP_CONTROL:
        if ((*written & SLEEP_ENABLE) && SLEEP_TYPE(*written) == PLATFORM_SLEEP_TYPE_S5)
            exit_record_end(power->record, EXIT_REASON_POWEROFF, 0, "ACPI S5");
        break;
    case PLATFORM_PORT_RESET:
        if ((uint8_t)*written == PLATFORM_RESET_VALUE)
            exit_record_end(power->record, EXIT_REASON_REBOOT, 0, "ACPI reset register");
        break;
    }
    return 0;
}

/* Status 0: nothing to read, ready for a command.  No keyboard is there. */
static uint64_t i8042_access(void *device, uint64_t offset, unsigned width, const uint64_t *written)
{
    struct power *power = device;

    (void)offset;
    (void)width;
    if (written && (uint8_t)*written == I8042_RESET)
        exit_record_end(power->record, EXIT_REASON_REBOOT, 0, "keyboard controller reset");
    return 0;
}

static uint64_t pvpanic_access(void *device, uint64_t offset, unsigned width,
                               const uint64_t *written)
{
    struct power *power = device;

    (void)offset;
    (void)width;
    if (written && (*written & PVPANIC_PANICKED))
        exit_record_end(power->record, EXIT_REASON_PANIC, 0, "the guest says it panicked");
    return PVPANIC_PANICKED;
}

int power_new(struct bus *ports, int ged_interrupt, struct loop *loop, struct exit_record *record,
              struct power **ret_power, struct error *err)
{
    struct power *power = calloc(1, sizeof *power);

    if (!power)
        return error_set(err, ENOMEM, "power registers");
    power->record = record;
    power->ged_interrupt = ged_interrupt;
    power->loop = loop;
    /* Port 0x60 is not there: its writes are the keyboard's business, its reads all ones. */
    bus_add(ports, PLATFORM_PORT_I8042_COMMAND, 1, i8042_access, power);
    bus_add(ports, PLATFORM_PORT_PVPANIC, 1, pvpanic_access, power);
    bus_add(ports, PLATFORM_PORT_GED, PLATFORM_PORT_POWER_SIZE, registers_access, power);
    *ret_power = power;
    return 0;
}

void power_transfer(struct power *power, struct transfer *transfer)
{
    uint32_t events = atomic_load(&power->ged_events);

    transfer_value(transfer, "power events", events);
    atomic_store(&power->ged_events, events);
}

static void tell(void *context)
{
    struct power *power = context;

    power->timer = NULL;
    if (atomic_load(&power->ged_events) == 0)
        return;
    /* Can only fail when the counter is full, and then a pulse is on its way already. */
    (void)eventfd_write(power->ged_interrupt, 1);
    if (power->told++ < TELL_TIMES)
        power->timer = loop_after(power->loop, TELL_MS, tell, power);
}

void power_notify(struct power *power, unsigned event)
{
    atomic_fetch_or(&power->ged_events, event);
    loop_cancel(power->timer);
    power->told = 0;
    tell(power);
}
