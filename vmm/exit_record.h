/* exit_record.h - why this VMM ends, written where the agent still finds it when both processes are
 * gone (stats_page.h).  Any thread; the first caller's reason stands. */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include "vmm/stats_page.h"

struct error;
struct log;

struct exit_record {
    struct stats_page *page; /* borrowed; NULL until it is mapped: then only the log is told */
    const struct log *log;   /* borrowed */
    /* What was answered to the guest is in files afterwards; any thread, no device locked; NULL =
     * nothing was. */
    void (*finish)(void *context);
    void *context; /* borrowed */
    atomic_bool claimed;
};

/* Maps and initialises the page: a regular file of at least VMM_PAGE_BYTES.  It stays mapped until
 * the process ends. */
int stats_page_map(int fd, struct stats_page **ret_page, struct error *err);

/* Ends the process: every thread, once `finish` is done.  Its exit status is 0 after a power-off,
 * else `reason`.  A power-off's detail is who asked for it (stats_page.h). */
_Noreturn void exit_record_end(struct exit_record *record, enum exit_reason reason, int detail,
                               const char *text);
/* The same for an error: detail is its code, text "field: message". */
_Noreturn void exit_record_fail(struct exit_record *record, enum exit_reason reason,
                                const struct error *err);
