#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/sim/sim.h"

/* Moves up to `amount` of one guest's pages out; returns what it moved. */
static double swap_out(struct sim *sim, struct guest *guest, double amount)
{
    double moved = fmin(fmin(amount, guest_resident(guest)), sim->swap_size - sim->swap_used);

    moved = fmax(moved, 0);
    guest->swapped += moved;
    sim->swap_used += moved;
    return moved;
}

static void step_limits(struct sim *sim, double seconds)
{
    for (unsigned i = 0; i < sim->count; i++) {
        struct guest *guest = &sim->guests[i];
        double over = guest->high > 0 ? guest_resident(guest) - guest->high : 0;

        if (guest->reclaim > 0) {
            guest->reclaim -= swap_out(sim, guest, fmin(guest->reclaim, RATE_SWAP_OUT * seconds));
            guest->reclaim = guest->reclaim < 1 ? 0 : guest->reclaim;
        }
        if (over > 0)
            swap_out(sim, guest, fmin(over, RATE_SWAP_OUT / 2 * seconds));
    }
}

static double sum_resident(const struct sim *sim)
{
    double sum = 0;

    for (unsigned i = 0; i < sim->count; i++)
        sum += guest_resident(&sim->guests[i]);
    return sum;
}

static struct guest *largest(struct sim *sim)
{
    struct guest *guest = &sim->guests[0];

    for (unsigned i = 1; i < sim->count; i++)
        if (guest_resident(&sim->guests[i]) > guest_resident(guest))
            guest = &sim->guests[i];
    return guest;
}

/* What does not fit is swapped, from whom it is cold first; what cannot be swapped is killed for.
 */
static void step_pressure(struct sim *sim, double seconds)
{
    double over = sum_resident(sim) - sim->capacity, cold = 0, stalled = 0;

    if (over > 0) {
        stalled = fmin(over / (RATE_SWAP_OUT * seconds), 1);
        for (unsigned i = 0; i < sim->count; i++)
            cold += fmax(guest_unneeded(&sim->guests[i]) - sim->guests[i].swapped, 0);
        for (unsigned i = 0; i < sim->count && cold > 0; i++) {
            double mine = fmax(guest_unneeded(&sim->guests[i]) - sim->guests[i].swapped, 0);

            swap_out(sim, &sim->guests[i], fmin(over / cold, 1) * mine);
        }
        over = sum_resident(sim) - sim->capacity;
        for (unsigned i = 0; i < sim->count && over > 1; i++)
            swap_out(sim, &sim->guests[i],
                     over * guest_resident(&sim->guests[i]) / sum_resident(sim) * 1.05);
        if (sum_resident(sim) > sim->capacity + 1 && sim->swap_used >= sim->swap_size - 1) {
            struct guest *guest = largest(sim);

            guest->ooms++;
            guest_die(guest);
        }
    }
    sim->stall += (stalled - sim->stall) * fmin(seconds / 2, 1);
}

static void step_sums(struct sim *sim, double seconds)
{
    double promised = 0;
    bool was_short = sim->free < 0.02 * sim->capacity, is_short;

    sim->swap_used = 0;
    for (unsigned i = 0; i < sim->count; i++) {
        promised += sim->guests[i].max;
        sim->swap_used += sim->guests[i].swapped;
    }
    sim->free = fmax(sim->capacity - sum_resident(sim), 0);
    is_short = sim->free < 0.02 * sim->capacity;
    sim->shortages += is_short && !was_short;
    sim->short_s += is_short ? seconds : 0;
    sim->saved += (promised - sum_resident(sim)) * seconds;
}

static void step_kills(struct sim *sim)
{
    for (unsigned i = 0; i < sim->count; i++)
        if (sim->guests[i].kill) {
            sim->guests[i].kills++;
            guest_die(&sim->guests[i]);
        }
}

/* Where nothing is free, new memory comes as fast as other is swapped out, for all together. */
static void set_rates(struct sim *sim)
{
    unsigned growing = 0;

    for (unsigned i = 0; i < sim->count; i++)
        growing += sim->guests[i].ideal_anon > sim->guests[i].anon + 1;
    for (unsigned i = 0; i < sim->count; i++)
        sim->guests[i].touch = sim->free > 0.002 * sim->capacity
                                   ? RATE_TOUCH
                                   : RATE_SWAP_OUT / (growing > 0 ? growing : 1);
}

static void advance(struct sim *sim, uint32_t until_ms)
{
    double seconds = (until_ms - sim->now_ms) / 1000.0;

    sim->now_ms = until_ms;
    set_rates(sim);
    for (unsigned i = 0; i < sim->count; i++)
        guest_step(&sim->guests[i], sim->now_ms, seconds);
    step_limits(sim, seconds);
    step_pressure(sim, seconds);
    step_sums(sim, seconds);
}

static void decide(struct sim *sim, uint32_t elapsed_ms)
{
    struct timespec before, after;

    clock_gettime(CLOCK_MONOTONIC, &before);
    sim->policy->decide(sim, elapsed_ms);
    clock_gettime(CLOCK_MONOTONIC, &after);
    sim->decide_s +=
        (double)(after.tv_sec - before.tv_sec) + (double)(after.tv_nsec - before.tv_nsec) / 1e9;
    sim->decisions++;
    step_kills(sim);
}

/* The next of: a slope of some guest, the step's end, the policy's tick. */
static uint32_t next_event(const struct sim *sim, uint32_t tick_ms)
{
    uint32_t next = sim->now_ms + SIM_STEP_MS;

    for (unsigned i = 0; i < sim->count; i++) {
        uint32_t slope = trace_next(&sim->guests[i].trace, sim->now_ms, sim->guests[i].cursor);

        /* Not closer than a hundredth of a second: slopes a little late change nothing. */
        if (slope < next && slope >= sim->now_ms + 10)
            next = slope;
    }
    return tick_ms > sim->now_ms && tick_ms < next ? tick_ms : next;
}

static void write_timeline(const struct sim *sim)
{
    double slowdown = 0, asked = 0;

    for (unsigned i = 0; i < sim->count; i++) {
        slowdown += sim->guests[i].slowdown / sim->count;
        asked += sim->guests[i].max - sim->guests[i].asked;
    }
    fprintf(sim->timeline, "%u,%.0f,%.0f,%.0f,%.3f\n", sim->now_ms, sim->capacity - sim->free,
            asked, sim->swap_used, slowdown);
}

static void setup_guests(struct sim *sim, const struct sim_setup *setup)
{
    static const double sizes[] = { 1024, 2048, 512, 4096, 1024, 2048, 1024 };
    struct sim_random random = { setup->seed };
    double promised = 0;

    for (unsigned i = 0; i < sim->count; i++) {
        struct guest *guest = &sim->guests[i];

        guest->max = setup->replay && setup->replay[i].max > 0
                         ? setup->replay[i].max
                         : sizes[i % (sizeof sizes / sizeof *sizes)];
        guest->min = guest->max / 8;
        guest->weight = 100;
        guest->priority = 10 + i % 3;
        guest->curve = 1 + sim_random(&random);
        guest->mode = i % 4 == 3 ? setup->mode : GUEST_HONEST;
        guest->anon = guest->ideal_anon = GUEST_KERNEL;
        guest->slowdown = 1;
        if (setup->replay)
            for (unsigned p = 0; p < setup->replay[i].count; p++) {
                const struct trace_point *point = &setup->replay[i].points[p];

                trace_add(&guest->trace, point->ms, point->anon, point->hot, point->stream);
            }
        else
            trace_make(setup->trace, i, sim->count, guest->max, setup->length_ms, &random,
                       &guest->trace);
        promised += guest->max;
    }
    sim->capacity = promised / setup->density;
    sim->swap_size = sim->capacity / 2;
    sim->free = sim->capacity;
}

static void summarize(const struct sim *sim, struct sim_result *ret_result)
{
    double seconds = sim->length_ms / 1000.0, sum = 0, squares = 0;
    struct sim_result result = { 0 };
    unsigned others = 0;

    for (unsigned i = 0; i < sim->count; i++) {
        const struct guest *guest = &sim->guests[i];
        double slowdown = 1 + guest->lost / seconds;

        if (guest->mode == GUEST_HONEST) {
            result.slowdown_others += slowdown;
            others++;
        }

        result.slowdown += slowdown / sim->count;
        result.worst = fmax(result.worst, slowdown);
        result.ooms += guest->ooms + guest->kills;
        result.flips_per_hour += guest->flips * 3600 / seconds / sim->count;
        sum += 1 / slowdown;
        squares += 1 / slowdown / slowdown;
    }
    result.slowdown_others /= others > 0 ? others : 1;
    result.jain = sum * sum / (sim->count * squares);
    result.relief_s = sim->shortages > 0 ? sim->short_s / sim->shortages : 0;
    result.saved_gib_min = sim->saved / 1024 / 60;
    result.decide_ns = sim->decisions > 0 ? sim->decide_s * 1e9 / sim->decisions / sim->count : 0;
    *ret_result = result;
}

void sim_run(const struct sim_setup *setup, const struct policy *policy,
             struct sim_result *ret_result)
{
    struct sim *sim = calloc(1, sizeof *sim);
    uint32_t tick = 0, last = 0, told = 0;

    if (!sim || !(sim->state = calloc(1, policy->size + 1)))
        abort();
    sim->policy = policy;
    sim->count = setup->count;
    sim->length_ms = setup->length_ms;
    sim->timeline = setup->timeline;
    setup_guests(sim, setup);
    while (sim->now_ms < sim->length_ms) {
        bool triggered = policy->is_triggered && sim->now_ms - last >= 250 &&
                         (sim->stall > 0.1 || sim->free < 0.06 * sim->capacity);

        if (sim->now_ms >= tick || triggered) {
            decide(sim, sim->now_ms - last);
            last = sim->now_ms;
            tick = sim->now_ms + policy->tick_ms;
        }
        advance(sim, next_event(sim, tick));
        if (sim->timeline && sim->now_ms - told >= 1000) {
            write_timeline(sim);
            told = sim->now_ms;
        }
    }
    summarize(sim, ret_result);
    for (unsigned i = 0; i < sim->count; i++)
        trace_free(&sim->guests[i].trace);
    free(sim->state);
    free(sim);
}

double sim_density(struct sim_setup setup, const struct policy *policy)
{
    double below = 0.5, above = 8;
    struct sim_result result;

    while (above / below > 1.005) {
        setup.density = sqrt(above * below);
        sim_run(&setup, policy, &result);
        if (result.slowdown <= 1.05 && result.ooms == 0)
            below = setup.density;
        else
            above = setup.density;
    }
    return below;
}
