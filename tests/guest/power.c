/* power.c - see power.h. */
#include <stddef.h>
#include "tests/guest/acpi.h"
#include "tests/guest/apic.h"
#include "tests/guest/console.h"
#include "tests/guest/cpu.h"
#include "tests/guest/guest.h"
#include "tests/guest/memory.h"
#include "tests/guest/power.h"
#include "tests/guest/slots.h"
#include "tests/guest/text.h"

#define PANIC_PORT         0x505 /* pvpanic, ISA */
#define PANIC_EVENT        1
#define KEYBOARD_PORT      0x64
#define KEYBOARD_RESET     0xfe
#define EVENT_PORT         0x600 /* GED: reading returns and clears the pending events */
#define EVENT_POWER_BUTTON 1
#define EVENT_SLOTS        2
#define EVENT_GENERATION   4
#define GENERATION_ID      0xe1000 /* where the DSDT's ADDR says */
#define EVENT_NO_DEVICE    0xffffffff
#define EVENT_PIN          5
#define BUTTON_RECHECK_NS  (2 * SECOND) /* should the interrupt be lost */

void power_off(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    (void)index, (void)arguments, (void)count;
    console_print("poweroff\n");
    acpi_power_off(guest->rsdp);
}

void power_reboot(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    (void)index, (void)arguments, (void)count;
    console_print("reboot\n");
    acpi_reset(guest->rsdp);
}

void power_i8042(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    (void)guest, (void)index, (void)arguments, (void)count;
    console_print("i8042\n");
    port_write8(KEYBOARD_PORT, KEYBOARD_RESET);
}

void power_triple_fault(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    (void)guest, (void)index, (void)arguments, (void)count;
    console_print("triple\n");
    ring0_call(ring0_triple_fault);
}

void power_panic(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    (void)guest, (void)index, (void)arguments, (void)count;
    console_print("panic\n");
    port_write8(PANIC_PORT, PANIC_EVENT);
}

/* Counted by the interrupt's handler in start.S. */
volatile uint32_t power_interrupts;

void power_generation(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    const volatile uint64_t *id = memory_map(GENERATION_ID, 2 * sizeof(*id));

    (void)guest, (void)index, (void)arguments, (void)count;
    if (id == NULL)
        console_print("generation absent\n");
    else
        console_print("generation 0x%x 0x%x\n", id[0], id[1]);
}

static void button_check(struct guest *guest)
{
    uint32_t events = port_read32(EVENT_PORT);

    guest->button_checked_ns = clock_ns();
    if (events == EVENT_NO_DEVICE)
        return;
    if ((events & EVENT_GENERATION) != 0) {
        /* It waits for us to take interrupts, if we were copied on the way from a wait to here. */
        for (int i = 0; power_interrupts == 0 && i < 5; i++)
            apic_wait(MILLISECOND);
        console_print("generation event interrupts %u\n", power_interrupts);
        power_generation(guest, 0, NULL, 0);
    }
    if ((events & EVENT_SLOTS) != 0)
        slots_changed(guest);
    if ((events & EVENT_POWER_BUTTON) == 0)
        return;
    console_print("power button\n");
    power_off(guest, 0, NULL, 0);
}

void guest_wait(struct guest *guest, uint64_t timeout_ns)
{
    uint32_t seen = power_interrupts;

    if (!guest->watch_power) {
        apic_wait(timeout_ns);
        return;
    }
    apic_wait(timeout_ns < BUTTON_RECHECK_NS ? timeout_ns : BUTTON_RECHECK_NS);
    if (power_interrupts != seen || clock_ns() - guest->button_checked_ns >= BUTTON_RECHECK_NS)
        button_check(guest);
}

void power_watch(struct guest *guest)
{
    if (guest->watch_power)
        return;
    guest->watch_power = true;
    apic_route_pin(EVENT_PIN, VECTOR_POWER);
    button_check(guest);
}

void power_button(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    (void)index;
    if (count != 1 || !(text_equal(arguments[0], "wait") || text_equal(arguments[0], "watch"))) {
        console_print("power usage\n");
        return;
    }
    power_watch(guest);
    console_print("power %s\n", arguments[0]);
    while (text_equal(arguments[0], "wait"))
        guest_wait(guest, WAIT_FOREVER);
}
