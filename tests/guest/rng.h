/* rng.h - rng:N reads N bytes (at most 256) from the virtio entropy device.  Handler: see main.c.
 */
#pragma once

struct guest;

void rng_run(struct guest *guest, unsigned index, char **arguments, unsigned count);
