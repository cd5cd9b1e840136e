/* watchdog.c - see watchdog.h. */
#include "base/watchdog.h"

enum watchdog_verdict watchdog_turn(struct watchdog *watchdog, int64_t now_ms)
{
    int64_t since = now_ms - watchdog->asked_ms;

    if (watchdog->asked_ms && since < WATCHDOG_MS)
        return WATCHDOG_WAIT;
    if (since > WATCHDOG_LATE_MS)
        watchdog->silent = 0;
    if (watchdog->silent == WATCHDOG_SILENT)
        return WATCHDOG_HUNG;
    watchdog->silent++;
    watchdog->asked_ms = now_ms;
    return WATCHDOG_ASK;
}

void watchdog_answered(struct watchdog *watchdog)
{
    watchdog->silent = 0;
}
