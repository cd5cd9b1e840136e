/* test_vmm_client_devices.c - disks and nics of a running VM: what an agent makes of what its VMM
 * says of them, asked or not. */
#include "tests/unit/vmm_client_harness.h"
#include <errno.h>
#include <string.h>

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
        struct fixture *f = fixture_new();

        say_version(f);
        if (cases[i].looked)
            (void)vmm_client_detach(f->client, VMM_DEVICE_DISK, 0, cases[i].asked, NULL);
        tell(f, cases[i].kind, cases[i].place, cases[i].state, cases[i].result);
        assert_int_equal(f->closed, 1);
        assert_int_equal(f->devices, 0);
        fixture_free(f);
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

static void full_disks_are_told_in_parts_too(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < FLOOD; i++)
        post_device(f, VMM_DEVICE_DISK, 3, VMM_DEVICE_FULL, 0);
    assert_told_in_parts(f, &f->full);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_device_is_attached_and_let_go),
        TEST(two_answers_are_one),
        cmocka_unit_test(what_was_not_asked_about_ends_it),
        TEST(one_answer_for_each_question),
        TEST(what_an_earlier_agent_asked_is_no_answer),
        TEST(full_disks_are_told_in_parts_too),
        TEST(a_full_nic_ends_it),
        TEST(disks_and_nics_are_told_what_changed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
