/* fetch_local.h - the source is a file the agent has opened.  warren-fetch, one thread. */
#pragma once

struct error;
struct fetch_output;
struct fetch_report;

/* Takes the whole file into `output`: shares its blocks where the file system can (the sum is then
 * taken of the copy, so that it cannot change in between), else copies its data only. */
int fetch_local(int source_fd, struct fetch_output *output, struct fetch_report *report,
                struct error *err);
