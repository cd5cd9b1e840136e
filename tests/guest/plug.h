/* plug.h - memory that is plugged while the guest runs.  The handler of a word: see main.c. */
#pragma once

struct guest;

void plug_run(struct guest *guest, unsigned index, char **arguments, unsigned count);
