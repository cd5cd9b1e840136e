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

static void mom_grows_by_five_percent_or_what_is_lacking_where_there_is_room(void **state)
{
    struct rule_guest guest = { .max = 2000, .min = 100, .limit = 1000, .free = 600 };

    (void)state;
    assert_near(rule_mom(&guest, 0.2), 1050);
    guest.free = 10; /* 990 used + 20 % */
    assert_near(rule_mom(&guest, 0.2), 1190);
    guest.max = 1020;
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

/* --- those that see the whole host: two guests of 1000 MiB each --- */

/* Owned. */
static struct sim *host_of(const struct policy *policy, double capacity, double free)
{
    struct sim *sim = calloc(1, sizeof *sim);

    assert_non_null(sim);
    sim->state = calloc(1, policy->size + 1);
    assert_non_null(sim->state);
    sim->count = 2;
    sim->capacity = capacity;
    sim->free = free;
    for (unsigned i = 0; i < 2; i++)
        sim->guests[i] = (struct guest){ .max = 1000, .min = 100, .weight = 100 };
    return sim;
}

static void host_free(struct sim *sim)
{
    for (unsigned i = 0; i < sim->count; i++)
        trace_free(&sim->guests[i].trace);
    free(sim->state);
    free(sim);
}

static double limit_of(const struct sim *sim, unsigned guest)
{
    return sim->guests[guest].max - sim->guests[guest].asked;
}

static void static_cuts_the_host_by_size(void **state)
{
    struct sim *sim = host_of(&policy_static, 1000, 0);

    (void)state;
    sim->guests[0].max = 3000;
    policy_static.decide(sim, 0);
    assert_near(limit_of(sim, 0), 735); /* of 98 % */
    assert_near(limit_of(sim, 1), 245);
    host_free(sim);
}

/* Equal shares: S / (active + (P - active) / (1 - tax)) is the same for both. */
static void esx_taxes_what_is_idle(void **state)
{
    struct sim *sim = host_of(&policy_esx, 1000, 30); /* 3 %: soft */

    (void)state;
    sim->guests[0].anon = 600;
    sim->guests[0].hot = 100;
    sim->guests[0].cold = 300;
    sim->guests[1].anon = 100;
    sim->guests[1].cold = 800;
    policy_esx.decide(sim, 0);
    assert_near(limit_of(sim, 0) + limit_of(sim, 1), 940);
    /* What the busy one has is all in use, so it pays no tax; the idle one pays for the rest. */
    assert_near(limit_of(sim, 0), 100 + (limit_of(sim, 1) - 100) * 4);
    host_free(sim);
}

static void esx_takes_by_its_four_levels(void **state)
{
    static const struct {
        double free; /* of 1000 */
        bool balloons, swaps;
    } levels[] = {
        { 41, false, false },                      /* below high, but it was not soft */
        { 39, true, false },  { 59, true, false }, /* now it was */
        { 61, false, false }, { 19, true, true },  { 9, true, true },
    };
    struct sim *sim = host_of(&policy_esx, 1000, 0);

    (void)state;
    for (unsigned i = 0; i < 2; i++)
        sim->guests[i].cold = 500;
    for (unsigned i = 0; i < sizeof levels / sizeof *levels; i++) {
        sim->free = levels[i].free;
        sim->guests[0].asked = sim->guests[1].asked = 0;
        policy_esx.decide(sim, 0);
        assert_int_equal(sim->guests[0].asked > 0, levels[i].balloons);
        assert_int_equal(sim->guests[0].reclaim > 0, levels[i].swaps);
    }
    host_free(sim);
}

static void the_oracle_knows_the_next_seconds_and_takes_what_is_not_missed(void **state)
{
    struct sim *sim = host_of(&policy_oracle, 1000, 0);

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        trace_add(&sim->guests[i].trace, 0, 200, 100, 0);
        trace_add(&sim->guests[i].trace, 5000, i == 0 ? 500 : 200, 100, 0);
    }
    policy_oracle.decide(sim, 0);
    assert_true(limit_of(sim, 0) >= 600 && limit_of(sim, 1) >= 300); /* in 5 s */
    assert_true(limit_of(sim, 0) + limit_of(sim, 1) <= 1000);
    /* Too little for all: the host takes what is idle of theirs, before balloons take their files.
     */
    sim->capacity = 900;
    sim->guests[0].anon = 500;
    sim->guests[1].anon = 200;
    sim->guests[0].hot = sim->guests[1].hot = 100;
    policy_oracle.decide(sim, 0);
    assert_true(sim->guests[0].reclaim > 0);
    assert_true(limit_of(sim, 0) >= 600 && limit_of(sim, 1) >= 300);
    host_free(sim);
}

/* --- guests --- */

static struct guest guest_of(double anon, double hot)
{
    struct guest guest = { .max = 1000, .curve = 1, .touch = RATE_TOUCH };

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
        guest.mode = deflates == 1 ? GUEST_HONEST : GUEST_KEEPS;
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

/* A quarter of all, and neither the others nor these themselves. */
static void guests_that_do_not_behave_harm_nobody(void **state)
{
    struct sim_setup setup = {
        .trace = TRACE_MIXED, .count = 48, .length_ms = 1800000, .density = 2
    };
    struct sim_result result;

    (void)state;
    for (int mode = GUEST_STALLS; mode < GUEST_MODE_COUNT; mode++)
        for (setup.seed = 1; setup.seed <= 2; setup.seed++) {
            setup.mode = (enum guest_mode)mode;
            sim_run(&setup, &policy_warren, &result);
            if (result.slowdown_others > 1.05 || result.ooms > 0)
                fail_msg("%s, seed %u: slowdown of others %.3f, %u killed", guest_mode_names[mode],
                         (unsigned)setup.seed, result.slowdown_others, result.ooms);
        }
}

/* Each trace at what it was seen to bear with room to spare; the runs are shorter, so a little less
 * than `make sim` prints. */
static void every_kind_of_demand_is_borne(void **state)
{
    static const double densities[TRACE_KIND_COUNT] = {
        [TRACE_IDLE] = 5.8,  [TRACE_RAMP] = 2.2,     [TRACE_SPIKE] = 3.4,
        [TRACE_LEAK] = 2.05, [TRACE_DIURNAL] = 1.52, [TRACE_ANTI_PHASE] = 2.2,
        [TRACE_PEAKS] = 1.6, [TRACE_BUILD] = 1.9,    [TRACE_MIXED] = 2.9,
    };

    (void)state;
    for (int trace = 0; trace < TRACE_KIND_COUNT; trace++)
        for (uint64_t seed = 1; seed <= 2; seed++) {
            struct sim_setup setup = { .trace = (enum trace_kind)trace,
                                       .count = 48,
                                       .length_ms = 600000,
                                       .seed = seed,
                                       .density = densities[trace] };
            struct sim_result result;

            sim_run(&setup, &policy_warren, &result);
            if (result.slowdown > 1.05 || result.ooms > 0)
                fail_msg("%s, seed %u: slowdown %.3f, %u killed", trace_names[trace],
                         (unsigned)seed, result.slowdown, result.ooms);
        }
}

/* --- recorded hosts --- */

/* How many guests, or -1; traces are the caller's to free. */
static int read_text(const char *text, struct trace *traces, uint32_t *ret_length_ms)
{
    FILE *file = tmpfile();
    int count;

    assert_non_null(file);
    fputs(text, file);
    rewind(file);
    count = trace_read(file, "text", traces, ret_length_ms);
    fclose(file);
    return count;
}

static void a_recorded_host_is_replayed(void **state)
{
    struct trace traces[SIM_GUESTS_MAX] = { 0 };
    struct sim_setup setup = { .replay = traces, .density = 1 };
    struct sim_result result;

    (void)state;
    setup.count = (unsigned)read_text("0,0,100,20,0,8192\n0,1,50,0,1.5\n9000,0,6000,20,0,8192\n",
                                      traces, &setup.length_ms);
    assert_int_equal(setup.count, 2);
    assert_int_equal(setup.length_ms, 9000);
    assert_near(traces[0].max, 8192);
    assert_near(traces[0].points[1].anon, 6000);
    sim_run(&setup, &policy_warren, &result);
    assert_int_equal(result.ooms, 0); /* it is as large as it was */
    for (unsigned i = 0; i < 2; i++)
        trace_free(&traces[i]);
}

static void nonsense_is_not_replayed(void **state)
{
    static const char *const texts[] = {
        "",
        "0,1,1,1,1\n9,1,1,1,1\n", /* and guest 0? */
        "0,0,1,1,1\n",            /* no time passes */
        "0,0,1,1,1\n\n9,0,1,1,1\n",
        "ms,guest,anon,hot,stream\n0,0,1,1,1\n9,0,1,1,1\n",
        "0,0,1,1,1\n9,0,1,1\n",
        "0,0,1,1,1\n9,0,1,1,1 and more\n",
        "0,0,1,1,1\n9,0,1,1,1,\n",
        "0,0,1,1,1\n9,0,1,1,1,0\n",
        "0,0,1,1,1\n9,0,1,1,1,1e9\n",
        "0,0,1,1,1\n9,0,1,1,1,9,9\n",
        "0,0,1,1,1\n9,0,nan,1,1\n",
        "0,0,1,1,1\n9,0,-1,1,1\n",
        "0,0,1,1,1\n9,0,1e9,1,1\n",
        "0,0,1,1,1\n9,0,1,inf,1\n",
        "0,0,1,1,1\n9,0,1,1,-1\n",
        "0,0,1,1,1\n9,256,1,1,1\n",
        "0,0,1,1,1\n9,-1,1,1,1\n",
        "0,0,1,1,1\n-1,0,1,1,1\n",
        "0,0,1,1,1\n700000000,0,1,1,1\n",
        "9,0,1,1,1\n9,0,1,1,1\n",
    };

    (void)state;
    for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct trace traces[SIM_GUESTS_MAX] = { 0 };
        uint32_t length_ms;

        if (read_text(texts[i], traces, &length_ms) >= 0)
            fail_msg("%u: '%s' was read", i, texts[i]);
        for (unsigned guest = 0; guest < SIM_GUESTS_MAX; guest++)
            trace_free(&traces[guest]);
    }
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
        cmocka_unit_test(mom_grows_by_five_percent_or_what_is_lacking_where_there_is_room),
        cmocka_unit_test(xen_goes_down_by_an_eighth_and_up_at_once),
        cmocka_unit_test(senpai_stops_at_its_pressure),
        cmocka_unit_test(static_cuts_the_host_by_size),
        cmocka_unit_test(esx_taxes_what_is_idle),
        cmocka_unit_test(esx_takes_by_its_four_levels),
        cmocka_unit_test(the_oracle_knows_the_next_seconds_and_takes_what_is_not_missed),
        cmocka_unit_test(a_guest_with_all_that_it_needs_is_not_slowed),
        cmocka_unit_test(a_balloon_inflates_at_its_rate_and_takes_files_first),
        cmocka_unit_test(a_guest_that_grows_takes_from_its_balloon_or_dies),
        cmocka_unit_test(freed_memory_is_reported_in_seconds),
        cmocka_unit_test(the_same_seed_has_the_same_outcome),
        cmocka_unit_test(twice_the_memory_is_promised_and_nobody_is_harmed),
        cmocka_unit_test(guests_that_do_not_behave_harm_nobody),
        cmocka_unit_test(every_kind_of_demand_is_borne),
        cmocka_unit_test(a_recorded_host_is_replayed),
        cmocka_unit_test(nonsense_is_not_replayed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
