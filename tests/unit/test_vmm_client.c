/* test_vmm_client.c - what an agent makes of a VMM that says what it should not, or too much. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "agent/vmm_client.h"
#include "base/loop.h"
#include "base/seqpacket.h"

#define FLOOD 150 /* messages; what fits into the socket */

struct fixture {
    struct loop *loop;
    struct vmm_client *client;
    int vmm; /* the VMM's end */
    unsigned states, vsocks, closed, full;
    struct vmm_vsock last;
};

static void on_ready(void *context)
{
    (void)context;
}

static void on_state(void *context, bool running, bool paused)
{
    struct fixture *f = context;

    f->states += running && !paused;
}

static void on_input(void *context, bool taken)
{
    (void)context;
    (void)taken;
}

static void on_vsock(void *context, const struct vmm_vsock *message)
{
    struct fixture *f = context;

    f->last = *message;
    f->vsocks++;
}

static void on_closed(void *context)
{
    struct fixture *f = context;

    f->closed++;
}

static void on_full(void *context, unsigned place)
{
    struct fixture *f = context;

    assert_int_equal(place, 3);
    f->full++;
}

static const struct vmm_client_ops ops = { .ready = on_ready,
                                           .state = on_state,
                                           .input = on_input,
                                           .vsock = on_vsock,
                                           .full = on_full,
                                           .closed = on_closed };

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

static void say_device(struct fixture *f, enum vmm_device_kind kind, enum vmm_device_state state)
{
    struct vmm_device message = {
        .header = { VMM_MESSAGE_DEVICE, VMM_PROTOCOL_VERSION, sizeof message, 0 },
        .kind = (uint8_t)kind,
        .place = 3,
        .state = (uint8_t)state,
    };

    assert_int_equal(seqpacket_send(f->vmm, &message, sizeof message, NULL, 0, NULL), 0);
}

static void full_disks_are_told_in_parts_too(void **state)
{
    struct fixture *f = *state;
    unsigned first;

    for (unsigned i = 0; i < FLOOD; i++)
        say_device(f, VMM_DEVICE_DISK, VMM_DEVICE_FULL);
    turn(f);
    first = f->full;
    assert_in_range(first, 1, FLOOD - 1);
    while (f->full < FLOOD)
        assert_int_equal(loop_turn(f->loop, -1, NULL), 0);
    assert_int_equal(f->closed, 0);
}

static void a_full_nic_ends_it(void **state)
{
    struct fixture *f = *state;

    say_device(f, VMM_DEVICE_NIC, VMM_DEVICE_FULL);
    turn(f);
    assert_int_equal(f->closed, 1);
    assert_int_equal(f->full, 0);
}

static void disks_and_nics_are_told_what_changed(void **state)
{
    const struct vmm_disk disk = { .place = 2, .size_bytes = 1 << 20 };
    const struct vmm_nic nic = { .place = 1, .tx_rate_limit.bytes_per_second = 7 };
    struct fixture *f = *state;
    struct vmm_attach_disk got;
    struct vmm_attach_nic got_nic;

    assert_int_equal(vmm_client_change_disk(f->client, &disk, NULL), 0);
    assert_int_equal(vmm_client_change_nic(f->client, &nic, NULL), 0);
    assert_int_equal(seqpacket_receive(f->vmm, &got, sizeof got, NULL, NULL, NULL), sizeof got);
    assert_int_equal(got.header.type, VMM_MESSAGE_CHANGE_DISK);
    assert_memory_equal(&got.disk, &disk, sizeof disk);
    assert_int_equal(seqpacket_receive(f->vmm, &got_nic, sizeof got_nic, NULL, NULL, NULL),
                     sizeof got_nic);
    assert_int_equal(got_nic.header.type, VMM_MESSAGE_CHANGE_NIC);
    assert_memory_equal(&got_nic.nic, &nic, sizeof nic);
}

static void other_messages_end_it(void **state)
{
    struct fixture *f = *state;

    say(f, VMM_MESSAGE_VSOCK_CONNECT, 1); /* is the agent's to say */
    turn(f);
    assert_int_equal(f->closed, 1);
    assert_int_equal(f->vsocks, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(vsock_messages_go_both_ways),          TEST(a_flood_is_read_in_parts),
        TEST(full_disks_are_told_in_parts_too),     TEST(a_full_nic_ends_it),
        TEST(disks_and_nics_are_told_what_changed), TEST(other_messages_end_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
