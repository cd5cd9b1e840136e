/* control_harness.h - a VMM's end of the control socket, an agent's to dial from, and what was
 * asked of the machine; for tests/unit/test_control*.c. */
#pragma once
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
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/seqpacket.h"
#include "tests/unit/scratch.h"
#include "vmm/config.h"
#include "vmm/control.h"
#include "vmm/snapshot.h"
#include "tests/unit/open_fds.h"

#define TURNS 10

static const struct log quiet = { .fd = -1, .level = LOG_LEVEL_ERROR, .name = "test" };

/* Control's machine, and what the test sees of it. */
struct machine {
    char path[SCRATCH_PATH];
    int directory, listener, stop_fd, presses, pauses, resumes, snapshots;
    int base_fd;                     /* owned by the test: of the last snapshot, -1 = none */
    bool has_pagemap;                /* that snapshot */
    int parts, agent_fd, sent_bytes; /* to agent_fd (borrowed) before the last `part` */
    char input[VMM_INPUT_MAX];
    size_t input_size, input_room;
    struct vmm_vsock vsock;
    int vsock_fd, leavings;
    uint32_t target_mib;                    /* of the last BALLOON */
    uint64_t requested_bytes;               /* of the last MEMORY */
    uint64_t hotplug_bytes;                 /* in CONFIGURE */
    int attached, attach_result, device_fd; /* device_fd: the last that was taken */
    struct vmm_device detached;
    struct vmm_disk disk; /* of the last CHANGE of one */
    struct vmm_nic nic;
    int changes;
    int markings; /* with a file; and without, of the other */
    int unmarkings;
    unsigned mark_shift;
    bool by_signal;            /* the last press */
    bool terminate_at_leaving; /* as systemd does: first the agent, then the VMMs */
    int resume_at_press;       /* who resumes the guest, borrowed; 0 = nobody */
    int resumes_at_press;
    struct loop *loop;
    struct control *control;
};

static inline int set_up(void **state)
{
    struct machine *f = calloc(1, sizeof *f);

    if (!scratch_make(f->path, "control"))
        return -1;
    f->directory = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    f->listener = seqpacket_listen(f->directory, "control", NULL);
    f->stop_fd = eventfd(0, EFD_CLOEXEC);
    if (f->listener < 0 || f->stop_fd < 0 || loop_new(&f->loop, NULL) < 0 ||
        control_new(f->loop, f->listener, f->stop_fd, &quiet, &f->control, NULL) < 0)
        return -1;
    *state = f;
    return 0;
}

static inline int tear_down(void **state)
{
    struct machine *f = *state;

    control_free(f->control);
    loop_free(f->loop);
    close(f->listener);
    close(f->stop_fd);
    close(f->directory);
    scratch_remove(f->path);
    free(f);
    return 0;
}

static inline void turn(struct machine *f)
{
    for (int i = 0; i < TURNS; i++)
        assert_int_equal(loop_turn(f->loop, 1, NULL), 0);
}

static inline int dial(struct machine *f)
{
    int fd = seqpacket_connect(f->directory, "control", NULL);

    assert_true(fd >= 0);
    turn(f);
    return fd;
}

static inline struct vmm_configure configure_message(void)
{
    struct vmm_configure configure = {
        .header = { VMM_MESSAGE_CONFIGURE, VMM_PROTOCOL_VERSION, sizeof configure, 0 },
        .id = "one",
        .memory_bytes = 64 << 20,
    };

    return configure;
}

static inline void send_header(struct machine *f, int fd, uint32_t type)
{
    struct vmm_message_header header = { type, VMM_PROTOCOL_VERSION, sizeof header, 0 };

    assert_int_equal(seqpacket_send(fd, &header, sizeof header, NULL, 0, NULL), 0);
    turn(f);
}

/* What the VMM answered: a message type, 0 = it hung up, -EAGAIN = nothing. */
static inline int answer(int fd)
{
    struct vmm_state state;
    ssize_t size = seqpacket_receive(fd, &state, sizeof state, NULL, NULL, NULL);

    return size > 0 ? (int)state.header.type : (int)size;
}

static inline void terminate(struct machine *f)
{
    assert_int_equal(eventfd_write(f->stop_fd, 1), 0);
}

static inline void post(int fd, uint32_t type);

static inline void press(struct machine *f, bool by_signal)
{
    f->presses++;
    f->by_signal = by_signal;
    f->resumes_at_press = f->resumes;
    if (f->resume_at_press > 0)
        post(f->resume_at_press, VMM_MESSAGE_RESUME);
}

static inline void hold(struct machine *f)
{
    f->pauses++;
}

static inline void release(struct machine *f)
{
    f->resumes++;
}

static inline int save(struct machine *f, const struct snapshot_files *files, int base_fd,
                       struct error *err)
{
    (void)err;
    f->snapshots += fcntl(files->state, F_GETFD) >= 0 && fcntl(files->memory, F_GETFD) >= 0;
    f->has_pagemap = fcntl(files->pagemap, F_GETFD) >= 0;
    f->base_fd = base_fd;
    return 0;
}

/* A fork's memory: of the second and third file. */
static inline int make_fork(struct machine *f, const int fds[3], int ret_layers[VMM_LAYERS_MAX],
                            size_t *ret_count, struct error *err)
{
    (void)err;
    f->snapshots += fcntl(fds[0], F_GETFD) >= 0;
    ret_layers[0] = fds[1];
    ret_layers[1] = fds[2];
    *ret_count = 2;
    return 0;
}

static inline void part(struct machine *f)
{
    f->parts++;
    assert_int_equal(ioctl(f->agent_fd, FIONREAD, &f->sent_bytes), 0);
}

static inline bool take_input(struct machine *f, const void *bytes, size_t size)
{
    if (size > f->input_room)
        return false;
    memcpy(f->input, bytes, size);
    f->input_size = size;
    return true;
}

static inline void change_balloon(struct machine *f, const struct vmm_balloon *balloon)
{
    f->target_mib = balloon->target_mib;
}

static inline void take_vsock(struct machine *f, const struct vmm_vsock *message, int fd)
{
    f->vsock = *message;
    f->vsock_fd = fd;
}

static inline void leave(struct machine *f)
{
    f->leavings++;
    if (f->terminate_at_leaving)
        terminate(f);
}

static inline void change_memory(struct machine *f, uint64_t requested_bytes)
{
    f->requested_bytes = requested_bytes;
}

static inline int attach_device(struct machine *f, const struct vmm_attach *attach, const int *fds,
                                struct error *err)
{
    (void)attach;
    (void)err;
    if (f->attach_result == 0) {
        f->attached++;
        f->device_fd = fds[0];
    }
    return f->attach_result;
}

static inline int detach(struct machine *f, enum vmm_device_kind kind, unsigned place, bool ask,
                         struct error *err)
{
    f->detached.kind = (uint8_t)kind;
    f->detached.place = (uint8_t)place;
    f->detached.state = ask ? VMM_DEVICE_ABSENT : VMM_DEVICE_PRESENT;
    return place < VMM_DISKS_MAX ? 0 : error_set(err, ENOENT, "none");
}

static inline void change_device(struct machine *f, const struct vmm_attach *change)
{
    if (change->kind == VMM_DEVICE_DISK)
        f->disk = change->disk;
    else
        f->nic = change->nic;
    f->changes++;
}

static inline int mark_writes(struct machine *f, int fd, const uint8_t shifts[VMM_DISKS_MAX],
                              struct error *err)
{
    f->mark_shift = shifts[VMM_DISKS_MAX - 1];
    if (fd < 0)
        f->unmarkings++;
    else if (shifts[0] == 21)
        return error_set(err, EINVAL, "not such a file");
    else
        f->markings++;
    return 0;
}

static const struct control_ops ops = {
    .press_power_button = press,
    .pause = hold,
    .resume = release,
    .snapshot = save,
    .fork = make_fork,
    .part = part,
    .console_input = take_input,
    .change_balloon = change_balloon,
    .vsock = take_vsock,
    .disconnected = leave,
    .change_memory = change_memory,
    .attach = attach_device,
    .detach = detach,
    .change = change_device,
    .mark_writes = mark_writes,
};

static inline void make_ready(struct machine *f, int fd)
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
    control_ready(f->control, &ops, f);
}

/* The same, and the agent has heard it. */
static inline void be_ready(struct machine *f, int fd)
{
    make_ready(f, fd);
    assert_int_equal(answer(fd), VMM_MESSAGE_READY);
}

static inline void post_with(int fd, uint32_t type, size_t fd_count)
{
    struct vmm_message_header header = { type, VMM_PROTOCOL_VERSION, sizeof header, 0 };

    assert_int_equal(
        seqpacket_send(fd, &header, sizeof header, (int[]){ 0, 1, 2, 0, 1 }, fd_count, NULL), 0);
}

static inline void post(int fd, uint32_t type)
{
    post_with(fd, type, 0);
}

static inline void expect_state(int fd, bool paused)
{
    struct vmm_state got;

    assert_int_equal(seqpacket_receive(fd, &got, sizeof got, NULL, NULL, NULL), sizeof got);
    assert_int_equal(got.header.type, VMM_MESSAGE_STATE);
    assert_int_equal(got.running, 1);
    assert_string_equal(got.id, "one");
    assert_int_equal(got.paused, paused);
}
