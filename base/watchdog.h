/* watchdog.h - has a process hung that answers questions?  Pure: who watches it has the clock,
 * asks, and hears the answers.
 *
 * It has when WATCHDOG_SILENT questions in a row brought no answer.  Any answer counts, however
 * late: who is slow is not hung.  A turn that itself comes late tells that the machine was held up
 * (load, swapping, a suspended host), and who was asked perhaps longer than who asks: counting
 * begins anew. */
#pragma once
#include <stdint.h>

#define WATCHDOG_TURN_MS 1000 /* how often watchdog_turn is to be called; oftener does not hurt */
#define WATCHDOG_MS      5000 /* from question to question, at least */
#define WATCHDOG_LATE_MS 8000 /* a turn so long after the last question is late */
#define WATCHDOG_SILENT  5

#define WATCHDOG_HUNG_TEXT "has hung: it has not answered for 25 s"

struct watchdog {     /* zeroes: of a process that has just been started */
    int64_t asked_ms; /* by CLOCK_MONOTONIC; 0 = never */
    unsigned silent;  /* questions since its last answer */
};

enum watchdog_verdict {
    WATCHDOG_WAIT, /* nothing is due */
    WATCHDOG_ASK,
    WATCHDOG_HUNG,
};

enum watchdog_verdict watchdog_turn(struct watchdog *watchdog, int64_t now_ms);
void watchdog_answered(struct watchdog *watchdog);
