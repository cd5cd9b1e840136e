#include "vmm/control.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/seqpacket.h"
#include "base/write_marks.h"
#include "vmm/config.h"
#include "vmm/snapshot.h"

struct control {
    struct loop *loop;          /* its own: all that is served while the machine is paused */
    struct loop_source *source; /* of it in the machine's */
    const struct log *log;      /* borrowed */
    int listener_fd;            /* borrowed */
    int fd;                     /* owned; the connection, or -1 */
    struct loop_source *connection;

    bool configured, paused;
    bool abandoned;                 /* nobody is going to configure us any more */
    struct vmm_configure configure; /* of any message received, too: it is the largest */
    int fds[CONFIG_FDS_MAX];        /* owned until taken */
    size_t fd_count;

    const struct control_ops *ops; /* borrowed, as the machine; NULL until that runs */
    struct machine *machine;
};

static void control_disconnect(struct control *control)
{
    control->connection = loop_remove(control->connection);
    if (control->fd < 0)
        return;
    cleanup_close(&control->fd);
    if (control->ops)
        control->ops->disconnected(control->machine);
}

static void control_send(struct control *control, const void *message, size_t size, const int *fds,
                         size_t fd_count)
{
    struct error err = { 0 };
    int result =
        control->fd < 0 ? 0 : seqpacket_send(control->fd, message, size, fds, fd_count, &err);

    /* What an agent said before it left is heard: a resume, perhaps. */
    if (result >= 0 || result == -EPIPE || result == -ECONNRESET)
        return;
    log_warning(control->log, "control: %s", err.message);
    control_disconnect(control);
}

static void control_answer(struct control *control, enum vmm_message_type type, int result,
                           const int *fds, size_t fd_count)
{
    struct vmm_state state = {
        .header = vmm_header(type, sizeof state),
        .running = control->ops != NULL,
        .paused = control->paused,
        .result = result,
    };

    if (control->ops)
        memcpy(state.id, control->configure.id, sizeof state.id);
    control_send(control, &state, sizeof state, fds, fd_count);
}

static void control_send_state(struct control *control, enum vmm_message_type type, int result)
{
    control_answer(control, type, result, NULL, 0);
}

static bool control_try(struct control *control, const void *message, size_t size)
{
    return control->fd >= 0 && seqpacket_send(control->fd, message, size, NULL, 0, NULL) == 0;
}

bool control_send_vsock(struct control *control, const struct vmm_vsock *message)
{
    return control_try(control, message, sizeof *message);
}

void control_send_device(struct control *control, enum vmm_device_kind kind, unsigned place,
                         enum vmm_device_state state, int result)
{
    struct vmm_device device = {
        .header = vmm_header(VMM_MESSAGE_DEVICE, sizeof device),
        .kind = (uint8_t)kind,
        .place = (uint8_t)place,
        .state = (uint8_t)state,
        .result = result,
    };

    if (state != VMM_DEVICE_FULL)
        control_send(control, &device, sizeof device, NULL, 0);
    else
        (void)control_try(control, &device, sizeof device);
}

/* --- messages of the size that the table says; each returns whether the connection stays --- */

/* A second one does not come here: it is longer than what is received by then. */
static bool on_configure(struct control *control, const void *message)
{
    (void)message;
    control->configured = true;
    return true;
}

/* Without a message: by a signal. */
static bool on_power_button(struct control *control, const void *message)
{
    if (control->ops)
        control->ops->press_power_button(control->machine, /* by_signal= */ !message);
    return true;
}

static bool on_pause(struct control *control, const void *message)
{
    (void)message;
    if (control->ops && !control->paused) {
        control->ops->pause(control->machine);
        control->paused = true;
    }
    control_send_state(control, VMM_MESSAGE_STATE, 0);
    return true;
}

static bool on_resume(struct control *control, const void *message)
{
    (void)message;
    if (control->paused) {
        control->paused = false;
        control->ops->resume(control->machine);
    }
    control_send_state(control, VMM_MESSAGE_STATE, 0);
    return true;
}

static bool on_balloon(struct control *control, const void *message)
{
    const struct vmm_balloon_change *change = message;

    if (!config_balloon_is_valid(&change->balloon, control->configure.memory_bytes))
        return false;
    if (control->ops)
        control->ops->change_balloon(control->machine, &change->balloon);
    return true;
}

static bool on_memory(struct control *control, const void *message)
{
    const struct vmm_memory_change *change = message;

    if (!config_memory_is_valid(change->requested_bytes, control->configure.hotplug_bytes))
        return false;
    if (control->ops)
        control->ops->change_memory(control->machine, change->requested_bytes);
    return true;
}

static bool on_ping(struct control *control, const void *message)
{
    (void)message;
    control_send_state(control, VMM_MESSAGE_STATE, 0);
    return true;
}

/* A held guest cannot hear its button: it goes on, but for one that an agent holds, who may be
 * copying its disks.  That one hears it when it is let go. */
static void on_stop(void *context, uint32_t events)
{
    struct control *control = context;

    control->abandoned = events & EPOLLIN;
    if (control->fd < 0)
        (void)on_resume(control, NULL);
    (void)on_power_button(control, NULL);
}

static void close_fds(int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        cleanup_close(&fds[i]);
}

static bool on_snapshot(struct control *control, const void *message)
{
    bool has_pagemap = ((const struct vmm_message_header *)message)->type == VMM_MESSAGE_SAVE;
    size_t count = has_pagemap ? 3 : 2;
    bool has_base = control->fd_count == count + 1;
    const struct snapshot_files files = { control->fds[0], control->fds[1],
                                          has_pagemap ? control->fds[2] : -1 };
    struct error err = { 0 };
    int result;

    if (!control->paused || (control->fd_count != count && !has_base))
        result = error_set(&err, EINVAL, "snapshot: not paused, or not its files");
    else
        result = control->ops->snapshot(control->machine, &files,
                                        has_base ? control->fds[count] : -1, &err);
    if (result < 0)
        log_warning(control->log, "%s", err.message);
    else
        control->fd_count = count;
    control_send_state(control, VMM_MESSAGE_SNAPSHOT_DONE, result);
    return true;
}

static bool on_fork(struct control *control, const void *message)
{
    int layers[VMM_LAYERS_MAX];
    size_t count = 0;
    struct error err = { 0 };
    int result;

    (void)message;
    if (!control->paused || control->fd_count != 3)
        result = error_set(&err, EINVAL, "fork: not paused, or not three files");
    else
        result = control->ops->fork(control->machine, control->fds, layers, &count, &err);
    if (result < 0)
        log_warning(control->log, "%s", err.message);
    control_answer(control, VMM_MESSAGE_SNAPSHOT_DONE, result, layers, count);
    if (result == 0)
        control->ops->part(control->machine);
    return true;
}

static bool on_console_input(struct control *control, const void *message)
{
    const struct vmm_console_input *input = message;
    bool taken;

    if (input->count == 0 || input->count > sizeof input->bytes)
        return false;
    taken = control->ops && !control->paused &&
            control->ops->console_input(control->machine, input->bytes, input->count);
    control_send_state(control, VMM_MESSAGE_INPUT_TAKEN, taken ? 0 : -EAGAIN);
    return true;
}

static bool on_vsock(struct control *control, const void *message)
{
    if (control->fd_count > 1)
        return false;
    if (control->ops)
        control->ops->vsock(control->machine, message,
                            control->fd_count == 1 ? take_fd(&control->fds[0]) : -1);
    return true;
}

static bool device_is_valid(const struct vmm_attach *device)
{
    unsigned place = vmm_attach_place(device);

    return device->kind == VMM_DEVICE_DISK
               ? config_validate_disk(&device->disk, place, NULL) == 0
               : device->kind == VMM_DEVICE_NIC &&
                     config_validate_nic(&device->nic, place, NULL) == 0;
}

static bool on_attach(struct control *control, const void *message)
{
    const struct vmm_attach *attach = message;
    struct error err = { 0 };
    int result;

    if (!control->ops || !device_is_valid(attach) ||
        control->fd_count != (attach->kind == VMM_DEVICE_DISK ? config_disk_fds(&attach->disk)
                                                              : config_nic_fds(&attach->nic)))
        return false;
    result = control->ops->attach(control->machine, attach, control->fds, &err);
    if (result < 0)
        log_warning(control->log, "attach: %s", err.message);
    else
        control->fd_count = 0; /* they were taken */
    control_send_device(control, (enum vmm_device_kind)attach->kind, vmm_attach_place(attach),
                        VMM_DEVICE_PRESENT, result);
    return true;
}

static bool on_change(struct control *control, const void *message)
{
    if (!device_is_valid(message))
        return false;
    if (control->ops)
        control->ops->change(control->machine, message);
    return true;
}

static bool on_detach(struct control *control, const void *message)
{
    const struct vmm_device *device = message;
    struct error err = { 0 };
    int result;

    if (!control->ops || device->kind >= VMM_DEVICE_KIND_COUNT)
        return false;
    result = control->ops->detach(control->machine, (enum vmm_device_kind)device->kind,
                                  device->place, device->state == VMM_DEVICE_ABSENT, &err);
    control_send_device(control, (enum vmm_device_kind)device->kind, device->place,
                        result < 0 ? VMM_DEVICE_ABSENT : VMM_DEVICE_PRESENT, result);
    return true;
}

static bool on_mark_writes(struct control *control, const void *message)
{
    const struct vmm_mark_writes *mark = message;
    struct error err = { 0 };
    int result;

    for (unsigned i = 0; i < VMM_DISKS_MAX; i++)
        if (mark->shifts[i] < WRITE_MARK_SHIFT_MIN || mark->shifts[i] > WRITE_MARK_SHIFT_MAX)
            return false;
    if (!control->ops || control->fd_count > 1)
        return false;
    result = control->ops->mark_writes(
        control->machine, control->fd_count == 1 ? control->fds[0] : -1, mark->shifts, &err);
    if (result < 0)
        log_warning(control->log, "%s", err.message);
    control_send_state(control, VMM_MESSAGE_MARKING, result);
    return true;
}

static const struct {
    size_t size;
    bool (*handle)(struct control *control, const void *message);
} messages[] = {
    [VMM_MESSAGE_CONFIGURE] = { sizeof(struct vmm_configure), on_configure },
    [VMM_MESSAGE_POWER_BUTTON] = { sizeof(struct vmm_message_header), on_power_button },
    [VMM_MESSAGE_PING] = { sizeof(struct vmm_message_header), on_ping },
    [VMM_MESSAGE_PAUSE] = { sizeof(struct vmm_message_header), on_pause },
    [VMM_MESSAGE_RESUME] = { sizeof(struct vmm_message_header), on_resume },
    [VMM_MESSAGE_SNAPSHOT] = { sizeof(struct vmm_message_header), on_snapshot },
    [VMM_MESSAGE_CONSOLE_INPUT] = { sizeof(struct vmm_console_input), on_console_input },
    [VMM_MESSAGE_FORK] = { sizeof(struct vmm_message_header), on_fork },
    [VMM_MESSAGE_BALLOON] = { sizeof(struct vmm_balloon_change), on_balloon },
    [VMM_MESSAGE_VSOCK_CONNECT] = { sizeof(struct vmm_vsock), on_vsock },
    [VMM_MESSAGE_VSOCK_ANSWER] = { sizeof(struct vmm_vsock), on_vsock },
    [VMM_MESSAGE_MEMORY] = { sizeof(struct vmm_memory_change), on_memory },
    [VMM_MESSAGE_ATTACH] = { sizeof(struct vmm_attach), on_attach },
    [VMM_MESSAGE_DETACH] = { sizeof(struct vmm_device), on_detach },
    [VMM_MESSAGE_CHANGE] = { sizeof(struct vmm_attach), on_change },
    [VMM_MESSAGE_MARK_WRITES] = { sizeof(struct vmm_mark_writes), on_mark_writes },
    [VMM_MESSAGE_SAVE] = { sizeof(struct vmm_message_header), on_snapshot },
};

static bool control_handle(struct control *control, const struct vmm_message_header *header,
                           size_t size)
{
    if (size < sizeof *header || header->size != size || header->type >= ARRAY_LENGTH(messages) ||
        !messages[header->type].handle || messages[header->type].size != size)
        return false;
    return messages[header->type].handle(control, header);
}

/* Until the configuration has come, messages go where it belongs, and its fds stay; afterwards
 * console input is the longest.  Fds that a message was not meant to have are closed. */
static bool control_receive(struct control *control)
{
    bool waiting = !control->configured, stays;
    struct vmm_console_input message = { 0 };
    void *to = waiting ? (void *)&control->configure : &message;
    struct error err = { 0 };
    ssize_t size;

    control->fd_count = CONFIG_FDS_MAX;
    size = seqpacket_receive(control->fd, to, waiting ? sizeof control->configure : sizeof message,
                             control->fds, &control->fd_count, &err);
    if (size <= 0) {
        control->fd_count = 0;
        control->abandoned = waiting && size == 0;
        return size == -EAGAIN || size == -ECONNRESET; /* it left answers unread */
    }
    stays = control_handle(control, to, (size_t)size);
    if (!waiting || !control->configured)
        close_fds(control->fds, control->fd_count);
    return stays;
}

static void on_connection(void *context, uint32_t events)
{
    struct control *control = context;

    (void)events;
    if (!control_receive(control))
        control_disconnect(control);
}

static bool peer_is_root(int fd)
{
    struct ucred peer;
    socklen_t size = sizeof peer;

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == 0;
}

static void on_listener(void *context, uint32_t events)
{
    struct control *control = context;
    auto_close int fd = accept4(control->listener_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct error err = { 0 };

    (void)events;
    if (fd < 0)
        return;
    if (!peer_is_root(fd)) {
        log_warning(control->log, "control: a peer that is not root was refused");
        return;
    }
    control_disconnect(control); /* the newest is the agent that lives */
    if (loop_add(control->loop, fd, EPOLLIN, on_connection, control, &control->connection, &err) <
        0) {
        log_warning(control->log, "control: %s", err.message);
        return;
    }
    control->fd = take_fd(&fd);
}

/* A paused machine's devices stand still because the machine's loop does not go on: only this one
 * is turned, until the agent, or the next agent, resumes. */
static void on_control(void *context, uint32_t events)
{
    struct control *control = context;

    (void)events;
    do
        (void)loop_turn(control->loop, control->paused ? -1 : 0, NULL);
    while (control->paused);
}

int control_new(struct loop *loop, int listener_fd, int stop_fd, const struct log *log,
                struct control **ret_control, struct error *err)
{
    struct control *control = calloc(1, sizeof *control);
    struct loop_source *source; /* its loop frees it */
    int result;

    if (!control)
        return error_set(err, ENOMEM, "control");
    control->log = log;
    control->listener_fd = listener_fd;
    control->fd = -1;
    result = loop_new(&control->loop, err);
    if (result == 0)
        result = loop_add(control->loop, listener_fd, EPOLLIN, on_listener, control, &source, err);
    if (result == 0)
        result = loop_add(control->loop, stop_fd, EPOLLIN | EPOLLONESHOT, on_stop, control, &source,
                          err);
    if (result == 0)
        result = loop_add(loop, loop_fd(control->loop), EPOLLIN, on_control, control,
                          &control->source, err);
    if (result < 0) {
        control_free(control);
        return result;
    }
    *ret_control = control;
    return 0;
}

struct control *control_free(struct control *control)
{
    if (control) {
        control_disconnect(control);
        loop_remove(control->source);
        loop_free(control->loop);
        close_fds(control->fds, control->fd_count);
        free(control);
    }
    return NULL;
}

int control_wait_configure(struct control *control, int timeout_ms,
                           struct vmm_configure *ret_configure, int *ret_fds, size_t *ret_fd_count,
                           struct error *err)
{
    int64_t end = loop_now_ms() + timeout_ms;

    while (!control->configured) {
        int64_t left = end - loop_now_ms();
        int result;

        if (control->abandoned)
            return error_set(err, ECONNRESET, "ended before a configuration came");
        if (left <= 0)
            return error_set(err, ETIMEDOUT, "no configuration came within %d ms", timeout_ms);
        result = loop_turn(control->loop, (int)left, err);
        if (result < 0)
            return result;
    }
    *ret_configure = control->configure;
    memcpy(ret_fds, control->fds, control->fd_count * sizeof ret_fds[0]);
    *ret_fd_count = control->fd_count;
    control->fd_count = 0;
    return 0;
}

void control_ready(struct control *control, const struct control_ops *ops, struct machine *machine)
{
    control->ops = ops;
    control->machine = machine;
    control_send_state(control, VMM_MESSAGE_READY, 0);
}
