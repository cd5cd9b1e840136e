/* Consoles: their last output, followers, and input.
 *
 * A guest writes into its ring without telling anybody; so a follower is looked after every
 * FOLLOW_MS.  What it has not been sent waits in the ring, nowhere else: one that reads too slowly
 * finds a line that says how much it lost, and neither guest nor agent ever waits for it. */
#include "agent/node_console.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/console_cursor.h"
#include "agent/jail.h"
#include "agent/jail_files.h"
#include "agent/node_internal.h"
#include "agent/vmm_client.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/loop.h"

#define FOLLOW_MS          20
#define FOLLOW_PIECE       16384
#define FOLLOW_SOCKET      32768 /* bytes that may wait in one's socket; the kernel doubles it */
#define FOLLOWERS_MAX      256
#define FOLLOWERS_OF_A_VM  32
#define INPUTS_WAITING_MAX 16   /* of a VM */
#define INPUT_TIMEOUT_MS   5000 /* for the VMM to answer, which takes it no time */

int node_console(struct node *node, const char *id, size_t tail, char **ret_bytes, size_t *ret_size,
                 struct error *err)
{
    const struct vm *vm = node_find_vm(node, id);

    if (!vm)
        return error_set(err, ENOENT, "there is no vm %s", id);
    return jail_read_console(node->jail, vm->head.instance, tail, ret_bytes, ret_size, err);
}

/* --- following --- */

struct console_follower {
    struct console_follower *next;
    struct node *node;
    char id[ID_MAX + 1];
    char uid[UID_TEXT];
    uint32_t instance;
    int fd;      /* owned; our end of the stream */
    int page_fd; /* owned; -1 = the VM was never started */
    struct loop_source *hangup;
    struct console_cursor cursor;
};

static void follower_free(struct console_follower *follower)
{
    struct console_follower **link = &follower->node->followers;

    while (*link && *link != follower)
        link = &(*link)->next;
    if (*link)
        *link = follower->next;
    loop_remove(follower->hangup);
    cleanup_close(&follower->fd);
    cleanup_close(&follower->page_fd);
    free(follower);
}

/* Each start of a VM makes its page anew: what was in the old one was read before (catch_up).  The
 * page of a VM that is deleted is read to its end, though it has no name any more. */
static void open_page(struct console_follower *follower)
{
    struct stat status;
    int fd;

    if (follower->page_fd >= 0 && fstat(follower->page_fd, &status) == 0 && status.st_nlink > 0)
        return;
    fd = jail_open_page(follower->node->jail, follower->instance);
    if (fd < 0)
        return;
    cleanup_close(&follower->page_fd);
    follower->page_fd = fd;
}

/* False while there is no page, or one not yet begun. */
static bool read_place(struct console_follower *follower, uint64_t *ret_start_ns,
                       uint64_t *ret_total)
{
    struct stats_page page;

    open_page(follower);
    if (jail_read_open_page(follower->page_fd, &page) < 0)
        return false;
    *ret_start_ns = page.start_ns;
    *ret_total = page.console_bytes;
    return true;
}

/* 1 = all of it went, 0 = the socket is full, -1 = the client has left.  A stream socket may take a
 * part of a piece; *ret_sent tells. */
static int follower_send(const struct console_follower *follower, const void *bytes, size_t size,
                         size_t *ret_sent)
{
    ssize_t sent = send(follower->fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);

    *ret_sent = sent > 0 ? (size_t)sent : 0;
    if (sent < 0)
        return errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM ? 0 : -1;
    return (size_t)sent == size;
}

/* So short that the socket takes it whole or not at all. */
static int send_loss(struct console_follower *follower)
{
    char line[80];
    int size =
        snprintf(line, sizeof line, "\n[warren: %" PRIu64 " bytes of the console are lost]\n",
                 follower->cursor.lost);
    size_t sent;
    int result = follower_send(follower, line, (size_t)size, &sent);

    if (result > 0)
        follower->cursor.lost = 0;
    return result;
}

/* One piece, as follower_send; 0 also when nothing new is there. */
static int send_piece(struct console_follower *follower)
{
    struct console_cursor *cursor = &follower->cursor;
    char piece[FOLLOW_PIECE];
    uint64_t start_ns, total;
    size_t offset, sent;
    size_t size = console_cursor_piece(cursor, sizeof piece, &offset);
    int result;

    if (size == 0 ||
        pread(follower->page_fd, piece, size, (off_t)(CONSOLE_OFFSET + offset)) != (ssize_t)size)
        return 0;
    if (!read_place(follower, &start_ns, &total))
        return 0;
    console_cursor_see(cursor, start_ns, total);
    if (cursor->lost > 0) /* what was read has been overwritten since, or while, it was */
        return send_loss(follower);
    result = follower_send(follower, piece, size, &sent);
    cursor->next += sent;
    return result;
}

/* Sends what there is room for, at most a ring's worth.  False if the client has left. */
static bool follower_pump(struct console_follower *follower)
{
    uint64_t start_ns, total;
    int result = 1;

    if (!read_place(follower, &start_ns, &total))
        return true;
    console_cursor_see(&follower->cursor, start_ns, total);
    if (follower->cursor.lost > 0)
        result = send_loss(follower);
    for (int i = 0; result > 0 && i <= CONSOLE_RING_BYTES / FOLLOW_PIECE; i++)
        result = send_piece(follower);
    return result >= 0;
}

static bool follower_is_over(const struct console_follower *follower)
{
    const struct vm *vm = node_find_vm(follower->node, follower->id);

    return !vm || strcmp(vm->head.uid, follower->uid) != 0;
}

static void follow(void *context)
{
    struct node *node = context;
    struct console_follower *next;

    node->follow_timer = NULL;
    for (struct console_follower *follower = node->followers; follower; follower = next) {
        bool over = follower_is_over(follower); /* its page is still ours to read to the end */

        next = follower->next;
        if (!follower_pump(follower) || over)
            follower_free(follower);
    }
    if (!node->followers)
        return;
    node->follow_timer = loop_after(node->loop, FOLLOW_MS, follow, node);
    while (!node->follow_timer && node->followers)
        follower_free(node->followers); /* memory is short */
}

static void on_follower_left(void *context, uint32_t events)
{
    (void)events;
    follower_free(context);
}

static int check_room(const struct node *node, const struct vm *vm, struct error *err)
{
    unsigned all = 0, own = 0;

    if (node->waits_ended)
        return error_set(err, EAGAIN, "the agent is ending");
    for (const struct console_follower *other = node->followers; other; other = other->next) {
        all++;
        own += other->instance == vm->head.instance;
    }
    if (own >= FOLLOWERS_OF_A_VM)
        return error_set(err, EAGAIN, "the console of vm %s has %d followers, which is the most",
                         vm->head.id, FOLLOWERS_OF_A_VM);
    if (all >= FOLLOWERS_MAX)
        return error_set(err, EAGAIN, "consoles have %d followers, which is the most",
                         FOLLOWERS_MAX);
    return 0;
}

/* Takes both fds, in every case. */
static int follower_new(struct node *node, const struct vm *vm, int fd, int page_fd,
                        struct console_follower **ret_follower, struct error *err)
{
    struct console_follower *follower = calloc(1, sizeof *follower);
    int size = FOLLOW_SOCKET;
    int result;

    if (!follower) {
        close(fd);
        cleanup_close(&page_fd);
        return error_no_memory(err);
    }
    follower->node = node;
    follower->fd = fd;
    follower->page_fd = page_fd;
    follower->instance = vm->head.instance;
    memcpy(follower->id, vm->head.id, sizeof follower->id);
    memcpy(follower->uid, vm->head.uid, sizeof follower->uid);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    result =
        loop_add(node->loop, fd, EPOLLRDHUP, on_follower_left, follower, &follower->hangup, err);
    if (result == 0 && !node->follow_timer) {
        node->follow_timer = loop_after(node->loop, 0, follow, node);
        if (!node->follow_timer)
            result = error_no_memory(err);
    }
    if (result < 0)
        follower_free(follower);
    else
        *ret_follower = follower;
    return result;
}

int node_console_follow(struct node *node, const char *id, size_t tail, int *ret_fd,
                        struct error *err)
{
    const struct vm *vm = node_find_vm(node, id);
    struct console_follower *follower = NULL;
    uint64_t start_ns, total;
    int pair[2];
    int result;

    if (!vm)
        return error_set(err, ENOENT, "there is no vm %s", id);
    result = check_room(node, vm, err);
    if (result < 0)
        return result;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return error_set(err, errno, "make a stream");
    result = follower_new(node, vm, pair[0], jail_open_page(node->jail, vm->head.instance),
                          &follower, err);
    if (result < 0) {
        close(pair[1]);
        return result;
    }
    if (read_place(follower, &start_ns, &total))
        console_cursor_begin(&follower->cursor, start_ns, total, tail);
    follower->next = node->followers;
    node->followers = follower;
    *ret_fd = pair[1];
    return 0;
}

unsigned node_console_followers(const struct node *node)
{
    unsigned count = 0;

    for (const struct console_follower *other = node->followers; other; other = other->next)
        count++;
    return count;
}

void vm_console_catch_up(struct node *node, const struct vm *vm)
{
    struct console_follower *next;

    for (struct console_follower *follower = node->followers; follower; follower = next) {
        next = follower->next;
        if (follower->instance == vm->head.instance && !follower_pump(follower))
            follower_free(follower);
    }
}

void node_console_end(struct node *node)
{
    while (node->followers)
        follower_free(node->followers);
    node->follow_timer = loop_cancel(node->follow_timer);
}

/* --- input --- */

_Static_assert(NODE_INPUT_MAX == VMM_INPUT_MAX, "one message takes it");

struct console_input {
    struct console_input *next;
    node_done_fn *done; /* NULL = answered already, as too late */
    void *context;
    struct loop_timer *timer;
};

static void answer(struct console_input *input, int result, const char *why)
{
    node_done_fn *done = input->done;
    struct error err = { .code = -result };

    input->timer = loop_cancel(input->timer);
    input->done = NULL;
    snprintf(err.message, sizeof err.message, "%s", why);
    if (done)
        done(input->context, result, &err);
}

static void on_input_timeout(void *context)
{
    struct console_input *input = context;

    input->timer = NULL;
    answer(input, -EAGAIN, "the VM's process does not answer; the input may still be taken");
}

/* The oldest, out of the queue; NULL if there is none. */
static struct console_input *take_input(struct vm *vm)
{
    struct console_input *input = vm->inputs;

    if (input)
        vm->inputs = input->next;
    return input;
}

void vm_console_answered(struct vm *vm, bool taken)
{
    struct console_input *input = take_input(vm);

    if (!input)
        return; /* an answer to nothing: a VMM may say what it likes */
    answer(input, taken ? 0 : -EAGAIN,
           taken ? "" : "the guest has not yet read what it was sent before: nothing was taken");
    free(input);
}

void vm_console_forget(struct vm *vm)
{
    struct console_input *input;

    while ((input = take_input(vm))) {
        answer(input, -EAGAIN, "the VM ended, or its process went away, before it took the input");
        free(input);
    }
}

static int submit_input(struct node *node, struct vm *vm, const void *bytes, size_t size,
                        node_done_fn *done, void *context, struct error *err)
{
    struct console_input **link = &vm->inputs;
    struct console_input *input;
    int waiting = 0;
    int result;

    if (vm->state != VM_RUNNING)
        return error_set(err, EBUSY, "vm %s is %s: input goes to running ones", vm->head.id,
                         vm_state_name(vm->state));
    for (; *link; link = &(*link)->next)
        waiting++;
    if (!vm->client || waiting >= INPUTS_WAITING_MAX)
        return error_set(err, EAGAIN, "the VM's process does not answer");
    input = calloc(1, sizeof *input);
    if (!input)
        return error_no_memory(err);
    *input = (struct console_input){ .done = done, .context = context };
    input->timer = loop_after(node->loop, INPUT_TIMEOUT_MS, on_input_timeout, input);
    result = input->timer ? vmm_client_console_input(vm->client, bytes, size, err)
                          : error_no_memory(err);
    if (result < 0) {
        loop_cancel(input->timer);
        free(input);
        return error_set(err, EAGAIN, "the VM's process does not take anything now");
    }
    *link = input;
    return 0;
}

void node_console_input(struct node *node, const char *id, const void *bytes, size_t size,
                        node_done_fn *done, void *context)
{
    struct vm *vm = node_find_vm(node, id);
    struct error err = { 0 };
    int result = vm ? submit_input(node, vm, bytes, size, done, context, &err)
                    : error_set(&err, ENOENT, "there is no vm %s", id);

    if (result < 0)
        done(context, result, &err);
}
