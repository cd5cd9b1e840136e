/* balloon.h - the words balloon:follow and balloon:report of the command line.  Handler: see
 * main.c. */
#pragma once

struct guest;

void balloon_run(struct guest *guest, unsigned index, char **arguments, unsigned count);
