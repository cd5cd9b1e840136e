#include "scheduler/balancer.h"

#define MEAN_SHIFT    16
#define REFAULTS_MANY 100 /* a second: the guest misses what its balloon took */

/* Parts of swap: the host is short of it with a fifth free, until it is a third, which balloons see
 * to.  An eighth is left to bursts. */
#define SWAP_ENTER 5
#define SWAP_LEAVE 3
#define SWAP_SPARE 8

const char *const balancer_level_names[BALANCER_LEVEL_COUNT] = {
    [BALANCER_HIGH] = "high",
    [BALANCER_SOFT] = "soft",
    [BALANCER_HARD] = "hard",
    [BALANCER_LOW] = "low",
};

const char *const balancer_rung_names[BALANCER_RUNG_COUNT] = {
    [BALANCER_REPORTING] = "reporting", [BALANCER_BALLOON] = "balloon",
    [BALANCER_RECLAIM] = "reclaim",     [BALANCER_THROTTLE] = "throttle",
    [BALANCER_PAUSE] = "pause",         [BALANCER_KILL] = "kill",
};

/* Chosen with the simulator (tests/sim), which prints what others give. */
const struct balancer_config balancer_default = {
    .tax_permille = 750,
    .levels = {
        [BALANCER_SOFT] = { .enter_permille = 25, .leave_permille = 40 },
        [BALANCER_HARD] = { .enter_permille = 12, .leave_permille = 20 },
        [BALANCER_LOW] = { .enter_permille = 5, .leave_permille = 10 },
    },
    .psi_permille = 200,
    .cold_permille = 20,
    .warm_ms = 10000,
    .deadline_ms = {
        [BALANCER_REPORTING] = 0,
        [BALANCER_BALLOON] = 3000,
        [BALANCER_RECLAIM] = 3000,
        [BALANCER_THROTTLE] = 2000,
        [BALANCER_PAUSE] = 2000,
        [BALANCER_KILL] = 1000,
    },
    .fast_ms = 10000,
    .slow_ms = 45000,
    .cache_ms = 120000,
    .stale_ms = 10000,
    .dwell_ms = 5000,
    .band_permille = 20,
    .shrink_permille = 100,
    .stuck_ms = 10000,
    .backoff_ms = 30000,
    .backoff_max_ms = 600000,
};

/* The highest rung that a level may ask for.  Throttling takes what is in use: guests lose more by
 * it than by a host that is short of free memory, so it waits until there is next to none. */
static const enum balancer_rung rung_limit[BALANCER_LEVEL_COUNT] = {
    [BALANCER_HIGH] = BALANCER_REPORTING,
    [BALANCER_SOFT] = BALANCER_RECLAIM,
    [BALANCER_HARD] = BALANCER_RECLAIM,
    [BALANCER_LOW] = BALANCER_KILL,
};

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t most(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static uint32_t less(uint32_t a, uint32_t b)
{
    return a > b ? a - b : 0;
}

/* Never wraps: both are below 2^32. */
static uint32_t permille(uint32_t whole, uint32_t share)
{
    return (uint32_t)((uint64_t)whole * share / 1000);
}

static uint32_t added(uint32_t a, uint32_t b)
{
    return a > UINT32_MAX - b ? UINT32_MAX : a + b;
}

/* --- what a VM needs --- */

/* What its guest can use now. */
static uint32_t limit_mib(const struct balancer_vm *vm)
{
    return less(vm->max_mib, vm->balloon_mib);
}

static bool is_stale(const struct balancer_config *config, const struct balancer_vm *vm)
{
    return vm->stats_age_ms > config->stale_ms;
}

/* Its balloon hurts it: nearly nothing is left to it, or it reads back what it threw away. */
static bool is_in_distress(const struct balancer_config *config, const struct balancer_vm *vm)
{
    uint32_t limit = limit_mib(vm);

    if (vm->balloon_mib == 0)
        return false;
    if (is_stale(config, vm))
        return vm->psi_permille >= config->psi_permille;
    return vm->refaults >= REFAULTS_MANY || vm->used_mib >= limit - limit / 32;
}

/* What it uses, and a little to grow into until the next call. */
static uint32_t current_mib(const struct balancer_config *config, const struct balancer_vm *vm)
{
    uint32_t current;

    if (is_stale(config, vm))
        current = least(vm->resident_mib, limit_mib(vm));
    else
        current = least(vm->used_mib, vm->max_mib) + vm->max_mib / 32;
    return least(current, vm->max_mib);
}

/* One step of an exponential average with time constant tau_ms. */
static uint64_t mean_step(uint64_t mean, uint64_t value, uint32_t elapsed_ms, uint32_t tau_ms)
{
    uint64_t part = least(elapsed_ms, tau_ms);

    return value >= mean ? mean + (value - mean) * part / tau_ms
                         : mean - (mean - value) * part / tau_ms;
}

static uint32_t demand_of(const struct balancer_config *config, const struct balancer_vm *vm)
{
    uint32_t demand = current_mib(config, vm);

    demand = most(demand, (uint32_t)(vm->memory.fast >> MEAN_SHIFT));
    demand = most(demand, (uint32_t)(vm->memory.slow >> MEAN_SHIFT));
    return least(demand + (uint32_t)(vm->memory.cache >> MEAN_SHIFT), vm->max_mib);
}

/* For its caches: it is thought to need so much at first, demand leaves no more than that beside
 * them, and no more is given at once, for a page that is read over and over counts each time. */
static uint64_t cache_step(const struct balancer_vm *vm)
{
    return ((uint64_t)vm->max_mib << MEAN_SHIFT) / 16;
}

/* How much of what is left for its caches it needs is not in any statistics.  It is found by
 * taking: what it does not read back it did not need; what it does, it gets again at once, and
 * more.  While it has no balloon, or more left than it is thought to need, nothing is seen, and
 * what was learned is kept. */
static void learn_cache(const struct balancer_config *config, struct balancer_vm *vm,
                        uint32_t elapsed_ms)
{
    uint64_t left = (uint64_t)less(limit_mib(vm), vm->used_mib) << MEAN_SHIFT;
    /* In pages of 4 KiB; as many more were read than mapped. */
    uint64_t missed = ((uint64_t)vm->refaults << MEAN_SHIFT) / 128;
    uint64_t *cache = &vm->memory.cache, step = cache_step(vm);

    if (is_stale(config, vm) || vm->balloon_mib == 0 || left > *cache + *cache / 4 + step)
        return;
    if (vm->refaults >= REFAULTS_MANY)
        *cache = left + (missed < step ? missed : step);
    else
        *cache -= *cache * least(elapsed_ms, config->cache_ms) / config->cache_ms;
    if (*cache > (uint64_t)vm->max_mib << MEAN_SHIFT)
        *cache = (uint64_t)vm->max_mib << MEAN_SHIFT;
}

/* Its balloon was asked for more than it gives, for too long: it is left alone for a while. */
static void judge_balloon(const struct balancer_config *config, struct balancer_vm *vm,
                          uint32_t elapsed_ms)
{
    struct balancer_memory *memory = &vm->memory;
    uint32_t band = permille(vm->max_mib, config->band_permille);
    bool moves, waits;

    memory->frozen_ms = less(memory->frozen_ms, elapsed_ms);
    if (memory->frozen_ms > 0)
        return;
    moves = vm->balloon_mib > memory->was_mib + vm->max_mib / 128; /* if slowly */
    waits = memory->asked_mib > vm->balloon_mib + band;
    memory->silent_ms = waits && !moves ? added(memory->silent_ms, elapsed_ms) : 0;
    if (moves)
        memory->backoff_ms = 0;
    if (moves || !waits)
        memory->was_mib = vm->balloon_mib;
    if (memory->silent_ms < config->stuck_ms)
        return;
    memory->backoff_ms = memory->backoff_ms == 0
                             ? config->backoff_ms
                             : least(memory->backoff_ms * 2, config->backoff_max_ms);
    memory->frozen_ms = memory->backoff_ms;
    memory->silent_ms = 0;
    memory->asked_mib = memory->was_mib = vm->balloon_mib;
}

static void learn(const struct balancer_config *config, struct balancer_vm *vm, uint32_t elapsed_ms)
{
    struct balancer_memory *memory = &vm->memory;
    uint64_t value = (uint64_t)current_mib(config, vm) << MEAN_SHIFT;

    if (!memory->known) {
        memory->fast = memory->slow = value;
        memory->cache = cache_step(vm);
        memory->calm_ms = config->dwell_ms;
        memory->warm_ms = config->warm_ms;
        memory->asked_mib = memory->was_mib = vm->balloon_mib;
    } else {
        memory->fast = mean_step(memory->fast, value, elapsed_ms, config->fast_ms);
        memory->slow = mean_step(memory->slow, value, elapsed_ms, config->slow_ms);
    }
    memory->known = true;
    learn_cache(config, vm, elapsed_ms);
    memory->calm_ms = is_in_distress(config, vm) ? 0 : added(memory->calm_ms, elapsed_ms);
    memory->warm_ms =
        vm->psi_permille >= config->cold_permille ? 0 : added(memory->warm_ms, elapsed_ms);
    judge_balloon(config, vm, elapsed_ms);
}

/* --- who is entitled to what --- */

uint32_t balancer_share_mib(const struct balancer_config *config, const struct balancer_vm *vm,
                            uint32_t demand_mib, uint32_t price)
{
    uint64_t bought = (uint64_t)vm->weight * vm->max_mib * price >> BALANCER_PRICE_SHIFT;

    if (bought > demand_mib)
        bought = demand_mib + (bought - demand_mib) * (1000 - config->tax_permille) / 1000;
    if (bought < vm->min_mib)
        return vm->min_mib;
    return bought > vm->max_mib ? vm->max_mib : (uint32_t)bought;
}

static uint64_t sum_at(const struct balancer_config *config, const struct balancer_vm *vms,
                       unsigned count, uint32_t price)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < count; i++)
        sum += balancer_share_mib(config, &vms[i], vms[i].plan.demand_mib, price);
    return sum;
}

/* The highest price at which they do not get more than there is; all get at least their minimum. */
static uint32_t find_price(const struct balancer_config *config, const struct balancer_vm *vms,
                           unsigned count, uint64_t give_mib)
{
    uint32_t below = 0, above = 1u << BALANCER_PRICE_SHIFT;

    if (sum_at(config, vms, count, above) <= give_mib)
        return above;
    while (above - below > 1) {
        uint32_t middle = below + (above - below) / 2;

        if (sum_at(config, vms, count, middle) <= give_mib)
            below = middle;
        else
            above = middle;
    }
    return below;
}

/* --- how short the host is --- */

static enum balancer_level next_level(const struct balancer_config *config,
                                      const struct balancer_host *host, enum balancer_level now)
{
    int level = BALANCER_LOW;

    for (; level > BALANCER_HIGH; level--) {
        uint32_t threshold = level <= (int)now ? config->levels[level].leave_permille
                                               : config->levels[level].enter_permille;

        if (host->free_mib < permille(host->capacity_mib, threshold))
            break;
    }
    if (host->psi_permille >= config->psi_permille && level < BALANCER_HARD)
        level++;
    return (enum balancer_level)level;
}

/* What is to stay free. */
static uint32_t buffer_mib(const struct balancer_config *config, const struct balancer_host *host)
{
    return permille(host->capacity_mib, config->levels[BALANCER_SOFT].leave_permille);
}

/* Of that, and of what VMs that have just started are guaranteed. */
static uint32_t missing_mib(const struct balancer_config *config, const struct balancer_host *host)
{
    return less(added(buffer_mib(config, host), host->starting_mib), host->free_mib);
}

static void climb(const struct balancer_config *config, const struct balancer_host *host,
                  struct balancer_state *state)
{
    bool lacks = host->starting_mib > 0 && missing_mib(config, host) > 0;
    enum balancer_rung limit, floor;

    state->level = next_level(config, host, state->level);
    limit = rung_limit[lacks && state->level == BALANCER_HIGH ? BALANCER_SOFT : state->level];
    floor = lacks || state->level > BALANCER_HIGH ? BALANCER_BALLOON : BALANCER_REPORTING;
    state->calm_ms = state->level < BALANCER_HARD ? added(state->calm_ms, host->elapsed_ms) : 0;
    state->rung_ms = added(state->rung_ms, host->elapsed_ms);
    state->sacrifice_ms = added(state->sacrifice_ms, host->elapsed_ms);
    /* What helps is given its time; a 256th more is not noise. */
    if (host->free_mib > state->free_mib + host->capacity_mib / 256) {
        state->free_mib = host->free_mib;
        state->rung_ms = 0;
    }
    state->free_mib = least(state->free_mib, host->free_mib);
    if (state->rung > limit || state->rung < floor) {
        state->rung = state->rung > limit ? limit : floor;
        state->rung_ms = 0;
    } else if (state->rung < limit && state->rung_ms >= config->deadline_ms[state->rung]) {
        state->rung++;
        state->rung_ms = 0;
    }
}

/* --- the plans --- */

/* More than it is entitled to, of what a balloon, or the host, could take from it now. */
static uint32_t excess_mib(const struct balancer_vm *vm)
{
    return less(vm->resident_mib, vm->plan.entitled_mib);
}

/* Not what the guest uses, from which the host can choose better, while it can swap and has
 * anything free.  Of one that cannot take it back by itself, nothing: memory is touched faster than
 * statistics come, so whatever a balloon leaves it, a burst kills it.  Where the host can swap no
 * more, it gives what is idle, for then somebody is killed otherwise. */
static uint32_t balloon_floor(const struct balancer_state *state, const struct balancer_vm *vm)
{
    if (vm->keeps_balloon && !state->short_of_swap)
        return vm->max_mib;
    if (!vm->keeps_balloon && state->short_of_swap && state->level == BALANCER_LOW)
        return vm->plan.entitled_mib;
    return most(vm->plan.entitled_mib, vm->plan.demand_mib);
}

/* What its guest has filled, wherever the host keeps it. */
static uint32_t filled_mib(const struct balancer_vm *vm)
{
    return least(added(vm->resident_mib, vm->swapped_mib), limit_mib(vm));
}

/* What a balloon is to take. */
static uint32_t idle_mib(const struct balancer_state *state, const struct balancer_vm *vm)
{
    return less(filled_mib(vm), balloon_floor(state, vm));
}

static bool may_shrink(const struct balancer_config *config, const struct balancer_vm *vm,
                       const struct balancer_state *state)
{
    if (is_stale(config, vm) || vm->memory.frozen_ms > 0)
        return false;
    return vm->memory.calm_ms >= config->dwell_ms || state->level >= BALANCER_HARD;
}

/* A VM below where a balloon would stop grows to there, at once if it is in distress; else if the
 * host has so much that this does not bring it back to where it takes again. */
static void plan_growth(const struct balancer_config *config, const struct balancer_host *host,
                        const struct balancer_state *state, struct balancer_vm *vm)
{
    uint32_t wanted = less(vm->max_mib, balloon_floor(state, vm));
    bool roomy = less(host->free_mib, host->starting_mib) >= 2 * buffer_mib(config, host);
    uint32_t band = permille(vm->max_mib, config->band_permille);
    bool hurts = is_in_distress(config, vm);

    /* Where there is room, nobody waits for others to give. */
    if (hurts && state->level == BALANCER_HIGH)
        wanted = least(wanted, less(vm->balloon_mib, vm->max_mib / 4));
    vm->plan.balloon_mib = least(vm->memory.asked_mib, vm->max_mib - vm->min_mib);
    if (wanted >= vm->plan.balloon_mib)
        return;
    if (hurts || (roomy && vm->plan.balloon_mib - wanted > band)) {
        vm->plan.balloon_mib = wanted;
        vm->memory.calm_ms = 0;
    }
}

/* Those above their entitlement give need_mib, each in proportion to what it has too much.  Returns
 * what they have in all. */
static uint64_t plan_balloons(const struct balancer_config *config,
                              const struct balancer_host *host, const struct balancer_state *state,
                              struct balancer_vm *vms, unsigned count, uint64_t need_mib)
{
    uint64_t excess = 0;

    for (unsigned i = 0; i < count; i++)
        if (may_shrink(config, &vms[i], state))
            excess += idle_mib(state, &vms[i]);
    for (unsigned i = 0; i < count && excess > 0; i++) {
        struct balancer_vm *vm = &vms[i];
        uint32_t rate = permille(vm->max_mib, config->shrink_permille);
        uint32_t idle = idle_mib(state, vm), part, target;

        if (!may_shrink(config, vm, state) || idle == 0)
            continue;
        part = (uint32_t)((need_mib * idle + excess - 1) / excess);
        /* Rather a little too much than a balloon that moves for a few pages. */
        part = most(part, permille(vm->max_mib, config->band_permille) / 4);
        if (state->level < BALANCER_HARD)
            part = least(part, (uint32_t)((uint64_t)rate * least(host->elapsed_ms, 1000) / 1000));
        part = least(part, idle);
        target = less(vm->max_mib, filled_mib(vm) - part);
        if (target > vm->plan.balloon_mib)
            vm->plan.balloon_mib = target;
    }
    return excess;
}

/* What the host could take of it: a quarter of a guest is thought to be idle, less what was taken
 * of that, and a little, to find out; all of one that is paused.  Never of its guarantee, and
 * nothing of one that waits for what was taken before.  Whoever is entitled to how much, what is
 * idle is missed by nobody. */
static uint32_t cold_mib(const struct balancer_config *config, const struct balancer_vm *vm)
{
    if (vm->memory.paused)
        return less(vm->resident_mib, vm->min_mib);
    if (vm->memory.warm_ms < config->warm_ms)
        return 0;
    return least(less(vm->resident_mib, vm->min_mib),
                 less(filled_mib(vm) / 4, vm->swapped_mib) + vm->resident_mib / 16);
}

/* The host takes need_mib itself, in proportion to what is cold: it sees which pages are, a guest's
 * statistics do not tell. */
static void plan_reclaim(const struct balancer_config *config, struct balancer_vm *vms,
                         unsigned count, uint64_t need_mib)
{
    uint64_t cold = 0;

    for (unsigned i = 0; i < count; i++)
        cold += cold_mib(config, &vms[i]);
    for (unsigned i = 0; i < count && cold > 0; i++) {
        uint64_t part = need_mib * cold_mib(config, &vms[i]) / cold;

        vms[i].plan.reclaim_mib = least((uint32_t)part, cold_mib(config, &vms[i]));
    }
}

/* What the host is to take last of it: of its guarantee what its guest has filled, wherever the
 * host keeps that.  With more, the host would rather swap others than drop its caches of this VM's
 * disks. */
static uint32_t low_mib(const struct balancer_vm *vm)
{
    return least(vm->min_mib, added(vm->resident_mib, vm->swapped_mib));
}

static void plan_limits(struct balancer_vm *vms, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (excess_mib(&vms[i]) > 0)
            vms[i].plan.high_mib = most(most(vms[i].plan.entitled_mib, vms[i].min_mib), 1);
}

/* Is a to go before b? */
static bool goes_before(const struct balancer_vm *a, const struct balancer_vm *b)
{
    bool a_over = a->resident_mib > a->min_mib, b_over = b->resident_mib > b->min_mib;

    if (a_over != b_over)
        return a_over;
    if (a->priority != b->priority)
        return a->priority < b->priority;
    if (a->resident_mib != b->resident_mib)
        return a->resident_mib > b->resident_mib;
    return a->serial < b->serial;
}

static struct balancer_vm *first_to_go(struct balancer_vm *vms, unsigned count, bool unpaused)
{
    struct balancer_vm *first = 0;

    for (unsigned i = 0; i < count; i++)
        if (!(unpaused && vms[i].memory.paused) && vms[i].resident_mib > 0 &&
            (!first || goes_before(&vms[i], first)))
            first = &vms[i];
    return first;
}

/* Who was paused goes on when there is room again, one at a time, the most important first. */
static void plan_resume(const struct balancer_config *config, struct balancer_state *state,
                        struct balancer_vm *vms, unsigned count)
{
    struct balancer_vm *next = 0;

    if (state->calm_ms < config->dwell_ms)
        return;
    for (unsigned i = 0; i < count; i++)
        if (vms[i].memory.paused && (!next || goes_before(next, &vms[i])))
            next = &vms[i];
    if (!next)
        return;
    next->memory.paused = false;
    state->calm_ms = 0;
}

/* One at a time: each is given its time to help. */
static void plan_sacrifice(const struct balancer_config *config, struct balancer_state *state,
                           struct balancer_vm *vms, unsigned count)
{
    bool kill = state->rung == BALANCER_KILL;
    struct balancer_vm *victim;

    if (state->rung < BALANCER_PAUSE || state->sacrifice_ms < config->deadline_ms[state->rung])
        return;
    victim = first_to_go(vms, count, /* unpaused= */ !kill);
    if (!victim)
        return;
    if (kill)
        victim->plan.kill = true;
    else
        victim->memory.paused = true;
    state->sacrifice_ms = 0;
}

/* What is still to come from balloons that were asked for it. */
static uint64_t pending_mib(const struct balancer_vm *vms, unsigned count)
{
    uint64_t pending = 0;

    for (unsigned i = 0; i < count; i++)
        if (vms[i].memory.frozen_ms == 0)
            pending += less(vms[i].memory.asked_mib, vms[i].balloon_mib);
    return pending;
}

void balancer_plan(const struct balancer_config *config, const struct balancer_host *host,
                   struct balancer_vm *vms, unsigned count, struct balancer_state *state)
{
    uint32_t buffer = buffer_mib(config, host), missing = missing_mib(config, host);
    /* Nor is swap to fill with what guests can do without: a burst that finds it full kills. */
    uint64_t need = (uint64_t)missing + less(host->swap_mib / SWAP_LEAVE, host->swap_free_mib);
    uint64_t pending;

    climb(config, host, state);
    state->short_of_swap =
        host->swap_free_mib <= host->swap_mib / (state->short_of_swap ? SWAP_LEAVE : SWAP_ENTER);
    for (unsigned i = 0; i < count; i++) {
        learn(config, &vms[i], host->elapsed_ms);
        vms[i].plan = (struct balancer_plan){ .demand_mib = demand_of(config, &vms[i]) };
    }
    state->price = find_price(config, vms, count, less(host->capacity_mib, buffer));
    for (unsigned i = 0; i < count; i++) {
        vms[i].plan.entitled_mib =
            balancer_share_mib(config, &vms[i], vms[i].plan.demand_mib, state->price);
        plan_growth(config, host, state, &vms[i]);
    }
    pending = pending_mib(vms, count);
    need = need > pending ? need - pending : 0;
    if (state->rung >= BALANCER_BALLOON && need > 0 &&
        plan_balloons(config, host, state, vms, count, need) < need &&
        state->rung == BALANCER_BALLOON) {
        state->rung = BALANCER_RECLAIM;
        state->rung_ms = 0;
    }
    if (state->rung >= BALANCER_RECLAIM)
        plan_reclaim(config, vms, count,
                     least(missing, less(host->swap_free_mib, host->swap_mib / SWAP_SPARE)));
    if (state->rung >= BALANCER_THROTTLE)
        plan_limits(vms, count);
    plan_sacrifice(config, state, vms, count);
    plan_resume(config, state, vms, count);
    for (unsigned i = 0; i < count; i++) {
        vms[i].plan.low_mib = low_mib(&vms[i]);
        vms[i].plan.pause = vms[i].memory.paused;
        vms[i].memory.asked_mib = vms[i].plan.balloon_mib;
    }
}

uint32_t balancer_wait_ms(const struct balancer_config *config, const struct balancer_host *host,
                          const struct balancer_state *state, uint32_t fell_mib)
{
    uint32_t soft = permille(host->capacity_mib, config->levels[BALANCER_SOFT].enter_permille);
    bool is_short = state->level != BALANCER_HIGH || less(host->free_mib, fell_mib) < soft;

    return is_short ? BALANCER_TICK_MS : 1000;
}
