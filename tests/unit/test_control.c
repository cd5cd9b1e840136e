/* test_control.c - the control socket against good, wrong and foreign peers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/seqpacket.h"
#include "vmm/config.h"
#include "vmm/control.h"

#define TURNS 10

static const struct log quiet = { .fd = -1, .level = LOG_LEVEL_ERROR, .name = "test" };

struct fixture {
    char path[32];
    int directory, listener, presses, pauses, resumes, snapshots;
    char input[VMM_INPUT_MAX];
    size_t input_size, input_room;
    struct vmm_vsock vsock;
    int vsock_fd, leavings;
    uint32_t target_mib;      /* of the last BALLOON */
    uint64_t requested_bytes; /* of the last MEMORY */
    uint64_t hotplug_bytes;   /* in CONFIGURE */
    struct loop *loop;
    struct control *control;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    snprintf(f->path, sizeof f->path, "/tmp/control.XXXXXX");
    if (!mkdtemp(f->path))
        return -1;
    f->directory = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    f->listener = seqpacket_listen(f->directory, "control", NULL);
    if (f->listener < 0 || loop_new(&f->loop, NULL) < 0 ||
        control_new(f->loop, f->listener, &quiet, &f->control, NULL) < 0)
        return -1;
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    control_free(f->control);
    loop_free(f->loop);
    close(f->listener);
    unlinkat(f->directory, "control", 0);
    close(f->directory);
    rmdir(f->path);
    free(f);
    return 0;
}

static void turn(struct fixture *f)
{
    for (int i = 0; i < TURNS; i++)
        assert_int_equal(loop_turn(f->loop, 1, NULL), 0);
}

static int dial(struct fixture *f)
{
    int fd = seqpacket_connect(f->directory, "control", NULL);

    assert_true(fd >= 0);
    turn(f);
    return fd;
}

static struct vmm_configure configure_message(void)
{
    struct vmm_configure configure = {
        .header = { VMM_MESSAGE_CONFIGURE, VMM_PROTOCOL_VERSION, sizeof configure, 0 },
        .id = "one",
        .memory_bytes = 64 << 20,
    };

    return configure;
}

static void send_header(struct fixture *f, int fd, uint32_t type)
{
    struct vmm_message_header header = { type, VMM_PROTOCOL_VERSION, sizeof header, 0 };

    assert_int_equal(seqpacket_send(fd, &header, sizeof header, NULL, 0, NULL), 0);
    turn(f);
}

/* What the VMM answered: a message type, 0 = it hung up, -EAGAIN = nothing. */
static int answer(int fd)
{
    struct vmm_state state;
    ssize_t size = seqpacket_receive(fd, &state, sizeof state, NULL, NULL, NULL);

    return size > 0 ? (int)state.header.type : (int)size;
}

static int open_fds(void)
{
    int count = 0;

    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void press(void *context)
{
    struct fixture *f = context;

    f->presses++;
}

static void hold(void *context)
{
    struct fixture *f = context;

    f->pauses++;
}

static void release(void *context)
{
    struct fixture *f = context;

    f->resumes++;
}

static int save(void *context, int state_fd, int memory_fd, struct error *err)
{
    struct fixture *f = context;

    (void)err;
    f->snapshots += fcntl(state_fd, F_GETFD) >= 0 && fcntl(memory_fd, F_GETFD) >= 0;
    return 0;
}

/* A fork's memory: of the second and third file. */
static int make_fork(void *context, const int fds[3], int ret_layers[VMM_LAYERS_MAX],
                     size_t *ret_count, struct error *err)
{
    struct fixture *f = context;

    (void)err;
    f->snapshots += fcntl(fds[0], F_GETFD) >= 0;
    ret_layers[0] = fds[1];
    ret_layers[1] = fds[2];
    *ret_count = 2;
    return 0;
}

static bool take_input(void *context, const void *bytes, size_t size)
{
    struct fixture *f = context;

    if (size > f->input_room)
        return false;
    memcpy(f->input, bytes, size);
    f->input_size = size;
    return true;
}

static void change_balloon(void *context, const struct vmm_balloon *balloon)
{
    struct fixture *f = context;

    f->target_mib = balloon->target_mib;
}

static void take_vsock(void *context, const struct vmm_vsock *message, int fd)
{
    struct fixture *f = context;

    f->vsock = *message;
    f->vsock_fd = fd;
}

static void leave(void *context)
{
    ((struct fixture *)context)->leavings++;
}

static void change_memory(void *context, uint64_t requested_bytes)
{
    struct fixture *f = context;

    f->requested_bytes = requested_bytes;
}

static const struct control_ops ops = {
    .press_power_button = press,
    .pause = hold,
    .resume = release,
    .snapshot = save,
    .fork = make_fork,
    .console_input = take_input,
    .change_balloon = change_balloon,
    .vsock = take_vsock,
    .disconnected = leave,
    .change_memory = change_memory,
};

static void make_ready(struct fixture *f, int fd)
{
    struct vmm_configure configure = configure_message(), got;
    int fds[CONFIG_FDS_MAX];
    size_t fd_count;

    configure.hotplug_bytes = f->hotplug_bytes;
    assert_int_equal(seqpacket_send(fd, &configure, sizeof configure, (int[]){ 0, 1 }, 2, NULL), 0);
    assert_int_equal(control_wait_configure(f->control, 1000, &got, fds, &fd_count, NULL), 0);
    assert_string_equal(got.id, "one");
    assert_int_equal(fd_count, 2);
    close(fds[0]);
    close(fds[1]);
    control_ready(f->control, "one", &ops, f);
}

static void post_with(int fd, uint32_t type, size_t fd_count)
{
    struct vmm_message_header header = { type, VMM_PROTOCOL_VERSION, sizeof header, 0 };

    assert_int_equal(seqpacket_send(fd, &header, sizeof header, (int[]){ 0, 1, 2 }, fd_count, NULL),
                     0);
}

static void post(int fd, uint32_t type)
{
    post_with(fd, type, 0);
}

static void expect_state(int fd, bool paused)
{
    struct vmm_state got;

    assert_int_equal(seqpacket_receive(fd, &got, sizeof got, NULL, NULL, NULL), sizeof got);
    assert_int_equal(got.header.type, VMM_MESSAGE_STATE);
    assert_int_equal(got.running, 1);
    assert_int_equal(got.paused, paused);
}

/* The loop does not come back while paused, so all that is to happen is sent before: the agent
 * pauses, the next agent is heard all the same. */
static void a_paused_vmm_serves_control_only(void **state)
{
    struct fixture *f = *state;
    auto_close int fd = dial(f), newer = -1;

    make_ready(f, fd);
    assert_int_equal(answer(fd), VMM_MESSAGE_READY);
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

static void expect_snapshot(int fd, int result)
{
    struct vmm_state got;

    assert_int_equal(seqpacket_receive(fd, &got, sizeof got, NULL, NULL, NULL), sizeof got);
    assert_int_equal(got.header.type, VMM_MESSAGE_SNAPSHOT_DONE);
    assert_int_equal(got.result, result);
}

static void a_snapshot_needs_a_pause_and_two_files(void **state)
{
    struct fixture *f = *state;
    auto_close int fd = dial(f);
    int fds_before;

    make_ready(f, fd);
    assert_int_equal(answer(fd), VMM_MESSAGE_READY);
    fds_before = open_fds();
    post_with(fd, VMM_MESSAGE_SNAPSHOT, 2);
    turn(f);
    expect_snapshot(fd, -EINVAL);
    post(fd, VMM_MESSAGE_PAUSE);
    post_with(fd, VMM_MESSAGE_SNAPSHOT, 0);
    post_with(fd, VMM_MESSAGE_SNAPSHOT, 3);
    post_with(fd, VMM_MESSAGE_SNAPSHOT, 2);
    post_with(fd, VMM_MESSAGE_RESUME, 2); /* not meant to have any */
    turn(f);
    expect_state(fd, true);
    expect_snapshot(fd, -EINVAL);
    expect_snapshot(fd, -EINVAL);
    expect_snapshot(fd, 0);
    expect_state(fd, false);
    assert_int_equal(f->snapshots, 1);
    assert_int_equal(open_fds(), fds_before);
}

static void a_fork_needs_a_pause_and_three_files_and_answers_with_some(void **state)
{
    struct fixture *f = *state;
    auto_close int fd = dial(f);
    struct vmm_state got;
    int layers[VMM_LAYERS_MAX];
    size_t count = VMM_LAYERS_MAX;
    int fds_before;

    make_ready(f, fd);
    assert_int_equal(answer(fd), VMM_MESSAGE_READY);
    fds_before = open_fds();
    post_with(fd, VMM_MESSAGE_FORK, 3);
    turn(f);
    expect_snapshot(fd, -EINVAL);
    post(fd, VMM_MESSAGE_PAUSE);
    post_with(fd, VMM_MESSAGE_FORK, 2);
    post_with(fd, VMM_MESSAGE_FORK, 3);
    post(fd, VMM_MESSAGE_RESUME);
    turn(f);
    expect_state(fd, true);
    expect_snapshot(fd, -EINVAL);
    assert_int_equal(seqpacket_receive(fd, &got, sizeof got, layers, &count, NULL), sizeof got);
    assert_int_equal(got.header.type, VMM_MESSAGE_SNAPSHOT_DONE);
    assert_int_equal(got.result, 0);
    assert_int_equal(count, 2);
    close(layers[0]);
    close(layers[1]);
    expect_state(fd, false);
    assert_int_equal(f->snapshots, 1);
    assert_int_equal(open_fds(), fds_before);
}

static void a_configured_vmm_answers(void **state)
{
    struct fixture *f = *state;
    auto_close int fd = dial(f);

    make_ready(f, fd);
    assert_int_equal(answer(fd), VMM_MESSAGE_READY);
    send_header(f, fd, VMM_MESSAGE_PING);
    assert_int_equal(answer(fd), VMM_MESSAGE_STATE);
    send_header(f, fd, VMM_MESSAGE_POWER_BUTTON);
    assert_int_equal(f->presses, 1);
    assert_int_equal(answer(fd), -EAGAIN);
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
    struct fixture *f = *state;
    auto_close int fd = dial(f);
    struct vmm_console_input input = input_message(VMM_INPUT_MAX);
    struct vmm_state got;

    make_ready(f, fd);
    assert_int_equal(answer(fd), VMM_MESSAGE_READY);
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
    struct fixture *f = *state;
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

static void vsock_messages_go_both_ways(void **state)
{
    struct fixture *f = *state;
    auto_close int fd = dial(f);
    struct vmm_vsock message = { { VMM_MESSAGE_VSOCK_CONNECT, 1, sizeof message, 0 }, .port = 22 };
    int fds_before;

    make_ready(f, fd);
    assert_int_equal(answer(fd), VMM_MESSAGE_READY);
    fds_before = open_fds();
    assert_int_equal(seqpacket_send(fd, &message, sizeof message, (int[]){ 0 }, 1, NULL), 0);
    turn(f);
    assert_memory_equal(&f->vsock, &message, sizeof message);
    assert_int_equal(open_fds(), fds_before + 1); /* it is the device's now */
    close(f->vsock_fd);
    message.header.type = VMM_MESSAGE_VSOCK_ANSWER;
    assert_int_equal(seqpacket_send(fd, &message, sizeof message, NULL, 0, NULL), 0);
    turn(f);
    assert_int_equal(f->vsock_fd, -1);

    assert_true(control_send_vsock(f->control, &f->vsock));
    assert_int_equal(answer(fd), VMM_MESSAGE_VSOCK_ANSWER); /* as it was said */
    assert_int_equal(seqpacket_send(fd, &message, sizeof message, (int[]){ 0, 0 }, 2, NULL), 0);
    turn(f);
    assert_int_equal(answer(fd), 0); /* one too many */
    assert_int_equal(f->leavings, 1);
    assert_false(control_send_vsock(f->control, &message));
    assert_int_equal(open_fds(), fds_before - 1); /* the connection's */
}

static void a_balloon_is_told_its_size(void **state)
{
    struct fixture *f = *state;
    struct vmm_balloon_change change = {
        .header = { VMM_MESSAGE_BALLOON, VMM_PROTOCOL_VERSION, sizeof change, 0 },
        .balloon = { .target_mib = 63, .stats_interval_s = 5 },
    };
    auto_close int fd = dial(f);

    make_ready(f, fd);
    assert_int_equal(answer(fd), VMM_MESSAGE_READY);
    assert_int_equal(seqpacket_send(fd, &change, sizeof change, NULL, 0, NULL), 0);
    turn(f);
    assert_int_equal(f->target_mib, 63);
    assert_int_equal(answer(fd), -EAGAIN);
    change.balloon.target_mib = 64; /* all of its memory */
    assert_int_equal(seqpacket_send(fd, &change, sizeof change, NULL, 0, NULL), 0);
    turn(f);
    assert_int_equal(f->target_mib, 63);
    assert_int_equal(answer(fd), 0);
}

static void memory_is_told_its_size(void **state)
{
    struct fixture *f = *state;
    struct vmm_memory_change change = {
        .header = { VMM_MESSAGE_MEMORY, VMM_PROTOCOL_VERSION, sizeof change, 0 },
    };
    static const uint64_t bad[] = { 66ull << 20, 1ull << 20, UINT64_MAX };
    auto_close int fd = dial(f);

    f->hotplug_bytes = 64ull << 20;
    make_ready(f, fd);
    assert_int_equal(answer(fd), VMM_MESSAGE_READY);
    change.requested_bytes = 64ull << 20;
    assert_int_equal(seqpacket_send(fd, &change, sizeof change, NULL, 0, NULL), 0);
    turn(f);
    assert_int_equal(f->requested_bytes, 64ull << 20);
    assert_int_equal(answer(fd), -EAGAIN);
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        auto_close int again = dial(f);

        change.requested_bytes = bad[i];
        assert_int_equal(seqpacket_send(again, &change, sizeof change, NULL, 0, NULL), 0);
        turn(f);
        assert_int_equal(f->requested_bytes, 64ull << 20);
        assert_int_equal(answer(again), 0);
    }
}

static void a_second_configuration_hangs_up(void **state)
{
    struct fixture *f = *state;
    struct vmm_configure configure = configure_message();
    auto_close int fd = dial(f);
    int before;

    make_ready(f, fd);
    assert_int_equal(answer(fd), VMM_MESSAGE_READY);
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
    struct fixture *f = *state;
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
    struct fixture *f = *state;
    auto_close int first = dial(f);

    make_ready(f, first);
    assert_int_equal(answer(first), VMM_MESSAGE_READY);
    auto_close int second = dial(f);

    assert_int_equal(answer(first), 0);
    send_header(f, second, VMM_MESSAGE_PING);
    assert_int_equal(answer(second), VMM_MESSAGE_STATE);
}

static void waiting_has_an_end(void **state)
{
    struct fixture *f = *state;
    struct vmm_configure configure;
    int fds[CONFIG_FDS_MAX];
    int silent = dial(f);
    size_t fd_count;

    assert_int_equal(control_wait_configure(f->control, 20, &configure, fds, &fd_count, NULL),
                     -ETIMEDOUT);
    close(silent);
}

/* An agent that was killed between starting and configuring us leaves nothing behind. */
static void an_agent_that_goes_ends_the_waiting(void **state)
{
    struct fixture *f = *state;
    struct vmm_configure configure;
    int fds[CONFIG_FDS_MAX];
    size_t fd_count;

    close(dial(f));
    assert_int_equal(control_wait_configure(f->control, 10000, &configure, fds, &fd_count, NULL),
                     -ECONNRESET);
}

/* Needs root to become somebody else; the socket itself is opened for all. */
static void only_root_is_heard(void **state)
{
    struct fixture *f = *state;
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
        cmocka_unit_test_setup_teardown(a_snapshot_needs_a_pause_and_two_files, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_fork_needs_a_pause_and_three_files_and_answers_with_some,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_configured_vmm_answers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(console_input_is_taken_whole_or_not, set_up, tear_down),
        cmocka_unit_test_setup_teardown(wrong_console_input_hangs_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_balloon_is_told_its_size, set_up, tear_down),
        cmocka_unit_test_setup_teardown(vsock_messages_go_both_ways, set_up, tear_down),
        cmocka_unit_test_setup_teardown(memory_is_told_its_size, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_second_configuration_hangs_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bad_messages_hang_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_newest_connection_wins, set_up, tear_down),
        cmocka_unit_test_setup_teardown(waiting_has_an_end, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_agent_that_goes_ends_the_waiting, set_up, tear_down),
        cmocka_unit_test_setup_teardown(only_root_is_heard, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
