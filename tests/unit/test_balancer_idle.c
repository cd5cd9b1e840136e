/* test_balancer_idle.c - what is idle is found, and taken before what is in use: hosts told by
 * hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "scheduler/balancer.h"

/* A guest of 4 GiB that uses 1 GiB, on a host that lacks memory but for what a test sets. */
struct fixture {
    struct balancer_host host;
    struct balancer_vm vms[2];
    struct balancer_state now;
};

static struct fixture fixture_of(uint32_t free_mib)
{
    struct balancer_vm vm = { .max_mib = 4096,
                              .min_mib = 512,
                              .weight = 100,
                              .used_mib = 1024,
                              .resident_mib = 2048,
                              .stats_age_ms = 500 };
    struct fixture fixture = { .host = { .capacity_mib = 4096,
                                         .free_mib = free_mib,
                                         .swap_mib = 2048,
                                         .swap_free_mib = 2048,
                                         .elapsed_ms = 1000 },
                               .vms = { vm, vm } };

    fixture.vms[0].serial = 1;
    fixture.vms[1].serial = 2;
    return fixture;
}

static void run(struct fixture *fixture, unsigned seconds)
{
    for (unsigned i = 0; i < seconds; i++)
        balancer_plan(&balancer_default, &fixture->host, fixture->vms, 2, &fixture->now);
}

/* The first VM, when nothing is thought to be needed beside what it uses, and just a little
 * more is left. */
static struct balancer_vm *run_with_little_left(struct fixture *fixture)
{
    struct balancer_vm *vm = &fixture->vms[0];

    run(fixture, 1);
    vm->memory.cache = 0;
    vm->balloon_mib = vm->memory.asked_mib = 4096 - 1024 - 128;
    return vm;
}

#define LEVEL_MIB(level, what) (4096 * balancer_default.levels[level].what / 1000)

/* --- caches --- */

static void a_guest_that_reads_back_is_given_more(void **state)
{
    struct fixture fixture = fixture_of(2000);
    struct balancer_vm *vm = run_with_little_left(&fixture);

    (void)state;
    run(&fixture, 60);
    assert_in_range(vm->plan.demand_mib, 1024, 1024 + 128);
    vm->refaults = 1000;
    run(&fixture, 1);
    assert_in_range(vm->plan.demand_mib, 1024 + 128 + 1, 1024 + 2 * 128 + 4096 / 16);
    assert_true(vm->plan.balloon_mib <= 4096 - vm->plan.demand_mib);
}

static void a_page_that_is_read_over_and_over_counts_no_more_than_a_sixteenth(void **state)
{
    struct fixture fixture = fixture_of(2000);
    struct balancer_vm *vm = run_with_little_left(&fixture);

    (void)state;
    vm->refaults = 1000000;
    run(&fixture, 1);
    assert_int_equal(vm->memory.cache >> 16, 128 + 4096 / 16);
}

static void what_was_learned_is_forgotten_by_taking_alone(void **state)
{
    struct fixture fixture = fixture_of(2000);
    struct balancer_vm *vm = &fixture.vms[0];
    uint64_t learned = 300u << 16;

    (void)state;
    run(&fixture, 1);
    vm->memory.cache = learned;
    vm->used_mib = 4096 - 300;
    run(&fixture, 600); /* it has no balloon */
    assert_int_equal(vm->memory.cache, learned);
    vm->used_mib = 1024;
    vm->balloon_mib = vm->memory.asked_mib = 1024; /* but much is left to it */
    run(&fixture, 600);
    assert_int_equal(vm->memory.cache, learned);
    vm->balloon_mib = vm->memory.asked_mib = 4096 - 1024 - 300;
    run(&fixture, 1);
    assert_true(vm->memory.cache < learned);
}

static void a_guest_gets_back_what_it_needs_though_it_is_entitled_to_less(void **state)
{
    struct fixture fixture = fixture_of(LEVEL_MIB(BALANCER_SOFT, enter_permille) - 1);
    struct balancer_vm *vm = &fixture.vms[0];

    (void)state;
    for (unsigned i = 0; i < 2; i++)
        fixture.vms[i].used_mib = 3000;
    vm->balloon_mib = 1000; /* 96 are left to it, of which it wants more */
    vm->refaults = 500;
    run(&fixture, 2);
    assert_true(vm->plan.entitled_mib < 3000);
    assert_true(4096 - vm->plan.balloon_mib > 3000 + 128);
    /* Not when the host has nothing, and can swap nothing in its place. */
    for (unsigned low = 0; low < 2; low++) {
        fixture.host.swap_free_mib = 0;
        fixture.host.free_mib = low == 0 ? fixture.host.free_mib : 0;
        vm->memory.asked_mib = 1000;
        run(&fixture, 1);
        assert_int_equal(vm->plan.balloon_mib >= 1000, low);
    }
}

/* --- balloons and swap --- */

static void a_balloon_takes_idle_pages_wherever_the_host_has_them(void **state)
{
    struct fixture fixture = fixture_of(LEVEL_MIB(BALANCER_SOFT, enter_permille) - 1);

    (void)state;
    /* 3 GiB are filled of which 1 is used; what the host has of that in RAM is no more. */
    fixture.vms[0].resident_mib = 1024;
    fixture.vms[0].swapped_mib = 2048;
    fixture.vms[1].resident_mib = 1024;
    run(&fixture, 1);
    assert_true(fixture.vms[0].plan.balloon_mib > 1024);
    assert_int_equal(fixture.vms[1].plan.balloon_mib, 0);
}

static void swap_that_fills_moves_balloons_too(void **state)
{
    uint32_t taken[2];

    (void)state;
    for (unsigned full = 0; full < 2; full++) {
        struct fixture fixture = fixture_of(LEVEL_MIB(BALANCER_SOFT, enter_permille) - 1);

        fixture.host.swap_free_mib = full ? 2048 / 4 : 2048;
        run(&fixture, 1);
        taken[full] = fixture.vms[0].plan.balloon_mib;
    }
    assert_true(taken[1] > taken[0]);
}

static void swap_that_is_short_stays_so_until_a_third_is_free(void **state)
{
    static const struct {
        uint32_t free_mib; /* of 2048 */
        bool is_short;
    } steps[] = { { 2048 / 5 + 1, false },
                  { 2048 / 5, true },
                  { 2048 / 3, true },
                  { 2048 / 3 + 1, false },
                  { 2048 / 5 + 1, false } };
    struct fixture fixture = fixture_of(LEVEL_MIB(BALANCER_SOFT, enter_permille) - 1);

    (void)state;
    for (unsigned i = 0; i < sizeof steps / sizeof *steps; i++) {
        fixture.host.swap_free_mib = steps[i].free_mib;
        run(&fixture, 1);
        assert_int_equal(fixture.now.short_of_swap, steps[i].is_short);
    }
}

static void a_balloon_that_could_kill_is_not_used_while_the_host_can_swap(void **state)
{
    struct fixture fixture = fixture_of(LEVEL_MIB(BALANCER_SOFT, enter_permille) - 1);
    struct balancer_vm *vm = &fixture.vms[0];

    (void)state;
    vm->keeps_balloon = true;
    fixture.vms[1].used_mib = 2048; /* so it has nothing idle */
    run(&fixture, 5);
    assert_int_equal(vm->plan.balloon_mib, 0);
    assert_int_equal(fixture.now.rung, BALANCER_RECLAIM);
    assert_true(vm->plan.reclaim_mib > 0);
    /* What was asked of it before is given back. */
    vm->balloon_mib = vm->memory.asked_mib = 1024;
    fixture.host.free_mib = 2000;
    run(&fixture, 1);
    assert_int_equal(vm->plan.balloon_mib, 0);
    /* Or somebody would be killed in its place. */
    vm->balloon_mib = 0;
    fixture.host.free_mib = LEVEL_MIB(BALANCER_SOFT, enter_permille) - 1;
    fixture.host.swap_free_mib = 0;
    run(&fixture, 8);
    assert_in_range(vm->plan.balloon_mib, 1, 4096 - vm->plan.demand_mib);
}

static void the_host_takes_first_of_whom_it_took_least(void **state)
{
    struct fixture fixture = fixture_of(LEVEL_MIB(BALANCER_SOFT, enter_permille) - 1);

    (void)state;
    for (unsigned i = 0; i < 2; i++)
        fixture.vms[i].used_mib = 2048;
    fixture.vms[0].swapped_mib = 600; /* above a quarter of it */
    run(&fixture, 5);
    assert_int_equal(fixture.now.rung, BALANCER_RECLAIM);
    assert_true(fixture.vms[0].plan.reclaim_mib > 0);
    assert_true(fixture.vms[1].plan.reclaim_mib > 3 * fixture.vms[0].plan.reclaim_mib);
}

static void all_of_one_that_is_paused_is_cold_but_its_guarantee(void **state)
{
    struct fixture fixture = fixture_of(LEVEL_MIB(BALANCER_SOFT, enter_permille) - 1);
    struct balancer_vm *vm = &fixture.vms[0];

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        fixture.vms[i].used_mib = 2048;
        fixture.vms[i].psi_permille = 500; /* both wait for what was taken */
    }
    run(&fixture, 5);
    assert_int_equal(fixture.now.rung, BALANCER_RECLAIM);
    assert_int_equal(vm->plan.reclaim_mib, 0);
    vm->memory.paused = true;
    run(&fixture, 1);
    assert_int_equal(vm->plan.reclaim_mib,
                     LEVEL_MIB(BALANCER_SOFT, leave_permille) - fixture.host.free_mib);
    assert_int_equal(fixture.vms[1].plan.reclaim_mib, 0);
    vm->memory.paused = true; /* it went on */
    vm->resident_mib = 512 + 7;
    run(&fixture, 1);
    assert_int_equal(vm->plan.reclaim_mib, 7);
}

/* What the balloon of one is to take of what it has. */
static uint32_t taken(const struct balancer_vm *vm)
{
    return vm->plan.balloon_mib - (vm->max_mib - vm->resident_mib);
}

static void each_gives_in_proportion_to_what_is_idle(void **state)
{
    struct fixture fixture = fixture_of(LEVEL_MIB(BALANCER_HARD, enter_permille) - 1);
    struct balancer_vm *vms = fixture.vms;
    uint32_t idle;

    (void)state;
    vms[0].resident_mib = 3000;
    vms[1].resident_mib = 2500;
    fixture.host.swap_free_mib = 0;
    run(&fixture, 1);
    idle = 3000 - vms[0].plan.entitled_mib;
    assert_in_range(taken(&vms[0]), 400, 600);
    assert_in_range(taken(&vms[1]), taken(&vms[0]) * (idle - 500) / idle - 1,
                    taken(&vms[0]) * (idle - 500) / idle + 1);
}

static void no_balloon_moves_for_a_few_pages(void **state)
{
    struct fixture fixture = fixture_of(LEVEL_MIB(BALANCER_HARD, enter_permille) - 1);

    (void)state;
    fixture.vms[0].resident_mib = 3000;
    run(&fixture, 1);
    assert_int_equal(taken(&fixture.vms[1]),
                     4096 * balancer_default.band_permille / 1000 / 4); /* 9 were its part */
}

static void where_balloons_have_nothing_the_host_takes_at_once(void **state)
{
    struct fixture fixture = fixture_of(LEVEL_MIB(BALANCER_SOFT, enter_permille) - 1);

    (void)state;
    fixture.vms[0].used_mib = fixture.vms[1].used_mib = 2048;
    run(&fixture, 1);
    assert_int_equal(fixture.now.rung, BALANCER_RECLAIM);
    assert_true(fixture.vms[0].plan.reclaim_mib > 0);
}

static void an_eighth_of_swap_is_left_to_bursts(void **state)
{
    struct fixture fixture = fixture_of(LEVEL_MIB(BALANCER_SOFT, enter_permille) - 1);

    (void)state;
    fixture.vms[0].used_mib = fixture.vms[1].used_mib = 2048;
    fixture.host.swap_free_mib = 2048 / 8 + 10;
    run(&fixture, 1);
    assert_int_equal(fixture.vms[0].plan.reclaim_mib + fixture.vms[1].plan.reclaim_mib, 10);
}

/* --- what starts --- */

/* Of what nobody needs, and no more than is missing; who has no balloon is reclaimed of what is
 * cold. */
static void room_is_made_for_the_guarantee_of_who_starts(void **state)
{
    uint32_t buffer = LEVEL_MIB(BALANCER_SOFT, leave_permille);

    (void)state;
    for (unsigned more = 0; more < 2; more++) {
        struct fixture fixture = fixture_of(buffer + 500);

        fixture.vms[0].resident_mib = 3000;
        fixture.host.starting_mib = 500 + (more ? 100 : 0);
        run(&fixture, 1);
        assert_int_equal(fixture.now.level, BALANCER_HIGH);
        assert_int_equal(fixture.now.rung, more ? BALANCER_BALLOON : BALANCER_REPORTING);
        assert_int_equal(fixture.vms[0].plan.balloon_mib > 0, more);
        if (more)
            assert_in_range(taken(&fixture.vms[0]) + taken(&fixture.vms[1]), 100, 120);
    }
}

static void nobody_is_throttled_for_who_starts(void **state)
{
    struct fixture fixture = fixture_of(LEVEL_MIB(BALANCER_SOFT, leave_permille) + 500);

    (void)state;
    fixture.host.starting_mib = 4000;
    for (unsigned i = 0; i < 2; i++)
        fixture.vms[i].used_mib = 2048;
    run(&fixture, 60);
    assert_int_equal(fixture.now.level, BALANCER_HIGH);
    assert_int_equal(fixture.now.rung, BALANCER_RECLAIM);
    fixture.host.starting_mib = 0;
    run(&fixture, 1);
    assert_int_equal(fixture.now.rung, BALANCER_REPORTING);
}

/* What is kept for who starts is not given to who would grow without need. */
static void who_starts_comes_before_who_grows(void **state)
{
    (void)state;
    for (unsigned starts = 0; starts < 2; starts++) {
        struct fixture fixture = fixture_of(1000);
        struct balancer_vm *vm = &fixture.vms[0];

        fixture.host.starting_mib = starts ? 800 : 0;
        vm->balloon_mib = 2800;
        vm->resident_mib = 1296;
        run(&fixture, 1);
        assert_int_equal(vm->plan.balloon_mib < 2800, !starts);
    }
}

/* --- what grows --- */

/* Not so roomy that any would grow without need. */
#define ENOUGH_MIB 200

static void who_says_nothing_and_waits_for_memory_gets_of_its_balloon(void **state)
{
    (void)state;
    for (unsigned waits = 0; waits < 2; waits++) {
        struct fixture fixture = fixture_of(ENOUGH_MIB);
        struct balancer_vm *vm = &fixture.vms[0];

        vm->balloon_mib = 3000;
        vm->stats_age_ms = UINT32_MAX;
        vm->psi_permille = balancer_default.psi_permille - 1 + waits;
        run(&fixture, 1);
        assert_int_equal(vm->plan.balloon_mib < 3000, waits);
    }
}

static void in_distress_it_gets_a_quarter_at_least(void **state)
{
    struct fixture fixture = fixture_of(ENOUGH_MIB);
    struct balancer_vm *vm = &fixture.vms[0];

    (void)state;
    vm->balloon_mib = 2000;
    vm->used_mib = 2090;
    run(&fixture, 1);
    assert_true(4096 - vm->plan.demand_mib >
                2000 - 1024); /* which it is thought to need less than */
    assert_int_equal(vm->plan.balloon_mib, 2000 - 1024);
}

static void what_grew_without_need_rests_too(void **state)
{
    struct fixture fixture = fixture_of(2000); /* roomy */
    struct balancer_vm *vm = &fixture.vms[0];

    (void)state;
    vm->balloon_mib = 2800;
    run(&fixture, 1);
    assert_true(vm->plan.balloon_mib < 2800);
    assert_int_equal(vm->memory.calm_ms, 0);
}

/* Which the slow average hardly sees. */
static void a_short_burst_is_remembered_a_while(void **state)
{
    struct fixture fixture = fixture_of(2000);
    struct balancer_vm *vm = &fixture.vms[0];

    (void)state;
    run(&fixture, 60);
    vm->used_mib = 3024;
    run(&fixture, 10);
    vm->used_mib = 1024;
    run(&fixture, 1);
    assert_in_range(vm->memory.slow >> 16, 1024 + 128 + 200, 1024 + 128 + 600);
    assert_true(vm->plan.demand_mib > 1024 + 128 + 1000);
}

/* --- what hurts --- */

static void nobody_is_throttled_before_the_host_is_nearly_out(void **state)
{
    struct fixture fixture = fixture_of(LEVEL_MIB(BALANCER_HARD, enter_permille) - 1);

    (void)state;
    for (unsigned i = 0; i < 2; i++)
        fixture.vms[i].used_mib = 2048;
    run(&fixture, 60);
    assert_int_equal(fixture.now.level, BALANCER_HARD);
    assert_int_equal(fixture.now.rung, BALANCER_RECLAIM);
    fixture.host.free_mib = LEVEL_MIB(BALANCER_LOW, enter_permille) - 1;
    run(&fixture, 1);
    assert_int_equal(fixture.now.rung, BALANCER_THROTTLE);
}

static void who_was_paused_goes_on_though_the_host_stays_short(void **state)
{
    struct fixture fixture = fixture_of(LEVEL_MIB(BALANCER_SOFT, enter_permille) - 1);

    (void)state;
    run(&fixture, 1);
    fixture.vms[0].memory.paused = true;
    run(&fixture, 10);
    assert_int_equal(fixture.now.level, BALANCER_SOFT);
    assert_false(fixture.vms[0].plan.pause);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_guest_that_reads_back_is_given_more),
        cmocka_unit_test(a_page_that_is_read_over_and_over_counts_no_more_than_a_sixteenth),
        cmocka_unit_test(what_was_learned_is_forgotten_by_taking_alone),
        cmocka_unit_test(a_guest_gets_back_what_it_needs_though_it_is_entitled_to_less),
        cmocka_unit_test(a_balloon_takes_idle_pages_wherever_the_host_has_them),
        cmocka_unit_test(swap_that_fills_moves_balloons_too),
        cmocka_unit_test(swap_that_is_short_stays_so_until_a_third_is_free),
        cmocka_unit_test(a_balloon_that_could_kill_is_not_used_while_the_host_can_swap),
        cmocka_unit_test(the_host_takes_first_of_whom_it_took_least),
        cmocka_unit_test(all_of_one_that_is_paused_is_cold_but_its_guarantee),
        cmocka_unit_test(each_gives_in_proportion_to_what_is_idle),
        cmocka_unit_test(no_balloon_moves_for_a_few_pages),
        cmocka_unit_test(where_balloons_have_nothing_the_host_takes_at_once),
        cmocka_unit_test(an_eighth_of_swap_is_left_to_bursts),
        cmocka_unit_test(who_says_nothing_and_waits_for_memory_gets_of_its_balloon),
        cmocka_unit_test(in_distress_it_gets_a_quarter_at_least),
        cmocka_unit_test(what_grew_without_need_rests_too),
        cmocka_unit_test(a_short_burst_is_remembered_a_while),
        cmocka_unit_test(room_is_made_for_the_guarantee_of_who_starts),
        cmocka_unit_test(nobody_is_throttled_for_who_starts),
        cmocka_unit_test(who_starts_comes_before_who_grows),
        cmocka_unit_test(nobody_is_throttled_before_the_host_is_nearly_out),
        cmocka_unit_test(who_was_paused_goes_on_though_the_host_stays_short),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
