/* test_policies.c - what others do (tests/sim/policies.c) is what their owners say. */
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

/* --- Proxmox VE's own tests of it (balloontest): what one round makes of a host, and what rounds
 * do until nothing changes.  Their numbers; a guest that they do not name keeps what it has. */

static const struct rule_guest proxmox_pair[] = {
    { .max = 2000, .min = 1000, .limit = 1000, .shares = 2000 },
    { .max = 2000, .min = 1000, .limit = 1000, .shares = 1000 },
};
static const struct rule_guest proxmox_full[] = {
    { .max = 2000, .min = 2000, .limit = 2000, .shares = 2000 },
    { .max = 2000, .min = 1000, .limit = 1000, .shares = 1000 },
};
static const struct rule_guest proxmox_three[] = {
    { .max = 2000, .min = 2000, .limit = 2000, .shares = 2000 },
    { .max = 2000, .min = 1000, .limit = 1007, .shares = 1000 },
    { .max = 2000, .min = 1000, .limit = 1000, .free = 512, .shares = 1000 },
};

/* Rounds until nothing changes, what is given being free then. */
static void proxmox_run(struct rule_guest *guests, unsigned count, double goal)
{
    double limits[3], moved;

    do {
        moved = 0;
        rule_proxmox(guests, count, goal, 100, limits);
        for (unsigned i = 0; i < count; i++) {
            double change = limits[i] - guests[i].limit;

            guests[i].free = fmax(guests[i].free + change, 0);
            guests[i].limit = limits[i];
            goal -= change;
            moved += fabs(change);
        }
    } while (moved > 0.5);
}

static void proxmox_passes_its_owners_tests(void **state)
{
    static const struct {
        const struct rule_guest *guests;
        unsigned count;
        double goal;
        bool to_the_end;
        double limits[3];
    } cases[] = {
        { proxmox_pair, 2, 0, false, { 1000, 1000 } },
        { proxmox_pair, 2, 90, false, { 1060, 1030 } },
        { proxmox_pair, 2, 150, false, { 1100, 1050 } },
        { proxmox_pair, 2, 270, false, { 1100, 1090 } },
        { proxmox_pair, 2, 180, true, { 1120, 1060 } },
        { proxmox_pair, 2, 270, true, { 1180, 1090 } },
        { proxmox_pair, 2, 600, true, { 1300, 1300 } },
        { proxmox_pair, 2, 900, true, { 1600, 1300 } },
        { proxmox_full, 2, 18, false, { 2000, 1018 } },
        { proxmox_full, 2, 500, false, { 2000, 1100 } },
        { proxmox_three, 3, 11, false, { 2000, 1018, 1000 } },
        { proxmox_three, 3, 80, false, { 2000, 1087, 1000 } },
        { proxmox_three, 3, 200, false, { 2000, 1107, 1000 } },
        { proxmox_three, 3, 593, true, { 2000, 1300, 1300 } },
    };

    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rule_guest guests[3];
        double limits[3];

        memcpy(guests, cases[i].guests, cases[i].count * sizeof *guests);
        if (cases[i].to_the_end)
            proxmox_run(guests, cases[i].count, cases[i].goal);
        else
            rule_proxmox(guests, cases[i].count, cases[i].goal, 100, limits);
        for (unsigned g = 0; g < cases[i].count; g++) {
            double limit = cases[i].to_the_end ? guests[g].limit : limits[g];

            if (fabs(limit - cases[i].limits[g]) > 0.51)
                fail_msg("case %u: guest %u has %.0f, not %.0f", i, g, limit, cases[i].limits[g]);
        }
    }
}

/* And back from where the last of them ended. */
static void proxmox_shrinks_as_its_owners_tests(void **state)
{
    static const struct {
        double goal, limits[3];
    } cases[] = { { -200, { 2000, 1200, 1200 } },
                  { -400, { 2000, 1200, 1000 } },
                  { -593, { 2000, 1007, 1000 } } };

    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rule_guest guests[3];

        memcpy(guests, proxmox_three, sizeof guests);
        proxmox_run(guests, 3, 593);
        proxmox_run(guests, 3, cases[i].goal);
        for (unsigned g = 0; g < 3; g++)
            if (fabs(guests[g].limit - cases[i].limits[g]) > 0.51)
                fail_msg("case %u: guest %u has %.0f, not %.0f", i, g, guests[g].limit,
                         cases[i].limits[g]);
    }
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

static void mom_grows_by_five_percent_or_to_what_the_host_has_free(void **state)
{
    struct rule_guest guest = { .max = 2000, .min = 100, .limit = 1000, .free = 600 };

    (void)state;
    assert_near(rule_mom(&guest, 0.2), 1050);
    guest.free = 10; /* 990 used + 20 % */
    assert_near(rule_mom(&guest, 0.2), 1190);
    assert_near(rule_mom(&guest, 0.5), 1490); /* as much as the host has */
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

/* Its piecewise linear function, in MiB. */
static void xen_has_a_floor(void **state)
{
    (void)state;
    assert_near(rule_xen(8, 8, 0), 8);
    assert_near(rule_xen(32, 24, 0), 24);
    assert_near(rule_xen(200, 60, 0), 60);
    assert_near(rule_xen(1123, 131, 0), 131);
    assert_near(rule_xen(1123, 140, 0), 140 - (140 - 112.3) / 8);
}

/* Its own numbers: 10 ms in 6 s; 1 % at a tenth of that, by the square of the deviation. */
static void senpai_tightens_by_a_hundredth_every_six_seconds(void **state)
{
    struct senpai senpai = { .high = 100000, .grace = 6 };

    (void)state;
    for (unsigned second = 0; second < 6; second++)
        rule_senpai(&senpai, 0);
    assert_near(senpai.high, 100000); /* the first time it waits one second more */
    rule_senpai(&senpai, 0);
    assert_near(senpai.high, 99000);
    for (unsigned second = 0; second < 5; second++)
        rule_senpai(&senpai, 400);
    assert_near(senpai.high, 99000);
    rule_senpai(&senpai, 0); /* 2 ms in all: half of the way to a tenth, so a quarter of 1 % */
    assert_near(senpai.high, 99000 * (1 - 0.0025));
    senpai = (struct senpai){ .high = 100.1 };
    rule_senpai(&senpai, 0);
    assert_near(senpai.high, 100); /* its least */
}

static void senpai_backs_off_at_once_by_the_square(void **state)
{
    struct senpai senpai = { .high = 1000, .grace = 3 };

    (void)state;
    rule_senpai(&senpai, 10000); /* not above its target */
    assert_near(senpai.high, 1000);
    rule_senpai(&senpai, 90000); /* ten times that in all: a quarter */
    assert_near(senpai.high, 1250);
    rule_senpai(&senpai, 200000);
    assert_near(senpai.high, 2500);
    rule_senpai(&senpai, 1000000);
    assert_near(senpai.high, 5000); /* never more than double */
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

/* Of ten samples, 15 s apart, and caches count as used. */
static void mom_goes_by_means(void **state)
{
    struct sim *sim = host_of(&policy_mom, 1000, 100);

    (void)state;
    assert_int_equal(policy_mom.tick_ms, 15000);
    sim->guests[0].said_used = 300;
    sim->guests[0].cold = 700;
    policy_mom.decide(sim, 0);
    assert_near(limit_of(sim, 0), 1000);
    sim->guests[0].cold = 500;
    for (unsigned sample = 2; sample <= 10; sample++) {
        policy_mom.decide(sim, 15000);
        /* What was used, and 10 % as the host has, in steps of 5 %. */
        assert_near(limit_of(sim, 0), fmax(950, 100 + 800 + 200.0 / sample));
    }
    sim->free = 300; /* of which the mean is 12 % */
    policy_mom.decide(sim, 15000);
    assert_near(limit_of(sim, 0), 950);
    host_free(sim);
}

/* Not by what its balloon was asked for. */
static void xen_goes_by_what_a_guest_has(void **state)
{
    struct sim *sim = host_of(&policy_xen, 1000, 100);

    (void)state;
    sim->guests[0].balloon = 300;
    sim->guests[0].anon = 100;
    policy_xen.decide(sim, 0);
    assert_near(limit_of(sim, 0), 700 - 500 / 8.0); /* to 100, and 10 % */
    host_free(sim);
}

static void senpai_starts_from_what_a_group_has(void **state)
{
    struct sim *sim = host_of(&policy_senpai, 1000, 0);

    (void)state;
    sim->guests[0].anon = 500;
    policy_senpai.decide(sim, 0);
    assert_near(sim->guests[0].high, 500);
    assert_near(sim->guests[1].high, 100);
    sim->guests[0].stalled_s = 0.2;
    policy_senpai.decide(sim, 1000);
    assert_near(sim->guests[0].high, 1000);
    policy_senpai.decide(sim, 1000); /* it has not stalled since */
    assert_near(sim->guests[0].high, 1000);
    host_free(sim);
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
        bool balloons, swaps, blocks;
    } levels[] = {
        { 41, false, false, false }, /* below high, but it was not soft */
        { 39, true, false, false },  { 59, true, false, false }, /* now it was */
        { 61, false, false, false }, { 19, true, true, false },
        { 9, true, true, true },     { 11, true, true, false },
    };
    struct sim *sim = host_of(&policy_esx, 1000, 0);

    (void)state;
    sim->guests[0].cold = 800;
    sim->guests[1].cold = 100;
    for (unsigned i = 0; i < sizeof levels / sizeof *levels; i++) {
        sim->free = levels[i].free;
        sim->guests[0].asked = sim->guests[1].asked = 0;
        policy_esx.decide(sim, 0);
        assert_int_equal(sim->guests[0].asked > 0, levels[i].balloons);
        assert_int_equal(sim->guests[0].reclaim > 0, levels[i].swaps);
        assert_int_equal(sim->guests[0].paused, levels[i].blocks);
        assert_false(sim->guests[1].paused); /* it has no more than its part */
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(proxmox_leaves_ten_mib_alone),
        cmocka_unit_test(proxmox_changes_100_mib_at_most),
        cmocka_unit_test(proxmox_shrinks_first_who_has_much_free),
        cmocka_unit_test(proxmox_grows_first_who_has_little_free),
        cmocka_unit_test(proxmox_shares_are_of_what_is_above_the_minimum),
        cmocka_unit_test(proxmox_passes_its_owners_tests),
        cmocka_unit_test(proxmox_shrinks_as_its_owners_tests),
        cmocka_unit_test(mom_shrinks_to_what_is_used_and_a_part),
        cmocka_unit_test(mom_takes_from_what_is_used_where_it_is_critical),
        cmocka_unit_test(mom_grows_by_five_percent_or_to_what_the_host_has_free),
        cmocka_unit_test(xen_goes_down_by_an_eighth_and_up_at_once),
        cmocka_unit_test(xen_has_a_floor),
        cmocka_unit_test(senpai_tightens_by_a_hundredth_every_six_seconds),
        cmocka_unit_test(senpai_backs_off_at_once_by_the_square),
        cmocka_unit_test(mom_goes_by_means),
        cmocka_unit_test(xen_goes_by_what_a_guest_has),
        cmocka_unit_test(senpai_starts_from_what_a_group_has),
        cmocka_unit_test(static_cuts_the_host_by_size),
        cmocka_unit_test(esx_taxes_what_is_idle),
        cmocka_unit_test(esx_takes_by_its_four_levels),
        cmocka_unit_test(the_oracle_knows_the_next_seconds_and_takes_what_is_not_missed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
