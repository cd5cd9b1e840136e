/* power.h - the ways in which a guest ends itself, and the button that asks it to: ACPI sleep and
 * reset registers (ACPI 6.4, 4.8.3.6 and .7), the keyboard controller's reset, pvpanic, and the
 * generic event device's register, which says what happened.  Accesses by any vCPU thread. */
#pragma once

struct bus;
struct error;
struct exit_record;
struct loop;
struct power;
struct transfer;

/* Adds itself to the ports; free(3) ends it.  ged_interrupt: an eventfd that pulses the event
 * device's pin; it, loop and record are borrowed. */
int power_new(struct bus *ports, int ged_interrupt, struct loop *loop, struct exit_record *record,
              struct power **ret_power, struct error *err);

void power_transfer(struct power *power, struct transfer *transfer);
/* event: GED_EVENT_* of platform.h.  The guest is told, and again once a second until it has read
 * what happened, for ten minutes.  Loop thread. */
void power_notify(struct power *power, unsigned event);
