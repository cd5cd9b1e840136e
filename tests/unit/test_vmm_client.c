/* test_vmm_client.c - what an agent makes of a VMM that says what it should not, or too much. */
#include "tests/unit/vmm_client_harness.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

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
        struct fixture *f = fixture_new();

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
        fixture_free(f);
    }
}

/* With SAVE come the pagemap and, if there is one, the base; with SNAPSHOT only the base. */
static void an_older_one_has_a_snapshot_without_its_pagemap(void **state)
{
    static const struct {
        uint32_t version, type;
        size_t files;
    } cases[] = { { 0, VMM_MESSAGE_SNAPSHOT, 2 },
                  { VMM_PROTOCOL_SAVE - 1, VMM_MESSAGE_SNAPSHOT, 2 },
                  { VMM_PROTOCOL_SAVE, VMM_MESSAGE_SAVE, 3 } };
    struct vmm_state got; /* of any message, too */
    struct stat sent, came;

    (void)state;
    for (size_t i = 0; i < 2 * sizeof cases / sizeof cases[0]; i++) {
        struct fixture *f = fixture_new();
        int files[] = { memfd_create("state", 0), memfd_create("memory", 0),
                        memfd_create("pagemap", 0), i % 2 ? memfd_create("base", 0) : -1 };
        int fds[8];
        size_t count = 8, expected = cases[i / 2].files + i % 2;

        if (cases[i / 2].version > 0)
            say_state(f, cases[i / 2].version);
        while (seqpacket_receive(f->vmm, &got, sizeof got, NULL, NULL, NULL) > 0)
            continue;
        assert_int_equal(vmm_client_snapshot(f->client, files, NULL), 0);
        assert_int_equal(seqpacket_receive(f->vmm, &got, sizeof got, fds, &count, NULL),
                         sizeof(struct vmm_message_header));
        assert_int_equal(got.header.type, cases[i / 2].type);
        assert_int_equal(count, expected);
        assert_int_equal(fstat(files[i % 2 ? 3 : expected - 1], &sent), 0);
        assert_int_equal(fstat(fds[count - 1], &came), 0);
        assert_int_equal(sent.st_ino, came.st_ino);
        for (size_t k = 0; k < count; k++)
            close(fds[k]);
        for (unsigned k = 0; k < 3 + i % 2; k++)
            close(files[k]);
        fixture_free(f);
    }
}

static void no_version_is_none(void **state)
{
    struct fixture *f = *state;

    say_state(f, 0);
    assert_true(f->closed == 1 && f->states == 0);
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
        struct fixture *f = fixture_new();

        assert_int_equal(vmm_client_ping(f->client, NULL), 0);
        assert_int_equal(
            vmm_client_snapshot(f->client, (const int[]){ f->vmm, f->vmm, f->vmm, -1 }, NULL), 0);
        answer(f, types[i]);
        assert_int_equal(f->closed, 0);
        answer(f, types[i]);
        assert_int_equal(f->closed, 1);
        assert_int_equal(f->readies + f->states + f->snapshots, 1);
        fixture_free(f);
    }
}

static void the_last_answer_about_marks_counts(void **state)
{
    static const uint8_t shifts[VMM_DISKS_MAX] = { 20, 20, 20, 20, 20, 20, 20, 20 };
    struct fixture *f = *state;

    assert_int_equal(vmm_client_mark_writes(f->client, f->vmm, shifts, NULL), -EOPNOTSUPP);
    assert_int_equal(vmm_client_ping(f->client, NULL), 0);
    answer(f, VMM_MESSAGE_STATE); /* its version, too */
    assert_int_equal(vmm_client_mark_writes(f->client, f->vmm, shifts, NULL), 0);
    assert_int_equal(vmm_client_mark_writes(f->client, -1, shifts, NULL), 0);
    answer(f, VMM_MESSAGE_MARKING);
    assert_int_equal(f->markings, 0);
    answer(f, VMM_MESSAGE_MARKING);
    assert_int_equal(f->markings, 1);
    assert_int_equal(f->result, 0);
    assert_int_equal(f->closed, 0);
    answer(f, VMM_MESSAGE_MARKING);
    assert_int_equal(f->markings, 1);
    assert_int_equal(f->closed, 1);
    assert_true(f->forbidden);
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
    f->client = vmm_client_free(f->client);
    f->closer = worker_free(f->closer);
    assert_int_equal(read(ends[0], &byte, 1), 0); /* nobody has the other end */
    close(ends[0]);
}

/* --- files that take long to close --- */

/* The last end of a pipe: the other one tells when it is closed.  The closer waits for its gate. */
struct slow {
    int gate[2], ends[2];
};

static int wait_for_gate(void *job, struct error *err)
{
    const struct slow *slow = job;
    char byte;

    (void)err;
    return read(slow->gate[0], &byte, 1) == 0 ? 0 : -EIO;
}

static void gate_is_open(void *job, int result, const struct error *err)
{
    (void)job;
    (void)err;
    assert_int_equal(result, 0);
}

struct words {
    uint32_t type;
    size_t size, file_count;
};

/* The VMM's last words: to close what comes with them is the end of it. */
static void say_with_slow_files(struct fixture *f, const struct words *words, struct slow *slow)
{
    int fds[SEQPACKET_FDS_MAX];
    char message[sizeof(struct vmm_configure)] = { 0 };
    const struct vmm_message_header header = vmm_header(words->type, words->size);
    size_t count = words->file_count;

    assert_int_equal(pipe2(slow->gate, O_CLOEXEC), 0);
    assert_int_equal(pipe2(slow->ends, O_NONBLOCK | O_CLOEXEC), 0);
    assert_int_equal(worker_submit(f->closer, wait_for_gate, gate_is_open, slow, NULL), 0);
    memcpy(message, &header, sizeof header);
    for (size_t i = 0; i < count; i++)
        fds[i] = f->vmm;
    fds[count - 1] = slow->ends[1]; /* the last is the one that did not fit */
    assert_int_equal(seqpacket_send(f->vmm, message, words->size, fds, count, NULL), 0);
    close(slow->ends[1]);
}

/* Not by this thread; and then by the other one. */
static void the_closer_closes(struct fixture *f, const struct slow *slow)
{
    char byte;

    assert_int_equal(read(slow->ends[0], &byte, 1), -1);
    assert_int_equal(errno, EAGAIN);
    close(slow->gate[1]);
    f->client = vmm_client_free(f->client);
    f->closer = worker_free(f->closer);
    assert_int_equal(read(slow->ends[0], &byte, 1), 0);
    close(slow->ends[0]);
    close(slow->gate[0]);
}

static void nobody_waits_for_files_that_are_not_wanted(void **state)
{
    static const struct words cases[] = {
        { VMM_MESSAGE_VSOCK_REQUEST, sizeof(struct vmm_vsock), 1 },
        { VMM_MESSAGE_VSOCK_REQUEST, sizeof(struct vmm_vsock), SEQPACKET_FDS_MAX },
        { VMM_MESSAGE_SNAPSHOT_DONE, sizeof(struct vmm_state), 1 }, /* that nobody asked for */
        { VMM_MESSAGE_SNAPSHOT_DONE, sizeof(struct vmm_state), SEQPACKET_FDS_MAX },
        { VMM_MESSAGE_SNAPSHOT_DONE, sizeof(struct vmm_configure), VMM_LAYERS_MAX },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fixture *f = fixture_new();
        struct slow slow;

        say_with_slow_files(f, &cases[i], &slow);
        turn(f);
        assert_int_equal(f->closed, 1);
        assert_true(f->forbidden);
        the_closer_closes(f, &slow);
        fixture_free(f);
    }
}

static void nor_for_those_that_were_never_read(void **state)
{
    const struct words words = { VMM_MESSAGE_READY, sizeof(struct vmm_state), 1 };
    struct fixture *f = *state;
    struct slow slow;

    say_with_slow_files(f, &words, &slow);
    f->client = vmm_client_free(f->client);
    the_closer_closes(f, &slow);
}

/* Its VMM is not to blame, and would be held for ever by an agent that hears it no more. */
static void an_answer_whose_files_have_no_room_has_failed(void **state)
{
    const struct vmm_state answer = { .header =
                                          vmm_header(VMM_MESSAGE_SNAPSHOT_DONE, sizeof answer) };
    struct fixture *f = *state;
    struct rlimit limit, none;

    assert_int_equal(
        vmm_client_snapshot(f->client, (const int[]){ f->vmm, f->vmm, f->vmm, -1 }, NULL), 0);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(vsock_messages_go_both_ways),
        TEST(a_flood_is_read_in_parts),
        cmocka_unit_test(the_lower_version_is_spoken),
        cmocka_unit_test(an_older_one_has_a_snapshot_without_its_pagemap),
        TEST(no_version_is_none),
        TEST(answers_to_nothing_are_read_in_parts_too),
        cmocka_unit_test(an_answer_too_many_ends_it),
        TEST(the_last_answer_about_marks_counts),
        TEST(other_messages_end_it),
        TEST(so_does_one_that_is_too_long),
        TEST(its_own_end_is_not_forbidden),
        TEST(files_that_come_with_nothing_are_closed),
        cmocka_unit_test(nobody_waits_for_files_that_are_not_wanted),
        TEST(nor_for_those_that_were_never_read),
        TEST(an_answer_whose_files_have_no_room_has_failed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
