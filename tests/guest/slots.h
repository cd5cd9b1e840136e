/* slots.h - PCI slots that are filled and emptied while the guest runs, by the registers that a
 * VMM's DSDT uses (ports 0x608 to 0x613).  Handlers of words: see main.c. */
#pragma once

struct guest;

/* slots:await:N, slots:serve, slots:ignore, slots:rogue */
void slots_run(struct guest *guest, unsigned index, char **arguments, unsigned count);
/* The event device said that a slot was filled or is to be emptied. */
void slots_changed(struct guest *guest);
