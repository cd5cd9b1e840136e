/* Connections of guests' vsocks.  Nothing is kept of one that is open: its socket is the VMM's, and
 * at the other end a service's, or warren-api's on behalf of a client.
 *
 * Connecting to a unix socket does not wait: it has a place in its backlog, or the guest is
 * refused.
 */
#include "agent/vm_vsock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/node_internal.h"
#include "agent/vmm_client.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/path.h"

#define REQUESTS_MAX       16    /* of a VM, that its guest has not answered */
#define REQUEST_TIMEOUT_MS 10000 /* for the guest to answer */

/* --- from the guest --- */

/* Then it may be somewhere else, and would be refused to the guest, of which nobody is told. */
static bool climbs(const char *path)
{
    for (const char *up = strstr(path, "/.."); up; up = strstr(up + 1, "/.."))
        if (up[3] == '/' || up[3] == '\0')
            return true;
    return false;
}

int vm_vsock_check(const struct config *config, const struct vm_vsock_spec *vsock,
                   struct error *err)
{
    for (unsigned i = 0; i < vsock->port_count; i++) {
        bool allowed = false;
        char field[40];

        for (unsigned d = 0; d < config->vsock_dirs.count; d++)
            allowed |= path_below(vsock->ports[i].socket, config->vsock_dirs.paths[d]) != NULL;
        snprintf(field, sizeof field, "vsock.ports[%u].socket", i);
        if (climbs(vsock->ports[i].socket))
            return error_field(err, EINVAL, field, "%s: must be a path without \"..\"", field);
        if (!allowed)
            return error_field(err, EINVAL, field,
                               "%s: is not below a directory that the node has for it (vsock-dir)",
                               field);
    }
    return 0;
}

/* Owned fd, else -errno. */
static int connect_to(const struct config *config, const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    auto_close int fd = -1, name = -EACCES;
    struct stat status;

    for (unsigned i = 0; i < config->vsock_dirs.count && name < 0; i++) {
        const char *below = path_below(path, config->vsock_dirs.paths[i]);

        if (below)
            name = path_open_below(config->vsock_dirs.paths[i], below,
                                   O_PATH | O_NOFOLLOW | O_CLOEXEC);
    }
    if (name < 0)
        return name;
    if (fstat(name, &status) < 0 || !S_ISSOCK(status.st_mode))
        return -ENOTSOCK;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d", name);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return -errno;
    return take_fd(&fd);
}

/* A port that the spec does not name is refused like one that nobody listens on. */
static void answer_guest(const struct node *node, struct vm *vm, const struct vmm_vsock *message)
{
    const struct vm_vsock_spec *vsock = &vm->spec.vsock;
    auto_close int fd = -1;
    struct error err = { 0 };

    for (unsigned i = 0; i < vsock->port_count && fd < 0; i++) {
        if (vsock->ports[i].port != message->port)
            continue;
        fd = connect_to(node->config, vsock->ports[i].socket);
        if (fd < 0)
            log_debug(node->log, "vm %s: vsock port %" PRIu32 ": %s: %s", vm->head.id,
                      message->port, vsock->ports[i].socket, strerror(-fd));
    }
    /* One that asks on and on, and reads nothing, must not fill the log. */
    if (vmm_client_vsock(vm->client, VMM_MESSAGE_VSOCK_ANSWER, message->id, 0, fd, &err) < 0)
        log_debug(node->log, "vm %s: vsock: %s", vm->head.id, err.message);
}

/* --- to the guest --- */

struct vsock_request {
    struct vsock_request *next;
    struct vm *vm; /* borrowed */
    uint32_t id, port;
    int fd; /* owned; our end */
    node_vsock_fn *done;
    void *context;
    struct loop_timer *timer;
};

/* The end of it; closing the fd makes the VMM give up, too. */
static void finish(struct vsock_request *request, int result, const char *why)
{
    struct vsock_request **link = &request->vm->vsocks;
    int fd = take_fd(&request->fd);
    struct error err = { 0 };

    while (*link && *link != request)
        link = &(*link)->next;
    if (*link)
        *link = request->next;
    loop_cancel(request->timer);
    if (result < 0) {
        cleanup_close(&fd);
        fd = error_set(&err, result, "vm %s, vsock port %" PRIu32 ": %s", request->vm->head.id,
                       request->port, why);
    }
    request->done(request->context, fd, &err);
    free(request);
}

static void on_timeout(void *context)
{
    struct vsock_request *request = context;

    request->timer = NULL;
    finish(request, -ETIMEDOUT, "the guest has not answered");
}

static void take_answer(struct vm *vm, const struct vmm_vsock *message)
{
    struct vsock_request *request = vm->vsocks;

    while (request && request->id != message->id)
        request = request->next;
    if (!request) /* of one that was given up, or of none */
        return;
    switch (message->result) {
    case 0:
        finish(request, 0, "");
        break;
    case -EAGAIN:
        finish(request, -EAGAIN, "it has too many connections");
        break;
    case -ENOTCONN:
        finish(request, -ECONNREFUSED, "the guest has no driver for it");
        break;
    default:
        finish(request, -ECONNREFUSED, "the guest refuses the connection");
        break;
    }
}

void vm_vsock_message(struct node *node, struct vm *vm, const struct vmm_vsock *message)
{
    if (message->header.type == VMM_MESSAGE_VSOCK_REQUEST)
        answer_guest(node, vm, message);
    else
        take_answer(vm, message);
}

void vm_vsock_forget(struct vm *vm)
{
    while (vm->vsocks)
        finish(vm->vsocks, -EAGAIN, "the VM ended, or its process went away");
}

/* Takes the pair of sockets. */
static int ask_guest(struct node *node, struct vm *vm, struct vsock_request *request, int theirs,
                     struct error *err)
{
    auto_close int owned = theirs;

    request->timer = loop_after(node->loop, REQUEST_TIMEOUT_MS, on_timeout, request);
    if (!request->timer)
        return error_no_memory(err);
    if (vmm_client_vsock(vm->client, VMM_MESSAGE_VSOCK_CONNECT, request->id, request->port, owned,
                         err) < 0)
        return error_set(err, EAGAIN, "the VM's process does not take anything now");
    return 0;
}

static int check_vm(const struct vm *vm, struct error *err)
{
    unsigned waiting = 0;

    if (!vm->spec.vsock.cid)
        return error_set(err, EBUSY, "vm %s has no vsock: its spec has none", vm->head.id);
    if (vm->state != VM_RUNNING)
        return error_set(err, EBUSY, "vm %s is %s: only running ones can be connected to",
                         vm->head.id, vm_state_name(vm->state));
    for (const struct vsock_request *other = vm->vsocks; other; other = other->next)
        waiting++;
    if (!vm->client || waiting >= REQUESTS_MAX)
        return error_set(err, EAGAIN, "the VM does not answer");
    return 0;
}

static int submit(struct node *node, struct vm *vm, uint32_t port, node_vsock_fn *done,
                  void *context, struct error *err)
{
    struct vsock_request *request;
    int pair[2];
    int result = check_vm(vm, err);

    if (result < 0)
        return result;
    request = calloc(1, sizeof *request);
    if (!request)
        return error_no_memory(err);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
        free(request);
        return error_set(err, errno, "make a stream");
    }
    *request = (struct vsock_request){
        .vm = vm,
        .id = ++vm->vsock_id,
        .port = port,
        .fd = pair[0],
        .done = done,
        .context = context,
    };
    result = ask_guest(node, vm, request, pair[1], err);
    if (result < 0) {
        loop_cancel(request->timer);
        close(request->fd);
        free(request);
        return result;
    }
    request->next = vm->vsocks;
    vm->vsocks = request;
    return 0;
}

void node_vsock_connect(struct node *node, const char *id, uint32_t port, node_vsock_fn *done,
                        void *context)
{
    struct vm *vm = node_find_vm(node, id);
    struct error err = { 0 };
    int result = vm ? submit(node, vm, port, done, context, &err)
                    : error_set(&err, ENOENT, "there is no vm %s", id);

    if (result < 0)
        done(context, result, &err);
}
