/* test_balancer_pace.c - when a host is short, how long each rung lasts, how fast balloons move and
 * how long they rest, and who is first: hosts told by hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "scheduler/balancer.h"

#define CAPACITY 100000

static const struct balancer_config *const config = &balancer_default;

static struct balancer_host host_of(uint32_t free_mib, uint32_t elapsed_ms)
{
    return (struct balancer_host){ .capacity_mib = CAPACITY,
                                   .free_mib = free_mib,
                                   .swap_mib = CAPACITY,
                                   .swap_free_mib = CAPACITY,
                                   .elapsed_ms = elapsed_ms };
}

static uint32_t mib_of(uint32_t permille)
{
    return CAPACITY / 1000 * permille;
}

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

/* Idle, and full of caches. */
static struct balancer_vm idle_vm(void)
{
    return vm_of(10000, 1000, 10000);
}

/* Beside one that uses all of what it is guaranteed: 6000 MiB are left to it. */
static void plan(const struct balancer_host *host, struct balancer_vm *vm,
                 struct balancer_state *now)
{
    struct balancer_vm vms[2] = { *vm,
                                  { .max_mib = 90000,
                                    .min_mib = 90000,
                                    .weight = 100,
                                    .used_mib = 90000,
                                    .resident_mib = 90000 } };

    balancer_plan(config, host, vms, 2, now);
    *vm = vms[0];
}

/* Its guest does what it is told. */
static void obey(struct balancer_vm *vm)
{
    vm->balloon_mib = vm->plan.balloon_mib;
    if (vm->resident_mib > vm->max_mib - vm->balloon_mib)
        vm->resident_mib = vm->max_mib - vm->balloon_mib;
}

/* --- levels --- */

static enum balancer_level level_at(uint32_t free_mib, uint32_t psi_permille,
                                    struct balancer_state *now)
{
    struct balancer_host host = host_of(free_mib, 250);

    host.psi_permille = psi_permille;
    balancer_plan(config, &host, NULL, 0, now);
    return now->level;
}

static void each_level_has_its_entry_and_its_exit(void **state)
{
    (void)state;
    for (int level = BALANCER_SOFT; level <= BALANCER_LOW; level++) {
        uint32_t enter = mib_of(config->levels[level].enter_permille);
        uint32_t leave = mib_of(config->levels[level].leave_permille);
        struct balancer_state now = { 0 };

        assert_true(leave > enter);
        assert_int_equal(level_at(enter, 0, &now), level - 1);
        assert_int_equal(level_at(enter - 1, 0, &now), level);
        assert_int_equal(level_at(leave - 1, 0, &now), level);
        assert_true(level_at(leave, 0, &now) < (enum balancer_level)level);
        assert_true(level_at(leave - 1, 0, &now) < (enum balancer_level)level);
    }
}

/* But not to where guests are paused and killed: it is free memory that decides about that. */
static void who_waits_for_memory_makes_it_one_worse_up_to_hard(void **state)
{
    const enum balancer_level with[] = { BALANCER_SOFT, BALANCER_HARD, BALANCER_HARD,
                                         BALANCER_LOW };

    (void)state;
    for (int level = BALANCER_HIGH; level <= BALANCER_LOW; level++) {
        uint32_t free_mib =
            level == BALANCER_HIGH ? CAPACITY : mib_of(config->levels[level].enter_permille) - 1;
        struct balancer_state now = { 0 };

        assert_int_equal(level_at(free_mib, config->psi_permille - 1, &now), level);
        assert_int_equal(level_at(free_mib, config->psi_permille, &now), with[level]);
    }
}

/* --- rungs --- */

/* Of a host that stays at free_mib and in which no balloon can give anything. */
static void climb_to(enum balancer_rung rung, uint32_t free_mib, struct balancer_vm *vm,
                     struct balancer_state *now)
{
    struct balancer_host host = host_of(free_mib, 100);

    for (int call = 0; now->rung != rung && call < 1000; call++) {
        plan(&host, vm, now);
        vm->plan.kill = false;
    }
    assert_int_equal(now->rung, rung);
}

static void each_rung_lasts_to_its_deadline_and_no_longer(void **state)
{
    (void)state;
    for (int rung = BALANCER_RECLAIM; rung < BALANCER_KILL; rung++) {
        struct balancer_vm vm = idle_vm();
        struct balancer_state now = { 0 };
        struct balancer_host host = host_of(0, 100);
        uint32_t ms = 0;

        vm.stats_age_ms = UINT32_MAX;
        climb_to((enum balancer_rung)rung, 0, &vm, &now);
        while (now.rung == (enum balancer_rung)rung && ms < 60000) {
            plan(&host, &vm, &now);
            ms += host.elapsed_ms;
        }
        assert_int_equal(now.rung, rung + 1);
        assert_int_equal(ms, config->deadline_ms[rung]);
    }
}

/* Who gives what is missing, but never quite gives it. */
static void balloons_have_their_time_too(void **state)
{
    struct balancer_host host = host_of(mib_of(24), 100);
    struct balancer_vm vm = idle_vm();
    struct balancer_state now = { 0 };
    uint32_t ms = 0;

    (void)state;
    plan(&host, &vm, &now);
    assert_int_equal(now.rung, BALANCER_BALLOON);
    for (; now.rung == BALANCER_BALLOON && ms < 60000; ms += host.elapsed_ms)
        plan(&host, &vm, &now);
    assert_int_equal(now.rung, BALANCER_RECLAIM);
    assert_int_equal(ms, config->deadline_ms[BALANCER_BALLOON]);
}

static void what_helps_is_given_its_time_anew(void **state)
{
    struct balancer_vm vm = idle_vm();
    struct balancer_state now = { 0 };
    struct balancer_host host = host_of(0, 100);

    (void)state;
    vm.stats_age_ms = UINT32_MAX;
    climb_to(BALANCER_THROTTLE, 0, &vm, &now);
    for (uint32_t ms = 0; ms < config->deadline_ms[BALANCER_THROTTLE] - 100; ms += 100)
        plan(&host, &vm, &now);
    host.free_mib = CAPACITY / 256 + 1;
    for (uint32_t ms = 0; ms < config->deadline_ms[BALANCER_THROTTLE]; ms += 100) {
        plan(&host, &vm, &now);
        assert_int_equal(now.rung, BALANCER_THROTTLE);
    }
    plan(&host, &vm, &now);
    assert_int_equal(now.rung, BALANCER_PAUSE);
}

static void one_is_paused_or_killed_at_a_time(void **state)
{
    struct balancer_host host = host_of(0, 100);
    struct balancer_vm vms[4] = { idle_vm(), idle_vm(), idle_vm(), idle_vm() };
    struct balancer_state now = { 0 };
    uint32_t since = UINT32_MAX, victims = 0;

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        vms[i].serial = i;
        vms[i].stats_age_ms = UINT32_MAX;
    }
    for (int call = 0; call < 200; call++) {
        bool paused[4];

        for (unsigned i = 0; i < 4; i++)
            paused[i] = vms[i].memory.paused;
        balancer_plan(config, &host, vms, 4, &now);
        since = since > UINT32_MAX - 100 ? since : since + 100;
        for (unsigned i = 0; i < 4; i++)
            if (vms[i].plan.kill || (vms[i].plan.pause && !paused[i])) {
                assert_true(since >= config->deadline_ms[now.rung]);
                since = 0;
                victims++;
            }
    }
    assert_true(victims > 4);
}

/* What is short of memory are others of the host's then. */
static void where_nobody_has_any_nobody_goes(void **state)
{
    struct balancer_state now = { 0 };
    struct balancer_vm vm = vm_of(10000, 0, 0);
    struct balancer_host host = host_of(0, 1000);

    (void)state;
    for (int i = 0; i < 60; i++)
        balancer_plan(config, &host, &vm, 1, &now);
    assert_int_equal(now.rung, BALANCER_KILL);
    assert_false(vm.plan.kill || vm.plan.pause);
}

static void who_has_too_much_is_throttled(void **state)
{
    struct balancer_state now = { 0 };
    struct balancer_host host = host_of(0, 100);
    struct balancer_vm vms[2] = { idle_vm(), vm_of(90000, 10000, 10000) };

    (void)state;
    vms[1].min_mib = 90000;
    while (now.rung < BALANCER_THROTTLE)
        balancer_plan(config, &host, vms, 2, &now);
    assert_int_equal(vms[0].plan.high_mib, vms[0].plan.entitled_mib);
    assert_in_range(vms[0].plan.high_mib, vms[0].min_mib, 9999);
    assert_int_equal(vms[1].plan.high_mib, 0);
}

/* --- balloons --- */

static void a_balloon_takes_a_tenth_a_second_at_most_while_the_host_is_not_hard_up(void **state)
{
    static const struct {
        uint32_t permille, elapsed_ms, most;
    } cases[] = { { 24, 1000, 1000 }, { 24, 250, 250 }, { 24, 60000, 1000 } };

    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct balancer_host host = host_of(mib_of(cases[i].permille), cases[i].elapsed_ms);
        struct balancer_vm vm = idle_vm();
        struct balancer_state now = { 0 };

        plan(&host, &vm, &now);
        assert_int_equal(vm.plan.balloon_mib, cases[i].most);
    }
}

static void at_once_where_it_is(void **state)
{
    struct balancer_host host = host_of(mib_of(12) - 1, 250);
    struct balancer_vm vm = idle_vm();
    struct balancer_state now = { 0 };

    (void)state;
    plan(&host, &vm, &now);
    assert_int_equal(now.level, BALANCER_HARD);
    assert_int_equal(vm.plan.balloon_mib,
                     mib_of(config->levels[BALANCER_SOFT].leave_permille) - host.free_mib);
}

static void what_is_still_to_come_is_not_asked_for_twice(void **state)
{
    struct balancer_host host = host_of(mib_of(24), 1000);
    struct balancer_vm vm = idle_vm();
    struct balancer_state now = { 0 };

    (void)state;
    plan(&host, &vm, &now);
    assert_int_equal(vm.plan.balloon_mib, 1000);
    /* Half of it is there. */
    vm.balloon_mib = 500;
    vm.resident_mib -= 500;
    host.free_mib += 500;
    plan(&host, &vm, &now);
    assert_int_equal(vm.plan.balloon_mib, 500 + mib_of(40) - host.free_mib - 500);
}

static void who_has_just_grown_is_left_alone(void **state)
{
    struct balancer_host host = host_of(mib_of(24), 250);
    struct balancer_vm vm = idle_vm();
    struct balancer_state now = { 0 };
    uint32_t ms = 0, given;

    (void)state;
    vm.balloon_mib = 4000;
    vm.resident_mib = 6000;
    plan(&host, &vm, &now);
    vm.used_mib = 6000; /* of 6000 */
    plan(&host, &vm, &now);
    given = vm.plan.balloon_mib;
    assert_true(given < 4000);
    obey(&vm);
    vm.used_mib = 1000;
    vm.resident_mib = vm.max_mib - vm.balloon_mib;
    /* It is known to be idle again only when that is no news. */
    vm.memory.fast = vm.memory.slow = 1000 << 16;
    vm.memory.cache = 0;
    for (; vm.plan.balloon_mib <= given && ms < 60000; ms += host.elapsed_ms)
        plan(&host, &vm, &now);
    assert_int_equal(ms, config->dwell_ms);
}

static void but_not_where_the_host_is_hard_up(void **state)
{
    struct balancer_host host = host_of(mib_of(12) - 1, 250);
    struct balancer_vm vm = idle_vm();
    struct balancer_state now = { 0 };

    (void)state;
    host.free_mib = CAPACITY;
    plan(&host, &vm, &now);
    vm.memory.calm_ms = 0;
    host.free_mib = mib_of(12) - 1;
    plan(&host, &vm, &now);
    assert_true(vm.plan.balloon_mib > 0);
}

/* With room, a balloon goes down to what its VM is entitled to, but not for a few pages. */
static void small_changes_are_not_made(void **state)
{
    uint32_t band = 10000 * config->band_permille / 1000;

    (void)state;
    for (uint32_t more = 0; more < 2; more++) {
        struct balancer_host host = host_of(CAPACITY, 1000);
        struct balancer_vm vm = idle_vm();
        struct balancer_state now = { 0 };
        uint32_t rest, asked;

        plan(&host, &vm, &now);
        rest = vm.max_mib - vm.plan.entitled_mib; /* where it would go */
        asked = rest + band + more;
        vm.balloon_mib = vm.memory.asked_mib = asked;
        plan(&host, &vm, &now);
        assert_int_equal(vm.plan.balloon_mib, more == 0 ? asked : rest);
    }
}

/* Nor while there is less room than twice what is to stay free. */
static void a_balloon_is_not_given_back_to_be_taken_again(void **state)
{
    uint32_t buffer = mib_of(config->levels[BALANCER_SOFT].leave_permille);

    (void)state;
    for (uint32_t roomy = 0; roomy < 2; roomy++) {
        struct balancer_host host = host_of(2 * buffer - 1 + roomy, 1000);
        struct balancer_vm vm = idle_vm();
        struct balancer_state now = { 0 };

        vm.balloon_mib = 8000;
        vm.used_mib = 500;
        plan(&host, &vm, &now);
        assert_int_equal(vm.plan.balloon_mib == 8000, !roomy);
    }
}

static void each_time_it_gives_nothing_it_is_left_alone_twice_as_long(void **state)
{
    struct balancer_host host = host_of(mib_of(24), 1000);
    struct balancer_vm vm = idle_vm();
    struct balancer_state now = { 0 };
    uint32_t wanted = config->backoff_ms, was = 0;

    (void)state;
    for (int call = 0, rests = 0; rests < 7; call++) {
        assert_true(call < 10000);
        plan(&host, &vm, &now);
        if (was == 0 && vm.memory.frozen_ms > 0) {
            assert_int_equal(vm.memory.frozen_ms, wanted);
            wanted = wanted * 2 < config->backoff_max_ms ? wanted * 2 : config->backoff_max_ms;
            rests++;
        }
        was = vm.memory.frozen_ms;
        assert_true(was == 0 || vm.plan.balloon_mib == 0);
    }
    assert_int_equal(wanted, config->backoff_max_ms);
    /* Once it gives, all is forgotten. */
    for (int call = 0; vm.memory.frozen_ms > 0 && call < 1000; call++)
        plan(&host, &vm, &now);
    for (int call = 0; call < 5; call++) {
        plan(&host, &vm, &now);
        obey(&vm);
    }
    plan(&host, &vm, &now);
    assert_int_equal(vm.memory.backoff_ms, 0);
}

/* A step in ten seconds is slow, but it moves. */
static void one_that_is_slow_is_not_left_alone(void **state)
{
    struct balancer_host host = host_of(mib_of(24), 1000);
    struct balancer_vm vm = idle_vm();
    struct balancer_state now = { 0 };

    (void)state;
    for (int second = 0; second < 60; second++) {
        plan(&host, &vm, &now);
        vm.balloon_mib += second % 5 == 4 ? 10000 / 128 + 1 : 0;
        assert_int_equal(vm.memory.frozen_ms, 0);
    }
}

/* What it used a while ago it may use again. */
static void demand_falls_slowly(void **state)
{
    struct balancer_host host = host_of(CAPACITY, 1000);
    struct balancer_vm vm = idle_vm();
    struct balancer_state now = { 0 };
    uint32_t before, after;

    (void)state;
    vm.used_mib = 8000;
    plan(&host, &vm, &now);
    before = vm.plan.demand_mib;
    vm.used_mib = 1000;
    for (uint32_t ms = 0; ms < config->slow_ms; ms += 1000)
        plan(&host, &vm, &now);
    after = vm.plan.demand_mib;
    /* A third of the fall is still to come. */
    assert_in_range(after, before - 7000 * 7 / 10, before - 7000 * 6 / 10);
}

/* --- hosts and their VMs --- */

static void nobody_is_shrunk_while_there_is_room(void **state)
{
    struct balancer_host host = { .capacity_mib = 4096, .free_mib = 2048, .elapsed_ms = 1000 };
    struct balancer_vm vms[2] = { vm_of(4096, 100, 1024), vm_of(4096, 100, 1024) };
    struct balancer_state now = { 0 };

    (void)state;
    for (int i = 0; i < 100; i++)
        balancer_plan(config, &host, vms, 2, &now);
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
    balancer_plan(config, &host, vms, 2, &now);
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
    balancer_plan(config, &host, &vm, 1, &now);
    vm.used_mib = 1090; /* of the 1096 that it has left */
    balancer_plan(config, &host, &vm, 1, &now);
    assert_true(vm.plan.balloon_mib <= 2000);
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
        deadline += config->deadline_ms[rung] + 250;
    while (!vms[1].plan.kill) {
        balancer_plan(config, &host, vms, 3, &now);
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
    balancer_plan(config, &host, vms, 2, &now);
    vms[0].memory.paused = vms[1].memory.paused = true;
    vms[1].priority = 9;
    for (; vms[1].memory.paused && waited < 100; waited++) {
        balancer_plan(config, &host, vms, 2, &now);
        assert_true(vms[0].memory.paused); /* the more important one first */
    }
    for (waited = 0; vms[0].memory.paused && waited < 100; waited++)
        balancer_plan(config, &host, vms, 2, &now);
    assert_int_equal(waited, config->dwell_ms / 1000);
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
        balancer_plan(config, &host, &vm, 1, &now);
        assert_int_equal(vm.plan.low_mib, cases[i].low_mib);
    }
}

static void a_host_that_runs_out_is_looked_at_more_often(void **state)
{
    const struct balancer_host host = { .capacity_mib = 1000, .free_mib = 100 };
    struct balancer_state now = { .level = BALANCER_HIGH };

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
        cmocka_unit_test(each_level_has_its_entry_and_its_exit),
        cmocka_unit_test(who_waits_for_memory_makes_it_one_worse_up_to_hard),
        cmocka_unit_test(each_rung_lasts_to_its_deadline_and_no_longer),
        cmocka_unit_test(balloons_have_their_time_too),
        cmocka_unit_test(what_helps_is_given_its_time_anew),
        cmocka_unit_test(one_is_paused_or_killed_at_a_time),
        cmocka_unit_test(where_nobody_has_any_nobody_goes),
        cmocka_unit_test(who_has_too_much_is_throttled),
        cmocka_unit_test(a_balloon_takes_a_tenth_a_second_at_most_while_the_host_is_not_hard_up),
        cmocka_unit_test(at_once_where_it_is),
        cmocka_unit_test(what_is_still_to_come_is_not_asked_for_twice),
        cmocka_unit_test(who_has_just_grown_is_left_alone),
        cmocka_unit_test(but_not_where_the_host_is_hard_up),
        cmocka_unit_test(small_changes_are_not_made),
        cmocka_unit_test(a_balloon_is_not_given_back_to_be_taken_again),
        cmocka_unit_test(each_time_it_gives_nothing_it_is_left_alone_twice_as_long),
        cmocka_unit_test(one_that_is_slow_is_not_left_alone),
        cmocka_unit_test(demand_falls_slowly),
        cmocka_unit_test(nobody_is_shrunk_while_there_is_room),
        cmocka_unit_test(the_idle_one_gives_and_the_busy_one_does_not),
        cmocka_unit_test(distress_is_answered_at_once),
        cmocka_unit_test(a_host_that_stays_low_kills_in_its_deadline_the_lowest_first),
        cmocka_unit_test(who_was_paused_goes_on_when_there_is_room),
        cmocka_unit_test(of_a_guarantee_what_was_filled_is_kept),
        cmocka_unit_test(a_host_that_runs_out_is_looked_at_more_often),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
