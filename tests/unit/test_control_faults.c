/* test_control_faults.c - the control socket on a host whose calls fail: the agent is hung up on,
 * and the next one is served; nothing leaks. */
#include "tests/unit/fault_harness.h"
#include "tests/unit/control_harness.h"

static void assert_agent_served(struct machine *f)
{
    int fd = dial(f);

    send_header(f, fd, VMM_MESSAGE_PING);
    expect_state(fd, false);
    close(fd);
    turn(f);
}

static int ready(struct machine *f)
{
    int fd = dial(f);

    be_ready(f, fd);
    return fd;
}

/* Of the agent's own connection, whichever fd that is here: both ends are in this process. */
static void what_cannot_be_received_hangs_up(void **state)
{
    static const int codes[] = { EIO, ENOMEM, ENOBUFS };
    struct machine *f = *state;
    int fd = ready(f), before = open_fds(), leavings = f->leavings;

    for (size_t i = 0; i < ARRAY_LENGTH(codes); i++) {
        post(fd, VMM_MESSAGE_PING);
        fault_set(RECVMSG, codes[i], FAULT_ANY, 0, 1);
        turn(f);
        assert_int_equal(fault_end(), 1);
        assert_int_equal(answer(fd), -ECONNRESET); /* it was not read */
        assert_int_equal(f->leavings, ++leavings);
        close(fd);
        fd = dial(f);
        leavings = f->leavings;
        assert_int_equal(open_fds(), before);
        send_header(f, fd, VMM_MESSAGE_PING);
        expect_state(fd, false);
    }
    post(fd, VMM_MESSAGE_PING);
    fault_set(RECVMSG, EAGAIN, FAULT_ANY, 0, 3); /* as if it were not there yet */
    turn(f);
    assert_int_equal(fault_end(), 3);
    expect_state(fd, false);
    close(fd);
}

/* Its fds are closed, and nothing is done. */
static void a_part_of_a_message_is_none(void **state)
{
    struct machine *f = *state;
    int fd = ready(f), before = open_fds();

    post_with(fd, VMM_MESSAGE_POWER_BUTTON, 3);
    fault_set(RECVMSG, FAULT_SHORT, FAULT_ANY, 0, 1);
    turn(f);
    assert_int_equal(fault_end(), 1);
    assert_int_equal(f->presses, 0);
    assert_int_equal(answer(fd), 0);
    assert_int_equal(open_fds(), before - 1);
    close(fd);
    assert_agent_served(f);
}

static void what_cannot_be_sent_hangs_up(void **state)
{
    static const int codes[] = { EAGAIN, ENOBUFS, ENOMEM };
    struct machine *f = *state;
    int fd = ready(f), before = open_fds();

    for (size_t i = 0; i < ARRAY_LENGTH(codes); i++) {
        post(fd, VMM_MESSAGE_PING);
        fault_set(SENDMSG, codes[i], FAULT_ANY, 0, 1);
        turn(f);
        assert_int_equal(fault_end(), 1);
        assert_int_equal(answer(fd), 0);
        close(fd);
        fd = dial(f);
        assert_int_equal(open_fds(), before);
    }
    close(fd);
    assert_agent_served(f);
}

/* Of a vsock message the agent learns, or the guest is told that it did not. */
static void a_message_for_the_agent_may_not_go(void **state)
{
    const struct vmm_vsock message = { .header = { VMM_MESSAGE_VSOCK_REQUEST, VMM_PROTOCOL_VERSION,
                                                   sizeof message, 0 } };
    struct machine *f = *state;
    int fd = ready(f);

    fault_set(SENDMSG, EAGAIN, FAULT_ANY, 0, 1);
    assert_false(control_send_vsock(f->control, &message));
    assert_int_equal(fault_end(), 1);
    assert_true(control_send_vsock(f->control, &message));
    close(fd);
    turn(f);
    assert_agent_served(f);
}

/* That it has gone is told once, so who cannot hear it dials again and asks; that one is full is in
 * the page, too. */
static void news_of_a_device_may_not_go(void **state)
{
    struct machine *f = *state;
    int fd = ready(f);

    fault_set(SENDMSG, EAGAIN, FAULT_ANY, 0, 1);
    control_send_device(f->control, VMM_DEVICE_DISK, 1, VMM_DEVICE_FULL, 0);
    assert_int_equal(fault_end(), 1);
    assert_int_equal(answer(fd), -EAGAIN);
    fault_set(SENDMSG, EAGAIN, FAULT_ANY, 0, 1);
    control_send_device(f->control, VMM_DEVICE_DISK, 1, VMM_DEVICE_ABSENT, 0);
    assert_int_equal(fault_end(), 1);
    assert_int_equal(answer(fd), 0);
    close(fd);
    assert_agent_served(f);
}

/* Paused, its snapshot cannot be answered: the machine stays as it is, and the next agent resumes
 * it. */
static void a_paused_machine_waits_for_the_next(void **state)
{
    struct machine *f = *state;
    int fd = ready(f), newer;

    post(fd, VMM_MESSAGE_PAUSE);
    post_with(fd, VMM_MESSAGE_SNAPSHOT, 2);
    newer = seqpacket_connect(f->directory, "control", NULL);
    assert_true(newer >= 0);
    post(newer, VMM_MESSAGE_PING);
    post(newer, VMM_MESSAGE_RESUME);
    fault_set(SENDMSG, ENOBUFS, FAULT_ANY, 0, 1); /* what PAUSE is answered by */
    turn(f);
    assert_int_equal(fault_end(), 1);
    assert_int_equal(f->pauses, 1);
    assert_int_equal(f->resumes, 1);
    expect_state(newer, true);
    expect_state(newer, false);
    close(fd);
    close(newer);
    turn(f);
    assert_agent_served(f);
}

/* It stands in the queue until it can be accepted. */
static void who_cannot_be_accepted_waits(void **state)
{
    static const int codes[] = { EMFILE, ENFILE, ENOMEM, ECONNABORTED };
    struct machine *f = *state;
    int fd = ready(f), before = open_fds();

    for (size_t i = 0; i < ARRAY_LENGTH(codes); i++) {
        close(fd);
        turn(f);
        fault_set(ACCEPT4, codes[i], FAULT_ANY, 0, 3);
        fd = dial(f);
        send_header(f, fd, VMM_MESSAGE_PING);
        assert_int_equal(fault_end(), 3);
        expect_state(fd, false);
        assert_int_equal(open_fds(), before);
    }
    close(fd);
}

/* Whose peer is not known, or who cannot be watched, is hung up on; who was there stays. */
static void who_cannot_be_served_is_refused(void **state)
{
    struct machine *f = *state;
    int fd = ready(f), before = open_fds(), other;

    fault_set(GETSOCKOPT, ENOBUFS, SO_PEERCRED, 0, 1);
    other = dial(f);
    assert_int_equal(fault_end(), 1);
    assert_int_equal(answer(other), 0);
    close(other);
    assert_int_equal(open_fds(), before);
    send_header(f, fd, VMM_MESSAGE_PING);
    expect_state(fd, false);
    fault_set(EPOLL_CTL, ENOMEM, EPOLL_CTL_ADD, 0, 1);
    other = dial(f);
    assert_int_equal(fault_end(), 1);
    assert_int_equal(answer(other), 0);
    close(other);
    close(fd);
    turn(f);
    assert_int_equal(open_fds(), before - 2);
    assert_agent_served(f);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(what_cannot_be_received_hangs_up), TEST(a_part_of_a_message_is_none),
        TEST(what_cannot_be_sent_hangs_up),     TEST(a_message_for_the_agent_may_not_go),
        TEST(news_of_a_device_may_not_go),      TEST(a_paused_machine_waits_for_the_next),
        TEST(who_cannot_be_accepted_waits),     TEST(who_cannot_be_served_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
