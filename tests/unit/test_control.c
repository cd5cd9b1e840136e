/* test_control.c - the control socket against good, wrong and foreign peers. */
#include "tests/unit/control_harness.h"

/* The loop does not come back while paused, so all that is to happen is sent before: the agent
 * pauses, the next agent is heard all the same. */
static void a_paused_vmm_serves_control_only(void **state)
{
    struct machine *f = *state;
    auto_close int fd = dial(f), newer = -1;

    be_ready(f, fd);
    send_header(f, fd, VMM_MESSAGE_RESUME); /* nothing to resume: only answered */
    expect_state(fd, false);
    assert_int_equal(f->resumes, 0);
    post(fd, VMM_MESSAGE_PAUSE);
    newer = seqpacket_connect(f->directory, "control", NULL);
    assert_true(newer >= 0);
    post(newer, VMM_MESSAGE_PAUSE);
    post(newer, VMM_MESSAGE_PING);
    post(newer, VMM_MESSAGE_RESUME);
    turn(f);
    assert_int_equal(f->pauses, 1);
    assert_int_equal(f->resumes, 1);
    expect_state(fd, true);
    expect_state(newer, true);
    expect_state(newer, true);
    expect_state(newer, false);
}

/* It may have left answers unread, too: then the socket says that before it gives what was said. */
static void what_an_agent_said_before_it_left_is_heard(void **state)
{
    struct machine *f = *state;
    auto_close int first = dial(f);

    make_ready(f, first);
    for (int i = 1; i <= 2; i++) {
        int fd = seqpacket_connect(f->directory, "control", NULL);

        assert_true(fd >= 0);
        if (i == 2)
            send_header(f, fd, VMM_MESSAGE_PING);
        post(fd, VMM_MESSAGE_PAUSE);
        post(fd, VMM_MESSAGE_RESUME);
        close(fd);
        turn(f);
        assert_int_equal(f->pauses, i);
        assert_int_equal(f->resumes, i);
    }
}

static void a_configured_vmm_answers(void **state)
{
    struct machine *f = *state;
    auto_close int fd = dial(f);

    be_ready(f, fd);
    send_header(f, fd, VMM_MESSAGE_PING);
    assert_int_equal(answer(fd), VMM_MESSAGE_STATE);
    send_header(f, fd, VMM_MESSAGE_POWER_BUTTON);
    assert_int_equal(f->presses, 1);
    assert_int_equal(answer(fd), -EAGAIN);
}

/* Once, though nobody takes the signal out of its fd. */
static void a_signal_presses_the_button(void **state)
{
    struct machine *f = *state;
    auto_close int fd = dial(f);

    be_ready(f, fd);
    terminate(f);
    turn(f);
    assert_int_equal(f->presses, 1);
    assert_true(f->by_signal);
    assert_int_equal(f->resumes, 0);
    assert_int_equal(answer(fd), -EAGAIN);
    send_header(f, fd, VMM_MESSAGE_POWER_BUTTON);
    assert_int_equal(f->presses, 2);
    assert_false(f->by_signal);
}

static void a_paused_guest_that_nobody_holds_goes_on_for_it(void **state)
{
    struct machine *f = *state;
    int first = dial(f);

    make_ready(f, first);
    f->terminate_at_leaving = true;
    post(first, VMM_MESSAGE_PAUSE);
    close(first);
    turn(f);
    assert_int_equal(f->pauses, 1);
    assert_int_equal(f->presses, 1);
    assert_int_equal(f->resumes_at_press, 1);
    assert_true(f->by_signal);
}

static void a_guest_that_an_agent_holds_stays_so(void **state)
{
    struct machine *f = *state;
    auto_close int fd = dial(f);

    be_ready(f, fd);
    f->resume_at_press = fd; /* else this turn would have no end */
    post(fd, VMM_MESSAGE_PAUSE);
    terminate(f);
    turn(f);
    assert_int_equal(f->presses, 1);
    assert_int_equal(f->resumes_at_press, 0);
    assert_int_equal(f->resumes, 1);
    expect_state(fd, true);
    expect_state(fd, false);
}

static struct vmm_console_input input_message(uint32_t count)
{
    struct vmm_console_input input = {
        .header = { VMM_MESSAGE_CONSOLE_INPUT, VMM_PROTOCOL_VERSION, sizeof input, 0 },
        .count = count,
    };

    memset(input.bytes, 'i', sizeof input.bytes);
    return input;
}

static void console_input_is_taken_whole_or_not(void **state)
{
    struct machine *f = *state;
    auto_close int fd = dial(f);
    struct vmm_console_input input = input_message(VMM_INPUT_MAX);
    struct vmm_state got;

    be_ready(f, fd);
    for (int round = 0; round < 2; round++) {
        f->input_room = round == 0 ? VMM_INPUT_MAX : VMM_INPUT_MAX - 1;
        assert_int_equal(seqpacket_send(fd, &input, sizeof input, NULL, 0, NULL), 0);
        turn(f);
        assert_int_equal(seqpacket_receive(fd, &got, sizeof got, NULL, NULL, NULL), sizeof got);
        assert_int_equal(got.header.type, VMM_MESSAGE_INPUT_TAKEN);
        assert_int_equal(got.result, round == 0 ? 0 : -EAGAIN);
    }
    assert_int_equal(f->input_size, VMM_INPUT_MAX);
    assert_memory_equal(f->input, input.bytes, VMM_INPUT_MAX);
}

static void wrong_console_input_hangs_up(void **state)
{
    static const uint32_t counts[] = { 0, VMM_INPUT_MAX + 1, UINT32_MAX };
    struct machine *f = *state;
    struct vmm_console_input input;
    int first = dial(f);

    make_ready(f, first);
    f->input_room = VMM_INPUT_MAX;
    for (size_t i = 0; i < ARRAY_LENGTH(counts) + 1; i++) {
        auto_close int fd = dial(f);

        input = input_message(i < ARRAY_LENGTH(counts) ? counts[i] : 1);
        input.header.size -= i == ARRAY_LENGTH(counts); /* the last is short instead */
        assert_int_equal(seqpacket_send(fd, &input, input.header.size, NULL, 0, NULL), 0);
        turn(f);
        assert_int_equal(answer(fd), 0);
    }
    assert_int_equal(f->input_size, 0);
    close(first);
}

static void a_second_configuration_hangs_up(void **state)
{
    struct machine *f = *state;
    struct vmm_configure configure = configure_message();
    auto_close int fd = dial(f);
    int before;

    be_ready(f, fd);
    before = open_fds();
    assert_int_equal(seqpacket_send(fd, &configure, sizeof configure, (int[]){ 0 }, 1, NULL), 0);
    turn(f);
    assert_int_equal(answer(fd), 0);
    assert_int_equal(open_fds(), before - 1); /* its connection; no fd leaked */
    auto_close int again = dial(f);

    send_header(f, again, VMM_MESSAGE_PING);
    assert_int_equal(answer(again), VMM_MESSAGE_STATE);
}

static void bad_messages_hang_up(void **state)
{
    static const struct vmm_message_header headers[] = {
        { 0, 1, sizeof headers[0], 0 },
        { 3000000000u, 1, sizeof headers[0], 0 },
        { VMM_MESSAGE_READY, 1, sizeof headers[0], 0 },
        { VMM_MESSAGE_PING, 1, sizeof headers[0] + 1, 0 },
        { VMM_MESSAGE_CONFIGURE, 1, sizeof headers[0], 0 },
    };
    struct machine *f = *state;
    int before = open_fds();

    for (size_t i = 0; i < ARRAY_LENGTH(headers); i++) {
        auto_close int fd = dial(f);

        assert_int_equal(
            seqpacket_send(fd, &headers[i], sizeof headers[i], (int[]){ 0, 0, 0 }, 3, NULL), 0);
        turn(f);
        assert_int_equal(answer(fd), 0);
    }
    auto_close int short_fd = dial(f);

    assert_int_equal(seqpacket_send(short_fd, "x", 1, NULL, 0, NULL), 0);
    turn(f);
    assert_int_equal(answer(short_fd), 0);
    assert_int_equal(open_fds(), before + 1);
}

static void the_newest_connection_wins(void **state)
{
    struct machine *f = *state;
    auto_close int first = dial(f);

    make_ready(f, first);
    assert_int_equal(answer(first), VMM_MESSAGE_READY);
    auto_close int second = dial(f);

    assert_int_equal(answer(first), 0);
    send_header(f, second, VMM_MESSAGE_PING);
    assert_int_equal(answer(second), VMM_MESSAGE_STATE);
}

/* For a configuration that does not come. */
static int wait_in_vain(struct machine *f, int timeout_ms)
{
    struct vmm_configure configure;
    int fds[CONFIG_FDS_MAX];
    size_t fd_count;

    return control_wait_configure(f->control, timeout_ms, &configure, fds, &fd_count, NULL);
}

static void waiting_has_an_end(void **state)
{
    struct machine *f = *state;
    int silent = dial(f);

    assert_int_equal(wait_in_vain(f, 20), -ETIMEDOUT);
    close(silent);
}

/* An agent that was killed between starting and configuring us leaves nothing behind. */
static void an_agent_that_goes_ends_the_waiting(void **state)
{
    struct machine *f = *state;

    close(dial(f));
    assert_int_equal(wait_in_vain(f, 10000), -ECONNRESET);
}

static void a_signal_ends_the_waiting(void **state)
{
    struct machine *f = *state;
    int silent = dial(f);

    terminate(f);
    assert_int_equal(wait_in_vain(f, 10000), -ECONNRESET);
    assert_int_equal(f->presses, 0);
    close(silent);
}

/* Needs root to become somebody else; the socket itself is opened for all. */
static void only_root_is_heard(void **state)
{
    struct machine *f = *state;
    pid_t pid;
    int status;

    if (geteuid() != 0)
        skip();
    assert_int_equal(fchmodat(f->directory, "control", 0777, 0), 0);
    assert_int_equal(fchmod(f->directory, 0755), 0);
    pid = fork();
    if (pid == 0) {
        int fd;

        if (setuid(65534) < 0)
            _exit(2);
        fd = seqpacket_connect(f->directory, "control", NULL);
        for (int i = 0; fd >= 0 && i < 500 && answer(fd) == -EAGAIN; i++)
            usleep(10000);
        _exit(fd >= 0 && answer(fd) == 0 ? 0 : 1);
    }
    while (waitpid(pid, &status, WNOHANG) == 0)
        turn(f);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_paused_vmm_serves_control_only, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_an_agent_said_before_it_left_is_heard, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_configured_vmm_answers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_signal_presses_the_button, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_paused_guest_that_nobody_holds_goes_on_for_it, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_guest_that_an_agent_holds_stays_so, set_up, tear_down),
        cmocka_unit_test_setup_teardown(console_input_is_taken_whole_or_not, set_up, tear_down),
        cmocka_unit_test_setup_teardown(wrong_console_input_hangs_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_second_configuration_hangs_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bad_messages_hang_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_newest_connection_wins, set_up, tear_down),
        cmocka_unit_test_setup_teardown(waiting_has_an_end, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_agent_that_goes_ends_the_waiting, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_signal_ends_the_waiting, set_up, tear_down),
        cmocka_unit_test_setup_teardown(only_root_is_heard, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
