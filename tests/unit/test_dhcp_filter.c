/* test_dhcp_filter.c - what dnsmasq's system call filter refuses, seen from inside; that dnsmasq
 * can do its work with it is tests/integration/net. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/sockios.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/sandbox.h"
#include "net/dhcp_filter.inc"

static const struct {
    const char *name;
    long call;
    long arguments[5];
} refused[] = {
    { "packet filters", SYS_socket, { AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER } },
    { "the audit log", SYS_socket, { AF_NETLINK, SOCK_RAW, NETLINK_AUDIT } },
    { "frames", SYS_socket, { AF_PACKET, SOCK_RAW } },
    { "raw IP", SYS_socket, { AF_INET, SOCK_RAW } },
    { "local services", SYS_socket, { AF_UNIX, SOCK_STREAM } },
    { "guests' vsocks", SYS_socket, { AF_VSOCK, SOCK_STREAM } },
    { "a program", SYS_execve, { 0 } },
    { "a program by its name", SYS_execveat, { -1 } },
    { "user namespaces", SYS_clone, { CLONE_NEWUSER | SIGCHLD } },
    { "threads", SYS_clone, { CLONE_VM | CLONE_THREAD | CLONE_SIGHAND } },
    { "clone3", SYS_clone3, { 0 } },
    { "unshare", SYS_unshare, { CLONE_NEWNS } },
    { "setns", SYS_setns, { -1 } },
    { "mount", SYS_mount, { 0 } },
    { "umount", SYS_umount2, { 0 } },
    { "pivot_root", SYS_pivot_root, { 0 } },
    { "chroot", SYS_chroot, { 0 } },
    { "ptrace", SYS_ptrace, { 0 } },
    { "others' memory", SYS_process_vm_readv, { 0 } },
    { "others' files", SYS_pidfd_getfd, { -1 } },
    { "bpf", SYS_bpf, { 0 } },
    { "io_uring", SYS_io_uring_setup, { 0 } },
    { "userfaultfd", SYS_userfaultfd, { 0 } },
    { "perf", SYS_perf_event_open, { 0 } },
    { "keys", SYS_keyctl, { 0 } },
    { "changes of interfaces", SYS_ioctl, { 0, SIOCSIFFLAGS } },
    { "other prctls", SYS_prctl, { PR_SET_DUMPABLE, 1 } },
    { "new limits", SYS_prlimit64, { 0, 7, 1 } },
    { "links", SYS_symlink, { 0 } },
    { "owners", SYS_fchown, { -1 } },
    { "the clock", SYS_clock_settime, { 0 } },
};

static bool is_refused(size_t i)
{
    const long *a = refused[i].arguments;

    return syscall(refused[i].call, a[0], a[1], a[2], a[3], a[4]) == -1 && errno == ENOSYS;
}

/* Sanitizers do more in _exit than dnsmasq may. */
static void leave(int status)
{
    syscall(SYS_exit_group, status);
}

/* 0 if `inside` is true under the filter. */
static int run_filtered(bool (*inside)(size_t), size_t i)
{
    int status;
    pid_t child = fork();

    if (child == 0) {
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
            sandbox_filter(dhcp_filter, ARRAY_LENGTH(dhcp_filter)) < 0)
            leave(2);
        leave(inside(i) ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void what_it_has_no_use_for_is_not_there(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(refused); i++)
        if (run_filtered(is_refused, i) != 0)
            fail_msg("%s", refused[i].name);
}

static bool works(size_t i)
{
    pid_t child;
    int status = 1;

    (void)i;
    if (socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0) < 0 ||
        socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE) < 0 || open("/dev/null", O_RDWR) < 0)
        return false;
    child = fork();
    if (child == 0)
        leave(0);
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

static void what_it_does_is(void **state)
{
    (void)state;
    assert_int_equal(run_filtered(works, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_it_has_no_use_for_is_not_there),
        cmocka_unit_test(what_it_does_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
