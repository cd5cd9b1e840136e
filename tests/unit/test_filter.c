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
#include <linux/vhost.h>
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

#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#endif
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
    { "process_vm_writev", SYS_process_vm_writev, { 0 } },
    { "pidfd_getfd", SYS_pidfd_getfd, { -1 } },
    { "creat", SYS_creat, { (long)"/" } },
    { "open_by_handle_at", SYS_open_by_handle_at, { -1 } },
    { "socketpair", SYS_socketpair, { AF_UNIX, SOCK_STREAM } },
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
    { "madvise MADV_MERGEABLE", SYS_madvise, { 0, 4096, MADV_MERGEABLE } },
    { "prctl PR_SET_MEMORY_MERGE", SYS_prctl, { PR_SET_MEMORY_MERGE, 1 } },
    { "madvise MADV_DODUMP", SYS_madvise, { 0, 4096, MADV_DODUMP } },
    { "accept4 elsewhere", SYS_accept4, { VMM_LISTENER_FD + 1 } },
    { "ioctl KVM_CREATE_VM", SYS_ioctl, { -1, KVM_CREATE_VM } },
    { "ioctl KVM_SET_USER_MEMORY_REGION", SYS_ioctl, { -1, KVM_SET_USER_MEMORY_REGION } },
    { "ioctl VHOST_SET_LOG_BASE", SYS_ioctl, { -1, VHOST_SET_LOG_BASE } },
    { "ioctl VHOST_SET_LOG_FD", SYS_ioctl, { -1, VHOST_SET_LOG_FD } },
    { "ioctl VHOST_RESET_OWNER", SYS_ioctl, { -1, VHOST_RESET_OWNER } },
    { "ioctl TIOCSTI", SYS_ioctl, { -1, 0x5412 } },
    { "setuid", SYS_setuid, { 0 } },
    { "unshare", SYS_unshare, { 0 } },
    { "x32 read", SYS_read | 0x40000000, { -1 } },
};

static const struct call allowed[FILTER_COUNT][16] = {
    [FILTER_VCPU] = {
        { "ioctl KVM_RUN", SYS_ioctl, { -1, KVM_RUN } },
        { "ioctl KVM_IRQFD", SYS_ioctl, { -1, KVM_IRQFD } },
        { "ioctl VHOST_NET_SET_BACKEND", SYS_ioctl, { -1, VHOST_NET_SET_BACKEND } },
        { "ioctl VHOST_GET_VRING_BASE", SYS_ioctl, { -1, VHOST_GET_VRING_BASE } },
        { "write", SYS_write, { -1 } },
        { "mmap", SYS_mmap, { 0, 4096, PROT_READ | PROT_WRITE, ANONYMOUS, -1, 0 } },
        { "clock_gettime", SYS_clock_gettime, { CLOCK_MONOTONIC, 0 } },
        { "fdatasync", SYS_fdatasync, { -1 } },
        { "pwritev", SYS_pwritev, { -1 } },
    },
    [FILTER_DEVICES] = {
        { "accept4", SYS_accept4, { VMM_LISTENER_FD, 0, 0, 0 } },
        { "getsockopt", SYS_getsockopt, { -1, SOL_SOCKET, SO_PEERCRED } },
        { "preadv", SYS_preadv, { -1 } },
        { "fallocate", SYS_fallocate, { -1 } },
        { "epoll_pwait", SYS_epoll_pwait, { -1 } },
        { "madvise MADV_FREE", SYS_madvise, { 0, 0, MADV_FREE } },
        { "madvise MADV_DONTNEED", SYS_madvise, { 0, 0, MADV_DONTNEED } },
        { "madvise MADV_NOHUGEPAGE", SYS_madvise, { 0, 0, MADV_NOHUGEPAGE } },
        { "mmap over a file", SYS_mmap,
          { 1, 4096, PROT_READ | PROT_WRITE, ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0 } },
        { "mmap a file privately", SYS_mmap,
          { 1, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, -1, 0 } },
        { "mmap a bitmap", SYS_mmap,
          { 0, 4096, PROT_READ | PROT_WRITE, ANONYMOUS | MAP_NORESERVE, -1, 0 } },
        { "mmap a ring", SYS_mmap,
          { 0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, -1, 0 } },
        { "io_uring_enter", SYS_io_uring_enter, { -1 } },
        { "ioctl VHOST_SET_MEM_TABLE", SYS_ioctl, { -1, VHOST_SET_MEM_TABLE } },
        { "ioctl VHOST_SET_VRING_KICK", SYS_ioctl, { -1, VHOST_SET_VRING_KICK } },
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
    static const struct call table = { "VHOST_SET_MEM_TABLE",
                                       SYS_ioctl,
                                       { -1, VHOST_SET_MEM_TABLE } };
    static const struct call enter = { "io_uring_enter", SYS_io_uring_enter, { -1 } };

    (void)state;
    need_filters();
    assert_int_equal(outcome(FILTER_DEVICES, &run), SIGSYS);
    assert_int_equal(outcome(FILTER_VCPU, &accept), SIGSYS);
    assert_int_equal(outcome(FILTER_VCPU, &enter), SIGSYS);
    assert_int_equal(outcome(FILTER_VCPU, &table), SIGSYS);
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
        _exit(syscall(SYS_mremap, 0, 4096, 8192, MREMAP_MAYMOVE) == -1 && errno == ENOMEM ? 0 : 2);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* --- how many there are; that each is used: tests/integration/filters --- */

static const struct rule_list {
    const char *name;
    const struct filter_rule *rules;
    size_t count, distinct_max;
} lists[FILTER_COUNT] = {
    [FILTER_VCPU] = { "vCPU", vcpu_rules, ARRAY_LENGTH(vcpu_rules), VCPU_CALLS_MAX },
    [FILTER_DEVICES] = { "device", device_rules, ARRAY_LENGTH(device_rules), DEVICE_CALLS_MAX },
};

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
        cmocka_unit_test(each_kind_has_its_own),    cmocka_unit_test(they_stay_small),
        cmocka_unit_test(a_refused_call_lets_live),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
