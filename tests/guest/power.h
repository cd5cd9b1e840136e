/* power.h - ways to end or restart the guest, and the power button.  Handlers of words: see main.c.
 */
#pragma once

struct guest;

void power_off(struct guest *guest, unsigned index, char **arguments, unsigned count);
void power_reboot(struct guest *guest, unsigned index, char **arguments, unsigned count);
void power_i8042(struct guest *guest, unsigned index, char **arguments, unsigned count);
void power_triple_fault(struct guest *guest, unsigned index, char **arguments, unsigned count);
void power_panic(struct guest *guest, unsigned index, char **arguments, unsigned count);
/* power:wait and power:watch */
void power_button(struct guest *guest, unsigned index, char **arguments, unsigned count);
/* From now on each wait sees the event device. */
void power_watch(struct guest *guest);
void power_generation(struct guest *guest, unsigned index, char **arguments, unsigned count);
