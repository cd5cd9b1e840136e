/* test_vm_lifecycle.c - the event table of the API's contract, row by row, and every state's answer
 * to every event. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include "agent/vm_lifecycle.h"
#include "base/cleanup.h"

#define NONE VM_NONE

/* kill and delete work in every state there is. */
static void kill_and_delete_are_never_refused(void **state)
{
    (void)state;
    for (int s = VM_NONE + 1; s < VM_STATE_COUNT; s++) {
        enum vm_state killed = vm_lifecycle_next((enum vm_state)s, VM_EVENT_KILL);
        enum vm_state expected = s == VM_DELETING                     ? VM_DELETING
                                 : vm_state_is_live((enum vm_state)s) ? VM_STOPPING
                                                                      : VM_STOPPED;

        assert_int_equal(killed, expected);
        assert_int_equal(vm_lifecycle_next((enum vm_state)s, VM_EVENT_DELETE), VM_DELETING);
    }
}

/* The other verbs, and what is observed; columns in the order of enum vm_event. */
static void every_cell(void **state)
{
    static const enum vm_event events[] = { VM_EVENT_START,   VM_EVENT_STOP,  VM_EVENT_REBOOT,
                                            VM_EVENT_LAUNCH,  VM_EVENT_READY, VM_EVENT_EXIT_GOOD,
                                            VM_EVENT_EXIT_BAD };
    static const enum vm_event pause_events[] = { VM_EVENT_PAUSE, VM_EVENT_RESUME, VM_EVENT_HELD,
                                                  VM_EVENT_RELEASED };
    static const struct {
        enum vm_state state;
        enum vm_state next[ARRAY_LENGTH(pause_events)];
    } pause_rows[] = {
        { VM_CREATING, { NONE, NONE, NONE, NONE } },
        { VM_STOPPED, { NONE, NONE, NONE, NONE } },
        { VM_STARTING, { NONE, NONE, NONE, NONE } },
        { VM_RUNNING, { VM_PAUSING, VM_RUNNING, VM_PAUSED, VM_RUNNING } },
        { VM_PAUSING, { VM_PAUSING, VM_RUNNING, VM_PAUSED, VM_RUNNING } },
        { VM_PAUSED, { VM_PAUSED, VM_RUNNING, VM_PAUSED, VM_RUNNING } },
        { VM_STOPPING, { NONE, NONE, NONE, NONE } },
        { VM_FAILED, { NONE, NONE, NONE, NONE } },
        { VM_DELETING, { NONE, NONE, NONE, NONE } },
    };
    static const struct {
        enum vm_state state;
        enum vm_state next[ARRAY_LENGTH(events)];
    } rows[] = {
        { VM_CREATING, { NONE, VM_STOPPED, NONE, VM_STARTING, NONE, NONE, NONE } },
        { VM_STOPPED, { VM_CREATING, NONE, NONE, VM_STARTING, NONE, NONE, NONE } },
        { VM_STARTING, { NONE, VM_STOPPING, NONE, NONE, VM_RUNNING, VM_STOPPED, VM_FAILED } },
        { VM_RUNNING, { NONE, VM_STOPPING, VM_STOPPING, NONE, NONE, VM_STOPPED, VM_FAILED } },
        { VM_PAUSING, { NONE, NONE, NONE, NONE, NONE, VM_STOPPED, VM_FAILED } },
        { VM_PAUSED, { NONE, NONE, NONE, NONE, NONE, VM_STOPPED, VM_FAILED } },
        { VM_STOPPING, { NONE, VM_STOPPING, NONE, NONE, VM_STOPPING, VM_STOPPED, VM_STOPPED } },
        { VM_FAILED, { VM_CREATING, VM_STOPPED, NONE, VM_STARTING, NONE, NONE, NONE } },
        { VM_DELETING, { NONE, NONE, NONE, NONE, VM_DELETING, VM_DELETING, VM_DELETING } },
    };

    (void)state;
    assert_int_equal(ARRAY_LENGTH(rows), VM_STATE_COUNT - 1);
    for (size_t r = 0; r < ARRAY_LENGTH(rows); r++)
        for (size_t e = 0; e < ARRAY_LENGTH(events); e++)
            if (vm_lifecycle_next(rows[r].state, events[e]) != rows[r].next[e])
                fail_msg("%s in %s gives %s", vm_event_name(events[e]),
                         vm_state_name(rows[r].state),
                         vm_state_name(vm_lifecycle_next(rows[r].state, events[e])));
    for (size_t r = 0; r < ARRAY_LENGTH(pause_rows); r++)
        for (size_t e = 0; e < ARRAY_LENGTH(pause_events); e++)
            assert_int_equal(vm_lifecycle_next(pause_rows[r].state, pause_events[e]),
                             pause_rows[r].next[e]);
}

static void names_are_there_and_are_read_back(void **state)
{
    (void)state;
    for (int s = VM_NONE + 1; s < VM_STATE_COUNT; s++)
        assert_int_equal(vm_state_parse(vm_state_name((enum vm_state)s)), s);
    for (int c = 0; c < VM_CAUSE_COUNT; c++)
        assert_int_equal(vm_cause_parse(vm_cause_name((enum vm_cause)c)), c);
    for (int e = 0; e < VM_EVENT_COUNT; e++)
        assert_non_null(vm_event_name((enum vm_event)e));
    assert_int_equal(vm_state_parse("none"), VM_NONE);
    assert_int_equal(vm_state_parse("asleep"), VM_NONE);
    assert_int_equal(vm_cause_parse("boredom"), VM_CAUSE_COUNT);
}

/* --- the table: one row an event; a cell is what follows under never, on-failure, always --- */

enum cell { OFF, AGAIN, LATER, FAILED, RETRY };

static const struct vm_verdict verdicts[] = {
    [OFF] = { VM_STOPPED, false, VM_THEN_STAY },
    [AGAIN] = { VM_STOPPED, true, VM_THEN_START },
    [LATER] = { VM_STOPPED, true, VM_THEN_START_LATER },
    [FAILED] = { VM_FAILED, true, VM_THEN_STAY },
    [RETRY] = { VM_FAILED, true, VM_THEN_START_LATER },
};

static const struct {
    enum vm_cause cause;
    enum vm_on_reboot on_reboot;
    enum cell cells[VM_RESTART_COUNT];
} table[] = {
    { VM_CAUSE_POWEROFF, VM_ON_REBOOT_RESTART, { OFF, OFF, LATER } },
    { VM_CAUSE_POWEROFF, VM_ON_REBOOT_STOP, { OFF, OFF, LATER } },
    { VM_CAUSE_REBOOT, VM_ON_REBOOT_RESTART, { AGAIN, AGAIN, AGAIN } },
    { VM_CAUSE_REBOOT, VM_ON_REBOOT_STOP, { OFF, OFF, AGAIN } },
    { VM_CAUSE_PANIC, VM_ON_REBOOT_RESTART, { FAILED, RETRY, RETRY } },
    { VM_CAUSE_PANIC, VM_ON_REBOOT_STOP, { FAILED, RETRY, RETRY } },
    { VM_CAUSE_TRIPLE_FAULT, VM_ON_REBOOT_RESTART, { FAILED, RETRY, RETRY } },
    { VM_CAUSE_KVM_ERROR, VM_ON_REBOOT_RESTART, { FAILED, RETRY, RETRY } },
    { VM_CAUSE_VMM_ERROR, VM_ON_REBOOT_RESTART, { FAILED, RETRY, RETRY } },
    { VM_CAUSE_CONFIG, VM_ON_REBOOT_RESTART, { FAILED, RETRY, RETRY } },
    { VM_CAUSE_START_FAILED, VM_ON_REBOOT_RESTART, { FAILED, RETRY, RETRY } },
    { VM_CAUSE_OOM, VM_ON_REBOOT_RESTART, { FAILED, RETRY, RETRY } },
    { VM_CAUSE_UNKNOWN, VM_ON_REBOOT_RESTART, { FAILED, RETRY, RETRY } },
    { VM_CAUSE_KILLED, VM_ON_REBOOT_RESTART, { OFF, OFF, OFF } },
};

static void assert_verdict(const struct vm_exit_context *context, enum cell cell)
{
    struct vm_verdict got = vm_lifecycle_after_exit(context);
    const struct vm_verdict *want = &verdicts[cell];

    if (got.state != want->state || got.desired_running != want->desired_running ||
        got.then != want->then)
        fail_msg("%s, %s, %s: %s, desired %d, then %d", vm_cause_name(context->cause),
                 vm_restart_names[context->restart], vm_on_reboot_names[context->on_reboot],
                 vm_state_name(got.state), got.desired_running, got.then);
}

static void each_row_of_the_table(void **state)
{
    (void)state;
    for (size_t r = 0; r < ARRAY_LENGTH(table); r++)
        for (int restart = 0; restart < VM_RESTART_COUNT; restart++) {
            struct vm_exit_context context = { .cause = table[r].cause,
                                               .restart = (enum vm_restart)restart,
                                               .on_reboot = table[r].on_reboot,
                                               .desired_running = true };

            assert_verdict(&context, table[r].cells[restart]);
        }
}

/* After stop and kill, whatever the process then died of, desired stays stopped. */
static void who_was_to_stop_stays_stopped(void **state)
{
    (void)state;
    for (int cause = 0; cause < VM_CAUSE_COUNT; cause++)
        for (int restart = 0; restart < VM_RESTART_COUNT; restart++) {
            struct vm_exit_context context = { .cause = (enum vm_cause)cause,
                                               .restart = (enum vm_restart)restart,
                                               .autostart = true,
                                               .desired_running = false };

            assert_verdict(&context, OFF);
        }
}

static void reboot_by_verb_starts_again_whatever_ended_it(void **state)
{
    (void)state;
    for (int cause = 0; cause < VM_CAUSE_COUNT; cause++) {
        struct vm_exit_context context = { .cause = (enum vm_cause)cause,
                                           .on_reboot = VM_ON_REBOOT_STOP,
                                           .desired_running = true,
                                           .reboot_asked = true };

        assert_verdict(&context, AGAIN);
    }
}

static void after_a_host_reboot_autostart_decides(void **state)
{
    (void)state;
    for (int restart = 0; restart < VM_RESTART_COUNT; restart++) {
        struct vm_exit_context context = { .cause = VM_CAUSE_HOST_REBOOT,
                                           .restart = (enum vm_restart)restart,
                                           .desired_running = true };
        struct vm_verdict stays = vm_lifecycle_after_exit(&context);

        assert_int_equal(stays.state, VM_STOPPED);
        assert_true(stays.desired_running);
        assert_int_equal(stays.then, VM_THEN_STAY);
        context.autostart = true;
        assert_verdict(&context, AGAIN);
    }
}

static void backoff_doubles_up_to_five_minutes(void **state)
{
    (void)state;
    assert_int_equal(vm_lifecycle_backoff_ms(0), 1000);
    assert_int_equal(vm_lifecycle_backoff_ms(1), 1000);
    assert_int_equal(vm_lifecycle_backoff_ms(2), 2000);
    assert_int_equal(vm_lifecycle_backoff_ms(3), 4000);
    assert_int_equal(vm_lifecycle_backoff_ms(9), 256000);
    assert_int_equal(vm_lifecycle_backoff_ms(10), 300000);
    assert_int_equal(vm_lifecycle_backoff_ms(4000000000u), 300000);
}

static void live_states_are_those_with_a_process(void **state)
{
    static const enum vm_state live[] = { VM_STARTING, VM_RUNNING, VM_PAUSING, VM_PAUSED,
                                          VM_STOPPING };
    int count = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(live); i++)
        assert_true(vm_state_is_live(live[i]));
    for (int s = VM_NONE; s < VM_STATE_COUNT; s++)
        count += vm_state_is_live((enum vm_state)s);
    assert_int_equal(count, ARRAY_LENGTH(live));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kill_and_delete_are_never_refused),
        cmocka_unit_test(every_cell),
        cmocka_unit_test(names_are_there_and_are_read_back),
        cmocka_unit_test(each_row_of_the_table),
        cmocka_unit_test(who_was_to_stop_stays_stopped),
        cmocka_unit_test(reboot_by_verb_starts_again_whatever_ended_it),
        cmocka_unit_test(after_a_host_reboot_autostart_decides),
        cmocka_unit_test(backoff_doubles_up_to_five_minutes),
        cmocka_unit_test(live_states_are_those_with_a_process),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
