/* fuzz_vmm_control.c - what an agent sends to a VMM: messages of any bytes on a real socket, the
 * configuration's validation, and what follows once it is configured. */
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "tests/fuzz/fuzz.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/write_marks.h"
#include "vmm/config.h"
#include "vmm/control.h"
#include "vmm/snapshot.h"

#define MESSAGES_MAX 8

static const struct log quiet = { .fd = -1, .level = LOG_LEVEL_ERROR, .name = "fuzz" };

struct machine {
    struct loop *loop;
    struct control *control;
    int listener, stop_fd, peer, presses, pauses;
};

static void press(struct machine *f, bool by_signal)
{
    FUZZ_REQUIRE(!by_signal);
    f->presses++;
}

static void pause_machine(struct machine *f)
{
    FUZZ_REQUIRE(++f->pauses == 1);
}

static void resume_machine(struct machine *f)
{
    FUZZ_REQUIRE(--f->pauses == 0);
}

static int take_snapshot(struct machine *f, const struct snapshot_files *files, int base_fd,
                         struct error *err)
{
    (void)err;
    FUZZ_REQUIRE(f->pauses == 1 && files->state >= 0 && files->memory >= 0);
    cleanup_close(&base_fd);
    return 0;
}

static int make_fork(struct machine *f, const int fds[3], int ret_layers[VMM_LAYERS_MAX],
                     size_t *ret_count, struct error *err)
{
    (void)err;
    FUZZ_REQUIRE(f->pauses == 1 && fds[0] >= 0 && fds[1] >= 0 && fds[2] >= 0);
    ret_layers[0] = fds[2];
    *ret_count = 1;
    return 0;
}

static void part(struct machine *f)
{
    FUZZ_REQUIRE(f->pauses == 1);
}

static bool take_input(struct machine *f, const void *bytes, size_t size)
{
    uint8_t copy[VMM_INPUT_MAX];

    FUZZ_REQUIRE(f->pauses == 0 && size > 0 && size <= sizeof(copy));
    memcpy(copy, bytes, size); /* all of it is there to be read */
    return copy[size - 1] != 0;
}

static void change_balloon(struct machine *f, const struct vmm_balloon *balloon)
{
    (void)f;
    FUZZ_REQUIRE(balloon->deflate_on_oom <= 1);
}

static void take_vsock(struct machine *f, const struct vmm_vsock *message, int fd)
{
    (void)f;
    FUZZ_REQUIRE(message->header.size == sizeof(*message));
    if (fd >= 0)
        close(fd);
}

static void forget(struct machine *f)
{
    (void)f;
}

static void change_memory(struct machine *f, uint64_t requested_bytes)
{
    (void)f;
    FUZZ_REQUIRE(requested_bytes % VMM_MEMORY_BLOCK == 0);
}

static bool is_in_bounds(const struct vmm_attach *device)
{
    unsigned queues = device->kind == VMM_DEVICE_DISK ? device->disk.queues : device->nic.queues;

    return device->kind < VMM_DEVICE_KIND_COUNT && queues >= 1 && queues <= VMM_QUEUES_MAX &&
           vmm_attach_place(device) <
               (device->kind == VMM_DEVICE_DISK ? VMM_DISKS_MAX : VMM_NICS_MAX);
}

/* Every other place is taken; what is not has all its files. */
static int attach_device(struct machine *f, const struct vmm_attach *attach, const int *fds,
                         struct error *err)
{
    size_t count = attach->kind == VMM_DEVICE_DISK ? config_disk_fds(&attach->disk)
                                                   : config_nic_fds(&attach->nic);

    (void)f;
    FUZZ_REQUIRE(is_in_bounds(attach));
    if (vmm_attach_place(attach) % 2 > 0)
        return error_set(err, EEXIST, "taken");
    for (size_t i = 0; i < count; i++)
        FUZZ_REQUIRE(close(fds[i]) == 0);
    return 0;
}

static void change_device(struct machine *f, const struct vmm_attach *change)
{
    (void)f;
    FUZZ_REQUIRE(is_in_bounds(change));
}

static int detach_device(struct machine *f, enum vmm_device_kind kind, unsigned place, bool ask,
                         struct error *err)
{
    (void)f;
    (void)ask;
    FUZZ_REQUIRE(kind < VMM_DEVICE_KIND_COUNT);
    return place % 2 > 0 ? 0 : error_set(err, ENOENT, "none");
}

static int mark_writes(struct machine *f, int fd, const uint8_t shifts[VMM_DISKS_MAX],
                       struct error *err)
{
    (void)f;
    for (unsigned i = 0; i < VMM_DISKS_MAX; i++)
        FUZZ_REQUIRE(shifts[i] >= WRITE_MARK_SHIFT_MIN && shifts[i] <= WRITE_MARK_SHIFT_MAX);
    return fd < 0 ? 0 : error_set(err, EINVAL, "not such a file");
}

static const struct control_ops ops = {
    .press_power_button = press,
    .pause = pause_machine,
    .resume = resume_machine,
    .snapshot = take_snapshot,
    .fork = make_fork,
    .part = part,
    .console_input = take_input,
    .change_balloon = change_balloon,
    .vsock = take_vsock,
    .disconnected = forget,
    .change_memory = change_memory,
    .attach = attach_device,
    .change = change_device,
    .detach = detach_device,
    .mark_writes = mark_writes,
};

/* An address that the kernel picks: no file is left. */
static void control_open(struct machine *f)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    socklen_t size = sizeof(sa_family_t);

    f->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    FUZZ_REQUIRE(bind(f->listener, (struct sockaddr *)&address, size) == 0);
    FUZZ_REQUIRE(listen(f->listener, 4) == 0);
    size = sizeof(address);
    FUZZ_REQUIRE(getsockname(f->listener, (struct sockaddr *)&address, &size) == 0);
    FUZZ_REQUIRE(loop_new(&f->loop, NULL) == 0);
    f->stop_fd = eventfd(0, EFD_CLOEXEC);
    FUZZ_REQUIRE(f->stop_fd >= 0);
    FUZZ_REQUIRE(control_new(f->loop, f->listener, f->stop_fd, &quiet, &f->control, NULL) == 0);
    f->peer = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    FUZZ_REQUIRE(connect(f->peer, (struct sockaddr *)&address, size) == 0);
}

static void control_end(struct machine *f)
{
    control_free(f->control);
    loop_free(f->loop);
    close(f->peer);
    close(f->listener);
    close(f->stop_fd);
}

static void send_message(struct machine *f, const void *bytes, size_t size, unsigned fd_count)
{
    int fds[32] = { 0 };
    struct iovec part = { (void *)(uintptr_t)bytes, size };
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(fds))];
    } control = { 0 };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

    for (unsigned i = 0; i < fd_count; i++)
        fds[i] = f->peer;
    if (fd_count > 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(&control.header), fds, fd_count * sizeof(int));
    }
    (void)sendmsg(f->peer, &message, MSG_NOSIGNAL);
}

static void patch(struct fuzz_input *input, void *message, size_t size)
{
    for (unsigned patches = (unsigned)fuzz_take(input, 1) % 8; patches > 0; patches--) {
        size_t offset = fuzz_take(input, 2) % size;
        uint64_t value = fuzz_take(input, 8);
        size_t room = size - offset;

        memcpy((uint8_t *)message + offset, &value, room < 8 ? room : 8);
    }
}

/* A configuration that is right but for the fields that the bytes overwrite. */
static void put_configuration(struct fuzz_input *input, struct vmm_configure *configure)
{
    *configure = (struct vmm_configure){
        .header = { VMM_MESSAGE_CONFIGURE, VMM_PROTOCOL_VERSION, sizeof(*configure), 0 },
        .id = "fuzz",
        .vcpus = 1,
        .kernel_format = VMM_KERNEL_ELF,
        .memory_bytes = 8ull << 20,
        .disk_count = 1,
        .disks = { { .size_bytes = 4096, .format = VMM_DISK_RAW, .queues = 1 } },
        .nic_count = 1,
        .nics = { { .queues = 1 } },
    };
    patch(input, configure, sizeof(*configure));
}

/* The same of a disk, or a nic for vhost-net. */
static void put_device(struct fuzz_input *input, struct vmm_attach *attach)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);

    *attach = (struct vmm_attach){
        .header = { how & 1 ? VMM_MESSAGE_CHANGE : VMM_MESSAGE_ATTACH, 1, sizeof(*attach), 0 },
        .kind = how & 2 ? VMM_DEVICE_NIC : VMM_DEVICE_DISK,
    };
    if (attach->kind == VMM_DEVICE_NIC)
        attach->nic = (struct vmm_nic){ .queues = 1 + (how >> 2) % 8, .vhost = how >> 5 };
    else
        attach->disk =
            (struct vmm_disk){ .size_bytes = 4096, .format = 1 + (how >> 2) % 2, .queues = 1 };
    patch(input, attach, sizeof(*attach));
}

/* The same of one that asks for marks. */
static void put_marks(struct fuzz_input *input, struct vmm_mark_writes *marks)
{
    *marks = (struct vmm_mark_writes){
        .header = { VMM_MESSAGE_MARK_WRITES, 1, sizeof(*marks), 0 },
    };
    memset(marks->shifts, (int)fuzz_take(input, 1), sizeof(marks->shifts));
    patch(input, marks, sizeof(*marks));
}

/* Of a valid one, everything has its bounds. */
static void validate(const struct vmm_configure *configure, size_t fd_count)
{
    struct config_fds names;
    int fds[CONFIG_FDS_MAX] = { 0 };

    if (config_validate(configure, fd_count, NULL) < 0)
        return;
    FUZZ_REQUIRE(fd_count <= CONFIG_FDS_MAX);
    FUZZ_REQUIRE(configure->vcpus >= 1 && configure->vcpus <= VMM_VCPUS_MAX);
    FUZZ_REQUIRE(configure->disk_count <= VMM_DISKS_MAX && configure->nic_count <= VMM_NICS_MAX);
    FUZZ_REQUIRE(memchr(configure->id, 0, sizeof(configure->id)));
    FUZZ_REQUIRE(memchr(configure->cmdline, 0, sizeof(configure->cmdline)));
    FUZZ_REQUIRE(configure->cpuid.count <= VMM_CPUID_MAX);
    config_name_fds(configure, fds, &names);
}

static void one_message(struct machine *f, struct fuzz_input *input)
{
    struct vmm_configure configure;
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    unsigned fd_count = (unsigned)fuzz_take(input, 1) % 30;
    size_t size = fuzz_take(input, 1);

    if (how & 1) {
        put_configuration(input, &configure);
        size = how & 2 ? sizeof(configure) - size : sizeof(configure);
        validate(&configure, fd_count);
        send_message(f, &configure, size, fd_count);
    } else if (how & 8) {
        struct vmm_attach attach;

        put_device(input, &attach);
        send_message(f, &attach, sizeof(attach), fd_count);
    } else if (how & 16) {
        struct vmm_mark_writes marks;

        put_marks(input, &marks);
        send_message(f, &marks, sizeof(marks), fd_count);
    } else {
        struct vmm_message_header header = { (uint32_t)fuzz_take(input, 1), 1, sizeof(header), 0 };

        if (how & 2)
            header.size = (uint32_t)fuzz_take(input, 4);
        memset(&configure, 0, sizeof(configure));
        memcpy(&configure, &header, sizeof(header));
        send_message(f, &configure, how & 4 ? size : sizeof(header), fd_count);
    }
}

/* While it is paused control looks at nothing but its socket, so what ends that is there already.
 */
static void send_resume(struct machine *f, bool configured)
{
    const struct vmm_message_header resume = { VMM_MESSAGE_RESUME, 1, sizeof(resume), 0 };
    uint8_t bytes[256];

    while (recv(f->peer, bytes, sizeof(bytes), 0) > 0)
        continue;
    if (configured)
        send_message(f, &resume, sizeof(resume), 0);
}

FUZZ_TARGET(vmm_control)
{
    static struct vmm_configure configure;
    struct fuzz_input input = { bytes, size };
    struct machine f = { 0 };
    int fds[CONFIG_FDS_MAX];
    size_t fd_count = 0;
    bool configured = false;

    if (geteuid() != 0)
        return FUZZ_ABSENT;
    control_open(&f);
    for (unsigned i = 0; i < MESSAGES_MAX && input.size > 0; i++) {
        one_message(&f, &input);
        send_resume(&f, configured);
        (void)loop_turn(f.loop, 0, NULL); /* accepts */
        (void)loop_turn(f.loop, 0, NULL);
        if (configured ||
            control_wait_configure(f.control, 0, &configure, fds, &fd_count, NULL) < 0)
            continue;
        configured = true;
        FUZZ_REQUIRE(fd_count <= CONFIG_FDS_MAX);
        validate(&configure, fd_count);
        for (size_t k = 0; k < fd_count; k++)
            close(fds[k]);
        control_ready(f.control, &ops, &f);
    }
    FUZZ_REQUIRE(f.pauses == 0);
    control_end(&f);
    return 0;
}
