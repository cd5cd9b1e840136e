/* test_sim.c - the simulator: the baselines do what their owners say, guests do what physics says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "tests/sim/sim.h"

static void assert_near(double value, double wanted)
{
    if (fabs(value - wanted) > 0.51)
        fail_msg("%.2f, not %.2f", value, wanted);
}

/* --- Proxmox VE --- */

static void proxmox_leaves_ten_mib_alone(void **state)
{
    const struct rule_guest guest = {
        .max = 2000, .min = 1000, .limit = 1500, .free = 900, .shares = 1000
    };
    double limit = 0;

    (void)state;
    rule_proxmox(&guest, 1, -10, 100, &limit);
    assert_near(limit, 1500);
    rule_proxmox(&guest, 1, -50, 100, &limit);
    assert_near(limit, 1450);
}

static void proxmox_changes_100_mib_at_most(void **state)
{
    const struct rule_guest guest = {
        .max = 2000, .min = 1000, .limit = 1500, .free = 900, .shares = 1000
    };
    double limit = 0;

    (void)state;
    rule_proxmox(&guest, 1, -400, 100, &limit);
    assert_near(limit, 1400);
    rule_proxmox(&guest, 1, 400, 100, &limit);
    assert_near(limit, 1600);
}

static void proxmox_shrinks_first_who_has_much_free(void **state)
{
    const struct rule_guest guests[] = {
        { .max = 2000, .min = 1000, .limit = 2000, .free = 900, .shares = 1000 },
        { .max = 2000, .min = 1000, .limit = 2000, .free = 100, .shares = 1000 },
    };
    double limits[2];

    (void)state;
    rule_proxmox(guests, 2, -80, 100, limits);
    assert_near(limits[0], 1920);
    assert_near(limits[1], 2000);
}

static void proxmox_grows_first_who_has_little_free(void **state)
{
    const struct rule_guest guests[] = {
        { .max = 2000, .min = 1000, .limit = 1200, .free = 900, .shares = 1000 },
        { .max = 2000, .min = 1000, .limit = 1200, .free = 100, .shares = 1000 },
    };
    double limits[2];

    (void)state;
    rule_proxmox(guests, 2, 80, 100, limits);
    assert_near(limits[0], 1200);
    assert_near(limits[1], 1280);
}

static void proxmox_shares_are_of_what_is_above_the_minimum(void **state)
{
    const struct rule_guest guests[] = {
        { .max = 4000, .min = 1000, .limit = 1000, .free = 100, .shares = 3000 },
        { .max = 4000, .min = 1000, .limit = 1000, .free = 100, .shares = 1000 },
    };
    double limits[2];

    (void)state;
    rule_proxmox(guests, 2, 400, 1000, limits);
    assert_near(limits[0], 1300);
    assert_near(limits[1], 1100);
}

/* --- oVirt's MOM --- */

static void mom_shrinks_to_what_is_used_and_a_part(void **state)
{
    struct rule_guest guest = { .max = 2000, .min = 100, .limit = 1000, .free = 145 };

    (void)state;
    /* 10 % of the host free: a guest keeps 10 % free; 855 used + 100 */
    assert_near(rule_mom(&guest, 0.1), 955);
    guest.free = 600; /* 5 % a step */
    assert_near(rule_mom(&guest, 0.1), 950);
    guest.free = 98; /* 0.2 % are not worth it */
    assert_near(rule_mom(&guest, 0.1), 1000);
}

static void mom_takes_from_what_is_used_where_it_is_critical(void **state)
{
    const struct rule_guest guest = { .max = 2000, .min = 100, .limit = 1000, .free = 10 };

    (void)state;
    assert_near(rule_mom(&guest, 0.02), 960); /* 990 used, and 3 % less than none */
}

static void mom_grows_by_five_percent_where_there_is_room(void **state)
{
    const struct rule_guest guest = { .max = 1020, .min = 100, .limit = 1000, .free = 10 };

    (void)state;
    assert_near(rule_mom(&guest, 0.2), 1020);
}

/* --- Xen, senpai --- */

static void xen_goes_down_by_an_eighth_and_up_at_once(void **state)
{
    (void)state;
    assert_near(rule_xen(1000, 1000, 500), 950); /* goal 600 */
    assert_near(rule_xen(1000, 500, 700), 800);
    assert_near(rule_xen(1000, 500, 990), 1000);
}

static void senpai_stops_at_its_pressure(void **state)
{
    (void)state;
    assert_near(rule_senpai(100000, 0), 50);
    assert_near(rule_senpai(100000, 0.0005), 25);
    assert_near(rule_senpai(100000, 0.001), 0);
    assert_near(rule_senpai(100000, 0.5), 0);
}

/* --- guests --- */

static struct guest guest_of(double anon, double hot)
{
    struct guest guest = { .max = 1000, .curve = 1, .touch = RATE_TOUCH, .deflates_on_oom = true };

    trace_add(&guest.trace, 0, anon, hot, 0);
    return guest;
}

static void run(struct guest *guest, uint32_t from_s, uint32_t to_s)
{
    for (uint32_t ms = from_s * 1000; ms < to_s * 1000; ms += SIM_STEP_MS)
        guest_step(guest, ms, SIM_STEP_MS / 1000.0);
}

static void a_guest_with_all_that_it_needs_is_not_slowed(void **state)
{
    struct guest guest = guest_of(400, 200);

    (void)state;
    run(&guest, 0, 60);
    assert_near(guest_resident(&guest), 600);
    assert_true(guest.lost < 0.001);
    trace_free(&guest.trace);
}

static void a_balloon_inflates_at_its_rate_and_takes_files_first(void **state)
{
    struct guest guest = guest_of(400, 200);

    (void)state;
    run(&guest, 0, 10);
    guest.asked = 900;
    run(&guest, 10, 11);
    assert_true(guest.balloon <= RATE_INFLATE + 1);
    run(&guest, 11, 20);
    assert_near(guest.hot, 0);
    assert_near(guest.balloon, 600); /* what it lives on it does not give */
    assert_true(guest.slowdown > 1.5);
    assert_int_equal(guest.ooms, 0);
    trace_free(&guest.trace);
}

static void a_guest_that_grows_takes_from_its_balloon_or_dies(void **state)
{
    struct guest guest = guest_of(100, 0);

    (void)state;
    for (int deflates = 0; deflates < 2; deflates++) {
        guest.deflates_on_oom = deflates == 1;
        guest.trace.points[0].anon = 100;
        guest.asked = 700;
        run(&guest, 0, 20);
        guest.ooms = 0;
        guest.trace.points[0].anon = 500;
        run(&guest, 20, 25);
        assert_int_equal(guest.ooms > 0, deflates == 0);
    }
    trace_free(&guest.trace);
}

static void freed_memory_is_reported_in_seconds(void **state)
{
    struct guest guest = guest_of(600, 0);

    (void)state;
    run(&guest, 0, 5);
    guest.trace.points[0].anon = 100;
    run(&guest, 5, 6);
    assert_true(guest_resident(&guest) > 300);
    run(&guest, 6, 20);
    assert_near(guest_resident(&guest), 100);
    trace_free(&guest.trace);
}

/* --- the whole --- */

/* To the last bit. */
static bool is_same(const struct sim_result *a, const struct sim_result *b)
{
    return a->slowdown == b->slowdown && a->worst == b->worst && a->ooms == b->ooms &&
           a->relief_s == b->relief_s && a->flips_per_hour == b->flips_per_hour &&
           a->jain == b->jain && a->saved_gib_min == b->saved_gib_min;
}

static void the_same_seed_has_the_same_outcome(void **state)
{
    struct sim_setup setup = {
        .trace = TRACE_MIXED, .count = 12, .length_ms = 120000, .seed = 7, .density = 2
    };
    struct sim_result one, other;

    (void)state;
    sim_run(&setup, &policy_warren, &one);
    sim_run(&setup, &policy_warren, &other);
    assert_true(is_same(&one, &other));
    setup.seed = 8;
    sim_run(&setup, &policy_warren, &other);
    assert_false(is_same(&one, &other));
}

static void twice_the_memory_is_promised_and_nobody_is_harmed(void **state)
{
    struct sim_setup setup = {
        .trace = TRACE_MIXED, .count = 48, .length_ms = 600000, .density = 2
    };
    struct sim_result result;

    (void)state;
    for (setup.seed = 1; setup.seed <= 5; setup.seed++) {
        sim_run(&setup, &policy_warren, &result);
        assert_true(result.slowdown <= 1.05);
        assert_int_equal(result.ooms, 0);
    }
    /* And it is the policy that does it. */
    sim_run(&setup, &policy_static, &result);
    assert_true(result.slowdown > 1.05);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(proxmox_leaves_ten_mib_alone),
        cmocka_unit_test(proxmox_changes_100_mib_at_most),
        cmocka_unit_test(proxmox_shrinks_first_who_has_much_free),
        cmocka_unit_test(proxmox_grows_first_who_has_little_free),
        cmocka_unit_test(proxmox_shares_are_of_what_is_above_the_minimum),
        cmocka_unit_test(mom_shrinks_to_what_is_used_and_a_part),
        cmocka_unit_test(mom_takes_from_what_is_used_where_it_is_critical),
        cmocka_unit_test(mom_grows_by_five_percent_where_there_is_room),
        cmocka_unit_test(xen_goes_down_by_an_eighth_and_up_at_once),
        cmocka_unit_test(senpai_stops_at_its_pressure),
        cmocka_unit_test(a_guest_with_all_that_it_needs_is_not_slowed),
        cmocka_unit_test(a_balloon_inflates_at_its_rate_and_takes_files_first),
        cmocka_unit_test(a_guest_that_grows_takes_from_its_balloon_or_dies),
        cmocka_unit_test(freed_memory_is_reported_in_seconds),
        cmocka_unit_test(the_same_seed_has_the_same_outcome),
        cmocka_unit_test(twice_the_memory_is_promised_and_nobody_is_harmed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
