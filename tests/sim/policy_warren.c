/* policy_warren.c - the balancer that the agent runs, on the simulated host. */
#include <math.h>

#include "scheduler/balancer.h"
#include "tests/sim/sim.h"

struct warren {
    struct balancer_vm vms[SIM_GUESTS_MAX];
    struct balancer_state state;
};

static uint32_t whole(double value)
{
    return value <= 0 ? 0 : (uint32_t)lrint(value);
}

static void see(const struct sim *sim, const struct guest *guest, unsigned serial,
                struct balancer_vm *vm)
{
    vm->max_mib = whole(guest->max);
    vm->min_mib = whole(guest->min);
    vm->weight = guest->weight;
    vm->priority = guest->priority;
    vm->serial = serial;
    vm->resident_mib = whole(guest_resident(guest));
    vm->swapped_mib = whole(guest->swapped);
    vm->psi_permille = whole(guest->stall * 1000);
    vm->keeps_balloon = guest->mode == GUEST_KEEPS;
    vm->balloon_mib = whole(fmin(fmax(guest->said_balloon, 0), guest->max));
    vm->used_mib = whole(guest->said_used);
    vm->refaults = whole(guest->said_refaults);
    vm->stats_age_ms = guest->said_ms == 0 ? UINT32_MAX : sim->now_ms - guest->said_ms;
}

static void decide(struct sim *sim, uint32_t elapsed_ms)
{
    struct warren *warren = sim->state;
    struct balancer_host host = { .capacity_mib = whole(sim->capacity),
                                  .free_mib = whole(sim->free),
                                  .swap_free_mib = whole(sim->swap_size - sim->swap_used),
                                  .swap_mib = whole(sim->swap_size),
                                  .psi_permille = whole(sim->stall * 1000),
                                  .elapsed_ms = elapsed_ms };

    for (unsigned i = 0; i < sim->count; i++)
        see(sim, &sim->guests[i], i, &warren->vms[i]);
    balancer_plan(&balancer_default, &host, warren->vms, sim->count, &warren->state);
    for (unsigned i = 0; i < sim->count; i++) {
        const struct balancer_plan *plan = &warren->vms[i].plan;
        struct guest *guest = &sim->guests[i];

        guest->asked = plan->balloon_mib;
        guest->reclaim = plan->reclaim_mib;
        guest->high = plan->high_mib;
        guest->paused = plan->pause;
        guest->kill = plan->kill;
    }
}

const struct policy policy_warren = { .name = "warren",
                                      .tick_ms = 1000,
                                      .size = sizeof(struct warren),
                                      .is_triggered = true,
                                      .decide = decide };
