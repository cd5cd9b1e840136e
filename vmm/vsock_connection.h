/* vsock_connection.h - the connections of a guest's vsock (virtio_vsock.h) between packets and
 * sockets: their table, credit and ends.  No rings here.
 *
 * All with the device's lock held, on the loop's thread, but vsock_table_kill. */
#pragma once
#include <linux/virtio_vsock.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>
#include "base/loop.h"
#include "vmm/control_protocol.h"
#include "vmm/virtio_vsock.h"

#define VSOCK_HOST_CID 2
/* Each connection can add a reset beyond the number that stops the transmit queue. */
#define VSOCK_RESETS_HOLD 64
#define VSOCK_RESETS_MAX  (VSOCK_RESETS_HOLD + VIRTIO_VSOCK_CONNECTIONS)

#define VSOCK_PENDING(operation) (1u << (operation))
/* Flags of SHUTDOWN: who says so receives, or sends, no more. */
#define VSOCK_SHUTDOWN_BOTH (VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND)

enum vsock_state {
    VSOCK_FREE,
    VSOCK_ASKED,   /* by the guest; the agent has not answered */
    VSOCK_OFFERED, /* by the agent; the guest has not answered */
    VSOCK_OPEN,
    VSOCK_DRAINING, /* the guest has closed it and forgotten; what it sent is still written */
    VSOCK_DEAD,     /* the guest has reset the device */
};

struct vsock_connection {
    struct vsock_table *table; /* borrowed */
    enum vsock_state state;
    bool opened, awaited; /* counted as open; the agent waits for VSOCK_CONNECTED */
    uint32_t id, agent_id;
    uint32_t guest_port, host_port;
    int fd; /* owned; -1 = not yet, or no more */
    struct loop_source *source;
    /* Edge-triggered, so flow control needs no system call: readable until a read finds nothing. */
    bool readable, hung_up;
    uint8_t pending;               /* bits of operations that the guest is to be sent */
    uint8_t guest_shut, host_shut; /* VIRTIO_VSOCK_SHUTDOWN_... */
    uint32_t sent, guest_window, guest_taken;
    uint32_t received, forwarded, told; /* told: of forwarded, to the guest */
    uint8_t *kept;                      /* owned; VIRTIO_VSOCK_WINDOW bytes, or NULL */
    uint32_t kept_at, kept_bytes;
};

struct vsock_table {
    struct virtio_vsock_spec spec;
    struct loop *loop;     /* borrowed */
    loop_fd_fn *on_socket; /* with the connection: calls vsock_socket_ready */
    void *owner;
    uint32_t next_id;
    unsigned reset_count;
    struct virtio_vsock_hdr resets[VSOCK_RESETS_MAX]; /* for what has no connection, oldest first */
    struct vsock_connection connections[VIRTIO_VSOCK_CONNECTIONS];
};

/* One the guest may send to; NULL if there is none. */
struct vsock_connection *vsock_find(struct vsock_table *table, uint32_t guest_port,
                                    uint32_t host_port);
/* Answers a packet that is not as it should be; connection: its, freed, or NULL. */
void vsock_refuse(struct vsock_table *table, const struct virtio_vsock_hdr *header,
                  struct vsock_connection *connection);

/* The socket's events.  May free the connection. */
void vsock_socket_ready(struct vsock_connection *connection, uint32_t events);
/* How many bytes may be sent to the guest and may be there; its numbers may be anything. */
uint32_t vsock_may_send(const struct vsock_connection *connection);
/* Reads them; 0 if there was nothing: then `pending` tells of an end. */
uint32_t vsock_read(struct vsock_connection *connection, struct iovec *vectors, unsigned count);

/* Packets of the guest: all may free the connection. */
void vsock_request(struct vsock_table *table, const struct virtio_vsock_hdr *header);
void vsock_response(struct vsock_connection *connection);
void vsock_shutdown(struct vsock_connection *connection, uint32_t flags);
/* The vectors are the payload, in guest memory; false if the guest may not send it. */
bool vsock_write(struct vsock_connection *connection, struct iovec *vectors, unsigned count,
                 uint32_t length);

/* Messages of the agent; fd is taken.  connect: is_live = the guest has a driver. */
void vsock_connect(struct vsock_table *table, const struct vmm_vsock *message, int fd,
                   bool is_live);
void vsock_answer(struct vsock_table *table, const struct vmm_vsock *message, int fd);
void vsock_forget_agent(struct vsock_table *table);

/* Any thread: no connection has a guest any more.  True if one had until now: then free them soon.
 */
bool vsock_table_kill(struct vsock_table *table);
void vsock_table_free_dead(struct vsock_table *table);
