/* balancer.h - who gives memory back, and how, when VMs were promised more than the host has.
 *
 * Pure: integers, no clock, no I/O, no allocation.  The agent and the simulator (tests/sim) call
 * the same function: it reads what is known of the host and of each VM, and writes a plan for each
 * VM.  A plan says how each knob is to stand, not what to do to it, so one that was lost or is
 * carried out twice does no harm.  Sizes are MiB, times ms, shares permille.
 *
 * Who is entitled to what: a VM that uses `a` MiB of what a price would buy it pays for idle memory
 * at the tax rate t: P(l) = w*l where that is within a, else a + (1 - t) * (w*l - a), clamped to
 * [min, max].  The price l comes from bisection, so that the sum of all P is what the host has to
 * give: that is min-funding revocation with an idle tax, where memory is short by weight alone,
 * where it is not by need first.  Entitlements never add up to more than the host has.
 *
 * When it is taken: not before the host is short.  Up to then a guest may use all that it was
 * promised, so a burst waits for nobody.  From BALANCER_SOFT on, what is missing is taken by the
 * cheapest rung that works; each has a deadline.  The first take what is idle: by balloon of those
 * above their entitlement, else from whom it is cold.  What is in use is taken from BALANCER_LOW
 * on, and only of those above their entitlement.  What is idle is taken, too, and kept free, for
 * the guarantee of a VM that starts. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

/* By free memory, and by how long tasks stall for want of it. */
enum balancer_level {
    BALANCER_HIGH, /* enough: nobody is shrunk */
    BALANCER_SOFT, /* balloons, and the host reclaims from cold VMs itself */
    BALANCER_HARD, /* at any rate, and from those that have just grown */
    BALANCER_LOW,  /* the host is about to run out */
    BALANCER_LEVEL_COUNT
};

/* Escalation, cheapest first.  A rung is climbed when the one below had its time and the host is
 * still at a level that asks for more. */
enum balancer_rung {
    BALANCER_REPORTING, /* free page reporting alone, which is always on */
    BALANCER_BALLOON,
    BALANCER_RECLAIM,  /* memory.reclaim of what is cold */
    BALANCER_THROTTLE, /* memory.high at their entitlement, until the host is better */
    BALANCER_PAUSE,    /* the lowest priority */
    BALANCER_KILL,     /* by (over its guarantee, priority, size), one at a time */
    BALANCER_RUNG_COUNT
};

extern const char *const balancer_level_names[BALANCER_LEVEL_COUNT];
extern const char *const balancer_rung_names[BALANCER_RUNG_COUNT];

struct balancer_config {
    uint32_t tax_permille; /* of idle memory, below 1000 */
    /* Free memory, of what the host has to give.  A level is entered below the first, left above
     * the second, which is the entry of none. */
    struct {
        uint32_t enter_permille, leave_permille;
    } levels[BALANCER_LEVEL_COUNT];
    uint32_t psi_permille; /* stalled so much, the host is one level worse */
    /* A VM that waited for memory less than that, for so long, is cold. */
    uint32_t cold_permille, warm_ms;
    uint32_t deadline_ms[BALANCER_RUNG_COUNT]; /* before the next rung */
    uint32_t fast_ms, slow_ms; /* time constants of the two averages of what a guest uses */
    uint32_t cache_ms;         /* so long it takes to be forgotten what a guest read back */
    uint32_t stale_ms;         /* statistics older than that shrink nobody */
    uint32_t dwell_ms;         /* a VM that has just grown is left alone */
    uint32_t band_permille;    /* of a VM's size: smaller changes are not made */
    uint32_t shrink_permille;  /* of a VM's size and second, at most */
    uint32_t stuck_ms;         /* a balloon that gives nothing for so long is left alone ... */
    uint32_t backoff_ms;       /* ... for this, doubled each time ... */
    uint32_t backoff_max_ms;   /* ... up to this */
};

extern const struct balancer_config balancer_default;

struct balancer_host {
    uint32_t capacity_mib; /* for VMs: without the reserve and what the VMMs themselves need */
    uint32_t free_mib;     /* of that */
    uint32_t swap_mib, swap_free_mib; /* what the host can swap to */
    uint32_t psi_permille;            /* of the last 10 s in which some task stalled for memory */
    uint32_t starting_mib; /* of their guarantee, what VMs that have just started will fill */
    uint32_t elapsed_ms;   /* since the last call */
};

/* The balancer's own of a VM; all zero at first. */
struct balancer_memory {
    bool known;                  /* the averages are of it */
    uint64_t fast, slow;         /* what its guest uses without caches, MiB << 16 */
    uint64_t cache;              /* what it was seen to need for those, MiB << 16 */
    uint32_t calm_ms;            /* since it last grew, or was in distress */
    uint32_t warm_ms;            /* since it last waited for memory that the host had taken */
    uint32_t asked_mib, was_mib; /* its balloon: as planned, and as it was when that moved last */
    uint32_t silent_ms;          /* so long it has not moved, though asked */
    uint32_t frozen_ms;          /* so long it is still left alone */
    uint32_t backoff_ms;         /* the last of these */
    bool paused;                 /* by us */
};

struct balancer_plan {
    uint32_t demand_mib;   /* what it is thought to need */
    uint32_t entitled_mib; /* what it may have while the host is short */
    uint32_t balloon_mib;  /* how large its balloon is to be */
    uint32_t reclaim_mib;  /* to be reclaimed by the host now; 0 = none */
    uint32_t low_mib;  /* memory.low of its guest's memory: what it has filled of its guarantee */
    uint32_t high_mib; /* memory.high of its guest's memory; 0 = max */
    bool pause;        /* it is to be paused by us */
    bool kill;
};

struct balancer_vm {
    /* What it was promised. */
    uint32_t max_mib, min_mib; /* min <= max < 2^23 */
    uint32_t weight;           /* 1 to BALANCER_WEIGHT_MAX */
    uint32_t priority;         /* the lower, the sooner it is paused or killed */
    uint32_t serial;           /* the VM's own; decides where nothing else does */
    /* What the host sees of it. */
    uint32_t resident_mib;
    uint32_t swapped_mib; /* of its guest's memory, by the host */
    uint32_t psi_permille;
    /* What its guest says. */
    bool keeps_balloon; /* though it runs out of memory (no VIRTIO_BALLOON_F_DEFLATE_ON_OOM) */
    uint32_t balloon_mib;
    uint32_t used_mib;     /* total less available */
    uint32_t refaults;     /* major faults and pages swapped in, a second */
    uint32_t stats_age_ms; /* UINT32_MAX = there are none */

    struct balancer_memory memory;
    struct balancer_plan plan; /* written */
};

#define BALANCER_WEIGHT_MAX 10000

/* All zero at first. */
struct balancer_state {
    enum balancer_level level;
    enum balancer_rung rung;
    uint32_t rung_ms;      /* on it, without free memory growing */
    uint32_t free_mib;     /* the least since it grew */
    uint32_t calm_ms;      /* below BALANCER_HARD, without a break */
    uint32_t sacrifice_ms; /* since somebody was paused or killed */
    bool short_of_swap;    /* at BALANCER_LOW balloons take what guests use, too */
    uint32_t price;        /* the last; see balancer_share_mib */
};

/* Plans for all VMs.  Needs about a microsecond for each. */
void balancer_plan(const struct balancer_config *config, const struct balancer_host *host,
                   struct balancer_vm *vms, unsigned count, struct balancer_state *state);

/* So many ms after the last call, to which host was given, the next one is due, unless pressure is
 * told of before.  fell_mib: what the host has less available since then, which VMs may have taken.
 */
uint32_t balancer_wait_ms(const struct balancer_config *config, const struct balancer_host *host,
                          const struct balancer_state *state, uint32_t fell_mib);
#define BALANCER_TICK_MS 250 /* the least that it returns */

/* A part of it, for tests.  P(price): a VM of weight w buys w * price / 2^26 of its size, so
 * that equal weights buy equal parts of unequal VMs. */
#define BALANCER_PRICE_SHIFT 26
uint32_t balancer_share_mib(const struct balancer_config *config, const struct balancer_vm *vm,
                            uint32_t demand_mib, uint32_t price);
