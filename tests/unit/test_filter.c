/* test_filter.c - the system call filters as the kernel enforces them: a child loads one, makes a
 * call, and lives or dies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "vmm/filter.h"
#include "vmm/filter_rules.h"

#define VCPU_CALLS_MAX   12
#define DEVICE_CALLS_MAX 30

struct call {
    const char *name;
    long number;
    long arguments[6];
};

/* How the child ends: 0 = it lived, else the signal. */
static int outcome(enum filter_kind kind, const struct call *call)
{
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0) {
        const long *a = call->arguments;

        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || filter_load(kind, NULL) < 0)
            _exit(1);
        (void)syscall(call->number, a[0], a[1], a[2], a[3], a[4], a[5]);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) != 0);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

#define ANONYMOUS (MAP_PRIVATE | MAP_ANONYMOUS)

static const struct call forbidden[] = {
    { "open", SYS_open, { (long)"/", O_RDONLY } },
    { "openat", SYS_openat, { AT_FDCWD, (long)"/", O_RDONLY } },
    { "openat2", SYS_openat2, { AT_FDCWD, (long)"/" } },
    { "socket", SYS_socket, { AF_UNIX, SOCK_STREAM } },
    { "connect", SYS_connect, { 0 } },
    { "bind", SYS_bind, { 0 } },
    { "execve", SYS_execve, { (long)"/bin/true" } },
    { "execveat", SYS_execveat, { 0 } },
    { "fork", SYS_fork, { 0 } },
    { "vfork", SYS_vfork, { 0 } },
    { "clone", SYS_clone, { SIGCHLD } },
    { "clone3", SYS_clone3, { 0 } },
    { "ptrace", SYS_ptrace, { 0 } },
    { "kill", SYS_kill, { 1, 0 } },
    { "io_uring_setup", SYS_io_uring_setup, { 1 } },
    { "io_uring_register", SYS_io_uring_register, { -1 } },
    { "fcntl F_DUPFD", SYS_fcntl, { -1, F_DUPFD } },
    { "pread64", SYS_pread64, { -1 } },
    { "pwrite64", SYS_pwrite64, { -1 } },
    { "bpf", SYS_bpf, { 0 } },
    { "mprotect", SYS_mprotect, { 0 } },
    { "mmap executable", SYS_mmap, { 0, 4096, PROT_READ | PROT_EXEC, ANONYMOUS, -1, 0 } },
    { "mmap a file", SYS_mmap, { 0, 4096, PROT_READ, MAP_PRIVATE, 0, 0 } },
    { "mmap shared", SYS_mmap, { 0, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0 } },
    { "mmap a file shared", SYS_mmap, { 0, 4096, PROT_READ, MAP_SHARED, 0, 0 } },
    { "mmap a ring, executable",
      SYS_mmap,
      { 0, 4096, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_POPULATE, -1, 0 } },
    { "mmap a ring, fixed",
      SYS_mmap,
      { 0, 4096, PROT_READ, MAP_SHARED | MAP_POPULATE | MAP_FIXED, -1, 0 } },
    { "mmap fixed, other flags",
      SYS_mmap,
      { 0, 4096, PROT_READ, ANONYMOUS | MAP_FIXED | MAP_POPULATE, -1, 0 } },
    { "mmap fixed, executable",
      SYS_mmap,
      { 0, 4096, PROT_EXEC, ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0 } },
    { "madvise MADV_REMOVE", SYS_madvise, { 0, 4096, MADV_REMOVE } },
    { "madvise MADV_DODUMP", SYS_madvise, { 0, 4096, MADV_DODUMP } },
    { "accept4 elsewhere", SYS_accept4, { VMM_LISTENER_FD + 1 } },
    { "ioctl KVM_CREATE_VM", SYS_ioctl, { -1, KVM_CREATE_VM } },
    { "ioctl KVM_SET_USER_MEMORY_REGION", SYS_ioctl, { -1, KVM_SET_USER_MEMORY_REGION } },
    { "ioctl TIOCSTI", SYS_ioctl, { -1, 0x5412 } },
    { "setuid", SYS_setuid, { 0 } },
    { "unshare", SYS_unshare, { 0 } },
    { "x32 read", SYS_read | 0x40000000, { -1 } },
};

static const struct call allowed[FILTER_COUNT][11] = {
    [FILTER_VCPU] = {
        { "ioctl KVM_RUN", SYS_ioctl, { -1, KVM_RUN } },
        { "ioctl KVM_IRQFD", SYS_ioctl, { -1, KVM_IRQFD } },
        { "write", SYS_write, { -1 } },
        { "mmap", SYS_mmap, { 0, 4096, PROT_READ | PROT_WRITE, ANONYMOUS, -1, 0 } },
        { "clock_gettime", SYS_clock_gettime, { CLOCK_MONOTONIC, 0 } },
    },
    [FILTER_DEVICES] = {
        { "accept4", SYS_accept4, { VMM_LISTENER_FD, 0, 0, 0 } },
        { "getsockopt", SYS_getsockopt, { -1, SOL_SOCKET, SO_PEERCRED } },
        { "preadv", SYS_preadv, { -1 } },
        { "fallocate", SYS_fallocate, { -1 } },
        { "epoll_pwait", SYS_epoll_pwait, { -1 } },
        { "madvise MADV_DONTNEED", SYS_madvise, { 0, 0, MADV_DONTNEED } },
        { "mmap over a file", SYS_mmap,
          { 1, 4096, PROT_READ | PROT_WRITE, ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0 } },
        { "mmap a file privately", SYS_mmap,
          { 1, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, -1, 0 } },
        { "mmap a ring", SYS_mmap,
          { 0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, -1, 0 } },
        { "io_uring_enter", SYS_io_uring_enter, { -1 } },
        { "fcntl F_SETFL", SYS_fcntl, { -1, F_SETFL } },
    },
};

static void need_filters(void)
{
    if (!FILTERS_ARE_BUILT)
        skip(); /* a sanitizer needs calls that they forbid */
}

static void forbidden_calls_kill(void **state)
{
    (void)state;
    need_filters();
    for (int kind = 0; kind < FILTER_COUNT; kind++)
        for (size_t i = 0; i < ARRAY_LENGTH(forbidden); i++)
            if (outcome((enum filter_kind)kind, &forbidden[i]) != SIGSYS)
                fail_msg("filter %d allows %s", kind, forbidden[i].name);
}

static void needed_calls_pass(void **state)
{
    (void)state;
    need_filters();
    for (int kind = 0; kind < FILTER_COUNT; kind++)
        for (size_t i = 0; i < ARRAY_LENGTH(allowed[kind]) && allowed[kind][i].name; i++)
            if (outcome((enum filter_kind)kind, &allowed[kind][i]) != 0)
                fail_msg("filter %d forbids %s", kind, allowed[kind][i].name);
}

/* Only the device thread accepts, only vCPU threads run the guest. */
static void each_kind_has_its_own(void **state)
{
    static const struct call run = { "KVM_RUN", SYS_ioctl, { -1, KVM_RUN } };
    static const struct call accept = { "accept4", SYS_accept4, { VMM_LISTENER_FD } };
    static const struct call enter = { "io_uring_enter", SYS_io_uring_enter, { -1 } };

    (void)state;
    need_filters();
    assert_int_equal(outcome(FILTER_DEVICES, &run), SIGSYS);
    assert_int_equal(outcome(FILTER_VCPU, &accept), SIGSYS);
    assert_int_equal(outcome(FILTER_VCPU, &enter), SIGSYS);
}

/* realloc asks for it, and copies where it cannot be had. */
static void a_refused_call_lets_live(void **state)
{
    pid_t pid;
    int status;

    (void)state;
    need_filters();
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (filter_load(FILTER_DEVICES, NULL) < 0)
            _exit(1);
        _exit(syscall(SYS_mremap, 0, 4096, 8192, 0) == -1 && errno == ENOMEM ? 0 : 2);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* --- each rule has its use --- */

static const struct rule_list {
    const char *name;
    const struct filter_rule *rules;
    size_t count, distinct_max;
} lists[FILTER_COUNT] = {
    [FILTER_VCPU] = { "vCPU", vcpu_rules, ARRAY_LENGTH(vcpu_rules), VCPU_CALLS_MAX },
    [FILTER_DEVICES] = { "device", device_rules, ARRAY_LENGTH(device_rules), DEVICE_CALLS_MAX },
};

#define ALL_KINDS (1u << FILTER_VCPU | 1u << FILTER_DEVICES)
#define VCPU      (1u << FILTER_VCPU)
#define DEVICES   (1u << FILTER_DEVICES)

/* Where a call is made: `file` has `text`.  Without a file, `text` says who makes it that has no
 * source here. */
static const struct use {
    unsigned kinds;
    const char *call; /* of an ioctl, the request */
    const char *file, *text;
} uses[] = {
    { VCPU, "KVM_RUN", "vmm/vcpu.c", "KVM_RUN" },
    { VCPU, "KVM_GET_REGS", "vmm/vcpu.c", "KVM_GET_REGS" },
    { VCPU, "KVM_IRQFD", "vmm/irq.c", "KVM_IRQFD" },
    { VCPU, "KVM_SET_GSI_ROUTING", "vmm/irq.c", "KVM_SET_GSI_ROUTING" },
    { VCPU, "KVM_IOEVENTFD", "vmm/virtio_pci.c", "KVM_IOEVENTFD" },
    { VCPU, "KVM_KVMCLOCK_CTRL", "vmm/vcpu.c", "KVM_KVMCLOCK_CTRL" },
    { DEVICES, "KVM_IRQFD", "vmm/irq.c", "KVM_IRQFD" },
    { DEVICES, "KVM_IOEVENTFD", "vmm/virtio_pci.c", "KVM_IOEVENTFD" },
    { DEVICES, "eventfd2", "vmm/virtio_pci.c", "eventfd(" },
    { DEVICES, "TUNGETVNETHDRSZ", "vmm/virtio_net.c", "TUNGETVNETHDRSZ" },
    { DEVICES, "tkill", "vmm/vcpu.c", "SYS_tkill" },
    { DEVICES, "KVM_GET_IRQCHIP", "vmm/kvm_state.c", "KVM_GET_IRQCHIP" },
    { DEVICES, "KVM_GET_CLOCK", "vmm/kvm_state.c", "KVM_GET_CLOCK" },
    { DEVICES, "KVM_GET_TSC_KHZ", "vmm/kvm_state.c", "KVM_GET_TSC_KHZ" },
    { DEVICES, "KVM_GET_SREGS", "vmm/kvm_state.c", "KVM_GET_SREGS" },
    { DEVICES, "KVM_GET_REGS", "vmm/kvm_state.c", "KVM_GET_REGS" },
    { DEVICES, "KVM_GET_XSAVE", "vmm/kvm_state.c", "KVM_GET_XSAVE" },
    { DEVICES, "KVM_GET_XCRS", "vmm/kvm_state.c", "KVM_GET_XCRS" },
    { DEVICES, "KVM_GET_DEBUGREGS", "vmm/kvm_state.c", "KVM_GET_DEBUGREGS" },
    { DEVICES, "KVM_GET_LAPIC", "vmm/kvm_state.c", "KVM_GET_LAPIC" },
    { DEVICES, "KVM_GET_MSRS", "vmm/kvm_state.c", "KVM_GET_MSRS" },
    { DEVICES, "KVM_GET_VCPU_EVENTS", "vmm/kvm_state.c", "KVM_GET_VCPU_EVENTS" },
    { DEVICES, "KVM_GET_MP_STATE", "vmm/kvm_state.c", "KVM_GET_MP_STATE" },
    { DEVICES, "TUNSETOFFLOAD", "vmm/virtio_net.c", "TUNSETOFFLOAD" },
    { ALL_KINDS, "write", "vmm/pci_msix.c", "write(vector->eventfd" },
    { ALL_KINDS, "futex", NULL, "mutexes under contention" },
    { ALL_KINDS, "brk", NULL, "malloc" },
    { ALL_KINDS, "mmap", NULL, "malloc" },
    { ALL_KINDS, "munmap", NULL, "free" },
    { DEVICES, "lseek", "base/delta_format.c", "lseek(" },
    { DEVICES, "madvise", NULL, "free" },
    { ALL_KINDS, "clock_gettime", NULL, "clocks, where the vDSO has no fast way" },
    { ALL_KINDS, "rt_sigreturn", NULL, "the kernel's restart of interrupted calls" },
    { ALL_KINDS, "exit_group", "vmm/exit_record.c", "_exit(" },
    { DEVICES, "epoll_pwait", "base/loop.c", "epoll_wait(" },
    { DEVICES, "epoll_ctl", "base/loop.c", "epoll_ctl(" },
    { DEVICES, "accept4", "vmm/control.c", "accept4(" },
    { DEVICES, "getsockopt", "vmm/control.c", "getsockopt(" },
    { DEVICES, "recvmsg", "base/seqpacket.c", "recvmsg(" },
    { DEVICES, "sendmsg", "base/seqpacket.c", "sendmsg(" },
    { DEVICES, "shutdown", "vmm/vsock_connection.c", "shutdown(connection->fd" },
    { DEVICES, "close", "vmm/control.c", "cleanup_close(&control->fd)" },
    { DEVICES, "read", "vmm/virtio_net.c", "read(tap->fd" },
    { DEVICES, "writev", "vmm/virtio_net.c", "writev(net->taps[" },
    { VCPU, "read", "vmm/disk_raw.c", "read(raw->ring->event_fd" },
    { DEVICES, "io_uring_enter", "vmm/uring.c", "SYS_io_uring_enter" },
    { DEVICES, "fcntl", "vmm/disk_raw.c", "fcntl(raw->fd, F_SETFL" },
    { DEVICES, "preadv", "vmm/disk_raw.c", "preadv(fd" },
    { DEVICES, "pwritev", "vmm/disk_raw.c", "pwritev(fd" },
    { DEVICES, "fdatasync", "vmm/disk_raw.c", "fdatasync(raw->fd" },
    { DEVICES, "fallocate", "vmm/disk_raw.c", "fallocate(" },
    { DEVICES, "getrandom", "vmm/virtio_rng.c", "getrandom(" },
};

static const struct {
    uint32_t request;
    const char *name;
} requests[] = {
#define REQUEST(name)           \
    {                           \
        (uint32_t)(name), #name \
    }
    REQUEST(KVM_RUN),           REQUEST(KVM_GET_REGS),
    REQUEST(KVM_IRQFD),         REQUEST(KVM_SET_GSI_ROUTING),
    REQUEST(KVM_IOEVENTFD),     REQUEST(TUNSETOFFLOAD),
    REQUEST(TUNGETVNETHDRSZ),   REQUEST(KVM_KVMCLOCK_CTRL),
    REQUEST(KVM_GET_IRQCHIP),   REQUEST(KVM_GET_CLOCK),
    REQUEST(KVM_GET_TSC_KHZ),   REQUEST(KVM_GET_SREGS),
    REQUEST(KVM_GET_XSAVE),     REQUEST(KVM_GET_XCRS),
    REQUEST(KVM_GET_DEBUGREGS), REQUEST(KVM_GET_LAPIC),
    REQUEST(KVM_GET_MSRS),      REQUEST(KVM_GET_VCPU_EVENTS),
    REQUEST(KVM_GET_MP_STATE),
};

/* The call's name, or the request's.  malloc'ed. */
static char *rule_name(const struct filter_rule *rule)
{
    char unknown[32];

    if (rule->call != SCMP_SYS(ioctl))
        return seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, rule->call);
    for (size_t i = 0; i < ARRAY_LENGTH(requests); i++)
        if (requests[i].request == rule->conditions[0].value)
            return strdup(requests[i].name);
    snprintf(unknown, sizeof unknown, "ioctl %#x", (unsigned)rule->conditions[0].value);
    return strdup(unknown);
}

static bool file_has(const char *path, const char *text)
{
    static char content[65536];
    FILE *file = fopen(path, "re");
    size_t size;

    if (!file)
        return false;
    size = fread(content, 1, sizeof content - 1, file);
    fclose(file);
    content[size] = '\0';
    return strstr(content, text) != NULL;
}

static void each_rule_has_its_use(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < FILTER_COUNT; kind++) {
        for (size_t i = 0; i < lists[kind].count; i++) {
            auto_free char *name = rule_name(&lists[kind].rules[i]);
            const struct use *use = NULL;

            for (size_t k = 0; k < ARRAY_LENGTH(uses); k++)
                if ((uses[k].kinds & 1u << kind) && strcmp(uses[k].call, name) == 0)
                    use = &uses[k];
            if (!use)
                fail_msg("%s threads may call %s: say in this test where they do", lists[kind].name,
                         name);
            if (use->file && !file_has(use->file, use->text))
                fail_msg("%s: %s no longer has \"%s\"", name, use->file, use->text);
        }
    }
}

static bool list_has(const struct rule_list *list, const char *call)
{
    bool found = false;

    for (size_t i = 0; i < list->count && !found; i++) {
        auto_free char *name = rule_name(&list->rules[i]);

        found = strcmp(name, call) == 0;
    }
    return found;
}

static void each_use_has_its_rule(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < FILTER_COUNT; kind++)
        for (size_t i = 0; i < ARRAY_LENGTH(uses); i++)
            if ((uses[i].kinds & 1u << kind) && !list_has(&lists[kind], uses[i].call))
                fail_msg("%s threads may not call %s", lists[kind].name, uses[i].call);
}

static void they_stay_small(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < FILTER_COUNT; kind++) {
        const struct rule_list *list = &lists[kind];
        size_t distinct = 0;

        for (size_t i = 0; i < list->count; i++) {
            bool seen = false;

            for (size_t k = 0; k < i; k++)
                seen |= list->rules[k].call == list->rules[i].call;
            distinct += !seen;
        }
        print_message("%s threads: %zu distinct system calls of at most %zu\n", list->name,
                      distinct, list->distinct_max);
        assert_in_range(distinct, 1, list->distinct_max);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forbidden_calls_kill),     cmocka_unit_test(needed_calls_pass),
        cmocka_unit_test(each_kind_has_its_own),    cmocka_unit_test(each_rule_has_its_use),
        cmocka_unit_test(each_use_has_its_rule),    cmocka_unit_test(they_stay_small),
        cmocka_unit_test(a_refused_call_lets_live),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
