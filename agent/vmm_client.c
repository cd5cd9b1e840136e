#include "agent/vmm_client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/vm_devices.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/loop.h"
#include "base/seqpacket.h"
#include "base/worker.h"

/* So many messages unasked, then nothing is read for so long: a guest that connects all the time
 * waits, and its VMM's answers with it. */
#define UNASKED_READ     64
#define UNASKED_PAUSE_MS 100

struct vmm_client {
    struct loop *loop;     /* borrowed */
    struct worker *closer; /* borrowed; may be NULL */
    int fd;
    struct loop_source *source;
    const struct vmm_client_ops *ops;
    void *context;
    uint32_t version; /* of the protocol, that both ends speak; 0 until the VMM has said its own */
    bool ready_told;  /* once per connection, no more */
    unsigned unasked; /* messages since the last pause */
    struct loop_timer *pause;
    unsigned states_owed; /* of pings, pauses and resumes without an answer yet */
    int64_t state_ms;     /* when the first of them was asked, or the one before it was answered */
    unsigned snapshots_owed;
    unsigned markings_owed;
    unsigned inputs_owed;
    /* By kind and place: an answer is owed; it was asked to go. */
    bool devices_owed[VMM_DEVICE_KIND_COUNT][VM_PLACES];
    bool devices_asked[VMM_DEVICE_KIND_COUNT][VM_PLACES];
};

static void read_on(void *context)
{
    struct vmm_client *client = context;

    client->pause = NULL;
    client->unasked = 0;
    (void)loop_change(client->source, EPOLLIN, NULL);
}

/* Without memory for a timer there is no pause. */
static void count_unasked(struct vmm_client *client)
{
    if (++client->unasked >= UNASKED_READ && !client->pause) {
        client->pause = loop_after(client->loop, UNASKED_PAUSE_MS, read_on, client);
        if (client->pause)
            (void)loop_change(client->source, 0, NULL);
    }
}

/* Of a disk, whose place is in range. */
static bool take_full(struct vmm_client *client, const struct vmm_device *device)
{
    count_unasked(client);
    client->ops->full(client->context, device->place);
    return true;
}

static unsigned places_of(unsigned kind)
{
    return kind == VMM_DEVICE_DISK ? VMM_DISKS_MAX : VMM_NICS_MAX;
}

/* The guest has let it go.  If it was just asked once more, the answer to that says so, too, and
 * comes later: only then its place is one that nothing more is said about.  If an earlier agent had
 * it asked, this one is still to ask. */
static void take_gone(struct vmm_client *client, const struct vmm_device *device)
{
    bool *asked = &client->devices_asked[device->kind][device->place];

    if (!*asked)
        count_unasked(client);
    else if (!client->devices_owed[device->kind][device->place])
        client->ops->device(client->context, (enum vmm_device_kind)device->kind, device->place,
                            /* present= */ false, 0);
    *asked = false;
}

static bool take_device(struct vmm_client *client, const struct vmm_device *device)
{
    bool present = device->state == VMM_DEVICE_PRESENT;

    if (device->kind >= VMM_DEVICE_KIND_COUNT || device->place >= places_of(device->kind))
        return false;
    if (device->state == VMM_DEVICE_FULL && device->kind == VMM_DEVICE_DISK)
        return take_full(client, device);
    if (device->state > VMM_DEVICE_PRESENT)
        return false;
    if (!present && device->result == 0) {
        take_gone(client, device);
        return true;
    }
    if (!client->devices_owed[device->kind][device->place])
        return false;
    client->devices_owed[device->kind][device->place] = false;
    if (!present)
        client->devices_asked[device->kind][device->place] = false;
    client->ops->device(client->context, (enum vmm_device_kind)device->kind, device->place, present,
                        device->result < 0 ? device->result : 0);
    return true;
}

static bool take_version(struct vmm_client *client, uint32_t version)
{
    client->version = version < VMM_PROTOCOL_VERSION ? version : VMM_PROTOCOL_VERSION;
    return version > 0;
}

/* False if it is none that a VMM may send. */
static bool take_message(struct vmm_client *client, const void *bytes, size_t size, int *fds,
                         size_t fd_count)
{
    const struct vmm_message_header *header = bytes;
    const struct vmm_state *state = bytes;

    if (size < sizeof *header || !take_version(client, header->version))
        return false;
    if (size == sizeof(struct vmm_vsock) && header->size == size &&
        (header->type == VMM_MESSAGE_VSOCK_REQUEST ||
         header->type == VMM_MESSAGE_VSOCK_CONNECTED)) {
        count_unasked(client);
        client->ops->vsock(client->context, bytes);
        return true;
    }
    if (size == sizeof(struct vmm_device) && header->size == size &&
        header->type == VMM_MESSAGE_DEVICE)
        return take_device(client, bytes);
    if (size != sizeof *state || state->header.size != size)
        return false;
    if (state->header.type == VMM_MESSAGE_READY && !client->ready_told) {
        client->ready_told = true;
        client->ops->ready(client->context);
        return true;
    }
    if (state->header.type == VMM_MESSAGE_STATE && client->states_owed > 0) {
        client->states_owed--;
        client->state_ms = loop_now_ms();
        client->ops->state(client->context, state->running != 0, state->paused != 0);
        return true;
    }
    if (state->header.type == VMM_MESSAGE_SNAPSHOT_DONE && client->snapshots_owed > 0) {
        if (--client->snapshots_owed == 0) /* else it is of one that was given up */
            client->ops->snapshot(client->context, state->result < 0 ? state->result : 0, fds,
                                  fd_count);
        return true;
    }
    if (state->header.type == VMM_MESSAGE_MARKING && client->markings_owed > 0) {
        if (--client->markings_owed == 0)
            client->ops->marking(client->context, state->result < 0 ? state->result : 0);
        return true;
    }
    if (state->header.type == VMM_MESSAGE_INPUT_TAKEN) {
        if (client->inputs_owed > 0)
            client->inputs_owed--;
        else
            count_unasked(client);
        client->ops->input(client->context, state->result == 0);
        return true;
    }
    return false;
}

/* Its files found no room here.  The question has an answer all the same, and the connection stays:
 * nobody else could let its VM go on. */
static ssize_t answer_without_files(struct vmm_state *message)
{
    if (message->header.type != VMM_MESSAGE_SNAPSHOT_DONE ||
        message->header.size != sizeof *message)
        return -EMFILE;
    message->result = -EMFILE;
    return sizeof *message;
}

/* Looks without taking, and without control data to put files into: is it of a size that there is,
 * and without files unless it is the answer that has some? */
static bool may_take(const struct vmm_client *client)
{
    struct vmm_message_header header = { 0 };
    struct iovec part = { .iov_base = &header, .iov_len = sizeof header };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
    ssize_t size = recvmsg(client->fd, &message, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);

    return size <= (ssize_t)sizeof(struct vmm_state) &&
           (!(message.msg_flags & MSG_CTRUNC) || header.type == VMM_MESSAGE_SNAPSHOT_DONE);
}

static void end(struct vmm_client *client, bool forbidden)
{
    client->source = loop_remove(client->source);
    client->pause = loop_cancel(client->pause);
    client->ops->closed(client->context, forbidden);
}

static void receive(void *context, uint32_t events)
{
    struct vmm_client *client = context;
    struct worker *closer = client->closer;
    struct vmm_state message = { 0 };
    int fds[SEQPACKET_FDS_MAX];
    size_t count = SEQPACKET_FDS_MAX; /* what has no room here would be closed on this thread */
    ssize_t got;

    (void)events;
    if (!may_take(client)) {
        end(client, /* forbidden= */ true);
        return;
    }
    got = seqpacket_receive(client->fd, &message, sizeof message, fds, &count, NULL);
    if (got == -EAGAIN)
        return;
    if (got == -EMFILE) {
        got = answer_without_files(&message);
        count = 0;
    }
    if (got <= 0 || count > VMM_LAYERS_MAX ||
        !take_message(client, &message, (size_t)got, fds, count))
        end(client, got > 0 || got == -EMSGSIZE);
    for (size_t i = 0; got >= 0 && i < count; i++)
        if (fds[i] >= 0) /* nobody took it */
            worker_close(closer, fds[i]);
}

int vmm_client_new(struct loop *loop, struct worker *closer, int control_fd,
                   const struct vmm_client_ops *ops, void *context, struct vmm_client **ret_client,
                   struct error *err)
{
    struct vmm_client *client = malloc(sizeof *client);
    int result;

    if (!client) {
        close(control_fd);
        return error_set(err, ENOMEM, "talk to a VMM");
    }
    *client = (struct vmm_client){
        .loop = loop, .closer = closer, .fd = control_fd, .ops = ops, .context = context
    };
    result = loop_add(loop, control_fd, EPOLLIN, receive, client, &client->source, err);
    if (result < 0) {
        vmm_client_free(client);
        return result;
    }
    *ret_client = client;
    return 0;
}

struct vmm_client *vmm_client_free(struct vmm_client *client)
{
    if (client) {
        loop_remove(client->source);
        loop_cancel(client->pause);
        (void)shutdown(client->fd, SHUT_RDWR); /* the VMM hears of it now */
        worker_close(client->closer, client->fd);
        free(client);
    }
    return NULL;
}

bool vmm_client_is_known(const struct vmm_client *client)
{
    return client->version > 0;
}

int64_t vmm_client_owes_ms(const struct vmm_client *client)
{
    return client->states_owed > 0 ? loop_now_ms() - client->state_ms : 0;
}

int vmm_client_configure(struct vmm_client *client, const struct vmm_configure *configure,
                         const int *fds, size_t fd_count, struct error *err)
{
    return seqpacket_send(client->fd, configure, sizeof *configure, fds, fd_count, err);
}

static int send_header(struct vmm_client *client, uint32_t type, const int *fds, size_t fd_count,
                       struct error *err)
{
    struct vmm_message_header header = vmm_header(type, sizeof header);

    return seqpacket_send(client->fd, &header, sizeof header, fds, fd_count, err);
}

static int ask_state(struct vmm_client *client, uint32_t type, struct error *err)
{
    int result = send_header(client, type, NULL, 0, err);

    if (result == 0 && client->states_owed++ == 0)
        client->state_ms = loop_now_ms();
    return result;
}

int vmm_client_power_button(struct vmm_client *client, struct error *err)
{
    return send_header(client, VMM_MESSAGE_POWER_BUTTON, NULL, 0, err);
}

int vmm_client_pause(struct vmm_client *client, bool pause, struct error *err)
{
    return ask_state(client, pause ? VMM_MESSAGE_PAUSE : VMM_MESSAGE_RESUME, err);
}

int vmm_client_snapshot(struct vmm_client *client, const int fds[4], struct error *err)
{
    const int without_pagemap[] = { fds[0], fds[1], fds[3] };
    bool saves = client->version >= VMM_PROTOCOL_SAVE, has_base = fds[3] >= 0;
    int result =
        saves ? send_header(client, VMM_MESSAGE_SAVE, fds, 3 + has_base, err)
              : send_header(client, VMM_MESSAGE_SNAPSHOT, without_pagemap, 2 + has_base, err);

    client->snapshots_owed += result == 0;
    return result;
}

int vmm_client_fork(struct vmm_client *client, const int fds[3], struct error *err)
{
    int result = send_header(client, VMM_MESSAGE_FORK, fds, 3, err);

    client->snapshots_owed += result == 0;
    return result;
}

int vmm_client_console_input(struct vmm_client *client, const void *bytes, size_t size,
                             struct error *err)
{
    struct vmm_console_input input = {
        .header = vmm_header(VMM_MESSAGE_CONSOLE_INPUT, sizeof input),
        .count = (uint32_t)size,
    };
    int result;

    if (size == 0 || size > sizeof input.bytes)
        return error_set(err, EINVAL, "console input of %zu bytes", size);
    memcpy(input.bytes, bytes, size);
    result = seqpacket_send(client->fd, &input, sizeof input, NULL, 0, err);
    client->inputs_owed += result == 0;
    return result;
}

int vmm_client_ping(struct vmm_client *client, struct error *err)
{
    return ask_state(client, VMM_MESSAGE_PING, err);
}

int vmm_client_balloon(struct vmm_client *client, const struct vmm_balloon *balloon,
                       struct error *err)
{
    struct vmm_balloon_change change = {
        .header = vmm_header(VMM_MESSAGE_BALLOON, sizeof change),
        .balloon = *balloon,
    };

    return seqpacket_send(client->fd, &change, sizeof change, NULL, 0, err);
}

int vmm_client_vsock(struct vmm_client *client, enum vmm_message_type type, uint32_t id,
                     uint32_t port, int fd, struct error *err)
{
    struct vmm_vsock message = {
        .header = vmm_header(type, sizeof message),
        .id = id,
        .port = port,
    };

    return seqpacket_send(client->fd, &message, sizeof message, &fd, fd >= 0, err);
}

int vmm_client_memory(struct vmm_client *client, uint64_t requested_bytes, struct error *err)
{
    struct vmm_memory_change change = {
        .header = vmm_header(VMM_MESSAGE_MEMORY, sizeof change),
        .requested_bytes = requested_bytes,
    };

    return seqpacket_send(client->fd, &change, sizeof change, NULL, 0, err);
}

/* Its VMM would end the connection over a type that it does not know. */
static int speaks(const struct vmm_client *client, uint32_t version, struct error *err)
{
    if (client->version < version)
        return error_set(err, EOPNOTSUPP,
                         "its VMM is older than this warrend: it has it when it is started anew");
    return 0;
}

int vmm_client_mark_writes(struct vmm_client *client, int fd, const uint8_t shifts[VMM_DISKS_MAX],
                           struct error *err)
{
    struct vmm_mark_writes message = { vmm_header(VMM_MESSAGE_MARK_WRITES, sizeof message), { 0 } };
    int result = speaks(client, VMM_PROTOCOL_MARKS, err);

    memcpy(message.shifts, shifts, sizeof message.shifts);
    if (result == 0)
        result = seqpacket_send(client->fd, &message, sizeof message, &fd, fd >= 0, err);
    client->markings_owed += result == 0;
    return result;
}

static int send_device(struct vmm_client *client, uint32_t type, const struct vmm_attach *device,
                       const int *fds, size_t fd_count, struct error *err)
{
    struct vmm_attach message = *device;
    int result = speaks(client, VMM_PROTOCOL_DEVICES, err);

    if (result < 0)
        return result;
    message.header = vmm_header(type, sizeof message);
    return seqpacket_send(client->fd, &message, sizeof message, fds, fd_count, err);
}

int vmm_client_change(struct vmm_client *client, const struct vmm_attach *device, struct error *err)
{
    return send_device(client, VMM_MESSAGE_CHANGE, device, NULL, 0, err);
}

int vmm_client_attach(struct vmm_client *client, const struct vmm_attach *device, const int *fds,
                      size_t fd_count, struct error *err)
{
    int result = send_device(client, VMM_MESSAGE_ATTACH, device, fds, fd_count, err);

    client->devices_owed[device->kind][vmm_attach_place(device)] |= result == 0;
    return result;
}

int vmm_client_detach(struct vmm_client *client, enum vmm_device_kind kind, unsigned place,
                      bool ask, struct error *err)
{
    struct vmm_device device = {
        .header = vmm_header(VMM_MESSAGE_DETACH, sizeof device),
        .kind = (uint8_t)kind,
        .place = (uint8_t)place,
        .state = ask ? VMM_DEVICE_ABSENT : VMM_DEVICE_PRESENT,
    };
    int result = speaks(client, VMM_PROTOCOL_DEVICES, err);

    if (result == 0)
        result = seqpacket_send(client->fd, &device, sizeof device, NULL, 0, err);
    client->devices_owed[kind][place] |= result == 0;
    client->devices_asked[kind][place] |= result == 0 && ask;
    return result;
}
