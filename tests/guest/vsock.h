/* vsock.h - the vsock words: connections both ways. */
#pragma once
#include "tests/guest/guest.h"

void vsock_run(struct guest *guest, unsigned index, char **arguments, unsigned count);
