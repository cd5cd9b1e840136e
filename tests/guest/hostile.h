/* hostile.h - the word `hostile`: this guest breaks virtio's rules and says what the device does
 * about it. */
#pragma once
#include "tests/guest/guest.h"

void hostile_run(struct guest *guest, unsigned index, char **arguments, unsigned count);
