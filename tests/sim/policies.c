/* policies.c - what others do, each as its owner describes it; where a description leaves something
 * open, what helps it.  A balloon's target is `asked`: max less the limit that the policy wants. */
#include <math.h>
#include <string.h>

#include "tests/sim/sim.h"

static void set_limit(struct guest *guest, double limit)
{
    guest->asked = guest->max - fmin(fmax(limit, guest->min), guest->max);
}

static double limit_now(const struct guest *guest)
{
    return guest->max - guest->asked;
}

/* --- static: the host cut into parts, once --- */

static void static_decide(struct sim *sim, uint32_t elapsed_ms)
{
    double promised = 0;

    (void)elapsed_ms;
    for (unsigned i = 0; i < sim->count; i++)
        promised += sim->guests[i].max;
    for (unsigned i = 0; i < sim->count; i++)
        set_limit(&sim->guests[i], sim->capacity * 0.98 * sim->guests[i].max / promised);
}

const struct policy policy_static = { .name = "static", .tick_ms = 60000, .decide = static_decide };

/* --- Proxmox VE (pve-manager: compute_alg1 of PVE/AutoBalloon.pm, by auto_ballooning of
 * PVE/Service/pvestatd.pm): every 10 s, the host to 80 % used, at most 100 MiB a VM, shares above
 * the minimum, those short of memory grow first, those with much of it free shrink first --- */

#define PROXMOX_CHANGE 100.0
#define PROXMOX_DEAD   10.0

struct proxmox {
    const struct rule_guest *guests;
    unsigned count;
    double change_max;
    double *limits;
};

/* One round over those in `in`, towards their share of what all of them would have; takes what
 * changed from *rest.  Returns whether anything did. */
static bool proxmox_round(struct proxmox *proxmox, const bool *in, bool *done, bool grow,
                          double *rest)
{
    double shares = 0, above = *rest;
    bool moved = false;

    for (unsigned i = 0; i < proxmox->count; i++)
        if (in[i] && !done[i]) {
            shares += proxmox->guests[i].shares;
            above += proxmox->limits[i] - proxmox->guests[i].min;
        }
    for (unsigned i = 0; i < proxmox->count; i++) {
        const struct rule_guest *guest = &proxmox->guests[i];
        double wanted = guest->min + above / shares * guest->shares, next;

        if (!in[i] || done[i])
            continue;
        wanted = fmin(fmax(wanted, guest->min), guest->max);
        if (grow && wanted > guest->limit) {
            next = fmin(wanted, guest->limit + proxmox->change_max);
        } else if (wanted < guest->limit) {
            next = fmax(wanted, guest->limit - proxmox->change_max);
        } else {
            done[i] = true;
            continue;
        }
        *rest -= next - proxmox->limits[i];
        moved |= next != proxmox->limits[i];
        proxmox->limits[i] = next;
    }
    return moved;
}

/* Returns what is left of goal. */
static double proxmox_change(struct proxmox *proxmox, const bool *in, double goal)
{
    bool done[SIM_GUESTS_MAX] = { false };
    double rest = goal;

    for (int round = 0; fabs(rest) >= 1 && round < 100; round++)
        if (!proxmox_round(proxmox, in, done, goal > 0, &rest))
            break;
    return rest;
}

void rule_proxmox(const struct rule_guest *guests, unsigned count, double goal, double change_max,
                  double *ret_limits)
{
    struct proxmox proxmox = { guests, count, change_max, ret_limits };
    bool all[SIM_GUESTS_MAX], first[SIM_GUESTS_MAX];
    double rest;

    for (unsigned i = 0; i < count; i++) {
        bool has_free = guests[i].free > guests[i].min * 0.25 && guests[i].limit >= guests[i].min;

        ret_limits[i] = guests[i].limit;
        all[i] = true;
        first[i] = goal > 0 ? !has_free : has_free;
    }
    if (fabs(goal) <= PROXMOX_DEAD)
        return;
    rest = proxmox_change(&proxmox, first, goal);
    if (fabs(rest) >= fabs(goal))
        proxmox_change(&proxmox, all, rest);
}

static void proxmox_decide(struct sim *sim, uint32_t elapsed_ms)
{
    struct rule_guest guests[SIM_GUESTS_MAX] = { 0 };
    double limits[SIM_GUESTS_MAX];

    (void)elapsed_ms;
    for (unsigned i = 0; i < sim->count; i++) {
        const struct guest *guest = &sim->guests[i];

        guests[i] =
            (struct rule_guest){ .max = guest->max,
                                 .min = guest->min,
                                 .limit = guest->max - guest->said_balloon,
                                 .shares = 1000,
                                 .free = fmax(guest->max - guest->said_balloon - guest->said_used -
                                                  guest->cold - guest->hot,
                                              0) };
    }
    rule_proxmox(guests, sim->count, sim->free - 0.2 * sim->capacity, PROXMOX_CHANGE, limits);
    for (unsigned i = 0; i < sim->count; i++)
        set_limit(&sim->guests[i], limits[i]);
}

const struct policy policy_proxmox = { .name = "proxmox",
                                       .tick_ms = 10000,
                                       .decide = proxmox_decide };

/* --- oVirt's MOM (vdsm: static/etc/vdsm/mom.d/02-balloon.policy, mom.conf.in): each 15 s, by the
 * mean of ten samples (mom: StatAvg of mom/Entity.py), a guest is to keep as much of its memory
 * free as the host has (20 % scaled by that to 20 %; below 5 % less than none): where that is under
 * 20 % it goes down to it by at most 5 % a step, else it gets 5 %, or at once what it lacks of it.
 * Its caches count as used (mem_unused) --- */

#define MOM_SAMPLES 10

struct mom {
    double host_free[MOM_SAMPLES], used[SIM_GUESTS_MAX][MOM_SAMPLES];
    unsigned samples;
};

static double mean(const double *samples, unsigned count)
{
    double sum = 0;

    for (unsigned i = 0; i < count; i++)
        sum += samples[i];
    return sum / count;
}

double rule_mom(const struct rule_guest *guest, double host_free_share)
{
    double keep = host_free_share <= 0.05 ? host_free_share - 0.05 : 0.2 * host_free_share / 0.2;
    double used = guest->limit - guest->free, wanted;

    if (host_free_share < 0.2)
        wanted = fmin(fmax(guest->limit * 0.95, fmax(guest->min, used + keep * guest->limit)),
                      guest->limit);
    else
        wanted = fmin(fmax(guest->limit * 1.05, fmax(guest->min, used + keep * guest->limit)),
                      guest->max);
    return fabs(wanted - guest->limit) > 0.0025 * guest->limit ? wanted : guest->limit;
}

static void mom_decide(struct sim *sim, uint32_t elapsed_ms)
{
    struct mom *mom = sim->state;
    unsigned now = mom->samples++ % MOM_SAMPLES;
    unsigned count = mom->samples < MOM_SAMPLES ? mom->samples : MOM_SAMPLES;

    (void)elapsed_ms;
    mom->host_free[now] = sim->free / sim->capacity;
    for (unsigned i = 0; i < sim->count; i++) {
        struct guest *guest = &sim->guests[i];
        double limit = guest->max - guest->said_balloon;
        struct rule_guest rule = { .max = guest->max, .min = guest->min, .limit = limit };

        mom->used[i][now] = fmin(guest->said_used + guest->hot + guest->cold, limit);
        rule.free = limit - mean(mom->used[i], count);
        set_limit(guest, rule_mom(&rule, mean(mom->host_free, count)));
    }
}

const struct policy policy_mom = {
    .name = "ovirt-mom", .tick_ms = 15000, .size = sizeof(struct mom), .decide = mom_decide
};

/* --- ESX: idle memory tax of 0.75; high, soft, hard, low at 6, 4, 2, 1 % of free memory; balloons
 * from soft on, swapping from hard on, and in low who is above its target is blocked; a guest's
 * active memory is taken to be known --- */

static double esx_share(const struct guest *guest, double price)
{
    double active = guest->anon + guest->hot, bought = guest->weight * price;

    if (bought > active)
        bought = active + (bought - active) * 0.25;
    return fmin(fmax(bought, guest->min), guest->max);
}

static double esx_price(const struct sim *sim)
{
    double below = 0, above = 1e4;

    for (int i = 0; i < 50; i++) {
        double middle = (below + above) / 2, sum = 0;

        for (unsigned g = 0; g < sim->count; g++)
            sum += esx_share(&sim->guests[g], middle);
        if (sum <= sim->capacity * 0.94)
            below = middle;
        else
            above = middle;
    }
    return below;
}

static void esx_decide(struct sim *sim, uint32_t elapsed_ms)
{
    double price = esx_price(sim), share = sim->free / sim->capacity;
    bool *short_of = sim->state;

    (void)elapsed_ms;
    *short_of = share < 0.04 || (*short_of && share < 0.06);
    for (unsigned i = 0; i < sim->count; i++) {
        struct guest *guest = &sim->guests[i];
        double target = esx_share(guest, price);

        if (target > limit_now(guest) || (*short_of && guest_resident(guest) > target))
            set_limit(guest, target);
        guest->reclaim = share < 0.02 ? fmax(guest_resident(guest) - target, 0) : 0;
        guest->paused = share < 0.01 && guest_resident(guest) > target;
    }
}

const struct policy policy_esx = { .name = "esx-tax",
                                   .tick_ms = 15000,
                                   .size = sizeof(bool),
                                   .is_triggered = true,
                                   .decide = esx_decide };

/* --- Xen's self-ballooning (Linux before 5.3: selfballoon_process of
 * drivers/xen/xen-selfballoon.c): each guest goes to what it has committed and 10 %
 * of its memory, an eighth of the way down and all of the way up, each 5 s, and not below a floor
 * --- */

static double xen_floor(double max)
{
    if (max < 16)
        return max;
    if (max < 64)
        return 16 + (max - 16) / 2;
    return max < 512 ? 40 + (max - 40) / 8 : 99 + (max - 99) / 32;
}

double rule_xen(double max, double limit, double committed)
{
    double goal = fmin(committed + 0.1 * max, max);

    return fmax(goal < limit ? limit - (limit - goal) / 8 : goal, xen_floor(max));
}

static void xen_decide(struct sim *sim, uint32_t elapsed_ms)
{
    (void)elapsed_ms;
    for (unsigned i = 0; i < sim->count; i++) {
        struct guest *guest = &sim->guests[i];

        set_limit(guest, rule_xen(guest->max, guest->max - guest->balloon, guest->anon));
    }
}

const struct policy policy_xen = { .name = "xen-self", .tick_ms = 5000, .decide = xen_decide };

/* --- senpai (senpai.py of its repository, with its defaults): each second; tasks of a group may
 * stall for 10 ms before its memory.high grows, by the square of how much longer they did, doubled
 * at 20 times that; where they stalled less in 6 s it shrinks, by 1 % at a tenth of that.  Its
 * later form in oomd (Senpai.cpp: memory.reclaim of 1 % each 6 s, none above 0.1 % of pressure)
 * bears the same densities here: neither makes guests drop their caches --- */

#define SENPAI_INTERVAL 6
#define SENPAI_US       10000.0
#define SENPAI_MIN_MIB  100.0

void rule_senpai(struct senpai *senpai, double stalled_us)
{
    double error, change;

    senpai->stalled_us += stalled_us;
    if (senpai->stalled_us > SENPAI_US) {
        error = senpai->stalled_us / SENPAI_US / 20;
        change = fmin(error * error, 1);
    } else if (senpai->grace > 0) {
        senpai->grace--;
        return;
    } else {
        error = SENPAI_US / fmax(senpai->stalled_us, 1) / 10;
        change = -0.01 * fmin(error * error, 1);
    }
    senpai->high = fmax(senpai->high * (1 + change), SENPAI_MIN_MIB);
    senpai->stalled_us = 0;
    senpai->grace = SENPAI_INTERVAL - 1;
}

static void senpai_decide(struct sim *sim, uint32_t elapsed_ms)
{
    struct senpai *all = sim->state;

    for (unsigned i = 0; i < sim->count; i++) {
        struct guest *guest = &sim->guests[i];
        struct senpai *senpai = &all[i];

        if (elapsed_ms == 0)
            *senpai = (struct senpai){ .high = fmax(guest_resident(guest), SENPAI_MIN_MIB),
                                       .grace = SENPAI_INTERVAL };
        else
            rule_senpai(senpai, (guest->stalled_s - senpai->seen_s) * 1e6);
        senpai->seen_s = guest->stalled_s;
        guest->high = senpai->high;
    }
}

const struct policy policy_senpai = { .name = "senpai",
                                      .tick_ms = 1000,
                                      .size = SIM_GUESTS_MAX * sizeof(struct senpai),
                                      .decide = senpai_decide };

/* --- an oracle, which knows what each guest will need in the next seconds --- */

#define ORACLE_MS 8000

static double oracle_need(const struct sim *sim, const struct guest *guest)
{
    unsigned cursor = guest->cursor;
    double need = guest->ideal_anon + guest->ideal_hot;

    for (uint32_t ahead = 0; ahead <= ORACLE_MS; ahead += 250) {
        struct trace_point point = trace_at(&guest->trace, sim->now_ms + ahead, &cursor);

        need = fmax(need, point.anon + point.hot);
    }
    return need + 8;
}

/* Files that nobody reads go first, by balloon; then what the host can swap and nobody misses; then
 * what files there are. */
static void oracle_decide(struct sim *sim, uint32_t elapsed_ms)
{
    double needs[SIM_GUESTS_MAX], sum = 0, spare, room = 0;

    (void)elapsed_ms;
    for (unsigned i = 0; i < sim->count; i++) {
        needs[i] = fmin(oracle_need(sim, &sim->guests[i]), sim->guests[i].max);
        sum += needs[i];
        room += sim->guests[i].max - needs[i];
    }
    spare = sim->capacity * 0.995 - sum;
    for (unsigned i = 0; i < sim->count; i++) {
        struct guest *guest = &sim->guests[i];
        double idle = 0.8 * 0.3 * guest->anon, missing = -spare * needs[i] / sum;

        if (spare >= 0) {
            set_limit(guest, needs[i] + spare * (guest->max - needs[i]) / fmax(room, 1));
        } else {
            guest->reclaim = fmax(fmin(missing, idle) - guest->swapped, 0);
            set_limit(guest, needs[i] - fmin(fmax(missing - idle, 0), guest->hot));
        }
    }
}

const struct policy policy_oracle = { .name = "oracle", .tick_ms = 250, .decide = oracle_decide };

const struct policy *const policies[POLICY_COUNT] = {
    &policy_warren, &policy_static, &policy_proxmox, &policy_mom,
    &policy_esx,    &policy_xen,    &policy_senpai,  &policy_oracle,
};
