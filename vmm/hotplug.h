/* hotplug.h - the registers by which a guest's ACPI (dsdt.asl) learns that a PCI slot was filled or
 * is to be emptied, and says that it has let a device go.  Accesses by any vCPU thread; the rest
 * main thread. */
#pragma once

struct bus;
struct error;
struct hotplug; /* opaque; see hotplug.c */
struct loop;
struct power;
struct transfer;

/* The guest has let go of the device in this slot, as it was asked to; in a turn of the loop. */
typedef void hotplug_ejected_fn(void *context, unsigned slot);

/* Adds itself to the ports; free(3) ends it.  All are borrowed. */
int hotplug_new(struct bus *ports, struct power *power, struct loop *loop,
                hotplug_ejected_fn *ejected, void *context, struct hotplug **ret_hotplug,
                struct error *err);

void hotplug_filled(struct hotplug *hotplug, unsigned slot);
/* May be asked again: a guest need not answer. */
void hotplug_ask(struct hotplug *hotplug, unsigned slot);
/* What a restored guest still has to learn; what it was asked for is forgotten. */
void hotplug_transfer(struct hotplug *hotplug, struct transfer *transfer);
