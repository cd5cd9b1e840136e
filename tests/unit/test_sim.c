/* test_sim.c - the simulator: guests do what physics says, hosts are as they are told, ours harms
 * nobody. */
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

/* Of a guest of `max` MiB which uses so much for 5 s and then so much: what it has `seconds` after.
 */
static double resident_after(double max, double first, double then, uint32_t seconds)
{
    struct guest guest = guest_of(first, 0);

    guest.max = max;
    run(&guest, 0, 5);
    guest.trace.points[0].anon = then;
    run(&guest, 5, 5 + seconds);
    trace_free(&guest.trace);
    return guest_resident(&guest);
}

/* Two calls of 32 blocks each 2 s, as long as there are whole ones; more of a larger guest. */
static void freed_blocks_are_reported_each_two_seconds(void **state)
{
    (void)state;
    assert_near(resident_after(1000, 600, 100.9, 2), 600);
    assert_near(resident_after(1000, 600, 100.9, 3), 600 - 128);
    assert_near(resident_after(1000, 600, 100.9, 4), 600 - 128);
    assert_near(resident_after(1000, 600, 100.9, 5), 600 - 2 * 128);
    assert_near(resident_after(1000, 600, 100.9, 60), 602 - 500);
    assert_near(resident_after(8192, 4192, 192, 2), 4192);
    assert_near(resident_after(8192, 4192, 192, 3), 4192 - 9 * 64); /* 4000 blocks are free */
}

static void a_guest_with_less_than_a_call_free_reports_nothing(void **state)
{
    (void)state;
    assert_near(resident_after(1000, 980, 940, 60), 980);
    assert_near(resident_after(1000, 980, 930, 60), 930);
}

/* 600 MiB, of which it does not miss 144 soon. */
static void a_guest_waits_for_what_the_host_took(void **state)
{
    struct guest guest = guest_of(600, 0);

    (void)state;
    run(&guest, 0, 5);
    assert_true(guest.stalled_s == 0);
    guest.swapped = 600;
    run(&guest, 5, 15);
    assert_near(guest.swapped, 144);
    assert_float_equal(guest.stalled_s, 456 / RATE_SWAP_IN, 0.1);
    trace_free(&guest.trace);
}

/* --- guests that do not behave --- */

static void a_balloon_that_stalls_goes_on_minutes_later(void **state)
{
    struct guest guest = guest_of(100, 0);

    (void)state;
    guest.mode = GUEST_STALLS;
    guest.asked = 300;
    run(&guest, 0, 10);
    assert_near(guest.balloon, 300);
    guest.asked = 600;
    run(&guest, 120, 239);
    assert_near(guest.balloon, 300);
    assert_near(guest.said_balloon, 300);
    run(&guest, 240, 250);
    assert_near(guest.balloon, 600);
    trace_free(&guest.trace);
}

/* Ten minutes after 300 MiB were asked for. */
static void assert_gave(enum guest_mode mode, double balloon, double said_balloon, double said_used)
{
    struct guest guest = guest_of(100, 0);

    guest.mode = mode;
    guest.asked = 300;
    run(&guest, 0, 600);
    assert_near(guest.balloon, balloon);
    assert_near(guest.said_balloon, said_balloon);
    assert_near(guest.said_used, said_used);
    trace_free(&guest.trace);
}

static void a_balloon_that_refuses_gives_nothing_and_says_so(void **state)
{
    (void)state;
    assert_gave(GUEST_REFUSES, 0, 0, 100);
}

static void a_liar_uses_all_and_gave_all_by_its_words(void **state)
{
    (void)state;
    assert_gave(GUEST_LIES, 0, 300, 1000);
}

static void a_stale_guest_says_nothing_after_its_first_minute(void **state)
{
    struct guest guest = guest_of(100, 0);

    (void)state;
    for (int stale = 0; stale < 2; stale++) {
        guest.mode = stale ? GUEST_STALE : GUEST_HONEST;
        guest.said_ms = 0;
        guest.trace.points[0].anon = 100;
        run(&guest, 0, 70);
        guest.trace.points[0].anon = 400;
        run(&guest, 70, 100);
        assert_near(guest.anon, 400);
        assert_near(guest.said_used, stale ? 100 : 400);
        assert_int_equal(guest.said_ms > 61000, !stale);
    }
    trace_free(&guest.trace);
}

/* --- figures: an hour of two guests of 1000 MiB --- */

static void leave(struct sim *sim, uint32_t elapsed_ms)
{
    (void)sim;
    (void)elapsed_ms;
}

static void give_and_take(struct sim *sim, uint32_t elapsed_ms)
{
    (void)elapsed_ms;
    for (unsigned i = 0; i < sim->count; i++)
        sim->guests[i].asked = sim->guests[i].asked > 0 ? 0 : 100;
}

static void pause_one(struct sim *sim, uint32_t elapsed_ms)
{
    (void)elapsed_ms;
    sim->guests[1].paused = true;
}

static void kill_one(struct sim *sim, uint32_t elapsed_ms)
{
    sim->guests[1].kill = elapsed_ms > 0;
}

/* Each of them uses `first` MiB for ten minutes, then `then`. */
static struct sim_result hour_of(void (*decide)(struct sim *, uint32_t), double density,
                                 double first, double then)
{
    const struct policy policy = { .name = "one", .tick_ms = 60000, .decide = decide };
    struct trace traces[2] = { { .max = 1000 }, { .max = 1000 } };
    struct sim_setup setup = {
        .replay = traces, .count = 2, .length_ms = 3600000, .seed = 1, .density = density
    };
    struct sim_result result;

    for (unsigned i = 0; i < 2; i++) {
        trace_add(&traces[i], 0, first, 0, 0);
        trace_add(&traces[i], 600000, first, 0, 0);
        trace_add(&traces[i], 600100, then, 0, 0);
    }
    sim_run(&setup, &policy, &result);
    for (unsigned i = 0; i < 2; i++)
        trace_free(&traces[i]);
    return result;
}

static void what_is_saved_is_what_was_promised_and_is_not_used(void **state)
{
    struct sim_result result = hour_of(leave, 1, 500, 500);

    (void)state;
    assert_near(result.saved_gib_min, 1000.0 / 1024 * 60);
    assert_float_equal(result.slowdown, 1, 0.001);
    assert_float_equal(result.jain, 1, 0.001);
    assert_float_equal(result.relief_s, 0, 0);
    assert_float_equal(result.flips_per_hour, 0, 0);
    assert_int_equal(result.ooms, 0);
    assert_true(result.decide_ns > 0);
}

static void each_change_of_direction_is_a_flip(void **state)
{
    (void)state;
    assert_near(hour_of(give_and_take, 1, 500, 500).flips_per_hour, 59);
}

static void who_is_paused_is_slowed_and_that_is_not_fair(void **state)
{
    struct sim_result result = hour_of(pause_one, 1, 500, 500);

    (void)state;
    assert_near(result.worst, SLOWDOWN_MAX);
    assert_near(result.slowdown, (1 + SLOWDOWN_MAX) / 2);
    assert_float_equal(result.jain, 1.1 * 1.1 / (2 * 1.01), 0.001);
}

/* 1015 MiB, of which 1000 are used at first. */
static void relief_is_how_long_the_host_is_short(void **state)
{
    (void)state;
    assert_near(hour_of(leave, 2000 / 1015.0, 500, 400).relief_s, 602); /* reported then */
}

static void kills_are_counted_by_whomever(void **state)
{
    (void)state;
    assert_int_equal(hour_of(kill_one, 1, 500, 500).ooms, 59);
    /* By the host, which can swap no more: 3000 MiB are wanted of 1500. */
    assert_true(hour_of(leave, 4, 1000, 1000).ooms > 0);
}

/* --- the whole --- */

/* To the last bit. */
static bool is_same(const struct sim_result *a, const struct sim_result *b)
{
    return a->slowdown == b->slowdown && a->worst == b->worst && a->ooms == b->ooms &&
           a->relief_s == b->relief_s && a->flips_per_hour == b->flips_per_hour &&
           a->jain == b->jain && a->saved_gib_min == b->saved_gib_min;
}

/* The log of a run, as text; owned. */
static char *log_of(uint64_t seed, struct sim_result *ret_result)
{
    struct sim_setup setup = {
        .trace = TRACE_MIXED, .count = 12, .length_ms = 120000, .seed = seed, .density = 2
    };
    char *text = NULL;
    size_t size;

    setup.timeline = open_memstream(&text, &size);
    assert_non_null(setup.timeline);
    sim_run(&setup, &policy_warren, ret_result);
    fclose(setup.timeline);
    return text;
}

static void the_same_seed_has_the_same_log(void **state)
{
    struct sim_result one, same, other;
    char *logs[] = { log_of(7, &one), log_of(7, &same), log_of(8, &other) };

    (void)state;
    assert_true(is_same(&one, &same));
    assert_string_equal(logs[0], logs[1]);
    assert_false(is_same(&one, &other));
    assert_string_not_equal(logs[0], logs[2]);
    for (unsigned i = 0; i < 3; i++)
        free(logs[i]);
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
        cmocka_unit_test(a_guest_with_all_that_it_needs_is_not_slowed),
        cmocka_unit_test(a_balloon_inflates_at_its_rate_and_takes_files_first),
        cmocka_unit_test(a_guest_that_grows_takes_from_its_balloon_or_dies),
        cmocka_unit_test(freed_blocks_are_reported_each_two_seconds),
        cmocka_unit_test(a_guest_with_less_than_a_call_free_reports_nothing),
        cmocka_unit_test(a_guest_waits_for_what_the_host_took),
        cmocka_unit_test(a_balloon_that_stalls_goes_on_minutes_later),
        cmocka_unit_test(a_balloon_that_refuses_gives_nothing_and_says_so),
        cmocka_unit_test(a_liar_uses_all_and_gave_all_by_its_words),
        cmocka_unit_test(a_stale_guest_says_nothing_after_its_first_minute),
        cmocka_unit_test(what_is_saved_is_what_was_promised_and_is_not_used),
        cmocka_unit_test(each_change_of_direction_is_a_flip),
        cmocka_unit_test(who_is_paused_is_slowed_and_that_is_not_fair),
        cmocka_unit_test(relief_is_how_long_the_host_is_short),
        cmocka_unit_test(kills_are_counted_by_whomever),
        cmocka_unit_test(the_same_seed_has_the_same_log),
        cmocka_unit_test(twice_the_memory_is_promised_and_nobody_is_harmed),
        cmocka_unit_test(guests_that_do_not_behave_harm_nobody),
        cmocka_unit_test(every_kind_of_demand_is_borne),
        cmocka_unit_test(a_recorded_host_is_replayed),
        cmocka_unit_test(nonsense_is_not_replayed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
