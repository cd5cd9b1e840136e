/* net.h - net:VERB:...: the virtio network card and just enough of IPv4 to test one.  Handler: see
 * main.c. */
#pragma once

struct guest;

void net_run(struct guest *guest, unsigned index, char **arguments, unsigned count);
