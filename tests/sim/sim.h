/* sim.h - a host and its guests, as far as memory goes, so that policies can be compared.
 *
 * Discrete events: a guest's demand changes its slope, a policy's tick or trigger is due, or
 * SIM_STEP_MS are over; between them all rates are constant.  One seed, one outcome: nothing here
 * asks a clock or the machine, but for the cost of the policy itself, which no decision depends on.
 * Sizes are MiB, rates MiB/s. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define SIM_GUESTS_MAX 256
#define SIM_STEP_MS    100

/* Rates as published (shared figures of the field), and guesses where nobody publishes any. */
#define RATE_INFLATE  973.0  /* a balloon of 4 KiB pages: 0.95 GiB/s */
#define RATE_DEFLATE  707.0  /* return and install: 0.69 GiB/s */
#define RATE_TOUCH    4096.0 /* a guest that touches new memory */
#define RATE_DISK     300.0  /* a guest that reads back file pages */
#define RATE_SWAP_OUT 1024.0 /* the host, to zswap */
#define RATE_SWAP_IN  500.0  /* one guest, from it */
#define GUEST_KERNEL  40.0   /* what a guest needs in any case */
#define SLOWDOWN_MAX  10.0

struct sim_random {
    uint64_t state;
};
double sim_random(struct sim_random *random); /* [0, 1) */

/* --- trace.c: what guests want --- */

struct trace_point {
    uint32_t ms;
    double anon;   /* that cannot be dropped */
    double hot;    /* file pages that are read again and again */
    double stream; /* MiB/s of file pages that are read once */
};

/* Straight lines between the points. */
struct trace {
    struct trace_point *points; /* owned */
    unsigned count, size;
    double max; /* of the guest's memory, MiB, if it was recorded; else 0 */
};

enum trace_kind {
    TRACE_IDLE,
    TRACE_RAMP,
    TRACE_SPIKE,
    TRACE_LEAK,
    TRACE_DIURNAL,
    TRACE_ANTI_PHASE,
    TRACE_PEAKS, /* all at the same time */
    TRACE_BUILD,
    TRACE_MIXED,
    TRACE_KIND_COUNT
};
extern const char *const trace_names[TRACE_KIND_COUNT];

/* The trace of guest `index` of `count`. */
void trace_make(enum trace_kind kind, unsigned index, unsigned count, double max_mib,
                uint32_t length_ms, struct sim_random *random, struct trace *ret_trace);
void trace_add(struct trace *trace, uint32_t ms, double anon, double hot, double stream);
/* *cursor: 0 at first, for times that only grow. */
struct trace_point trace_at(const struct trace *trace, uint32_t ms, unsigned *cursor);
/* The next time after ms at which its slope changes. */
uint32_t trace_next(const struct trace *trace, uint32_t ms, unsigned cursor);
void trace_free(struct trace *trace);
/* A recorded host: lines of `ms,guest,anon_mib,hot_mib,stream_mib_per_s[,max_mib]` (see record), by
 * guest in ascending time, guests from 0, each with a line.  traces: SIM_GUESTS_MAX, empty; to be
 * freed in any case.  Returns how many guests, or -1, having said why to stderr. */
int trace_read(FILE *file, const char *name, struct trace *traces, uint32_t *ret_length_ms);

/* --- guest.c --- */

enum guest_mode {
    GUEST_HONEST,
    GUEST_STALLS,  /* its balloon stops for minutes at a time */
    GUEST_REFUSES, /* its balloon never gives anything */
    GUEST_LIES,    /* it says that all is used, and that its balloon gave what was asked */
    GUEST_STALE,   /* it says nothing after the first minute */
    GUEST_KEEPS,   /* its balloon stays though it runs out of memory: it never took
                    * deflate-on-OOM, which its host knows */
    GUEST_MODE_COUNT
};
extern const char *const guest_mode_names[GUEST_MODE_COUNT];

struct guest {
    struct trace trace; /* owned */
    unsigned cursor;
    double max, min;
    unsigned weight, priority;
    enum guest_mode mode;
    double curve; /* exponent of its miss-ratio curve */

    /* What is in it. */
    double anon, hot, cold, garbage; /* garbage: free, but not yet reported */
    double balloon;
    uint32_t report_ms;           /* when it next reports what is free; 0 = none of that waits */
    double swapped;               /* of all this, by the host */
    double ideal_anon, ideal_hot; /* had it all that it was promised */

    /* What policies set. */
    double touch;   /* MiB/s of new memory that the host has for it */
    double asked;   /* the balloon's target */
    double reclaim; /* still to be reclaimed by the host */
    double high;    /* memory.high; 0 = none */
    bool paused, kill;

    /* What it says, and when it said so. */
    double said_used, said_balloon, said_refaults;
    uint32_t said_ms;
    double refaults;  /* pages, since then */
    double stall;     /* share of the last seconds that it waited for swapped pages; the host's */
    double stalled_s; /* so long in all */

    /* What became of it. */
    double missing_s; /* it lacks what it needs to live */
    double down_s;    /* restarts, after a kill */
    double slowdown;  /* now; 1 = none */
    double lost;      /* integral of slowdown - 1, s */
    unsigned ooms, kills, flips;
    double was_asked;
    int direction;
};

double guest_resident(const struct guest *guest);
/* Of what it has, what nobody would miss soon. */
double guest_unneeded(const struct guest *guest);
void guest_step(struct guest *guest, uint32_t now_ms, double seconds);
/* Killed, by whomever: it starts again. */
void guest_die(struct guest *guest);

/* --- host.c --- */

struct sim;

struct policy {
    const char *name;
    uint32_t tick_ms;
    size_t size; /* of its own state */
    /* May be called before its tick when the host stalls, or a guest does. */
    bool is_triggered;
    void (*decide)(struct sim *sim, uint32_t elapsed_ms);
};

struct sim_result {
    double slowdown, worst; /* mean over guests and time, and that of the worst guest */
    double slowdown_others; /* of those that behave */
    unsigned ooms;          /* of guests and of the host, and kills by the policy */
    double relief_s;        /* mean time of the host below 2 % of free memory */
    double flips_per_hour;  /* of a guest's target */
    double jain;            /* of the guests' speeds */
    double saved_gib_min;
    double decide_ns; /* a call and guest */
};

struct sim {
    struct guest guests[SIM_GUESTS_MAX];
    unsigned count;
    double capacity, swap_size;
    const struct policy *policy;
    void *state; /* the policy's */
    uint32_t now_ms, length_ms;

    double free, swap_used, stall; /* stall: share of the last seconds */
    double short_s;
    unsigned shortages;
    double saved;
    double decide_s;
    unsigned decisions;
    FILE *timeline; /* borrowed: lines of CSV, or NULL */
};

struct sim_setup {
    enum trace_kind trace;
    const struct trace *replay; /* of count guests, instead; or NULL */
    unsigned count;
    uint32_t length_ms;
    uint64_t seed;
    double density;       /* promised memory to the host's */
    enum guest_mode mode; /* of every fourth guest */
    FILE *timeline;
};

void sim_run(const struct sim_setup *setup, const struct policy *policy,
             struct sim_result *ret_result);
/* The most that can be promised with at most 5 % slowdown and nobody killed. */
double sim_density(struct sim_setup setup, const struct policy *policy);

/* --- policies.c, policy_warren.c --- */

extern const struct policy policy_warren, policy_static, policy_proxmox, policy_mom, policy_esx,
    policy_xen, policy_senpai, policy_oracle;
#define POLICY_COUNT 8
extern const struct policy *const policies[POLICY_COUNT];

/* The published rules, for their tests: what each makes of one situation. */
struct rule_guest {
    double max, min, limit, free, shares;
};
void rule_proxmox(const struct rule_guest *guests, unsigned count, double goal, double change_max,
                  double *ret_limits);
double rule_mom(const struct rule_guest *guest, double host_free_share);
double rule_xen(double max, double limit, double committed);
struct senpai {
    double high;       /* memory.high */
    double stalled_us; /* since that was changed */
    double seen_s;
    unsigned grace; /* s until it may shrink */
};
void rule_senpai(struct senpai *senpai, double stalled_us);
