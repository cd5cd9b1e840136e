/* test_balancer.c - who gives memory back: properties of 10,000 random hosts, made smaller when one
 * fails, and a few hosts told by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "scheduler/balancer.h"

#define VMS_MAX     24
#define CASES       10000
#define CALLS       40
#define FAILED(...) (snprintf(why, WHY_SIZE, __VA_ARGS__), false)
#define WHY_SIZE    200

/* --- random hosts --- */

struct draw {
    uint64_t state;
};

static uint32_t draw(struct draw *draw, uint32_t below)
{
    uint64_t z = draw->state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return below == 0 ? 0 : (uint32_t)((z ^ z >> 31) % below);
}

struct host_case {
    struct balancer_host host;
    struct balancer_vm vms[VMS_MAX];
    unsigned count;
    struct balancer_state state;
};

/* The same seed makes the same first VMs, however many there are. */
static void make_case(uint64_t seed, unsigned count, struct host_case *ret_case)
{
    struct draw random = { seed };
    uint64_t promised = 0, minimum = 0;

    memset(ret_case, 0, sizeof *ret_case);
    ret_case->count = count;
    for (unsigned i = 0; i < count; i++) {
        struct balancer_vm *vm = &ret_case->vms[i];

        vm->max_mib = 16 + draw(&random, 8192);
        vm->min_mib = draw(&random, vm->max_mib + 1);
        vm->weight = 1 + draw(&random, draw(&random, 4) == 0 ? BALANCER_WEIGHT_MAX : 200);
        vm->priority = draw(&random, 4);
        vm->serial = i + 1;
        vm->keeps_balloon = draw(&random, 8) == 0;
        promised += vm->max_mib;
        minimum += vm->min_mib;
    }
    /* What admission lets through: all minima fit. */
    ret_case->host.capacity_mib =
        (uint32_t)(minimum + draw(&random, (uint32_t)(promised - minimum) + 100));
    ret_case->host.swap_mib = draw(&random, ret_case->host.capacity_mib + 1);
}

/* What a hostile or unlucky guest may say, and what a host may see, now. */
static void draw_words(struct host_case *host_case, struct draw *random)
{
    host_case->host.free_mib =
        draw(random, draw(random, 2) ? host_case->host.capacity_mib + 1
                                     : host_case->host.capacity_mib / 20 + 1);
    host_case->host.swap_free_mib = draw(random, host_case->host.swap_mib + 1);
    host_case->host.psi_permille = draw(random, 4) == 0 ? draw(random, 1001) : 0;
    host_case->host.elapsed_ms = draw(random, 3000);
    for (unsigned i = 0; i < host_case->count; i++) {
        struct balancer_vm *vm = &host_case->vms[i];

        vm->resident_mib = draw(random, vm->max_mib + 1);
        vm->swapped_mib = draw(random, 8) == 0 ? UINT32_MAX : draw(random, vm->max_mib + 1);
        vm->psi_permille = draw(random, 4) == 0 ? draw(random, 1001) : 0;
        vm->balloon_mib = draw(random, 8) == 0 ? draw(random, UINT32_MAX)
                                               : draw(random, vm->max_mib - vm->min_mib + 1);
        vm->used_mib = draw(random, 8) == 0 ? draw(random, UINT32_MAX) : draw(random, vm->max_mib);
        vm->refaults = draw(random, 2) ? 0 : draw(random, 8) ? draw(random, 5000) : UINT32_MAX;
        vm->stats_age_ms = draw(random, 4) == 0 ? UINT32_MAX : draw(random, 12000);
    }
}

/* --- what holds after each call --- */

static uint64_t sum_of_minima(const struct host_case *now)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < now->count; i++)
        sum += now->vms[i].min_mib;
    return sum;
}

static bool shares_hold(const struct host_case *now, char *why)
{
    uint64_t sum = 0, dearer = 0, all = 0;

    for (unsigned i = 0; i < now->count; i++) {
        const struct balancer_vm *vm = &now->vms[i];
        uint32_t share =
            balancer_share_mib(&balancer_default, vm, vm->plan.demand_mib, now->state.price);

        if (vm->plan.entitled_mib < vm->min_mib || vm->plan.entitled_mib > vm->max_mib)
            return FAILED("VM %u is entitled to %u, not within its promise", i,
                          vm->plan.entitled_mib);
        if (share != vm->plan.entitled_mib)
            return FAILED("VM %u does not pay the common price", i);
        sum += share;
        all += vm->max_mib;
        dearer +=
            balancer_share_mib(&balancer_default, vm, vm->plan.demand_mib, now->state.price + 1);
    }
    if (sum > now->host.capacity_mib && sum > sum_of_minima(now))
        return FAILED("%llu of %u MiB are given", (unsigned long long)sum, now->host.capacity_mib);
    if (sum < all && now->state.price < 1u << BALANCER_PRICE_SHIFT &&
        dearer <= now->host.capacity_mib * 96 / 100 - 1 && dearer > sum)
        return FAILED("%llu MiB would have fitted, %llu are given", (unsigned long long)dearer,
                      (unsigned long long)sum);
    return true;
}

static bool plans_hold(const struct host_case *before, const struct host_case *now, char *why)
{
    for (unsigned i = 0; i < now->count; i++) {
        const struct balancer_vm *vm = &now->vms[i];
        uint32_t asked = before->vms[i].memory.asked_mib;
        bool stale = vm->stats_age_ms > balancer_default.stale_ms;

        if (vm->plan.balloon_mib > vm->max_mib - vm->min_mib)
            return FAILED("VM %u: a balloon of %u takes of its minimum", i, vm->plan.balloon_mib);
        if (stale && before->vms[i].memory.known && vm->plan.balloon_mib > asked &&
            vm->plan.balloon_mib > before->vms[i].balloon_mib && vm->memory.frozen_ms == 0)
            return FAILED("VM %u says nothing and is shrunk", i);
        if (vm->plan.reclaim_mib > 0 && vm->resident_mib - vm->plan.reclaim_mib < vm->min_mib)
            return FAILED("VM %u is reclaimed below its minimum", i);
        if (vm->plan.high_mib > 0 && vm->plan.high_mib < vm->min_mib)
            return FAILED("VM %u is held below its minimum", i);
        if (now->state.rung < BALANCER_RECLAIM && vm->plan.reclaim_mib > 0)
            return FAILED("VM %u is reclaimed at rung %d", i, (int)now->state.rung);
        if (now->state.rung < BALANCER_THROTTLE && vm->plan.high_mib > 0)
            return FAILED("VM %u is throttled at rung %d", i, (int)now->state.rung);
    }
    return true;
}

static bool kills_hold(const struct host_case *before, const struct host_case *now, char *why)
{
    unsigned killed = 0;

    if (now->state.rung > before->state.rung + 1 && now->state.rung != BALANCER_RECLAIM)
        return FAILED("from rung %d to %d", (int)before->state.rung, (int)now->state.rung);
    for (unsigned i = 0; i < now->count; i++) {
        const struct balancer_vm *vm = &now->vms[i];

        if (!vm->plan.kill)
            continue;
        killed++;
        if (now->state.rung != BALANCER_KILL || now->state.level != BALANCER_LOW)
            return FAILED("VM %u is killed at rung %d", i, (int)now->state.rung);
        for (unsigned other = 0; other < now->count; other++) {
            const struct balancer_vm *one = &now->vms[other];
            bool over = vm->resident_mib > vm->min_mib;

            if (one->resident_mib > one->min_mib && (!over || one->priority < vm->priority))
                return FAILED("VM %u is killed before %u", i, other);
        }
    }
    return killed <= 1 || FAILED("%u are killed at once", killed);
}

static bool case_holds(uint64_t seed, unsigned count, unsigned calls, char *why)
{
    struct host_case now, before;
    struct draw random = { ~seed };

    make_case(seed, count, &now);
    for (unsigned call = 0; call < calls; call++) {
        draw_words(&now, &random);
        before = now;
        balancer_plan(&balancer_default, &now.host, now.vms, count, &now.state);
        if (!shares_hold(&now, why) || !plans_hold(&before, &now, why) ||
            !kills_hold(&before, &now, why))
            return false;
    }
    return true;
}

typedef bool holds_fn(uint64_t seed, unsigned count, unsigned calls, char *why);

/* All seeds; the first that fails is made as small as it still fails. */
static void check_all(holds_fn *holds)
{
    char why[WHY_SIZE] = "";

    for (uint64_t seed = 1; seed <= CASES; seed++) {
        unsigned count = 1 + (unsigned)(seed % VMS_MAX), calls = CALLS;

        if (holds(seed, count, calls, why))
            continue;
        while (count > 1 && !holds(seed, count - 1, calls, why))
            count--;
        while (calls > 1 && !holds(seed, count, calls - 1, why))
            calls--;
        holds(seed, count, calls, why);
        fail_msg("seed %llu, %u VMs, %u calls: %s", (unsigned long long)seed, count, calls, why);
    }
}

static void whatever_is_said_the_promises_hold(void **state)
{
    (void)state;
    check_all(case_holds);
}

/* --- order, memory --- */

/* What is planned for them, and what it will be planned by the next time. */
static bool fare_alike(const struct balancer_vm *a, const struct balancer_vm *b)
{
    const struct balancer_plan *p = &a->plan, *q = &b->plan;
    const struct balancer_memory *m = &a->memory, *n = &b->memory;

    return p->demand_mib == q->demand_mib && p->entitled_mib == q->entitled_mib &&
           p->balloon_mib == q->balloon_mib && p->reclaim_mib == q->reclaim_mib &&
           p->low_mib == q->low_mib && p->high_mib == q->high_mib && p->pause == q->pause &&
           p->kill == q->kill && m->fast == n->fast && m->slow == n->slow && m->cache == n->cache &&
           m->calm_ms == n->calm_ms && m->warm_ms == n->warm_ms && m->asked_mib == n->asked_mib &&
           m->silent_ms == n->silent_ms && m->frozen_ms == n->frozen_ms &&
           m->backoff_ms == n->backoff_ms && m->paused == n->paused;
}

static bool order_holds(uint64_t seed, unsigned count, unsigned calls, char *why)
{
    struct host_case one, other;
    struct draw random = { ~seed };
    unsigned turned = (unsigned)(seed % count);

    make_case(seed, count, &one);
    for (unsigned call = 0; call < calls / 4; call++) {
        draw_words(&one, &random);
        other = one;
        for (unsigned i = 0; i < count; i++)
            other.vms[(i + turned) % count] = one.vms[i];
        balancer_plan(&balancer_default, &one.host, one.vms, count, &one.state);
        balancer_plan(&balancer_default, &other.host, other.vms, count, &other.state);
        for (unsigned i = 0; i < count; i++)
            if (!fare_alike(&one.vms[i], &other.vms[(i + turned) % count]))
                return FAILED("VM %u fares differently at place %u", i, (i + turned) % count);
    }
    return true;
}

static void the_order_of_vms_does_not_matter(void **state)
{
    (void)state;
    check_all(order_holds);
}

static bool replay_holds(uint64_t seed, unsigned count, unsigned calls, char *why)
{
    struct host_case one, other;
    struct draw a = { seed }, b = { seed };

    make_case(seed, count, &one);
    make_case(seed, count, &other);
    for (unsigned call = 0; call < calls / 4; call++) {
        draw_words(&one, &a);
        draw_words(&other, &b);
        balancer_plan(&balancer_default, &one.host, one.vms, count, &one.state);
        balancer_plan(&balancer_default, &other.host, other.vms, count, &other.state);
        for (unsigned i = 0; i < count; i++)
            if (!fare_alike(&one.vms[i], &other.vms[i]) || one.state.rung != other.state.rung)
                return FAILED("two runs differ in call %u", call);
    }
    return true;
}

static void the_same_words_make_the_same_plans(void **state)
{
    (void)state;
    check_all(replay_holds);
}

/* --- a host that follows the plans --- */

/* Honest guests with a constant demand do what they are told; what is reclaimed of them stays
 * swapped, for it is idle. */
static void follow(struct host_case *now, const uint32_t *used, uint32_t *swapped)
{
    uint64_t resident = 0;

    for (unsigned i = 0; i < now->count; i++) {
        struct balancer_vm *vm = &now->vms[i];
        uint32_t limit = vm->max_mib - vm->plan.balloon_mib, filled = vm->resident_mib + swapped[i];

        vm->balloon_mib = vm->plan.balloon_mib;
        vm->used_mib = used[i] < limit ? used[i] : limit;
        swapped[i] += vm->plan.reclaim_mib;
        /* Caches fill the rest, as long as the host has something. */
        if (filled < vm->used_mib)
            filled = vm->used_mib;
        else if (now->host.free_mib > vm->max_mib / 20)
            filled += vm->max_mib / 20;
        filled = filled < limit ? filled : limit;
        swapped[i] = swapped[i] < filled ? swapped[i] : filled;
        vm->resident_mib = filled - swapped[i];
        vm->swapped_mib = swapped[i];
        vm->refaults = 0;
        vm->psi_permille = 0;
        vm->stats_age_ms = 500;
        resident += vm->resident_mib;
    }
    now->host.free_mib =
        resident < now->host.capacity_mib ? (uint32_t)(now->host.capacity_mib - resident) : 0;
    now->host.psi_permille = 0;
    now->host.elapsed_ms = 1000;
}

static bool rest_holds(uint64_t seed, unsigned count, unsigned calls, char *why)
{
    struct host_case now;
    struct draw random = { ~seed };
    uint32_t used[VMS_MAX], balloons[VMS_MAX] = { 0 }, swapped[VMS_MAX] = { 0 };
    uint64_t need = 0;

    (void)calls;
    make_case(seed, count, &now);
    for (unsigned i = 0; i < count; i++) {
        used[i] = draw(&random, now.vms[i].max_mib / 2 + 1);
        need += used[i] + now.vms[i].max_mib / 8 > now.vms[i].min_mib
                    ? used[i] + now.vms[i].max_mib / 8
                    : now.vms[i].min_mib;
    }
    /* A host on which they all can live, and which can swap what no balloon takes. */
    now.host.capacity_mib = (uint32_t)(need * 12 / 10 + 64);
    now.host.swap_mib = now.host.capacity_mib;
    now.host.swap_free_mib = now.host.swap_mib;
    now.host.free_mib = now.host.capacity_mib;
    for (unsigned call = 0; call < 600; call++) {
        follow(&now, used, swapped);
        balancer_plan(&balancer_default, &now.host, now.vms, count, &now.state);
        for (unsigned i = 0; i < count; i++) {
            if (call > 500 && now.vms[i].plan.balloon_mib != balloons[i])
                return FAILED("VM %u still moves after 500 calls, from %u to %u", i, balloons[i],
                              now.vms[i].plan.balloon_mib);
            balloons[i] = now.vms[i].plan.balloon_mib;
            if (now.vms[i].plan.kill)
                return FAILED("VM %u is killed though all can live", i);
        }
    }
    return now.state.level <= BALANCER_SOFT || FAILED("it ends at level %d", (int)now.state.level);
}

static void what_does_not_change_comes_to_rest(void **state)
{
    char why[WHY_SIZE] = "";

    (void)state;
    for (uint64_t seed = 1; seed <= CASES / 20; seed++)
        if (!rest_holds(seed, 1 + (unsigned)(seed % VMS_MAX), 0, why))
            fail_msg("seed %llu: %s", (unsigned long long)seed, why);
}

/* --- by hand --- */

static struct balancer_vm vm_of(uint32_t max, uint32_t used, uint32_t resident)
{
    return (struct balancer_vm){ .max_mib = max,
                                 .min_mib = max / 8,
                                 .weight = 100,
                                 .serial = max,
                                 .used_mib = used,
                                 .resident_mib = resident,
                                 .stats_age_ms = 500 };
}

static void nobody_is_shrunk_while_there_is_room(void **state)
{
    struct balancer_host host = { .capacity_mib = 4096, .free_mib = 2048, .elapsed_ms = 1000 };
    struct balancer_vm vms[2] = { vm_of(4096, 100, 1024), vm_of(4096, 100, 1024) };
    struct balancer_state now = { 0 };

    (void)state;
    for (int i = 0; i < 100; i++)
        balancer_plan(&balancer_default, &host, vms, 2, &now);
    assert_int_equal(vms[0].plan.balloon_mib, 0);
    assert_int_equal(now.level, BALANCER_HIGH);
    assert_int_equal(now.rung, BALANCER_REPORTING);
}

static void the_idle_one_gives_and_the_busy_one_does_not(void **state)
{
    struct balancer_host host = { .capacity_mib = 4096,
                                  .free_mib = 40,
                                  .swap_mib = 4096,
                                  .swap_free_mib = 4096,
                                  .elapsed_ms = 1000 };
    struct balancer_vm vms[2] = { vm_of(4096, 100, 2000), vm_of(4096, 1900, 2000) };
    struct balancer_state now = { 0 };

    (void)state;
    balancer_plan(&balancer_default, &host, vms, 2, &now);
    assert_int_not_equal(vms[0].plan.balloon_mib, 0);
    assert_int_equal(vms[1].plan.balloon_mib, 0);
    assert_true(vms[1].plan.entitled_mib > vms[0].plan.entitled_mib);
}

static void distress_is_answered_at_once(void **state)
{
    struct balancer_host host = { .capacity_mib = 8192, .free_mib = 500, .elapsed_ms = 1000 };
    struct balancer_vm vm = vm_of(4096, 500, 1000);
    struct balancer_state now = { 0 };

    (void)state;
    vm.balloon_mib = 3000;
    balancer_plan(&balancer_default, &host, &vm, 1, &now);
    vm.used_mib = 1090; /* of the 1096 that it has left */
    balancer_plan(&balancer_default, &host, &vm, 1, &now);
    assert_true(vm.plan.balloon_mib <= 2000);
}

static void a_balloon_that_gives_nothing_is_left_alone_and_tried_again(void **state)
{
    struct balancer_host host = { .capacity_mib = 4096,
                                  .free_mib = 80, /* soft */
                                  .swap_mib = 4096,
                                  .swap_free_mib = 4096,
                                  .elapsed_ms = 1000 };
    struct balancer_vm vm = vm_of(4096, 100, 4000);
    struct balancer_state now = { 0 };
    unsigned asked = 0, frozen = 0, again = 0;

    (void)state;
    for (unsigned i = 0; i < 120; i++) {
        balancer_plan(&balancer_default, &host, &vm, 1, &now);
        if (vm.memory.frozen_ms > 0)
            frozen++;
        else if (vm.plan.balloon_mib > 0)
            frozen == 0 ? asked++ : again++;
        if (vm.memory.frozen_ms > 0)
            assert_int_equal(vm.plan.balloon_mib, 0);
    }
    assert_true(asked >= 5 && asked <= 15);
    assert_true(frozen >= 60);
    assert_true(again > 0);
}

static void a_host_that_stays_low_kills_in_its_deadline_the_lowest_first(void **state)
{
    struct balancer_host host = { .capacity_mib = 4096, .free_mib = 0, .elapsed_ms = 250 };
    struct balancer_vm vms[3] = { vm_of(2048, 2048, 2048), vm_of(2048, 2048, 2048),
                                  vm_of(1024, 10, 100) };
    struct balancer_state now = { 0 };
    uint32_t ms = 0, deadline = 1000;

    (void)state;
    vms[0].priority = 5;
    vms[1].priority = 3;
    vms[2].priority = 1; /* but within its guarantee */
    vms[2].serial = 7;
    for (int rung = 0; rung < BALANCER_RUNG_COUNT; rung++)
        deadline += balancer_default.deadline_ms[rung] + 250;
    while (!vms[1].plan.kill) {
        balancer_plan(&balancer_default, &host, vms, 3, &now);
        assert_false(vms[0].plan.kill || vms[2].plan.kill);
        ms += host.elapsed_ms;
        assert_true(ms <= deadline);
    }
    assert_true(vms[1].plan.pause);
}

static void who_was_paused_goes_on_when_there_is_room(void **state)
{
    struct balancer_host host = { .capacity_mib = 4096, .free_mib = 4000, .elapsed_ms = 1000 };
    struct balancer_vm vms[2] = { vm_of(2048, 10, 100), vm_of(2048, 10, 100) };
    struct balancer_state now = { 0 };
    int waited = 0;

    (void)state;
    balancer_plan(&balancer_default, &host, vms, 2, &now);
    vms[0].memory.paused = vms[1].memory.paused = true;
    vms[1].priority = 9;
    for (; vms[1].memory.paused && waited < 100; waited++) {
        balancer_plan(&balancer_default, &host, vms, 2, &now);
        assert_true(vms[0].memory.paused); /* the more important one first */
    }
    for (; vms[0].memory.paused && waited < 100; waited++)
        balancer_plan(&balancer_default, &host, vms, 2, &now);
    assert_true(waited < 100);
    assert_false(vms[0].plan.pause || vms[1].plan.pause);
}

static void of_a_guarantee_what_was_filled_is_kept(void **state)
{
    static const struct {
        uint32_t resident_mib, swapped_mib, low_mib;
    } cases[] = { { 0, 0, 0 },        { 300, 0, 300 },  { 300, 100, 400 },
                  { 300, 2000, 512 }, { 4000, 0, 512 }, { 300, UINT32_MAX, 512 } };
    const struct balancer_host host = { .capacity_mib = 4096, .free_mib = 2048 };

    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct balancer_vm vm = vm_of(4096, 100, cases[i].resident_mib);
        struct balancer_state now = { 0 };

        vm.swapped_mib = cases[i].swapped_mib;
        balancer_plan(&balancer_default, &host, &vm, 1, &now);
        assert_int_equal(vm.plan.low_mib, cases[i].low_mib);
    }
}

static void a_host_that_runs_out_is_looked_at_more_often(void **state)
{
    const struct balancer_host host = { .capacity_mib = 1000, .free_mib = 100 };
    struct balancer_state now = { .level = BALANCER_HIGH };
    const struct balancer_config *config = &balancer_default;

    (void)state;
    assert_int_equal(balancer_wait_ms(config, &host, &now, 0), 1000);
    assert_int_equal(balancer_wait_ms(config, &host, &now, 75), 1000);
    assert_int_equal(balancer_wait_ms(config, &host, &now, 76), BALANCER_TICK_MS);
    assert_int_equal(balancer_wait_ms(config, &host, &now, UINT32_MAX), BALANCER_TICK_MS);
    now.level = BALANCER_SOFT;
    assert_int_equal(balancer_wait_ms(config, &host, &now, 0), BALANCER_TICK_MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whatever_is_said_the_promises_hold),
        cmocka_unit_test(the_order_of_vms_does_not_matter),
        cmocka_unit_test(the_same_words_make_the_same_plans),
        cmocka_unit_test(what_does_not_change_comes_to_rest),
        cmocka_unit_test(nobody_is_shrunk_while_there_is_room),
        cmocka_unit_test(the_idle_one_gives_and_the_busy_one_does_not),
        cmocka_unit_test(distress_is_answered_at_once),
        cmocka_unit_test(a_balloon_that_gives_nothing_is_left_alone_and_tried_again),
        cmocka_unit_test(a_host_that_stays_low_kills_in_its_deadline_the_lowest_first),
        cmocka_unit_test(who_was_paused_goes_on_when_there_is_room),
        cmocka_unit_test(of_a_guarantee_what_was_filled_is_kept),
        cmocka_unit_test(a_host_that_runs_out_is_looked_at_more_often),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
