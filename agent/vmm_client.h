/* vmm_client.h - the agent's end of one VM's control socket (vmm/control_protocol.h).  Loop thread.
 *
 * What a VMM sends is untrusted: a message of another size or type, or one more than it owes (one
 * READY, one answer for each question, one device that is gone for each that was asked to go), ends
 * the connection; and of those about vsock and full disks, which come unasked, so many are read in
 * a time.  So none can keep the loop busy; nor can what comes with a message, for what it may not
 * send is not taken out of the socket, and that is closed elsewhere. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "vmm/control_protocol.h"

struct error;
struct loop;
struct vmm_client;
struct worker;

struct vmm_client_ops {
    void (*ready)(void *context); /* its vCPUs run */
    /* The answer to a ping, and to pause and resume. */
    void (*state)(void *context, bool running, bool paused);
    void (*input)(void *context, bool taken); /* the answer to console input, in order */
    /* The answer to the last snapshot that was asked for: 0 or -errno. */
    void (*snapshot)(void *context, int result, int *fds, size_t fd_count);
    void (*marking)(void *context, int result); /* the answer to the last mark_writes */
    void (*vsock)(void *context, const struct vmm_vsock *message); /* REQUEST or CONNECTED */
    void (*full)(void *context, unsigned place); /* requests of that disk wait for space */
    /* The answer to attach, detach and look; or the guest has let it go. */
    void (*device)(void *context, enum vmm_device_kind kind, unsigned place, bool present,
                   int result);
    /* No more will come; free the client.  forbidden: not its end, but what it sent. */
    void (*closed)(void *context, bool forbidden);
};

/* Takes control_fd over in every case.  closer: whose thread closes files; NULL = the loop's. */
int vmm_client_new(struct loop *loop, struct worker *closer, int control_fd,
                   const struct vmm_client_ops *ops, void *context, struct vmm_client **ret_client,
                   struct error *err);
struct vmm_client *vmm_client_free(struct vmm_client *client); /* accepts NULL */

/* Has the VMM said which version of the protocol it speaks? */
bool vmm_client_is_known(const struct vmm_client *client);
/* For how long it owes an answer to a ping, pause or resume; 0 = it owes none. */
int64_t vmm_client_owes_ms(const struct vmm_client *client);
/* fds in the order of the protocol, borrowed. */
int vmm_client_configure(struct vmm_client *client, const struct vmm_configure *configure,
                         const int *fds, size_t fd_count, struct error *err);
int vmm_client_power_button(struct vmm_client *client, struct error *err);
int vmm_client_pause(struct vmm_client *client, bool pause, struct error *err);
/* While it is paused.  Answered as a snapshot is, with the files that its memory consists of; see
 * control_protocol.h. */
int vmm_client_fork(struct vmm_client *client, const int fds[3], struct error *err);
/* The same.  fds: in the order of SAVE, borrowed; the first two empty, the memory file of the RAM's
 * size; the fourth, the same file for reading, of which the memory is to be changes from then on,
 * is -1 or that. */
int vmm_client_snapshot(struct vmm_client *client, const int fds[4], struct error *err);
/* size: 1 to VMM_INPUT_MAX.  -EAGAIN if the VMM's socket is full. */
int vmm_client_console_input(struct vmm_client *client, const void *bytes, size_t size,
                             struct error *err);
/* Valid: below its memory. */
int vmm_client_balloon(struct vmm_client *client, const struct vmm_balloon *balloon,
                       struct error *err);
/* type: CONNECT or ANSWER; fd is borrowed, -1 = none. */
int vmm_client_vsock(struct vmm_client *client, enum vmm_message_type type, uint32_t id,
                     uint32_t port, int fd, struct error *err);
/* Valid: whole blocks, of what can be plugged. */
int vmm_client_memory(struct vmm_client *client, uint64_t requested_bytes, struct error *err);
/* Of both, `device` needs no header.  Valid, but only place, size and rate limits count.
 * -EOPNOTSUPP for a VMM that is too old, or is not known yet: after `ready` or `state` it is time
 * to tell it. */
int vmm_client_change(struct vmm_client *client, const struct vmm_attach *device,
                      struct error *err);
/* fds as CONFIGURE has for one, borrowed.  One question at a time about what is at a place. */
int vmm_client_attach(struct vmm_client *client, const struct vmm_attach *device, const int *fds,
                      size_t fd_count, struct error *err);
/* ask: that the guest lets it go; else only whether it is there. */
int vmm_client_detach(struct vmm_client *client, enum vmm_device_kind kind, unsigned place,
                      bool ask, struct error *err);
/* fd and shifts as control_protocol.h says, borrowed; fd -1 = no more.  -EOPNOTSUPP as above. */
int vmm_client_mark_writes(struct vmm_client *client, int fd, const uint8_t shifts[VMM_DISKS_MAX],
                           struct error *err);
int vmm_client_ping(struct vmm_client *client, struct error *err);
