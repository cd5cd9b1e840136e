/* server_filter.h - the system calls that warren-api may still make once it serves. */
#pragma once

struct error;

/* For the whole process, for good; anything else kills it. */
int server_filter_load(struct error *err);
