/* machine.h - words about memory, processors, ports and time.  Handlers: see main.c. */
#pragma once

struct guest;

/* From now on what is typed on the serial port wakes the guest. */
void machine_listen(void);
/* The next byte that is typed; asleep until then. */
char machine_typed(struct guest *guest);

void machine_info(struct guest *guest, unsigned index, char **arguments, unsigned count);
void machine_pci(struct guest *guest, unsigned index, char **arguments, unsigned count);
void machine_processors(struct guest *guest, unsigned index, char **arguments, unsigned count);
void machine_touch(struct guest *guest, unsigned index, char **arguments, unsigned count);
void machine_serial(struct guest *guest, unsigned index, char **arguments, unsigned count);
void machine_echo(struct guest *guest, unsigned index, char **arguments, unsigned count);
void machine_spin(struct guest *guest, unsigned index, char **arguments, unsigned count);
void machine_sleep(struct guest *guest, unsigned index, char **arguments, unsigned count);
void machine_tick(struct guest *guest, unsigned index, char **arguments, unsigned count);
void machine_port_read(struct guest *guest, unsigned index, char **arguments, unsigned count);
void machine_port_write(struct guest *guest, unsigned index, char **arguments, unsigned count);
void machine_peek(struct guest *guest, unsigned index, char **arguments, unsigned count);
void machine_poke(struct guest *guest, unsigned index, char **arguments, unsigned count);
