/* vmm_control.c - an agent's part towards a VMM that tests/tools/run_vmm.c started: takes over its
 * control socket, does what its arguments say, one after the other, and lets go of it.
 *
 *   vmm_control DIRECTORY WORD...      the directory that run_vmm prints
 *
 *   pause  resume  power  ping         sleep:MS
 *   snapshots:N                        so many, thrown away: the guest is held, and goes on some ms
 *   input:TEXT                         to the console
 *   balloon:MIB  memory:MIB            what the guest is to give, or may plug
 *   disk:PLACE:FILE  direct:PLACE:FILE  delta:PLACE:BASE:FILE (which is made)
 *   tap:PLACE:NAME  vhost:PLACE:NAME   the second is to be served by the host's kernel
 *   detach:disk:PLACE  detach:nic:PLACE    waits until the guest has let it go
 *   accept                             waits for the guest's connection, sends back what comes
 *   connect:PORT                       to the guest: sends some bytes, half-closes, wants them back
 *
 * Exit status: 0 if all of it was answered as it should. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "base/seqpacket.h"
#include "storage/delta_file.h"
#include "vmm/control_protocol.h"

#define WAIT_MS  20000
#define BASE_UID "01234567-89ab-4cde-8f01-23456789abcd"
#define ECHO     "there and back"

/* Any message of the VMM's. */
union answer {
    struct vmm_message_header header;
    struct vmm_state state;
    struct vmm_device device;
    struct vmm_vsock vsock;
};

static int control; /* the connection */

static _Noreturn void give_up(const char *what)
{
    fprintf(stderr, "vmm_control: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

static void need(bool good, const char *what)
{
    if (!good)
        give_up(what);
}

static void tell(uint32_t type, void *message, size_t size, const int *fds, size_t fd_count)
{
    *(struct vmm_message_header *)message =
        (struct vmm_message_header){ type, VMM_PROTOCOL_VERSION, (uint32_t)size, 0 };
    need(seqpacket_send(control, message, size, fds, fd_count, NULL) >= 0, "send");
}

/* The next message of that type; others are passed over. */
static union answer await(uint32_t type)
{
    struct pollfd ready = { .fd = control, .events = POLLIN };
    union answer answer = { 0 };

    do {
        need(poll(&ready, 1, WAIT_MS) > 0, "no answer");
        need(seqpacket_receive(control, &answer, sizeof answer, NULL, NULL, NULL) > 0, "receive");
    } while (answer.header.type != type);
    return answer;
}

static void tell_header(uint32_t type)
{
    struct vmm_message_header header;

    tell(type, &header, sizeof header, NULL, 0);
    if (type != VMM_MESSAGE_POWER_BUTTON)
        need(await(VMM_MESSAGE_STATE).state.result == 0, "state");
}

static int open_file(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0600);

    need(fd >= 0, path);
    return fd;
}

/* --- words; each gets what stands behind its colon --- */

static void do_pause(char *text)
{
    (void)text;
    tell_header(VMM_MESSAGE_PAUSE);
}

static void do_resume(char *text)
{
    (void)text;
    tell_header(VMM_MESSAGE_RESUME);
}

static void do_ping(char *text)
{
    (void)text;
    tell_header(VMM_MESSAGE_PING);
}

static void do_power(char *text)
{
    (void)text;
    tell_header(VMM_MESSAGE_POWER_BUTTON);
}

static void do_sleep(char *text)
{
    (void)poll(NULL, 0, atoi(text));
}

static void do_snapshots(char *text)
{
    for (int i = atoi(text); i > 0; i--) {
        struct vmm_message_header header;
        int fds[2] = { memfd_create("state", MFD_CLOEXEC), memfd_create("memory", MFD_CLOEXEC) };

        tell_header(VMM_MESSAGE_PAUSE);
        tell(VMM_MESSAGE_SNAPSHOT, &header, sizeof header, fds, 2);
        need(await(VMM_MESSAGE_SNAPSHOT_DONE).state.result == 0, "snapshot");
        tell_header(VMM_MESSAGE_RESUME);
        close(fds[0]);
        close(fds[1]);
        (void)poll(NULL, 0, i % 4);
    }
}

static void do_input(char *text)
{
    struct vmm_console_input input = { .count = (uint32_t)strlen(text) + 1 };

    snprintf((char *)input.bytes, sizeof input.bytes, "%s\n", text);
    tell(VMM_MESSAGE_CONSOLE_INPUT, &input, sizeof input, NULL, 0);
    need(await(VMM_MESSAGE_INPUT_TAKEN).state.result == 0, "input");
}

static void do_balloon(char *text)
{
    struct vmm_balloon_change change = { .balloon = { .target_mib = (uint32_t)atoi(text) } };

    tell(VMM_MESSAGE_BALLOON, &change, sizeof change, NULL, 0);
}

static void do_memory(char *text)
{
    struct vmm_memory_change change = { .requested_bytes = strtoull(text, NULL, 10) << 20 };

    tell(VMM_MESSAGE_MEMORY, &change, sizeof change, NULL, 0);
}

static void attach_disk(const char *place, const int *fds, size_t fd_count, uint64_t bytes)
{
    struct vmm_attach attach = { .kind = VMM_DEVICE_DISK,
                                 .disk = { .place = (uint8_t)atoi(place),
                                           .queues = 1,
                                           .format = fd_count > 1 ? VMM_DISK_DELTA : VMM_DISK_RAW,
                                           .size_bytes = bytes } };

    tell(VMM_MESSAGE_ATTACH, &attach, sizeof attach, fds, fd_count);
    need(await(VMM_MESSAGE_DEVICE).device.result == 0, "attach a disk");
}

static uint64_t size_of(int fd)
{
    struct stat status = { 0 };

    need(fstat(fd, &status) == 0, "size of a disk");
    return (uint64_t)status.st_size;
}

static void attach_raw(char *text, int flags)
{
    const char *place = strsep(&text, ":");
    auto_close int fd = open_file(text, O_RDWR | flags);

    attach_disk(place, &fd, 1, size_of(fd));
}

static void do_disk(char *text)
{
    attach_raw(text, 0);
}

static void do_direct(char *text)
{
    attach_raw(text, O_DIRECT);
}

static void do_delta(char *text)
{
    const char *place = strsep(&text, ":"), *base = strsep(&text, ":");
    int fds[2] = { open_file(base, O_RDONLY), open_file(text, O_RDWR | O_CREAT | O_TRUNC) };
    uint64_t bytes = size_of(fds[0]);

    need(delta_file_init(fds[1], bytes, bytes, BASE_UID, NULL) == 0, "make a delta");
    attach_disk(place, fds, 2, bytes);
    close(fds[0]);
    close(fds[1]);
}

static void attach_nic(char *text, bool vhost)
{
    const char *place = strsep(&text, ":");
    int fds[2] = { open_file("/dev/net/tun", O_RDWR | O_NONBLOCK),
                   vhost ? open_file("/dev/vhost-net", O_RDWR) : -1 };
    struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
    struct vmm_attach attach = { .kind = VMM_DEVICE_NIC,
                                 .nic = { .mac = { 2, 0, 0, 0, 1, 1 },
                                          .queues = 1,
                                          .place = (uint8_t)atoi(place),
                                          .vhost = vhost } };
    int header_bytes = 12;

    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", text);
    need(ioctl(fds[0], TUNSETIFF, &request) == 0 &&
             ioctl(fds[0], TUNSETVNETHDRSZ, &header_bytes) == 0,
         "tap");
    tell(VMM_MESSAGE_ATTACH, &attach, sizeof attach, fds, vhost ? 2 : 1);
    need(await(VMM_MESSAGE_DEVICE).device.result == 0, "attach a nic");
    close(fds[0]);
    cleanup_close(&fds[1]);
}

static void do_tap(char *text)
{
    attach_nic(text, false);
}

static void do_vhost(char *text)
{
    attach_nic(text, true);
}

static void do_detach(char *text)
{
    const char *kind = strsep(&text, ":");
    struct vmm_device device = { .kind =
                                     strcmp(kind, "nic") == 0 ? VMM_DEVICE_NIC : VMM_DEVICE_DISK,
                                 .place = (uint8_t)atoi(text) };

    tell(VMM_MESSAGE_DETACH, &device, sizeof device, NULL, 0);
    need(await(VMM_MESSAGE_DEVICE).device.result == 0, "detach");
    need(await(VMM_MESSAGE_DEVICE).device.state == VMM_DEVICE_ABSENT, "the guest lets go");
}

static int pair_with(int *ret_theirs)
{
    int pair[2];

    need(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0, "socket pair");
    *ret_theirs = pair[1];
    return pair[0];
}

static void do_accept(char *text)
{
    struct vmm_vsock request = await(VMM_MESSAGE_VSOCK_REQUEST).vsock;
    auto_close int theirs = -1, ours = pair_with(&theirs);
    char bytes[256];
    ssize_t size;

    (void)text;
    tell(VMM_MESSAGE_VSOCK_ANSWER, &request, sizeof request, &theirs, 1);
    cleanup_close(&theirs);
    while ((size = read(ours, bytes, sizeof bytes)) > 0)
        need(write(ours, bytes, (size_t)size) == size, "write to the guest");
}

static void do_connect(char *text)
{
    struct vmm_vsock request = { .id = 1, .port = (uint32_t)atoi(text) };
    auto_close int theirs = -1, ours = pair_with(&theirs);
    char bytes[sizeof ECHO] = "";
    size_t got = 0;
    ssize_t size;

    tell(VMM_MESSAGE_VSOCK_CONNECT, &request, sizeof request, &theirs, 1);
    cleanup_close(&theirs);
    need(await(VMM_MESSAGE_VSOCK_CONNECTED).vsock.result == 0, "connect to the guest");
    need(write(ours, ECHO, sizeof ECHO) == sizeof ECHO, "write to the guest");
    need(shutdown(ours, SHUT_WR) == 0, "half-close");
    while (got < sizeof bytes && (size = read(ours, bytes + got, sizeof bytes - got)) > 0)
        got += (size_t)size;
    need(memcmp(bytes, ECHO, sizeof ECHO) == 0, "echo of the guest");
}

static const struct {
    const char *name;
    void (*act)(char *text);
} words[] = {
    { "pause", do_pause },     { "resume", do_resume },       { "ping", do_ping },
    { "power", do_power },     { "sleep", do_sleep },         { "input", do_input },
    { "balloon", do_balloon }, { "memory", do_memory },       { "disk", do_disk },
    { "direct", do_direct },   { "delta", do_delta },         { "tap", do_tap },
    { "detach", do_detach },   { "accept", do_accept },       { "connect", do_connect },
    { "vhost", do_vhost },     { "snapshots", do_snapshots },
};

static void do_word(char *text)
{
    const char *name = strsep(&text, ":");

    for (size_t i = 0; i < ARRAY_LENGTH(words); i++) {
        if (strcmp(words[i].name, name) == 0) {
            words[i].act(text);
            return;
        }
    }
    errno = EINVAL;
    give_up(name);
}

int main(int argc, char **argv)
{
    struct error err = { 0 };
    int directory;

    if (argc < 2) {
        fputs("usage: vmm_control DIRECTORY WORD...\n", stderr);
        return EXIT_FAILURE;
    }
    directory = open_file(argv[1], O_RDONLY | O_DIRECTORY);
    control = seqpacket_connect(directory, "control", &err);
    need(control >= 0, "connect");
    for (int i = 2; i < argc; i++)
        do_word(argv[i]);
    return EXIT_SUCCESS;
}
