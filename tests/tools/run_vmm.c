/* run_vmm.c - starts one VMM by hand, as the agent would: jails it, passes the fds, shows the
 * guest's console and says why it ended.
 *
 *   build/tests/run_vmm --kernel build/guest.elf [--disk FILE] [--timeout 10]
 *   build/tests/run_vmm --kernel build/guest.elf --when 'tick 3' --snapshot PREFIX
 *   build/tests/run_vmm --kernel build/guest.elf --memory-backing 3 --fork PREFIX --fork-after MS
 *
 * Exit status: 0 after a power-off, the exit reason's number (stats_page.h) after another end, 124
 * after --timeout or a signal, which end the VMM, too, 125 if it could not be started, or did not
 * do what it was asked. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "agent/cpu_baseline.h"
#include "agent/jail_rings.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/process.h"
#include "base/seqpacket.h"
#include "tests/tools/run_vmm_options.h"
#include "vmm/control_protocol.h"

#define EXIT_TIMEOUT 124
#define JAIL_UID     64999
#define TICK_MS      5

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int open_or_exit(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0600);

    if (fd < 0) {
        fprintf(stderr, "run_vmm: %s: %s\n", path, strerror(errno));
        exit(EXIT_NOT_STARTED);
    }
    return fd;
}

static void must(int result, const struct error *err)
{
    if (result >= 0)
        return;
    fprintf(stderr, "run_vmm: %s%s%s\n", err->field, err->field[0] ? ": " : "", err->message);
    exit(EXIT_NOT_STARTED);
}

static void make_page(struct run *run)
{
    int fd = openat(run->directory_fd, "page", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0 || posix_fallocate(fd, 0, VMM_PAGE_BYTES) != 0 ||
        (run->page = mmap(NULL, VMM_PAGE_BYTES, PROT_READ, MAP_SHARED, fd, 0)) == MAP_FAILED) {
        perror("run_vmm: page");
        exit(EXIT_NOT_STARTED);
    }
    run->fds[run->fd_count++] = fd;
}

static off_t memory_file_bytes(const struct vmm_configure *configure)
{
    return (off_t)(configure->memory_bytes + configure->hotplug_bytes);
}

static int make_memory(const struct vmm_configure *configure)
{
    unsigned flags = configure->memory_backing == VMM_MEMORY_HUGE_2M ? MFD_HUGETLB : 0;
    int fd = memfd_create("guest-memory", MFD_CLOEXEC | flags);

    if (fd < 0 || ftruncate(fd, memory_file_bytes(configure)) < 0) {
        perror("run_vmm: guest memory");
        exit(EXIT_NOT_STARTED);
    }
    return fd;
}

static int open_tap(const char *name)
{
    int fd = open_or_exit("/dev/net/tun", O_RDWR | O_NONBLOCK), header_bytes = 12;
    struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };

    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    if (ioctl(fd, TUNSETIFF, &request) < 0 || ioctl(fd, TUNSETVNETHDRSZ, &header_bytes) < 0) {
        fprintf(stderr, "run_vmm: tap %s: %s\n", name, strerror(errno));
        exit(EXIT_NOT_STARTED);
    }
    return fd;
}

static void open_disk(struct run *run, int index)
{
    struct vmm_disk *disk = &run->configure.disks[index];
    int fd = open_or_exit(run->disks[index], O_RDWR);
    struct stat status;

    if (fstat(fd, &status) == 0)
        disk->size_bytes = (uint64_t)status.st_size & ~511ull;
    snprintf(disk->serial, sizeof disk->serial, "disk%d", index);
    run->fds[run->fd_count++] = fd;
}

/* PREFIX.state and PREFIX.memory. */
static void open_snapshot(const char *prefix, int flags, int ret_fds[2])
{
    static const char *const names[] = { "state", "memory" };

    for (int i = 0; i < 2; i++) {
        char path[512];

        snprintf(path, sizeof path, "%s.%s", prefix, names[i]);
        ret_fds[i] = open_or_exit(path, flags);
    }
}

static void open_kernel(struct run *run)
{
    struct vmm_configure *configure = &run->configure;
    int kernel = open_or_exit(run->kernel, O_RDONLY);
    char magic[4] = "";

    if (pread(kernel, magic, sizeof magic, 0) < 0)
        perror(run->kernel);
    configure->kernel_format =
        memcmp(magic, "\177ELF", 4) == 0 ? VMM_KERNEL_ELF : VMM_KERNEL_BZIMAGE;
    run->fds[run->fd_count++] = kernel;
}

/* What the agent says of the host's processor: as much of it as the baseline has. */
static void limit_cpu(struct run *run, int kvm_fd)
{
    struct vmm_cpuid *cpuid = &run->configure.cpuid;
    struct error err = { 0 };

    cpuid->count = VMM_CPUID_MAX;
    must(ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid), &err);
    must(cpu_baseline_apply((enum cpu_baseline)run->cpu, cpuid, &err), &err);
}

/* In the order that control_protocol.h demands. */
static void open_all(struct run *run)
{
    struct vmm_configure *configure = &run->configure;

    run->fds[run->fd_count++] = open_or_exit("/dev/kvm", O_RDWR);
    limit_cpu(run, run->fds[0]);
    make_page(run);
    if (vmm_memory_has_file(configure->memory_backing))
        run->fds[run->fd_count++] = make_memory(configure);
    configure->restore = run->restore != NULL;
    if (run->restore) {
        open_snapshot(run->restore, O_RDONLY, &run->fds[run->fd_count]);
        run->fd_count += 2;
        configure->kernel_format = VMM_KERNEL_ELF;
    } else {
        open_kernel(run);
    }
    for (int i = 0; i < configure->disk_count; i++)
        open_disk(run, i);
    for (int i = 0; i < configure->nic_count; i++)
        run->fds[run->fd_count++] = open_tap(run->taps[i]);
    configure->header = (struct vmm_message_header){ VMM_MESSAGE_CONFIGURE, VMM_PROTOCOL_VERSION,
                                                     sizeof *configure, 0 };
    snprintf(configure->id, sizeof configure->id, "run");
    if (getrandom(configure->generation_id, sizeof configure->generation_id, 0) < 0)
        perror("run_vmm: generation id");
}

static void make_directory(struct run *run)
{
    struct error err = { 0 };

    snprintf(run->directory, sizeof run->directory, "/tmp/run_vmm.XXXXXX");
    run->directory_fd =
        open_or_exit(mkdtemp(run->directory) ? run->directory : "", O_RDONLY | O_DIRECTORY);
    snprintf(run->jail, sizeof run->jail, "%s/jail", run->directory);
    (void)mkdir(run->jail, 0755);
    run->listener = seqpacket_listen(run->directory_fd, "control", &err);
    must(run->listener, &err);
}

/* Those that ask for an end are read by follow. */
static void hold_signals(struct run *run)
{
    sigset_t ends;

    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGHUP);
    run->signals = signalfd(-1, &ends, SFD_CLOEXEC);
    if (run->signals < 0 || sigprocmask(SIG_BLOCK, &ends, NULL) < 0) {
        perror("run_vmm: signals");
        exit(EXIT_NOT_STARTED);
    }
}

/* However run_vmm exits: its VMM would outlive it. */
static void clean_up(int status, void *context)
{
    const struct run *run = context;

    (void)status;
    if (run->pid > 0)
        process_kill(run->pidfd, 9);
    (void)unlinkat(run->directory_fd, "control", 0);
    (void)unlinkat(run->directory_fd, "page", 0);
    (void)unlinkat(run->directory_fd, "jail", AT_REMOVEDIR);
    (void)rmdir(run->directory);
}

static void spawn(struct run *run)
{
    const char *const argv[] = { "warren-vmm", NULL };
    const struct sandbox_spec sandbox = {
        .root = run->jail,
        .uid = JAIL_UID,
        .gid = JAIL_UID,
        .max_files = 1200,
        .max_processes = 64,
        .hostname = "vm",
    };
    int fds[VMM_RING_FD(VMM_DISKS_MAX)] = { -1, -1, STDERR_FILENO, run->listener };
    struct jail_rings rings = { 0 };
    int program = open_or_exit(run->vmm, O_RDONLY);
    struct process_spec spec = {
        .exec_fd = program,
        .argv = argv,
        .clone_flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS,
        .cgroup_fd = -1,
        .fds = fds,
        .envp = run->unjailed ? (const char *const *)environ : NULL,
        .sandbox = run->unjailed ? NULL : &sandbox,
        .new_session = true,
    };
    struct error err = { 0 };

    jail_rings_take(&rings, run->configure.disk_count, &fds[VMM_RINGS_FD], &run->configure.rings);
    jail_rings_close(&rings); /* those left */
    spec.fd_count = (size_t)VMM_RING_FD(run->configure.rings.count);
    run->spawn_ns = now_ns();
    must(process_spawn(&spec, &run->pid, &run->pidfd, &err), &err);
    close(program);
    run->connection = seqpacket_connect(run->directory_fd, "control", &err);
    must(run->connection, &err);
    run->configure_ns = now_ns();
    must(seqpacket_send(run->connection, &run->configure, sizeof run->configure, run->fds,
                        run->fd_count, &err),
         &err);
    fprintf(stderr, "run_vmm: pid %d in %s\n", (int)run->pid, run->directory);
}

static void show_console(struct run *run)
{
    uint64_t written = __atomic_load_n(&run->page->console_bytes, __ATOMIC_ACQUIRE);
    const char *ring = (const char *)run->page + CONSOLE_OFFSET;

    if (written - run->console_shown > CONSOLE_RING_BYTES)
        run->console_shown = written - CONSOLE_RING_BYTES;
    for (; run->console_shown < written; run->console_shown++)
        if (!run->quiet)
            putchar(ring[run->console_shown % CONSOLE_RING_BYTES]);
    fflush(stdout);
}

static void await_answer(const struct run *run)
{
    struct pollfd fds[] = { { .fd = run->connection, .events = POLLIN },
                            { .fd = run->pidfd, .events = POLLIN } };

    (void)poll(fds, 2, -1);
}

static void measure(const struct run *run)
{
    struct vmm_state state;
    uint64_t ready_ns;

    await_answer(run);
    ready_ns = now_ns();
    (void)seqpacket_receive(run->connection, &state, sizeof state, NULL, NULL, NULL); /* READY */
    while (__atomic_load_n(&run->page->console_bytes, __ATOMIC_RELAXED) == 0 &&
           process_await(run->pidfd, 0) == -ETIMEDOUT)
        sched_yield();
    fprintf(stderr,
            "run_vmm: start to vCPUs let go %" PRIu64 " us, of that configured to ready %" PRIu64
            " us, to first serial byte %" PRIu64 " us\n",
            (run->page->start_ns - run->spawn_ns) / 1000, (ready_ns - run->configure_ns) / 1000,
            (now_ns() - run->spawn_ns) / 1000);
}

static void press_power_button(const struct run *run)
{
    struct vmm_message_header header = { VMM_MESSAGE_POWER_BUTTON, VMM_PROTOCOL_VERSION,
                                         sizeof header, 0 };
    struct error err = { 0 };

    must(seqpacket_send(run->connection, &header, sizeof header, NULL, 0, &err), &err);
    fprintf(stderr, "run_vmm: power button pressed\n");
}

static int report(const struct run *run, bool ended);

/* size: of what was sent or received, which is more than 0 bytes; -EAGAIN is also what comes of a
 * VMM that ended before it took the connection. */
static void must_answer(const struct run *run, ssize_t size, const struct error *err)
{
    if (size > 0)
        return;
    if (process_await(run->pidfd, 1000) == 0) {
        fprintf(stderr, "run_vmm: the VMM ended before it answered");
        (void)report(run, true);
    } else {
        fprintf(stderr, "run_vmm: the VMM hung up. %s\n", err->message);
    }
    exit(EXIT_NOT_STARTED);
}

/* What it sends back is put into ret_fds, if there is room for any. */
static void ask(const struct run *run, uint32_t type, const int *fds, size_t fd_count, int *ret_fds,
                size_t *ret_count)
{
    struct vmm_message_header header = { .type = type,
                                         .version = VMM_PROTOCOL_VERSION,
                                         .size = sizeof header };
    struct vmm_state state;
    struct error err = { 0 };
    int sent = seqpacket_send(run->connection, &header, sizeof header, fds, fd_count, &err);

    must_answer(run, sent == 0 ? 1 : sent, &err);
    do {
        await_answer(run);
        must_answer(
            run, seqpacket_receive(run->connection, &state, sizeof state, ret_fds, ret_count, &err),
            &err);
    } while (state.header.type == VMM_MESSAGE_READY);
    if (state.result < 0) {
        fprintf(stderr, "run_vmm: the VMM answered: %s\n", strerror(-state.result));
        exit(EXIT_NOT_STARTED);
    }
}

static int open_pagemap(const struct run *run)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/pagemap", (int)run->pid);
    return open_or_exit(path, O_RDONLY);
}

static void take_snapshot(struct run *run)
{
    int fds[3];
    uint64_t begun = now_ns();

    open_snapshot(run->snapshot, O_RDWR | O_CREAT | O_TRUNC, fds);
    fds[2] = open_pagemap(run);
    if (ftruncate(fds[1], memory_file_bytes(&run->configure)) < 0)
        perror("run_vmm: memory file");
    ask(run, VMM_MESSAGE_PAUSE, NULL, 0, NULL, NULL);
    ask(run, VMM_MESSAGE_SAVE, fds, 3, NULL, NULL);
    fprintf(stderr, "run_vmm: snapshot taken in %" PRIu64 " us\n", (now_ns() - begun) / 1000);
    for (size_t i = 0; i < 3; i++)
        close(fds[i]);
    show_console(run);
    process_kill(run->pidfd, 9);
}

static int run_to_the_end(struct run *run);

/* The child process: one more VMM, whose memory is the parent's. */
static void run_fork(struct run *run, int state, const int *layers, size_t count)
{
    char path[512];

    run->pid = 0; /* the parent's, as the directory */
    run->directory_fd = -1;
    run->directory[0] = '\0';
    snprintf(path, sizeof path, "%s.%u", run->fork, run->forked);
    if (!freopen(path, "w", stdout)) {
        perror(path);
        exit(EXIT_NOT_STARTED);
    }
    run->fork_count = run->fd_count = run->console_shown = run->begin_ns = 0;
    run->configure.memory_backing = VMM_MEMORY_ANONYMOUS;
    run->configure.restore = (uint8_t)count;
    make_directory(run);
    run->fds[run->fd_count++] = open_or_exit("/dev/kvm", O_RDWR);
    make_page(run);
    run->fds[run->fd_count++] = state;
    for (size_t i = 0; i < count; i++)
        run->fds[run->fd_count++] = layers[i];
    for (int i = 0; i < run->configure.disk_count; i++)
        open_disk(run, i);
    exit(run_to_the_end(run));
}

static void make_fork(struct run *run)
{
    int layers[VMM_LAYERS_MAX];
    size_t count = VMM_LAYERS_MAX;
    int fds[3] = { memfd_create("state", MFD_CLOEXEC), open_pagemap(run),
                   make_memory(&run->configure) };
    uint64_t begun = now_ns();

    ask(run, VMM_MESSAGE_PAUSE, NULL, 0, NULL, NULL);
    ask(run, VMM_MESSAGE_FORK, fds, 3, layers, &count);
    ask(run, VMM_MESSAGE_RESUME, NULL, 0, NULL, NULL);
    fprintf(stderr, "run_vmm: fork of %zu files in %" PRIu64 " us\n", count,
            (now_ns() - begun) / 1000);
    fflush(stdout);
    if (fork() == 0)
        run_fork(run, fds[0], layers, count);
    run->forked++;
    for (size_t i = 0; i < 3; i++)
        close(fds[i]);
    for (size_t i = 0; i < count; i++)
        close(layers[i]);
}

static bool is_due(uint64_t since_ns, int ms)
{
    return ms >= 0 && since_ns != 0 && now_ns() - since_ns >= (uint64_t)ms * 1000000u;
}

/* Of what was shown; "" always is. */
static bool has_said(const struct run *run, const char *text)
{
    size_t size = run->console_shown < CONSOLE_RING_BYTES ? run->console_shown : CONSOLE_RING_BYTES;

    return memmem((const char *)run->page + CONSOLE_OFFSET, size, text, strlen(text));
}

/* Shows the console until the VMM ends; false if the time was over first, or a signal came. */
static bool follow(struct run *run)
{
    struct pollfd fds[] = { { .fd = run->pidfd, .events = POLLIN },
                            { .fd = run->signals, .events = POLLIN } };

    for (;;) {
        (void)poll(fds, 2, TICK_MS);
        show_console(run);
        if (fds[0].revents)
            return true;
        if (run->begin_ns == 0 && has_said(run, run->when))
            run->begin_ns = now_ns();
        if (is_due(run->begin_ns, 1000 * run->power_after_s) && run->page->start_ns != 0) {
            press_power_button(run);
            run->power_after_s = -1;
        }
        if (run->snapshot && is_due(run->begin_ns, run->snapshot_after_ms)) {
            take_snapshot(run);
            run->snapshot = NULL;
        }
        if (run->forked < run->fork_count && is_due(run->begin_ns, run->fork_after_ms[run->forked]))
            make_fork(run);
        if (fds[1].revents || (run->until && has_said(run, run->until)) ||
            is_due(run->spawn_ns, 1000 * run->timeout_s)) {
            process_kill(run->pidfd, 9);
            return false;
        }
    }
}

static int report(const struct run *run, bool ended)
{
    int status = 0;

    (void)process_reap(run->pidfd, &status);
    fprintf(stderr, "\nrun_vmm: exit reason %u, detail %d, \"%.120s\"; wait status %#x%s\n",
            run->page->exit_reason, run->page->exit_detail, run->page->exit_text, (unsigned)status,
            ended ? "" : " (killed)");
    if (!ended)
        return EXIT_TIMEOUT;
    if (run->page->exit_reason == EXIT_REASON_POWEROFF)
        return 0;
    return run->page->exit_reason ? (int)run->page->exit_reason : 128 + WTERMSIG(status);
}

static int run_to_the_end(struct run *run)
{
    spawn(run);
    if (run->measure)
        measure(run);
    return report(run, follow(run));
}

int main(int argc, char **argv)
{
    struct run run = {
        .vmm = "build/warren-vmm",
        .power_after_s = -1,
        .timeout_s = -1,
        .when = "",
        .configure = { .vcpus = 1, .memory_bytes = 128ull << 20 },
    };
    int status;

    read_options(&run, argc, argv);
    hold_signals(&run);
    make_directory(&run);
    on_exit(clean_up, &run);
    open_all(&run);
    status = run_to_the_end(&run);
    while (wait(NULL) > 0) /* forks */
        ;
    exit(status); /* run is to be there still when clean_up looks at it */
}
