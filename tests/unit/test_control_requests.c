/* test_control_requests.c - what the agent asks of a running machine: snapshots and forks with
 * their files, and new sizes of its devices. */
#include "tests/unit/control_harness.h"

static void expect_snapshot(int fd, int result)
{
    struct vmm_state got;

    assert_int_equal(seqpacket_receive(fd, &got, sizeof got, NULL, NULL, NULL), sizeof got);
    assert_int_equal(got.header.type, VMM_MESSAGE_SNAPSHOT_DONE);
    assert_int_equal(got.result, result);
}

/* SNAPSHOT has two files or three, SAVE one more; the last of the most is kept. */
static void a_snapshot_needs_a_pause_and_its_files(void **state)
{
    static const struct {
        uint32_t type;
        unsigned files;
    } kinds[] = { { VMM_MESSAGE_SNAPSHOT, 2 }, { VMM_MESSAGE_SAVE, 3 } };
    struct machine *f = *state;
    auto_close int fd = dial(f);
    int fds_before;

    be_ready(f, fd);
    fds_before = open_fds();
    for (unsigned i = 0; i < 2; i++) {
        post_with(fd, kinds[i].type, kinds[i].files);
        turn(f);
        expect_snapshot(fd, -EINVAL);
        post(fd, VMM_MESSAGE_PAUSE);
        post_with(fd, kinds[i].type, 0);
        post_with(fd, kinds[i].type, kinds[i].files - 1);
        post_with(fd, kinds[i].type, kinds[i].files + 2);
        post_with(fd, kinds[i].type, kinds[i].files);
        post_with(fd, VMM_MESSAGE_RESUME, 2); /* not meant to have any */
        turn(f);
        expect_state(fd, true);
        for (unsigned refused = 0; refused < 3; refused++)
            expect_snapshot(fd, -EINVAL);
        expect_snapshot(fd, 0);
        expect_state(fd, false);
        assert_int_equal(f->snapshots, 2 * i + 1);
        assert_int_equal(f->base_fd, -1);
        assert_int_equal(f->has_pagemap, i);
        assert_int_equal(open_fds(), fds_before);
        post(fd, VMM_MESSAGE_PAUSE);
        post_with(fd, kinds[i].type, kinds[i].files + 1);
        post(fd, VMM_MESSAGE_RESUME);
        turn(f);
        expect_state(fd, true);
        expect_snapshot(fd, 0);
        expect_state(fd, false);
        assert_int_equal(f->has_pagemap, i);
        assert_int_equal(open_fds(), fds_before + 1);
        assert_int_equal(close(f->base_fd), 0);
    }
}

static void a_fork_needs_a_pause_and_three_files_and_answers_with_some(void **state)
{
    struct machine *f = *state;
    auto_close int fd = dial(f);
    struct vmm_state got;
    int layers[VMM_LAYERS_MAX];
    size_t count = VMM_LAYERS_MAX;
    int fds_before;

    make_ready(f, fd);
    f->agent_fd = fd;
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
    assert_int_equal(f->parts, 1);
    assert_int_equal(f->sent_bytes, 3 * sizeof got); /* its answer, too, and no later one */
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

static void vsock_messages_go_both_ways(void **state)
{
    struct machine *f = *state;
    auto_close int fd = dial(f);
    struct vmm_vsock message = { { VMM_MESSAGE_VSOCK_CONNECT, 1, sizeof message, 0 }, .port = 22 };
    int fds_before;

    be_ready(f, fd);
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
    struct machine *f = *state;
    struct vmm_balloon_change change = {
        .header = { VMM_MESSAGE_BALLOON, VMM_PROTOCOL_VERSION, sizeof change, 0 },
        .balloon = { .target_mib = 63, .stats_interval_s = 5 },
    };
    auto_close int fd = dial(f);

    be_ready(f, fd);
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
    struct machine *f = *state;
    struct vmm_memory_change change = {
        .header = { VMM_MESSAGE_MEMORY, VMM_PROTOCOL_VERSION, sizeof change, 0 },
    };
    static const uint64_t bad[] = { 66ull << 20, 1ull << 20, UINT64_MAX };
    auto_close int fd = dial(f);

    f->hotplug_bytes = 64ull << 20;
    be_ready(f, fd);
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

static void expect_device(int fd, int kind, int place, int state, int result)
{
    struct vmm_device got;

    assert_int_equal(seqpacket_receive(fd, &got, sizeof got, NULL, NULL, NULL), sizeof got);
    assert_int_equal(got.header.type, VMM_MESSAGE_DEVICE);
    assert_int_equal(got.kind, kind);
    assert_int_equal(got.place, place);
    assert_int_equal(got.state, state);
    assert_int_equal(got.result, result);
}

static struct vmm_attach attach_message(void)
{
    return (struct vmm_attach){
        .header = { VMM_MESSAGE_ATTACH, VMM_PROTOCOL_VERSION, sizeof(struct vmm_attach), 0 },
        .kind = VMM_DEVICE_DISK,
        .disk = { .format = VMM_DISK_RAW, .queues = 1, .place = 5, .size_bytes = 4096 },
    };
}

/* Also while it is paused, when nothing else is served. */
static void a_device_is_attached_with_its_files(void **state)
{
    struct machine *f = *state;
    struct vmm_attach message = attach_message();
    auto_close int fd = dial(f);
    int fds_before;

    be_ready(f, fd);
    fds_before = open_fds();
    assert_int_equal(seqpacket_send(fd, &message, sizeof message, (int[]){ 0 }, 1, NULL), 0);
    turn(f);
    expect_device(fd, VMM_DEVICE_DISK, 5, VMM_DEVICE_PRESENT, 0);
    assert_int_equal(f->attached, 1);
    assert_int_equal(open_fds(), fds_before + 1); /* the machine's now */
    close(f->device_fd);
    f->attach_result = -EEXIST;
    assert_int_equal(seqpacket_send(fd, &message, sizeof message, (int[]){ 0 }, 1, NULL), 0);
    turn(f);
    expect_device(fd, VMM_DEVICE_DISK, 5, VMM_DEVICE_PRESENT, -EEXIST);
    assert_int_equal(open_fds(), fds_before);
}

static void a_bad_device_ends_the_connection(void **state)
{
    struct machine *f = *state;
    struct vmm_attach message;
    struct vmm_attach nic = {
        .header = { VMM_MESSAGE_ATTACH, VMM_PROTOCOL_VERSION, sizeof nic, 0 },
        .kind = VMM_DEVICE_NIC,
        .nic = { .queues = 2, .place = 1 },
    };
    int fds_before;

    make_ready(f, dial(f));
    for (int i = 0; i < 5; i++) {
        int fd = dial(f);

        fds_before = open_fds();
        message = attach_message();
        if (i == 0)
            message.disk.place = VMM_DISKS_MAX;
        else if (i == 1)
            message.disk.size_bytes = 100;
        else if (i == 2)
            message.disk.format = VMM_DISK_DELTA; /* which has two files */
        if (i < 4)
            assert_int_equal(
                seqpacket_send(fd, &message, sizeof message, (int[]){ 0, 1 }, i == 3 ? 0 : 1, NULL),
                0);
        else
            assert_int_equal(seqpacket_send(fd, &nic, sizeof nic, (int[]){ 0 }, 1, NULL), 0);
        turn(f);
        assert_int_equal(answer(fd), 0);
        assert_int_equal(open_fds(), fds_before - 1); /* the connection's */
        close(fd);
    }
    assert_int_equal(f->attached, 0);
}

static void a_device_is_asked_to_go_and_its_going_is_told(void **state)
{
    struct machine *f = *state;
    struct vmm_device message = {
        .header = { VMM_MESSAGE_DETACH, VMM_PROTOCOL_VERSION, sizeof message, 0 },
        .kind = VMM_DEVICE_NIC,
        .place = 2,
    };
    auto_close int fd = dial(f);

    be_ready(f, fd);
    post(fd, VMM_MESSAGE_PAUSE);
    assert_int_equal(seqpacket_send(fd, &message, sizeof message, NULL, 0, NULL), 0);
    message.place = 200;
    assert_int_equal(seqpacket_send(fd, &message, sizeof message, NULL, 0, NULL), 0);
    post(fd, VMM_MESSAGE_RESUME);
    turn(f);
    expect_state(fd, true);
    expect_device(fd, VMM_DEVICE_NIC, 2, VMM_DEVICE_PRESENT, 0);
    expect_device(fd, VMM_DEVICE_NIC, 200, VMM_DEVICE_ABSENT, -ENOENT);
    expect_state(fd, false);
    control_send_device(f->control, VMM_DEVICE_NIC, 2, VMM_DEVICE_ABSENT, 0);
    expect_device(fd, VMM_DEVICE_NIC, 2, VMM_DEVICE_ABSENT, 0);
    assert_int_equal(f->detached.state, VMM_DEVICE_ABSENT);
    message.place = 3;
    message.state = VMM_DEVICE_PRESENT; /* only a look */
    assert_int_equal(seqpacket_send(fd, &message, sizeof message, NULL, 0, NULL), 0);
    turn(f);
    expect_device(fd, VMM_DEVICE_NIC, 3, VMM_DEVICE_PRESENT, 0);
    assert_int_equal(f->detached.state, VMM_DEVICE_PRESENT);
    message.kind = VMM_DEVICE_KIND_COUNT;
    assert_int_equal(seqpacket_send(fd, &message, sizeof message, NULL, 0, NULL), 0);
    turn(f);
    assert_int_equal(answer(fd), 0);
}

static void send_change(struct machine *f, int fd, const void *message, size_t size)
{
    assert_int_equal(seqpacket_send(fd, message, size, NULL, 0, NULL), 0);
    turn(f);
}

static void disks_and_nics_are_told_their_limits(void **state)
{
    const struct vmm_attach good = {
        .header = { VMM_MESSAGE_CHANGE, VMM_PROTOCOL_VERSION, sizeof good, 0 },
        .kind = VMM_DEVICE_DISK,
        .disk = { .format = VMM_DISK_RAW, .queues = 1, .place = 7, .size_bytes = 1 << 20 },
    };
    const struct vmm_attach nic = {
        .header = { VMM_MESSAGE_CHANGE, VMM_PROTOCOL_VERSION, sizeof nic, 0 },
        .kind = VMM_DEVICE_NIC,
        .nic = { .queues = 1, .place = 7, .tx_rate_limit.bytes_per_second = 5 },
    };
    struct vmm_attach bad[] = { good, good, good, nic, nic };
    struct machine *f = *state;
    auto_close int fd = dial(f);

    be_ready(f, fd);
    send_change(f, fd, &good, sizeof good);
    send_change(f, fd, &nic, sizeof nic);
    assert_int_equal(f->changes, 2);
    assert_int_equal(f->disk.size_bytes, 1 << 20);
    assert_int_equal(f->nic.tx_rate_limit.bytes_per_second, 5);
    assert_int_equal(answer(fd), -EAGAIN);
    bad[0].disk.size_bytes = 1000;
    bad[1].disk.place = VMM_DISKS_MAX;
    bad[2].disk.rate_limit.bytes_burst = VMM_RATE_MAX + 1;
    bad[3].nic.rx_rate_limit.bytes_per_second = VMM_RATE_MAX + 1;
    bad[4].kind = VMM_DEVICE_KIND_COUNT;
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        auto_close int again = dial(f);

        send_change(f, again, &bad[i], sizeof bad[i]);
        assert_int_equal(f->changes, 2);
        assert_int_equal(answer(again), 0);
    }
}

/* shift: of the disk at that place; the others have 20. */
static int ask_for_marks(struct machine *f, int fd, unsigned place, uint8_t shift, size_t fd_count)
{
    struct vmm_mark_writes message = {
        .header = { VMM_MESSAGE_MARK_WRITES, VMM_PROTOCOL_VERSION, sizeof message, 0 },
    };
    struct vmm_state got;
    ssize_t size;

    memset(message.shifts, 20, sizeof message.shifts);
    message.shifts[place] = shift;
    assert_int_equal(
        seqpacket_send(fd, &message, sizeof message, (int[]){ fd, fd }, fd_count, NULL), 0);
    turn(f);
    size = seqpacket_receive(fd, &got, sizeof got, NULL, NULL, NULL);
    if (size <= 0)
        return -EPIPE;
    assert_int_equal(got.header.type, VMM_MESSAGE_MARKING);
    return got.result;
}

static void writes_are_marked_in_one_file_or_none(void **state)
{
    struct machine *f = *state;
    auto_close int fd = dial(f);
    int fds_before;

    be_ready(f, fd);
    fds_before = open_fds();
    assert_int_equal(ask_for_marks(f, fd, 0, 20, 1), 0);
    assert_int_equal(ask_for_marks(f, fd, 7, 48, 1), 0);
    assert_int_equal(f->mark_shift, 48);
    assert_int_equal(ask_for_marks(f, fd, 0, 20, 0), 0);
    assert_int_equal(ask_for_marks(f, fd, 0, 21, 1), -EINVAL);
    assert_int_equal(f->markings, 2);
    assert_int_equal(f->unmarkings, 1);
    assert_int_equal(open_fds(), fds_before);
    for (unsigned bad = 0; bad < 4; bad++) {
        auto_close int again = dial(f);

        assert_int_equal(
            ask_for_marks(f, again, 7, (const uint8_t[]){ 0, 19, 49, 20 }[bad], bad < 3 ? 1 : 2),
            -EPIPE);
    }
    assert_int_equal(f->markings, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_snapshot_needs_a_pause_and_its_files, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_fork_needs_a_pause_and_three_files_and_answers_with_some,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(vsock_messages_go_both_ways, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_balloon_is_told_its_size, set_up, tear_down),
        cmocka_unit_test_setup_teardown(memory_is_told_its_size, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_device_is_attached_with_its_files, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_bad_device_ends_the_connection, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_device_is_asked_to_go_and_its_going_is_told, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(disks_and_nics_are_told_their_limits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(writes_are_marked_in_one_file_or_none, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
