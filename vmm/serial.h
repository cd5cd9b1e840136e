/* serial.h - COM1, a 16550A (National PC16550D data sheet), whose output goes into the console ring
 * of the shared page.  Any vCPU thread; it never waits: the ring overwrites its oldest bytes. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct bus;
struct error;
struct serial;
struct stats_page;
struct transfer;

/* Adds itself to the ports; free(3) ends it.  interrupt: an eventfd that pulses its pin; it and
 * page are borrowed. */
int serial_new(struct bus *ports, int interrupt, struct stats_page *page,
               struct serial **ret_serial, struct error *err);

void serial_transfer(struct serial *serial, struct transfer *transfer);

/* Queues bytes for the receive FIFO: all of them, or none (false) if they do not fit into what is
 * free of VMM_INPUT_MAX.  Of a port that was loaded, none raise the interrupt that is due.  Any
 * thread; it never waits. */
bool serial_input(struct serial *serial, const void *bytes, size_t size);
