/* rogue_vmm.c - stands in for warren-vmm in tests/integration/agent: takes its configuration as
 * that does, says that it runs, and then does what its VM's command line names, without any filter:
 *
 *   flood-ready, flood-state    messages without end; exits with 7 when the connection is closed
 *   flood-vsock                 the same, of its guest's wish to connect; reads no answer
 *   garbage                     messages of no known kind or size, the same
 *   fds                         messages with fds, the same
 *   babbles                     one such message, then waits
 *   writes                      writes to its log and its page file as much as it can, then waits
 *   logs                        writes only to its log, 64 MiB if they are taken, then waits
 *   lies                        fills its page with nonsense, then exits with 9
 *   unready                     does not even say that it runs
 *   deaf                        waits, and does nothing that it is asked for
 *   mute                        pauses and goes on, and says nothing to all else
 *   late                        the same, but answers what it owes when it is to go on
 *   strays                      does all that it is asked for, with files that are not the agent's
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#include "vmm/control_protocol.h"

#define CLOSED_STATUS 7
#define LIES_STATUS   9

static int receive(int connection, struct vmm_configure *ret_configure, int *ret_page)
{
    char control[CMSG_SPACE(64 * sizeof(int))];
    struct iovec part = { .iov_base = ret_configure, .iov_len = sizeof *ret_configure };
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control
    };
    const struct cmsghdr *fds;
    int first[2];

    if (recvmsg(connection, &message, 0) != sizeof *ret_configure)
        return -1;
    fds = CMSG_FIRSTHDR(&message);
    if (!fds || fds->cmsg_len < CMSG_LEN(sizeof first))
        return -1;
    memcpy(first, CMSG_DATA(fds), sizeof first); /* kvm, page */
    *ret_page = first[1];
    return 0;
}

/* Until the other end has had enough. */
static void flood(int connection, const void *bytes, size_t size)
{
    while (send(connection, bytes, size, MSG_NOSIGNAL) >= 0)
        ;
    _exit(CLOSED_STATUS);
}

static void flood_fds(int connection, const void *bytes, size_t size)
{
    char control[CMSG_SPACE(8 * sizeof(int))] = { 0 };
    struct iovec part = { .iov_base = (void *)bytes, .iov_len = size };
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control
    };
    struct cmsghdr *fds = CMSG_FIRSTHDR(&message);
    const int some[8] = { 2, 2, 2, 2, 2, 2, 2, 2 };

    fds->cmsg_level = SOL_SOCKET;
    fds->cmsg_type = SCM_RIGHTS;
    fds->cmsg_len = CMSG_LEN(sizeof some);
    memcpy(CMSG_DATA(fds), some, sizeof some);
    while (sendmsg(connection, &message, MSG_NOSIGNAL) >= 0)
        ;
    _exit(CLOSED_STATUS);
}

static void write_all(int page)
{
    static char block[1 << 16];

    memset(block, 'x', sizeof block);
    for (int i = 0; i < 4096; i++) { /* 256 MiB each, if they were taken */
        if (write(VMM_LOG_FD, block, sizeof block) < 0 &&
            pwrite(page, block, sizeof block, (off_t)i * (off_t)sizeof block) < 0)
            continue;
    }
    if (ftruncate(page, 1 << 30) == 0)
        _exit(1);
}

static void write_log(void)
{
    static char block[1 << 16];

    memset(block, 'x', sizeof block);
    for (int i = 0; i < 1024; i++)
        (void)!write(VMM_LOG_FD, block, sizeof block);
}

static void lie(int page)
{
    char *bytes = mmap(NULL, VMM_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, page, 0);
    struct stats_page *stats = (struct stats_page *)bytes;

    if (bytes == MAP_FAILED)
        _exit(1);
    memset(bytes, 0xff, VMM_PAGE_BYTES);
    stats->magic = STATS_PAGE_MAGIC;
    stats->exit_reason = EXIT_REASON_PANIC;
    _exit(LIES_STATUS);
}

static void answer(int connection, struct vmm_state *state, uint32_t type, const int *fds,
                   size_t count)
{
    char control[CMSG_SPACE(8 * sizeof(int))] = { 0 };
    struct iovec part = { .iov_base = state, .iov_len = sizeof *state };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

    if (count > 0) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(count * sizeof *fds);
        CMSG_FIRSTHDR(&message)->cmsg_level = SOL_SOCKET;
        CMSG_FIRSTHDR(&message)->cmsg_type = SCM_RIGHTS;
        CMSG_FIRSTHDR(&message)->cmsg_len = CMSG_LEN(count * sizeof *fds);
        memcpy(CMSG_DATA(CMSG_FIRSTHDR(&message)), fds, count * sizeof *fds);
    }
    state->header.type = type;
    (void)sendmsg(connection, &message, MSG_NOSIGNAL);
}

/* late: what is owed is said before it goes on; strays: at once.  What comes with fds loses them.
 */
static void serve(int connection, struct vmm_state *state, bool late, bool strays)
{
    struct vmm_message_header header;
    unsigned owed = 0;
    int files[2];

    for (int i = 0; i < 2; i++) {
        files[i] = memfd_create("stray", MFD_CLOEXEC);
        if (files[i] < 0 || ftruncate(files[i], 8 << 20) < 0)
            _exit(1);
    }
    while (recv(connection, &header, sizeof header, 0) >= (ssize_t)sizeof header) {
        bool asked = header.type == VMM_MESSAGE_SAVE || header.type == VMM_MESSAGE_FORK;

        owed += asked;
        if (header.type == VMM_MESSAGE_PAUSE || header.type == VMM_MESSAGE_RESUME)
            state->paused = header.type == VMM_MESSAGE_PAUSE;
        for (; owed > 0 && (strays || (late && !asked && !state->paused)); owed--)
            answer(connection, state, VMM_MESSAGE_SNAPSHOT_DONE, files,
                   header.type == VMM_MESSAGE_FORK ? 2 : 0);
        if (header.type == VMM_MESSAGE_PAUSE || header.type == VMM_MESSAGE_RESUME ||
            header.type == VMM_MESSAGE_PING)
            answer(connection, state, VMM_MESSAGE_STATE, NULL, 0);
    }
}

int main(void)
{
    static struct vmm_configure configure;
    struct vmm_state state = {
        .header = { VMM_MESSAGE_READY, VMM_PROTOCOL_VERSION, sizeof state, 0 }, .running = 1
    };
    const struct vmm_vsock vsock = { .header = { VMM_MESSAGE_VSOCK_REQUEST, VMM_PROTOCOL_VERSION,
                                                 sizeof vsock, 0 } };
    int page = -1;
    int connection = accept(VMM_LISTENER_FD, NULL, NULL);

    if (connection < 0 || receive(connection, &configure, &page) < 0)
        return 1;
    while (strcmp(configure.cmdline, "unready") == 0)
        pause();
    if (send(connection, &state, sizeof state, MSG_NOSIGNAL) < 0)
        return 1;
    if (strcmp(configure.cmdline, "flood-ready") == 0)
        flood(connection, &state, sizeof state);
    state.header.type = VMM_MESSAGE_STATE;
    if (strcmp(configure.cmdline, "flood-state") == 0)
        flood(connection, &state, sizeof state);
    if (strcmp(configure.cmdline, "flood-vsock") == 0)
        flood(connection, &vsock, sizeof vsock);
    if (strcmp(configure.cmdline, "babbles") == 0)
        (void)!send(connection, &configure, sizeof configure, MSG_NOSIGNAL);
    if (strcmp(configure.cmdline, "garbage") == 0)
        flood(connection, &configure, sizeof configure);
    state.header.type = 12345;
    if (strcmp(configure.cmdline, "fds") == 0)
        flood_fds(connection, &state, sizeof state);
    if (strcmp(configure.cmdline, "writes") == 0)
        write_all(page);
    if (strcmp(configure.cmdline, "logs") == 0)
        write_log();
    if (strcmp(configure.cmdline, "lies") == 0)
        lie(page);
    if (strcmp(configure.cmdline, "mute") == 0 || strcmp(configure.cmdline, "late") == 0 ||
        strcmp(configure.cmdline, "strays") == 0)
        serve(connection, &state, configure.cmdline[0] == 'l', configure.cmdline[0] == 's');
    for (;;)
        pause();
}
