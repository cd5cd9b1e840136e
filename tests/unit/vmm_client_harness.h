/* vmm_client_harness.h - an agent's client, and the VMM's end of its socket in the test's hands. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <unistd.h>
#include "agent/vmm_client.h"
#include "base/error.h"
#include "base/loop.h"
#include "base/seqpacket.h"
#include "base/worker.h"

#define FLOOD 150 /* messages; what fits into the socket */

struct fixture {
    struct loop *loop;
    struct worker *closer;
    struct vmm_client *client;
    int vmm;        /* the VMM's end */
    bool forbidden; /* why it was closed */
    unsigned readies, states, snapshots, vsocks, closed, devices, full, inputs, markings;
    int kind, place, result; /* of the last device; or of the last snapshot */
    bool present;
    struct vmm_vsock last;
};

static inline void on_ready(void *context)
{
    struct fixture *f = context;

    f->readies++;
}

static inline void on_state(void *context, bool running, bool paused)
{
    struct fixture *f = context;

    f->states += running && !paused;
}

static inline void on_input(void *context, bool taken)
{
    struct fixture *f = context;

    (void)taken;
    f->inputs++;
}

static inline void on_vsock(void *context, const struct vmm_vsock *message)
{
    struct fixture *f = context;

    f->last = *message;
    f->vsocks++;
}

static inline void on_device(void *context, enum vmm_device_kind kind, unsigned place, bool present,
                             int result)
{
    struct fixture *f = context;

    f->devices++;
    f->kind = (int)kind;
    f->place = (int)place;
    f->present = present;
    f->result = result;
}

static inline void on_snapshot(void *context, int result, int *fds, size_t fd_count)
{
    struct fixture *f = context;

    (void)fds;
    assert_true(result == 0 || fd_count == 0);
    f->result = result;
    f->snapshots++;
}

static inline void on_closed(void *context, bool forbidden)
{
    struct fixture *f = context;

    f->closed++;
    f->forbidden = forbidden;
}

static inline void on_full(void *context, unsigned place)
{
    struct fixture *f = context;

    assert_int_equal(place, 3);
    f->full++;
}

static inline void on_marking(void *context, int result)
{
    struct fixture *f = context;

    f->result = result;
    f->markings++;
}

static const struct vmm_client_ops ops = {
    .ready = on_ready,
    .state = on_state,
    .input = on_input,
    .marking = on_marking,
    .vsock = on_vsock,
    .device = on_device,
    .full = on_full,
    .snapshot = on_snapshot,
    .closed = on_closed,
};

static inline struct fixture *fixture_new(void)
{
    struct fixture *f = calloc(1, sizeof *f);
    int pair[2];

    assert_non_null(f);
    assert_int_equal(seqpacket_pair(pair, NULL), 0);
    assert_int_equal(loop_new(&f->loop, NULL), 0);
    assert_int_equal(worker_new(f->loop, "close", NULL, &f->closer, NULL), 0);
    assert_int_equal(vmm_client_new(f->loop, f->closer, pair[0], &ops, f, &f->client, NULL), 0);
    f->vmm = pair[1];
    return f;
}

static inline void fixture_free(struct fixture *f)
{
    vmm_client_free(f->client);
    worker_free(f->closer);
    loop_free(f->loop);
    close(f->vmm);
    free(f);
}

static inline int set_up(void **state)
{
    *state = fixture_new();
    return 0;
}

static inline int tear_down(void **state)
{
    fixture_free(*state);
    return 0;
}

/* All that can be done without waiting. */
static inline void turn(struct fixture *f)
{
    for (unsigned i = 0; i < 2 * FLOOD; i++)
        assert_int_equal(loop_turn(f->loop, 0, NULL), 0);
}

static inline void say(struct fixture *f, uint32_t type, uint32_t id)
{
    struct vmm_vsock message = { .header = { type, VMM_PROTOCOL_VERSION, sizeof message, 0 },
                                 .id = id };

    assert_int_equal(seqpacket_send(f->vmm, &message, sizeof message, NULL, 0, NULL), 0);
}

static inline void say_state(struct fixture *f, uint32_t version)
{
    struct vmm_state answer = { .header = { VMM_MESSAGE_STATE, version, sizeof answer, 0 },
                                .running = 1 };

    assert_int_equal(vmm_client_ping(f->client, NULL), 0);
    assert_int_equal(seqpacket_send(f->vmm, &answer, sizeof answer, NULL, 0, NULL), 0);
    turn(f);
}

/* What has disks and nics that come and go. */
static inline void say_version(struct fixture *f)
{
    say(f, VMM_MESSAGE_VSOCK_REQUEST, 1);
    turn(f);
}

/* FLOOD messages are there, and counted in *told: a part of them in the first turn, all in the end.
 */
static inline void assert_told_in_parts(struct fixture *f, const unsigned *told)
{
    turn(f);
    assert_in_range(*told, 1, FLOOD - 1);
    while (*told < FLOOD)
        assert_int_equal(loop_turn(f->loop, -1, NULL), 0);
    assert_int_equal(f->closed, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
