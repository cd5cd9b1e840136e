/* control.h - the VMM's side of control_protocol.h: one listener, one connection at a time, root's
 * only.  Main thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "vmm/control_protocol.h"

struct control; /* opaque; see control.c */
struct error;
struct log;
struct loop;
struct machine; /* whose ops are called; machine.c */
struct snapshot_files;

/* stop_fd: once it is readable the guest's power button is pressed, once and for all: by
 * whoever ends the host, or the VMMs' unit.  A paused guest goes on for that if there is no agent;
 * else it hears it when it is resumed.  It, listener_fd, loop and log are borrowed. */
int control_new(struct loop *loop, int listener_fd, int stop_fd, const struct log *log,
                struct control **ret_control, struct error *err);
struct control *control_free(struct control *control);

/* Runs the loop until a CONFIGURE of the right size has come.  Its fields are not yet validated.
 * ret_fds (room for CONFIG_FDS_MAX): owned.  -ETIMEDOUT after timeout_ms: the agent died between
 * starting us and telling us, and nobody else knows that we are here.  -ECONNRESET: it left, or
 * stop_fd is readable. */
int control_wait_configure(struct control *control, int timeout_ms,
                           struct vmm_configure *ret_configure, int *ret_fds, size_t *ret_fd_count,
                           struct error *err);

/* What is done about messages; main thread. */
struct control_ops {
    void (*press_power_button)(struct machine *machine, bool by_signal); /* else by the agent */
    void (*pause)(struct machine *machine); /* returns when the vCPUs are held */
    void (*resume)(struct machine *machine);
    /* Only while paused.  All are the caller's, but base_fd (-1 = none) is taken over if it
     * succeeds. */
    int (*snapshot)(struct machine *machine, const struct snapshot_files *files, int base_fd,
                    struct error *err);
    /* fds: as the message says; ret_layers: borrowed.  If it succeeds `part` is called next, once
     * the answer is out. */
    int (*fork)(struct machine *machine, const int fds[3], int ret_layers[VMM_LAYERS_MAX],
                size_t *ret_count, struct error *err);
    void (*part)(struct machine *machine);
    /* All of the bytes (1 to VMM_INPUT_MAX), or false and none; not while paused. */
    bool (*console_input)(struct machine *machine, const void *bytes, size_t size);
    void (*change_balloon)(struct machine *machine, const struct vmm_balloon *balloon); /* valid */
    /* Takes fd; -1 = none came.  Also while paused. */
    void (*vsock)(struct machine *machine, const struct vmm_vsock *message, int fd);
    /* No answer will come to what was sent, nor be sent. */
    void (*disconnected)(struct machine *machine);
    void (*change_memory)(struct machine *machine, uint64_t requested_bytes); /* valid */
    /* Valid; so many fds as config.h says, taken over if it succeeds.  Also while paused. */
    int (*attach)(struct machine *machine, const struct vmm_attach *attach, const int *fds,
                  struct error *err);
    void (*change)(struct machine *machine, const struct vmm_attach *change); /* valid */
    /* ask: the guest; else only says whether it is there. */
    int (*detach)(struct machine *machine, enum vmm_device_kind kind, unsigned place, bool ask,
                  struct error *err);
    /* As devices.h says. */
    int (*mark_writes)(struct machine *machine, int fd, const uint8_t shifts[VMM_DISKS_MAX],
                       struct error *err);
};

/* At once, or false: there is no agent, or it does not read. */
bool control_send_vsock(struct control *control, const struct vmm_vsock *message);
/* An agent that does not read is disconnected; but not for FULL, which is told under a lock, and
 * stands in the page as well. */
void control_send_device(struct control *control, enum vmm_device_kind kind, unsigned place,
                         enum vmm_device_state state, int result);

/* The configuration that came was valid, and the guest runs: sends READY, and from now on answers
 * PING by its id and calls ops.  While the guest is paused, no other source of the loop is served.
 * Both are borrowed. */
void control_ready(struct control *control, const struct control_ops *ops, struct machine *machine);
