#include <math.h>

#include "tests/sim/sim.h"

const char *const guest_mode_names[GUEST_MODE_COUNT] = {
    [GUEST_HONEST] = "honest", [GUEST_STALLS] = "stalls", [GUEST_REFUSES] = "refuses",
    [GUEST_LIES] = "lies",     [GUEST_STALE] = "stale",   [GUEST_KEEPS] = "keeps",
};

static double limit_of(const struct guest *guest)
{
    return guest->max - guest->balloon;
}

static double filled(const struct guest *guest)
{
    return guest->anon + guest->hot + guest->cold;
}

double guest_resident(const struct guest *guest)
{
    return fmax(filled(guest) + guest->garbage - guest->swapped, 0);
}

double guest_unneeded(const struct guest *guest)
{
    return guest->cold + guest->garbage + 0.3 * guest->anon;
}

/* Takes up to `amount` from `*from`; returns what it took. */
static double take(double *from, double amount)
{
    double taken = fmin(*from, fmax(amount, 0));

    *from -= taken;
    return taken;
}

/* Pages that nobody needs are dropped, or written anew: the host has its copies no longer. */
static void forget(struct guest *guest, double amount)
{
    double unneeded = guest_unneeded(guest) + amount;

    if (unneeded > 0)
        guest->swapped = fmax(guest->swapped - amount * fmin(guest->swapped / unneeded, 1), 0);
}

/* Room for `amount` more: free memory, then what can be dropped; hot pages only if `dear`. */
static double make_room(struct guest *guest, double amount, bool dear)
{
    double free = fmax(limit_of(guest) - filled(guest), 0), got = fmin(free, amount), cold;

    forget(guest, take(&guest->garbage, got)); /* what the host still has under them goes first */
    cold = take(&guest->cold, amount - got);
    forget(guest, cold);
    got += cold;
    if (dear)
        got += take(&guest->hot, amount - got);
    return got;
}

static void step_anon(struct guest *guest, double want, double seconds)
{
    double change = fmin(want - guest->anon, guest->touch * seconds), got, deflate;

    if (change <= 0) {
        guest->anon += change;
        guest->garbage -= change;
        guest->missing_s = 0;
        return;
    }
    got = make_room(guest, change, /* dear= */ true);
    if (got < change && guest->mode != GUEST_KEEPS) {
        deflate = fmin(fmin(change - got, guest->balloon), RATE_DEFLATE * seconds);
        guest->balloon -= deflate;
        got += deflate;
    }
    guest->anon += got;
    /* Its kernel kills when nothing can be had, not while it gets something. */
    guest->missing_s = got < change / 100 ? guest->missing_s + seconds : 0;
}

static void step_files(struct guest *guest, const struct trace_point *want, double seconds)
{
    double change = fmin(want->hot - guest->hot, RATE_DISK * seconds), got;

    if (change > 0) {
        got = make_room(guest, change, /* dear= */ false);
        guest->hot += got;
        guest->refaults += change * 256 / 2; /* those that are mapped */
    } else {
        guest->hot += change;
        guest->cold -= change;
    }
    got = fmin(want->stream * seconds, fmax(limit_of(guest) - filled(guest), 0));
    take(&guest->garbage, got);
    guest->cold += got;
}

static void step_balloon(struct guest *guest, uint32_t now_ms, double seconds)
{
    double change = guest->asked - guest->balloon, got;
    bool stalls = guest->mode == GUEST_REFUSES || guest->mode == GUEST_LIES ||
                  (guest->mode == GUEST_STALLS && now_ms / 120000 % 2 == 1);

    if (change < 0) {
        guest->balloon -= fmin(-change, RATE_DEFLATE * seconds);
        return;
    }
    if (stalls)
        return;
    got = make_room(guest, fmin(change, RATE_INFLATE * seconds), /* dear= */ true);
    guest->balloon += got;
    guest->garbage = fmin(guest->garbage, fmax(limit_of(guest) - filled(guest), 0));
}

/* Free page reporting as Linux has it (mm/page_reporting.c): 2 s after a whole block came free, and
 * again as long as any waits, a sixteenth of all free blocks is reported, rounded up to calls of
 * 32, and one call more; nothing by a guest that has less than a call free. */
#define REPORT_MS        2000
#define REPORT_BLOCK_MIB 2
#define REPORT_CALL      32

static void step_reporting(struct guest *guest, uint32_t now_ms)
{
    uint32_t waiting = (uint32_t)guest->garbage / REPORT_BLOCK_MIB, free, most;

    if (waiting == 0) {
        guest->report_ms = 0;
        return;
    }
    if (guest->report_ms == 0)
        guest->report_ms = now_ms + REPORT_MS;
    if (now_ms < guest->report_ms)
        return;
    guest->report_ms = now_ms + REPORT_MS;
    free = (uint32_t)fmax(limit_of(guest) - filled(guest), 0) / REPORT_BLOCK_MIB;
    most = (free + 16 * REPORT_CALL - 1) / (16 * REPORT_CALL) * REPORT_CALL + REPORT_CALL;
    if (free >= REPORT_CALL)
        forget(guest, take(&guest->garbage, REPORT_BLOCK_MIB * (waiting < most ? waiting : most)));
}

/* Pages that the host took and the guest wants come back, at their price. */
static double step_swapped(struct guest *guest, double seconds)
{
    double all = filled(guest) + guest->garbage, wanted, back;

    guest->swapped = fmin(guest->swapped, all);
    /* The host's idea of what is cold is worse than the guest's. */
    wanted = fmax(guest->swapped - 0.8 * guest_unneeded(guest), 0);
    back = fmin(wanted, RATE_SWAP_IN * seconds);
    guest->swapped -= back;
    return wanted;
}

static double approach(double value, double want, double rate_seconds)
{
    return value < want ? fmin(want, value + rate_seconds) : want;
}

static void step_score(struct guest *guest, const struct trace_point *want, double wanted,
                       double seconds)
{
    double needed, has, missing;

    guest->ideal_anon = approach(guest->ideal_anon, want->anon, RATE_TOUCH * seconds);
    guest->ideal_hot = approach(guest->ideal_hot, want->hot, RATE_DISK * seconds);
    needed = guest->ideal_anon + guest->ideal_hot;
    has = fmin(guest->anon, guest->ideal_anon) + fmin(guest->hot, guest->ideal_hot) - wanted;
    missing = fmin(fmax(1 - has / needed, 0), 1);
    guest->slowdown = fmin(1 + 30 * pow(missing, guest->curve), SLOWDOWN_MAX);
    if (guest->paused || guest->down_s > 0)
        guest->slowdown = SLOWDOWN_MAX;
    guest->down_s = fmax(guest->down_s - seconds, 0);
    guest->lost += (guest->slowdown - 1) * seconds;
}

/* Once a second, if it says anything. */
static void step_words(struct guest *guest, uint32_t now_ms)
{
    if (now_ms - guest->said_ms < 1000 || (guest->mode == GUEST_STALE && now_ms > 60000))
        return;
    guest->said_used = guest->mode == GUEST_LIES ? guest->max : guest->anon;
    guest->said_balloon = guest->mode == GUEST_LIES ? guest->asked : guest->balloon;
    guest->said_refaults = guest->refaults * 1000 / (now_ms - guest->said_ms);
    guest->refaults = 0;
    guest->said_ms = now_ms;
}

void guest_die(struct guest *guest)
{
    guest->anon = GUEST_KERNEL;
    guest->hot = guest->cold = guest->garbage = guest->swapped = 0;
    guest->missing_s = 0;
    guest->down_s = 30;
    guest->kill = false;
}

void guest_step(struct guest *guest, uint32_t now_ms, double seconds)
{
    struct trace_point want = trace_at(&guest->trace, now_ms, &guest->cursor);
    int direction = guest->asked > guest->was_asked + 1   ? 1
                    : guest->asked < guest->was_asked - 1 ? -1
                                                          : 0;
    double wanted, stalled;

    if (guest->down_s > 0)
        want = (struct trace_point){ .anon = GUEST_KERNEL };
    if (direction != 0) {
        guest->flips += guest->direction != 0 && direction != guest->direction;
        guest->direction = direction;
        guest->was_asked = guest->asked;
    }
    if (!guest->paused) {
        step_balloon(guest, now_ms, seconds);
        step_anon(guest, want.anon, seconds);
        step_files(guest, &want, seconds);
        step_reporting(guest, now_ms);
    }
    wanted = guest->paused ? 0 : step_swapped(guest, seconds);
    stalled = fmin(wanted / (RATE_SWAP_IN * seconds), 1);
    guest->stall += (stalled - guest->stall) * fmin(seconds / 2, 1);
    guest->stalled_s += stalled * seconds;
    step_score(guest, &want, wanted, seconds);
    step_words(guest, now_ms);
    if (guest->missing_s > 0.3) {
        guest->ooms++;
        guest_die(guest);
    }
}
