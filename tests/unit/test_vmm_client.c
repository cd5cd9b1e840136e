/* test_vmm_client.c - what an agent makes of a VMM that says what it should not, or too much. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "agent/vmm_client.h"
#include "base/error.h"
#include "base/loop.h"
#include "base/seqpacket.h"

#define FLOOD 150 /* messages; what fits into the socket */

struct fixture {
    struct loop *loop;
    struct vmm_client *client;
    int vmm;        /* the VMM's end */
    bool forbidden; /* why it was closed */
    unsigned readies, states, snapshots, vsocks, closed, devices, full, inputs;
    int kind, place, result; /* of the last device; or of the last snapshot */
    bool present;
    struct vmm_vsock last;
};

static void on_ready(void *context)
{
    struct fixture *f = context;

    f->readies++;
}

static void on_state(void *context, bool running, bool paused)
{
    struct fixture *f = context;

    f->states += running && !paused;
}

static void on_input(void *context, bool taken)
{
    struct fixture *f = context;

    (void)taken;
    f->inputs++;
}

static void on_vsock(void *context, const struct vmm_vsock *message)
{
    struct fixture *f = context;

    f->last = *message;
    f->vsocks++;
}

static void on_device(void *context, enum vmm_device_kind kind, unsigned place, bool present,
                      int result)
{
    struct fixture *f = context;

    f->devices++;
    f->kind = (int)kind;
    f->place = (int)place;
    f->present = present;
    f->result = result;
}

static void on_snapshot(void *context, int result, int *fds, size_t fd_count)
{
    struct fixture *f = context;

    (void)fds;
    assert_true(result == 0 || fd_count == 0);
    f->result = result;
    f->snapshots++;
}

static void on_closed(void *context, bool forbidden)
{
    struct fixture *f = context;

    f->closed++;
    f->forbidden = forbidden;
}

static void on_full(void *context, unsigned place)
{
    struct fixture *f = context;

    assert_int_equal(place, 3);
    f->full++;
}

static const struct vmm_client_ops ops = {
    .ready = on_ready,
    .state = on_state,
    .input = on_input,
    .vsock = on_vsock,
    .device = on_device,
    .full = on_full,
    .snapshot = on_snapshot,
    .closed = on_closed,
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    int pair[2];

    if (seqpacket_pair(pair, NULL) < 0 || loop_new(&f->loop, NULL) < 0 ||
        vmm_client_new(f->loop, pair[0], &ops, f, &f->client, NULL) < 0)
        return -1;
    f->vmm = pair[1];
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    vmm_client_free(f->client);
    loop_free(f->loop);
    close(f->vmm);
    free(f);
    return 0;
}

/* All that can be done without waiting. */
static void turn(struct fixture *f)
{
    for (unsigned i = 0; i < 2 * FLOOD; i++)
        assert_int_equal(loop_turn(f->loop, 0, NULL), 0);
}

static void say(struct fixture *f, uint32_t type, uint32_t id)
{
    struct vmm_vsock message = { .header = { type, VMM_PROTOCOL_VERSION, sizeof message, 0 },
                                 .id = id };

    assert_int_equal(seqpacket_send(f->vmm, &message, sizeof message, NULL, 0, NULL), 0);
}

static void vsock_messages_go_both_ways(void **state)
{
    struct fixture *f = *state;
    struct vmm_vsock message;
    int fds[1];
    size_t count = 1;

    say(f, VMM_MESSAGE_VSOCK_REQUEST, 7);
    turn(f);
    assert_int_equal(f->last.id, 7);
    assert_int_equal(vmm_client_vsock(f->client, VMM_MESSAGE_VSOCK_ANSWER, 7, 0, f->vmm, NULL), 0);
    assert_int_equal(seqpacket_receive(f->vmm, &message, sizeof message, fds, &count, NULL),
                     sizeof message);
    assert_int_equal(count, 1);
    assert_int_equal(message.header.type, VMM_MESSAGE_VSOCK_ANSWER);
    assert_int_equal(message.id, 7);
    close(fds[0]);
    assert_int_equal(vmm_client_vsock(f->client, VMM_MESSAGE_VSOCK_ANSWER, 8, 0, -1, NULL), 0);
    count = 1;
    assert_int_equal(seqpacket_receive(f->vmm, &message, sizeof message, fds, &count, NULL),
                     sizeof message);
    assert_int_equal(count, 0);
    assert_int_equal(f->closed, 0);
}

/* What comes unasked is read in parts, so that the agent's other work goes on; none of it, nor what
 * is behind it, is lost. */
static void a_flood_is_read_in_parts(void **state)
{
    struct fixture *f = *state;
    struct vmm_state answer = { .header = { VMM_MESSAGE_STATE, 1, sizeof answer, 0 },
                                .running = 1 };
    unsigned first;

    for (uint32_t i = 0; i < FLOOD; i++)
        say(f, VMM_MESSAGE_VSOCK_REQUEST, i);
    assert_int_equal(vmm_client_ping(f->client, NULL), 0);
    assert_int_equal(seqpacket_send(f->vmm, &answer, sizeof answer, NULL, 0, NULL), 0);
    for (first = 0; first == 0 || f->vsocks > first;) { /* until a turn brings nothing */
        first = f->vsocks;
        assert_int_equal(loop_turn(f->loop, 0, NULL), 0);
    }
    assert_true(first < FLOOD);
    while (f->states == 0)
        assert_int_equal(loop_turn(f->loop, -1, NULL), 0);
    assert_int_equal(f->vsocks, FLOOD);
    assert_int_equal(f->last.id, FLOOD - 1);
    assert_int_equal(f->closed, 0);
}

/* --- versions --- */

static void say_state(struct fixture *f, uint32_t version)
{
    struct vmm_state answer = { .header = { VMM_MESSAGE_STATE, version, sizeof answer, 0 },
                                .running = 1 };

    assert_int_equal(vmm_client_ping(f->client, NULL), 0);
    assert_int_equal(seqpacket_send(f->vmm, &answer, sizeof answer, NULL, 0, NULL), 0);
    turn(f);
}

/* What has disks and nics that come and go. */
static void say_version(struct fixture *f)
{
    say(f, VMM_MESSAGE_VSOCK_REQUEST, 1);
    turn(f);
}

/* One of an earlier agent's package is asked for nothing that it does not know. */
static void the_lower_version_is_spoken(void **state)
{
    static const struct {
        uint32_t version; /* 0 = it has not said any */
        int result;
    } cases[] = { { 0, -EOPNOTSUPP },
                  { 1, -EOPNOTSUPP },
                  { VMM_PROTOCOL_DEVICES, 0 },
                  { VMM_PROTOCOL_VERSION + 1, 0 } };
    const struct vmm_attach disk = { .kind = VMM_DEVICE_DISK,
                                     .disk = { .place = 3, .queues = 1, .size_bytes = 4096 } };
    struct error err = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        void *fixture = NULL;
        struct fixture *f;

        assert_int_equal(set_up(&fixture), 0);
        f = fixture;
        if (cases[i].version > 0)
            say_state(f, cases[i].version);
        assert_int_equal(f->states, cases[i].version > 0);
        assert_true(vmm_client_is_known(f->client) == (cases[i].version > 0));
        assert_int_equal(vmm_client_change(f->client, &disk, &err), cases[i].result);
        assert_int_equal(vmm_client_attach(f->client, &disk, NULL, 0, &err), cases[i].result);
        assert_int_equal(vmm_client_detach(f->client, VMM_DEVICE_DISK, 3, true, &err),
                         cases[i].result);
        assert_int_equal(vmm_client_pause(f->client, true, NULL), 0);
        assert_int_equal(f->closed, 0);
        tear_down(&fixture);
    }
}

static void no_version_is_none(void **state)
{
    struct fixture *f = *state;

    say_state(f, 0);
    assert_true(f->closed == 1 && f->states == 0);
}

/* --- devices --- */

static void post_device(struct fixture *f, unsigned kind, unsigned place, unsigned device_state,
                        int result)
{
    struct vmm_device message = {
        .header = { VMM_MESSAGE_DEVICE, VMM_PROTOCOL_VERSION, sizeof message, 0 },
        .kind = (uint8_t)kind,
        .place = (uint8_t)place,
        .state = (uint8_t)device_state,
        .result = result,
    };

    assert_int_equal(seqpacket_send(f->vmm, &message, sizeof message, NULL, 0, NULL), 0);
}

static void tell(struct fixture *f, unsigned kind, unsigned place, unsigned device_state,
                 int result)
{
    post_device(f, kind, place, device_state, result);
    turn(f);
}

/* What the agent said last. */
static size_t hear(struct fixture *f, void *message, size_t size, size_t *ret_fds)
{
    int fds[VMM_QUEUES_MAX];
    size_t count = VMM_QUEUES_MAX;
    ssize_t got = seqpacket_receive(f->vmm, message, size, fds, &count, NULL);

    assert_true(got > 0);
    for (size_t i = 0; i < count; i++)
        close(fds[i]);
    *ret_fds = count;
    return (size_t)got;
}

static void a_device_is_attached_and_let_go(void **state)
{
    const struct vmm_attach disk = { .kind = VMM_DEVICE_DISK,
                                     .disk = { .place = 3, .queues = 1, .size_bytes = 4096 } };
    struct fixture *f = *state;
    struct vmm_attach attach;
    struct vmm_device detach;
    size_t fds;

    say_version(f);
    assert_int_equal(vmm_client_attach(f->client, &disk, &f->vmm, 1, NULL), 0);
    assert_int_equal(hear(f, &attach, sizeof attach, &fds), sizeof attach);
    assert_int_equal(attach.header.type, VMM_MESSAGE_ATTACH);
    assert_int_equal(attach.disk.size_bytes, 4096);
    assert_int_equal(fds, 1);
    tell(f, VMM_DEVICE_DISK, 3, VMM_DEVICE_PRESENT, -EEXIST);
    assert_true(f->devices == 1 && f->present && f->place == 3 && f->result == -EEXIST);
    assert_int_equal(vmm_client_detach(f->client, VMM_DEVICE_DISK, 3, true, NULL), 0);
    assert_int_equal(hear(f, &detach, sizeof detach, &fds), sizeof detach);
    assert_int_equal(detach.header.type, VMM_MESSAGE_DETACH);
    assert_int_equal(detach.state, VMM_DEVICE_ABSENT);
    tell(f, VMM_DEVICE_DISK, 3, VMM_DEVICE_PRESENT, 0);
    assert_true(f->devices == 2 && f->present);
    tell(f, VMM_DEVICE_DISK, 3, VMM_DEVICE_ABSENT, 0);
    assert_true(f->devices == 3 && !f->present);
    assert_int_equal(f->closed, 0);
}

/* It was asked once more when it had gone: the answer says that it is gone, once. */
static void two_answers_are_one(void **state)
{
    struct fixture *f = *state;
    struct vmm_device message;
    size_t fds;

    say_version(f);
    assert_int_equal(vmm_client_detach(f->client, VMM_DEVICE_NIC, 7, true, NULL), 0);
    tell(f, VMM_DEVICE_NIC, 7, VMM_DEVICE_PRESENT, 0);
    assert_int_equal(vmm_client_detach(f->client, VMM_DEVICE_NIC, 7, true, NULL), 0);
    tell(f, VMM_DEVICE_NIC, 7, VMM_DEVICE_ABSENT, 0);
    assert_int_equal(f->devices, 1);
    tell(f, VMM_DEVICE_NIC, 7, VMM_DEVICE_ABSENT, -ENOENT);
    assert_true(f->devices == 2 && !f->present && f->kind == VMM_DEVICE_NIC && f->place == 7);
    (void)hear(f, &message, sizeof message, &fds);
    (void)hear(f, &message, sizeof message, &fds);
    assert_int_equal(vmm_client_detach(f->client, VMM_DEVICE_NIC, 7, false, NULL), 0);
    (void)hear(f, &message, sizeof message, &fds);
    assert_int_equal(message.state, VMM_DEVICE_PRESENT); /* only a look */
    tell(f, VMM_DEVICE_NIC, 7, VMM_DEVICE_PRESENT, 0);
    assert_true(f->devices == 3 && f->present);
    assert_int_equal(f->closed, 0);
}

static void what_was_not_asked_about_ends_it(void **state)
{
    static const struct {
        bool looked, asked;
        unsigned kind, place, state;
        int result;
    } cases[] = {
        { false, false, VMM_DEVICE_DISK, 0, VMM_DEVICE_PRESENT, 0 },
        { false, false, VMM_DEVICE_DISK, 0, VMM_DEVICE_ABSENT, -ENOENT },
        { true, false, VMM_DEVICE_DISK, 1, VMM_DEVICE_PRESENT, 0 },
        { true, false, VMM_DEVICE_NIC, 0, VMM_DEVICE_PRESENT, 0 },
        { true, true, VMM_DEVICE_KIND_COUNT, 0, VMM_DEVICE_PRESENT, 0 },
        { true, true, 255, 0, VMM_DEVICE_ABSENT, 0 },
        { true, true, VMM_DEVICE_DISK, VMM_DISKS_MAX, VMM_DEVICE_PRESENT, 0 },
        { true, true, VMM_DEVICE_NIC, 255, VMM_DEVICE_ABSENT, -ENOENT },
        { true, true, VMM_DEVICE_DISK, 0, VMM_DEVICE_FULL + 1, 0 },
        { true, true, VMM_DEVICE_NIC, 0, VMM_DEVICE_FULL, 0 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        void *fixture = NULL;
        struct fixture *f;

        assert_int_equal(set_up(&fixture), 0);
        f = fixture;
        say_version(f);
        if (cases[i].looked)
            (void)vmm_client_detach(f->client, VMM_DEVICE_DISK, 0, cases[i].asked, NULL);
        tell(f, cases[i].kind, cases[i].place, cases[i].state, cases[i].result);
        assert_int_equal(f->closed, 1);
        assert_int_equal(f->devices, 0);
        tear_down(&fixture);
    }
}

static void one_answer_for_each_question(void **state)
{
    struct fixture *f = *state;

    say_version(f);
    assert_int_equal(vmm_client_detach(f->client, VMM_DEVICE_DISK, 0, true, NULL), 0);
    tell(f, VMM_DEVICE_DISK, 0, VMM_DEVICE_PRESENT, 0);
    tell(f, VMM_DEVICE_DISK, 0, VMM_DEVICE_ABSENT, 0);
    tell(f, VMM_DEVICE_DISK, 0, VMM_DEVICE_ABSENT, 0);
    assert_int_equal(f->devices, 2);
    assert_int_equal(f->closed, 0);
    tell(f, VMM_DEVICE_DISK, 0, VMM_DEVICE_ABSENT, -ENOENT);
    assert_int_equal(f->closed, 1);
    assert_int_equal(f->devices, 2);
}

/* An earlier agent had it asked, and it goes as this one comes: what this one asks is answered. */
static void what_an_earlier_agent_asked_is_no_answer(void **state)
{
    for (int asks = 0; asks < 2; asks++) { /* a look, or to go */
        struct fixture *f = *state;
        unsigned devices = f->devices;

        say_version(f);
        tell(f, VMM_DEVICE_NIC, 7, VMM_DEVICE_ABSENT, 0);
        assert_int_equal(f->devices, devices);
        assert_int_equal(vmm_client_detach(f->client, VMM_DEVICE_NIC, 7, asks, NULL), 0);
        tell(f, VMM_DEVICE_NIC, 7, VMM_DEVICE_ABSENT, 0);
        assert_int_equal(f->devices, devices);
        tell(f, VMM_DEVICE_NIC, 7, VMM_DEVICE_ABSENT, -ENOENT);
        assert_true(f->devices == devices + 1 && !f->present && f->place == 7);
        assert_int_equal(f->closed, 0);
    }
}

/* FLOOD messages are there, and counted in *told: a part of them in the first turn, all in the end.
 */
static void assert_told_in_parts(struct fixture *f, const unsigned *told)
{
    turn(f);
    assert_in_range(*told, 1, FLOOD - 1);
    while (*told < FLOOD)
        assert_int_equal(loop_turn(f->loop, -1, NULL), 0);
    assert_int_equal(f->closed, 0);
}

static void full_disks_are_told_in_parts_too(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < FLOOD; i++)
        post_device(f, VMM_DEVICE_DISK, 3, VMM_DEVICE_FULL, 0);
    assert_told_in_parts(f, &f->full);
}

/* An answer to nothing is taken, like any other; so many at a time. */
static void answers_to_nothing_are_read_in_parts_too(void **state)
{
    struct fixture *f = *state;
    struct vmm_state answer = { .header = { VMM_MESSAGE_INPUT_TAKEN, VMM_PROTOCOL_VERSION,
                                            sizeof answer, 0 } };

    for (unsigned i = 0; i < FLOOD; i++)
        assert_int_equal(seqpacket_send(f->vmm, &answer, sizeof answer, NULL, 0, NULL), 0);
    assert_told_in_parts(f, &f->inputs);
}

static void a_full_nic_ends_it(void **state)
{
    struct fixture *f = *state;

    post_device(f, VMM_DEVICE_NIC, 3, VMM_DEVICE_FULL, 0);
    turn(f);
    assert_int_equal(f->closed, 1);
    assert_int_equal(f->full, 0);
}

static void disks_and_nics_are_told_what_changed(void **state)
{
    const struct vmm_attach disk = { .kind = VMM_DEVICE_DISK,
                                     .disk = { .place = 2, .size_bytes = 1 << 20 } };
    const struct vmm_attach nic = { .kind = VMM_DEVICE_NIC,
                                    .nic = { .place = 1, .tx_rate_limit.bytes_per_second = 7 } };
    struct fixture *f = *state;
    struct vmm_attach got;

    say_version(f);
    assert_int_equal(vmm_client_change(f->client, &disk, NULL), 0);
    assert_int_equal(vmm_client_change(f->client, &nic, NULL), 0);
    assert_int_equal(seqpacket_receive(f->vmm, &got, sizeof got, NULL, NULL, NULL), sizeof got);
    assert_int_equal(got.header.type, VMM_MESSAGE_CHANGE);
    assert_int_equal(got.kind, VMM_DEVICE_DISK);
    assert_memory_equal(&got.disk, &disk.disk, sizeof got.disk);
    assert_int_equal(seqpacket_receive(f->vmm, &got, sizeof got, NULL, NULL, NULL), sizeof got);
    assert_int_equal(got.header.type, VMM_MESSAGE_CHANGE);
    assert_int_equal(got.kind, VMM_DEVICE_NIC);
    assert_memory_equal(&got.nic, &nic.nic, sizeof got.nic);
}

static void answer(struct fixture *f, uint32_t type)
{
    struct vmm_state answer = { .header = { type, VMM_PROTOCOL_VERSION, sizeof answer, 0 },
                                .running = 1 };

    assert_int_equal(seqpacket_send(f->vmm, &answer, sizeof answer, NULL, 0, NULL), 0);
    turn(f);
}

/* It is ready once; a state and a snapshot are as many as were asked for. */
static void an_answer_too_many_ends_it(void **state)
{
    static const uint32_t types[] = { VMM_MESSAGE_READY, VMM_MESSAGE_STATE,
                                      VMM_MESSAGE_SNAPSHOT_DONE };

    (void)state;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        void *fixture = NULL;
        struct fixture *f;

        assert_int_equal(set_up(&fixture), 0);
        f = fixture;
        assert_int_equal(vmm_client_ping(f->client, NULL), 0);
        assert_int_equal(vmm_client_snapshot(f->client, f->vmm, f->vmm, -1, NULL), 0);
        answer(f, types[i]);
        assert_int_equal(f->closed, 0);
        answer(f, types[i]);
        assert_int_equal(f->closed, 1);
        assert_int_equal(f->readies + f->states + f->snapshots, 1);
        tear_down(&fixture);
    }
}

static void other_messages_end_it(void **state)
{
    struct fixture *f = *state;

    say(f, VMM_MESSAGE_VSOCK_CONNECT, 1); /* is the agent's to say */
    turn(f);
    assert_int_equal(f->closed, 1);
    assert_true(f->forbidden);
    assert_int_equal(f->vsocks, 0);
}

static void so_does_one_that_is_too_long(void **state)
{
    struct fixture *f = *state;
    static const struct vmm_configure longer;

    assert_int_equal(seqpacket_send(f->vmm, &longer, sizeof longer, NULL, 0, NULL), 0);
    turn(f);
    assert_int_equal(f->closed, 1);
    assert_true(f->forbidden);
}

static void its_own_end_is_not_forbidden(void **state)
{
    struct fixture *f = *state;

    shutdown(f->vmm, SHUT_RDWR);
    turn(f);
    assert_int_equal(f->closed, 1);
    assert_false(f->forbidden);
}

/* A file that is kept would keep a volume's lock, or a tap, when its VM has ended. */
static void files_that_come_with_nothing_are_closed(void **state)
{
    struct fixture *f = *state;
    int ends[2];
    char byte;

    assert_int_equal(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
    assert_int_equal(seqpacket_send(f->vmm, "", 0, &ends[1], 1, NULL), 0);
    close(ends[1]);
    turn(f);
    assert_int_equal(f->closed, 1);
    assert_int_equal(read(ends[0], &byte, 1), 0); /* nobody has the other end */
    close(ends[0]);
}

/* Its VMM is not to blame, and would be held for ever by an agent that hears it no more. */
static void an_answer_whose_files_have_no_room_has_failed(void **state)
{
    const struct vmm_state answer = { .header =
                                          vmm_header(VMM_MESSAGE_SNAPSHOT_DONE, sizeof answer) };
    struct fixture *f = *state;
    struct rlimit limit, none;

    assert_int_equal(vmm_client_snapshot(f->client, f->vmm, f->vmm, -1, NULL), 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(seqpacket_send(f->vmm, &answer, sizeof answer, &f->vmm, 1, NULL), 0);
    none = limit;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    turn(f);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(f->closed, 0);
    assert_int_equal(f->snapshots, 1);
    assert_int_equal(f->result, -EMFILE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(vsock_messages_go_both_ways),
        TEST(a_flood_is_read_in_parts),
        cmocka_unit_test(the_lower_version_is_spoken),
        TEST(no_version_is_none),
        TEST(a_device_is_attached_and_let_go),
        TEST(two_answers_are_one),
        cmocka_unit_test(what_was_not_asked_about_ends_it),
        TEST(one_answer_for_each_question),
        TEST(what_an_earlier_agent_asked_is_no_answer),
        TEST(full_disks_are_told_in_parts_too),
        TEST(answers_to_nothing_are_read_in_parts_too),
        TEST(a_full_nic_ends_it),
        TEST(disks_and_nics_are_told_what_changed),
        cmocka_unit_test(an_answer_too_many_ends_it),
        TEST(other_messages_end_it),
        TEST(so_does_one_that_is_too_long),
        TEST(its_own_end_is_not_forbidden),
        TEST(files_that_come_with_nothing_are_closed),
        TEST(an_answer_whose_files_have_no_room_has_failed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
